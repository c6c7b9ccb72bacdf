"""A control chart of any signal of the store, over time, by version, segment and the like.

    readings = read_window(store, window, QualityWeights())
    report = chart_signal(readings, find_signal("thumbs-down"))

Points are spans of time (or groups of equally many observations); limits are chosen for a wanted
run length by `ratchet.stats.charts.designed_charts`. All feedback that came so far counts, as in
the metrics, so that the newest points may still change.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.evaluation.answer_facts import measure_answers
from ratchet.judges.usable import usable_versions
from ratchet.outcomes.experience import Unit
from ratchet.outcomes.join import FloatArray, Outcomes
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import AlertEvent, Release, Rollout, VariantTest
from ratchet.records.signal import Signal
from ratchet.records.signals import BY_NAME, FEEDBACK_SIGNALS, SIGNALS, words_of
from ratchet.stats.charts.designed_charts import (
    COUNT_KINDS,
    FEWEST_BASELINE,
    FEWEST_POINTS,
    DesignedChart,
    Kind,
    baseline_points,
    design_count_chart,
    design_value_chart,
    suiting_count_kind,
)
from ratchet.store import EventStore, Window
from ratchet.store.arrivals import came_into_use
from ratchet.store.heard import unknown_reasons

Columns = Mapping[str, FloatArray]
Group = Literal["version", "segment", "application", "prompt_version"]
By = Literal["version", "segment", "application", "prompt_version", "hour", "day"]
Span = Literal["hour", "day", "equal"]
IntArray = NDArray[np.int64]
TimeArray = NDArray[np.datetime64]

ALL = "all"
UNSAID = "(none)"
_IN_METADATA = ("application", "prompt_version")
MINIMUM_POINT = 20
MOST_EQUAL = 20
MOST_PANELS = 8
HOURLY_UP_TO = timedelta(days=7)
KIND_SAYS: Mapping[Kind, str] = {
    "p": "p chart", "laney-p": "Laney's p' chart", "u": "u chart", "xmr": "XmR chart",
    "ewma": "EWMA chart", "cusum": "CUSUM chart",
}  # fmt: skip
_SPAN_SAYS: Mapping[Span, str] = {
    "hour": "a point an hour", "day": "a point a day", "equal": "points of equal size",
}  # fmt: skip
_ALL_FEEDBACK = timedelta(days=36_525)
_COLUMN_OF = {"error": "failed", "characters": "answered"}
"""Columns of `Readings` that are not named after their signal."""


@dataclass(frozen=True, slots=True)
class ChartedSignal:
    """What can be charted.

    Attributes:
        name: Name of the metric that it is.
        says: The same in words.
        unit: Shares are charted as counts, all else as values.
        values: Its value of each interaction, nan where not observed, from the store's columns and
            `quality` and `implicit_quality`.
        quantile: Which quantile of a point's values is charted; None for their mean.
        fewest: Observations that a point needs.
    """

    name: str
    says: str
    unit: Unit
    values: Callable[[Columns], FloatArray]
    quantile: float | None = None
    fewest: int = MINIMUM_POINT


def charted_signals() -> tuple[ChartedSignal, ...]:
    """Return what can be charted: each signal of the catalogue, rating coverage and quality.

    Their names are those of the metrics of `experience_metrics`.
    """
    charted = [item for signal in SIGNALS for item in _charts_of(signal)]
    explicit = [signal.name for signal in SIGNALS if signal.source == "explicit" and signal.column]

    def rated(columns: Columns) -> FloatArray:
        given = [~np.isnan(columns[name]) for name in explicit]
        return np.asarray(np.any(given, axis=0), dtype=np.float64)

    return (
        *charted,
        ChartedSignal("feedback_coverage", "answers with a rating", "share", rated),
        ChartedSignal("quality", "quality", "score", lambda columns: columns["quality"]),
    )


def _charts_of(signal: Signal) -> Iterator[ChartedSignal]:
    column = _COLUMN_OF.get(signal.name, signal.name)
    if signal.rate is not None:
        shared = next((share.words for share in signal.shares), words_of(signal.rate.metric))
        words = signal.rate.words or shared
        yield ChartedSignal(signal.rate.metric, words, "share", _rate_values(signal))
    for chart in signal.charts:
        yield ChartedSignal(
            chart.metric, chart.words, chart.unit,
            lambda columns: columns[column],
            chart.quantile, chart.fewest,
        )  # fmt: skip


def _rate_values(signal: Signal) -> Callable[[Columns], FloatArray]:
    """Return what takes 1 for each answer that a signal's rate counts, 0 for others, else nan."""
    good = signal.rate is not None and signal.rate.of == "good"

    def values(columns: Columns) -> FloatArray:
        numbers = columns[_COLUMN_OF.get(signal.name, signal.name)]
        if signal.value == "text":
            numbers = (~np.isnan(numbers)).astype(np.float64)
        return signal.good_answers(numbers) if good else signal.bad_answers(numbers)

    return values


