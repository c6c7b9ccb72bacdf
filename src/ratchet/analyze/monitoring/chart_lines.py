"""What control charts show, in lines of text, for the terminal and for pages."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby

from ratchet.analyze.monitoring.charts import ChartReport, SignalChart
from ratchet.files.text import counted
from ratchet.stats.charts.chart_results import CusumChart
from ratchet.stats.charts.designed_charts import Alarm

MOST_LINES = 8
SIGNS = {"share": " %", "seconds": " s"}


def report_lines(report: ChartReport, run_length: float) -> list[str]:
    """Say what a report's charts show: centre, limits, the baseline, and signals since when."""
    signal = report.signal
    lines = [f"{signal.name}: {signal.says}, {report.kinds}"]
    for item in report.charts:
        lines += ["", item.value] if report.by else []
        lines += _chart_lines(item, signal.unit, run_length)
    for name, reason in report.not_charted.items():
        lines.append(f"no chart of {name}: {reason}")
    lines += [f"release  {moment:%F %H:%M}  {name}" for moment, name in report.releases]
    lines += [f"alert    {one.created_at:%F %H:%M}  {one.message}" for one in report.alerts]
    return lines


def _chart_lines(item: SignalChart, unit: str, run_length: float) -> list[str]:
    made = item.design
    first, points = made.baseline_points, len(item.starts)
    rest = f", {item.left_out} with too few observations left out" if item.left_out else ""
    shown = (
        f"points   {points} from {_at(item, 0)} to {_at(item, points - 1)}, "
        f"{counted(int(item.sizes.sum()), 'observation')}{rest}"
    )
    limits_from = (
        f"the first {counted(first, 'point')}"
        if first < points
        else "all points, the charted ones too"
    )
    limits_from += f": {item.baseline_why}" if item.baseline_why else ""
    lines = [
        f"center   {_value(made.baseline.center, unit)}",
        f"limits   {_limits(item, unit)}, from {limits_from}",
        f"         a false alarm about every {run_length:g} points",
        shown,
    ]
    if not made.alarms:
        lines.append("signals  none: no point is outside the limits")
    lines += [f"signals  {line}" for line in _alarm_lines(item, made.alarms)]
    if made.patterns:
        lines += [f"run rule {line}" for line in _run_rule_lines(item)]
        lines.append(
            "         limits and run rules together raise a false alarm about every "
            f"{made.patterns_run_length:.0f} points"
        )
    return lines


def _limits(item: SignalChart, unit: str) -> str:
    made = item.design
    if isinstance(made.chart, CusumChart):
        return f"sums of {made.limit:.3g} sigma (sigma {_value(made.baseline.sigma or 0.0, unit)})"
    lower, upper = float(made.chart.lower[-1]), float(made.chart.upper[-1])
    return f"{_value(lower, unit)} to {_value(upper, unit)} at the last point"


def _alarm_lines(item: SignalChart, alarms: tuple[Alarm, ...]) -> list[str]:
    """Write a line for alarms of one reason, one side and one beginning."""
    lines = []
    ordered = sorted(alarms, key=lambda a: (a.since, a.above, a.reason, a.index))
    for (since, above, reason), group in groupby(ordered, lambda a: (a.since, a.above, a.reason)):
        places = [alarm.index for alarm in group]
        side = "above" if above else "below"
        times = _at(item, places[0])
        if len(places) > 1:
            times = f"{counted(len(places), 'point')} from {times} to {_at(item, places[-1])}"
        lines.append(f"{side}, {reason}: {times}; since {_at(item, since)}")
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"and {more} more; --json lists all"] if more > 0 else lines


def _run_rule_lines(item: SignalChart) -> list[str]:
    """Return a line for each run rule that was met above or below the centre line."""
    lines = []
    ordered = sorted(item.design.patterns, key=lambda a: (a.reason, a.above, a.index))
    for (reason, above), group in groupby(ordered, lambda a: (a.reason, a.above)):
        patterns = list(group)
        side, last = "above" if above else "below", patterns[-1]
        count = f"{len(patterns)} point{'s' if len(patterns) > 1 else ''}"
        lines.append(
            f"{side}, {reason}: {count}, the last {_at(item, last.index)}, "
            f"since {_at(item, last.since)}"
        )
    return lines


def _at(item: SignalChart, index: int) -> str:
    return f"{item.starts[index].astype(datetime):%F %H:%M}"


def _value(value: float, unit: str) -> str:
    shown = 100.0 * value if unit == "share" else value
    return f"{shown:.4g}{SIGNS.get(unit, '')}"
