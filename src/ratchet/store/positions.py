"""Cursors on PostgreSQL, where several writers commit in another order than they took positions.

A writer that took position 10 may commit after another that took 11. A reader that remembers that
it read up to 11 would never see 10. So a writer announces, before it takes a position, the last one
that was taken: an advisory lock on that number, which ends with its transaction. A reader takes the
highest position that it sees, then looks at the announcements: what lies before the lowest of them
has been committed or never will be. Nobody waits for anybody.

Why this is right: let position p be at or below the highest that a reader sees, and its writer not
yet committed. The writer announced a number below p before it took p, thus before the reader looked
at the announcements, and holds it still: the reader stays below p. A lock is released after its
transaction has become visible, so what is read after `settled` includes all up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

_WRAP = 2**32  # a lock's number has 32 bits; positions in flight lie closer together than that

_SEQUENCE = "CAST(CAST('{sequence}' AS regclass) AS oid)::int4"
_LAST = "last_value - CASE WHEN is_called THEN 0 ELSE 1 END"
_NUMBER = "(({position}) % 4294967296 - 2147483648)::int4"
_ANNOUNCE = (
    f"SELECT pg_advisory_xact_lock_shared({_SEQUENCE}, {_NUMBER.format(position=_LAST)}) "
    "FROM {sequence}"
)
_ANNOUNCED = """
SELECT CAST(objid AS bigint) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND pid <> pg_backend_pid()
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid = CAST(CAST('{sequence}' AS regclass) AS oid)
"""


def announce(connection: sa.Connection, table: sa.Table) -> None:
    """Tell readers that this transaction is about to add rows, before it takes a position."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_statement(_ANNOUNCE, table))


def settled(connection: sa.Connection, table: sa.Table) -> int:
    """Return a position up to which every row has been committed; 0 in an empty table.

    What is read by the same connection afterwards includes them, unless its transaction reads from
    a snapshot taken earlier (REPEATABLE READ, or a cursor that was declared before).
    """
    highest = connection.execute(sa.select(sa.func.max(table.c.position))).scalar_one() or 0
    if connection.dialect.name != "postgresql":
        return int(highest)  # writers take turns
    announced = connection.exec_driver_sql(_statement(_ANNOUNCED, table)).scalars()
    return int(highest + min((0, *(_distance(number, highest) for number in announced))))


def writers(connection: sa.Connection, table: sa.Table) -> frozenset[int]:
    """Return what writers that are at work have announced; on SQLite nobody announces anything."""
    if connection.dialect.name != "postgresql":
        return frozenset()
    return frozenset(connection.exec_driver_sql(_statement(_ANNOUNCED, table)).scalars())


def last_taken(connection: sa.Connection, table: str) -> int:
    """Return the highest position that was taken, by rows that are gone or to come as well."""
    query = f"SELECT {_LAST} FROM {table}_position_seq"
    if connection.dialect.name != "postgresql":
        query = f"SELECT coalesce(max(position), 0) FROM {table}"
    return int(connection.exec_driver_sql(query).scalar_one())


@contextmanager
def held_back(connection: sa.Connection, table: str) -> Iterator[Callable[[int], None]]:
    """Keep cursors before the positions that are taken from now on, over several transactions.

    Yields:
        A function that keeps them before an earlier position, too.
    """
    last = last_taken(connection, table)
    held: list[int] = []

    def lock(function: str, position: int) -> None:
        number = _NUMBER.format(position=position)
        sequence = _SEQUENCE.format(sequence=f"{table}_position_seq")
        statement = f"SELECT {function}({sequence}, {number})".replace("%", "%%")
        connection.exec_driver_sql(statement)

    def hold(position: int) -> None:
        lock("pg_advisory_lock_shared", position - 1)
        held.append(position - 1)

    hold(last + 1)
    try:
        yield hold
    finally:
        connection.rollback()  # of what failed; these locks belong to the connection
        for position in held:
            lock("pg_advisory_unlock_shared", position)
        connection.commit()


def _statement(template: str, table: sa.Table) -> str:
    return template.format(sequence=f"{table.name}_position_seq").replace("%", "%%")


def _distance(lock: int, highest: int) -> int:
    """Return how far an announced position lies from the highest one, by their last 32 bits."""
    announced = lock ^ 0x80000000  # undoes the shift by 2**31 that makes it a signed integer
    distance = (announced - highest) % _WRAP
    return distance - _WRAP if distance >= _WRAP // 2 else distance