def find_signal(name: str) -> ChartedSignal:
    """Return a signal by its name, or by a start of it that no other one has.

    Raises:
        InvalidInputError: No signal, or more than one, is meant.
    """
    known = {signal.name: signal for signal in charted_signals()}
    written = name.strip().lower().replace("-", "_").replace(" ", "_")
    if written in known:
        return known[written]
    begins = [signal for signal in known if written and signal.startswith(written)]
    if len(begins) == 1:
        return known[begins[0]]
    near = begins or difflib.get_close_matches(written, known, n=1, cutoff=0.0)
    raise InvalidInputError(
        f"a chart needs the name of one signal, got {name!r}; did you mean "
        f"{' or '.join(near)}? The signals are {', '.join(known)}"
    )


@dataclass(frozen=True, slots=True)
class SignalChart:
    """A signal of one version or segment, or of all, over time.

    Attributes:
        value: Which version or segment; `all`.
        starts: When each point begins, in UTC, shape (points,).
        sizes: Observations of each point, shape (points,).
        left_out: Spans of time with too few observations for a point.
        design: The chart, and what it signals.
        baseline_why: Why the limits come from the points that they come from.
    """

    value: str
    starts: TimeArray
    sizes: IntArray
    left_out: int
    design: DesignedChart
    baseline_why: str = ""


@dataclass(frozen=True, slots=True)
class ChartReport:
    """A signal's charts.

    Attributes:
        signal: The signal.
        by: What the charts tell apart; None for one chart.
        span: What a point is.
        charts: One a value, most observations first.
        not_charted: Values that have no chart, with the reason.
        releases: Changes of the champion within the time, oldest first.
        alerts: Alerts on the signal that opened within the time, oldest first.
    """

    signal: ChartedSignal
    by: Group | None
    span: Span
    charts: tuple[SignalChart, ...]
    not_charted: Mapping[str, str]
    releases: tuple[tuple[datetime, str], ...]
    alerts: tuple[AlertEvent, ...] = ()

    @property
    def alert_marks(self) -> tuple[tuple[datetime, str], ...]:
        """When each alert opened, and what a picture calls it."""
        return tuple((one.created_at, f"{one.severity} alert") for one in self.alerts)

    @property
    def kinds(self) -> str:
        """What the charts are called, and what their points are."""
        kinds = sorted({KIND_SAYS[item.design.kind] for item in self.charts})
        return f"{', '.join(kinds)}, {_SPAN_SAYS[self.span]}"


