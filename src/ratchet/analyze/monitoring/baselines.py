"""What normal is: a frozen expectation of every signal, and the alternatives that are watched for.

A baseline is frozen once from a version's own ripe traffic and never moves by itself, also not
after an alarm: a lasting degradation must not become the new normal. The next version is compared
with its predecessor's baseline from its first minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.monitoring.batches import (
    BATCH_SECONDS,
    NAMES,
    OTHER,
    Counts,
    Observations,
    count,
    cut_offs,
    main_segments,
    observed_signals,
)
from ratchet.records import Baseline, SignalBaseline, derive_id
from ratchet.records.signals import BOARD_SHARES
from ratchet.stats.charts.change_detection import LOWEST_TEMPER, Alternatives, fit_tempers
from ratchet.stats.charts.rate_models import (
    RateModel,
    cycle_columns,
    expected_log_odds,
    fit_rate_model,
)

FloatArray = NDArray[np.float64]
MINIMUM_TRIALS = 100
CAUTION = 2.0
"""Standard errors that the expectation is moved up by, for what the baseline does not know."""

EVENTS_PER_COLUMN = 10
"""Bad events (and good ones) that a coefficient takes; with fewer, cycles and segments are pooled.
"""

_HOUR, _DAY = 3_600.0, 86_400.0
_SHIFTS = (0.25, 0.5, 1.0, 2.0)
_RARE_SHIFTS = (0.5, 1.0, 2.0, 4.0)
_EARLY = tuple(share.name for share in BOARD_SHARES if share.early)
_TOGETHER = tuple(
    share.name for share in BOARD_SHARES if share.group == "quality" and share.cut is None
)
_SHARES = {"quality": 0.25, "early": 0.30, "together": 0.10, "service": 0.15, "pipeline": 0.05}
_SEGMENT_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One way in which things may have got worse.

    Attributes:
        signals: Signals that are worse.
        segment: Where; None for everywhere.
        shifts: Log odds added to each of the signals.
        weight: Prior weight before scaling.
    """

    signals: tuple[str, ...]
    segment: str | None
    shifts: tuple[float, ...]
    weight: float


def freeze_baseline(
    observations: Observations,
    *,
    model_version: str,
    start: datetime,
    end: datetime,
    now: datetime,
    batch_seconds: int = BATCH_SECONDS,
) -> Baseline:
    """Freeze what is normal for one version.

    Weekly and daily cycles are fitted where there is enough to see them: a weekend from a week of
    traffic on, times of day from two days on.

    Args:
        observations: The version's ripe interactions in the window.
        model_version: The version.
        start: Start of the window.
        end: End of the window.
        now: When it is frozen.
        batch_seconds: Length of a batch.

    Raises:
        InsufficientDataError: No signal has 100 observations.
    """
    segments, cuts = main_segments(observations), cut_offs(observations)
    counts = count(
        observations,
        start=start.timestamp(),
        end=end.timestamp(),
        segments=segments,
        cuts=cuts,
        batch_seconds=batch_seconds,
    )
    return baseline_from_counts(
        counts, cuts=cuts, model_version=model_version, start=start, end=end, now=now,
        batch_seconds=batch_seconds,
    )  # fmt: skip


def baseline_from_counts(
    counts: Counts,
    *,
    cuts: dict[str, float],
    model_version: str,
    start: datetime,
    end: datetime,
    now: datetime,
    batch_seconds: int = BATCH_SECONDS,
) -> Baseline:
    """Freeze a baseline from counted batches. See `freeze_baseline`."""
    names = observed_signals(counts, MINIMUM_TRIALS)
    span = (end - start).total_seconds()
    models = [_fit(counts, name, span) for name in names]
    parts = [
        SignalBaseline(
            name=name,
            cut_off=cuts.get(name),
            coefficients=tuple(model.coefficients.tolist()),
            covariance=tuple(tuple(row) for row in model.covariance.tolist()),
            dispersion=model.dispersion,
            trials=model.trials,
            events=model.events,
        )
        for name, model in zip(names, models, strict=True)
    ]
    bare = Baseline(
        id=derive_id("baseline", model_version, start, end),
        created_at=now,
        model_version=model_version,
        window_start=start,
        window_end=end,
        batch_seconds=batch_seconds,
        segments=counts.segments,
        weekly=span >= 7 * _DAY,
        daily=span >= 2 * _DAY,
        signals=tuple(parts),
        tempers=(),
    )
    return bare.model_copy(update={"tempers": tuple(_tempers(bare, counts).tolist())})


