"""Adding interactions and feedback: each id once, by however many writers at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ratchet.store.rows import chunks
from ratchet.store.transactions import insert_new, pairs


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch.

    Attributes:
        new: Events stored by this call.
        repeated: Events that were there already with the same content.
        conflicts: Ids that were there already with other content; the stored one stands.
    """

    new: int
    repeated: int
    conflicts: tuple[str, ...]


def add_events(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[dict[str, Any]],
    *,
    identify: Callable[[sa.Connection, Sequence[dict[str, Any]]], None] | None = None,
) -> Added:
    """Store the rows whose ids are new.

    A row whose id another writer stored meanwhile is compared with what that one stored.

    Args:
        connection: An open transaction, announced (`ratchet.store.positions`).
        table: Interactions or feedback.
        rows: Of the table, without positions.
        identify: Gives rows the ids of the versions that they are, in place.
    """
    new, repeated, conflicts = 0, 0, []
    left = list(rows)
    while left:
        if identify is not None:
            identify(connection, left)
        late: list[dict[str, Any]] = []
        for chunk in chunks(left):
            query = sa.select(table.c.id, table.c.digest)
            ids = [row["id"] for row in chunk]
            stored = pairs(connection, query.where(table.c.id.in_(ids)))
            fresh: list[dict[str, Any]] = []
            for row in chunk:
                if row["id"] not in stored:
                    stored[row["id"]] = row["digest"]
                    fresh.append(row)
                elif stored[row["id"]] == row["digest"]:
                    repeated += 1
                else:
                    conflicts.append(row.get("version_of") or row["id"])
            missed = _insert(connection, table, fresh)
            new += len(fresh) - len(missed)
            late += missed
        left = late
    return Added(new=new, repeated=repeated, conflicts=tuple(conflicts))


def _insert(
    connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Insert rows; return those that another writer had stored by then."""
    if not rows:
        return []
    if connection.dialect.name == "sqlite":
        connection.execute(insert_new(connection, table), rows)  # writers take turns
        return []
    insert = insert_new(connection, table).returning(table.c.id)
    stored = set(connection.execute(insert, rows).scalars())
    return [row for row in rows if row["id"] not in stored]
