"""Two systems that are right or wrong on the same examples.

`mcnemar_exact` asks which of them is right more often, `paired_rate_test` by how much at least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import checked_count, require
from ratchet.stats.intervals import Interval

STEP = 1.0  # by which counts of discordant pairs move; Edwards' continuity correction


@dataclass(frozen=True, slots=True)
class McNemarResult:
    """Result of `mcnemar_exact`.

    Attributes:
        only_first: Pairs where only the first system succeeds.
        only_second: Pairs where only the second system succeeds.
        p_value: Two-sided, of "both succeed equally often".
        p_value_second_better: One-sided, small when the second succeeds more often.
    """

    only_first: int
    only_second: int
    p_value: float
    p_value_second_better: float


@dataclass(frozen=True, slots=True)
class MarginTest:
    """A difference of two systems on the same examples, held against a margin.

    With a margin below 0 a small `p_above` shows non-inferiority, with one from 0 on superiority;
    a small `p_below` shows that the second is worse than the margin allows.

    Attributes:
        difference: Second minus first.
        interval: Of the difference, at level 1 - 2 alpha: each end is a one-sided bound at alpha.
        margin: What the difference was held against.
        p_above: One-sided, of "the difference is at most the margin".
        p_below: One-sided, of "the difference is at least the margin".
        pairs: Number of examples.
        units: Independent units among them: the examples, or their users.
        standard_error: Of the difference.
    """

    difference: float
    interval: Interval
    margin: float
    p_above: float
    p_below: float
    pairs: int
    units: int
    standard_error: float


def mcnemar_exact(only_first: int, only_second: int) -> McNemarResult:
    """Exact test whether two systems succeed equally often on the same examples.

    Given the b + c pairs on which they differ, the number won by the second is
    Bin(b + c, 1/2) when neither is better. Two-sided p = min(1, 2 P(Bin <= min(b, c))), doubling
    the smaller tail; one-sided p = P(Bin >= c).

    Units: counts of discordant pairs in, probabilities out.
    Assumptions: independent pairs, their number fixed in advance. Pairs on which both agree
    carry no evidence about which is better and do not enter.
    Error rate: at most the level, for every number of pairs; well below it when they are few.
    When not to use: after repeated looks at growing data; for identical outputs (0, 0), where
    p = 1 says that nothing was seen, not that the systems are equal.

    Args:
        only_first: Pairs where only the first system succeeds, at least 0.
        only_second: Pairs where only the second system succeeds, at least 0.

    Returns:
        Both p-values with the counts they rest on.

    Raises:
        InvalidInputError: A count is negative or not a whole number.

    Example:
        >>> result = mcnemar_exact(10, 30)
        >>> round(result.p_value, 6), round(result.p_value_second_better, 6)
        (0.002221, 0.001111)

    References:
        McNemar, Q. (1947). Note on the sampling error of the difference between correlated
        proportions or percentages. Psychometrika 12, 153-157.
    """
    first, second = _discordant(only_first, only_second)
    discordant = first + second
    if discordant == 0:
        return McNemarResult(0, 0, p_value=1.0, p_value_second_better=1.0)
    smaller_tail = float(special.bdtr(min(first, second), discordant, 0.5))
    # P(Bin >= second) = P(Bin <= first), because the null distribution is symmetric
    second_better = float(special.bdtr(first, discordant, 0.5))
    return McNemarResult(first, second, min(1.0, 2.0 * smaller_tail), min(1.0, second_better))


def mcnemar_chi_squared(
    only_first: int, only_second: int, *, continuity: bool = True
) -> tuple[float, float]:
    """McNemar's statistic as other tools print it, with its p-value.

    (max(0, |b - c| - 1))^2 / (b + c), without the 1 where continuity is False, against a
    chi-squared distribution with one degree of freedom.

    Units: counts of discordant pairs in, a statistic and a probability out.
    Assumptions: as `mcnemar_exact`, and about 25 discordant pairs or more.
    Error rate: near the level with many discordant pairs; above it without the correction.
    When not to use: to decide. `mcnemar_exact` needs no approximation; this is for comparing
    figures with those of others.

    Args:
        only_first: Pairs where only the first system succeeds.
        only_second: Pairs where only the second system succeeds.
        continuity: Whether to correct for continuity, as Edwards does.

    Returns:
        Statistic and two-sided p-value.

    Raises:
        InsufficientDataError: No pair is discordant.
        InvalidInputError: A count is negative or not a whole number.

    Example:
        >>> statistic, p_value = mcnemar_chi_squared(121, 59)
        >>> round(statistic, 5), round(p_value, 8)
        (20.67222, 5.45e-06)

    References:
        McNemar (1947), as `mcnemar_exact`. Edwards (1948), as `paired_rate_test`.
    """
    first, second = _discordant(only_first, only_second)
    if first + second == 0:
        raise InsufficientDataError(
            "the chi-squared statistic needs discordant pairs, got none; see mcnemar_exact"
        )
    apart = max(0.0, abs(first - second) - (STEP if continuity else 0.0))
    statistic = apart**2 / (first + second)
    return statistic, float(special.chdtrc(1.0, statistic))


def paired_rate_test(
    both: int,
    only_first: int,
    only_second: int,
    neither: int,
    *,
    margin: float = 0.0,
    alpha: float = 0.05,
) -> MarginTest:
    """Test of the difference of two paired success rates against a margin.

    Tango's score statistic for "second minus first is delta", with Edwards' continuity correction:
    Z = (c - b - n delta -+ 1) / sqrt(n (2 q + delta (1 - delta))), b and c the discordant pairs and
    q the likeliest chance of "only the first" under that difference. The interval holds the deltas
    that are not rejected. At a margin of 0 the p-values are those of the exact McNemar test, of
    which Z is the normal approximation.

    Units: counts of pairs in, a difference of shares in [-1, 1] out.
    Assumptions: independent pairs, their number fixed in advance.
    Error rate: each one-sided p-value is at most alpha in at most alpha of samples: guaranteed at a
    margin of 0; at others at most 4.6 % at 5 % in all cells that were enumerated (50 to 1,000
    pairs, margins from -10 to 5 points, 1 to 50 % discordant).
    When not to use: where users repeat (`paired_mean_test` with clusters); after repeated looks
    without spending the level (`ratchet.stats.comparisons.spending`).

    Args:
        both: Pairs where both succeed.
        only_first: Pairs where only the first succeeds.
        only_second: Pairs where only the second succeeds.
        neither: Pairs where none succeeds.
        margin: In (-1, 1); negative for non-inferiority.
        alpha: One-sided level of each end of the interval, in (0, 0.5).

    Raises:
        InsufficientDataError: There are no pairs.
        InvalidInputError: A count, the margin or alpha is out of range.

    Example:
        >>> result = paired_rate_test(200, 12, 18, 70, margin=-0.05)
        >>> round(result.difference, 3), round(result.interval.lower, 4), round(result.p_above, 6)
        (0.02, -0.0139, 0.000485)

    References:
        Tango, T. (1998). Equivalence test and confidence interval for the difference in proportions
        for the paired-sample design. Statistics in Medicine 17, 891-908. Edwards, A. L. (1948).
        Note on the "correction for continuity" in testing the significance of the difference
        between correlated proportions. Psychometrika 13, 185-187.
    """
    cells = (("both", both), ("only_first", only_first), ("only_second", only_second))
    both, first, second = (checked_count(name, count) for name, count in cells)
    pairs = both + first + second + checked_count("neither", neither)
    if pairs == 0:
        raise InsufficientDataError("a comparison needs at least 1 pair, got none; collect more")
    checked_margin(margin, lowest=-1.0, highest=1.0)
    quantile = float(special.ndtri(1.0 - checked_alpha(alpha)))
    difference = (second - first) / pairs
    lower = _lower_limit(first, second, pairs, quantile)
    upper = -_lower_limit(second, first, pairs, quantile)
    if margin == 0.0:
        p_above = mcnemar_exact(first, second).p_value_second_better
        p_below = mcnemar_exact(second, first).p_value_second_better
    else:
        p_above = float(special.ndtr(-tango_statistic(first, second, pairs, margin)))
        p_below = float(special.ndtr(-tango_statistic(second, first, pairs, -margin)))
    error = math.sqrt(max(0.0, (first + second) / pairs - difference**2) / pairs)
    interval = Interval(lower, upper, 1.0 - 2.0 * alpha)
    return MarginTest(difference, interval, margin, p_above, p_below, pairs, pairs, error)


def tango_statistic(first: ArrayLike, second: ArrayLike, pairs: int, delta: float) -> FloatArray:
    """Tango's score statistic of `paired_rate_test`, a step towards "no more than delta".

    Args:
        first: Pairs where only the first succeeds, of any shape.
        second: Pairs where only the second succeeds, of the same shape.
        pairs: Number of pairs.
        delta: The difference that it is compared with, in (-1, 1).
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    distance = two - one - pairs * delta - STEP
    if delta < 0.0:
        one, two, delta = two, one, -delta
    linear = one + two - (2 * pairs + one - two) * delta
    root = np.sqrt(np.maximum(0.0, linear**2 + 8.0 * pairs * one * delta * (1.0 - delta)))
    only_first = np.maximum(0.0, linear + root) / (4.0 * pairs)
    variance = pairs * (2.0 * only_first + delta * (1.0 - delta))
    spread = np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
    return np.asarray(distance / spread)