def hypotheses(baseline: Baseline) -> tuple[Hypothesis, ...]:
    """Return what is watched for: each signal alone, those that rise early, all together.

    The greater part of the weight lies on what a worse model does first. Weights are scaled later,
    so that signals that were not observed cost nothing.
    """
    names = tuple(signal.name for signal in baseline.signals)
    stated = [*_singles(names, None, 1.0), *_joint(names)]
    segments = baseline.segments if len(baseline.segments) > 2 else ()
    for segment in segments:
        stated += _singles(names, segment, _SEGMENT_SHARE / len(segments))
    return tuple(stated)


def alternatives(baseline: Baseline) -> Alternatives:
    """Return the baseline's hypotheses as arrays over streams (signal x segment, segment last)."""
    stated = hypotheses(baseline)
    names = [signal.name for signal in baseline.signals]
    shifts = np.zeros((len(stated), len(names), len(baseline.segments)))
    for row, item in enumerate(stated):
        columns = slice(None) if item.segment is None else baseline.segments.index(item.segment)
        for name, shift in zip(item.signals, item.shifts, strict=True):
            shifts[row, names.index(name), columns] = shift
    weights = np.array([item.weight for item in stated])
    tempers = np.array(baseline.tempers) if baseline.tempers else np.ones(len(stated))
    return Alternatives(shifts.reshape(len(stated), -1), weights / weights.sum(), tempers)


def expected_rates(
    baseline: Baseline, starts: FloatArray, *, caution: float = CAUTION
) -> FloatArray:
    """Return the expected rate of each stream, shape (batches, signals, segments).

    Args:
        baseline: What is normal.
        starts: When the batches begin, seconds since 1970.
        caution: Standard errors that the expectation is moved up by.
    """
    mean, error = _expectation(baseline, starts)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(mean + caution * error, -30.0, 30.0))))


