"""Limits of control charts for a wanted run length, and false alarms within a horizon.

A baseline estimated from finitely many points makes a chart alarm more often than its limits say,
and differently for every baseline. Its expected run length is dominated by the few baselines with
far too wide limits (it is infinite for short ones), so the correction works on the probability of a
false alarm within a horizon, averaged over the estimate's sampling distribution: the limit is
chosen such that this probability is 1 - (1 - 1/ARL)^horizon. For a budget of alpha false alarms in
a horizon, ask for ARL = 1 / (1 - (1 - alpha)^(1/horizon)). The rate then holds on average over
baselines, not for each one. A baseline of values is taken to hold the sample standard deviation
(`value_baseline(values, "deviation")`); moving ranges are less precise.

Conventions are those of `ratchet.stats.charts.run_lengths`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.charts.chart_chains import CusumChain, EwmaChain
from ratchet.stats.charts.chart_checks import (
    require,
    require_cusum,
    require_head_start,
    require_positive,
    require_rate,
    require_weight,
    require_whole,
)
from ratchet.stats.charts.run_lengths import (
    bernoulli_cusum_average_run_length,
    bernoulli_design,
    cusum_average_run_length,
    ewma_average_run_length,
    shewhart_average_run_length,
)

LARGEST_RUN_LENGTH = 1e9
# Below, the quadrature over so skewed a sampling distribution is off by more than it claims.
FEWEST_POINTS = 10
QUADRATURE = 13


# False alarms within a horizon ------------------------------------------------------------------


def shewhart_false_alarm_probability(
    limit: float, horizon: int, baseline_points: int | None = None
) -> float:
    """Probability that a Shewhart chart in control alarms within `horizon` points.

    1 - E[(1 - p)^horizon] over the sampling distribution of the baseline's mean and sample
    standard deviation, p being the conditional chance of a point outside the limits.

    Units: `limit` in estimated standard deviations, points; a probability out.
    Assumptions: independent normal points, in the baseline too; None is a known baseline.
    Error rate: quadrature error below 2e-4.
    When not to use: for a standard deviation from moving ranges, which is less efficient.

    Example:
        >>> known = shewhart_false_alarm_probability(3.0, 50)
        >>> round(known, 3), round(shewhart_false_alarm_probability(3.0, 50, 30), 3)
        (0.126, 0.225)

    References:
        Quesenberry, C. P. (1993). The effect of sample size on estimated limits for X-bar and X
        control charts. Journal of Quality Technology 25, 237-247.
    """
    require_positive("limit", limit)
    require_whole("horizon", horizon)
    shift, scale, chance = _normal_baselines(baseline_points)
    inside = special.ndtr((limit - shift) / scale) - special.ndtr((-limit - shift) / scale)
    return float(1.0 - chance @ inside**horizon)


def ewma_false_alarm_probability(
    weight: float,
    limit: float,
    horizon: int,
    baseline_points: int | None = None,
    time_varying: bool = False,
) -> float:
    """Probability that an EWMA chart in control alarms within `horizon` points.

    As `shewhart_false_alarm_probability`, with the conditional run-length distribution from the
    chart's integral equation.

    Example:
        >>> round(ewma_false_alarm_probability(0.2, 2.86, 50), 3)
        0.118
    """
    require_weight(weight)
    require_positive("limit", limit)
    require_whole("horizon", horizon)
    shift, scale, chance = _normal_baselines(baseline_points)
    # the chart is the same for a shift up and down
    chance, up = np.where(shift > 0.0, 2.0 * chance, chance), shift >= 0.0
    chain = EwmaChain(weight, limit, time_varying, shift[up], scale[up], settled=1e-4)
    return float(1.0 - chance[up] @ chain.survivals(horizon))


def cusum_false_alarm_probability(
    reference: float,
    decision_interval: float,
    horizon: int,
    baseline_points: int | None = None,
    two_sided: bool = True,
    head_start: float = 0.0,
) -> float:
    """Probability that a CUSUM in control alarms within `horizon` points.

    As `shewhart_false_alarm_probability`, with the conditional run-length distribution from the
    chart's integral equation. The two sides are taken as independent given the baseline, which
    changes the probability by less than 1 % of itself.

    Example:
        >>> round(cusum_false_alarm_probability(0.5, 5.0, 50), 3)
        0.091
    """
    require_cusum(reference, decision_interval, head_start, two_sided=two_sided)
    require_whole("horizon", horizon)
    shift, scale, chance = _normal_baselines(baseline_points)
    quiet = np.ones(chance.size)
    for side in (1.0, -1.0)[: 1 + two_sided]:
        chain = CusumChain(reference, decision_interval, head_start, side * shift, scale)
        quiet = quiet * chain.survivals(horizon)
    return float(1.0 - chance @ quiet)


def p_chart_false_alarm_probability(
    rate: float, size: int, limit: float, horizon: int, baseline_trials: int | None = None
) -> float:
    """Probability that a p chart in control alarms within `horizon` points of `size` trials.

    Binomial tails outside rate +- limit sqrt(rate (1 - rate) / size), averaged over what the true
    rate may be given that `baseline_trials` trials estimated it as `rate`: Jeffreys' beta
    distribution, the binomial counterpart of the sampling distribution.

    Units: rates in [0, 1], points; a probability out.
    Assumptions: independent trials with one common rate, in the baseline too.
    Error rate: exact for a known rate, else quadrature; for a given true rate the average over
    baselines agrees to about 1 / baseline events.
    When not to use: before the baseline holds some events.

    Example:
        >>> round(p_chart_false_alarm_probability(0.1, 200, 3.0, 100), 3)
        0.289
    """
    require_rate("rate", rate)
    require_positive("limit", limit)
    require_whole("size", size)
    require_whole("horizon", horizon)
    rates, chance = _binomial_baselines(rate, baseline_trials)
    return float(1.0 - chance @ (1.0 - _outside_p_chart(rate, size, limit, rates)) ** horizon)


def bernoulli_cusum_false_alarm_probability(
    rate: float,
    shifted_rate: float,
    decision_interval: float,
    horizon: int,
    baseline_trials: int | None = None,
    head_start: float = 0.0,
) -> float:
    """Probability that a Bernoulli CUSUM in control alarms within `horizon` trials.

    The chain of `bernoulli_cusum_average_run_length`, averaged over the true rate as
    `p_chart_false_alarm_probability` does, whose assumptions and error rate apply.

    Example:
        >>> round(bernoulli_cusum_false_alarm_probability(0.1, 0.2, 6.0, 500), 3)
        0.086
    """
    design = bernoulli_design(rate, shifted_rate)
    require_positive("decision_interval", decision_interval)
    require_head_start(head_start, decision_interval)
    require_whole("horizon", horizon)
    rates, chance = _binomial_baselines(rate, baseline_trials)
    quiet = [design.survival(decision_interval, true, head_start, horizon) for true in rates]
    return float(1.0 - chance @ np.array(quiet))


# Limits for a wanted run length -----------------------------------------------------------------


def shewhart_limit(
    average_run_length: float, *, baseline_points: int | None = None, horizon: int | None = None
) -> float:
    """Limit of a Shewhart chart for a wanted in-control average run length.

    Units: points in, standard deviations out.
    Assumptions: as `shewhart_average_run_length`.
    Error rate: with a known baseline the run length holds exactly. With `baseline_points` the
    limit is corrected as the head of this module says, over `horizon` further points.
    When not to use: a baseline of fewer than about 20 points needs limits so wide that little is
    found; collect more.

    Raises:
        InvalidInputError: A number is out of range, or a baseline comes without a horizon.
        InsufficientDataError: A baseline has fewer than 10 points.

    Example:
        >>> round(shewhart_limit(370.4), 3)
        3.0
        >>> round(shewhart_limit(370.4, baseline_points=30, horizon=50), 3)
        3.272
    """
    return _Wanted(average_run_length, baseline_points, horizon).limit(
        shewhart_average_run_length,
        lambda limit: shewhart_false_alarm_probability(limit, horizon or 0, baseline_points),
    )


def ewma_limit(
    weight: float,
    average_run_length: float,
    *,
    time_varying: bool = False,
    baseline_points: int | None = None,
    horizon: int | None = None,
) -> float:
    """Limit of an EWMA chart for a wanted in-control average run length, as `shewhart_limit`.

    Example:
        >>> round(ewma_limit(0.5, 500.0), 3)
        3.071
    """
    return _Wanted(average_run_length, baseline_points, horizon).limit(
        lambda limit: ewma_average_run_length(weight, limit, 0.0, time_varying),
        lambda limit: ewma_false_alarm_probability(
            weight, limit, horizon or 0, baseline_points, time_varying
        ),
    )


def cusum_decision_interval(
    reference: float,
    average_run_length: float,
    *,
    two_sided: bool = True,
    baseline_points: int | None = None,
    horizon: int | None = None,
) -> float:
    """Decision interval of a CUSUM for a wanted in-control run length, as `shewhart_limit`.

    Example:
        >>> round(cusum_decision_interval(0.5, 465.44), 2)
        5.0
    """
    return _Wanted(average_run_length, baseline_points, horizon).limit(
        lambda interval: cusum_average_run_length(reference, interval, 0.0, two_sided),
        lambda interval: cusum_false_alarm_probability(
            reference, interval, horizon or 0, baseline_points, two_sided
        ),
    )


def p_chart_limit(
    rate: float,
    size: int,
    average_run_length: float,
    *,
    baseline_trials: int | None = None,
    horizon: int | None = None,
) -> float:
    """Smallest limit of a p chart whose in-control run length is at least the wanted one.

    Counts are discrete, so that the run length is met from above; as `shewhart_limit` otherwise.

    Example:
        >>> round(p_chart_limit(0.1, 200, 370.4), 2)
        3.07
    """
    wanted = _Wanted(average_run_length, baseline_trials, horizon, fewest=1)
    require_rate("rate", rate)
    require_whole("size", size)
    known = np.array([rate])
    if baseline_trials is None:
        return _smallest(
            lambda limit: _outside_p_chart(rate, size, limit, known)[0] * average_run_length <= 1.0,
            0.01,
        )
    return _smallest(
        lambda limit: (
            p_chart_false_alarm_probability(rate, size, limit, horizon or 0, baseline_trials)
            <= wanted.false_alarm
        ),
        0.01,
    )


def bernoulli_cusum_decision_interval(
    rate: float,
    shifted_rate: float,
    average_run_length: float,
    *,
    baseline_trials: int | None = None,
    horizon: int | None = None,
) -> float:
    """Smallest decision interval of a Bernoulli CUSUM with the wanted in-control run length.

    Units: rates in [0, 1] and trials in, events out.
    Assumptions: as `bernoulli_cusum_average_run_length`.
    Error rate: the chart moves on a lattice, so that the run length is met from above; with
    `baseline_trials` corrected as `p_chart_limit`, over `horizon` further trials.
    When not to use: as `bernoulli_cusum_average_run_length`.

    Example:
        >>> interval = bernoulli_cusum_decision_interval(0.1, 0.2, 2000.0)
        >>> round(interval, 2), round(bernoulli_cusum_average_run_length(0.1, 0.2, interval))
        (4.94, 2022)
    """
    wanted = _Wanted(average_run_length, baseline_trials, horizon, fewest=1)
    design = bernoulli_design(rate, shifted_rate)
    if baseline_trials is None:
        return _smallest(
            lambda interval: (
                bernoulli_cusum_average_run_length(rate, shifted_rate, interval)
                >= average_run_length
            ),
            design.step,
        )
    return _smallest(
        lambda interval: (
            bernoulli_cusum_false_alarm_probability(
                rate, shifted_rate, interval, horizon or 0, baseline_trials
            )
            <= wanted.false_alarm
        ),
        design.step,
    )


# Parts ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A wanted run length, and the baseline and horizon that it is corrected for."""

    average_run_length: float
    baseline: int | None
    horizon: int | None
    fewest: int = FEWEST_POINTS

    def __post_init__(self) -> None:
        require(
            1.0 < self.average_run_length <= LARGEST_RUN_LENGTH,
            f"average_run_length must be in (1, {LARGEST_RUN_LENGTH:g}], got "
            f"{self.average_run_length}; 370 is usual",
        )
        require(
            (self.baseline is None) == (self.horizon is None),
            f"a baseline and a horizon come together, got baseline {self.baseline} and horizon "
            f"{self.horizon}; pass both, or neither for a known baseline",
        )
        if self.horizon is not None and self.baseline is not None:
            require_whole("horizon", self.horizon)
            _require_baseline(self.baseline, self.fewest)

    @property
    def false_alarm(self) -> float:
        """Probability of a false alarm within the horizon at the wanted run length."""
        return -math.expm1((self.horizon or 0) * math.log1p(-1.0 / self.average_run_length))

    def limit(
        self, run_length: Callable[[float], float], false_alarm: Callable[[float], float]
    ) -> float:
        known = _crossing(lambda x: math.log(run_length(x) / self.average_run_length), 1.0)
        if self.baseline is None:
            return known
        return _crossing(lambda x: math.log(self.false_alarm / max(false_alarm(x), 1e-15)), known)


