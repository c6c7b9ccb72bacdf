"""How history lies in its folder: its tables, the names of its files, and its cursor.

    cursor.json
    interactions/day=2026-03-02/000000000001-000000065536.parquet
    feedback/day=2026-03-02/000000000001-000000012034.parquet

Files of interactions that were written before calls of tools were kept lack the columns `LATER`;
the cursor says up to which position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sa
from pydantic import Field

from ratchet.records import Record
from ratchet.records.base import UtcTime
from ratchet.store.arrivals import Position
from ratchet.store.tables import FEEDBACK_EVENTS, INTERACTIONS

if TYPE_CHECKING:
    import pyarrow as pa

HistoryTable = Literal["interactions", "feedback"]
TABLES: tuple[HistoryTable, ...] = get_args(HistoryTable)
SCHEMA_VERSION = 1
STORED: dict[HistoryTable, sa.Table] = {"interactions": INTERACTIONS, "feedback": FEEDBACK_EVENTS}
"""The table of the store from which each table of history is copied."""
DAY_OF: dict[HistoryTable, str] = {"interactions": "created_at", "feedback": "received_at"}
"""Whose UTC day says in which folder a row lies."""
COLUMNS: dict[HistoryTable, dict[str, str]] = {
    "interactions": {
        "position": "BIGINT",
        "id": "VARCHAR",
        "digest": "VARCHAR",
        "session_id": "VARCHAR",
        "user_id": "VARCHAR",
        "created_at": "TIMESTAMPTZ",
        "received_at": "TIMESTAMPTZ",
        "model_version": "VARCHAR",
        "segment": "VARCHAR",
        "prompt": "VARCHAR",
        "messages": "VARCHAR",
        "response": "VARCHAR",
        "latency_seconds": "DOUBLE",
        "error": "VARCHAR",
        "metadata": "VARCHAR",
        "tool_calls": "VARCHAR",
        "refusal": "VARCHAR",
        "tools": "VARCHAR",
        "response_format": "VARCHAR",
        "documents": "VARCHAR",
        "continues": "VARCHAR",
    },
    "feedback": {
        "position": "BIGINT",
        "id": "VARCHAR",
        "digest": "VARCHAR",
        "interaction_id": "VARCHAR",
        "user_id": "VARCHAR",
        "created_at": "TIMESTAMPTZ",
        "received_at": "TIMESTAMPTZ",
        "kind": "VARCHAR",
        "number": "DOUBLE",
        "text": "VARCHAR",
        "updated_at": "TIMESTAMPTZ",
        "version_of": "VARCHAR",
    },
}
"""Columns with their types in DuckDB; `messages`, `metadata` and `tool_calls` are JSON."""
LATER = frozenset({"tool_calls", "refusal", "tools", "response_format", "documents", "continues"})
"""Columns of interactions that files of the first releases lack: nothing was there to be said."""
_PATH = re.compile(
    r"(?P<table>interactions|feedback)/day=(?P<day>\d{4}-\d\d-\d\d)/"
    r"(?P<first>\d{12})-(?P<last>\d{12})\.parquet"
)


class Cursor(Record):
    """What is written: the file that makes others count.

    Attributes:
        version: Of the layout and its columns.
        store: Identity of the store that the rows are of.
        interactions: Position of the last interaction written.
        feedback: Position of the last feedback event written.
        written_at: When.
        narrow: Position of the last interaction in a file that lacks the columns `LATER`; None in a
            history that no version wrote to which knows them.
    """

    version: int = SCHEMA_VERSION
    store: str
    interactions: int = Field(default=0, ge=0)
    feedback: int = Field(default=0, ge=0)
    written_at: UtcTime
    narrow: int | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)

    def is_narrow(self, item: HistoryFile) -> bool:
        """Tell whether a file may lack the columns `LATER`, which no row of it fills then."""
        return item.table == "interactions" and (self.narrow is None or item.last <= self.narrow)

    def of(self, table: HistoryTable) -> int:
        """Return up to which position a table is written."""
        return self.interactions if table == "interactions" else self.feedback

    @property
    def position(self) -> Position:
        """Both positions."""
        return Position(self.interactions, self.feedback)


@dataclass(frozen=True, slots=True, order=True)
class HistoryFile:
    """A file of history.

    Attributes:
        table: What it holds rows of.
        day: Theirs.
        first: Position of its first row.
        last: Position of its last row.
        size: Bytes.
    """

    table: HistoryTable
    day: date
    first: int
    last: int
    size: int = 0

    @property
    def path(self) -> str:
        """Where it lies below the folder."""
        folder = f"{self.table}/day={self.day.isoformat()}"
        return f"{folder}/{self.first:012}-{self.last:012}.parquet"


def parse_path(path: str, size: int) -> HistoryFile | None:
    """Return the file that a path below the folder names; None for anything else there."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    table: HistoryTable = "interactions" if found["table"] == "interactions" else "feedback"
    day = date.fromisoformat(found["day"])
    return HistoryFile(table, day, int(found["first"]), int(found["last"]), size)


def stored_columns(table: HistoryTable) -> list[sa.ColumnElement[Any]]:
    """Return a table's columns as the store selects them: JSON as text."""
    columns = [STORED[table].c[name] for name in COLUMNS[table]]
    return [sa.cast(one, sa.Text) if isinstance(one.type, sa.JSON) else one for one in columns]


def schema_of(table: HistoryTable) -> pa.Schema:
    """Return a table's columns as Arrow has them."""
    import pyarrow as pa

    types = {
        "BIGINT": pa.int64(),
        "VARCHAR": pa.string(),
        "DOUBLE": pa.float64(),
        "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    }
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS[table].items()])


def readable(files: Iterable[HistoryFile], cursor: Cursor | None) -> list[HistoryFile]:
    """Return the files that count, in order.

    They are complete, since the cursor was written after them. A file whose positions lie within
    those of another one of its day was replaced by that one.
    """
    if cursor is None:
        return []
    found: list[HistoryFile] = []
    complete = [item for item in files if item.last <= cursor.of(item.table)]
    # of files with one beginning the longest comes first
    for item in sorted(complete, key=lambda item: (item.table, item.day, item.first, -item.last)):
        before = found[-1] if found else None
        same_day = before is not None and (before.table, before.day) == (item.table, item.day)
        if before is None or not same_day or item.last > before.last:
            found.append(item)
    return found
