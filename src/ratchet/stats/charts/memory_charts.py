"""Control charts with a memory, which find small lasting changes: EWMA and CUSUM.

Their run lengths are in `ratchet.stats.charts.run_lengths`, limits for a wanted one in
`ratchet.stats.charts.chart_limits`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratchet.stats.arrays import BoolArray, FloatArray, IntArray
from ratchet.stats.charts.chart_checks import (
    Counts,
    Values,
    checked_rates,
    checked_values,
    require,
    require_cusum,
    require_head_start,
    require_positive,
    require_weight,
)
from ratchet.stats.charts.chart_results import (
    Baseline,
    ControlChart,
    CusumChart,
    Quantity,
    Spread,
    require_quantity,
    require_spread,
    shewhart_result,
)
from ratchet.stats.charts.run_lengths import bernoulli_design, poisson_design

# Mean range of two normal values in standard deviations, d2, as printed in tables of constants.
D2_PAIR = 1.128
# Keeps a sum that reaches the decision interval exactly from missing it by a rounding error.
ROUNDING = 1e-9


def ewma_chart(
    values: Values,
    weight: float = 0.2,
    limit: float = 3.0,
    center: float | None = None,
    sigma: float | None = None,
    time_varying: bool = False,
    *,
    baseline: Baseline | None = None,
) -> ControlChart:
    """Chart of an exponentially weighted moving average (EWMA).

    z_i = weight x_i + (1 - weight) z_{i-1}, z_0 = center; limits = center +- limit sigma
    sqrt(weight / (2 - weight)), or time-varying that times sqrt(1 - (1 - weight)^(2 i)), i = 1, ...

    Units: those of the values.
    Assumptions: independent values with one mean and standard deviation while in control; sigma is
    that of one value. Without center, sigma and baseline they are estimated as in `xmr_chart`.
    Error rate: `ewma_average_run_length` for known parameters: 560 points between false alarms at
    weight 0.2 and limit 3. A short baseline raises it: see `ewma_limit`.
    When not to use: to find one bad point; where values follow each other.

    Args:
        values: Points in time order, shape (n,).
        weight: Weight of the newest point, in [0.001, 1]; small ones find small changes.
        limit: Half-width of the limits in standard deviations of z.
        center: In-control mean; given together with `sigma`.
        sigma: In-control standard deviation of one value.
        time_varying: Whether limits are narrower at first, as the variance of z is.
        baseline: Center and sigma from before; excludes the two.

    Returns:
        The chart of z; arrays of shape (n,).

    Raises:
        InsufficientDataError: There are no points, or fewer than two to estimate from.
        InvalidInputError: A parameter is out of range, or they exclude each other.

    Example:
        >>> chart = ewma_chart([0.1, -0.2, 1.5, 1.8, 1.6, 2.0], center=0.0, sigma=1.0)
        >>> chart.values.round(2).tolist(), chart.signals.tolist()
        ([0.02, -0.02, 0.28, 0.58, 0.79, 1.03], [5])

    References:
        Roberts, S. W. (1959). Control chart tests based on geometric moving averages.
        Technometrics 1, 239-250. Montgomery (2009), section 9.2.
    """
    require_weight(weight)
    points = checked_values("values", values, fewest=1)
    baseline = _given(points, center, sigma, baseline)
    smooth, level = np.empty(points.size), baseline.center
    for i, point in enumerate(points):
        smooth[i] = level = weight * point + (1.0 - weight) * level
    variance = np.full(points.size, weight / (2.0 - weight))
    if time_varying:
        variance = variance * (1.0 - (1.0 - weight) ** (2.0 * np.arange(1, points.size + 1)))
    deviation = (baseline.sigma or 0.0) * np.sqrt(variance)
    return shewhart_result(smooth, deviation, baseline, limit=limit, smoothed=True)


def cusum_chart(
    values: Values,
    reference: float = 0.5,
    decision_interval: float = 5.0,
    center: float | None = None,
    sigma: float | None = None,
    head_start: float = 0.0,
    *,
    baseline: Baseline | None = None,
) -> CusumChart:
    """Two-sided tabular CUSUM of standardised values.

    With y_i = (x_i - center) / sigma: upper_i = max(0, upper_{i-1} + y_i - reference), lower_i =
    max(0, lower_{i-1} - y_i - reference), both from head_start; alarm at decision_interval.

    Units: reference, decision interval, head start and sums in standard deviations of one value.
    Assumptions: as `ewma_chart`.
    Error rate: `cusum_average_run_length` for known parameters: 465 points between false alarms at
    0.5 and 5. A short baseline raises it: see `cusum_decision_interval`.
    When not to use: to find one bad point; where values follow each other.

    Args:
        values: Points in time order, shape (n,).
        reference: Half the shift to be found.
        decision_interval: Alarm where a sum reaches it.
        center: In-control mean; given together with `sigma`.
        sigma: In-control standard deviation of one value.
        head_start: Where both sums start; half the interval finds a change at the start sooner.
        baseline: Center and sigma from before; excludes the two.

    Returns:
        The sums; arrays of shape (n,).

    Raises:
        InsufficientDataError: There are no points, or fewer than two to estimate from.
        InvalidInputError: A parameter is out of range, or they exclude each other.

    Example:
        >>> chart = cusum_chart([0.0, 0.0, 2.0, 2.0, 2.0, 2.0], center=0.0, sigma=1.0)
        >>> chart.upper.tolist(), chart.signals.tolist(), chart.change_point
        ([0.0, 0.0, 1.5, 3.0, 4.5, 6.0], [5], 2)

    References:
        Page, E. S. (1954). Continuous inspection schemes. Biometrika 41, 100-115.
        Montgomery (2009), section 9.1.
    """
    require_cusum(reference, decision_interval, head_start, two_sided=True)
    points = checked_values("values", values, fewest=1)
    baseline = _given(points, center, sigma, baseline)
    scores = (points - baseline.center) / (baseline.sigma or 1.0)
    references = np.full(points.size, reference, dtype=np.float64)
    upper = _sums(scores - references, head_start)
    lower = _sums(-scores - references, head_start)
    return _cusum_result(scores, upper, lower, decision_interval, references)


def bernoulli_cusum(
    outcomes: Sequence[bool] | Sequence[int] | BoolArray | IntArray,
    rate: float | Baseline,
    shifted_rate: float,
    decision_interval: float,
    head_start: float = 0.0,
) -> CusumChart:
    """CUSUM of single trials, for a rate that is watched trial by trial.

    S_i = max(0, S_{i-1} + x_i - reference), alarm at S_i >= decision_interval, x_i being 1 for an
    event; for a shifted rate below the rate S_i = max(0, S_{i-1} + reference - x_i). The reference
    is that of the log-likelihood ratio, log((1 - p0) / (1 - p1)) / log(p1 (1 - p0) /
    (p0 (1 - p1))), rounded to the simplest fraction within 2 % of the gap between the rates, which
    keeps the sum on a lattice and its run length exact.

    Units: rates in [0, 1], sums in events.
    Assumptions: independent trials with one common rate while in control, which is known.
    Error rate: `bernoulli_cusum_average_run_length`; the interval for a wanted one is
    `bernoulli_cusum_decision_interval`, also for a rate estimated from a short baseline.
    When not to use: where trials come in groups of one user and are not independent.

    Args:
        outcomes: Trials in time order, 0 or 1, shape (n,).
        rate: In-control rate, or the baseline of a share that it is the center of.
        shifted_rate: Rate that is to be found; above or below the in-control one.
        decision_interval: Alarm where the sum reaches it, in events.
        head_start: Where the sum starts; taken down to the lattice.

    Returns:
        The sum, as `upper` for a higher rate and `lower` for a lower one; arrays of shape (n,).

    Raises:
        InsufficientDataError: There are no trials.
        InvalidInputError: An outcome is neither 0 nor 1, or a parameter is out of range.

    Example:
        >>> chart = bernoulli_cusum([0, 0, 1, 1, 0, 1, 1, 1], 0.1, 0.3, 3.0)
        >>> chart.signals.tolist(), chart.change_point
        ([6, 7], 2)

    References:
        Reynolds, M. R., Stoumbos, Z. G. (1999). A CUSUM chart for monitoring a proportion when
        inspecting continuously. Journal of Quality Technology 31, 87-108.
    """
    design = bernoulli_design(_rate(rate, "share"), shifted_rate)
    trials = checked_values("outcomes", np.asarray(outcomes, dtype=np.float64), fewest=1)
    wrong = (trials != 0.0) & (trials != 1.0)
    require(
        not wrong.any(),
        f"each outcome must be 0 or 1, got {trials[int(np.argmax(wrong))]:g} at point "
        f"{int(np.argmax(wrong))}; pass one trial a point, or counts to poisson_cusum",
    )
    references = np.full(trials.size, float(design.reference))
    start = design.on_lattice(head_start)
    return _one_sided(trials, references, design.rising, decision_interval, head_start, start)


def poisson_cusum(
    counts: Counts,
    exposures: Values,
    rate: float | Baseline,
    shifted_rate: float,
    decision_interval: float,
    head_start: float = 0.0,
) -> CusumChart:
    """CUSUM of counts of events, for exposures that may differ.

    S_i = max(0, S_{i-1} + count_i - reference_i), alarm at S_i >= decision_interval; turned for a
    shifted rate below the rate, as in `bernoulli_cusum`. With m0 and m1 the expected counts of the
    point at both rates, reference_i = (m1 - m0) / log(m1 / m0), rounded as there.

    Units: counts and exposures in, sums in events; rates in events per unit of exposure.
    Assumptions: independent Poisson counts with one common rate while in control, which is known.
    Error rate: `poisson_cusum_average_run_length` for equal exposures, with the expected counts of
    a point as its rates; near it where exposures vary a little.
    When not to use: for counts that vary more than Poisson ones do.

    Args:
        counts: Events of each point in time order, shape (n,).
        exposures: Exposure of each point, above 0, shape (n,).
        rate: In-control rate, or the baseline of a rate that it is the center of.
        shifted_rate: Rate that is to be found; above or below the in-control one.
        decision_interval: Alarm where the sum reaches it, in events.
        head_start: Where the sum starts.

    Returns:
        The sum, as `upper` for a higher rate and `lower` for a lower one; arrays of shape (n,).

    Raises:
        InsufficientDataError: There are no points.
        InvalidInputError: Shapes differ or a number is out of range.

    Example:
        >>> chart = poisson_cusum([4, 3, 5, 9, 8, 9], [1.0] * 6, 4.0, 7.0, 10.0)
        >>> chart.signals.tolist(), chart.change_point
        ([5], 3)

    References:
        Lucas, J. M. (1985). Counted data CUSUM's. Technometrics 27, 129-144.
    """
    known = _rate(rate, "rate")
    poisson_design(known, shifted_rate)
    events, exposed = checked_rates(counts, exposures, fewest=1)
    distinct, which = np.unique(exposed, return_inverse=True)
    designs = [poisson_design(known * size, shifted_rate * size) for size in distinct]
    references = np.array([float(design.reference) for design in designs])[which]
    start = designs[0].on_lattice(head_start) if len(designs) == 1 else head_start
    rising = shifted_rate > known
    return _one_sided(events, references, rising, decision_interval, head_start, start)


def value_baseline(values: Values, spread: Spread = "range") -> Baseline:
    """Estimate the baseline of values: their mean, and sigma.

    sigma = mean |x_i - x_{i-1}| / 1.128 for "range", the sample standard deviation for "deviation".

    Units: those of the values.
    Assumptions: independent values with one mean and standard deviation.
    Error rate: no test. For normal values sigma from moving ranges is as precise as the sample
    standard deviation of 0.6 times as many; the corrections of `ratchet.stats.charts.chart_limits`
    are for the latter, so for moving ranges pass them that share of the points. When not to use:
    "deviation" where the mean may drift or jump, which inflates it; clean the points first.

    Raises:
        InsufficientDataError: There are fewer than two values.
        InvalidInputError: They never vary or are not finite.

    Example:
        >>> value_baseline([1.0, 2.0, 3.0], "deviation").sigma
        1.0

    References:
        Cryer, J. D., Ryan, T. P. (1990). The estimation of sigma for an X chart: MR/d2 or S/c4?
        Journal of Quality Technology 22, 187-192.
    """
    require_spread(spread)
    points = checked_values("values", values, fewest=2)
    ranges = float(np.abs(np.diff(points)).mean() / D2_PAIR)
    sigma = ranges if spread == "range" else float(points.std(ddof=1))
    return Baseline("value", float(points.mean()), points.size, sigma=sigma)


def _given(
    points: FloatArray, center: float | None, sigma: float | None, baseline: Baseline | None
) -> Baseline:
    require(
        (center is None) == (sigma is None) and (baseline is None or center is None),
        f"pass center and sigma together, or a baseline, or none of them, got center {center}, "
        f"sigma {sigma} and baseline {baseline}; a Baseline holds both",
    )
    if baseline is None and center is not None:
        baseline = Baseline("value", center, points.size, sigma=sigma)
    baseline = baseline or value_baseline(points)
    require_quantity(baseline, "value")
    return baseline


def _rate(rate: float | Baseline, quantity: Quantity) -> float:
    if not isinstance(rate, Baseline):
        return rate
    require_quantity(rate, quantity)
    return rate.center


def _sums(steps: FloatArray, start: float) -> FloatArray:
    sums, level = np.empty(steps.size), start
    for i, step in enumerate(steps):
        sums[i] = level = max(0.0, level + step)
        # on the lattice of a count chart zero is exact, in doubles nearly so
        if level < ROUNDING:
            sums[i] = level = 0.0
    return sums


def _one_sided(
    values: FloatArray,
    references: FloatArray,
    rising: bool,
    decision_interval: float,
    head_start: float,
    start: float,
) -> CusumChart:
    require_positive("decision_interval", decision_interval)
    require_head_start(head_start, decision_interval)
    sums = _sums((values - references) if rising else (references - values), start)
    upper, lower = (sums, None) if rising else (None, sums)
    return _cusum_result(values, upper, lower, decision_interval, references)


def _cusum_result(
    values: FloatArray,
    upper: FloatArray | None,
    lower: FloatArray | None,
    decision_interval: float,
    references: FloatArray,
) -> CusumChart:
    sums = [side for side in (upper, lower) if side is not None]
    alarms = [side >= decision_interval - ROUNDING for side in sums]
    signals = np.flatnonzero(np.any(alarms, axis=0)).astype(np.int64)
    change_point = None
    if signals.size:
        first = int(signals[0])
        alarming = next(s for s, alarm in zip(sums, alarms, strict=True) if alarm[first])
        zeros = np.flatnonzero(alarming[:first] == 0.0)
        change_point = int(zeros[-1]) + 1 if zeros.size else 0
    return CusumChart(values, upper, lower, decision_interval, references, signals, change_point)
