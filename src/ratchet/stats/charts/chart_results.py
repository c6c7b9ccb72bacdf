"""What control charts return, and the baseline that their limits come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ratchet.stats.arrays import FloatArray, IntArray
from ratchet.stats.charts.chart_checks import require

Quantity = Literal["share", "count", "rate", "value"]
Spread = Literal["range", "deviation"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a process does while in control; limits that come from it are never estimated again.

    Attributes:
        quantity: What it describes: the share of trials (p, np), the count of a point (c), the
            count per unit of exposure (u) or a measured value (XmR, EWMA, CUSUM).
        center: Mean of the quantity.
        size: What it was estimated from: trials, exposure or points.
        sigma: Standard deviation of one point; only for values, since counts imply theirs.
        sigma_z: Variation between points beyond chance, as a factor; only for Laney's charts.
    """

    quantity: Quantity
    center: float
    size: float
    sigma: float | None = None
    sigma_z: float | None = None

    def __post_init__(self) -> None:
        highest = 1.0 if self.quantity == "share" else np.inf
        require(
            np.isfinite(self.center) and (self.quantity == "value" or 0 <= self.center <= highest),
            f"the center of a {self.quantity} must be a possible one, got {self.center}; pass a "
            "share in [0, 1], a count or rate of at least 0, or a finite value",
        )
        require(
            (self.sigma is None) != (self.quantity == "value"),
            f"a baseline of values has a sigma and one of counts has none, got {self.sigma} for a "
            f"{self.quantity}; pass the standard deviation of one point for values only",
        )
        require(
            self.sigma is None or 0.0 < self.sigma < np.inf,
            f"sigma must be finite and above 0, got {self.sigma}; values that never vary make no "
            "chart",
        )
        require(
            self.sigma_z is None or 0.0 < self.sigma_z < np.inf,
            f"sigma_z must be finite and above 0, got {self.sigma_z}; use a chart without Laney's "
            "correction",
        )


@dataclass(frozen=True, slots=True)
class ControlChart:
    """Points with their control limits.

    Attributes:
        values: What is charted, one per point.
        center: Center line.
        lower: Lower control limit of each point.
        upper: Upper control limit of each point.
        signals: 0-based indices of the points strictly outside their limits, ascending.
        sigma: Standard deviation of each point, which the limits are multiples of.
        baseline: What the limits come from: the one given, else the one estimated from the points.
        sigma_z: Factor by which the limits are widened for variation between points beyond
            chance (Laney); None where the chart makes no such correction.
        smoothed: Whether each value holds earlier points too (EWMA), so that neighbours are alike.
    """

    values: FloatArray
    center: float
    lower: FloatArray
    upper: FloatArray
    signals: IntArray
    sigma: FloatArray
    baseline: Baseline
    sigma_z: float | None = None
    smoothed: bool = False


@dataclass(frozen=True, slots=True)
class CusumChart:
    """Cumulative sums and the alarms they raise; a sum goes on after an alarm.

    Attributes:
        values: What is summed, one per point: standardised values, or counts.
        upper: Sum that grows where values are above the reference, at least 0; None if not kept.
        lower: Sum that grows where values are below it, at least 0; None if not kept.
        decision_interval: Alarm where a sum is at or above it.
        reference: What each point is compared with, per point, in the unit of `values`: the value
            taken off for the upper sum; the lower sum of standardised values takes off its
            negative.
        signals: 0-based indices of the points where a sum is at or above the interval, ascending.
        change_point: 0-based index of the first changed point, by estimate: the one after the last
            zero of the alarming sum before the first alarm; None without an alarm.
    """

    values: FloatArray
    upper: FloatArray | None
    lower: FloatArray | None
    decision_interval: float
    reference: FloatArray
    signals: IntArray
    change_point: int | None


def shewhart_result(
    values: FloatArray,
    sigma: FloatArray,
    baseline: Baseline,
    *,
    limit: float,
    center: float | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    smoothed: bool = False,
) -> ControlChart:
    """Put limits around points and find those outside.

    Args:
        values: Points, shape (n,).
        sigma: Their standard deviations, shape (n,).
        baseline: What the limits come from.
        limit: Half-width of the limits in standard deviations.
        center: Center line, if it is not the baseline's center.
        bounds: Range of possible values, which limits are cut to.
        smoothed: Whether neighbours are alike.
    """
    require(
        0.0 < limit < np.inf,
        f"limit must be finite and above 0, got {limit}; 3 standard deviations are usual",
    )
    center = baseline.center if center is None else center
    half = limit * sigma
    outside = (values < center - half) | (values > center + half)
    return ControlChart(
        values=values,
        center=center,
        lower=np.clip(center - half, *bounds),
        upper=np.clip(center + half, *bounds),
        signals=np.flatnonzero(outside).astype(np.int64),
        sigma=sigma,
        baseline=baseline,
        sigma_z=baseline.sigma_z,
        smoothed=smoothed,
    )


def require_spread(spread: Spread) -> None:
    """Refuse what sigma cannot be estimated from."""
    require(
        spread in ("range", "deviation"),
        f"spread must be 'range' or 'deviation', got {spread!r}; pass 'range' for ranges",
    )


def require_quantity(baseline: Baseline, quantity: Quantity, *, laney: bool = False) -> None:
    """Refuse a baseline of another quantity, or with a Laney factor where none belongs."""
    require(
        baseline.quantity == quantity,
        f"this chart needs a baseline of a {quantity}, got one of a {baseline.quantity}; take the "
        "baseline of a chart of the same kind",
    )
    require(
        (baseline.sigma_z is not None) == laney,
        f"a Laney chart needs a baseline with sigma_z and any other one without, got "
        f"{baseline.sigma_z}; take the baseline of a chart of the same kind",
    )
