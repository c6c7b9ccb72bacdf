"""All rows of a PostgreSQL store in files, and back: what a backup holds of it.

One transaction reads everything, so the files are what the store was at one moment while others
wrote. It is REPEATABLE READ and locks the tables against being divided anew, as `pg_dump` does;
readers and writers go on. Rows go through COPY, which every version of the server reads; the tables
themselves are made by the migrations that the store had, so that a later version of Ratchet, or
another schema, can take the rows in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import Field

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.files.text import first_line
from ratchet.records import Record
from ratchet.store.connections import BUSY_SECONDS, create_engine, unpooled
from ratchet.store.counts import KEPT_BY_TRIGGERS
from ratchet.store.migrating import migrate
from ratchet.store.months import PARTITIONED, Months, ids_of, start_of
from ratchet.store.tables import APPLIED, COUNTS, LEASES, METADATA, MIGRATIONS

SUFFIX = ".copy"
_COPIED = [table for table in METADATA.sorted_tables if table not in (APPLIED, LEASES)]
_TOLD_BY = ("interactions", "feedback", "set_aside", "journal")
_BLOCK = 1 << 16


class CopiedTable(Record):
    """A table of a store in a file.

    Attributes:
        columns: In the order of the file.
        rows: How many.
        last_position: The highest position that was ever taken; None for a table without.
        months: Of a table that is divided by month: months that it has rows of.
    """

    name: str
    columns: tuple[str, ...]
    rows: int = Field(ge=0)
    last_position: int | None = None
    months: tuple[int, ...] = ()


class StoreCopy(Record):
    """What the files of a store are.

    Attributes:
        migrations: Those that the store had, in order, with when they were applied: the first one's
            time is the store's identity.
    """

    migrations: tuple[tuple[str, int], ...]
    tables: tuple[CopiedTable, ...]


class _At(NamedTuple):
    created_at: int


def is_postgresql(url: str) -> bool:
    """Tell whether a store is on PostgreSQL."""
    return sa.make_url(url).get_backend_name() == "postgresql"


def sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite store; None for any other."""
    parsed = sa.make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    return Path(str(parsed.database)) if is_file else None


def copy_out(url: str, folder: Path) -> StoreCopy:
    """Write a file a table into a folder, all as of one moment.

    Args:
        url: Of a PostgreSQL store that today's migrations were applied to.
        folder: Is there, and holds no such files.

    Raises:
        InvalidInputError: A later version of Ratchet has changed the store.
    """
    with connected(url) as connection:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
        names = ", ".join(table.name for table in METADATA.sorted_tables)
        # locked before the first reading: no partition is taken away from under the snapshot
        connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
        applied = known_migrations(connection)
        tables = tuple(_table_out(connection, table, folder) for table in _COPIED)
    return StoreCopy(migrations=tuple(applied.items()), tables=tables)


def known_migrations(connection: sa.Connection) -> dict[str, int]:
    """Return the migrations that a store has had, in order, with when.

    Raises:
        InvalidInputError: This version does not know one of them.
    """
    query = sa.select(APPLIED.c.name, APPLIED.c.applied_at)
    applied = {name: int(at) for name, at in connection.execute(query)}
    _refuse_unknown(applied)
    return {name: applied[name] for name in MIGRATIONS if name in applied}


def holds_rows(url: str) -> bool:
    """Tell whether there is anything in a PostgreSQL store that a restore would write over."""
    with connected(url) as connection:
        there = sa.inspect(connection)
        return any(
            there.has_table(name)
            and connection.exec_driver_sql(f"SELECT 1 FROM {name} LIMIT 1").first() is not None
            for name in _TOLD_BY
        )


