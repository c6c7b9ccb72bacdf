"""Partitions by month of a PostgreSQL store's interactions and feedback.

A row's month is that of its `created_at` in UTC. Months from five years ago to the next one get a
partition when the first row of theirs comes in; rows of any other time lie in `<table>_other`. The
table of ids keeps each id once over all partitions and says where its row lies: a trigger writes it
together with the row.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import sqlalchemy as sa

from ratchet.store.connections import unpooled
from ratchet.store.rows import microseconds, moment_of, one_of
from ratchet.store.sqlstates import CHECK_FAILED, DEADLOCK, NO_LOCK, sqlstate

logger = logging.getLogger(__name__)

PARTITIONED = ("interactions", "feedback")
_OLDEST_MONTHS = 60
_MOVED_ROWS = 20_000
_LEFT_ROWS, _LARGE_BYTES = 2_000, 64 * 2**20
_PAUSE_SECONDS = 60.0
_BOUND = re.compile(r"\('(-?\d+)'\)|\((-?\d+)\)|\((MINVALUE|MAXVALUE)\)")


class _Dated(Protocol):
    @property
    def created_at(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a table: rows with `start <= created_at < end`, in microseconds since 1970.

    Attributes:
        table: Of which it is a part.
        name: Its own, as SQL writes it.
        start: None: there is no earliest.
        end: None: there is no latest.
        other: Holds the rows that no other partition does; start and end are None.
    """

    table: str
    name: str
    start: int | None
    end: int | None
    other: bool

    def holds(self, moment: int) -> bool:
        """Tell whether a row of this time belongs here and nowhere else."""
        after = self.start is None or self.start <= moment
        return not self.other and after and (self.end is None or moment < self.end)


def ids_of(table: str) -> str:
    """Return the name of a table's table of ids."""
    return {"interactions": "interaction_ids", "feedback": "feedback_ids"}[table]


def read_partitions(connection: sa.Connection, table: str) -> tuple[Partition, ...]:
    """Return the partitions of a table, those without a start first and that of the rest last."""
    query = sa.text(
        "SELECT inhrelid::regclass::text, pg_get_expr(relpartbound, inhrelid) FROM pg_inherits "
        "JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = to_regclass(:table) AND NOT inhdetachpending"
    )
    found = []
    for name, bounds in connection.execute(query, {"table": table}):
        if bounds == "DEFAULT":
            found.append(Partition(table, name, None, None, other=True))
        else:
            start, end = (_bound(*match) for match in _BOUND.findall(bounds))
            found.append(Partition(table, name, start, end, other=False))
    return tuple(sorted(found, key=lambda part: (part.other, part.start or -(2**63))))


def _bound(quoted: str, plain: str, open_end: str) -> int | None:
    return None if open_end else int(quoted or plain)


def month_of(moment: int) -> int:
    """Return the number of a time's month: twelve times the year, and the months since January."""
    at = moment_of(moment)
    return at.year * 12 + at.month - 1


def start_of(month: int) -> int:
    """Return when a month begins, in microseconds since 1970."""
    return microseconds(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))


