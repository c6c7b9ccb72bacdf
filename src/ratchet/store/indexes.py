"""Making an index on a live store: on PostgreSQL without stopping the writers of a large table."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

_SMALL = 10_000  # rows; their index is made in milliseconds
_LATER = "ratchet_indexes_later"


def make_index(connection: sa.Connection, name: str, columns: str) -> None:
    """Make an index within a migration, unless it is there.

    On a table of PostgreSQL with many rows it is made after the migration's transaction, which must
    therefore do no harm when it is run again.

    Args:
        connection: The migration's.
        name: Of the index.
        columns: As in SQL: the table, then the columns in parentheses, then conditions.
    """
    if connection.dialect.name == "postgresql" and _is_large(connection, columns.split()[0]):
        connection.info.setdefault(_LATER, {})[name] = columns
    else:
        connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")


def indexes_left(connection: sa.Connection) -> dict[str, str]:
    """Return the indexes that the migration of this connection left for later, and forget them."""
    left: dict[str, str] = connection.info.pop(_LATER, {})
    return left


def build_index(engine: sa.Engine, name: str, columns: str) -> None:
    """Make an index of PostgreSQL while others write.

    One that was not finished, because its process was killed, is made again. On a table in
    partitions each gets its index in turn.

    Args:
        engine: To the store, whose connections nobody uses afterwards: their timeouts are changed.
        name: Of the index.
        columns: See `make_index`.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # it waits for transactions that began before, and stops nobody: no reason to give up on it
        connection.exec_driver_sql("SET lock_timeout = 0")
        connection.exec_driver_sql("SET statement_timeout = 0")
        _build_in_parts(connection, name, columns)


def _build_in_parts(connection: sa.Connection, name: str, columns: str) -> None:
    table, _, definition = columns.partition(" ")
    parts = _partitions(connection, table)
    if parts is None:
        _build(connection, name, columns)
        return
    # locks for a moment: an index over all partitions has no rows of its own
    short = "SET LOCAL lock_timeout = '500ms'"
    run = connection.exec_driver_sql
    run(f"BEGIN; {short}; CREATE INDEX IF NOT EXISTS {name} ON ONLY {columns}; COMMIT")
    for part in parts:
        own = f"ix_{hashlib.sha256(f'{name} {part}'.encode()).hexdigest()[:16]}"
        if not _has_part(connection, name, part):
            _build(connection, own, f"{part} {definition}")
            run(f"BEGIN; {short}; ALTER INDEX {name} ATTACH PARTITION {own}; COMMIT")


def _build(connection: sa.Connection, name: str, columns: str) -> None:
    valid = connection.execute(
        sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"),
        {"name": name},
    ).scalar_one_or_none()
    if valid:
        return
    if valid is False:
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
    connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")


def _is_large(connection: sa.Connection, table: str) -> bool:
    rows = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {_SMALL + 1}) AS beginning"
    return int(connection.exec_driver_sql(rows).scalar_one()) > _SMALL


def _partitions(connection: sa.Connection, table: str) -> list[str] | None:
    """Return the partitions of a table; None where it is an ordinary one."""
    kind = sa.text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:table)")
    if connection.execute(kind, {"table": table}).scalar_one() != "p":
        return None
    parts = sa.text(
        "SELECT inhrelid::regclass::text FROM pg_inherits "
        "WHERE inhparent = to_regclass(:table) ORDER BY 1"
    )
    return list(connection.execute(parts, {"table": table}).scalars())


def _has_part(connection: sa.Connection, name: str, part: str) -> bool:
    """Tell whether a partition's part of an index is there."""
    query = sa.text(
        "SELECT count(*) FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid "
        "WHERE inhparent = to_regclass(:name) AND indrelid = to_regclass(:part)"
    )
    return bool(connection.execute(query, {"name": name, "part": part}).scalar_one())
