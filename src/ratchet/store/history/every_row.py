"""Every row that a store ever took, in the order of arrival: from the store, else from history.

What was pruned from the store lies in history; what is not copied yet lies in the store alone. A
row that is in both is taken from the store. Memory follows the size of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from ratchet.store.arrivals import last_position
from ratchet.store.events import EventStore
from ratchet.store.history import History
from ratchet.store.history.layout import COLUMNS, STORED, HistoryTable, schema_of, stored_columns
from ratchet.store.rows import microseconds

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

BLOCK = 4_000
"""Positions that are read together: some 10 MB of interactions."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows are read; None for all.

    Attributes:
        since: `created_at` then or later.
        until: `created_at` before.
        model_version: Of interactions.
        segment: Of interactions.
    """

    since: datetime | None = None
    until: datetime | None = None
    model_version: str | None = None
    segment: str | None = None

    @property
    def equal(self) -> dict[str, str]:
        """Columns that must have a value."""
        named = {"model_version": self.model_version, "segment": self.segment}
        return {name: value for name, value in named.items() if value is not None}


EVERYTHING = Chosen()


def every_row(
    store: EventStore, history: History, table: HistoryTable, chosen: Chosen = EVERYTHING
) -> Iterator[pa.RecordBatch]:
    """Yield rows of a table in the order of arrival, with the columns of history.

    Args:
        store: The store.
        history: Its history; one that nothing was written to has no rows.
        table: `interactions` or `feedback`.
        chosen: Which; version and segment only of interactions.

    Raises:
        ConflictError: The history is one of another store.
    """
    cursor = history.cursor_of(store)
    copied = 0 if cursor is None else cursor.of(table)
    stored = last_position(store)
    last = max(copied, stored.interactions if table == "interactions" else stored.feedback)
    start = _first_position(store, history, table, chosen, copied)
    with history.connect() if copied else nullcontext() as connection:
        for after in range(start, last, BLOCK):
            until = min(after + BLOCK, last)
            rows, there = _in_store(store, table, chosen, after, until)
            if connection is not None and after < copied and len(there) < until - after:
                rows = _with_pruned(connection, table, chosen, rows, there, (after, until))
            yield from rows.to_batches() if rows.num_rows else ()


def _first_position(
    store: EventStore, history: History, table: HistoryTable, chosen: Chosen, copied: int
) -> int:
    """Return a position behind which all chosen rows lie."""
    column = STORED[table].c
    query = sa.select(sa.func.min(column.position))
    if chosen.since is not None:
        query = query.where(column.created_at >= microseconds(chosen.since))
    with store.reading() as connection:
        first = connection.execute(query).scalar()
    found = [] if first is None else [int(first)]
    day = chosen.since and (chosen.since - timedelta(days=1)).date()
    files = history.readable() if copied else []
    # a row of feedback lies under the day of its arrival, which its own time never comes after
    found += [f.first for f in files if f.table == table and (day is None or f.day >= day)]
    return min(found) - 1 if found else max(copied, 0)


def _in_store(
    store: EventStore, table: HistoryTable, chosen: Chosen, after: int, until: int
) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Return the chosen rows in (after, until], and all positions that the store has there."""
    import pyarrow as pa

    stored, schema = STORED[table], schema_of(table)
    block = sa.and_(stored.c.position > after, stored.c.position <= until)
    wanted = [stored.c[name] == value for name, value in chosen.equal.items()]
    if chosen.since is not None:
        wanted.append(stored.c.created_at >= microseconds(chosen.since))
    if chosen.until is not None:
        wanted.append(stored.c.created_at < microseconds(chosen.until))
    with store.reading() as connection:
        query = sa.select(*stored_columns(table)).where(block, *wanted).order_by(stored.c.position)
        rows = connection.execute(query).all()
        there = connection.execute(sa.select(stored.c.position).where(block)).scalars().all()
    values = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(part, field.type) for part, field in zip(values, schema, strict=True)]
    positions = [*there, *(row[0] for row in rows)]  # what was pruned meanwhile was read before
    return pa.Table.from_arrays(arrays, schema=schema), np.unique(np.array(positions, np.int64))


def _with_pruned(
    connection: duckdb.DuckDBPyConnection,
    table: HistoryTable,
    chosen: Chosen,
    rows: pa.Table,
    there: np.ndarray[Any, Any],
    block: tuple[int, int],
) -> pa.Table:
    """Return rows of a block with those that history has and the store no longer does."""
    import pyarrow as pa

    inside = f"FROM {table} WHERE position > ? AND position <= ?"
    found = connection.execute(f"SELECT position {inside}", list(block)).fetchall()
    if not np.setdiff1d(np.array([row[0] for row in found], np.int64), there).size:
        return rows
    values: list[Any] = [*block, *chosen.equal.values()]
    inside += "".join(f" AND {name} = ?" for name in chosen.equal)
    for limit, moment in ((">=", chosen.since), ("<", chosen.until)):
        if moment is not None:
            inside += f" AND created_at {limit} ?"
            values.append(moment)
    query = f"SELECT {', '.join(COLUMNS[table])} {inside}"
    more: pa.Table = connection.sql(query, params=values).to_arrow_table()
    more = more.cast(schema_of(table))
    pruned = more.filter(pa.array(~np.isin(more["position"].to_numpy(), there)))
    return pa.concat_tables([rows, pruned]).sort_by("position").combine_chunks()
