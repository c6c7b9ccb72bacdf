"""How connections behave: patience on SQLite, a pool with limits on PostgreSQL.

| option of a PostgreSQL URL | default | what |
|---|---|---|
| `pool_size` | 5 | connections that a process keeps |
| `max_overflow` | 5 | connections beyond these, closed after use |
| `pool_timeout` | 60 | seconds that a thread waits for one |
| `pool_recycle` | 1800 | seconds after which one is replaced |
| `lock_timeout` | 60 | seconds that a statement waits for a lock; 0: for ever |
| `statement_timeout` | 0 | seconds that a statement may take; 0: for ever |
| `idle_timeout` | 900 | seconds that a transaction may do nothing; 0: for ever |
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import sqlalchemy as sa

from ratchet.errors import InvalidInputError

BUSY_SECONDS = 60


SQLITE_CACHE = 64_000
"""Kilobytes of a file that a connection keeps at most: indexes of ids are written all over."""
CHECKPOINT_PAGES = 10_000
"""Pages of a file's log after which it is copied into the file (40 MB): pages written again
and again, as those of indexes are in an import, are copied once instead of each time."""
_POOL = {"pool_size": 5, "max_overflow": 5, "pool_timeout": 60, "pool_recycle": 1800}
_TIMEOUTS = {"lock_timeout": BUSY_SECONDS, "statement_timeout": 0, "idle_timeout": 900}
_SETTINGS = {"idle_timeout": "idle_in_transaction_session_timeout"}  # PostgreSQL's other names


def create_engine(url: sa.URL, connections: int | None = None) -> sa.Engine:
    """Return the engine of a store.

    Args:
        url: Of SQLite or PostgreSQL, where the module's options may stand in the query.
        connections: On PostgreSQL, that the process keeps, and the most that it opens beyond these;
            None: as the URL says.

    Raises:
        InvalidInputError: An option is no whole number, or below 0.
    """
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url)
        configure_sqlite(engine)
        return engine
    options = {
        name: _seconds_or_number(name, url.query.get(name, default))
        for name, default in (_POOL | _TIMEOUTS).items()
    }
    if connections is not None:
        options |= {"pool_size": connections, "max_overflow": connections}
    engine = sa.create_engine(
        url.difference_update_query(options),
        pool_pre_ping=True,  # after a restart of the server
        pool_size=options["pool_size"],
        max_overflow=options["max_overflow"],
        pool_timeout=options["pool_timeout"],
        pool_recycle=options["pool_recycle"],
    )
    timeouts = {_SETTINGS.get(name, name): options[name] for name in _TIMEOUTS}
    said = str(url.query.get("options", ""))  # in PostgreSQL's own words: -cstatement_timeout=90s
    timeouts = {name: seconds for name, seconds in timeouts.items() if name not in said}

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for name, seconds in timeouts.items():
                cursor.execute(f"SET {name} = '{seconds}s'")
        connection.commit()

    return engine


def unpooled(engine: sa.Engine) -> sa.Engine:
    """Return an engine whose connections are closed after use and count against no limit.

    For what is seldom done beside another transaction of the same process; SQLite's own one stays.
    """
    if engine.dialect.name == "sqlite":
        return engine
    return sa.create_engine(engine.url, poolclass=sa.NullPool)


def _seconds_or_number(name: str, value: object) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0 or (name == "pool_size" and number == 0):
        raise InvalidInputError(
            f"{name} in the store's URL must be a whole number of at least "
            f"{int(name == 'pool_size')}, got {value!r}; "
            "leave it out for the default (docs/settings.md)"
        )
    return number


def configure_sqlite(engine: sa.Engine) -> None:
    """Write-ahead log, patience when busy, and transactions that lock when they begin to write."""

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        connection.execute(
            "PRAGMA auto_vacuum=INCREMENTAL"
        )  # of a new file: space can be given back
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA cache_size=-{SQLITE_CACHE}")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("ratchet_begin", "BEGIN"))


def _write_ahead(connection: Any) -> None:
    """Keep a write-ahead log. SQLite does not wait by itself when two switch a new file at once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
