"""Control charts: is a rate stable over time, or did something change?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InsufficientDataError, InvalidInputError

FloatArray = NDArray[np.float64]
Counts = Sequence[int] | NDArray[np.int64]
WIDTH = 3.0


@dataclass(frozen=True, slots=True)
class ControlChart:
    """Points with their control limits.

    Attributes:
        values: What is charted, one per point.
        center: Center line.
        lower: Lower control limit of each point.
        upper: Upper control limit of each point.
        signals: 0-based indices of the points strictly outside their limits, ascending.
        sigma_z: Factor by which the limits are widened for variation between points beyond
            chance (Laney); None where the chart makes no such correction.
    """

    values: FloatArray
    center: float
    lower: FloatArray
    upper: FloatArray
    signals: NDArray[np.int64]
    sigma_z: float | None = None


def p_chart(counts: Counts, sizes: Counts) -> ControlChart:
    """Shewhart chart of a share, with limits at three standard errors.

    center = sum(counts) / sum(sizes); limits = center +- 3 sqrt(center (1 - center) / size),
    cut to [0, 1].

    Units: counts in, shares in [0, 1] out.
    Assumptions: independent observations with one common rate while in control; points in time
    order; the center is estimated from the same points, so that the chart tells whether they
    agree with each other, not with an agreed baseline.
    Error rate: about 0.27 % false alarms a point where size * center is above about 10; more and
    lopsided below that. A chart of 20 points has a false alarm in about 5 % of cases.
    When not to use: for very large sizes, where the rate varies from day to day by more than
    chance and nearly every point signals; with sizes so small that the lower limit is 0 and
    no improvement can be seen; a slow drift is found late.

    Args:
        counts: Events of each point, shape (n,), 0 to its size.
        sizes: Observations of each point, shape (n,), at least 1.

    Returns:
        The chart; arrays of shape (n,).

    Raises:
        InsufficientDataError: There are fewer than two points.
        InvalidInputError: Shapes differ, a size is below 1 or a count is out of range.

    Example:
        >>> chart = p_chart([5, 6, 4, 20], [50, 50, 50, 50])
        >>> chart.center, chart.signals.tolist()
        (0.175, [3])

    References:
        Montgomery, D. C. (2009). Introduction to Statistical Quality Control, 6th ed.,
        section 7.2.
    """
    events, observed = _checked(counts, sizes)
    center = float(events.sum() / observed.sum())
    half = WIDTH * np.sqrt(center * (1.0 - center) / observed)
    values = events / observed
    signals = np.flatnonzero((values < center - half) | (values > center + half))
    return ControlChart(
        values=values,
        center=center,
        lower=np.clip(center - half, 0.0, 1.0),
        upper=np.clip(center + half, 0.0, 1.0),
        signals=signals.astype(np.int64),
    )


def _checked(counts: Counts, sizes: Counts) -> tuple[FloatArray, FloatArray]:
    events = np.asarray(counts, dtype=np.float64)
    observed = np.asarray(sizes, dtype=np.float64)
    if events.ndim != 1 or events.shape != observed.shape:
        raise InvalidInputError(
            f"counts and sizes must be one-dimensional and equally long, got shapes {events.shape} "
            f"and {observed.shape}; pass one count and one size a point"
        )
    if events.size < 2:
        raise InsufficientDataError(
            f"a control chart needs at least 2 points, got {events.size}; collect for longer or "
            "use shorter spans of time"
        )
    if not (observed >= 1.0).all():
        raise InvalidInputError(
            f"each size must be at least 1, got {observed.min():g}; leave out empty points"
        )
    if not ((events >= 0.0) & (events <= observed)).all():
        worst = int(np.argmax((events < 0.0) | (events > observed)))
        raise InvalidInputError(
            f"each count must be from 0 to its size, got {events[worst]:g} of {observed[worst]:g} "
            f"at point {worst}; check the order of the arguments"
        )
    return events, observed