def _crossing(rising: Callable[[float], float], start: float) -> float:
    """Where a rising function of a positive number is 0."""
    lower = upper = start
    while rising(upper) < 0.0:
        lower, upper = upper, upper * 1.1
    while rising(lower) > 0.0:
        lower, upper = lower / 1.1, lower
        require(
            lower > 1e-3,
            "average_run_length is out of reach of this chart, which runs longer with limits of "
            f"{lower:g}; ask for a longer one",
        )
    from scipy import optimize

    return float(optimize.brentq(rising, lower, upper, xtol=1e-6)) if lower < upper else start


def _smallest(acceptable: Callable[[float], bool], step: float) -> float:
    """Smallest multiple of `step` that is acceptable, as are all above it."""
    enough = 1
    while not acceptable(enough * step):
        enough *= 2
    short = enough // 2
    while enough - short > 1:
        middle = (enough + short) // 2
        short, enough = (short, middle) if acceptable(middle * step) else (middle, enough)
    return enough * step


def _outside_p_chart(rate: float, size: int, limit: float, rates: FloatArray) -> FloatArray:
    """Chance of a point outside the limits of `rate` at each of the true `rates`."""
    half = limit * math.sqrt(rate * (1.0 - rate) / size)
    shares = np.arange(size + 1) / size
    below, above = int((shares < rate - half).sum()), int((shares > rate + half).sum())
    chance = np.zeros(rates.shape)
    if below:
        chance += special.bdtr(below - 1, size, rates)
    if above:
        chance += special.bdtrc(size - above, size, rates)
    return chance


