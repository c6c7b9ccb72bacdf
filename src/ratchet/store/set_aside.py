"""The table of rows that were set aside, with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ratchet.records import SetAside
from ratchet.store.naming import named_in
from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import SET_ASIDE


def set_aside_values(rows: Sequence[SetAside]) -> list[dict[str, Any]]:
    """Return the rows to insert."""
    return [
        row.model_dump(exclude={"position", "user_id", "interaction_id"})
        | {"where": row.position, "created_at": microseconds(row.created_at)}
        | _named(row)
        for row in rows
    ]


def _named(row: SetAside) -> dict[str, str | None]:
    """Return whom a row is about: as its reader says, else as far as its text says."""
    named = {"user_id": row.user_id, "interaction_id": row.interaction_id}
    return named if any(named.values()) else named_in(row.raw)


def read_set_aside(connection: sa.Connection, source: str | None) -> tuple[SetAside, ...]:
    """See `EventStore.set_aside_rows`."""
    query = sa.select(SET_ASIDE).order_by(SET_ASIDE.c.position)
    if source is not None:
        query = query.where(SET_ASIDE.c.source == source)
    return tuple(
        SetAside(
            id=row["id"],
            created_at=moment_of(row["created_at"]),
            source=row["source"],
            position=row["where"],
            reason=row["reason"],
            raw=row["raw"],
        )
        for row in connection.execute(query).mappings()
    )