@dataclass(frozen=True, slots=True)
class Readings:
    """Interactions of a window, oldest first: arrays of shape (n,).

    Attributes:
        times: When the answer was given, in UTC.
        groups: Its version, its segment and, where they were read, more names of a `Group`.
        columns: The store's columns, nan where not observed, with `quality`, `implicit_quality` and
            `answered`, the characters of answers that did not fail.
        releases: Changes of the champion within the window.
        unknown: Why nothing is known of a metric that rests on presence alone.
        alerts: The first step of each alert that opened within the window.
    """

    times: TimeArray
    groups: Mapping[str, NDArray[np.object_]]
    columns: Columns
    releases: tuple[tuple[datetime, str], ...]
    unknown: Mapping[str, str] = field(default_factory=dict)
    alerts: tuple[AlertEvent, ...] = ()


def read_window(
    store: EventStore,
    window: Window,
    weights: QualityWeights | None = None,
    *,
    by: By | None = None,
) -> Readings:
    """Read what charts need of a window: numbers, no texts.

    Args:
        store: The store.
        window: The window.
        weights: How quality is weighed.
        by: What charts are to tell apart, where it is neither version nor segment.
    """
    said = [name for name in _IN_METADATA if name == by]
    table = store.signals(
        window, lag=_ALL_FEEDBACK, judges=usable_versions(store), metadata=said,
        measure=measure_answers,
    )  # fmt: skip
    names = ("created_at", "model_version", "segment", *said)
    numbers = [name for name in table.column_names if name not in names]
    columns = {name: table[name].cast(pa.float64()).to_numpy() for name in numbers}
    scored = quality(_as_outcomes(table, columns), weights or QualityWeights())
    for name, values in (("quality", scored.value), ("implicit_quality", scored.implicit)):
        columns[name] = np.where(columns["steady"] == 1.0, values, np.nan)
    columns["answered"] = np.where(columns["failed"] == 0.0, columns["characters"], np.nan)
    return Readings(
        times=_times(table),
        groups={
            "version": _texts(table["model_version"]),
            "segment": _texts(table["segment"]),
            **{name: _said(table, name) for name in said},
        },
        columns=columns,
        releases=_releases(store, window),
        unknown={
            signal.rate.metric: why
            for kind, why in unknown_reasons(store, now=window.end).items()
            if (signal := BY_NAME[kind]).rate
        },
        alerts=tuple(
            step
            for step in store.records(AlertEvent, since=window.start)
            if step.change == "opened"
            and step.created_at < window.end
            and window.model_version in (None, step.model_version)
        ),
    )


def chart_signal(
    readings: Readings,
    signal: ChartedSignal,
    *,
    kind: Kind | None = None,
    by: By | None = None,
    span: Span | None = None,
    run_length: float = 370.0,
    baseline: int | None = None,
) -> ChartReport:
    """Chart a signal.

    Args:
        readings: As `read_window` returns them.
        signal: What to chart.
        kind: Which chart; None for the one that suits: Laney's p' for shares (the p chart for rare
            ones), EWMA for scores, XmR for all else.
        by: `hour` and `day` make one chart of such points, all else one a value; None makes one
            chart.
        span: What a point is where `by` does not say it; None for an hour, above a week a day.
        run_length: Wanted mean number of points between false alarms.
        baseline: How many of the first points the limits come from; None for those before a
            release, as `ratchet.stats.charts.designed_charts.baseline_points` says.

    Raises:
        InsufficientDataError: There is too little data for any chart; says how much is needed.
        InvalidInputError: The kind does not go with the signal, or a number is out of range.
    """
    values = signal.values(readings.columns)
    seen = ~np.isnan(values)
    if not seen.any() and signal.name in readings.unknown:
        raise InsufficientDataError(readings.unknown[signal.name])
    values, times = values[seen], readings.times[seen]
    group: Group | None = None if by == "hour" or by == "day" else by
    span = by if by in ("hour", "day") else span or _suiting_span(times)
    names = readings.groups[group][seen] if group else np.full(values.size, ALL, dtype=np.object_)
    values_shown, sizes = np.unique(names.astype(str), return_counts=True)
    order = [str(values_shown[i]) for i in np.lexsort((values_shown, -sizes))] or [ALL]
    charts: list[SignalChart] = []
    reasons: dict[str, str] = {}
    for name in order:
        mine = names == name
        # to one version alone, a release is its beginning or its end
        alone = np.unique(readings.groups["version"][seen][mine].astype(str)).size < 2
        try:
            if len(charts) == MOST_PANELS:
                raise InsufficientDataError(f"the {MOST_PANELS} with most observations are shown")
            charts.append(
                _chart(
                    signal, name, times[mine], values[mine], span,
                    kind=kind, run_length=run_length, baseline=baseline,
                    releases=() if alone else readings.releases,
                )
            )  # fmt: skip
        except InsufficientDataError as error:
            reasons[name] = str(error)
    if not charts:
        raise InsufficientDataError(next(iter(reasons.values())))
    about = _names_of(signal)
    alerts = tuple(step for step in readings.alerts if step.signal in about)
    return ChartReport(signal, group, span, tuple(charts), reasons, readings.releases, alerts)


