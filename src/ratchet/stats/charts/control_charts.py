"""Control charts: is a rate or a value stable over time, or did something change?

Two phases. Without a `baseline` a chart estimates its limits from the points it shows and tells
whether they agree with each other (phase I). With one its limits come from that baseline alone and
are never estimated again, also after an alarm, so that a lasting change keeps signalling (phase
II). `ratchet.stats.charts.chart_rules.clean_baseline` leads from the first to the second,
`ratchet.stats.charts.chart_limits` tells which limit a short baseline needs.

Charts with a memory are in `ratchet.stats.charts.memory_charts`, charts of groups of values in
`ratchet.stats.charts.subgroup_charts`; all of them can be imported from `ratchet.stats.charts`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.charts.chart_checks import (
    Counts,
    Values,
    checked_counts,
    checked_rates,
    checked_shares,
    checked_values,
    require_whole,
)
from ratchet.stats.charts.chart_results import (
    Baseline,
    ControlChart,
    require_quantity,
    shewhart_result,
)
from ratchet.stats.charts.memory_charts import (
    D2_PAIR,
    value_baseline,
)

WIDTH = 3.0
SHARES = (0.0, 1.0)
COUNTS = (0.0, np.inf)


def p_chart(
    counts: Counts, sizes: Counts, *, limit: float = WIDTH, baseline: Baseline | None = None
) -> ControlChart:
    """Shewhart chart of a share, with limits at three standard errors.

    center = sum(counts) / sum(sizes); limits = center +- 3 sqrt(center (1 - center) / size),
    cut to [0, 1].

    Units: counts in, shares in [0, 1] out.
    Assumptions: independent observations with one common rate while in control; points in time
    order; without a baseline the center is estimated from the same points, so that the chart tells
    whether they agree with each other.
    Error rate: about 0.27 % false alarms a point where size * center is above about 10; more and
    lopsided below that. A chart of 20 points has a false alarm in about 5 % of cases.
    When not to use: for very large sizes, where the rate varies from day to day by more than
    chance and nearly every point signals (take `laney_p_chart`); with sizes so small that the lower
    limit is 0 and no improvement can be seen; a slow drift is found late.

    Args:
        counts: Events of each point, shape (n,), 0 to its size.
        sizes: Observations of each point, shape (n,), at least 1.
        limit: Half-width of the limits in standard errors.
        baseline: Where the center comes from; None estimates it.

    Returns:
        The chart; arrays of shape (n,).

    Raises:
        InsufficientDataError: There are fewer than two points, or none with a baseline.
        InvalidInputError: Shapes differ, a size is below 1, a count is out of range, or the
            baseline is not one of a share.

    Example:
        >>> chart = p_chart([5, 6, 4, 20], [50, 50, 50, 50])
        >>> chart.center, chart.signals.tolist()
        (0.175, [3])

    References:
        Montgomery, D. C. (2009). Introduction to Statistical Quality Control, 6th ed.,
        section 7.2.
    """
    events, observed = checked_shares(counts, sizes, fewest=_fewest(baseline))
    return _chart_of_parts(events, observed, "share", limit, baseline)


def np_chart(
    counts: Counts, size: int, *, limit: float = WIDTH, baseline: Baseline | None = None
) -> ControlChart:
    """Shewhart chart of the number of events among equally many observations.

    The chart of `p_chart` times `size`; its baseline is that of a share.

    Units: counts in and out.
    Assumptions, error rate, when not to use: as `p_chart`; also not where sizes vary.

    Example:
        >>> chart = np_chart([5, 6, 4, 20], 50)
        >>> chart.center, chart.signals.tolist()
        (8.75, [3])

    References:
        Montgomery (2009), section 7.2.
    """
    require_whole("size", size)
    events = checked_counts(counts, fewest=_fewest(baseline))
    sizes = np.full(events.shape, float(size))
    events, observed = checked_shares(events, sizes, fewest=1)
    baseline = baseline or _baseline_of_parts(events, observed, "share")
    require_quantity(baseline, "share")
    sigma = np.sqrt(baseline.center * (1.0 - baseline.center) * observed)
    center, bounds = baseline.center * size, (0.0, float(size))
    return shewhart_result(events, sigma, baseline, limit=limit, center=center, bounds=bounds)


def c_chart(
    counts: Counts, *, limit: float = WIDTH, baseline: Baseline | None = None
) -> ControlChart:
    """Shewhart chart of counts from equal exposures.

    center = mean count; limits = center +- 3 sqrt(center), cut at 0.

    Units: counts in and out.
    Assumptions: independent Poisson counts with one common mean while in control.
    Error rate: about 0.27 % false alarms a point where the center is above about 10; more and
    lopsided below that.
    When not to use: for counts that vary more than Poisson ones do, or out of a number of trials.

    Example:
        >>> chart = c_chart([4, 5, 3, 20])
        >>> chart.center, chart.signals.tolist()
        (8.0, [3])

    References:
        Montgomery (2009), section 7.3.
    """
    events = checked_counts(counts, fewest=_fewest(baseline))
    baseline = baseline or Baseline("count", float(events.mean()), events.size)
    require_quantity(baseline, "count")
    sigma = np.full(events.shape, np.sqrt(baseline.center))
    return shewhart_result(events, sigma, baseline, limit=limit, bounds=COUNTS)


def u_chart(
    counts: Counts, exposures: Values, *, limit: float = WIDTH, baseline: Baseline | None = None
) -> ControlChart:
    """Shewhart chart of counts per unit of exposure.

    center = sum(counts) / sum(exposures); limits = center +- 3 sqrt(center / exposure), cut at 0.

    Units: counts and exposures in, counts per unit of exposure out.
    Assumptions, error rate, when not to use: as `c_chart`, for unequal exposures (messages, hours).

    Example:
        >>> chart = u_chart([8, 10, 6, 40], [2.0, 2.0, 2.0, 2.0])
        >>> chart.center, chart.signals.tolist()
        (8.0, [3])

    References:
        Montgomery (2009), section 7.3.
    """
    events, exposed = checked_rates(counts, exposures, fewest=_fewest(baseline))
    return _chart_of_parts(events, exposed, "rate", limit, baseline)


def laney_p_chart(
    counts: Counts, sizes: Counts, *, limit: float = WIDTH, baseline: Baseline | None = None
) -> ControlChart:
    """Laney's p' chart: a p chart whose limits allow for variation between points beyond chance.

    With the p chart's center and standard error s_i, z_i = (p_i - center) / s_i and
    sigma_z = mean |z_i - z_{i-1}| / 1.128; limits = center +- 3 s_i sigma_z, cut to [0, 1].

    Units: counts in, shares in [0, 1] out; sigma_z is 1 where the variation is binomial.
    Assumptions: independent points whose rates scatter around one mean from point to point.
    Error rate: about 0.27 % false alarms a point for normal variation and many points; sigma_z from
    20 points varies by about 20 % of itself. It may be below 1 and then narrows the limits.
    When not to use: for sizes so small that binomial variation is all there is; a slow drift looks
    like little variation from point to point, and is found sooner.

    Raises:
        InsufficientDataError: There are fewer than two points, or none with a baseline, or they do
            not vary, so that sigma_z is undefined.
        InvalidInputError: As `p_chart`.

    Example:
        >>> chart = laney_p_chart([500, 700, 450, 640], [5000, 5000, 5000, 5000])
        >>> round(chart.center, 4), round(chart.sigma_z, 2), chart.signals.size
        (0.1145, 8.4, 0)

    References:
        Laney, D. B. (2002). Improved control charts for attributes. Quality Engineering 14,
        531-537.
    """
    events, observed = checked_shares(counts, sizes, fewest=_fewest(baseline))
    return _chart_of_parts(events, observed, "share", limit, baseline, laney=True)


def laney_u_chart(
    counts: Counts, exposures: Values, *, limit: float = WIDTH, baseline: Baseline | None = None
) -> ControlChart:
    """Laney's u' chart: a u chart whose limits allow for variation between points beyond chance.

    As `laney_p_chart`, with the u chart's center and s_i = sqrt(center / exposure).

    Example:
        >>> chart = laney_u_chart([500, 700, 450, 640], [100.0, 100.0, 100.0, 100.0])
        >>> chart.center, round(chart.sigma_z, 2), chart.signals.size
        (5.725, 7.9, 0)

    References:
        Laney (2002), as `laney_p_chart`.
    """
    events, exposed = checked_rates(counts, exposures, fewest=_fewest(baseline))
    return _chart_of_parts(events, exposed, "rate", limit, baseline, laney=True)


def xmr_chart(
    values: Values, *, limit: float = WIDTH, baseline: Baseline | None = None
) -> ControlChart:
    """Chart of individual values, with limits from their moving ranges (the X of XmR).

    center = mean; sigma = mean |x_i - x_{i-1}| / 1.128; limits = center +- 3 sigma. The divisor is
    d2 of two values as tables and software print it; the exact one is 2 / sqrt(pi) = 1.128379,
    which makes sigma 0.03 % smaller.

    Units: those of the values.
    Assumptions: independent, roughly normal values with one mean and standard deviation.
    Error rate: 0.27 % false alarms a point for a known baseline; more with an estimated one: 20
    points raise a false alarm within the next 50 in more than twice as many cases.
    When not to use: for skewed values (chart their logarithms); for values that follow each other
    (moving ranges are too small); for daily means of very unequal numbers.

    Raises:
        InsufficientDataError: There are fewer than two values, or none with a baseline.
        InvalidInputError: Values are not finite or never vary, or the baseline is of counts.

    Example:
        >>> chart = xmr_chart([5.0, 6.0, 5.0, 6.0, 5.0, 12.0, 5.0, 6.0, 5.0])
        >>> chart.upper[0].round(2).item(), chart.signals.tolist()
        (12.76, [])

    References:
        Montgomery (2009), section 6.4.
    """
    points = checked_values("values", values, fewest=_fewest(baseline))
    baseline = baseline or value_baseline(points)
    require_quantity(baseline, "value")
    sigma = np.full(points.shape, baseline.sigma, dtype=np.float64)
    return shewhart_result(points, sigma, baseline, limit=limit)


def _fewest(baseline: Baseline | None) -> int:
    return 2 if baseline is None else 1


def _chart_of_parts(
    events: FloatArray,
    trials: FloatArray,
    quantity: Literal["share", "rate"],
    limit: float,
    baseline: Baseline | None,
    *,
    laney: bool = False,
) -> ControlChart:
    """Chart events by trial or exposure, with Laney's correction or without."""
    values = events / trials
    if baseline is None:
        baseline = _baseline_of_parts(events, trials, quantity)
        if laney:
            baseline = _with_sigma_z(baseline, values, _errors(baseline, trials))
    require_quantity(baseline, quantity, laney=laney)
    sigma = _errors(baseline, trials) * (baseline.sigma_z or 1.0)
    bounds = SHARES if quantity == "share" else COUNTS
    return shewhart_result(values, sigma, baseline, limit=limit, bounds=bounds)


def _baseline_of_parts(
    events: FloatArray, trials: FloatArray, quantity: Literal["share", "rate"]
) -> Baseline:
    return Baseline(quantity, float(events.sum() / trials.sum()), float(trials.sum()))


def _errors(baseline: Baseline, trials: FloatArray) -> FloatArray:
    """Binomial standard errors of shares, Poisson ones of rates."""
    chance = 1.0 - baseline.center if baseline.quantity == "share" else 1.0
    return np.asarray(np.sqrt(baseline.center * chance / trials))


def _with_sigma_z(plain: Baseline, values: FloatArray, error: FloatArray) -> Baseline:
    if not error.any() or np.ptp(values) == 0.0:
        raise InsufficientDataError(
            f"sigma_z needs points that vary, got {values.size} points that are all "
            f"{plain.center:g}; collect for longer or take a chart without Laney's correction"
        )
    scores = (values - plain.center) / error
    sigma_z = float(np.abs(np.diff(scores)).mean() / D2_PAIR)
    return Baseline(plain.quantity, plain.center, plain.size, sigma_z=sigma_z)