class Months:
    """Makes a store's partitions as its rows need them, and drops those that were emptied."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self._engine = unpooled(engine)  # a transaction of this process may be open
        self._clock = clock
        self._known: set[tuple[str, int]] = set()
        self._not_before: dict[str, float] = {}

    def prepare(self, table: str, rows: Sequence[_Dated]) -> None:
        """Make the partitions that rows to be stored need, those of the next month among them.

        Nobody waits for it: where others hold the table, rows go into `<table>_other`, and move
        when the partition is made later.
        """
        if self._engine.dialect.name != "postgresql" or not rows:
            return
        missing = [month for month in self._needed(rows) if (table, month) not in self._known]
        if not missing or time.monotonic() < self._not_before.get(table, 0.0):
            return
        try:
            with self._engine.begin() as connection:
                make_months(connection, table, missing)
            with self._engine.begin() as connection:
                now = microseconds(self._clock())
                drop_emptied_months(connection, table, now, besides=missing)
        except sa.exc.DBAPIError as error:
            # a check fails where another stored a row of the month after those of before had moved
            if sqlstate(error) not in (NO_LOCK, DEADLOCK, CHECK_FAILED):
                raise
            self._not_before[table] = time.monotonic() + _PAUSE_SECONDS
            logger.info("%s: partitions are made later, others hold the table", table)
            return
        self._known.update((table, month) for month in missing)

    def _needed(self, rows: Sequence[_Dated]) -> list[int]:
        now = month_of(microseconds(self._clock()))
        months = range(now - _OLDEST_MONTHS, now + 2)
        starts = np.array([start_of(month) for month in (*months, now + 2)])
        moments = np.fromiter((row.created_at for row in rows), np.int64, len(rows))
        places = np.unique(np.searchsorted(starts, moments, side="right")) - 1
        needed = {months[place] for place in places if 0 <= place < len(months)}
        return sorted(needed | ({now + 1} if now in needed else set()))


def make_months(connection: sa.Connection, table: str, months: Iterable[int]) -> None:
    """Make the partitions of months, where there are none, and move their rows there.

    Raises:
        sqlalchemy.exc.OperationalError: Others hold the table (SQLSTATE 55P03).
    """
    run = connection.exec_driver_sql
    run("SET LOCAL lock_timeout = '200ms'")
    run("SELECT pg_advisory_xact_lock(7246485, hashtext(current_schema()))")
    parts = read_partitions(connection, table)
    for month in months:
        start, end = start_of(month), start_of(month + 1)
        if any(part.holds(start) or part.holds(end - 1) for part in parts):
            continue
        inside = f"created_at >= {start} AND created_at < {end}"
        rows = f"SELECT 1 FROM {table}_other WHERE {inside} LIMIT {_MOVED_ROWS + 1}"
        if len(run(rows).all()) > _MOVED_ROWS:
            continue  # to move them would take long; they are found where they are
        name = f"{table}_{month // 12:04}_{month % 12 + 1:02}"
        make_part(connection, table, name)
        run(f"ALTER TABLE {name} ADD CONSTRAINT {name}_month CHECK ({inside})")
        run(
            f"WITH moved AS (DELETE FROM {table}_other WHERE {inside} RETURNING *) "
            f"INSERT INTO {name} SELECT * FROM moved"
        )
        attach(connection, table, name, f"FOR VALUES FROM ({start}) TO ({end})")
        run(f"ALTER TABLE {name} DROP CONSTRAINT {name}_month")


def drop_emptied_months(
    connection: sa.Connection, table: str, now: int, *, besides: Sequence[int] = ()
) -> None:
    """Drop the partitions of past months whose rows were deleted: the space is given back.

    Of a large partition with a few rows left these move to `<table>_other`. The month of now and
    the one before stay, and those in `besides`, whose rows are about to come.

    Raises:
        sqlalchemy.exc.OperationalError: Others hold the table (SQLSTATE 55P03).
    """
    run = connection.exec_driver_sql
    run("SET LOCAL lock_timeout = '200ms'")
    past = start_of(month_of(now) - 1)
    for part in read_partitions(connection, table):
        coming = part.start is not None and month_of(part.start) in besides
        if part.other or part.end is None or part.end > past or coming:
            continue
        left = len(run(f"SELECT 1 FROM {part.name} LIMIT {_LEFT_ROWS + 1}").all())
        size = run(f"SELECT pg_total_relation_size('{part.name}')").scalar_one()
        if left and (left > _LEFT_ROWS or size < _LARGE_BYTES):
            continue
        run(f"ALTER TABLE {table} DETACH PARTITION {part.name}")
        run(f"INSERT INTO {table}_other SELECT * FROM {part.name}")
        run(f"DROP TABLE {part.name}")
        logger.info("dropped %s: its rows were deleted", part.name)


def make_part(connection: sa.Connection, table: str, name: str) -> None:
    """Make a table like another one, with unique positions and ids of its own."""
    connection.exec_driver_sql(
        f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE, "
        "PRIMARY KEY (position), UNIQUE (id))"
    )


def attach(connection: sa.Connection, table: str, name: str, bounds: str) -> None:
    """Make a table a partition of another one; indexes that it lacks are made."""
    connection.exec_driver_sql(f"ALTER TABLE {table} ATTACH PARTITION {name} {bounds}")


def with_ids(
    connection: sa.Connection, table: sa.Table, ids: Sequence[str]
) -> sa.ColumnElement[bool]:
    """Return the condition that a row of a table has one of the ids.

    On PostgreSQL the table of ids says in which partition each lies, and no other is looked into.
    """
    if connection.dialect.name != "postgresql":
        return one_of(connection, table.c.id, ids)
    known = sa.table(ids_of(table.name), sa.column("id", sa.String), sa.column("created_at"))
    places = sa.select(known.c.id, known.c.created_at).where(one_of(connection, known.c.id, ids))
    return sa.tuple_(table.c.id, table.c.created_at).in_(places)
