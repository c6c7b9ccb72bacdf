"""Confidence intervals for proportions, paired proportions, means and quantiles.

Undefined is never a number: without data each function raises `InsufficientDataError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import (
    bound_quantile,
    checked_count,
    checked_level,
    finite_values,
    normal_quantile,
    require,
)

Values = Sequence[float] | FloatArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        lower: Lower end.
        upper: Upper end.
        level: Nominal coverage, e.g. 0.95.
    """

    lower: float
    upper: float
    level: float

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper


def wilson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Score interval of a proportion.

    The rates p that the score test does not reject: |k/n - p| <= z sqrt(p (1 - p) / n).

    Units: counts in, shares in [0, 1] out.
    Assumptions: independent trials with one common rate, their number fixed in advance.
    Error rate: coverage is near the level on average over p and dips below it near 0 and 1 (for
    n = 10 and level 0.95 to 0.84 at the worst p); it is not a guaranteed minimum.
    When not to use: where the level must be guaranteed, take `clopper_pearson`; where trials come
    in groups (many interactions of one user) it is too narrow; where one looks again and again
    until it excludes something, its error rate does not hold.

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of trials, at least 1.
        level: Nominal coverage in (0, 1).

    Returns:
        The interval, within [0, 1]; it always contains successes / trials.

    Raises:
        InsufficientDataError: There are no trials.
        InvalidInputError: A count or the level is out of range.

    Example:
        >>> interval = wilson(8, 10)
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.4902, 0.9433)

    References:
        Wilson, E. B. (1927). Probable inference, the law of succession, and statistical
        inference. JASA 22, 209-212.
    """
    successes, trials = _checked_counts(successes, trials)
    lower, upper = _score_limits(successes, trials, normal_quantile(level))
    return Interval(lower, upper, level)


def wilson_lower(successes: int, trials: int, *, alpha: float = 0.05) -> float:
    """One-sided lower score bound of a proportion.

    The smallest rate p that the one-sided score test at `alpha` does not reject.

    Units: counts in, a share in [0, 1] out.
    Assumptions: as `wilson`.
    Error rate: the bound exceeds the true rate in about `alpha` of samples, more where successes
    are few: for alpha = 0.05 in at most 8.3 % at a rate of 0.15 from 30 trials on, and in up to
    11 % at a rate of 0.001 from 1,000 trials on (exact enumeration).
    When not to use: where the error rate must be guaranteed, take the lower end of
    `clopper_pearson` at level 1 - 2 alpha.

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of trials, at least 1.
        alpha: One-sided error rate in (0, 1).

    Raises:
        InsufficientDataError: There are no trials.
        InvalidInputError: A count or `alpha` is out of range.

    Example:
        >>> round(wilson_lower(40, 100), 4)
        0.3231

    References:
        Wilson (1927), as `wilson`.
    """
    successes, trials = _checked_counts(successes, trials)
    return _score_limits(successes, trials, bound_quantile(alpha))[0]


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Exact interval of a proportion.

    The rates p that neither one-sided exact binomial test rejects at (1 - level) / 2:
    beta quantiles B(alpha/2; k, n - k + 1) and B(1 - alpha/2; k + 1, n - k).

    Units: counts in, shares in [0, 1] out.
    Assumptions: as `wilson`.
    Error rate: coverage is at least the level for every rate and every number of trials.
    When not to use: where the level on average is what matters; it is wider than `wilson`.

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of trials, at least 1.
        level: Guaranteed coverage in (0, 1).

    Returns:
        The interval, within [0, 1].

    Raises:
        InsufficientDataError: There are no trials.
        InvalidInputError: A count or the level is out of range.

    Example:
        >>> interval = clopper_pearson(0, 10)
        >>> interval.lower, round(interval.upper, 4)
        (0.0, 0.3085)

    References:
        Clopper, C. J., Pearson, E. S. (1934). The use of confidence or fiducial limits
        illustrated in the case of the binomial. Biometrika 26, 404-413.
    """
    successes, trials = _checked_counts(successes, trials)
    tail = (1.0 - checked_level(level)) / 2.0
    failures = trials - successes
    lower = 0.0 if successes == 0 else special.betaincinv(successes, failures + 1, tail)
    upper = 1.0 if failures == 0 else special.betaincinv(successes + 1, failures, 1.0 - tail)
    return Interval(float(lower), float(upper), level)


