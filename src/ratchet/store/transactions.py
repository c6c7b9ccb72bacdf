"""Transactions on the store's database: writers take turns, readers do not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

_WRITERS_LOCK = 7246483  # any number that nobody else in the database takes


class Transactions:
    """What every part of the store does with its database."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._open: ContextVar[sa.Connection | None] = ContextVar("open", default=None)

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @contextmanager
    def atomic(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is stored or none. Nested calls join the outer one.

        Writers take turns on both databases, so what a transaction reads stays true until it ends.
        """
        outer = self._open.get()
        if outer is not None:
            yield outer
            return
        with self._engine.connect() as connection:
            connection.execution_options(ratchet_begin="BEGIN IMMEDIATE")
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS_LOCK)))
                token = self._open.set(connection)
                try:
                    yield connection
                finally:
                    self._open.reset(token)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read by; within `atomic` that transaction's."""
        outer = self._open.get()
        if outer is not None:
            yield outer
            return
        with self._engine.connect() as connection:
            yield connection

    def _insert(self, table: sa.Table) -> sa.Insert:
        """An insert that leaves what is there, should another process have been faster."""
        if self._engine.dialect.name == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()


def pairs(connection: sa.Connection, query: sa.Select[Any]) -> dict[Any, Any]:
    """Return a query's two columns as keys and values."""
    return {row[0]: row[1] for row in connection.execute(query)}
