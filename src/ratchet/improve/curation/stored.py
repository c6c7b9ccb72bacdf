"""History as traffic: the rows that somebody spoke about, joined by DuckDB without their texts.

    derived = Derived.open(history)
    derived.advance()
    traffic = stored_traffic(
        derived, "sft", end=end, judges=usable, consent="unless refused", context=context
    )

The same as `traffic_of(join_feedback(...), ...)` over everything, row by row and number by number,
in memory that follows what users said and not what is stored. What nobody spoke about is counted
where it lies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ratchet.improve.curation.calls import answers_of, asked_of
from ratchet.improve.curation.config import Consent, Demonstration
from ratchet.improve.curation.consent import REFUSED, UNSAID, refused_rows
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.derived import Derived, read_batches
from ratchet.improve.curation.endings import FAILED, cut_short
from ratchet.improve.curation.evidence import Evidence, evidence_weights
from ratchet.improve.curation.propensity import length_cuts, strata_of
from ratchet.improve.curation.rows import RowKind
from ratchet.improve.curation.shapes import WORDS
from ratchet.improve.curation.traffic import (
    BATCH,
    ROWS,
    BoolArray,
    Columns,
    FloatArray,
    IntArray,
    Numbers,
    ObjectArray,
    Traffic,
    clusters_of,
    demonstrated_texts,
    demonstration_rows,
    judged_rows,
    users_in_order,
    winners,
)
from ratchet.improve.curation.traits import FINE, hashes
from ratchet.outcomes.join import COLUMN_OF
from ratchet.outcomes.quality import quality_of
from ratchet.records.signals import BY_NAME, JUDGED_KINDS, STANDS_FOR
from ratchet.store.history import History
from ratchet.store.reporting import Answers

if TYPE_CHECKING:
    import duckdb

_DAY = 86_400_000_000
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_NUMBERS = {kind: name for kind, name in COLUMN_OF.items() if BY_NAME[kind].value != "text"}
_SEEN = {kind: kind for kind in (*STANDS_FOR.values(), "left")}
"""Kinds that are derived from the traffic, by their columns: what is read where no report came."""
_SPOKE = "(s.thumbs IS NOT NULL OR s.stars IS NOT NULL OR s.correction IS NOT NULL)"
_WANTED: dict[RowKind, str] = {
    "sft": f"SELECT DISTINCT i.same AS wanted FROM inside i JOIN spoken s USING (key) "
    f"WHERE {_SPOKE}",
    "kto": "SELECT 0::UBIGINT AS wanted WHERE false",
    "dpo": "SELECT DISTINCT i.turn AS wanted FROM inside i JOIN spoken s USING (key) "
    "WHERE coalesce(s.regenerated, s.asked_again) = 1.0",
}
"""Hashes that make a row count which nobody rated: evidence on the same answer, and what came next
in a session in which another answer was asked for."""
_MATCHED: dict[RowKind, str] = {"sft": "same", "kto": "same", "dpo": "turn"}
_TRAITS = (
    "prompt", "exact", "answer", "same", "both", "turn", "prompt_length", "answer_length",
    "prompt_state", "answer_state", "tools",
)  # fmt: skip
_CORRECTION = ("correction", "correction_length", "correction_state", "correction_place")


def stored_traffic(
    derived: Derived,
    kind: RowKind,
    *,
    end: datetime,
    judges: Collection[str],
    consent: Consent,
    context: Context,
    period: tuple[datetime | None, datetime] | None = None,
    of: str = "true",
) -> Traffic:
    """Return all that history holds of the time before `end` as traffic.

    Args:
        derived: What is derived from history, advanced to where history is.
        kind: What is selected.
        end: Interactions from then on are left out; feedback counts whenever it came.
        judges: Versions of judges that were found usable.
        consent: Whether saying nothing is consent. A user whose latest word is a refusal is refused
            whatever was said before.
        context: What else is known; finish reasons and permissions are history's.
        period: From when on (None: from the first one) and until when interactions count, of that
            time; None for all of it.
        of: SQL condition on `position` that says whose interactions count (`Origins.in_sql`).
    """
    since, until = (None, end) if period is None else period
    span = (0 if since is None else _count_of(since), _count_of(min(until, end)))
    with derived.connect() as connection:
        _prepare(connection, kind, span, judges, context, of)
        outside = 0 if period is None else _count_outside(connection, _count_of(end))
        counts = _count(connection, outside)
        rows = _Rows(counts, consent, _count_of(end), context)
        reader = connection.sql(_query(kind)).to_arrow_reader(BATCH)
        rows.add(pa.RecordBatch.from_pylist([], reader.schema))  # so that no rows have columns too
        for batch in reader:
            rows.add(batch)
    items = sorted(context.demonstrations, key=lambda item: item.id) if kind == "sft" else []
    return rows.traffic(derived.history, items)


def _prepare(
    connection: duckdb.DuckDBPyConnection,
    kind: RowKind,
    span: tuple[int, int],
    judges: Collection[str],
    context: Context,
    of: str,
) -> None:
    """Make the tables that the rows are joined from."""
    connection.register("usable", pa.table({"judge": pa.array(sorted(judges), pa.string())}))
    connection.register("marks", _marks(context))
    judged = ", ".join(f"'{name}'" for name in sorted(JUDGED_KINDS))
    # what the store let go of and was sent again stands in history twice: the first one counts
    connection.execute(
        "CREATE TEMP TABLE again AS SELECT key, min(position) AS kept FROM told GROUP BY key "
        "HAVING count(*) > 1"
    )
    connection.execute(
        "CREATE TEMP VIEW once AS SELECT told.* FROM told LEFT JOIN again USING (key) "
        f"WHERE (kept IS NULL OR position = kept) AND {of}"
    )
    connection.execute(
        "CREATE TEMP VIEW inside AS SELECT * FROM once "
        f"WHERE moment >= {max(span[0], 0)} AND moment < {span[1]}"
    )
    connection.execute(
        "CREATE TEMP VIEW used AS SELECT * FROM said WHERE (number IS NOT NULL OR "
        f"correction IS NOT NULL) AND "
        f"(kind NOT IN ({judged}) OR judge IN (SELECT judge FROM usable))"
    )
    connection.execute(
        "CREATE TEMP TABLE repeated AS SELECT DISTINCT about FROM "
        "(SELECT about FROM used GROUP BY about, kind HAVING count(*) > 1)"
    )
    once = f"SELECT about AS key, {_values('max({})')} FROM used ANTI JOIN repeated USING (about)"
    last = "arg_max({}, {{'given': given, 'id': id}})"
    more = f"SELECT about AS key, {_values(last)} FROM used SEMI JOIN repeated USING (about)"
    connection.execute(
        f"CREATE TEMP TABLE spoken AS {once} GROUP BY about UNION ALL {more} GROUP BY about"
    )
    connection.execute(f"CREATE TEMP TABLE wanted AS {_WANTED[kind]}")
    # also by what was said after `end`: nobody is trained on who has refused by now
    last = "arg_max(consent, {'moment': moment, 'consent': consent})"
    connection.execute(
        f'CREATE TEMP TABLE refusing AS SELECT "user", true AS refusing FROM once '
        f'WHERE consent <> {UNSAID} GROUP BY "user" HAVING {last} = {REFUSED}'
    )
    connection.execute(
        'CREATE TEMP TABLE firsts AS SELECT "user", min(moment) AS first FROM inside '
        'GROUP BY "user"'
    )


def _count_of(moment: datetime) -> int:
    """Return a time in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def _values(latest: str) -> str:
    """Return the columns of the latest event of each kind."""
    numbers = [
        f"{latest.format('number')} FILTER (kind = '{kind}') AS {name}"
        for kind, name in (_NUMBERS | _SEEN).items()
    ]
    texts = [
        f"{latest.format(name)} FILTER (kind = 'correction') AS {name}" for name in _CORRECTION[:3]
    ]
    place = f"{latest.format('position')} FILTER (kind = 'correction') AS correction_place"
    return ", ".join([*numbers, *texts, place])


