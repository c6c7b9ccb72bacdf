"""Charts of groups of values: their means, ranges and standard deviations.

All three take their limits from one baseline of values, the mean and the standard deviation of one
value within groups, so that a chart of means and a chart of spread agree on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.charts.chart_checks import require
from ratchet.stats.charts.chart_results import (
    Baseline,
    ControlChart,
    Spread,
    require_quantity,
    require_spread,
    shewhart_result,
)

Groups = Sequence[Sequence[float]] | FloatArray
# Mean and standard deviation of the range of 2, 3, ... normal values. The mean is rounded as tables
# and software print it; both by numerical integration of the distribution of the range.
D2: tuple[float, ...] = (1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078)
D3: tuple[float, ...] = (0.8525025, 0.8883680, 0.8798082, 0.8640819, 0.8480397)
D3 += (0.8332053, 0.8198315, 0.8078343, 0.7970507)
LARGEST_FOR_RANGES = len(D2) + 1


def xbar_chart(
    groups: Groups,
    *,
    spread: Spread = "range",
    limit: float = 3.0,
    baseline: Baseline | None = None,
) -> ControlChart:
    """Shewhart chart of the means of equally large groups.

    center = mean of all; sigma = mean range / d2 or mean standard deviation / c4, within groups;
    limits = center +- 3 sigma / sqrt(group size).

    Units: those of the values.
    Assumptions: independent values with one mean and standard deviation while in control, within
    groups and between them; their means are roughly normal.
    Error rate: 0.27 % false alarms a point for a known baseline, somewhat more for an estimated
    one.
    When not to use: where groups differ by more than chance also in control: nearly every point
    signals; take `xmr_chart` of the means.

    Args:
        groups: Values, shape (groups, values each).
        spread: What sigma is estimated from; ranges for up to 10 values a group.
        limit: Half-width of the limits in standard deviations of a mean.
        baseline: Mean and standard deviation of one value; None estimates them.

    Raises:
        InsufficientDataError: There are fewer than two groups, or none with a baseline.
        InvalidInputError: Groups are of different or too small size, not finite or never vary.

    Example:
        >>> chart = xbar_chart([[1.0, 3.0], [2.0, 4.0], [2.0, 2.0], [8.0, 9.0]])
        >>> chart.upper[0].round(3).item(), chart.signals.tolist()
        (6.226, [3])

    References:
        Montgomery (2009), section 6.2.
    """
    values = _checked(groups, baseline)
    baseline = baseline or group_baseline(values, spread)
    require_quantity(baseline, "value")
    deviation = (baseline.sigma or 0.0) / math.sqrt(values.shape[1])
    return shewhart_result(
        values.mean(axis=1), np.full(len(values), deviation), baseline, limit=limit
    )


def r_chart(
    groups: Groups, *, limit: float = 3.0, baseline: Baseline | None = None
) -> ControlChart:
    """Shewhart chart of the ranges of groups of 2 to 10 values.

    center = d2 sigma (the mean range), limits = center +- 3 d3 sigma, cut at 0.

    Units: those of the values.
    Assumptions: independent normal values; the range is sensitive to other shapes.
    Error rate: ranges are skewed, so that 0.4 to 0.9 % of points in control are above the limit.
    When not to use: above 10 values a group; take `s_chart`.

    Example:
        >>> chart = r_chart([[1.0, 3.0], [2.0, 4.0], [2.0, 3.0], [3.0, 15.0]])
        >>> chart.center, chart.upper[0].round(2).item(), chart.signals.tolist()
        (4.25, 13.89, [])

    References:
        Montgomery (2009), section 6.2.
    """
    values = _checked(groups, baseline)
    _require_size_for_ranges(values)
    baseline = baseline or group_baseline(values, "range")
    require_quantity(baseline, "value")
    sigma, place = baseline.sigma or 0.0, values.shape[1] - 2
    return _spread_result(
        np.ptp(values, axis=1), D2[place] * sigma, D3[place] * sigma, baseline, limit
    )


def s_chart(
    groups: Groups, *, limit: float = 3.0, baseline: Baseline | None = None
) -> ControlChart:
    """Shewhart chart of the sample standard deviations of groups.

    center = c4 sigma (the mean standard deviation), limits = center +- 3 sigma sqrt(1 - c4^2), cut
    at 0.

    Units: those of the values.
    Assumptions: as `r_chart`, for groups of any size.
    Error rate: 0.3 to 0.9 % of points in control are above the limit for up to 10 values a group.
    When not to use: for values far from normal, whose standard deviations vary more.

    Example:
        >>> chart = s_chart([[1.0, 3.0], [2.0, 4.0], [2.0, 3.0], [3.0, 15.0]])
        >>> round(chart.center, 3), chart.upper[0].round(2).item(), chart.signals.tolist()
        (3.005, 9.82, [])

    References:
        Montgomery (2009), section 6.3.
    """
    values = _checked(groups, baseline)
    baseline = baseline or group_baseline(values, "deviation")
    require_quantity(baseline, "value")
    sigma, c4 = baseline.sigma or 0.0, _c4(values.shape[1])
    error = math.sqrt(1.0 - c4 * c4) * sigma
    return _spread_result(values.std(axis=1, ddof=1), c4 * sigma, error, baseline, limit)


def group_baseline(groups: Groups, spread: Spread) -> Baseline:
    """Estimate mean and standard deviation of one value from the variation within groups.

    Raises:
        InsufficientDataError: There are fewer than two groups.
        InvalidInputError: As `xbar_chart`.
    """
    require_spread(spread)
    values = _checked(groups, None)
    if spread == "range":
        _require_size_for_ranges(values)
        sigma = float(np.ptp(values, axis=1).mean()) / D2[values.shape[1] - 2]
    else:
        sigma = float(values.std(axis=1, ddof=1).mean()) / _c4(values.shape[1])
    return Baseline("value", float(values.mean()), values.size, sigma=sigma)


def _spread_result(
    spreads: FloatArray, center: float, error: float, baseline: Baseline, limit: float
) -> ControlChart:
    errors = np.full(spreads.shape, error)
    return shewhart_result(
        spreads, errors, baseline, limit=limit, center=center, bounds=(0.0, np.inf)
    )


def _c4(size: int) -> float:
    """Mean standard deviation of `size` normal values, in standard deviations."""
    logs = special.gammaln(size / 2.0) - special.gammaln((size - 1) / 2.0)
    return float(math.sqrt(2.0 / (size - 1)) * math.exp(logs))


def _require_size_for_ranges(values: FloatArray) -> None:
    require(
        values.shape[1] <= LARGEST_FOR_RANGES,
        f"ranges are for groups of 2 to {LARGEST_FOR_RANGES} values, got {values.shape[1]}; use "
        "the standard deviation (s_chart, spread='deviation')",
    )


def _checked(groups: Groups, baseline: Baseline | None) -> FloatArray:
    require(
        len({np.size(group) for group in groups}) <= 1,
        "groups must be equally large, got several sizes; chart their means with xmr_chart",
    )
    values = np.asarray(groups, dtype=np.float64)
    fewest = 2 if baseline is None else 1
    if values.shape[0] < fewest:
        raise InsufficientDataError(
            f"a control chart needs at least {fewest} group{'s' if fewest > 1 else ''}, got "
            f"{values.shape[0]}; collect for longer"
        )
    require(
        values.ndim == 2 and values.shape[1] >= 2,
        f"groups must have shape (groups, values each) with 2 values or more each, got "
        f"{values.shape}; chart single values with xmr_chart",
    )
    require(
        bool(np.isfinite(values).all()),
        "values must be finite, got one that is not; leave out groups with missing values",
    )
    return values
