"""Pictures of rollouts and tests of variants: what is read, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ratchet.records import Readout, RolloutLook, SignalName
from ratchet.views.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    RED,
    add_title,
    name_rows,
    need_some,
    new_panels,
    shortened,
)
from ratchet.views.words import LOOKS, READOUTS, words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"harm": RED, "passes": GREEN, "open": BLUE, "uneven": ORANGE, "no data": MUTED}
_DECISIONS = {"advance": GREEN, "promote": GREEN, "abort": RED, "expire": ORANGE}
_REACH = 1.6


def readout_chart(readouts: Sequence[Readout], title: str, subtitle: str = "") -> Figure:
    """Draw each difference to the control with its sequence and the margin to exclude.

    Args:
        readouts: One a signal and variant.
        title: What stands above.
        subtitle: What stands below the title.
    """
    need_some(readouts, "readouts")
    arms = list(dict.fromkeys(item.arm for item in readouts))
    names = [
        words_of(item.signal)
        if len(arms) == 1
        else f"{shortened(item.arm, 18)}: {words_of(item.signal)}"
        for item in readouts
    ]
    figure, (axes,) = new_panels(9.0, 1.9 + 0.46 * len(readouts))
    reach = _reach(readouts)
    axes.axvline(0.0, color=INK, lw=1.1)
    for row, item in enumerate(readouts):
        _interval(axes, row, item, reach)
    axes.set_xlim(-reach, reach)
    axes.grid(axis="x", color=FAINT)
    name_rows(axes, names)
    axes.set_xlabel("difference to the control (points): right of the line is worse")
    below = subtitle or "bars hold at all looks; the orange mark is the allowed rise"
    add_title(axes, title, below)
    return figure


def _reach(readouts: Sequence[Readout]) -> float:
    """Return how far the axis goes: to the widest end that matters, not to an unread one."""
    margins = [100 * item.margin for item in readouts]
    ends = [
        100 * max(abs(item.lower), abs(item.upper))
        for item in readouts
        if item.lower is not None and item.upper is not None
    ]
    return _REACH * max([*margins, *(min(end, 4 * max(margins)) for end in ends)]) / 1.25


def _interval(axes: Axes, row: int, item: Readout, reach: float) -> None:
    colour = _COLOURS[item.says]
    axes.plot([100 * item.margin] * 2, [row - 0.28, row + 0.28], color=ORANGE, lw=2.0)
    if item.difference is None or item.lower is None or item.upper is None:
        text = READOUTS["no data"] if item.says == "no data" else "not read yet"
        text = f"{READOUTS['harm']} (by the test on users)" if item.says == "harm" else text
    else:
        ends = [max(100 * item.lower, -reach), min(100 * item.upper, reach)]
        axes.plot(ends, [row, row], color=colour, lw=2.6, solid_capstyle="butt")
        axes.plot(100 * item.difference, row, "o", color=colour, ms=7)
        text = f"{100 * item.difference:+.2f}  {READOUTS[item.says]}".replace("-", "−")
    coordinates = ("axes fraction", "data")
    axes.annotate(text, (1.01, row), xycoords=coordinates, va="center", color=colour, size=9)


def rollout_chart(looks: Sequence[RolloutLook], signal: SignalName, title: str) -> Figure:
    """Draw a signal's difference over the looks, above the challenger's share of users.

    Args:
        looks: In order.
        signal: The signal.
        title: What stands above.
    """
    need_some(looks, "looks")
    figure, (upper, lower) = new_panels(9.0, 5.0, 2, sharex=True, height_ratios=[2.4, 1.0])
    read = [(look, item) for look in looks for item in look.readouts if item.signal == signal]
    _sequence(upper, [(look.until, item) for look, item in read if item.difference is not None])
    upper.axhline(0.0, color=INK, lw=1.1)
    if read:
        margins = [100 * item.margin for _, item in read]
        times: Any = [look.until for look, _ in read]
        top = 4 * min(margins)
        upper.plot(
            times, [min(m, top) for m in margins], color=ORANGE, lw=1.6, drawstyle="steps-post"
        )
        upper.set_ylim(-top, top)
    upper.set_ylabel("points worse")
    moments: Any = [look.until for look in looks]
    lower.step(moments, [100 * look.share for look in looks], where="post", color=BLUE, lw=1.8)
    lower.set_ylabel("users (%)")
    lower.set_ylim(0, None)
    _ends(lower, looks)
    below = f"{words_of(signal)}, challenger minus champion; the band holds at all looks"
    add_title(upper, title, f"{below}, orange must be excluded; last: {LOOKS[looks[-1].decision]}")
    return figure


def _sequence(axes: Axes, read: Sequence[tuple[Any, Readout]]) -> None:
    if not read:
        axes.annotate("not read yet", (0.02, 0.85), xycoords="axes fraction", color=MUTED)
        return
    times = [moment for moment, _ in read]
    low, middle, high = (
        [100 * float(getattr(item, name)) for _, item in read]
        for name in ("lower", "difference", "upper")
    )
    axes.fill_between(times, low, high, color=BLUE, alpha=0.18, lw=0)
    axes.plot(times, middle, color=BLUE, lw=1.6)


def _ends(axes: Axes, looks: Sequence[RolloutLook]) -> None:
    from matplotlib import dates

    untyped: Any = dates
    locator = untyped.AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator))
    axes.set_xlabel("answers up to (UTC)")
    for look in looks:
        if look.decision in _DECISIONS:
            moment: Any = look.until
            axes.axvline(moment, color=_DECISIONS[look.decision], lw=1.4, ls=(0, (4, 3)))