def _query(kind: RowKind) -> str:
    columns = [
        *(
            f"i.{name}"
            for name in ("position", "key", "moment", '"user"', "segment", "application", "failed")
        ),
        *(f"i.{name}" for name in (*_TRAITS, "ending", "consent", "retain", "shape")),
        *(f"s.{name}" for name in (*_NUMBERS.values(), *_SEEN, *_CORRECTION)),
        *(f"m.{name}" for name in ("withheld", "preferred", "judged", "reviewed", "cluster")),
        "f.first",
        "r.refusing",
    ]
    marked = {"sft": " OR m.preferred", "kto": "", "dpo": " OR m.judged"}[kind]
    chosen = f"{_SPOKE}{marked}"
    taken = f"{chosen} OR w.wanted IS NOT NULL"
    whole = chosen if kind == "sft" else taken
    return (
        f"SELECT {', '.join(columns)}, coalesce({whole}, false) AS whole "
        "FROM inside i LEFT JOIN spoken s USING (key) LEFT JOIN marks m USING (key) "
        f"LEFT JOIN wanted w ON i.{_MATCHED[kind]} = w.wanted "
        'LEFT JOIN firsts f ON i."user" = f."user" '
        'LEFT JOIN refusing r ON i."user" = r."user" '
        f"WHERE {taken} ORDER BY i.moment, i.id"
    )


