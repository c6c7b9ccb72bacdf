"""A DuckDB file with tables of Arrow rows, for people who ask by SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_MEMORY = "512MB"


def write_tables(
    path: Path, tables: Mapping[str, tuple[pa.Schema, Iterator[pa.RecordBatch]]]
) -> None:
    """Write a new file.

    Args:
        path: Where nothing is yet.
        tables: Columns and rows, by name. Rows are read once, one batch at a time.
    """
    import duckdb
    import pyarrow as pa

    with duckdb.connect(str(path)) as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute("SET TimeZone = 'UTC'")
        for name, (schema, batches) in tables.items():
            rows = pa.RecordBatchReader.from_batches(schema, batches)
            connection.register("given", rows)
            connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM given')
            connection.unregister("given")
