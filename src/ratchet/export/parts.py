"""What a kind hands to a format: parts of rows as Arrow, and the tally of what became of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1_000
"""Rows of a batch that are made of Python's objects."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that become one file.

    Attributes:
        name: Such as `interactions`, or the split of a training set.
        schema: Their columns.
        batches: The rows, read once.
        line: Makes of a row, by its columns, what stands on a line of JSON; None for a row that is
            left out, which is told in the tally.
        title: What it is, for people.
        card: Markdown about it with its own front matter's values, for a Hugging Face folder.
    """

    name: str
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    line: Callable[[dict[str, Any]], dict[str, Any]]
    title: str = ""
    card: str = ""


@dataclass(slots=True)
class Tally:
    """What became of the rows.

    Attributes:
        rows: Written, by part.
        left_out: Rows that were left out, by reason.
        redacted: Passages of personal data that were taken out, by kind.
        notes: What whoever takes the file should know.
        training_set: Digest of the training set that was written.
    """

    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    training_set: str | None = None


def batches_of(
    rows: Iterable[Mapping[str, Any]], schema: pa.Schema, size: int = ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield rows as batches; a value that a column of text holds otherwise is written as JSON."""
    import pyarrow as pa

    texts = {column.name for column in schema if column.type == pa.string()}
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append({name: _cell(value, name in texts) for name, value in row.items()})
        if len(batch) == size:
            yield pa.RecordBatch.from_pylist(batch, schema)
            batch = []
    if batch:
        yield pa.RecordBatch.from_pylist(batch, schema)


def _cell(value: Any, is_text: bool) -> Any:
    if is_text and value is not None and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value


def json_line(names: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what writes a row on a line: times as text, and columns that are JSON as values."""

    def line(row: dict[str, Any]) -> dict[str, Any]:
        return {
            name: json.loads(value) if name in names and value is not None else moment_text(value)
            for name, value in row.items()
        }

    return line


def moment_text(value: Any) -> Any:
    """Return a time as ISO 8601 in UTC; anything else as it is."""
    if not isinstance(value, datetime):
        return value
    return value.isoformat().replace("+00:00", "Z")