def _lower_limit(first: int, second: int, pairs: int, quantile: float) -> float:
    """The lowest difference that is not rejected; the statistic falls as differences rise."""

    def excess(delta: float) -> float:
        return float(tango_statistic(first, second, pairs, delta)) - quantile

    lowest = -1.0 + 1e-12
    if excess(lowest) <= 0.0:
        return -1.0
    from scipy import optimize

    return float(optimize.brentq(excess, lowest, (second - first) / pairs, xtol=1e-10))


def checked_margin(margin: float, *, lowest: float = -math.inf, highest: float = math.inf) -> float:
    """Return a margin that is finite and between the two.

    Raises:
        InvalidInputError: It is not.
    """
    require(
        math.isfinite(margin) and lowest < margin < highest,
        f"margin must be a finite number in ({lowest:g}, {highest:g}), got {margin}; pass "
        "-0.05 for 'no worse by 5 points'",
    )
    return margin


def checked_alpha(alpha: float) -> float:
    """Return a one-sided level in (0, 0.5).

    Raises:
        InvalidInputError: It is not.
    """
    require(
        0.0 < alpha < 0.5,
        f"alpha must be in (0, 0.5), got {alpha}; pass 0.05 for a 5 % level",
    )
    return alpha


def _discordant(only_first: int, only_second: int) -> tuple[int, int]:
    return checked_count("only_first", only_first), checked_count("only_second", only_second)
