"""Confidence sequences: intervals that hold at every look at once.

An interval for a fixed number of observations fails sooner or later when one looks after every
observation: a 95 % interval excludes the true rate at some of the first 1,000 looks in about half
of all runs. A confidence sequence contains the truth at all looks together with probability at
least its level, so one may look whenever one likes and stop for any reason. The price is width:
about 1.5 times that of the fixed interval at the look it is tuned for.

Each is the set of parameters that a test martingale (an e-process) has not yet rejected at
1 / (1 - level); see `ratchet.stats.experiments.boundaries`.

Conventions. A look is one point of a sequence; counts are cumulative, values come in time order.
Tuning constants must be fixed before the data are seen. Observations need not be independent, but
their mean given the past must stay the same: a rate that drifts, or many observations of one user
who differs from others, break that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import BoolArray, FloatArray
from ratchet.stats.checks import checked_level, require
from ratchet.stats.experiments.boundaries import normal_mixture_rho
from ratchet.stats.intervals import Interval

BISECTIONS = 45
GOLDEN_STEPS = 36
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
SMALLEST_RATE = 1e-300
GRID_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceSequence:
    """Intervals at successive looks that hold together.

    Attributes:
        lower: Lower end at each look.
        upper: Upper end at each look.
        level: Probability that all looks together contain the truth, at least.
    """

    lower: FloatArray
    upper: FloatArray
    level: float

    def __len__(self) -> int:
        return int(self.lower.size)

    @property
    def last(self) -> Interval:
        """The interval at the last look."""
        return Interval(float(self.lower[-1]), float(self.upper[-1]), self.level)

    def intersected(self) -> ConfidenceSequence:
        """Each look with everything that earlier looks had already excluded.

        As valid as the sequence itself and never wider. Only for a truth that does not move.

        Raises:
            InvalidInputError: Nothing is left: with probability above the level the truth moved.
        """
        lower = np.maximum.accumulate(self.lower)
        upper = np.minimum.accumulate(self.upper)
        if (lower > upper).any():
            look = int(np.argmax(lower > upper)) + 1
            raise InvalidInputError(
                f"all looks must agree on one value, got none left at look {look}; what is "
                "measured has changed, look for when with ratchet.stats.charts.e_detector"
            )
        return ConfidenceSequence(lower, upper, self.level)


def bernoulli_sequence(
    successes: ArrayLike, trials: ArrayLike, *, t_opt: float, level: float = 0.95
) -> ConfidenceSequence:
    """Confidence sequence of a rate.

    The rates p whose beta-binomial mixture has not reached 1 / (1 - level): the beta is centered
    on p, with the weight that makes the interval narrowest at `t_opt` trials. The mixture's
    logarithm is convex in p, so that these rates are an interval.

    Units: cumulative counts in, shares in [0, 1] out.
    Assumptions: the chance of success, given the past, is the same at every trial.
    Error rate: excludes the true rate at any look with probability at most 1 - level, exactly.
    When not to use: for one look at a fixed number of trials (`wilson` is narrower); for groups of
    trials that belong together (many interactions of one user).

    Args:
        successes: Successes so far at each look, shape (n,) or a number.
        trials: Trials so far at each look, shape (n,) or a number, at least 1.
        t_opt: Number of trials at which it is to be narrowest, above 0.
        level: Guaranteed coverage of all looks together, in (0, 1).

    Raises:
        InsufficientDataError: A look has no trials.
        InvalidInputError: Counts are not cumulative, or an argument is out of range.

    Example:
        >>> interval = bernoulli_sequence(700, 1000, t_opt=100).last
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.6516, 0.7459)

    References:
        Howard, Ramdas, McAuliffe, Sekhon (2021), as `ratchet.stats.experiments.boundaries`.
    """
    done, total = _cumulative(successes, trials)
    alpha = 1.0 - checked_level(level)
    weight = _beta_weight(t_opt, alpha)
    observed, threshold = done / total, -math.log(alpha)

    def excluded(rate: FloatArray) -> BoolArray:
        return _log_mixture(rate, done, total, weight) >= threshold

    lower, upper = _last_excluded(excluded, 0.0, 1.0, observed)
    return ConfidenceSequence(lower, upper, level)


def bernoulli_log_e(
    successes: ArrayLike, trials: ArrayLike, rate: float, *, t_opt: float, alpha: float = 0.05
) -> FloatArray:
    """Log e-value against one rate: the test that `bernoulli_sequence` inverts.

    log of the beta-binomial marginal likelihood over the likelihood at `rate`.

    Units: cumulative counts in, log e-values out; exp(-max over looks) is a p-value.
    Assumptions: as `bernoulli_sequence`.
    Error rate: reaches log(1 / a) at any look with probability at most a, for every a; `alpha` only
    tunes.
    When not to use: against "at most this rate", for which `ratchet.stats.charts.e_detector` has an
    e-process.

    Raises:
        InsufficientDataError: A look has no trials.
        InvalidInputError: Counts are not cumulative, or an argument is out of range.

    Example:
        >>> round(float(bernoulli_log_e(700, 1000, 0.6, t_opt=100)[0]), 2)
        19.15
    """
    done, total = _cumulative(successes, trials)
    require(
        0.0 < rate < 1.0,
        f"rate must be in (0, 1), got {rate}; one observation settles whether it is 0 or 1",
    )
    return _log_mixture(np.full(done.shape, rate), done, total, _beta_weight(t_opt, alpha))


def proportion_difference_sequence(
    successes_first: ArrayLike,
    trials_first: ArrayLike,
    successes_second: ArrayLike,
    trials_second: ArrayLike,
    *,
    t_opt: float,
    level: float = 0.95,
) -> ConfidenceSequence:
    """Confidence sequence of the difference of two rates, second minus first, of independent arms.

    The differences d for which some pair (p, p + d) is not yet rejected by the product of the two
    arms' beta-binomial mixtures. Its logarithm is convex, so that these differences are an
    interval. Away from 0 and 1 it is about a fifth narrower than the difference of two sequences
    at half the error each.

    Units: cumulative counts in, differences of shares in [-1, 1] out.
    Assumptions: two different sets of observations; in each arm the chance of success, given the
    past of both, is the same at every trial. The arms may grow at different paces, also by a rule
    that depends on the results so far, and an arm may stand still.
    Error rate: excludes the true difference at any look with probability at most 1 - level, for
    every pair of rates; in simulations far below it (0.01 and less at level 0.9), which is what
    guarding against every pair costs.
    When not to use: for both systems on the same examples (pairs), or one look (take
    `newcombe_independent`, which is narrower).

    Args:
        successes_first: Successes of the first arm so far at each look, shape (n,) or a number.
        trials_first: Trials of the first arm so far, at least 1.
        successes_second: Successes of the second arm so far.
        trials_second: Trials of the second arm so far, at least 1.
        t_opt: Trials of an arm at which it is to be narrowest, above 0.
        level: Guaranteed coverage of all looks together, in (0, 1).

    Raises:
        InsufficientDataError: An arm has no trials at a look.
        InvalidInputError: Counts are not cumulative, or an argument is out of range.

    Example:
        >>> interval = proportion_difference_sequence(480, 600, 510, 600, t_opt=500).last
        >>> round(interval.lower, 3), round(interval.upper, 3)
        (-0.026, 0.126)

    References:
        Howard, Ramdas, McAuliffe, Sekhon (2021); the product of independent e-processes is one
        (Ramdas, Gruenwald, Vovk, Shafer 2023, Game-theoretic statistics and safe anytime-valid
        inference, Statistical Science 38, 576-601).
    """
    first, second = _arms(successes_first, trials_first, successes_second, trials_second)
    alpha = 1.0 - checked_level(level)
    weight, threshold = _beta_weight(t_opt, alpha), -math.log(alpha)
    observed = second[0] / second[1] - first[0] / first[1]

    def excluded(difference: FloatArray) -> BoolArray:
        return _log_profile(difference, first, second, weight) >= threshold

    lower, upper = _last_excluded(excluded, -1.0, 1.0, observed)
    return ConfidenceSequence(lower, upper, level)


def proportion_difference_log_e(
    successes_first: ArrayLike,
    trials_first: ArrayLike,
    successes_second: ArrayLike,
    trials_second: ArrayLike,
    *,
    t_opt: float,
    difference: float = 0.0,
    alpha: float = 0.05,
) -> FloatArray:
    """Log e-value against one difference: the test that `proportion_difference_sequence` inverts.

    min over p of the two arms' log mixtures at p and p + difference.

    Units: cumulative counts in, log e-values out; exp(-max over looks) is a p-value.
    Assumptions: as `proportion_difference_sequence`.
    Error rate: reaches log(1 / a) at any look with probability at most a, for every a; `alpha` only
    tunes.
    When not to use: as `proportion_difference_sequence`.

    Raises:
        InsufficientDataError: An arm has no trials at a look.
        InvalidInputError: Counts are not cumulative, or an argument is out of range.

    Example:
        >>> round(float(proportion_difference_log_e(420, 600, 510, 600, t_opt=500)[0]), 2)
        15.43
    """
    first, second = _arms(successes_first, trials_first, successes_second, trials_second)
    require(
        -1.0 < difference < 1.0,
        f"difference must be in (-1, 1), got {difference}; pass a difference of shares",
    )
    differences = np.full(first[0].shape, difference)
    return _log_profile(differences, first, second, _beta_weight(t_opt, alpha))


def empirical_bernstein_sequence(
    values: ArrayLike,
    *,
    level: float = 0.95,
    support: tuple[float, float] = (0.0, 1.0),
    largest_bet: float = 0.5,
) -> ConfidenceSequence:
    """Confidence sequence of the mean of bounded values, in closed form.

    Predictable plug-in empirical Bernstein. For values in [0, 1], running mean m and variance s2
    (both with half an observation at 1/2 and a quarter added) and bets
    l_i = min(sqrt(2 log(2 / alpha) / (s2_{i-1} i log(1 + i))), largest_bet): the center is
    sum l_i x_i / sum l_i, the half width
    (log(2 / alpha) + sum (x_i - m_{i-1})^2 (-log(1 - l_i) - l_i)) / sum l_i.

    Units: those of the values.
    Assumptions: values in `support` whose mean given the past is the same for each.
    Error rate: excludes the mean at any look with probability at most 1 - level, for every
    distribution on the support.
    When not to use: with few values, where `hedged_sequence` is much narrower; for a support that
    is a guess, since one value beyond it voids the guarantee.

    Args:
        values: In time order, shape (n,).
        level: Guaranteed coverage of all looks together, in (0, 1).
        support: Smallest and largest possible value.
        largest_bet: Cap of the bets, in (0, 1).

    Returns:
        One interval after each value, cut to the support.

    Raises:
        InsufficientDataError: There are no values.
        InvalidInputError: A value is outside the support, or an argument is out of range.

    Example:
        >>> interval = empirical_bernstein_sequence([0.4, 0.6] * 200).last
        >>> round(interval.lower, 3), round(interval.upper, 3)
        (0.478, 0.522)

    References:
        Waudby-Smith, I., Ramdas, A. (2024). Estimating means of bounded random variables by
        betting. JRSS B 86, 1-27, theorem 2.
    """
    unit = _unit_values(values, support)
    alpha = 1.0 - checked_level(level)
    _checked_share("largest_bet", largest_bet)
    before, bets = _bets(unit, alpha)
    bets = np.minimum(bets, largest_bet)
    stake = np.cumsum(bets)
    center = np.cumsum(bets * unit) / stake
    spread = np.cumsum((unit - before) ** 2 * (-np.log1p(-bets) - bets))
    half = (math.log(2.0 / alpha) + spread) / stake
    return _on_support(
        np.clip(center - half, 0.0, 1.0), np.clip(center + half, 0.0, 1.0), support, level
    )


def hedged_sequence(
    values: ArrayLike,
    *,
    level: float = 0.95,
    support: tuple[float, float] = (0.0, 1.0),
    largest_bet: float = 0.5,
    resolution: int = 1000,
) -> ConfidenceSequence:
    """Confidence sequence of the mean of bounded values, by hedged betting.

    Two gamblers bet against each candidate mean m of values in [0, 1]: the capitals
    prod(1 + l_i (x_i - m)) and prod(1 - l_i (x_i - m)), with the bets of
    `empirical_bernstein_sequence` capped at largest_bet / m and largest_bet / (1 - m). A mean is
    excluded once half of either capital reaches 1 / (1 - level). The first capital falls in m and
    the second rises, so that what is left is an interval.

    Units: those of the values.
    Assumptions: values in `support` whose mean given the past is the same for each.
    Error rate: excludes the mean at any look with probability at most 1 - level, for every
    distribution on the support; rounding to the grid of candidates widens.
    When not to use: for long streams (cost is values times `resolution`); for a support that is a
    guess.

    Args:
        values: In time order, shape (n,).
        level: Guaranteed coverage of all looks together, in (0, 1).
        support: Smallest and largest possible value.
        largest_bet: Share of the capital that may be lost at once, in (0, 1).
        resolution: Candidate means per width of the support, at least 2.

    Returns:
        One interval after each value, cut to the support, its ends on the grid.

    Raises:
        InsufficientDataError: There are no values.
        InvalidInputError: A value is outside the support, or an argument is out of range.

    Example:
        >>> interval = hedged_sequence([0.4, 0.6] * 200).last
        >>> round(interval.lower, 3), round(interval.upper, 3)
        (0.484, 0.516)

    References:
        Waudby-Smith and Ramdas (2024), as `empirical_bernstein_sequence`, theorem 3.
    """
    unit = _unit_values(values, support)
    alpha = 1.0 - checked_level(level)
    _checked_share("largest_bet", largest_bet)
    if resolution < 2:
        raise InvalidInputError(f"resolution must be at least 2, got {resolution}; pass 1000")
    _, bets = _bets(unit, alpha)
    below = _means_excluded(unit, bets, alpha, largest_bet, resolution)
    above = _means_excluded(1.0 - unit, bets, alpha, largest_bet, resolution)
    return _on_support(below / resolution, 1.0 - above / resolution, support, level)


# Bernoulli ----------------------------------------------------------------------------------------


def _beta_weight(t_opt: float, alpha: float) -> float:
    """Trials that the beta distribution around a rate counts for."""
    # rho is in proportion to v_opt = p (1 - p) t_opt, so that p (1 - p) cancels
    return max(normal_mixture_rho(t_opt, alpha=alpha) - 1.0, 1e-3)


def _log_mixture(
    rate: FloatArray, successes: FloatArray, trials: FloatArray, weight: float
) -> FloatArray:
    """Beta-binomial marginal likelihood over the likelihood at `rate`, logarithm."""
    p = np.maximum(rate, SMALLEST_RATE)
    q = np.maximum(1.0 - rate, np.finfo(float).eps / 2.0)
    failures = trials - successes
    mixed = special.betaln(weight * p + successes, weight * q + failures)
    prior = special.betaln(weight * p, weight * q)
    likelihood = special.xlogy(successes, p) + special.xlogy(failures, q)
    return np.asarray(mixed - prior - likelihood)


Arm = tuple[FloatArray, FloatArray]


def _log_profile(difference: FloatArray, first: Arm, second: Arm, weight: float) -> FloatArray:
    """Smallest log mixture over all pairs of rates with this difference (golden section)."""

    def log_mixture(rate: FloatArray) -> FloatArray:
        return _log_mixture(rate, *first, weight) + _log_mixture(rate + difference, *second, weight)

    low, high = np.maximum(0.0, -difference), np.minimum(1.0, 1.0 - difference)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = log_mixture(left), log_mixture(right)
    for _ in range(GOLDEN_STEPS):
        keep_left = at_left < at_right
        low, high = np.where(keep_left, low, left), np.where(keep_left, right, high)
        inner = np.where(keep_left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        at_inner = log_mixture(inner)
        left, right = np.where(keep_left, inner, right), np.where(keep_left, left, inner)
        at_left, at_right = (
            np.where(keep_left, at_inner, at_right),
            np.where(keep_left, at_left, at_inner),
        )
    return np.minimum(at_left, at_right)


def _last_excluded(
    excluded: Callable[[FloatArray], BoolArray],
    lowest: float,
    highest: float,
    observed: FloatArray,
) -> FloatArray:
    """Both ends, shape (2, looks), by bisection from what is observed; rounded outward."""
    outside = np.stack((np.full_like(observed, lowest), np.full_like(observed, highest)))
    inside = np.stack((observed, observed))
    for _ in range(BISECTIONS):
        middle = (outside + inside) / 2.0
        out = excluded(middle)
        outside, inside = np.where(out, middle, outside), np.where(out, inside, middle)
    return outside


# Bounded values -----------------------------------------------------------------------------------


def _bets(unit: FloatArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Running mean before each value, and the bet on it; both know only earlier values."""
    number = np.arange(1, unit.size + 1)
    mean = (0.5 + np.cumsum(unit)) / (number + 1)
    variance = (0.25 + np.cumsum((unit - mean) ** 2)) / (number + 1)
    mean_before = np.concatenate(([0.5], mean[:-1]))
    variance_before = np.concatenate(([0.25], variance[:-1]))
    scale = variance_before * number * np.log1p(number)
    return mean_before, np.sqrt(2.0 * math.log(2.0 / alpha) / scale)


