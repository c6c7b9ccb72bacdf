"""Transactions on the store's database: readers never wait, and events are added side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ratchet.store.fences import Held, check_fences
from ratchet.store.months import Months
from ratchet.store.positions import announce, last_taken, settled, writers
from ratchet.store.rows import chunks
from ratchet.store.sqlstates import DEADLOCK, sqlstate
from ratchet.store.standing import Identity, guard, sync_file

T = TypeVar("T")
_ATTEMPTS = 5
_HELD = "ratchet_held"  # what the open transaction of a connection has locked or announced
JOURNAL_LOCK = sa.text(
    # the number is any that nobody else in the database takes; each schema is a store of its own
    "SELECT pg_advisory_xact_lock(7246483, hashtext(current_schema()))"
)


class Transactions:
    """What every part of the store does with its database."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._file = guard(engine)
        self._months = Months(engine, clock)
        self.held = Held()  # leases, under which it writes
        self._open: ContextVar[sa.Connection | None] = ContextVar("open", default=None)

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @property
    def file_identity(self) -> Identity | None:
        """Device and inode of the file that was opened; None where the store is no file."""
        return None if self._file is None else self._file.identity

    @property
    def url(self) -> str | None:
        """By which another process opens the store; None where it is this process's memory."""
        if self._engine.dialect.name == "sqlite" and self._file is None:
            return None
        return self._engine.url.render_as_string(hide_password=False)

    def check_file(self) -> None:
        """See that the store is still what was opened: SQLite goes on in a file without a name.

        Raises:
            StoreReplacedError: Its file was deleted, or another one has its name.
        """
        if self._file is not None:
            self._file.check()

    def sync(self) -> None:
        """Wait until what was committed survives a loss of power.

        Raises:
            StoreReplacedError: As `check_file`.
            OSError: The disk fails.
        """
        self.check_file()
        sync_file(self._engine)

    @contextmanager
    def atomic(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is stored or none. Nested calls join the outer one.

        These transactions take turns, so what one reads of the journal stays true until it ends.
        Events may be added meanwhile on PostgreSQL: `adding` does not wait for it.
        """
        with self.adding() as connection:
            lock_journal(connection)
            yield connection

    @contextmanager
    def adding(self) -> Iterator[sa.Connection]:
        """One transaction that only adds events: other writers go on on PostgreSQL.

        Calls within another transaction join it. On SQLite writers take turns.

        Raises:
            LeaseLostError: Another process took over a lease that this store object holds.
        """
        outer = self._open.get()
        if outer is not None:
            yield outer
            return
        self.check_file()
        with self._engine.connect() as connection:
            connection.execution_options(ratchet_begin="BEGIN IMMEDIATE")
            with connection.begin():
                connection.info[_HELD] = set()
                check_fences(connection, self.held)
                token = self._open.set(connection)
                try:
                    yield connection
                    self.check_file()
                finally:
                    self._open.reset(token)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read by; within `atomic` that transaction's."""
        outer = self._open.get()
        if outer is not None:
            yield outer
            return
        self.check_file()
        with self._engine.connect() as connection:
            yield connection

    def settled_position(self, table: sa.Table) -> int:
        """Return a position of a table up to which all rows have arrived: a cursor may go there.

        Rows with a position at or below it are seen by whatever is read afterwards; no row comes in
        behind it later. 0 in an empty table. While writers are at work it may lie behind an earlier
        answer: keep the higher of the two.
        """
        with self.reading() as connection:
            return settled(connection, table)

    def writers(self, table: sa.Table) -> frozenset[int]:
        """Return what tells the transactions apart that add rows to a table just now."""
        with self.reading() as connection:
            return writers(connection, table)

    def last_taken_position(self, table: sa.Table) -> int:
        """Return the highest position that a row of a table ever had, though it is gone by now.

        On SQLite the row that arrived last is never deleted, so it has that position.
        """
        with self.reading() as connection:
            return last_taken(connection, table.name)

    def _add_to(self, table: sa.Table, add: Callable[[sa.Connection], T]) -> T:
        """Return what `add` returns in a transaction that adds rows to a table.

        Two writers that add the same rows in another order may stop each other: the one whom the
        database chose begins again, unless it is part of a larger transaction.
        """
        attempt = 1
        while True:
            try:
                with self.adding() as connection:
                    if _first(connection, table.name):
                        announce(connection, table)
                    return add(connection)
            except Exception as error:  # of SQLAlchemy, or of the driver where rows are copied
                stopped = sqlstate(error) == DEADLOCK
                if not stopped or attempt == _ATTEMPTS or self._open.get() is not None:
                    raise
                attempt += 1

    def _keep(self, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Store rows; one that is there already stands."""

        def insert(connection: sa.Connection) -> None:
            for chunk in chunks(rows):
                connection.execute(insert_if_new(connection, table), chunk)

        self._add_to(table, insert)


def insert_if_new(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that leaves what is there, should another process have been faster."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def lock_journal(connection: sa.Connection) -> None:
    """Wait until no other transaction holds the journal; it is ours until this one ends."""
    if connection.dialect.name == "postgresql" and _first(connection, "lock of the journal"):
        connection.execute(JOURNAL_LOCK)


def pairs(connection: sa.Connection, query: sa.Executable) -> dict[Any, Any]:
    """Return a query's two columns as keys and values."""
    return {row[0]: row[1] for row in connection.execute(query)}


def _first(connection: sa.Connection, what: str) -> bool:
    """Tell whether this is the first time that the open transaction does something."""
    held: set[str] = connection.info.setdefault(_HELD, set())
    first = what not in held
    held.add(what)
    return first
