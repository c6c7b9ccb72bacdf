"""Run rules on a control chart, and the cleaning of the points that a baseline comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.stats.charts.chart_checks import require, require_whole
from ratchet.stats.charts.chart_results import Baseline, ControlChart
from ratchet.stats.charts.run_lengths import WESTERN_ELECTRIC, RunRule


@dataclass(frozen=True, slots=True)
class RunRuleSignal:
    """A point at which a run rule alarms.

    Attributes:
        index: 0-based index of the point that completes the pattern.
        rule: The rule.
        above: True on the upper side of the center line, False on the lower one.
    """

    index: int
    rule: RunRule
    above: bool


@dataclass(frozen=True, slots=True)
class DroppedPoint:
    """A point that `clean_baseline` left out, and why.

    Attributes:
        index: 0-based index among the points given.
        value: What was charted.
        lower: Lower limit that it was compared with.
        upper: Upper limit that it was compared with.
        round: Round in which it was dropped, from 1.
        reason: The same in words.
    """

    index: int
    value: float
    lower: float
    upper: float
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class CleanBaseline:
    """A baseline and what was left out to get it.

    Attributes:
        baseline: What the kept points say.
        chart: Chart of the kept points.
        dropped: Points left out, in the order of dropping.
        is_clean: Whether no kept point is outside its limits; False if the rounds did not suffice.
    """

    baseline: Baseline
    chart: ControlChart
    dropped: tuple[DroppedPoint, ...]
    is_clean: bool


def run_rule_signals(
    chart: ControlChart, rules: Sequence[RunRule] = WESTERN_ELECTRIC
) -> tuple[RunRuleSignal, ...]:
    """Find the points at which run rules alarm.

    A rule alarms at a point beyond `rule.beyond` standard deviations if, with it, `rule.hits` of
    the last `rule.window` points are, all on the same side.

    Units: 0-based indices.
    Assumptions: independent points around the center line, normal or nearly so.
    Error rate: `shewhart_average_run_length(rules=...)`; all of Western Electric alarm every 92
    points in control, four times as often as the limits alone.
    When not to use: on a chart that estimates its limits from the same few points; on an EWMA chart
    (an error), whose neighbours are alike; on counts with few expected events.

    Raises:
        InvalidInputError: The chart is smoothed, its points have no variation, or no rule is given.

    Example:
        >>> from ratchet.stats.charts.control_charts import xmr_chart
        >>> baseline = Baseline("value", 0.0, 100, sigma=1.0)
        >>> chart = xmr_chart([0.1, 2.2, -0.3, 2.4], baseline=baseline)
        >>> [(signal.index, signal.rule.beyond) for signal in run_rule_signals(chart)]
        [(3, 2.0)]

    References:
        Western Electric (1956). Statistical Quality Control Handbook.
    """
    require(len(rules) > 0, "run rules are needed, got none; pass WESTERN_ELECTRIC")
    require(
        not chart.smoothed,
        "run rules need independent points, got a smoothed chart; apply them to the values before "
        "smoothing",
    )
    require(
        bool((chart.sigma > 0.0).all()),
        f"run rules need points that can vary, got a standard deviation of {chart.sigma.min():g}; "
        "take a center away from the ends of its range",
    )
    scores = (chart.values - chart.center) / chart.sigma
    signals = [
        RunRuleSignal(int(index), rule, side > 0)
        for rule in rules
        for side in (1.0, -1.0)
        for index in _completed(side * scores > rule.beyond, rule)
    ]
    return tuple(sorted(signals, key=lambda signal: signal.index))


def _completed(hit: np.ndarray[Any, np.dtype[np.bool_]], rule: RunRule) -> Sequence[int]:
    total = np.concatenate([[0], np.cumsum(hit)])
    ends = np.arange(1, hit.size + 1)
    in_window = total[ends] - total[np.maximum(ends - rule.window, 0)]
    return [int(i) for i in np.flatnonzero(hit & (in_window >= rule.hits))]


def clean_baseline(
    chart: Callable[..., ControlChart], *data: Any, rounds: int = 3, **options: Any
) -> CleanBaseline:
    """Estimate a baseline from the points that are within their limits (phase I).

    Charts the points, drops all that are outside their limits, and again with those left, up to
    `rounds` times. What was dropped is returned, since dropping is only right where each point has
    a cause that will not come back.

    Units: those of the chart.
    Assumptions: those of the chart; most of the points are in control.
    Error rate: the limits of 30 points in control drop at least one of them in 6 to 8 % of
    cases, which makes the baseline a little too narrow.
    When not to use: where a lasting change is among the points (take those before it); for EWMA
    charts, whose points hold their predecessors; where points would be dropped by the dozen.

    Args:
        chart: A chart function of `ratchet.stats.control_charts`, such as `p_chart`.
        *data: Its data: arrays with one entry a point are thinned out, single numbers passed on.
            Moving ranges then span the gaps.
        rounds: Most rounds of dropping, at least 1.
        **options: More arguments of the chart, such as `limit`; not `baseline`.

    Returns:
        The baseline, for the `baseline` argument of the same chart, and the points dropped.

    Raises:
        InsufficientDataError: Dropping leaves fewer than two points.
        InvalidInputError: The chart is smoothed or takes its limits from a baseline, or it refuses
            its data.

    Example:
        >>> from ratchet.stats.charts.control_charts import p_chart
        >>> clean = clean_baseline(p_chart, [5, 6, 4, 30, 5, 6], [50] * 6)
        >>> clean.dropped[0].reason
        'value 0.6 is above its upper limit 0.352 in round 1'
        >>> round(clean.baseline.center, 3), clean.is_clean
        (0.104, True)

    References:
        Montgomery (2009), sections 5.4 and 7.2.
    """
    require_whole("rounds", rounds)
    require(
        options.get("baseline") is None,
        "clean_baseline estimates a baseline, got one; leave out the argument baseline",
    )
    columns = [np.asarray(column) for column in data]
    shown = chart(*data, **options)
    require(
        not shown.smoothed,
        "clean_baseline needs independent points, got a smoothed chart; clean the values with "
        "xmr_chart and pass its baseline on",
    )
    kept = np.arange(shown.values.size)
    dropped: list[DroppedPoint] = []
    for number in range(1, rounds + 1):
        if not shown.signals.size:
            break
        dropped += [_dropped(shown, int(i), int(kept[i]), number) for i in shown.signals]
        kept = np.delete(kept, shown.signals)
        if kept.size < 2:
            raise InsufficientDataError(
                f"a baseline needs at least 2 points within their limits, got {kept.size} of "
                f"{kept.size + len(dropped)}; find out what varies before charting"
            )
        thinned = (c[kept] if c.ndim else whole for c, whole in zip(columns, data, strict=True))
        shown = chart(*thinned, **options)
    return CleanBaseline(shown.baseline, shown, tuple(dropped), shown.signals.size == 0)


def _dropped(chart: ControlChart, place: int, index: int, number: int) -> DroppedPoint:
    value, lower, upper = (float(a[place]) for a in (chart.values, chart.lower, chart.upper))
    side, bound = ("above its upper", upper) if value > upper else ("below its lower", lower)
    reason = f"value {value:.3g} is {side} limit {bound:.3g} in round {number}"
    return DroppedPoint(index, value, lower, upper, number, reason)
