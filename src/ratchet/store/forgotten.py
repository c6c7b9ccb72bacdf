"""Who was forgotten, so that what they said is not stored again.

A replay of the gateway's log, a second import of the same file or a restored backup may bring in
again what was erased. So digests stay: of the forgotten user's id with the time until which the
user is forgotten, and of the ids of the interactions that were erased. An event of that user from
before that time, an erased interaction, and words about one, are not stored. A user who comes back
afterwards is one whom nobody has forgotten.

A digest names nobody, but whoever can guess an id can tell whether it is among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from ratchet.records.signals import TEXT_KINDS
from ratchet.store.event_rows import FeedbackRow, InteractionRow
from ratchet.store.rows import chunks, microseconds
from ratchet.store.transactions import Transactions, insert_if_new

USER, INTERACTION = "user", "interaction"
_TEXTS = frozenset(TEXT_KINDS)
R = TypeVar("R", InteractionRow, FeedbackRow)


def digest_of(name: str) -> str:
    """Return what stands for a user or an interaction that was forgotten: the SHA-256 of its id."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What is known of some users and interactions.

    Attributes:
        users: Until when, in microseconds since 1970, each of the users is forgotten.
        interactions: Those that were erased.
    """

    users: Mapping[str, int] = field(default_factory=dict)
    interactions: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.users or self.interactions)

    def covers(self, user: str | None, interaction: str | None, at: int | None) -> bool:
        """Tell whether something is a forgotten user's, or about an erased interaction.

        Args:
            user: Whose it is, where that is known.
            interaction: What it is, or what it is about.
            at: When it was said; of what has no time, all is the forgotten user's.
        """
        if interaction is not None and interaction in self.interactions:
            return True
        until = None if user is None else self.users.get(user)
        return until is not None and (at is None or at <= until)


NOBODY = Forgotten()


def make_table(metadata: sa.MetaData) -> sa.Table:
    """Return the table; nothing but digests and a time is in it."""
    return sa.Table(
        "forgotten",
        metadata,
        sa.Column("about", sa.String(20), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("until", sa.BigInteger, nullable=False),
    )


def name_from_erasures(connection: sa.Connection, table: sa.Table, journal: sa.Table) -> None:
    """Name the users whom an older version forgot, by the records of their erasures."""
    query = sa.select(journal.c.body, journal.c.created_at).where(journal.c.kind == "Erasure")
    until: dict[str, int] = {}
    for body, at in connection.execute(query):
        digest = body["user_digest"]
        until[digest] = max(at, until.get(digest, 0))
    rows = [{"about": USER, "digest": key, "until": at} for key, at in until.items()]
    if rows:
        connection.execute(insert_if_new(connection, table), rows)


def forget_user(store: Transactions, table: sa.Table, user_digest: str, now: datetime) -> None:
    """Keep that a user is forgotten, with what they said until now."""
    row = {"about": USER, "digest": user_digest, "until": microseconds(now)}
    mine = sa.and_(table.c.about == USER, table.c.digest == user_digest)
    later = sa.update(table).where(mine, table.c.until < row["until"])
    with store.atomic() as connection:
        connection.execute(insert_if_new(connection, table), [row])
        connection.execute(later.values(until=row["until"]))


def forget_interactions(
    store: Transactions, table: sa.Table, ids: Iterable[str], now: datetime
) -> None:
    """Keep that interactions are erased."""
    until = microseconds(now)
    for chunk in chunks(ids):
        rows = [{"about": INTERACTION, "digest": digest_of(key), "until": until} for key in chunk]
        with store.adding() as connection:
            connection.execute(insert_if_new(connection, table), rows)


def read_forgotten(
    connection: sa.Connection,
    table: sa.Table,
    users: Collection[str],
    interactions: Collection[str],
) -> Forgotten:
    """Return those of some users and interactions that are forgotten."""
    if not (users or interactions):
        return NOBODY
    if connection.execute(sa.select(table.c.until).limit(1)).first() is None:
        return NOBODY
    found_users = _until(connection, table, USER, users)
    found = _until(connection, table, INTERACTION, interactions)
    return Forgotten(found_users, frozenset(found))


def without_forgotten(
    connection: sa.Connection, table: sa.Table, rows: Sequence[R]
) -> tuple[Sequence[R], list[R]]:
    """Return the rows that may be stored, and those that may not."""
    forgotten = read_forgotten(
        connection, table, {row.user_id for row in rows if row.user_id}, set(map(_about, rows))
    )
    if not forgotten:
        return rows, []
    kept: list[R] = []
    dropped: list[R] = []
    for row in rows:
        (dropped if _is_forgotten(row, forgotten) else kept).append(row)
    return kept, dropped


def without_words(
    connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return rows to set aside; of those that name a forgotten user the words are taken out."""
    forgotten = read_forgotten(
        connection,
        table,
        {row["user_id"] for row in rows if row["user_id"]},
        {row["interaction_id"] for row in rows if row["interaction_id"]},
    )
    if not forgotten:
        return rows
    gone = {"raw": "", "user_id": None, "interaction_id": None}
    return [
        # what broke a rule may have no time, or a false one
        row | gone | {"reason": row["reason"].partition(", got ")[0]}
        if forgotten.covers(row["user_id"], row["interaction_id"], None)
        else row
        for row in rows
    ]


def _about(row: InteractionRow | FeedbackRow) -> str:
    return row.id if isinstance(row, InteractionRow) else row.interaction_id


def _is_forgotten(row: InteractionRow | FeedbackRow, forgotten: Forgotten) -> bool:
    if forgotten.covers(row.user_id, None, row.created_at):
        return True
    if _about(row) not in forgotten.interactions:
        return False
    # somebody's thumb on an erased answer is a number, which stays
    return isinstance(row, InteractionRow) or row.kind in _TEXTS


def _until(
    connection: sa.Connection, table: sa.Table, about: str, names: Collection[str]
) -> dict[str, int]:
    by_digest = {digest_of(name): name for name in names}
    found: dict[str, int] = {}
    for chunk in chunks(by_digest):
        query = sa.select(table.c.digest, table.c.until).where(
            table.c.about == about, table.c.digest.in_(chunk)
        )
        found |= {by_digest[row[0]]: row[1] for row in connection.execute(query)}
    return found