def copy_in(
    url: str,
    folder: Path,
    copied: StoreCopy,
    *,
    replace: bool,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Make a store's tables and fill them from files; today's further migrations are left.

    Args:
        url: Where to.
        folder: Of the files.
        copied: What they are.
        replace: Whether tables that are there are dropped first.
        clock: Dates the migrations.

    Raises:
        ConflictError: The store holds rows, and `replace` is not said.
        InvalidInputError: The files are of a later version of Ratchet.
    """
    applied = dict(copied.migrations)
    _refuse_unknown(applied)
    if holds_rows(url) and not replace:
        raise ConflictError(
            "a store that is restored must be empty, got a PostgreSQL schema with rows; say "
            "--replace to drop its tables, or set RATCHET_STORE_URL to an empty schema"
        )
    engine = create_engine(sa.make_url(url))
    try:
        with engine.begin() as connection:
            _drop_tables(connection)
        migrate(engine, {name: MIGRATIONS[name] for name in applied}, clock)
        for table in copied.tables:
            if table.name in PARTITIONED:
                Months(engine, clock).prepare(table.name, [_At(start_of(m)) for m in table.months])
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            for table in copied.tables:
                _table_in(connection, table, folder)
            for name, moment in applied.items():
                update = sa.update(APPLIED).where(APPLIED.c.name == name)
                connection.execute(update.values(applied_at=moment))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in copied.tables:
                connection.exec_driver_sql(f"ANALYZE {table.name}")
    finally:
        engine.dispose()


def _refuse_unknown(applied: Iterable[str]) -> None:
    unknown = sorted(set(applied) - set(MIGRATIONS))
    if unknown:
        raise InvalidInputError(
            f"a store must be one that this version of Ratchet knows, got the migration "
            f"{unknown[-1]!r} of a later one; install that version"
        )


def _table_out(connection: sa.Connection, table: sa.Table, folder: Path) -> CopiedTable:
    names = [column.name for column in table.columns]
    where = ""
    if table is COUNTS:  # those of rows come again with the rows
        kept = ", ".join(f"'{name}'" for name in KEPT_BY_TRIGGERS)
        where = f" WHERE name NOT IN ({kept})"
    query = f"SELECT {_quoted(names)} FROM {table.name}{where}"
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, (folder / f"{table.name}{SUFFIX}").open("wb") as file:
        with cursor.copy(f"COPY ({query}) TO STDOUT (ENCODING 'UTF8')") as copy:
            for block in copy:
                file.write(block)
        rows = int(cursor.rowcount)
    last = None
    if "position" in names:
        sequence = f"SELECT last_value, is_called FROM {table.name}_position_seq"
        value, called = connection.exec_driver_sql(sequence).one()
        last = int(value) if called else 0
    return CopiedTable(
        name=table.name,
        columns=tuple(names),
        rows=rows,
        last_position=last,
        months=_months(connection, table.name),
    )


def _months(connection: sa.Connection, table: str) -> tuple[int, ...]:
    if table not in PARTITIONED:
        return ()
    at = "timestamp 'epoch' + created_at * interval '1 microsecond'"
    number = f"(extract(year FROM {at}) * 12 + extract(month FROM {at}) - 1)::int"
    found = connection.exec_driver_sql(f"SELECT DISTINCT {number} FROM {table}").scalars()
    return tuple(sorted(found))


def _table_in(connection: sa.Connection, table: CopiedTable, folder: Path) -> None:
    """Fill a table; triggers keep ids and counts as they do for any rows."""
    connection.exec_driver_sql(f"DELETE FROM {table.name}")  # what migrations put there
    into = f"COPY {table.name} ({_quoted(table.columns)}) FROM STDIN (ENCODING 'UTF8')"
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, (folder / f"{table.name}{SUFFIX}").open("rb") as file:
        with cursor.copy(into) as copy:
            while block := file.read(_BLOCK):
                copy.write(block)
        if cursor.rowcount != table.rows:
            raise InvalidInputError(
                f"the copy of {table.name} must hold {table.rows} rows, got {cursor.rowcount}; "
                "restore another backup"
            )
    if table.last_position:
        connection.exec_driver_sql(
            f"SELECT setval('{table.name}_position_seq', {table.last_position})"
        )


def _drop_tables(connection: sa.Connection) -> None:
    parts = [name for table in PARTITIONED for name in (ids_of(table), f"{table}_other")]
    for name in [*(table.name for table in METADATA.sorted_tables), *parts]:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name} CASCADE")


def _quoted(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """Connect to a store in one transaction, without migrating it.

    Raises:
        InvalidInputError: It does not answer, or a statement fails.
    """
    engine = unpooled(create_engine(sa.make_url(url)))
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    except (sa.exc.DatabaseError, sa.exc.ArgumentError, ImportError) as error:
        cause = first_line(getattr(error, "orig", None) or error)
        raise InvalidInputError(
            f"the store must answer, got: {cause}; check RATCHET_STORE_URL and the server"
        ) from error
    finally:
        engine.dispose()
