"""What curation has to know of history, computed once for each of its files.

    derived = Derived.open(history)
    derived.advance()                     # of new files alone
    with derived.connect() as connection: # views `told` (interactions) and `said` (feedback)
        ...

A narrow file lies beside each file of history, under `derived-<version>`; it has the same name and
a mark of the content that it was made from. One that was made from other content (a forgotten
user's rows were erased) is made anew, and one whose file is gone is deleted. Each appears whole or
not at all, so that a killed run leaves nothing to mend.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from unicodedata import unidata_version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ratchet.improve.curation import shapes
from ratchet.improve.curation.calls import answers_of, asked_of
from ratchet.improve.curation.consent import ALWAYS, UNSAID, permission_of
from ratchet.improve.curation.endings import WHOLE
from ratchet.improve.curation.traits import VERSION, correction_traits, hashes, interaction_traits
from ratchet.records import digest
from ratchet.records.signals import BY_NAME, JUDGED_KINDS
from ratchet.store.endings import KEYS
from ratchet.store.history import History, HistoryFile
from ratchet.store.history.layout import HistoryTable
from ratchet.store.history.place import DERIVED
from ratchet.store.permissions import AGREEING, CONSENT, RETAIN
from ratchet.store.reporting import APPLICATION

if TYPE_CHECKING:
    import duckdb

_USED = sorted(
    kind
    for kind, signal in BY_NAME.items()
    if (signal.column or signal.stands_for or kind == "left") and kind != "comment"
)
_RULES = [
    VERSION,
    sorted(WHOLE),
    KEYS,
    CONSENT,
    RETAIN,
    sorted(AGREEING),
    _USED,
    sorted(JUDGED_KINDS),
    APPLICATION,
    shapes.VERSION,
]
# which characters are letters, and what they are in lower case, is Python's version of Unicode
_NAME = f"{DERIVED}{digest([*_RULES, unidata_version])[:12]}"
_VIEWS: dict[HistoryTable, str] = {"interactions": "told", "feedback": "said"}
_INTERACTION_COLUMNS = (
    "position", "id", "session_id", "user_id", "created_at", "segment", "prompt", "response",
    "error", "metadata", "messages", "tool_calls", "tools",
)  # fmt: skip
_FEEDBACK_COLUMNS = (
    "position", "id", "interaction_id", "created_at", "updated_at", "kind", "number", "text",
)  # fmt: skip
_HASHES = ("prompt", "exact", "answer", "same", "both", "turn")
TOLD = pa.schema(
    {
        "position": pa.int64(), "key": pa.uint64(), "id": pa.string(), "moment": pa.int64(),
        "user": pa.uint64(), "segment": pa.string(), "application": pa.string(),
        "failed": pa.bool_(),
        **dict.fromkeys(_HASHES, pa.uint64()),
        "prompt_length": pa.int32(), "answer_length": pa.int32(),
        "prompt_state": pa.int8(), "answer_state": pa.int8(),
        "ending": pa.string(), "consent": pa.int8(), "retain": pa.int64(),
        "shape": pa.int8(), "tools": pa.uint64(),
    }
)  # fmt: skip
SAID = pa.schema(
    {
        "position": pa.int64(), "about": pa.uint64(), "id": pa.string(), "given": pa.int64(),
        "kind": pa.string(), "number": pa.float64(), "judge": pa.string(),
        "correction": pa.uint64(), "correction_length": pa.int32(), "correction_state": pa.int8(),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Derived:
    """What is derived from a history. See the module's text."""

    history: History

    @classmethod
    def open(cls, history: History) -> Self:
        """Open what is derived from a history; nothing is created."""
        return cls(history)

    def advance(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Compute what is missing, delete what is out of date; return how many files were made.

        Args:
            progress: Called with how many of how many files were made, after each.

        Raises:
            BusyError: Another process was still writing history after ten minutes.
        """
        return self._advance(progress)[0]

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to DuckDB with the views `told` and `said`. Close it after use.

        What another process wrote or erased since `advance` is derived first.
        """
        _, paths = self._advance()
        place, connection = self.history.place, self.history.connect()
        for table, view in _VIEWS.items():
            urls = [
                f"{place.address}/{path}" for item, path in paths.items() if item.table == table
            ]
            connection.execute(_view(view, TOLD if view == "told" else SAID, urls))
        return connection

    def _advance(
        self, progress: Callable[[int, int], None] | None = None
    ) -> tuple[int, dict[HistoryFile, str]]:
        """Return how many files were made, and where what is derived from each file lies."""
        place, paths = self.history.place, self._paths()
        if place.derived() == set(paths.values()):
            return 0, paths
        with place.writing():  # history stands still
            paths, there = self._paths(), place.derived()
            missing = [item for item, path in paths.items() if path not in there]
            for number, item in enumerate(missing, start=1):
                place.put(paths[item], _parquet(_derive(self.history, item)))
                if progress is not None:
                    progress(number, len(missing))
            for path in there - set(paths.values()):
                place.files.rm_file(f"{place.root}/{path}")
        return len(missing), paths

    def _paths(self) -> dict[HistoryFile, str]:
        """Return where what is derived from each file that counts lies, in order."""
        marks = self.history.place.marks()
        return {
            item: f"{_NAME}/{item.path.removesuffix('.parquet')}-{marks.get(item.path, '')}.parquet"
            for item in self.history.readable()
        }


def read_batches(
    history: History, item: HistoryFile, columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield columns of a file of history in batches of so many rows."""
    place = history.place
    with place.files.open(f"{place.root}/{item.path}", "rb") as file:
        yield from pq.ParquetFile(file).iter_batches(rows, columns=list(columns))


def _derive(history: History, item: HistoryFile) -> pa.Table:
    interactions = item.table == "interactions"
    columns = _INTERACTION_COLUMNS if interactions else _FEEDBACK_COLUMNS
    schema, derive = (TOLD, _told) if interactions else (SAID, _said)
    batches = [
        pa.RecordBatch.from_pydict(derive(batch), schema)
        for batch in read_batches(history, item, columns, 8_192)
    ]
    return pa.Table.from_batches(batches, schema)


def _told(batch: pa.RecordBatch) -> dict[str, Any]:
    prompts, answers, sessions, users, ids = (
        batch[name].to_pylist() for name in ("prompt", "response", "session_id", "user_id", "id")
    )
    metadata, segments = batch["metadata"].to_pylist(), batch["segment"].to_pylist()
    allowed = [_allowed(text) for text in metadata]
    endings, consents, retained, noted = zip(*allowed, strict=True) if allowed else ((),) * 4
    calls, tools = _later(batch, "tool_calls"), _later(batch, "tools")
    answered = answers_of(answers, None if calls is None else calls.to_pylist())
    given = None if tools is None else tools.to_pylist()
    return {
        **interaction_traits(asked_of(prompts, batch["messages"]), answered, sessions, given),
        "position": batch["position"],
        "key": hashes(ids),
        "id": batch["id"],
        "moment": batch["created_at"].cast(pa.int64()),
        "user": hashes(users),
        "segment": batch["segment"],
        "application": [
            _named(text) or segment for text, segment in zip(metadata, segments, strict=True)
        ],
        "failed": batch["error"].is_valid(),
        "ending": list(endings),
        "consent": list(consents),
        "retain": list(retained),
        "shape": shapes.shapes_of(batch["messages"], batch["response"], calls, noted),
    }


def _later(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    """Return a column that files of before calls of tools were kept do not have."""
    return batch[name] if name in batch.schema.names else None


def _named(metadata: str) -> str | None:
    """Return the application that metadata names."""
    return json.loads(metadata).get(APPLICATION) if f'"{APPLICATION}"' in metadata else None


def _allowed(metadata: str) -> tuple[str | None, int, int, bool]:
    """Return the finish reason of an answer that is not whole, the consent and the time to keep.

    The last of the four says whether calls of tools became text.
    """
    if metadata == "{}":
        return None, UNSAID, int(ALWAYS), False
    given = json.loads(metadata)
    named = next((given[key] for key in KEYS if key in given), "").strip()
    ending = named if named and named.casefold() not in WHOLE else None
    return ending, *permission_of(given), shapes.is_noted(given)


def _said(batch: pa.RecordBatch) -> dict[str, Any]:
    batch = batch.filter(pc.is_in(batch["kind"], value_set=pa.array(_USED, pa.string())))
    kinds, texts = batch["kind"], batch["text"]
    judged = pc.is_in(kinds, value_set=pa.array(sorted(JUDGED_KINDS), pa.string()))
    corrected = pc.and_(pc.equal(kinds, "correction"), pc.is_valid(texts))
    rows = np.flatnonzero(np.asarray(corrected))
    found = correction_traits(texts.take(pa.array(rows)).to_pylist())
    given = pc.coalesce(batch["updated_at"], batch["created_at"])
    return {
        "position": batch["position"],
        "about": hashes(batch["interaction_id"].to_pylist()),
        "id": batch["id"],
        "given": given.cast(pa.int64()),
        "kind": kinds,
        "number": batch["number"],
        "judge": pc.if_else(judged, texts, pa.scalar(None, pa.string())),
        **{
            name: _spread(values, rows, len(kinds), SAID.field(name).type)
            for name, values in found.items()
        },
    }


def _spread(values: Any, rows: Any, size: int, kind: pa.DataType) -> pa.Array:
    """Return a column with values at some rows and null elsewhere."""
    whole = np.zeros(size, dtype=values.dtype)
    whole[rows] = values
    missing = np.ones(size, dtype=np.bool_)
    missing[rows] = False
    return pa.array(whole, kind, mask=missing)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    named = ["segment", "application", "ending", "kind", "judge"]
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=[name for name in named if name in table.column_names],
    )
    return buffer.getvalue()


def _view(name: str, schema: pa.Schema, urls: Sequence[str]) -> str:
    if not urls:
        types = {
            pa.int64(): "BIGINT", pa.uint64(): "UBIGINT", pa.string(): "VARCHAR",
            pa.int32(): "INTEGER", pa.int8(): "TINYINT", pa.bool_(): "BOOLEAN",
            pa.float64(): "DOUBLE",
        }  # fmt: skip
        empty = ", ".join(f'NULL::{types[field.type]} AS "{field.name}"' for field in schema)
        return f"CREATE VIEW {name} AS SELECT {empty} WHERE false"
    columns = ", ".join(f'"{column}"' for column in schema.names)
    listed = ", ".join("'" + url.replace("'", "''") + "'" for url in urls)
    return (
        f"CREATE VIEW {name} AS SELECT {columns} FROM read_parquet([{listed}], "
        "hive_partitioning = false)"
    )
