"""A DuckDB file with tables of Arrow rows, for people who ask by SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_MEMORY = "512MB"


def write_tables(
    path: Path, tables: Mapping[str, tuple[pa.Schema, Iterable[pa.RecordBatch]]]
) -> None:
    """Write a new file.

    Batches are handed over one by one: a stream of them would be read by DuckDB's own threads, and
    with it the store.

    Args:
        path: Where nothing is yet.
        tables: Columns and rows, by name.
    """
    import duckdb
    import pyarrow as pa

    with duckdb.connect(str(path)) as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        for name, (schema, batches) in tables.items():
            connection.register("given", schema.empty_table())
            connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM given')
            connection.unregister("given")
            for batch in batches:
                connection.register("given", pa.Table.from_batches([batch], schema))
                connection.execute(f'INSERT INTO "{name}" SELECT * FROM given')
                connection.unregister("given")