def newcombe_paired(
    both: int, only_first: int, only_second: int, neither: int, *, level: float = 0.95
) -> Interval:
    """Score interval of the difference of two paired proportions, second minus first.

    Newcombe's method 10: the Wilson limits of the two margins, squared and added with the
    correlation phi of the pairs. With d = p2 - p1 and limits (l1, u1), (l2, u2):
    lower = d - sqrt((p2 - l2)^2 - 2 phi (p2 - l2)(u1 - p1) + (u1 - p1)^2), and alike above;
    a positive numerator of phi is reduced by n/2 (continuity), not below 0.

    Units: counts of pairs in, a difference of shares in [-1, 1] out.
    Assumptions: independent pairs (both systems answered the same example), their number fixed.
    Error rate: coverage is near the level, for few pairs above it: 0.93 to 0.997 by exact
    enumeration of three cases of 20 pairs at level 0.95.
    When not to use: for two different sets of examples (unpaired); for a decision after repeated
    looks. It is not the inverse of `mcnemar_exact`: near the boundary one may exclude "no
    difference" where the other does not.

    Args:
        both: Pairs where both succeed.
        only_first: Pairs where only the first succeeds.
        only_second: Pairs where only the second succeeds.
        neither: Pairs where none succeeds.
        level: Nominal coverage in (0, 1).

    Returns:
        The interval of the difference; it always contains (only_second - only_first) / pairs.

    Raises:
        InsufficientDataError: There are no pairs.
        InvalidInputError: A count is negative or the level is out of range.

    Example:
        >>> interval = newcombe_paired(59, 6, 16, 80)
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.0046, 0.1186)

    References:
        Newcombe, R. G. (1998). Improved confidence intervals for the difference between binomial
        proportions based on paired data. Statistics in Medicine 17, 2635-2650, method 10.
    """
    cells = (both, only_first, only_second, neither)
    both, only_first, only_second, neither = (checked_count("a cell", cell) for cell in cells)
    pairs = both + only_first + only_second + neither
    first = wilson(both + only_first, pairs, level=level)
    second = wilson(both + only_second, pairs, level=level)
    phi = _continuity_corrected_phi(both, only_first, only_second, neither)
    p_first, p_second = (both + only_first) / pairs, (both + only_second) / pairs
    difference = (only_second - only_first) / pairs
    below = _square_and_add(p_second - second.lower, first.upper - p_first, phi)
    above = _square_and_add(second.upper - p_second, p_first - first.lower, phi)
    return Interval(max(-1.0, difference - below), min(1.0, difference + above), level)


def newcombe_independent(
    successes_first: int,
    trials_first: int,
    successes_second: int,
    trials_second: int,
    *,
    level: float = 0.95,
) -> Interval:
    """Score interval of the difference of two independent proportions, second minus first.

    Newcombe's hybrid score method: the Wilson limits of both, squared and added. With d = p2 - p1
    and limits (l1, u1), (l2, u2): lower = d - sqrt((p2 - l2)^2 + (u1 - p1)^2), upper =
    d + sqrt((u2 - p2)^2 + (p1 - l1)^2).

    Units: counts in, a difference of shares in [-1, 1] out.
    Assumptions: two different sets of independent trials, their numbers fixed in advance.
    Error rate: coverage is near the level on average, for few trials between 0.92 and 0.99 at
    level 0.95 in the cells that the tests enumerate; it is not a guaranteed minimum.
    When not to use: for both systems on the same examples (take `newcombe_paired`); for a decision
    after repeated looks (take `proportion_difference_sequence` of
    `ratchet.stats.experiments.confidence_sequences`).

    Args:
        successes_first: Successes of the first, 0 to `trials_first`.
        trials_first: Trials of the first, at least 1.
        successes_second: Successes of the second, 0 to `trials_second`.
        trials_second: Trials of the second, at least 1.
        level: Nominal coverage in (0, 1).

    Returns:
        The interval, within [-1, 1]; it always contains the observed difference.

    Raises:
        InsufficientDataError: One of them has no trials.
        InvalidInputError: A count or the level is out of range.

    Example:
        >>> interval = newcombe_independent(48, 80, 56, 70)
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.0524, 0.3339)

    References:
        Newcombe, R. G. (1998). Interval estimation for the difference between independent
        proportions: comparison of eleven methods. Statistics in Medicine 17, 873-890, method 10.
    """
    first = wilson(successes_first, trials_first, level=level)
    second = wilson(successes_second, trials_second, level=level)
    p_first, p_second = successes_first / trials_first, successes_second / trials_second
    difference = p_second - p_first
    below = math.hypot(p_second - second.lower, first.upper - p_first)
    above = math.hypot(second.upper - p_second, p_first - first.lower)
    return Interval(max(-1.0, difference - below), min(1.0, difference + above), level)


