"""Which users refuse to be trained on, by their latest word in the store and in history."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from ratchet.store.events import EventStore
from ratchet.store.history import History
from ratchet.store.permissions import CONSENT, Permission
from ratchet.store.rows import chunks, moment_of
from ratchet.store.tables import INTERACTIONS


def refusing_users(
    store: EventStore, history: History, users: Collection[str], now: datetime
) -> set[str]:
    """Return those of the users whose latest word about training is a refusal.

    Of two words at one time the refusal counts. Who said nothing is not among them.
    """
    latest: dict[str, tuple[datetime, bool]] = {}

    def take(user: str, moment: datetime, said: str) -> None:
        word = moment, Permission(user, said, None).refuses(now, only_if_given=False)
        latest[user] = max(word, latest.get(user, word))

    consent = INTERACTIONS.c.metadata[CONSENT].as_string()
    query = sa.select(INTERACTIONS.c.user_id, INTERACTIONS.c.created_at, consent)
    with store.reading() as connection:
        for chunk in chunks(users):
            theirs = query.where(INTERACTIONS.c.user_id.in_(chunk), consent.is_not(None))
            for user, at, said in connection.execute(theirs):
                take(user, moment_of(at), said)
    if users and history.cursor() is not None:
        told = (
            "SELECT user_id, created_at, metadata FROM interactions "
            f"WHERE user_id IN (SELECT unnest(?)) AND contains(metadata, '\"{CONSENT}\"')"
        )
        with history.connect() as duckdb:
            for batch in duckdb.sql(told, params=[list(users)]).to_arrow_reader(10_000):
                for row in batch.to_pylist():
                    word = json.loads(row["metadata"]).get(CONSENT)
                    if word is not None:
                        take(row["user_id"], row["created_at"], word)
    return {user for user, (_, refuses) in latest.items() if refuses}
