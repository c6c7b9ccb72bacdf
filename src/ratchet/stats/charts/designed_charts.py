"""Control charts whose limits are chosen for a wanted run length, with what they signal.

The chart functions take a limit; this module chooses it. Where the first points are the baseline,
the limit allows for how little they tell about center and spread
(`ratchet.stats.charts.chart_limits`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.charts.chart_checks import Counts, Values, require
from ratchet.stats.charts.chart_limits import (
    cusum_decision_interval,
    ewma_limit,
    p_chart_limit,
    shewhart_limit,
)
from ratchet.stats.charts.chart_results import Baseline, ControlChart, CusumChart
from ratchet.stats.charts.chart_rules import run_rule_signals
from ratchet.stats.charts.control_charts import laney_p_chart, p_chart, u_chart, xmr_chart
from ratchet.stats.charts.memory_charts import cusum_chart, ewma_chart, value_baseline
from ratchet.stats.charts.run_lengths import (
    WESTERN_ELECTRIC,
    RunRule,
    shewhart_average_run_length,
)

Kind = Literal["p", "laney-p", "u", "xmr", "ewma", "cusum"]
COUNT_KINDS: tuple[Kind, ...] = ("p", "laney-p", "u")
KINDS: tuple[Kind, ...] = (*COUNT_KINDS, "xmr", "ewma", "cusum")
RULES = WESTERN_ELECTRIC[1:]
"""The run rules beside the limits themselves."""
FEWEST_BASELINE = 17
"""Points of a baseline that are used up before the others are judged.

