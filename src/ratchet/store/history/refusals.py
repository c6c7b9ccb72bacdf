"""Who refuses to be trained on, by the latest word in the store and in history.

The store lets go of what is older than its retention, and a refusal does not end with it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from ratchet.store.events import EventStore
from ratchet.store.history import History
from ratchet.store.permissions import (
    CONSENT,
    Word,
    read_not_for_good,
    read_words,
    refusing,
)


def refusing_users(store: EventStore, history: History, users: Collection[str]) -> set[str]:
    """Return those of the users whose latest word about training is a refusal.

    Who said nothing is not among them.
    """
    with store.reading() as connection:
        stored = list(read_words(connection, users))
    return refusing(chain(stored, _words_in(history, users)))


def not_for_good(store: EventStore, history: History, ids: Iterable[str]) -> set[str]:
    """Return those of the interactions that must not become examples which stay for good.

    Their user refuses training, then or later, or lets them be kept for a time only.
    """
    with store.reading() as connection:
        found, of_user = read_not_for_good(connection, ids)
    return found.union(*(of_user[user] for user in refusing_users(store, history, of_user)))


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
