"""Plots of metrics, control charts, training and judges, as matplotlib figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidInputError
from ratchet.files.text import counted
from ratchet.records import Figure as Measured
from ratchet.records import JudgeValidation, Metric
from ratchet.stats.charts.chart_results import CusumChart
from ratchet.stats.charts.designed_charts import DesignedChart
from ratchet.stats.charts.rate_series import RateSeries
from ratchet.views.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    RED,
    add_title,
    beside,
    name_rows,
    need_some,
    new_panels,
    shortened,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]
_UNITS = {
    "share": "share (%)", "seconds": "seconds", "characters": "characters", "score": "score",
    "turns": "turns", "tokens": "tokens", "calls": "calls", "cost": "cost",
}  # fmt: skip
_DAY = 86_400.0
_MARK_HEIGHT = 13
"""Points between the names of two marks, one above the other."""
_MOST_CHANGES = 6
"""Estimated changes that a panel shows, the first ones."""
_MANY_POINTS = 60
"""From here on points are drawn small."""
_CHARACTER = 0.0115
"""Width that is kept free for a character of a mark's name, as a share of a board's width."""


def metric_forest(metrics: Sequence[Metric]) -> Figure:
    """Draw each metric with its interval, one panel a unit; metrics without a value say why."""
    need_some(metrics, "metrics")
    units = [unit for unit in _UNITS if any(metric.unit == unit for metric in metrics)]
    groups = [[metric for metric in metrics if metric.unit == unit] for unit in units]
    heights = [0.95 + 0.38 * len(group) for group in groups]
    figure, panels = new_panels(8.5, sum(heights) + 0.4, len(groups), height_ratios=heights)
    for axes, unit, group in zip(panels, units, groups, strict=True):
        _forest_panel(axes, unit, group)
    add_title(panels[0], "Metrics with their intervals")
    return figure


def signal_chart(
    panels: Mapping[str, tuple[NDArray[np.datetime64], DesignedChart]],
    title: str,
    subtitle: str = "",
    *,
    unit: str = "share",
    releases: Sequence[tuple[datetime, str]] = (),
    alerts: Sequence[tuple[datetime, str]] = (),
) -> Figure:
    """Draw control charts of one signal, a panel each, with limits, what they signal and releases.

    Where a chart signals, a dotted line stands where the change is estimated to have begun.

    Args:
        panels: When each point begins, in UTC, and the chart, by the panel's name.
        title: What is charted.
        subtitle: What stands below the title.
        unit: Of the values; shares are drawn in per cent.
        releases: Moments and names of the releases.
        alerts: Moments and names of the alerts.

    Raises:
        InvalidInputError: There is no panel, or not one moment a point.
    """
    need_some(list(panels), "panels")
    for times, made in panels.values():
        if len(times) != made.values.size:
            raise InvalidInputError(
                f"times must hold one moment a point, got {len(times)} for "
                f"{counted(made.values.size, 'point')}; pass the start of each point"
            )
    height = 4.4 if len(panels) == 1 else 1.9 + 1.9 * len(panels)
    figure, axes = new_panels(10.0, height, len(panels), sharex=True)
    drawn: dict[str, Any] = {}
    for panel, (name, (times, made)) in zip(axes, panels.items(), strict=True):
        drawn |= _chart_panel(panel, times, made, unit)
        says = wrapped(name, 18) if len(panels) > 1 else ""
        sums = "sum (sigma)" if isinstance(made.chart, CusumChart) else _UNITS.get(unit, unit)
        panel.set_ylabel(f"{says}\n{sums}" if says else sums)
    _time_limits(axes[0], [times for times, _ in panels.values()])
    rows = _marks(
        axes,
        [(_day_number(moment), name, MUTED) for moment, name in releases]
        + [(_day_number(moment), name, RED) for moment, name in alerts],
    )
    _time_axis(axes[-1])
    add_title(axes[0], shortened(title, 60), subtitle, lift=_MARK_HEIGHT * rows)
    figure.legend(
        drawn.values(),
        drawn.keys(),
        loc="outside lower center",
        ncols=len(drawn),
        frameon=False,
        fontsize=9,
    )
    return figure


@dataclass(frozen=True, slots=True)
class _Drawing:
    """What a chart shows, in the unit of its axis: curves by the side that they alarm on."""

    curves: tuple[tuple[float, FloatArray], ...]
    what: str
    center: float
    lower: FloatArray
    upper: FloatArray
    says: str


def _drawing(made: DesignedChart, unit: str) -> _Drawing:
    chart = made.chart
    if isinstance(chart, CusumChart):
        sides = ((1.0, chart.upper), (-1.0, chart.lower))
        curves = tuple((side, side * sums) for side, sums in sides if sums is not None)
        edge = np.full(made.values.size, made.limit)
        says = f"decision interval\n{made.limit:.3g} sigma"
        return _Drawing(curves, "sums above and below", 0.0, -edge, edge, says)
    scale, sign = {"share": (100.0, " %"), "seconds": (1.0, " s")}.get(unit, (1.0, ""))
    lower, upper = chart.lower, chart.upper
    if unit in ("share", "score"):
        lower, upper = np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)
    lower, upper, center = scale * lower, scale * upper, scale * chart.center
    says = (
        f"center {_number(center)}{sign}\nlimits {_number(lower[-1])} to {_number(upper[-1])}{sign}"
    )
    what = "smoothed value" if chart.smoothed else "value"
    return _Drawing(((0.0, scale * chart.values),), what, center, lower, upper, says)


def _chart_panel(
    axes: Axes, times: NDArray[np.datetime64], made: DesignedChart, unit: str
) -> dict[str, Any]:
    """Draw one chart; return what was drawn, by what it is, for the legend."""
    moments = times.astype("datetime64[us]").astype(object)
    shown = _drawing(made, unit)
    drawn: dict[str, Any] = {}
    pieces = _without_gaps(times)
    drawn["center"] = axes.axhline(shown.center, color=MUTED, lw=1.2, ls=(0, (5, 3)))
    for piece in pieces:
        drawn["limits"] = axes.fill_between(
            moments[piece], shown.lower[piece], shown.upper[piece], step="mid", color=FAINT, lw=0
        )
    small = len(moments) > _MANY_POINTS
    dots: dict[str, Any] = {"ls": "", "marker": "o", "ms": 2.5 if small else 4.5, "zorder": 4}
    first = made.baseline_points if made.baseline_points < len(moments) else 0
    for side, heights in shown.curves:
        for piece in pieces:
            style: dict[str, Any] = {"color": BLUE, "lw": 1.3, "zorder": 3}
            (drawn[shown.what],) = axes.plot(moments[piece], heights[piece], **style)
        if first:
            inner = axes.plot(moments[:first], heights[:first], mfc="white", mec=BLUE, **dots)
            drawn["baseline of the limits"] = inner[0]
        axes.plot(moments[first:], heights[first:], mfc=BLUE, mec=BLUE, **dots)
        for name, alarms, color, size, width in (
            ("run rule", made.patterns, ORANGE, 7 if small else 11, 0.9),
            ("outside the limits", made.alarms, RED, 6 if small else 9, 1.8),
        ):
            at = sorted({one.index for one in alarms if not side or one.above == (side > 0)})
            if at:
                ring: dict[str, Any] = {"mfc": "none", "mec": color, "mew": width, "zorder": 5}
                (drawn[name],) = axes.plot(moments[at], heights[at], "o", ms=size, **ring)
    coordinates = ("axes fraction", "data")
    for place in sorted({one.since for one in made.alarms})[:_MOST_CHANGES]:
        style = {"color": RED, "lw": 1.0, "ls": (0, (1, 2)), "zorder": 1}
        drawn["estimated change"] = axes.axvline(moments[place], **style)
    axes.annotate(
        shown.says, (1.01, shown.center), xycoords=coordinates, va="center", color=MUTED, size=9
    )
    axes.grid(axis="y", color=FAINT, lw=0.6)
    return drawn


def _without_gaps(times: NDArray[np.datetime64]) -> list[NDArray[np.int64]]:
    """Return the points in stretches that no time of more than three usual steps interrupts."""
    steps = np.diff(times.astype("datetime64[us]").astype(np.int64))
    if not steps.size:
        return [np.arange(len(times))]
    return np.split(np.arange(len(times)), np.flatnonzero(steps > 3 * np.median(steps)) + 1)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1_000.0 else f"{value:,.0f}"


def _time_limits(axes: Axes, times: Sequence[NDArray[np.datetime64]]) -> None:
    """Show the time of the points alone, however long ago a release was."""
    moments = np.unique(np.concatenate(times)).astype("datetime64[us]")
    days = moments.astype(np.float64) / (1e6 * _DAY)
    step = float(np.median(np.diff(days))) if days.size > 1 else 1.0 / 24.0
    axes.set_xlim(float(days[0]) - step, float(days[-1]) + step)


def evidence_chart(
    times: Sequence[datetime],
    evidence: Sequence[float],
    threshold: Sequence[float],
    title: str,
    subtitle: str = "",
    *,
    change: datetime | None = None,
) -> Figure:
    """Draw a board's evidence over time beside the threshold from which on it is an alarm.

    Args:
        times: Ends of the batches that were charted.
        evidence: Log evidence then, shape (n,).
        threshold: Log threshold then, shape (n,).
        title: What stands above.
        subtitle: What stands below the title.
        change: Estimated time of the change, where the board is in alarm.
    """
    need_some(times, "times")
    figure, (axes,) = new_panels(9.0, 3.6)
    moments: Any = list(times)
    heights, bars = np.asarray(evidence), np.asarray(threshold)
    axes.step(moments, bars, where="post", color=MUTED, lw=1.2, ls=(0, (5, 3)))
    axes.plot(moments, heights, color=BLUE, lw=1.4, marker="o", ms=3.5, zorder=3)
    over = heights >= bars
    if over.any():
        at = [moment for moment, is_over in zip(times, over, strict=True) if is_over]
        outside: Any = at
        axes.plot(outside, heights[over], "o", ms=8, mfc="none", mec=RED, mew=1.6, zorder=4)
    rows = 0
    if change is not None:
        begin, end = axes.get_xlim()
        day = min(max(_day_number(change), begin), end)
        rows = _marks([axes], [(day, f"change about {change:%d %b %H:%M}", RED)])
    coordinates = ("axes fraction", "data")
    says: dict[str, Any] = {"xycoords": coordinates, "va": "center", "color": MUTED, "size": 9}
    axes.annotate(f"threshold\n{bars[-1]:.3g}", (1.01, float(bars[-1])), **says)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_ylabel("log evidence")
    _time_axis(axes)
    axes.set_xlabel("charted until (UTC)")
    add_title(axes, shortened(title, 60), subtitle, lift=_MARK_HEIGHT * rows)
    return figure


def board_chart(
    panels: Mapping[str, RateSeries],
    title: str,
    subtitle: str = "",
    *,
    releases: Mapping[str, datetime] | None = None,
    change: datetime | None = None,
    color: str = INK,
) -> Figure:
    """Draw each signal beside what the baseline expects, with releases and the change point.

    Args:
        panels: A series a signal, by what it is in words.
        title: What stands above.
        subtitle: What stands below the title.
        releases: When versions began to answer.
        change: Estimated time of the change.
        color: Of the title.
    """
    need_some(list(panels), "panels")
    figure, axes = new_panels(9.0, 1.6 + 1.45 * len(panels), len(panels), sharex=True)
    for panel, (name, series) in zip(axes, panels.items(), strict=True):
        _series_panel(panel, name, series)
    _span(axes[0], panels.values())
    marks = [(_day_number(moment), version, MUTED) for version, moment in (releases or {}).items()]
    if change is not None:
        begin, end = axes[0].get_xlim()
        day = min(max(_day_number(change), begin), end)
        marks.append((day, f"change about {change:%d %b %H:%M}", RED))
    rows = _marks(axes, marks)
    _time_axis(axes[-1])
    add_title(axes[0], shortened(title, 44), subtitle, color, lift=_MARK_HEIGHT * rows)
    return figure


def _series_panel(axes: Axes, name: str, series: RateSeries) -> None:
    moments = (series.starts * 1e6).astype("datetime64[us]").astype(object)
    lower, upper = 100 * series.lower, 100 * series.upper
    axes.fill_between(moments, lower, upper, step="mid", color=FAINT, lw=0)
    axes.plot(moments, 100 * series.expected, color=MUTED, lw=1.0, ls=(0, (5, 3)))
    axes.plot(moments, 100 * series.values, color=BLUE, lw=1.2, marker="o", ms=2.8, zorder=3)
    if series.signals.size:
        outside = [moments[i] for i in series.signals]
        heights = 100 * series.values[series.signals]
        axes.plot(outside, heights, "o", ms=6, mfc="none", mec=RED, mew=1.4, zorder=4)
    axes.set_ylabel(wrapped(name, 18), rotation=0, ha="right", va="center", labelpad=10)
    axes.yaxis.set_major_formatter("{x:g} %")
    # quiet hours have limits so wide that the points would lie flat below them
    highest = max(float(series.values.max()), float(np.median(series.upper)), 0.001)
    axes.set_ylim(0.0, 112 * highest)


def _span(axes: Axes, panels: Iterable[RateSeries]) -> None:
    """Show the time of the points alone, however long ago a release or the change was."""
    starts = np.unique(np.concatenate([series.starts for series in panels])) / _DAY
    step = float(np.diff(starts).min()) if starts.size > 1 else 1.0 / 24.0
    axes.set_xlim(float(starts[0]) - step, float(starts[-1]) + step)


def _marks(axes: Sequence[Axes], marks: Sequence[tuple[float, str, str]]) -> int:
    """Draw releases, alerts and changes through all panels, named above the first.

    Args:
        axes: The panels.
        marks: Day, name and colour of each; what is outside the panels is left out.

    Returns:
        How many rows the names take.
    """
    begin, end = axes[0].get_xlim()
    marks = [mark for mark in marks if begin <= mark[0] <= end]
    taken: list[float] = []
    for day, text, color in sorted(marks):
        style: Any = (0, (2, 2)) if color == MUTED else "-"
        for panel in axes:
            panel.axvline(day, color=color, lw=1.2, ls=style, zorder=2)
        text = shortened(text)
        width, line = _CHARACTER * len(text), (day - begin) / (end - begin)
        left = line if line + width <= 1.0 else line - width
        row = next((i for i, edge in enumerate(taken) if edge <= left), len(taken))
        taken[row : row + 1] = [left + width]
        axes[0].annotate(
            text, (line, 1.0), (0, 4 + _MARK_HEIGHT * row), xycoords="axes fraction",
            textcoords="offset points", color=color, size=9, ha="left" if left == line else "right",
        )  # fmt: skip
    return len(taken)


def _day_number(moment: datetime) -> float:
    """Return matplotlib's number for a moment: days since 1970 in UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() / _DAY


