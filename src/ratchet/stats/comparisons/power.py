"""What power a comparison has with the examples there are."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import IntArray
from ratchet.stats.comparisons.rates import STEP, checked_alpha, checked_margin, tango_statistic

REACH = 8.0  # standard deviations of counts that are summed over
EXACT_UP_TO = 2_000.0  # expected discordant pairs; beyond, the normal approximation is as good


def paired_rate_power(
    pairs: int,
    *,
    discordance: float,
    difference: float,
    margin: float = 0.0,
    alpha: float = 0.05,
) -> float:
    """Chance that `paired_rate_test` shows a difference above the margin.

    The sum of trinomial probabilities over all counts of discordant pairs that reject; from 2,000
    expected discordant pairs on, the normal approximation of the same.

    Units: shares in, a probability out.
    Assumptions: as `paired_rate_test`.
    Error rate: exact but for counts further than 8 standard deviations from their mean; the normal
    approximation is off by less than 0.2 points where it begins.
    When not to use: where users repeat (`paired_mean_power`); after the fact with the observed
    difference, where it says no more than the p-value.

    Args:
        pairs: Number of pairs, at least 1.
        discordance: Share of pairs on which one system alone succeeds, in (0, 1].
        difference: True success rate of the second less that of the first, at most the discordance.
        margin: As `paired_rate_test`.
        alpha: One-sided level, in (0, 0.5).

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(paired_rate_power(300, discordance=0.3, difference=0.1), 3)
        0.928

    References:
        Connor, R. J. (1987). Sample size for testing differences in proportions for the
        paired-sample design. Biometrics 43, 207-211.
    """
    if pairs < 1:
        raise InvalidInputError(f"pairs must be at least 1, got {pairs}; pass a number of examples")
    if not 0.0 < discordance <= 1.0 or abs(difference) > discordance:
        raise InvalidInputError(
            f"discordance must be in (0, 1] and at least the difference, got {discordance} and "
            f"{difference}; where systems differ by d they differ on at least that share of pairs"
        )
    checked_margin(margin, lowest=-1.0, highest=1.0)
    if pairs * discordance > EXACT_UP_TO:
        return _normal_rate_power(pairs, discordance, difference, margin, alpha)
    chances = ((discordance - difference) / 2.0, (discordance + difference) / 2.0)
    first, second = (_counts(pairs, chance) for chance in chances)
    one, two = first[:, np.newaxis], second[np.newaxis, :]
    if margin == 0.0:
        shown = special.bdtr(one.astype(np.float64), one + two, 0.5) <= checked_alpha(alpha)
    else:
        quantile = float(special.ndtri(1.0 - checked_alpha(alpha)))
        shown = tango_statistic(one, two, pairs, margin) >= quantile
    rest = pairs - one - two
    likely = (
        special.gammaln(pairs + 1.0)
        - special.gammaln(one + 1.0)
        - special.gammaln(two + 1.0)
        - special.gammaln(np.maximum(rest, 0) + 1.0)
        + special.xlogy(one, chances[0])
        + special.xlogy(two, chances[1])
        + special.xlogy(np.maximum(rest, 0), 1.0 - discordance)
    )
    return float(np.exp(likely)[shown & (rest >= 0)].sum())


def paired_mean_power(
    units: int, *, effect: float, alpha: float = 0.05, freedom: float | None = None
) -> float:
    """Chance that `paired_mean_test` shows a difference above the margin.

    P(T >= t) for T noncentral t with noncentrality effect sqrt(n).

    Units: a probability.
    Assumptions: normal differences, or enough of them; as `paired_mean_test`.
    Error rate: none: it is a plan. The correction for skewness costs what one to two examples do.
    When not to use: as `paired_rate_power`.

    Args:
        units: Independent examples or users, at least 2.
        effect: Difference less margin, over the standard deviation of a unit's contribution.
        alpha: One-sided level, in (0, 0.5).
        freedom: Degrees of freedom, units - 1 where left out.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(paired_mean_power(100, effect=0.25), 3)
        0.799

    References:
        Cohen, J. (1988). Statistical Power Analysis for the Behavioral Sciences, 2nd ed., chapter
        2. Erlbaum.
    """
    if units < 2 or not math.isfinite(effect):
        raise InvalidInputError(
            f"units must be at least 2 and the effect finite, got {units} and {effect}"
        )
    degrees = units - 1.0 if freedom is None else freedom
    quantile = float(special.stdtrit(degrees, 1.0 - checked_alpha(alpha)))
    return 1.0 - float(special.nctdtr(degrees, effect * math.sqrt(units), quantile))


def _normal_rate_power(
    pairs: int, discordance: float, difference: float, margin: float, alpha: float
) -> float:
    quantile = float(special.ndtri(1.0 - checked_alpha(alpha)))
    first, second = (pairs * (discordance + sign * difference) / 2.0 for sign in (-1.0, 1.0))
    distance = pairs * (difference - margin) - STEP
    statistic = float(tango_statistic(first, second, pairs, margin))
    # the statistic is the distance over the standard deviation that the margin would give
    reached = distance - quantile * (distance / statistic if statistic else 0.0)
    return float(special.ndtr(reached / math.sqrt(pairs * (discordance - difference**2))))


def _counts(pairs: int, chance: float) -> IntArray:
    """Counts that have any weight."""
    reach = REACH * math.sqrt(pairs * chance) + REACH
    low, high = math.floor(pairs * chance - reach), math.ceil(pairs * chance + reach)
    return np.arange(max(0, low), min(pairs, high) + 1)