def _expectation(baseline: Baseline, starts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return expected log odds and their standard errors, shape (batches, signals, segments)."""
    segments = len(baseline.segments)
    middle = starts + baseline.batch_seconds / 2.0
    design = _design(
        np.repeat(middle, segments), np.tile(np.arange(segments), starts.size), baseline
    )
    shape = (starts.size, len(baseline.signals), segments)
    means, errors = np.empty(shape), np.empty(shape)
    for position, signal in enumerate(baseline.signals):
        mean, error = expected_log_odds(_model(signal), design)
        means[:, position, :] = mean.reshape(starts.size, segments)
        errors[:, position, :] = error.reshape(starts.size, segments)
    return means, errors


def _singles(names: Sequence[str], segment: str | None, scale: float) -> list[Hypothesis]:
    stated = []
    for group in ("quality", "service", "pipeline"):
        signals = [item for item in BOARD_SHARES if item.group == group and item.name in names]
        for signal in signals:
            shifts = _RARE_SHIFTS if signal.rare or group == "pipeline" else _SHIFTS
            weight = scale * _SHARES[group] / (len(signals) * len(shifts))
            stated += [Hypothesis((signal.name,), segment, (shift,), weight) for shift in shifts]
    return stated


def _joint(names: Sequence[str]) -> list[Hypothesis]:
    stated = []
    early = tuple(name for name in _EARLY if name in names)
    if len(early) > 1:
        grid = list(product(_SHIFTS[:3], repeat=len(early)))
        weight = _SHARES["early"] / len(grid)
        stated += [Hypothesis(early, None, shifts, weight) for shifts in grid]
    together = tuple(name for name in _TOGETHER if name in names)
    if len(together) > 2:
        weight = _SHARES["together"] / 3
        stated += [
            Hypothesis(together, None, (shift,) * len(together), weight) for shift in _SHIFTS[:3]
        ]
    return stated


def _fit(counts: Counts, name: str, span: float) -> RateModel:
    """Fit one signal on hours, which are many enough and quick.

    Half a bad event and half a good one are spread over the trials (Jeffreys), so that what was
    never seen is held to be rare, not unknown: its first events must be able to raise an alarm.
    """
    position = counts.signals.index(name)
    events, trials = counts.events[:, position, :], counts.trials[:, position, :]
    hours = np.floor(counts.starts / _HOUR).astype(np.int64)
    first = int(hours[0])
    rows = int(hours[-1]) - first + 1
    segment_count = len(counts.segments)
    bad, seen = np.zeros((rows, segment_count)), np.zeros((rows, segment_count))
    np.add.at(bad, hours - first, events)
    np.add.at(seen, hours - first, trials)
    middle = (first + np.arange(rows)) * _HOUR + _HOUR / 2.0
    segments = np.tile(np.arange(segment_count), rows)
    design = _columns(np.repeat(middle, segment_count), segments, segment_count, span)
    columns_used = _affordable(float(bad.sum()), float(seen.sum()), design.shape[1], segment_count)
    share = seen.ravel() / seen.sum()
    model = fit_rate_model(bad.ravel() + 0.5 * share, seen.ravel() + share, design[:, columns_used])
    return RateModel(
        coefficients=_spread(model.coefficients, columns_used, design.shape[1]),
        covariance=_spread(
            _spread(model.covariance, columns_used, design.shape[1]).T, columns_used, len(design.T)
        ),
        dispersion=model.dispersion,
        trials=int(seen.sum()),
        events=int(bad.sum()),
    )


def _affordable(bad: float, seen: float, columns: int, segment_count: int) -> list[int]:
    """Return the columns that there are events enough for; the intercept always."""
    offsets = list(range(columns - segment_count + 1, columns))
    for affordable in (list(range(columns)), [0, *offsets]):
        if min(bad, seen - bad) >= EVENTS_PER_COLUMN * len(affordable):
            return affordable
    return [0]


def _spread(values: FloatArray, rows: list[int], size: int) -> FloatArray:
    """Put rows in their places among `size`; the others are 0."""
    wide = np.zeros((size, *values.shape[1:]))
    wide[rows] = values
    return wide


def _design(seconds: FloatArray, segments: NDArray[np.int64], baseline: Baseline) -> FloatArray:
    span = (baseline.window_end - baseline.window_start).total_seconds()
    return _columns(seconds, segments, len(baseline.segments), span)


def _columns(
    seconds: FloatArray, segments: NDArray[np.int64], segment_count: int, span: float
) -> FloatArray:
    """Intercept, cycles that the span can show, and an offset for each segment but the last."""
    cycles = cycle_columns(seconds)
    if span < 7 * _DAY:
        cycles = cycles[:, :-1]
    if span < 2 * _DAY:
        cycles = cycles[:, :1]
    offsets = (segments[:, np.newaxis] == np.arange(segment_count - 1)).astype(np.float64)
    return np.hstack([cycles, offsets])


def _model(signal: SignalBaseline) -> RateModel:
    return RateModel(
        coefficients=np.array(signal.coefficients),
        covariance=np.array(signal.covariance),
        dispersion=signal.dispersion,
        trials=signal.trials,
        events=signal.events,
    )


def comparable(baseline: Baseline, counts: Counts) -> Counts:
    """Return what of the counts can be compared with the baseline: its signals, where known.

    A stream that the baseline knows too little of to ever look worse, such as a segment that came
    later, counts as not observed: its trials could only hide what goes on in the others.
    """
    names = tuple(signal.name for signal in baseline.signals)
    positions = [counts.signals.index(name) for name in names]
    _, error = _expectation(baseline, counts.starts)
    known = CAUTION * error <= max(*_SHIFTS, *_RARE_SHIFTS)
    return Counts(
        starts=counts.starts,
        segments=counts.segments,
        signals=names,
        events=np.where(known, counts.events[:, positions, :], 0),
        trials=np.where(known, counts.trials[:, positions, :], 0),
    )


def baseline_streams(baseline: Baseline, counts: Counts) -> tuple[FloatArray, FloatArray]:
    """Return comparable events and trials as arrays of shape (batches, streams)."""
    comparable_counts = comparable(baseline, counts)
    shape = (len(counts), len(baseline.signals) * len(baseline.segments))
    return (
        comparable_counts.events.reshape(shape).astype(np.float64),
        comparable_counts.trials.reshape(shape).astype(np.float64),
    )


def _tempers(baseline: Baseline, counts: Counts) -> FloatArray:
    """Measure on the baseline itself how far its ratios may be trusted."""
    stated = alternatives(baseline)
    worst = max(signal.dispersion for signal in baseline.signals)
    block = max(1, round(_HOUR / baseline.batch_seconds))
    if len(counts) < 30 * block:
        return np.full(stated.weights.size, max(LOWEST_TEMPER, 1.0 / worst))
    events, trials = baseline_streams(baseline, counts)
    expected = expected_rates(baseline, counts.starts, caution=0.0).reshape(len(counts), -1)
    return fit_tempers(events, trials, expected, stated.shifts, block=block)


__all__ = [
    "CAUTION",
    "NAMES",
    "OTHER",
    "Hypothesis",
    "alternatives",
    "baseline_from_counts",
    "baseline_streams",
    "comparable",
    "expected_rates",
    "freeze_baseline",
    "hypotheses",
]