def confusion_matrix(
    categories: Sequence[str], counts: Sequence[Sequence[int]], title: str
) -> Figure:
    """Draw the labels of people (rows) against the verdicts of a judge (columns).

    The shade is the share of the row, so that a rare label is seen as well as a frequent one.
    """
    need_some(categories, "categories")
    table = np.array(counts, dtype=np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1.0)
    size = 2.6 + 0.75 * len(categories)
    width = max(5.6, size + 1.2)
    figure, (axes,) = new_panels(width, size)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(table):
        ink = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, f"{count:,.0f}", ha="center", va="center", color=ink, size=11)
    names = [shortened(name, 14) for name in categories]
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    long = max(len(name) for name in names) > 8
    axes.set_xticks(range(len(names)), labels=names, **(turned if long else {}))
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_xlabel("verdict of the judge")
    axes.set_ylabel("label of people")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    says = f"{counted(int(table.sum()), 'item')}; agreement is on the diagonal"
    add_title(axes, shortened(title, int(5.2 * width)), says)
    return figure


def effect_forest(
    figures: Sequence[Measured], says: Mapping[str, str], title: str, *, no_effect: float = 0.0
) -> Figure:
    """Draw measured effects with their intervals beside the line of no effect."""
    drawn = [item for item in figures if item.value is not None]
    need_some(drawn, "figures with a value")
    figure, (axes,) = new_panels(8.5, 1.5 + 0.42 * len(drawn))
    axes.axvline(no_effect, color=MUTED, lw=1.2, ls=(0, (5, 3)))
    for row, item in enumerate(drawn):
        value = item.value or 0.0
        lower, upper = item.lower, item.upper
        apart = lower is not None and upper is not None and not lower <= no_effect <= upper
        color = RED if apart else BLUE
        if lower is not None and upper is not None:
            axes.plot([lower, upper], [row, row], color=color, lw=2.4, solid_capstyle="butt")
        axes.plot(value, row, "o", color=color, ms=7)
        label = f"{value:+.3f}   n = {item.observations:,}".replace("-", "−")
        beside(axes, row, label, INK)
    name_rows(axes, [wrapped(says.get(item.name, item.name), 34) for item in drawn])
    axes.grid(axis="x", color=FAINT)
    axes.set_xlabel("effect with its 95 % interval; red: excludes no effect")
    add_title(axes, title)
    return figure