def _marks(context: Context) -> pa.Table:
    """Return what is known of single interactions besides their feedback."""
    clusters, _ = clusters_of(context)
    preferred = winners(context.judged)
    judged = {key for pair in context.judged for key in (pair.first_id, pair.second_id)}
    withheld, reviewed = set(context.withheld), context.reviewed
    ids = sorted({*withheld, *clusters, *preferred, *judged, *reviewed})
    return pa.table(
        {
            "key": pa.array(hashes(ids), pa.uint64()),
            "withheld": pa.array([key in withheld for key in ids], pa.bool_()),
            "preferred": pa.array([key in preferred for key in ids], pa.bool_()),
            "judged": pa.array([key in judged for key in ids], pa.bool_()),
            "reviewed": pa.array(
                [float(reviewed[key]) if key in reviewed else None for key in ids], pa.float32()
            ),
            "cluster": pa.array([clusters.get(key, 0) for key in ids], pa.int32()),
        }
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """What is counted over all interactions, also those that are no rows."""

    size: int
    outside: int
    last: int
    segments: tuple[str, ...]
    ordinary_length: FloatArray
    cuts: tuple[FloatArray, FloatArray]
    strata: IntArray


def _count_outside(connection: duckdb.DuckDBPyConnection, end: int) -> int:
    """Count the interactions before a time that are not of the time chosen."""
    queries = (f"FROM once WHERE moment >= 0 AND moment < {end}", "FROM inside")
    (every,), (inside,) = (
        connection.execute(f"SELECT count(*) {query}").fetchall()[0] for query in queries
    )
    return int(every - inside)


def _count(connection: duckdb.DuckDBPyConnection, outside: int) -> _Counts:
    rows = connection.execute(
        "SELECT segment, count(*), count(*) FILTER (NOT failed AND answer_length > 0), "
        "sum(answer_length) FILTER (NOT failed AND answer_length > 0), max(moment) "
        "FROM inside GROUP BY segment ORDER BY segment"
    ).fetchall()
    means = [float(total) / answered if answered else np.nan for _, _, answered, total, _ in rows]
    names = ("prompt_length", "answer_length")
    cuts = tuple(_cuts(connection, name) for name in names)
    thirds = [
        " + ".join(f"({name} >= {float(cut)!r}::DOUBLE)::INTEGER" for cut in limits)
        for name, limits in zip(names, cuts, strict=True)
        if rows
    ]
    strata = np.zeros(9 * len(rows), dtype=np.int64)
    numbers = {row[0]: number for number, row in enumerate(rows)}
    query = f"SELECT segment, {', '.join(thirds)}, count(*) FROM inside GROUP BY ALL"
    for segment, prompt, answer, count in connection.execute(query).fetchall() if rows else ():
        strata[numbers[segment] * 9 + prompt * 3 + answer] = count
    return _Counts(
        size=sum(row[1] for row in rows),
        outside=outside,
        last=max((row[4] for row in rows), default=0),
        segments=tuple(numbers),
        ordinary_length=np.array(means, dtype=np.float64),
        cuts=(cuts[0], cuts[1]),
        strata=strata,
    )


def _cuts(connection: duckdb.DuckDBPyConnection, name: str) -> FloatArray:
    query = f"SELECT {name}, count(*) FROM inside GROUP BY 1 ORDER BY 1"
    table = connection.execute(query).fetchnumpy()
    values = list(table.values())
    return length_cuts(np.asarray(values[0]), np.asarray(values[1]).astype(np.int64))


@dataclass(slots=True)
class _Rows:
    """Rows as they come, in order of time."""

    counts: _Counts
    consent: Consent
    now: int
    context: Context
    parts: list[Columns] = field(default_factory=list)
    pooled: list[Columns] = field(default_factory=list)
    judged: dict[int, int] = field(default_factory=dict)
    size: int = 0
    endings: Numbers = field(default_factory=lambda: Numbers(""))
    segments: Numbers = field(init=False)

    def __post_init__(self) -> None:
        self.segments = Numbers(*self.counts.segments)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""
        columns = self._columns(batch)
        pooled = ("same", "user", "evidence", "value")
        self.pooled.append({name: columns[name] for name in pooled})
        whole = _array(batch, "whole", np.bool_, False)
        judged = np.flatnonzero(_array(batch, "judged", np.bool_, False)[whole])
        keys = _array(batch, "key", np.uint64, 0)[whole]
        self.judged.update({int(keys[row]): self.size + int(row) for row in judged})
        columns = {name: values[whole] for name, values in columns.items()}
        self.parts.append(columns)
        self.size += int(whole.sum())

    def _columns(self, batch: pa.RecordBatch) -> Columns:
        columns: Columns = {
            name: _array(batch, name, np.uint64, 0) for name in (*_TRAITS[:6], "tools")
        }
        for name, missing in (("prompt_length", 0), ("answer_length", 0), ("correction_length", 0)):
            columns[name] = _array(batch, name, np.int32, missing)
        for name in ("prompt_state", "answer_state", "correction_state"):
            columns[name] = _array(batch, name, np.int8, FINE)
        for name in ("withheld", "preferred", "failed"):
            columns[name] = _array(batch, name, np.bool_, False)
        wanted = (*_NUMBERS.values(), *_SEEN)
        numbers = {name: _array(batch, name, np.float64, np.nan) for name in wanted}
        corrected = np.asarray(batch["correction"].is_valid())
        read = self._as_reported(batch, numbers)
        scored = quality_of(read, corrected, columns["failed"], self.context.weights)
        segment = self.segments.of(batch["segment"].to_pylist())
        lengths = [columns["prompt_length"], columns["answer_length"]]
        return columns | {
            "place": _array(batch, "position", np.int64, 0),
            "moment": _array(batch, "moment", np.int64, 0),
            "first": _array(batch, "first", np.int64, 0),
            "user": _array(batch, "user", np.uint64, 0),
            "segment": segment,
            "unsafe": numbers["unsafe"] == 1.0,
            "regenerated": read["regenerated"] == 1.0,
            "corrected": corrected,
            "correction": _array(batch, "correction", np.uint64, 0),
            "correction_place": _array(batch, "correction_place", np.int64, 0),
            "value": scored.value,
            "explicit": scored.explicit,
            "evidence": evidence_weights(scored, self.context.weights),
            "ending": self._endings(batch["ending"], columns["failed"]),
            "refused": _array(batch, "refusing", np.bool_, False)
            | refused_rows(
                _array(batch, "consent", np.int8, 0),
                _array(batch, "retain", np.int64, 0),
                self.consent,
                self.now,
            ),
            "shape": _array(batch, "shape", np.int8, WORDS),
            "reviewed": _array(batch, "reviewed", np.float32, np.nan),
            "cluster": _array(batch, "cluster", np.int32, 0),
            "stratum": strata_of(segment, lengths, self.counts.cuts),
        }

    def _as_reported(self, batch: pa.RecordBatch, numbers: Columns) -> Columns:
        """Return numbers with the noes that the absence of a signal says."""
        reporting = self.context.reporting
        if reporting is None or reporting.is_plain:
            return numbers
        coded = batch["application"].dictionary_encode()
        answers = Answers(
            names=tuple(coded.dictionary.to_pylist()),
            number=coded.indices.to_numpy().astype(np.int64),
            given=_array(batch, "moment", np.int64, 0),
            shown=~_array(batch, "failed", np.bool_, False),
        )
        columns = _NUMBERS | _SEEN
        sent = {kind: numbers[name] for kind, name in columns.items()}
        found = reporting.read_all(sent, answers, None)
        read = {columns[kind]: values for kind, values in found.items()}
        return numbers | read

    def _endings(self, named: Any, failed: BoolArray) -> Any:
        said = [cut_short(reason) if reason else "" for reason in named.to_pylist()]
        return self.endings.of(np.where(failed, FAILED, np.array(said, dtype=np.object_)))

    def traffic(self, history: History, items: Sequence[Demonstration]) -> Traffic:
        """Return all rows, with experts' demonstrations after them."""
        size, counts, context = self.size, self.counts, self.context
        pooled = Evidence(
            *(_joined(self.pooled, name) for name in ("same", "user", "evidence", "value"))
        )
        if items:
            added = demonstration_rows(items, self.segments, counts.last)
            self.parts.append(added | {"correction_place": np.zeros(len(items), np.int64)})
        columns = {name: _joined(self.parts, name) for name in ("user", *ROWS, "correction_place")}
        compared = [key for pair in context.judged for key in (pair.first_id, pair.second_id)]
        row_of: dict[str | None, int] = {
            key: self.judged[number]
            for key, number in zip(compared, hashes(compared).tolist(), strict=True)
            if number in self.judged
        }
        texts = HistoryTexts(
            history, columns["place"][:size], columns["moment"][:size],
            columns.pop("correction_place"), items,
        )  # fmt: skip
        columns["user"] = users_in_order(columns["user"], columns["first"])
        return Traffic(
            **columns,
            size=counts.size,
            outside=counts.outside,
            demonstrated=len(items),
            segments=self.segments.names,
            ordinary_length=counts.ordinary_length,
            endings=self.endings.names,
            clusters=clusters_of(context)[1],
            strata=counts.strata,
            propensity=None,
            pooled=pooled,
            judged=judged_rows(context.judged, row_of),
            texts=texts,
        )


def _array(batch: pa.RecordBatch, name: str, kind: Any, missing: Any) -> Any:
    """Return a column with a value in the place of nulls."""
    column = batch[name]
    if column.null_count:
        column = column.fill_null(missing)
    return column.to_numpy(zero_copy_only=False).astype(kind, copy=False)


def _joined(parts: list[Columns], name: str) -> Any:
    """Return a column of all parts, which give theirs up, so that it is not there twice."""
    column = [part.pop(name) for part in parts]
    return np.concatenate(column)


_READ_WITH = {"asked": ("prompt", "messages"), "response": ("response", "tool_calls")}
"""Columns of history that a text is made of, where these are several."""


def _columns_of(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(column for name in names for column in _READ_WITH.get(name, (name,)))
    )


def _text_column(batch: pa.RecordBatch, name: str) -> ObjectArray:
    """Return a text of each row; see `Texts.read`."""
    if name == "asked":
        return _objects(asked_of(batch["prompt"].to_pylist(), batch["messages"]))
    if name == "response" and "tool_calls" in batch.schema.names:
        calls = batch["tool_calls"].to_pylist()
        return _objects(answers_of(batch["response"].to_pylist(), calls))
    if name not in batch.schema.names:  # files of the first releases have no tools
        return np.full(len(batch), None, dtype=np.object_)
    return np.asarray(batch[name].to_numpy(zero_copy_only=False), dtype=np.object_)


def _objects(texts: Sequence[str]) -> ObjectArray:
    found = np.empty(len(texts), dtype=np.object_)
    found[:] = texts
    return found


class HistoryTexts:
    """Texts of rows of history, read file by file, and of demonstrations after them."""

    def __init__(
        self,
        history: History,
        positions: IntArray,
        moments: IntArray,
        corrections: IntArray,
        demonstrations: Sequence[Demonstration],
    ) -> None:
        self._history = history
        self._files = history.readable()
        self._positions = positions
        self._days = (moments // _DAY).astype(np.int32)
        self._corrections = corrections
        self._added = demonstrated_texts(demonstrations)

    def read(self, rows: IntArray, *names: str) -> Iterator[tuple[IntArray, list[ObjectArray]]]:
        """See `Texts.read`."""
        size = len(self._positions)
        mine = np.flatnonzero(rows < size)
        days, positions = self._days[rows[mine]], self._positions[rows[mine]]
        order = np.lexsort((positions, days))
        mine, days, positions = mine[order], days[order], positions[order]
        for item in (item for item in self._files if item.table == "interactions"):
            day = (item.day - _EPOCH.date()).days
            begin, end = np.searchsorted(days, [day, day + 1])
            within = slice(begin, end)
            for places, columns in self._of_file(item, positions[within], names):
                yield mine[within][places], columns
        added = np.flatnonzero(rows >= size)
        if len(added):
            yield added, [self._added[name][rows[added] - size] for name in names]

    def corrections(self, rows: IntArray) -> ObjectArray:
        """See `Texts.corrections`."""
        order = np.argsort(self._corrections[rows])
        positions = self._corrections[rows][order]
        texts = np.full(len(rows), "", dtype=np.object_)
        for item in (item for item in self._files if item.table == "feedback"):
            for places, (column,) in self._of_file(item, positions, ("text",)):
                texts[order[places]] = column
        return texts

    def _of_file(
        self, item: Any, positions: IntArray, names: Sequence[str]
    ) -> Iterator[tuple[IntArray, list[ObjectArray]]]:
        """Yield columns of those of the positions (ascending) that a file holds."""
        begin, end = np.searchsorted(positions, [item.first, item.last + 1])
        if begin == end:
            return
        for batch in read_batches(self._history, item, ("position", *_columns_of(names)), BATCH):
            held = batch["position"].to_numpy()
            first, last = np.searchsorted(positions, [held[0], held[-1] + 1])
            places = np.arange(first, last)
            at = np.minimum(np.searchsorted(held, positions[places]), len(held) - 1)
            there = held[at] == positions[places]
            if there.any():
                taken = batch.take(pa.array(at[there]))
                yield places[there], [_text_column(taken, name) for name in names]
