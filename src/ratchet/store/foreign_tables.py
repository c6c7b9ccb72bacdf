"""Tables of other databases, read row by row: `URL#TABLE`, by SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.files.text import first_line

SCHEMES = (
    "postgresql", "mysql", "mariadb", "sqlite", "oracle", "mssql", "duckdb", "snowflake",
    "bigquery", "redshift", "clickhouse", "trino", "databricks",
)  # fmt: skip
_BATCH = 1_000


def is_database(source: str) -> bool:
    """Tell whether a source is a database's URL."""
    scheme, found, _ = source.partition("://")
    return bool(found) and scheme.partition("+")[0] in SCHEMES


def rows_of_table(address: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, or of a view.

    Args:
        address: A SQLAlchemy URL, and after `#` the table, with its schema where it has one.

    Raises:
        InvalidInputError: The database or the table cannot be read.
    """
    url, _, name = address.partition("#")
    if not name:
        raise InvalidInputError(
            "a database needs the name of a table, got none; add it to the URL, as "
            "sqlite:///app.db#answers"
        )
    schema, _, table = name.rpartition(".")
    try:
        engine = sa.create_engine(_checked(url))
        try:
            found = sa.Table(table, sa.MetaData(), schema=schema or None, autoload_with=engine)
            with engine.connect() as connection:
                query = sa.select(found).execution_options(yield_per=_BATCH)
                for row in connection.execute(query).mappings():
                    yield dict(row)
        finally:
            engine.dispose()
    except sa.exc.NoSuchTableError as error:
        raise InvalidInputError(
            f"a database must have the table that is named, got no {name!r}; correct the name"
        ) from error
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        cause = first_line(getattr(error, "orig", None) or error)
        raise InvalidInputError(
            f"a database must be readable, got {cause!r}; check the URL, its user and its driver"
        ) from error


def _checked(url: str) -> sa.URL:
    """Return a database's URL.

    Raises:
        InvalidInputError: It is none, or the file that it names is not there: SQLite would make it.
    """
    try:
        parsed = sa.make_url(url)
    except ValueError as error:  # of a port that is no number; it may hold a password
        raise InvalidInputError(
            "a database's URL must be scheme://user:password@host:port/name, got another form; "
            "correct it"
        ) from error
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if file and not file.startswith((":", "file:")) and not Path(file).exists():
        raise InvalidInputError(
            f"a database must be there, got no file {Path(file).name!r}; correct the path"
        )
    return parsed
