"""Retention of interactions and feedback: the partitions there are, and old rows deleted.

On PostgreSQL whole months are dropped; what lies in a partition with later rows, and all rows on
SQLite, is deleted in short transactions. No step holds a lock that stops writers for a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import sqlalchemy as sa

from ratchet.errors import BusyError
from ratchet.store.events import EventStore
from ratchet.store.months import PARTITIONED, Partition, ids_of, read_partitions
from ratchet.store.rows import microseconds
from ratchet.store.sqlstates import DEADLOCK, NO_LOCK, sqlstate
from ratchet.store.tables import INTERACTIONS

_ROWS, _ROWS_SQLITE = 5_000, 1_000  # of a transaction
_ATTEMPTS, _PAUSE_SECONDS = 240, 0.25


def partitions(store: EventStore) -> tuple[Partition, ...]:
    """Return the partitions of interactions and of feedback; none on SQLite."""
    with store.reading() as connection:
        if connection.dialect.name != "postgresql":
            return ()
        return tuple(part for table in PARTITIONED for part in read_partitions(connection, table))


def drop_months(store: EventStore, before: datetime) -> dict[str, int]:
    """Delete the interactions and feedback created before a time; return how many, by table.

    Interrupted, it is called again and goes on. On SQLite the row that arrived last stays, so that
    no later row gets a position that a cursor has passed.

    Raises:
        BusyError: Others hold the tables in a long transaction.
    """
    end = microseconds(before)
    return {table: _drop(store, table, end) for table in PARTITIONED}


def _drop(store: EventStore, table: str, end: int) -> int:
    parts = [part for part in partitions(store) if part.table == table]
    if not parts:
        return _delete(store, _Rows(table, None, end))
    for part in parts:
        if part.end is not None and part.end <= end:
            _patiently(partial(_detach, store, part))
    deleted = sum(
        _delete(store, _Rows(part.name, ids_of(table), end))
        for part in parts
        if part.other or ((part.end is None or part.end > end) and _begins(part) < end)
    )
    for gone in _detached(store, table):
        deleted += _delete(store, _Rows(gone, ids_of(table), None))
        with store.adding() as connection:
            connection.exec_driver_sql(f"DROP TABLE {gone}")
    return deleted


def _begins(part: Partition) -> float:
    return -math.inf if part.start is None else part.start


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is deleted.

    Attributes:
        table: A table or partition.
        ids: Where its ids are kept apart; None on SQLite.
        end: Rows created before this; None: all, of a table that is dropped as a whole.
    """

    table: str
    ids: str | None
    end: int | None


def _delete(store: EventStore, what: _Rows) -> int:
    """Delete rows and their ids in short transactions; return how many."""
    rows = sa.table(what.table, *map(sa.column, ("position", "id", "created_at")))
    query = sa.select(rows.c.position, rows.c.id).limit(_ROWS if what.ids else _ROWS_SQLITE)
    if what.end is not None:
        query = query.where(rows.c.created_at < what.end)
    if what.ids is None:
        newest = sa.select(sa.func.max(rows.c.position)).scalar_subquery()
        query = query.where(rows.c.position < newest)
    # by the index of created_at where SQLite has one, or else once through in order of arrival
    indexed = what.table == INTERACTIONS.name and what.ids is None
    last = deleted = 0
    while True:
        part = query if indexed else query.where(rows.c.position > last).order_by(rows.c.position)
        with store.reading() as connection:
            found = connection.execute(part).all()
        if not found:
            return deleted
        last = found[-1].position
        with store.adding() as connection:
            if what.end is not None:
                positions = [row.position for row in found]
                connection.execute(sa.delete(rows).where(rows.c.position.in_(positions)))
            if what.ids is not None:
                ids = sa.table(what.ids, sa.column("id"))
                keys = [row.id for row in found]
                connection.execute(sa.delete(ids).where(ids.c.id.in_(keys)))
        deleted += len(found)


def _detach(store: EventStore, part: Partition) -> None:
    with store.adding() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")
        connection.exec_driver_sql(f"ALTER TABLE {part.table} DETACH PARTITION {part.name}")
        gone = f"{part.table}_gone_{part.name}"
        connection.exec_driver_sql(f"ALTER TABLE {part.name} RENAME TO {gone}")


def _detached(store: EventStore, table: str) -> list[str]:
    """Return the tables that are no partitions any more and wait to be dropped."""
    query = sa.text(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE :name "
        "AND relnamespace = to_regnamespace(current_schema()) ORDER BY 1"
    )
    with store.reading() as connection:
        return list(connection.execute(query, {"name": f"{table}\\_gone\\_%"}).scalars())


def _patiently(attempt: Callable[[], None]) -> None:
    """Try again where others hold a table, and let them through in between."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            return attempt()
        except sa.exc.OperationalError as error:
            if sqlstate(error) not in (NO_LOCK, DEADLOCK):
                raise
            if not left:
                raise BusyError(
                    "old months are dropped while nobody holds the tables, got somebody for "
                    f"{_ATTEMPTS * (_PAUSE_SECONDS + 0.5):.0f} s; end what reads or writes in one "
                    "long transaction (pg_stat_activity shows it), and prune again"
                ) from error
            time.sleep(_PAUSE_SECONDS)
    return None
