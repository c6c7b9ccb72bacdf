"""How connections to SQLite behave."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import sqlalchemy as sa

BUSY_SECONDS = 60


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
