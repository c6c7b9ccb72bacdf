"""Migrations, run on a store that others use meanwhile.

Each runs in a transaction of its own that records it, in turn among the processes that open the
store. On PostgreSQL none makes writers wait for more than half a second: it gives up a lock that it
does not get and tries again. Indexes of large tables are made after the transaction, without a lock
that stops writers; the migration is recorded once they are there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import sqlalchemy as sa

from ratchet.errors import BusyError
from ratchet.store.connections import unpooled
from ratchet.store.indexes import build_index, indexes_left
from ratchet.store.rows import microseconds
from ratchet.store.sqlstates import DEADLOCK, NO_LOCK, sqlstate
from ratchet.store.tables import APPLIED
from ratchet.store.transactions import JOURNAL_LOCK

logger = logging.getLogger(__name__)

LOCK_SECONDS = 0.5
_PATIENCE_SECONDS = 3600.0
_PAUSE_SECONDS = 0.25
_TURN = "(7246484, hashtext(current_schema()))"  # any number that nobody else takes

Migrations = Mapping[str, Callable[[sa.Connection], None]]


def migrate(engine: sa.Engine, migrations: Migrations, clock: Callable[[], datetime]) -> None:
    """Apply the migrations that a store lacks, in order.

    Args:
        engine: Of the store.
        migrations: Named steps. Each gets a connection in a transaction, and may commit in between
            where it can be run again from the start.
        clock: Dates what is applied.

    Raises:
        BusyError: Others held a lock that is needed for an hour.
    """
    if not _missing(engine, migrations):
        return
    engine = unpooled(engine)  # it needs three connections at a time
    with _turn(engine):
        with engine.connect() as connection:
            _write(connection)
            APPLIED.create(connection, checkfirst=True)
            connection.commit()
        for name in _missing(engine, migrations):
            _patiently(name, partial(_apply, engine, name, migrations[name], clock))


def short_locks(connection: sa.Connection) -> None:
    """Give a lock up rather than have others queue behind it, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS * 1000:.0f}ms'")


def _missing(engine: sa.Engine, migrations: Migrations) -> list[str]:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(APPLIED.name):
            return list(migrations)
        applied = set(connection.execute(sa.select(APPLIED.c.name)).scalars())
    return [name for name in migrations if name not in applied]


def _apply(
    engine: sa.Engine,
    name: str,
    apply: Callable[[sa.Connection], None],
    clock: Callable[[], datetime],
) -> None:
    with engine.connect() as connection:
        _write(connection)
        indexes_left(connection)  # of an attempt before, on the same connection
        short_locks(connection)
        if connection.dialect.name == "postgresql":
            connection.execute(JOURNAL_LOCK)
        if _is_applied(connection, name):  # by a process that had its turn meanwhile
            return
        apply(connection)
        if left := indexes_left(connection):
            connection.commit()
            for index, columns in left.items():
                logger.info("making the index %s", index)
                build_index(engine, index, columns)
        if not _is_applied(connection, name):
            row = {"name": name, "applied_at": microseconds(clock())}
            connection.execute(sa.insert(APPLIED), row)
        connection.commit()


def _is_applied(connection: sa.Connection, name: str) -> bool:
    present = sa.select(APPLIED.c.name).where(APPLIED.c.name == name)
    return connection.execute(present).first() is not None


def _write(connection: sa.Connection) -> None:
    connection.execution_options(ratchet_begin="BEGIN IMMEDIATE")


def _patiently(name: str, attempt: Callable[[], None]) -> None:
    deadline, told = time.monotonic() + _PATIENCE_SECONDS, False
    while True:
        try:
            attempt()
            return
        except sa.exc.OperationalError as error:
            if sqlstate(error) not in (NO_LOCK, DEADLOCK):
                raise
            if time.monotonic() > deadline:
                raise BusyError(
                    f"migration {name} needs the tables for a moment, got none in an hour; "
                    "end what reads or writes in one long transaction (pg_stat_activity shows it)"
                ) from error
            if not told:
                logger.warning("migration %s waits for others to release the tables", name)
                told = True
            time.sleep(_PAUSE_SECONDS)


@contextmanager
def _turn(engine: sa.Engine) -> Iterator[None]:
    """Let one process migrate at a time; SQLite does so by itself, a transaction at a time.

    Asks again and again rather than wait in the database: an index that is made without a lock
    waits for all statements before it, and would wait for this one.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock{_TURN}").scalar_one():
            time.sleep(_PAUSE_SECONDS)
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock{_TURN}")
