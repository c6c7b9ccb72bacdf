"""Which users refuse to be trained on, by their latest word in the store and in history."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from itertools import chain

from ratchet.store.events import EventStore
from ratchet.store.history import History
from ratchet.store.permissions import CONSENT, Word, read_words, refusing


def refusing_users(store: EventStore, history: History, users: Collection[str]) -> set[str]:
    """Return those of the users whose latest word about training is a refusal.

    Who said nothing is not among them.
    """
    with store.reading() as connection:
        stored = list(read_words(connection, users))
    return refusing(chain(stored, _words_in(history, users)))


def _words_in(history: History, users: Collection[str]) -> Iterator[Word]:
    """Yield what users said about training, as far as history holds it."""
    if not users or history.cursor() is None:
        return
    told = (
        "SELECT user_id, created_at, metadata FROM interactions "
        f"WHERE user_id IN (SELECT unnest(?)) AND contains(metadata, '\"{CONSENT}\"')"
    )
    with history.connect() as duckdb:
        for batch in duckdb.sql(told, params=[list(users)]).to_arrow_reader(10_000):
            for row in batch.to_pylist():
                word = json.loads(row["metadata"]).get(CONSENT)
                if word is not None:
                    yield row["user_id"], row["created_at"], word