def _means_excluded(
    unit: FloatArray, bets: FloatArray, alpha: float, largest_bet: float, resolution: int
) -> FloatArray:
    """How many candidate means, from below, each look excludes."""
    threshold = math.log(2.0 / alpha)
    counts = np.zeros(unit.size)
    rows = max(1, GRID_CELLS_AT_ONCE // unit.size)
    for start in range(1, resolution, rows):
        means = (np.arange(start, min(start + rows, resolution)) / resolution)[:, np.newaxis]
        stakes = np.minimum(bets, largest_bet / means)
        capital = np.cumsum(np.log1p(stakes * (unit - means)), axis=1)
        counts += np.count_nonzero(capital >= threshold, axis=0)
    return counts


def _on_support(
    lower: FloatArray, upper: FloatArray, support: tuple[float, float], level: float
) -> ConfidenceSequence:
    smallest, largest = support
    width = largest - smallest
    return ConfidenceSequence(smallest + width * lower, smallest + width * upper, level)


# Checks -------------------------------------------------------------------------------------------


def _unit_values(values: ArrayLike, support: tuple[float, float]) -> FloatArray:
    smallest, largest = support
    require(
        math.isfinite(smallest) and math.isfinite(largest) and smallest < largest,
        f"support must be two finite ends in ascending order, got {support}; pass (0.0, 1.0)",
    )
    sample = np.asarray(values, dtype=np.float64).ravel()
    if sample.size == 0:
        raise InsufficientDataError(
            "a confidence sequence needs at least 1 value, got 0; collect observations first"
        )
    beyond = sample[~((sample >= smallest) & (sample <= largest))]
    if beyond.size:
        raise InvalidInputError(
            f"values must be in [{smallest:g}, {largest:g}], got {beyond[0]}; pass the ends of the "
            "possible values as support"
        )
    return (sample - smallest) / (largest - smallest)


def _arms(
    successes_first: ArrayLike,
    trials_first: ArrayLike,
    successes_second: ArrayLike,
    trials_second: ArrayLike,
) -> tuple[Arm, Arm]:
    first = _cumulative(successes_first, trials_first)
    second = _cumulative(successes_second, trials_second)
    if first[0].size != second[0].size:
        raise InvalidInputError(
            f"both arms must be seen at the same looks, got {first[0].size} and {second[0].size}; "
            "repeat the counts of an arm that stood still"
        )
    return first, second


def _cumulative(successes: ArrayLike, trials: ArrayLike) -> Arm:
    done, total = _whole("successes", successes), _whole("trials", trials)
    if done.size != total.size:
        raise InvalidInputError(
            f"successes and trials must have one count a look, got {done.size} and {total.size}; "
            "pass both at every look"
        )
    if (total == 0).any():
        raise InsufficientDataError(
            "a confidence sequence needs at least 1 trial a look, got 0; look after the first trial"
        )
    if (done > total).any():
        look = int(np.argmax(done > total))
        raise InvalidInputError(
            f"successes must not exceed trials, got {done[look]:.0f} of {total[look]:.0f}; check "
            "their order"
        )
    new, more = np.diff(done), np.diff(total)
    if ((new < 0) | (new > more)).any():
        look = int(np.argmax((new < 0) | (new > more)))
        raise InvalidInputError(
            "counts must be cumulative, got "
            f"{done[look]:.0f} of {total[look]:.0f} and then {done[look + 1]:.0f} of "
            f"{total[look + 1]:.0f}; pass np.cumsum of the counts of each batch"
        )
    return done, total


def _whole(name: str, counts: ArrayLike) -> FloatArray:
    given = np.atleast_1d(np.asarray(counts))
    if given.size == 0:
        raise InsufficientDataError(
            f"a confidence sequence needs at least 1 look, got no {name}; collect trials first"
        )
    if given.dtype.kind not in "iu" or given.ndim != 1 or (given < 0).any():
        raise InvalidInputError(
            f"{name} must be whole numbers of at least 0 in one dimension, got {counts!r}; pass "
            "counts, not shares"
        )
    return given.astype(np.float64)


def _checked_share(name: str, value: float) -> None:
    require(
        0.0 < value < 1.0,
        f"{name} must be in (0, 1), got {value}; the usual one is 0.5",
    )
