"""Recorded scores of champion and challenger on the same examples, read from a file.

CSV, JSON Lines, JSON or Parquet (see `ratchet.files.rows`) with the columns `example_id, metric,
champion, challenger`, one row an example and metric; optionally `user_id`, `group`, `cluster`, and
`champion_output`, `challenger_output`, by which the same artefact is found. Names are known in any
case. Examples of one user, or of one group (a conversation, a document, a day) where that is given,
count as dependent. An empty score is an example without one. A row that breaks a rule makes the
whole file unusable: a gate does not decide on what is left.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ratchet.deploy.gate.policy import LARGEST
from ratchet.errors import InvalidInputError
from ratchet.files.columns import csv_columns
from ratchet.files.rows import Row, read_rows, refuse_missing
from ratchet.files.text import FORMULA_STARTS, printable, restored_cell
from ratchet.stats.arrays import BoolArray, FloatArray, IntArray

REQUIRED = ("example_id", "metric", "champion", "challenger")
_TEXTS = (
    "example_id",
    "metric",
    "user_id",
    "group",
    "cluster",
    "champion_output",
    "challenger_output",
)
_MARKED = f"^'({'|'.join(map(re.escape, FORMULA_STARTS))})"
OPTIONAL = ("user_id", "group", "cluster", "champion_output", "challenger_output")
TIMES = ("time", "timestamp", "created_at", "date")
"""Columns by which the order of rows is that of time."""
NEEDS = tuple((name,) for name in REQUIRED)
EMPTY = frozenset({"", "null", "none", "nan", "na", "n/a"})
TRUTH = {"true": 1.0, "false": 0.0}
ERRORS_SHOWN = 10
NO_CLUSTER = -1
_STARTS_WITH_A_DATE = r"^\s*\d{4}-\d{2}-\d{2}"
REGRESSION = "regression"
"""The set of examples that guardrails per cluster are asked of, where there is one."""


@dataclass(frozen=True, slots=True, eq=False)
class MetricScores:
    """Scores of one metric: arrays of shape (n,), one entry an example.

    Attributes:
        metric: Its name.
        champion: nan where there is no score.
        challenger: nan where there is no score.
        users: A number for each user; None where examples have no users.
        clusters: Place in the names of clusters, -1 for none; None where there are no clusters.
    """

    metric: str
    champion: FloatArray
    challenger: FloatArray
    users: IntArray | None = None
    clusters: IntArray | None = None

    def __post_init__(self) -> None:
        sizes = {part.size for part in (self.champion, self.challenger)}
        sizes |= {part.size for part in (self.users, self.clusters) if part is not None}
        if len(sizes) != 1:
            raise InvalidInputError(
                f"{self.metric} needs one entry an example, got lengths {sorted(sizes)}"
            )
        for scores in (self.champion, self.challenger):
            if (np.abs(scores) > LARGEST).any():
                raise InvalidInputError(
                    f"scores of {self.metric} must be between -{LARGEST:g} and {LARGEST:g}, or nan "
                    f"for none, got {scores[np.abs(scores) > LARGEST][0]:g}; rescale them"
                )

    def take(self, rows: BoolArray) -> MetricScores:
        """Return the scores of some examples."""
        return MetricScores(
            self.metric,
            self.champion[rows],
            self.challenger[rows],
            None if self.users is None else self.users[rows],
            None if self.clusters is None else self.clusters[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class GateScores:
    """What a gate decides on.

    Attributes:
        metrics: In the order in which they came.
        cluster_names: Of the clusters.
        identical_outputs: Whether every answer was the same text; None where that is not known.
        sets: Metrics on further sets of examples, by the set's name. Where there is one of the name
            `regression`, guardrails per cluster are asked of it, and hold where it is empty.
        notes: What the reader of a decision should know of how the scores were read.
        constant_answer_rate: What always giving the most common right answer scores on the primary
            metric; None where that is not known.
    """

    metrics: Mapping[str, MetricScores]
    cluster_names: tuple[str, ...] = ()
    identical_outputs: bool | None = None
    sets: Mapping[str, Mapping[str, MetricScores]] = field(default_factory=dict)
    constant_answer_rate: float | None = None
    notes: tuple[str, ...] = ()


def metric_scores(
    pairs: Mapping[str, tuple[FloatArray, FloatArray]],
    *,
    users: Sequence[str | None] = (),
    clusters: Sequence[str | None] = (),
) -> tuple[dict[str, MetricScores], tuple[str, ...]]:
    """Return scores made in this process, and the names of their clusters.

    Args:
        pairs: By metric, champion's and challenger's of the same examples; nan for no score.
        users: Of each example, where any has one; one without is a user of its own.
        clusters: Of each example, where any has one.
    """
    names = tuple(dict.fromkeys(name for name in clusters if name is not None))
    places = {name: place for place, name in enumerate(names)}
    codes = {user: code for code, user in enumerate(dict.fromkeys(users)) if user is not None}
    known = np.array(
        [len(users) + row if user is None else codes[user] for row, user in enumerate(users)],
        dtype=np.int64,
    )
    of_cluster = [NO_CLUSTER if name is None else places[name] for name in clusters]
    metrics = {
        metric: MetricScores(
            metric,
            champion,
            challenger,
            known if codes else None,
            np.array(of_cluster, dtype=np.int64) if names else None,
        )
        for metric, (champion, challenger) in pairs.items()
    }
    return metrics, names


def read_scores(path: Path) -> GateScores:
    """Read scores from a file: CSV, JSON Lines, JSON or Parquet.

    Raises:
        InvalidInputError: The file is not there, lacks a column, or has rows that break a rule; the
            first of them are named with their lines.
    """
    columns = csv_columns(path, needs=NEEDS, names=(*OPTIONAL, *TIMES))
    if columns is not None:
        try:
            return scores_of_columns(_restored(columns), path.name)
        except InvalidInputError:  # said again below, with the lines of the file
            pass
    return _read_by_row(path)


def _restored(columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """The texts that `write_scores` made cells of, as `restored_cell` gives them."""
    return {
        name: pc.replace_substring_regex(column, _MARKED, r"\1") if name in _TEXTS else column
        for name, column in columns.items()
    }


def _read_by_row(path: Path) -> GateScores:
    columns: dict[str, list[str | None]] = {name: [] for name in (*REQUIRED, *OPTIONAL, *TIMES)}
    positions: list[str] = []
    wrong: list[str] = []
    seen: dict[str, None] = {}  # in the order in which they came
    blank = _BlankLines()
    with read_rows(path, needs=NEEDS, names=(*OPTIONAL, *TIMES)) as rows:
        for row in rows:
            blank.count(row)
            try:
                fields = _known_names(row.read(), columns)
            except InvalidInputError as error:
                wrong.append(f"{row.position}: {error}")
                continue
            seen |= dict.fromkeys(fields)
            positions.append(row.position)
            for name, values in columns.items():
                text = _text(fields.get(name))
                marked = row.kind == "csv" and text is not None and name in _TEXTS
                values.append(restored_cell(text) if marked and text is not None else text)
    if wrong and not positions:
        raise _unusable(path.name, wrong)
    if not positions:
        raise InvalidInputError(f"{path.name} must have at least 1 row, got none; record scores")
    refuse_missing(path, [*seen], NEEDS)
    arrays = {
        name: pa.array(values, type=pa.large_string())
        for name, values in columns.items()
        if name in seen
    }
    scores = scores_of_columns(arrays, path.name, positions=positions, wrong=wrong)
    return replace(scores, notes=(*scores.notes, *blank.notes(path.name)))


def _known_names(fields: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
    """Return the fields of a row, known names in any case under the name that they are known by.

    Raises:
        InvalidInputError: Two fields have one name then.
    """
    named: dict[str, Any] = {}
    for name, value in fields.items():
        folded = name.strip().casefold()
        key = folded if folded in known else name
        if key in named:
            raise InvalidInputError(
                f"a row must hold each name once, got {printable(name, 40)!r} beside another way "
                f"to write {key}; keep one of them"
            )
        named[key] = value
    return named


@dataclass(slots=True)
class _BlankLines:
    """Lines between rows that hold nothing: no example, but maybe one that was lost."""

    lines: int = 0
    first: int = 0
    _next: int | None = None

    def count(self, row: Row) -> None:
        """Count the blank lines between the row before and this one."""
        raw = row.raw
        if raw is None or ", item" in row.position:
            return
        expected = self._next
        if expected is None:
            expected = row.place if row.kind == "json" else min(row.place, 2)
        if row.place > expected:
            self.first = self.first or expected
            self.lines += row.place - expected
        self._next = row.place + max(row.lines, raw.rstrip("\r\n").count("\n") + 1)

    def notes(self, source: str) -> tuple[str, ...]:
        if not self.lines:
            return ()
        words = "1 blank line was" if self.lines == 1 else f"{self.lines:,} blank lines were"
        return (f"{words} left out of {source}, line {self.first} first; no example stands there",)


def scores_of_columns(
    columns: Mapping[str, pa.Array],
    source: str,
    *,
    positions: Sequence[str] = (),
    wrong: Sequence[str] = (),
) -> GateScores:
    """Return the scores of columns of texts, null where there is none. See `read_scores`.

    Args:
        columns: By name, each with an entry a row.
        source: The file's name, for messages.
        positions: Where each row is in its source; by default its number.
        wrong: What is wrong with further rows.
    """
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise InvalidInputError(
            f"{source} must have the columns {', '.join(REQUIRED)}, got none named "
            f"{', '.join(missing)} among {', '.join(columns) or 'none'}"
        )
    if len(columns["metric"]) == 0:
        raise InvalidInputError(f"{source} must have at least 1 row, got none; record scores first")
    broken = list(wrong)

    def refuse(row: int, reason: str) -> None:
        broken.append(f"{positions[row] if positions else f'row {row + 1}'}: {reason}")

    for name in ("example_id", "metric"):
        for row in np.flatnonzero(_is_empty(columns[name])):
            refuse(int(row), f"{name} must not be empty, got nothing; fill it in")
    champion = _numbers(columns["champion"], "champion", refuse)
    challenger = _numbers(columns["challenger"], "challenger", refuse)
    metric_codes, metric_names = _codes(columns["metric"])
    example_codes, example_names = _codes(columns["example_id"])
    pairs = metric_codes * len(example_names) + example_codes
    _, first = np.unique(pairs, return_index=True)
    for row in np.setdiff1d(np.arange(pairs.size), first):
        named = f"{metric_names[metric_codes[row]]} of {example_names[example_codes[row]]}"
        refuse(int(row), f"{named} is there before; average repeated answers")
    if broken:
        raise _unusable(source, broken)
    owner = "user_id" if _users(columns.get("group")) is None else "group"
    users = _users(columns.get(owner))
    clusters, cluster_names = _clusters(columns.get("cluster"))
    whole = MetricScores("all", champion, challenger, users, clusters)
    metrics = {}
    for place, name in enumerate(metric_names):
        part = whole.take(metric_codes == place)
        metrics[name] = MetricScores(
            name, part.champion, part.challenger, part.users, part.clusters
        )
    notes = _uneven_rows(metrics, len(example_names))
    notes += _unowned(columns, owner) if users is not None else _order_of_time(columns)
    return GateScores(metrics, cluster_names, _identical(columns), notes=notes)


def _uneven_rows(metrics: Mapping[str, MetricScores], examples: int) -> tuple[str, ...]:
    """Say which metrics have no row at all of some examples: another set of them, or lost ones."""
    return tuple(
        f"{examples - scores.champion.size:,} of {examples:,} examples have no row of {name} and "
        "count as another set of examples; write a row with an empty score for those that lack one"
        for name, scores in metrics.items()
        if scores.champion.size < examples
    )


def _unowned(columns: Mapping[str, pa.Array], owner: str) -> tuple[str, ...]:
    """Say how many rows are of nobody where others are of somebody."""
    lacking = int(_is_empty(columns[owner]).sum())
    if not lacking:
        return ()
    return (
        f"{lacking:,} of {len(columns[owner]):,} rows have no {owner} and count as independent of "
        "all others; fill it in where they are not",
    )


def _order_of_time(columns: Mapping[str, pa.Array]) -> tuple[str, ...]:
    """Say that rows come in the order of time and that nothing says which belong together."""
    named = [name for name in TIMES if name in columns and not _is_empty(columns[name]).all()]
    if pc.all(pc.match_substring_regex(columns["example_id"], _STARTS_WITH_A_DATE)).as_py():
        named.append("example_id")
    if not named:
        return ()
    return (
        f"rows have a time ({named[0]}) and neither user_id nor group: what follows in time often "
        "resembles what was before, and p-values hold for independent examples only; say by a "
        "column user_id or group which belong together",
    )


def _unusable(source: str, wrong: Sequence[str]) -> InvalidInputError:
    more = f"; and {len(wrong) - ERRORS_SHOWN:,} more" if len(wrong) > ERRORS_SHOWN else ""
    return InvalidInputError(f"{source}: {'; '.join(wrong[:ERRORS_SHOWN])}{more}")


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, default=str)


def _is_empty(column: pa.Array) -> BoolArray:
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    return np.asarray(pc.fill_null(blank, True))


def _numbers(column: pa.Array, name: str, refuse: Callable[[int, str], None]) -> FloatArray:
    trimmed = pc.utf8_trim_whitespace(column)
    blank = pc.or_kleene(pc.is_null(column), pc.equal(trimmed, ""))
    try:
        parsed = pc.cast(pc.if_else(blank, None, trimmed), pa.float64())
        values = np.array(parsed.to_numpy(zero_copy_only=False), dtype=np.float64)
    except pa.ArrowInvalid:  # one by one, to name what is no number
        values = np.full(len(column), np.nan)
        for place, text in enumerate(trimmed.to_pylist()):
            number = _number(text)
            if number is None:
                got = printable(text or "", 40)
                refuse(place, f"{name} must be a number or empty, got {got!r}; correct it")
            else:
                values[place] = number
    for row in np.flatnonzero(np.abs(values) > LARGEST):
        refuse(
            int(row),
            f"{name} must be finite and at most {LARGEST:g} in size, got {values[row]:g}; leave it "
            "empty, or rescale",
        )
    return values


def _number(text: str | None) -> float | None:
    if text is None or text.casefold() in EMPTY:
        return math.nan
    if text.casefold() in TRUTH:
        return TRUTH[text.casefold()]
    try:
        return float(text)
    except ValueError:
        return None


def _codes(column: pa.Array) -> tuple[IntArray, list[str]]:
    """A number for each text, in the order of their first occurrence."""
    encoded = pc.dictionary_encode(pc.utf8_trim_whitespace(pc.fill_null(column, "")))
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return np.asarray(encoded.indices, dtype=np.int64), encoded.dictionary.to_pylist()


def _users(column: pa.Array | None) -> IntArray | None:
    """A number for each user; a row without one is a user of its own."""
    if column is None or _is_empty(column).all():
        return None
    codes, names = _codes(column)
    empty = _is_empty(column)
    return np.where(empty, len(names) + np.arange(codes.size), codes)


def _clusters(column: pa.Array | None) -> tuple[IntArray | None, tuple[str, ...]]:
    if column is None or _is_empty(column).all():
        return None, ()
    codes, names = _codes(column)
    codes = np.where(_is_empty(column), NO_CLUSTER, codes)
    return codes, tuple(names)


def _identical(columns: Mapping[str, pa.Array]) -> bool | None:
    """Whether every answer is the same text; unknown where one is missing."""
    outputs: Sequence[pa.Array] = [
        columns[name] for name in ("champion_output", "challenger_output") if name in columns
    ]
    if len(outputs) < 2 or any(_is_empty(column).any() for column in outputs):
        return None
    return bool(pc.all(pc.equal(*outputs)).as_py())
