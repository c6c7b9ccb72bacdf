"""Pictures of the gate: the verdict, all metrics with their margins, and who wins where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ratchet.files.text import counted
from ratchet.records import ClusterComparison, Decision, Measured, Verdict, direction_words
from ratchet.stats.intervals import wilson
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

FloatArray: TypeAlias = NDArray[np.float64]
VERDICT_COLOURS: dict[Verdict, str] = {
    "promote": GREEN,
    "hold": ORANGE,
    "reject": RED,
    "inconclusive": MUTED,
}
MOST_ROWS = 24
_BINS = 31


def gate_figure(decision: Decision) -> Figure:
    """Draw champion against challenger, and their paired difference with its interval."""
    figure, (values, difference) = new_panels(8.5, 4.4, 2, height_ratios=[2.0, 1.15])
    systems = (
        (f"champion\n{shortened(decision.champion)}", decision.champion_value, MUTED),
        (f"challenger\n{shortened(decision.challenger)}", decision.challenger_value, BLUE),
    )
    scale = 100.0 if _are_shares(decision) else 1.0
    for row, (_, value, colour) in enumerate(systems):
        _bar_of_mean(values, row, value, scale, decision.examples, colour)
    name = decision.primary_metric.replace("_", " ")
    better = direction_words(decision.higher_is_better)
    if scale == 100.0:
        values.set_xlim(0, 119)
        values.set_xticks(range(0, 101, 20))
        values.set_xlabel(f"{name} (%), {better}, 95 % interval")
    else:
        values.set_xlabel(f"{name}, mean, {better}")
        values.margins(x=0.15)
    name_rows(values, [name for name, _, _ in systems])
    _difference_panel(difference, decision, scale)
    add_title(
        values,
        f"Verdict: {decision.verdict}",
        f"{counted(decision.examples, 'example')} of {shortened(decision.example_set_id)}, "
        f"p = {decision.p_value:.2g}",
        VERDICT_COLOURS[decision.verdict],
    )
    return figure


def metric_margins(decision: Decision) -> Figure:
    """Draw each metric's difference with its interval beside what is allowed, one panel a metric.

    Right of nought the metric is higher. The dashed line is the margin; shaded is what a promotion
    must not reach into. Grey decides nothing, or could not be measured.
    """
    shown = decision.measured[:MOST_ROWS]
    need_some(shown, "metrics")
    metrics = list(dict.fromkeys(item.metric for item in shown))
    groups = [[item for item in shown if item.metric == metric] for metric in metrics]
    heights = [0.75 + 0.42 * len(group) for group in groups]
    figure, panels = new_panels(9.0, 1.0 + sum(heights), len(groups), height_ratios=heights)
    for axes, group in zip(panels, groups, strict=True):
        _margin_panel(axes, group, decision)
    left = len(decision.measured) - len(shown)
    more = f"; {left} more in the table" if left else ""
    level = 95.0 if decision.level is None else 100.0 * (1.0 - 2.0 * decision.level)
    add_title(
        panels[0],
        f"Challenger minus champion, {level:.3g} %",
        f"dashed: the margin; shaded: worse than allowed{more}",
        lift=4.0,
    )
    return figure


def paired_differences(differences: FloatArray, decision: Decision) -> Figure:
    """Draw how the challenger differs from the champion, example by example, and on average.

    Args:
        differences: Challenger minus champion on the primary metric; nan for no score.
        decision: Whose interval is drawn.
    """
    seen = differences[~np.isnan(differences)]
    need_some(seen.tolist(), "differences")
    figure, (axes,) = new_panels(8.5, 4.0)
    levels = np.unique(seen)
    if levels.size <= 3 and np.isin(levels, (-1.0, 0.0, 1.0)).all():
        word = "right" if decision.higher_is_better else "better"
        _counted_differences(axes, seen if decision.higher_is_better else -seen, word)
        axes.set_xlabel(
            f"who is {word} by {decision.primary_metric.replace('_', ' ')}, "
            f"{direction_words(decision.higher_is_better)}"
        )
    else:
        reach = max(1e-9, float(np.abs(seen).max()))
        edges = np.linspace(-reach, reach, _BINS + 1).tolist()
        below, above = (RED, BLUE) if decision.higher_is_better else (BLUE, RED)
        axes.hist(seen[seen < 0.0], bins=edges, color=below, alpha=0.8, label="lower")
        axes.hist(seen[seen == 0.0], bins=edges, color=MUTED, alpha=0.8, label="the same")
        axes.hist(seen[seen > 0.0], bins=edges, color=above, alpha=0.8, label="higher")
        axes.set_xlabel(
            f"{decision.primary_metric.replace('_', ' ')}, "
            f"{direction_words(decision.higher_is_better)}: challenger minus champion"
        )
        axes.legend(frameon=False)
    axes.set_ylabel("examples")
    axes.margins(y=0.18)
    text = f"{counted(seen.size, 'example')}"
    if decision.difference is not None and decision.interval is not None:
        low, high = decision.interval
        text += f"; mean {decision.difference:+.3g} [{low:+.3g}, {high:+.3g}]".replace("-", "−")
    add_title(axes, "Paired differences", text)
    return figure


def wins_by_cluster(clusters: Sequence[ClusterComparison]) -> Figure:
    """Draw, for each failure cluster, where one alone is right: left lost, right won."""
    shown = clusters[:MOST_ROWS]
    need_some(shown, "clusters")
    figure, (axes,) = new_panels(8.5, 1.6 + 0.46 * len(shown))
    for row, item in enumerate(shown):
        axes.barh(row, -item.only_champion_right, color=RED, height=0.55, alpha=0.85)
        axes.barh(row, item.only_challenger_right, color=BLUE, height=0.55, alpha=0.85)
        same = item.examples - item.only_champion_right - item.only_challenger_right
        missing = f", {item.unscored} unscored" if item.unscored else ""
        axes.annotate(
            f"{same} of {item.examples} the same, p = {item.p_value:.2g}{missing}",
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            color=INK,
            size=9,
        )
    reach = max(1, *(max(c.only_champion_right, c.only_challenger_right) for c in shown))
    axes.set_xlim(-1.15 * reach, 1.15 * reach)
    axes.axvline(0.0, color=INK, lw=1.0)
    axes.locator_params(axis="x", integer=True)
    ticks = [tick for tick in axes.get_xticks() if abs(tick) <= 1.15 * reach]
    axes.set_xticks(ticks, labels=[f"{abs(tick):g}" for tick in ticks])
    axes.set_xlabel("examples: left the champion alone is right, right the challenger alone")
    name_rows(axes, [wrapped(item.name, 34) for item in shown])
    axes.grid(axis="x", color=FAINT)
    add_title(axes, "Wins and losses by failure cluster", "exact McNemar p, two-sided")
    return figure


def _are_shares(decision: Decision) -> bool:
    values = (decision.champion_value, decision.challenger_value)
    return all(value is None or 0.0 <= value <= 1.0 for value in values)


def _bar_of_mean(
    axes: Axes, row: int, value: float | None, scale: float, examples: int, colour: str
) -> None:
    if value is None:
        axes.annotate("no score", (0, row), (8, 0), textcoords="offset points", va="center")
        return
    axes.barh(row, scale * value, color=colour, height=0.5, alpha=0.85)
    end, text = scale * value, f"{value:.4g}"
    if scale == 100.0:
        interval = wilson(round(value * examples), examples)
        ends = [100 * interval.lower, 100 * interval.upper]
        axes.plot(ends, [row, row], color=INK, lw=1.8)
        end, text = ends[1], f"{100 * value:.1f} %"
    axes.annotate(
        text,
        (end, row),
        (8, 0),
        textcoords="offset points",
        va="center",
        color=INK,
        weight="bold",
    )


def _difference_panel(axes: Axes, decision: Decision, scale: float) -> None:
    name_rows(axes, ["challenger\nminus champion"])
    axes.set_ylim(0.6, -0.9)
    axes.axvline(0.0, color=INK, lw=1.2, ls=(0, (4, 3)))
    unit = "percentage points" if scale == 100.0 else decision.primary_metric.replace("_", " ")
    right = "higher" if decision.higher_is_better else "higher, which is worse"
    axes.set_xlabel(f"difference ({unit}): right of the line the challenger is {right}")
    if decision.difference is None or decision.interval is None:
        axes.set_xlim(-1, 1)
        axes.annotate("no interval", (0, 0), (0, 12), textcoords="offset points", ha="center")
        return
    lower, upper = (scale * end for end in decision.interval)
    value = scale * decision.difference
    reach = 1.25 * max(abs(lower), abs(upper), 0.01 * scale)
    axes.plot([lower, upper], [0, 0], color=VERDICT_COLOURS[decision.verdict], lw=3)
    axes.plot(value, 0, "o", color=VERDICT_COLOURS[decision.verdict], ms=9)
    side = "center" if abs(value) < 0.3 * reach else ("right" if value > 0 else "left")
    text = f"{value:+.1f} points ({lower:+.1f} to {upper:+.1f})"
    if scale != 100.0:
        text = f"{value:+.3g} ({lower:+.3g} to {upper:+.3g})"
    axes.annotate(
        text.replace("-", "−"),
        ({"center": value, "right": upper, "left": lower}[side], 0),
        (0, 12),
        textcoords="offset points",
        ha=side,
        color=INK,
        weight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0},
    )
    axes.set_xlim(-reach, reach)


def _margin_panel(axes: Axes, group: Sequence[Measured], decision: Decision) -> None:
    reach = 0.0
    for row, item in enumerate(group):
        allowed = _allowed(item)
        colour = _colour(item, decision)
        if item.difference is None:
            beside(axes, row, wrapped(item.problem or "no score", 40), MUTED)
            continue
        if item.interval is not None:
            axes.plot(item.interval, [row, row], color=colour, lw=2.4, solid_capstyle="butt")
            reach = max(reach, *map(abs, item.interval))
        axes.plot(item.difference, row, "o", color=colour, ms=7)
        reach = max(reach, abs(item.difference), 1.3 * abs(allowed or 0.0))
        text = f"{item.difference:+.3g}   n = {item.examples:,}".replace("-", "−")
        beside(axes, row, text + ("  (too few)" if item.problem else ""), INK)
    reach = reach or 1.0
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    for row, item in enumerate(group):
        allowed = _allowed(item)
        if allowed is None:
            continue
        ends = (-1.08 * reach, allowed) if item.higher_is_better else (allowed, 1.08 * reach)
        axes.fill_betweenx([row - 0.4, row + 0.4], *ends, color=RED, alpha=0.08, lw=0)
        axes.plot([allowed] * 2, [row - 0.4, row + 0.4], color=RED, lw=1.4, ls=(0, (3, 2)))
    axes.axvline(0.0, color=INK, lw=1.0)
    name_rows(axes, [wrapped(f"{item.role}: {item.name}", 40) for item in group])
    axes.grid(axis="x", color=FAINT)
    better = direction_words(group[0].higher_is_better)
    axes.set_xlabel(f"{group[0].metric.replace('_', ' ')}, {better}", size=9)


def _counted_differences(axes: Axes, seen: FloatArray, word: str) -> None:
    names = (f"champion alone {word}", "both the same", f"challenger alone {word}")
    for index, (value, colour) in enumerate(((-1.0, RED), (0.0, MUTED), (1.0, BLUE))):
        count = int(np.count_nonzero(seen == value))
        axes.bar(index, count, color=colour, width=0.6, alpha=0.85)
        axes.annotate(
            f"{count:,}", (index, count), (0, 5), textcoords="offset points", ha="center",
            color=INK, weight="bold",
        )  # fmt: skip
    axes.set_xticks(range(3), labels=names)


def _allowed(item: Measured) -> float | None:
    """The difference at the margin; None for what decides nothing."""
    if item.role == "secondary":
        return None
    size = item.margin * (abs(item.champion or 0.0) if item.relative else 1.0)
    sign = 1.0 if item.higher_is_better else -1.0
    return sign * size if item.role == "primary" else -sign * size


def _colour(item: Measured, decision: Decision) -> str:
    if item.role == "secondary" or item.problem is not None:
        return MUTED
    level = 0.05 if decision.level is None else decision.level
    if item.p_harm <= level:
        return RED
    return GREEN if item.p_shown <= level else BLUE
