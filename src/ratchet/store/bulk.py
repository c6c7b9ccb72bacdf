"""Rows into the tables of interactions and feedback, at the speed of the database's driver.

Binding a row through SQLAlchemy takes longer than SQLite takes to store it. So SQLite gets many
rows in a statement, and PostgreSQL gets them by COPY.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa

from ratchet.store.event_rows import FeedbackRow, InteractionRow
from ratchet.store.months import ids_of
from ratchet.store.sqlstates import NOT_UNIQUE, sqlstate

ROWS_IN_STATEMENT = 1_024

Rows = Sequence[InteractionRow | FeedbackRow]


def insert_new(
    connection: sa.Connection, table: sa.Table, rows: Rows, *, received_at: int
) -> dict[str, str]:
    """Store the rows whose ids are not there yet, in their order; leave what is there.

    Args:
        connection: In a transaction that announced its rows (`ratchet.store.positions`).
        table: Interactions or feedback.
        rows: Of that table, each id once.
        received_at: When they arrived, in microseconds since 1970.

    Returns:
        The stored digests of those that were there before, by id.
    """
    if not rows:
        return {}
    into = _into_sqlite if connection.dialect.name == "sqlite" else _into_postgresql
    return into(connection, table, (*rows[0]._fields, "received_at"), rows, received_at)


def _into_sqlite(
    connection: sa.Connection, table: sa.Table, names: Sequence[str], rows: Rows, received_at: int
) -> dict[str, str]:
    last = connection.exec_driver_sql(f"SELECT max(position) FROM {table.name}").scalar() or 0
    start, stored = 0, 0
    driver: Any = connection.connection.driver_connection
    size = _power_of_two(driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(names))
    places = f"({', '.join('?' * len(names))})"
    while start < len(rows):
        while start + size > len(rows):
            size //= 2  # few sizes: each is a statement that the connection keeps
        part = rows[start : start + size]
        statement = (
            f"INSERT INTO {table.name} ({', '.join(names)}) "
            f"VALUES {', '.join([places] * size)} ON CONFLICT DO NOTHING"
        )
        values = tuple(chain.from_iterable([(*row, received_at) for row in part]))
        stored += connection.exec_driver_sql(statement, values).rowcount
        start += size
    if stored == len(rows):
        return {}
    ids = json.dumps([row.id for row in rows])
    there = connection.exec_driver_sql(
        f"SELECT stored.id, stored.digest FROM json_each(?) AS sent "
        f"CROSS JOIN {table.name} AS stored ON stored.id = sent.value WHERE stored.position <= ?",
        (ids, last),
    )
    return {row[0]: row[1] for row in there}


def _power_of_two(most: int) -> int:
    """Return the largest power of two up to `most` and up to `ROWS_IN_STATEMENT`."""
    return 1 << (min(most, ROWS_IN_STATEMENT).bit_length() - 1)


def _into_postgresql(
    connection: sa.Connection, table: sa.Table, names: Sequence[str], rows: Rows, received_at: int
) -> dict[str, str]:
    driver: Any = connection.connection.driver_connection
    ids = [row.id for row in rows]
    there: dict[str, str] = {}
    refused: Exception | None = None
    # each id is kept once beside the table, which is divided by month
    known = f"SELECT id, digest FROM {ids_of(table.name)} WHERE id = ANY(%s)"
    with driver.cursor() as cursor:
        while True:
            found = dict(cursor.execute(known, (ids,)).fetchall())
            if refused is not None and len(found) <= len(there):
                raise refused  # by a row that is not in the table of ids
            there = found
            if len(there) == len(rows):
                return there
            cursor.execute("SAVEPOINT new_rows")
            try:
                with cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
                    for row in rows:
                        if row.id not in there:
                            copy.write_row((*row, received_at))
            except Exception as error:
                if sqlstate(error) != NOT_UNIQUE:
                    raise
                refused = error  # another writer stored one of the ids meanwhile
                cursor.execute("ROLLBACK TO SAVEPOINT new_rows")
            else:
                cursor.execute("RELEASE SAVEPOINT new_rows")
                return there