def _names_of(charted: ChartedSignal) -> set[str]:
    """Return the names by which boards and thresholds know what is charted."""
    for signal in SIGNALS:
        metrics = {chart.metric for chart in signal.charts}
        metrics |= {signal.rate.metric} if signal.rate else set()
        if charted.name in metrics:
            return {charted.name, *(share.name for share in signal.shares)}
    return {charted.name}


def chart_every_signal(
    readings: Readings, *, span: Span = "equal"
) -> tuple[tuple[ChartReport, ...], Mapping[str, str]]:
    """Chart every signal by the kind that suits it.

    Returns:
        The charts, and the signals without one by name, each with the reason.
    """
    reports: list[ChartReport] = []
    reasons: dict[str, str] = {}
    for signal in charted_signals():
        try:
            reports.append(chart_signal(readings, signal, span=span))
        except InsufficientDataError as error:
            reasons[signal.name] = str(error)
    return tuple(reports), reasons


def _chart(
    signal: ChartedSignal,
    name: str,
    times: TimeArray,
    values: FloatArray,
    span: Span,
    *,
    kind: Kind | None,
    run_length: float,
    baseline: int | None,
    releases: Sequence[tuple[datetime, str]],
) -> SignalChart:
    starts, groups, left_out = _points(times, values, span, signal.fewest)
    if len(groups) < FEWEST_POINTS:
        unit_words = {"equal": "groups", "hour": "hours", "day": "days"}[span]
        where = "" if name == ALL else f" of {name}"
        raise InsufficientDataError(
            f"a chart of {signal.name}{where} needs at least {FEWEST_POINTS} {unit_words} of "
            f"{signal.fewest} observations or more, got {len(groups)} of them in {values.size} "
            "observations; collect for longer or chart a longer time"
        )
    sizes = np.array([group.size for group in groups], dtype=np.int64)
    first, why = _baseline(starts, releases, baseline)
    if signal.unit == "share":
        events = np.array([round(group.sum()) for group in groups], dtype=np.int64)
        suits = kind or suiting_count_kind(events, sizes)
        made = design_count_chart(events, sizes, suits, run_length=run_length, baseline=first)
        return SignalChart(name, starts, sizes, left_out, made, why)
    if kind in COUNT_KINDS:
        raise InvalidInputError(
            f"the kinds {', '.join(COUNT_KINDS)} are for shares, got {kind} for {signal.name} in "
            f"{signal.unit}; take xmr, ewma or cusum"
        )
    points = [
        group.mean() if signal.quantile is None else np.quantile(group, signal.quantile)
        for group in groups
    ]
    suits = kind or ("ewma" if signal.unit == "score" else "xmr")
    made = design_value_chart(np.array(points), suits, run_length=run_length, baseline=first)
    return SignalChart(name, starts, sizes, left_out, made, why)