def agreement_over_time(validations: Sequence[JudgeValidation], bar: float, title: str) -> Figure:
    """Draw kappa of each validation with its interval beside the bar; colours are decisions."""
    shown = [(v, k) for v in validations if (k := v.figure("kappa")) and k.value is not None]
    need_some(shown, "validations with a kappa")
    colours = {"usable": GREEN, "not usable": RED, "not enough labels": MUTED}
    figure, (axes,) = new_panels(8.5, 4.0)
    axes.axhline(bar, color=MUTED, lw=1.2, ls=(0, (5, 3)))
    for index, (validation, kappa) in enumerate(shown):
        color = colours[validation.decision]
        if kappa.lower is not None and kappa.upper is not None:
            axes.plot([index] * 2, [kappa.lower, kappa.upper], color=color, lw=2.4)
        axes.plot(index, kappa.value or 0.0, "o", color=color, ms=8)
    each = math.ceil(len(shown) / 7)  # more names than that do not fit beside each other
    places = range((len(shown) - 1) % each, len(shown), each)  # the latest always has its own
    dated = [f"{shown[i][0].created_at:%d %b %H:%M}\nn = {shown[i][0].items:,}" for i in places]
    axes.set_xticks(places, labels=dated)
    axes.set_xlim(-0.6, max(0.6, len(shown) - 0.4))
    lowest = min(k.value if k.lower is None else k.lower for _, k in shown if k.value is not None)
    axes.set_ylim(min(0.0, lowest) - 0.03, 1.03)
    axes.set_xlabel("validations (UTC), items with a label and a verdict")
    axes.set_ylabel("Cohen's kappa, 95 % interval")
    axes.annotate(
        f" bar {bar:.2f}", (1.0, bar), xycoords=("axes fraction", "data"), va="center", color=MUTED
    )
    add_title(axes, shortened(title, 60), "green: usable; red: not usable; grey: not enough labels")
    return figure