def mean_interval(values: Values, *, level: float = 0.95) -> Interval:
    """Student t interval of a mean.

    mean +- t(n - 1) s / sqrt(n), s the standard deviation with n - 1 below.

    Units: those of the values.
    Assumptions: independent values, near normal or enough of them for the mean to be.
    Error rate: exact for normal values; approximate otherwise, and too narrow for strongly skewed
    values below about 30 of them.
    When not to use: for shares (take `wilson`); for heavy tails (take `quantile_interval` at 0.5);
    where all values are equal it has no width, which is not certainty.

    Args:
        values: At least two finite numbers.
        level: Nominal coverage in (0, 1).

    Returns:
        The interval; it is not cut to the range of the values.

    Raises:
        InsufficientDataError: There are fewer than two values.
        InvalidInputError: A value is not finite or the level is out of range.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (-0.4841, 4.4841)

    References:
        Student (1908). The probable error of a mean. Biometrika 6, 1-25.
    """
    sample = finite_values(values)
    if sample.size < 2:
        raise InsufficientDataError(
            f"the interval of a mean needs at least 2 values, got {sample.size}; collect more"
        )
    tail = (1.0 + checked_level(level)) / 2.0
    mean = float(sample.mean())
    half = float(
        special.stdtrit(sample.size - 1, tail) * sample.std(ddof=1) / math.sqrt(sample.size)
    )
    return Interval(mean - half, mean + half, level)


def quantile_interval(values: Values, quantile: float, *, level: float = 0.95) -> Interval:
    """Distribution-free interval of a quantile from order statistics.

    From the l-th to the u-th smallest value, with l the largest rank for which
    P(Bin(n, q) < l) <= alpha/2 and u the smallest for which P(Bin(n, q) >= u) <= alpha/2.

    Units: those of the values.
    Assumptions: independent values of one distribution; ties make it conservative.
    Error rate: coverage is at least the level for every distribution.
    When not to use: far in the tail with few values, where no such ranks exist (the 0.99 quantile
    at level 0.95 needs 368 values, the median 6).

    Args:
        values: Finite numbers.
        quantile: Which quantile, in (0, 1).
        level: Guaranteed coverage in (0, 1).

    Raises:
        InsufficientDataError: There are too few values for both ends to exist.
        InvalidInputError: A value is not finite, or the quantile or level is out of range.

    Example:
        >>> interval = quantile_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0], 0.5)
        >>> interval.lower, interval.upper
        (1.0, 6.0)

    References:
        Conover, W. J. (1999). Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    require(
        0.0 < quantile < 1.0,
        f"quantile must be in (0, 1), got {quantile}; pass 0.99 for the 99th percentile",
    )
    ordered = np.sort(finite_values(values))
    tail = (1.0 - checked_level(level)) / 2.0
    below = special.bdtr(np.arange(ordered.size), ordered.size, quantile)  # P(Bin <= i)
    lower_ranks = np.flatnonzero(below <= tail)  # rank l = i + 1 has P(Bin < l) = below[i]
    upper_ranks = np.flatnonzero(1.0 - below <= tail)
    if lower_ranks.size == 0 or upper_ranks.size == 0:
        raise InsufficientDataError(
            f"{ordered.size} values are too few for an interval of the {quantile:g} quantile at "
            f"level {level:g}; collect more or lower the level"
        )
    return Interval(float(ordered[lower_ranks[-1]]), float(ordered[upper_ranks[0]]), level)


def _score_limits(successes: int, trials: int, z: float) -> tuple[float, float]:
    rate = successes / trials
    centre = (successes + z * z / 2.0) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(trials * rate * (1.0 - rate) + z * z / 4.0)
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    upper = 1.0 if successes == trials else min(1.0, centre + half)
    return lower, upper


def _continuity_corrected_phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    margins = (both + only_first, only_second + neither, both + only_second, only_first + neither)
    product = math.prod(margins)
    if product == 0:
        return 0.0
    excess = float(both * neither - only_first * only_second)
    if excess > 0:
        excess = max(0.0, excess - sum((both, only_first, only_second, neither)) / 2.0)
    return excess / math.sqrt(product)


def _square_and_add(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2.0 * phi * one * other + other * other))


def _checked_counts(successes: int, trials: int) -> tuple[int, int]:
    successes = checked_count("successes", successes)
    trials = checked_count("trials", trials)
    if trials == 0:
        raise InsufficientDataError(
            "a proportion needs at least 1 trial, got 0; collect observations first"
        )
    if successes > trials:
        raise InvalidInputError(
            f"successes must not exceed trials, got {successes} of {trials}; check their order"
        )
    return successes, trials