def _baseline(
    starts: TimeArray, releases: Sequence[tuple[datetime, str]], given: int | None
) -> tuple[int, str]:
    """Return how many of the first points the limits come from, and why these."""
    if given is not None:
        return given, "as it was asked for"
    changes = np.array([moment.replace(tzinfo=None) for moment, _ in releases], dtype="M8[us]")
    # a release within a point belongs to that point: what it changed is in it
    places = (np.searchsorted(starts, changes, side="right") - 1).tolist()
    first = baseline_points(len(starts), places)
    if first == len(starts):
        return first, f"since fewer than {2 * FEWEST_BASELINE} points are no two halves"
    name = next(
        (name for place, (_, name) in zip(places, releases, strict=True) if place == first), ""
    )
    return first, f"those before the release of {name}" if name else "the first half of all"


def _points(
    times: TimeArray, values: FloatArray, span: Span, fewest: int
) -> tuple[TimeArray, list[FloatArray], int]:
    """Group values to points; spans of time with fewer than `fewest` values are left out."""
    if not values.size:
        return times[:0], [], 0
    if span == "equal":
        made = max(1, min(MOST_EQUAL, values.size // fewest))
        rows = np.array_split(np.arange(values.size), made)
        return times[[row[0] for row in rows]], [values[row] for row in rows], 0
    unit = "M8[h]" if span == "hour" else "M8[D]"
    starts, first = np.unique(times.astype(unit), return_index=True)
    groups = np.split(values, first[1:])
    enough = np.array([group.size >= fewest for group in groups], dtype=np.bool_)
    groups_kept = [group for group, keep in zip(groups, enough, strict=True) if keep]
    return starts[enough].astype("M8[us]"), groups_kept, int((~enough).sum())


def _suiting_span(times: TimeArray) -> Span:
    if not times.size or times[-1] - times[0] > np.timedelta64(HOURLY_UP_TO):
        return "day"
    return "hour"


def _releases(store: EventStore, window: Window) -> tuple[tuple[datetime, str], ...]:
    """Return changes of the champion, and versions that came into use without a release here.

    Whoever serves a model elsewhere releases it without a word: its answers bear another name.
    """
    releases = [
        (
            item.created_at,
            f"back to {item.champion}" if item.action == "rollback" else item.champion,
        )
        for item in store.records(Release, since=window.start)
        if item.created_at < window.end
    ]
    known = {item.champion for item in store.records(Release)}
    known |= {item.challenger.version for item in store.records(Rollout)}
    known |= {one.version for item in store.records(VariantTest) for one in item.variants}
    by_traffic = came_into_use(store, window.start, window.end)
    return tuple(sorted([*releases, *(one for one in by_traffic if one[1] not in known)]))


def _as_outcomes(table: pa.Table, columns: Columns) -> Outcomes:
    """Return the numbers as outcomes; texts are not read, a correction is there or not."""
    unread = np.full(table.num_rows, None, dtype=np.object_)
    given: dict[str, Any] = {}
    for signal in FEEDBACK_SIGNALS:
        if signal.column:
            numbers = columns[signal.name]
            if signal.value == "text":
                texts = unread.copy()
                texts[~np.isnan(numbers)] = ""
                given[signal.column] = texts
            else:
                given[signal.column] = numbers
    return Outcomes(
        interaction_ids=unread,
        created_at=_times(table),
        model_versions=unread,
        segments=unread,
        user_ids=unread,
        session_ids=unread,
        prompts=unread,
        responses=unread,
        failed_with_error=columns["failed"] == 1.0,
        latency_seconds=columns["latency_seconds"],
        **given,
    )


def _times(table: pa.Table) -> TimeArray:
    return np.asarray(table["created_at"].cast(pa.int64()).to_numpy().astype("datetime64[us]"))


def _said(table: pa.Table, name: str) -> NDArray[np.object_]:
    """Return what the metadata says under a name; the application was the segment before."""
    other = table["segment"] if name == "application" else pa.scalar(UNSAID)
    return _texts(pc.coalesce(table[name], other))


def _texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.object_)