def _normal_baselines(points: int | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean and deviation of a point in estimated units, and the probability of each pair.

    Gauss-Hermite quadrature over the mean and over the normal score of the standard deviation.
    """
    if points is None:
        return np.zeros(1), np.ones(1), np.ones(1)
    _require_baseline(points, FEWEST_POINTS)
    scores, chances = _normal_scores()
    freedom = points - 1
    deviations = np.sqrt(2.0 * special.gammaincinv(freedom / 2.0, special.ndtr(scores)) / freedom)
    mean, deviation = (a.ravel() for a in np.meshgrid(scores / math.sqrt(points), deviations))
    return mean / deviation, 1.0 / deviation, np.outer(chances, chances).ravel()


def _binomial_baselines(rate: float, trials: int | None) -> tuple[FloatArray, FloatArray]:
    """Rates that an estimate may come from, and their probabilities, by the same quadrature."""
    if trials is None:
        return np.array([rate]), np.ones(1)
    _require_baseline(trials, 1)
    scores, chances = _normal_scores()
    events = rate * trials
    rates = special.betaincinv(events + 0.5, trials - events + 0.5, special.ndtr(scores))
    return rates, chances


def _normal_scores() -> tuple[FloatArray, FloatArray]:
    scores, weights = special.roots_hermitenorm(QUADRATURE)
    return scores, weights / weights.sum()


def _require_baseline(size: int, fewest: int) -> None:
    require_whole("the baseline", max(size, 1))
    if size < fewest:
        raise InsufficientDataError(
            f"a baseline must be of size {fewest} at least, got {size}; collect for longer"
        )