Sigma from moving ranges is as precise as a standard deviation of 0.6 times as many points, and the
corrections of `chart_limits` begin at 10: 17 is the first number with 0.6 n >= 10.
"""
FEWEST_POINTS = 8
FEWEST_EVENTS = 5
EWMA_WEIGHT, CUSUM_REFERENCE = 0.2, 0.5
_PRECISION = 0.6


@dataclass(frozen=True, slots=True)
class Alarm:
    """A point at which a chart signals.

    Attributes:
        index: 0-based index of the point.
        above: On which side of the center.
        since: 0-based index of the first point that belongs to it: where the points beyond the
            limit, the pattern of the rule, or the drift of the smoothed value began.
        reason: `outside the limits`, or the run rule in words.
    """

    index: int
    above: bool
    since: int
    reason: str


@dataclass(frozen=True, slots=True)
class DesignedChart:
    """A chart with limits for a wanted run length.

    Attributes:
        kind: Which chart.
        values: What was charted, before any smoothing, shape (n,).
        chart: The chart; arrays of shape (n,).
        limit: Half-width of the limits in standard deviations; for a CUSUM its decision interval.
        run_length: Mean number of points between false alarms that the limit was chosen for.
        baseline: Center and spread that the limits come from.
        baseline_points: So many first points are the baseline; all of them where the chart tells
            only whether its points agree with each other.
        alarms: Points outside the limits, in order.
        patterns: Points at which a run rule signals, in order.
        patterns_run_length: Mean number of points between false alarms of limits and run rules
            together; None where rules do not apply: to charts with a memory, to rare events, and
            to points that are all the baseline.
    """

    kind: Kind
    values: FloatArray
    chart: ControlChart | CusumChart
    limit: float
    run_length: float
    baseline: Baseline
    baseline_points: int
    alarms: tuple[Alarm, ...]
    patterns: tuple[Alarm, ...]
    patterns_run_length: float | None


def baseline_points(points: int, changes: Sequence[int] = ()) -> int:
    """Return how many of the first points make the baseline.

    Those before the first known change that has 17 or more before it; without one the first half;
    where that is fewer than 17, all: the chart then tells whether its points agree with each other
    (phase I).

    Args:
        points: How many there are.
        changes: 0-based indices of points at which something is known to have changed, such as a
            release.
    """
    before = [change for change in sorted(changes) if FEWEST_BASELINE <= change < points]
    half = points // 2
    return before[0] if before else half if half >= FEWEST_BASELINE else points


def suiting_count_kind(events: Counts, trials: Counts) -> Kind:
    """Return the chart for a share: Laney's p', or the p chart where events are few.

    Laney's correction rests on normal scores; below about 5 events a point (or 5 observations
    without one) counts are lopsided, and the p chart's limit, which is exact, serves better.
    """
    bad, seen = np.asarray(events, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    rarer = min(bad.sum(), (seen - bad).sum()) / max(bad.size, 1)
    return "laney-p" if rarer >= FEWEST_EVENTS else "p"


def design_count_chart(
    events: Counts,
    trials: Counts,
    kind: Kind = "laney-p",
    *,
    run_length: float = 370.0,
    baseline: int | None = None,
) -> DesignedChart:
    """Chart a share over time, with limits for a wanted run length.

    Units: counts in, shares out; run length in points.
    Assumptions: those of the chart; the kinds `xmr`, `ewma` and `cusum` take the shares as values.
    Error rate: limits alone raise a false alarm every `run_length` points on average: exactly for
    `p` of equal sizes (from above, counts being discrete), for `laney-p` as `xmr` on scores. The
    limit of `u` is that of `p`, on the safe side, since Poisson counts vary more than binomial
    ones. With a short baseline it holds on average over baselines and over the points after it.
    When not to use: where fewer than about 5 events are expected a point; the lower limit is 0
    then and the counts are lopsided.

    Args:
        events: Events of each point, shape (n,).
        trials: Observations of each point, at least 1, shape (n,).
        kind: The chart.
        run_length: Wanted mean number of points between false alarms.
        baseline: How many of the first points give center and spread; None for what
            `baseline_points` returns.

    Raises:
        InsufficientDataError: There are fewer than 8 points, or they do not vary.
        InvalidInputError: A number is out of range.

    Example:
        >>> made = design_count_chart([5, 6, 4, 5, 6, 4, 5, 40], [50] * 8, "p")
        >>> [alarm.index for alarm in made.alarms], made.baseline_points
        ([7], 8)

    References:
        Montgomery (2009), sections 5.3 and 7.2; Laney (2002), as `laney_p_chart`.
    """
    shares = np.asarray(events, dtype=np.float64) / np.maximum(np.asarray(trials), 1)
    if kind not in COUNT_KINDS:
        return design_value_chart(shares, kind, run_length=run_length, baseline=baseline)
    first = _checked_baseline(shares.size, baseline)
    chart_of: dict[Kind, Callable[..., ControlChart]] = {
        "p": p_chart, "laney-p": laney_p_chart, "u": u_chart,
    }  # fmt: skip
    draw = chart_of[kind]
    known = draw(events[:first], trials[:first]).baseline
    if not 0.0 < known.center < 1.0:
        raise InsufficientDataError(
            f"limits need a share that is neither 0 nor 1 in the baseline, got {known.center:g} "
            f"in {known.size:.0f} observations; chart a longer time"
        )
    after = shares.size - first
    if kind == "laney-p":
        limit = shewhart_limit(run_length, **_normal_correction(first, after))
    else:
        correction = {"baseline_trials": int(known.size), "horizon": after} if after else {}
        limit = p_chart_limit(known.center, int(np.median(trials)), run_length, **correction)
    chart = draw(events, trials, limit=limit, baseline=known)
    made = _with_alarms(kind, shares, chart, limit, run_length, first, known)
    if suiting_count_kind(events, trials) == "laney-p":
        return made
    return replace(made, patterns=(), patterns_run_length=None)  # rules need more than a few events


def design_value_chart(
    values: Values,
    kind: Kind = "xmr",
    *,
    run_length: float = 370.0,
    baseline: int | None = None,
) -> DesignedChart:
    """Chart a value over time, as `design_count_chart` does a share.

    Units: those of the values; run length in points.
    Assumptions: independent, roughly normal values with one mean and standard deviation; sigma
    comes from moving ranges of the baseline.
    Error rate: as `shewhart_limit`, `ewma_limit` (weight 0.2) and `cusum_decision_interval`
    (reference 0.5), the baseline counted as 0.6 times its points, since moving ranges are less
    precise than a standard deviation. That counts the mean as less precise too, which is on the
    safe side: after 17 points in control an XmR chart raises about half the false alarms asked for.
    When not to use: for skewed values, and for points of very unequal size.

    Raises:
        InsufficientDataError: There are fewer than 8 points, or those of the baseline are equal.
        InvalidInputError: The kind is one of counts, or a number is out of range.

    Example:
        >>> made = design_value_chart([5.0, 6.0, 5.0, 6.0, 5.0, 6.0, 5.0, 12.0], "ewma")
        >>> made.kind, made.patterns_run_length
        ('ewma', None)

    References:
        Montgomery (2009), sections 6.4, 9.1 and 9.2.
    """
    require(
        kind in KINDS and kind not in COUNT_KINDS,
        f"a value needs one of the kinds xmr, ewma and cusum, got {kind!r}; p, laney-p and u are "
        "for shares",
    )
    points = np.asarray(values, dtype=np.float64)
    first = _checked_baseline(points.size, baseline)
    if np.ptp(points[:first]) == 0.0:
        raise InsufficientDataError(
            f"limits need points that vary in the baseline, got {points[0]:g} at each of {first}; "
            "chart a longer time"
        )
    known = value_baseline(points[:first])
    correction = _normal_correction(first, points.size - first)
    chart: ControlChart | CusumChart
    if kind == "xmr":
        limit = shewhart_limit(run_length, **correction)
        chart = xmr_chart(points, limit=limit, baseline=known)
    elif kind == "ewma":
        limit = ewma_limit(EWMA_WEIGHT, run_length, **correction)
        chart = ewma_chart(points, EWMA_WEIGHT, limit, baseline=known)
    else:
        limit = cusum_decision_interval(CUSUM_REFERENCE, run_length, **correction)
        chart = cusum_chart(points, CUSUM_REFERENCE, limit, baseline=known)
    return _with_alarms(kind, points, chart, limit, run_length, first, known)


def _checked_baseline(points: int, baseline: int | None) -> int:
    if points < FEWEST_POINTS:
        raise InsufficientDataError(
            f"a chart needs at least {FEWEST_POINTS} points, got {points}; collect for longer or "
            "use shorter spans of time"
        )
    first = baseline_points(points) if baseline is None else baseline
    require(
        first == points or FEWEST_BASELINE <= first < points,
        f"a baseline must hold {FEWEST_BASELINE} points or more and leave some to judge, or hold "
        f"all, got {first} of {points}; leave it out for half of the points",
    )
    return first


def _normal_correction(first: int, after: int) -> dict[str, Any]:
    """Tell `chart_limits` of a baseline from moving ranges; of none where it is all the points."""
    return {"baseline_points": int(_PRECISION * first), "horizon": after} if after else {}


def _with_alarms(
    kind: Kind,
    values: FloatArray,
    chart: ControlChart | CusumChart,
    limit: float,
    run_length: float,
    first: int,
    known: Baseline,
) -> DesignedChart:
    rules: tuple[Alarm, ...] = ()
    together = None
    if isinstance(chart, CusumChart):
        alarms = _cusum_alarms(chart)
    elif chart.smoothed:
        alarms = tuple(_outside(chart, _drift_start))
    else:
        alarms = tuple(_outside(chart, _streak_start))
        if first < values.size:  # rules are not for points that their limits come from
            rules = _patterns(chart)
            together = _run_length_with_rules(limit)
    return DesignedChart(
        kind, values, chart, limit, run_length, known, first, alarms, rules, together
    )


@cache
def _run_length_with_rules(limit: float) -> float:
    return shewhart_average_run_length(limit, rules=RULES)


def _outside(chart: ControlChart, start: Callable[[ControlChart, int, bool], int]) -> list[Alarm]:
    alarms = []
    for index in chart.signals.tolist():
        above = bool(chart.values[index] > chart.center)
        alarms.append(Alarm(index, above, start(chart, index, above), "outside the limits"))
    return alarms


def _streak_start(chart: ControlChart, index: int, above: bool) -> int:
    """First of the neighbours that are outside the same limit."""
    beyond = chart.values > chart.upper if above else chart.values < chart.lower
    inside = np.flatnonzero(~beyond[:index])
    return int(inside[-1]) + 1 if inside.size else 0


def _drift_start(chart: ControlChart, index: int, above: bool) -> int:
    """First point since which the smoothed value has been on this side of the center."""
    side = chart.values > chart.center if above else chart.values < chart.center
    others = np.flatnonzero(~side[:index])
    return int(others[-1]) + 1 if others.size else 0


def _cusum_alarms(chart: CusumChart) -> tuple[Alarm, ...]:
    alarms = []
    for sums, above in ((chart.upper, True), (chart.lower, False)):
        if sums is None:
            continue
        for index in chart.signals.tolist():
            if sums[index] >= chart.decision_interval - 1e-9:
                zeros = np.flatnonzero(sums[:index] == 0.0)
                since = int(zeros[-1]) + 1 if zeros.size else 0
                alarms.append(Alarm(index, above, since, "outside the limits"))
    return tuple(sorted(alarms, key=lambda alarm: alarm.index))


def _patterns(chart: ControlChart) -> tuple[Alarm, ...]:
    alarms: list[Alarm] = []
    latest: dict[tuple[RunRule, bool], Alarm] = {}
    for signal in run_rule_signals(chart, RULES):
        rule, which = signal.rule, (signal.rule, signal.above)
        distance = f"beyond {rule.beyond:g} sigma" if rule.beyond else "on one side of the center"
        share = "in a row" if rule.hits == rule.window else f"of {rule.window}"
        since, before = max(0, signal.index - rule.window + 1), latest.get(which)
        if before is not None and before.index == signal.index - 1:
            since = before.since  # the same pattern goes on
        reason = f"{rule.hits} points {share} {distance}"
        latest[which] = Alarm(signal.index, signal.above, since, reason)
        alarms.append(latest[which])
    return tuple(alarms)