def loss_curve(losses: Sequence[float]) -> Figure:
    """Draw the training loss, with its running mean where there are many steps."""
    need_some(losses, "losses")
    figure, (axes,) = new_panels(7.0, 3.6)
    values = np.asarray(losses, dtype=np.float64)
    steps = np.arange(1, values.size + 1)
    width = max(1, values.size // 20)
    if width > 1:
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps, values, color=BLUE, lw=1.0, alpha=0.35)
        axes.plot(steps[width - 1 :], smooth, color=BLUE, lw=2.2)
        subtitle = f"each logged step, and the mean of the last {width}"
    else:
        axes.plot(steps, values, color=BLUE, lw=2.0, marker="o", ms=4)
        subtitle = f"from {values[0]:.2f} to {values[-1]:.2f}"
    axes.grid(axis="y", color=FAINT)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("logged step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(values))))
    add_title(axes, "Training loss", subtitle)
    return figure


def funnel(steps: Sequence[tuple[str, int]]) -> Figure:
    """Draw what is left after each step, with the share of the step before."""
    need_some(steps, "steps")
    figure, (axes,) = new_panels(8.0, 1.1 + 0.5 * len(steps))
    counts = np.array([count for _, count in steps], dtype=np.float64)
    axes.barh(range(len(steps)), counts, color=BLUE, height=0.62)
    for row, (_, count) in enumerate(steps):
        before = steps[row - 1][1] if row else 0
        kept = f"  ({100 * count / before:.0f} % kept)" if before else ""
        axes.annotate(
            f"{count:,}{kept}",
            (count, row),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_xlim(0, max(1.0, counts.max()) * 1.32)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("interactions left")
    axes.grid(axis="x", color=FAINT)
    name_rows(axes, [wrapped(name.replace("_", " "), 34) for name, _ in steps])
    add_title(axes, "From interactions to training set")
    return figure


def _forest_panel(axes: Axes, unit: str, metrics: Sequence[Metric]) -> None:
    scale = 100.0 if unit == "share" else 1.0
    for row, metric in enumerate(metrics):
        if metric.value is None:
            beside(axes, row, "not observed", MUTED)
            continue
        if metric.lower is not None and metric.upper is not None:
            ends = [scale * metric.lower, scale * metric.upper]
            axes.plot(ends, [row, row], color=BLUE, lw=2.4, solid_capstyle="butt")
        axes.plot(scale * metric.value, row, "o", color=BLUE, ms=7)
        sign = {"share": " %", "seconds": " s"}.get(unit, "")
        value = f"{scale * metric.value:.3g}{sign}"
        beside(axes, row, f"{value}   n = {metric.observations:,}", INK)
    if unit in ("share", "score"):
        axes.set_xlim(-0.02 * scale, 1.02 * scale)
    else:
        axes.set_xlim(left=0.0)
    axes.grid(axis="x", color=FAINT)
    name_rows(axes, [metric.name.replace("_", " ") for metric in metrics])
    axes.set_xlabel(_UNITS[unit])


def _time_axis(axes: Axes) -> None:
    from matplotlib import dates

    untyped: Any = dates
    locator = untyped.AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator))
    axes.set_xlabel("start of each point (UTC)")
