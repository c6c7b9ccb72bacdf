"""How parts are written: JSON Lines, Parquet, a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import yaml

from ratchet.export.parts import Part, Tally
from ratchet.files.text import cell
from ratchet.store.duckdb_file import write_tables

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[int], None]
SHARD_ROWS = 500_000
"""Rows of a file of a Hugging Face folder."""
_READ_ONLY = 0o444


def write_lines(
    part: Part, file: IO[bytes], tally: Tally, progress: Progress, *, as_ascii: bool = False
) -> None:
    """Write a part as JSON Lines, in ASCII where it may be a terminal that reads them."""
    for batch in part.batches:
        rows = map(part.line, batch.to_pylist())
        lines = [json.dumps(row, ensure_ascii=as_ascii).replace("\x7f", "\\u007f") for row in rows]
        file.write("".join(f"{line}\n" for line in lines).encode())
        tally.rows[part.name] += len(lines)
        progress(tally.rows.total())


def write_parquet(part: Part, file: IO[bytes], tally: Tally, progress: Progress) -> None:
    """Write a part as one Parquet file."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, part.schema, compression="zstd") as writer:
        for batch in part.batches:
            writer.write_batch(batch)
            tally.rows[part.name] += batch.num_rows
            progress(tally.rows.total())


def write_database(parts: Sequence[Part], path: Path, tally: Tally, progress: Progress) -> None:
    """Write parts as tables of a DuckDB file that nobody may write to."""

    def counted(part: Part) -> Iterator[pa.RecordBatch]:
        for batch in part.batches:
            yield batch
            tally.rows[part.name] += batch.num_rows
            progress(tally.rows.total())

    write_tables(path, {part.name: (part.schema, counted(part)) for part in parts})
    path.chmod(_READ_ONLY)


def write_hub_folder(parts: Sequence[Part], folder: Path, tally: Tally, progress: Progress) -> None:
    """Write parts as a folder that `datasets.load_dataset` reads, a split each, with a card."""
    import pyarrow.parquet as pq

    data = folder / "data"
    data.mkdir()
    for part in parts:
        shards, in_shard = 0, 0
        writer = pq.ParquetWriter(_shard(data, part, shards), part.schema, compression="zstd")
        try:
            for batch in part.batches:
                if in_shard and in_shard + batch.num_rows > SHARD_ROWS:
                    writer.close()
                    shards, in_shard = shards + 1, 0
                    path = _shard(data, part, shards)
                    writer = pq.ParquetWriter(path, part.schema, compression="zstd")
                writer.write_batch(batch)
                in_shard += batch.num_rows
                tally.rows[part.name] += batch.num_rows
                progress(tally.rows.total())
        finally:
            writer.close()
    folder.joinpath("README.md").write_text(_card(parts, tally), "utf-8")


def _shard(data: Path, part: Part, number: int) -> Path:
    return data / f"{part.name}-{number:05}.parquet"


def _card(parts: Sequence[Part], tally: Tally) -> str:
    head, body = _divided(parts[0].card) if parts else ({}, "")
    files = [{"split": part.name, "path": f"data/{part.name}-*.parquet"} for part in parts]
    head |= {"configs": [{"config_name": "default", "data_files": files}]}
    body = body or f"# {cell(parts[0].title)}\n"
    if tally.left_out:
        rows = "".join(
            f"\n| {cell(reason)} | {count:,} |" for reason, count in tally.left_out.items()
        )
        body += f"\n## Left out when it was exported\n\n| | rows |\n|---|---:|{rows}\n"
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n{body}"


def _divided(card: str) -> tuple[dict[str, object], str]:
    """Return the front matter of a card and what follows it."""
    if not card.startswith("---\n"):
        return {}, card
    head, _, body = card[4:].partition("\n---\n")
    return dict(yaml.safe_load(head) or {}), body.lstrip("\n")
