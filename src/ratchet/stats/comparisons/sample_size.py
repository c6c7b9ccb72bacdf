"""How many examples a comparison needs; module `power` has the power of a given number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.checks import require
from ratchet.stats.comparisons.power import paired_mean_power, paired_rate_power
from ratchet.stats.comparisons.rates import checked_alpha
from ratchet.stats.comparisons.spending import Spending, information_ratio

MOST_EXAMPLES = 10_000_000
FOR_LOOKS = 0.005  # of power, that what is not normal at the early looks costs
FOR_SKEWNESS = 2  # examples that the correction for skewness costs: 1.1 by its second moment


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """How much to evaluate.

    Attributes:
        examples: Number of examples; over all looks where there are several.
        units: Independent units among them: the examples, or their users.
        power: Chance of showing the difference with these, as far as the plan's assumptions hold.
    """

    examples: int
    units: int
    power: float


def paired_rate_sample_size(
    *,
    discordance: float,
    difference: float,
    margin: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    looks: Sequence[float] = (1.0,),
    spending: Spending = "obrien_fleming",
) -> SamplePlan:
    """Pairs with which `paired_rate_test` shows a difference above the margin.

    The smallest number whose exact power (`paired_rate_power`) is enough; with several looks
    it is planned with half a point more power, for what they lose by not being normal at the first
    looks, and multiplied by what they need at the most (`information_ratio`).

    Units: shares in, a number of pairs out.
    Assumptions: as `paired_rate_power`; with looks as `nominal_levels`.
    Error rate: the power is reached, exactly for one look.
    When not to use: where users repeat (`paired_mean_sample_size`, whose spread is the square root
    of discordance - difference^2).

    Args:
        discordance: As `paired_rate_power`; without a guess take the largest that may be.
        difference: The difference worth finding; for non-inferiority the true one, often 0.
        margin: Below the difference; negative for non-inferiority.
        alpha: One-sided level over all looks, in (0, 0.5).
        power: Chance of showing it, in (alpha, 1).
        looks: Fractions of the examples at which it is looked, ascending to 1.
        spending: As `ratchet.stats.comparisons.spending.spent`.

    Raises:
        InsufficientDataError: More than ten million pairs would be needed.
        InvalidInputError: An argument is out of range, or the difference is not above the margin.

    Example:
        >>> plan = paired_rate_sample_size(discordance=0.2, difference=0.05)
        >>> plan.examples, round(plan.power, 3)
        (527, 0.8)
        >>> paired_rate_sample_size(discordance=0.1, difference=0.0, margin=-0.05).examples
        303

    References:
        Connor (1987), as `paired_rate_power`.
    """
    gap = _checked_gap(difference, margin, alpha, power)
    spread = math.sqrt(max(discordance - difference**2, 1e-6))
    guess = _normal_size(gap / spread, alpha, power)

    def reached(pairs: int) -> float:
        return paired_rate_power(
            pairs, discordance=discordance, difference=difference, margin=margin, alpha=alpha
        )

    pairs = _smallest(reached, guess, _target(power, looks))
    ratio = _ratio(looks, alpha, power, spending)
    examples = math.ceil(pairs * ratio)
    return SamplePlan(examples, examples, reached(pairs))


def paired_mean_sample_size(
    *,
    spread: float,
    difference: float,
    margin: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    cluster_size: float = 1.0,
    design_effect: float = 1.0,
    looks: Sequence[float] = (1.0,),
    spending: Spending = "obrien_fleming",
) -> SamplePlan:
    """Examples with which `paired_mean_test` shows a difference above the margin.

    The smallest number of units n with P(T_n >= t) at least the power, T_n noncentral t with
    noncentrality sqrt(n) (difference - margin) / s; with users of k examples each the unit is the
    user, s^2 = spread^2 design effect / k.

    Units: those of the differences; a number of examples out.
    Assumptions: as `paired_mean_power`; users of equal size: with unequal ones take the effective
    size, sum n^2 / sum n, which needs more examples of more users.
    Error rate: the power is reached as far as the spread is right.
    When not to use: for right or wrong of independent examples (`paired_rate_sample_size`).

    Args:
        spread: Standard deviation of one example's difference.
        difference: The difference worth finding; for non-inferiority the true one, often 0.
        margin: Below the difference; negative for non-inferiority.
        alpha: One-sided level over all looks, in (0, 0.5).
        power: Chance of showing it, in (alpha, 1).
        cluster_size: Examples of one user, at least 1.
        design_effect: Variance with users over that without, or
            1 + (cluster_size - 1) times the correlation within users.
        looks: Fractions of the examples at which it is looked, ascending to 1.
        spending: As `ratchet.stats.comparisons.spending.spent`.

    Raises:
        InsufficientDataError: More than ten million units would be needed.
        InvalidInputError: An argument is out of range, or the difference is not above the margin.

    Example:
        >>> paired_mean_sample_size(spread=0.4, difference=0.1).examples
        103
        >>> paired_mean_sample_size(
        ...     spread=0.4, difference=0.1, cluster_size=5, design_effect=2.0
        ... ).units
        43

    References:
        Cohen (1988), as `paired_mean_power`. Donner, A., Klar, N. (2000). Design and Analysis of
        Cluster Randomization Trials in Health Research, chapter 5. Arnold.
    """
    gap = _checked_gap(difference, margin, alpha, power)
    known = all(map(math.isfinite, (spread, cluster_size, design_effect)))
    require(
        known and spread > 0.0 and cluster_size >= 1.0 and design_effect > 0.0,
        f"spread and design effect must be above 0 and cluster size at least 1, got {spread}, "
        f"{design_effect} and {cluster_size}; take them from a pilot",
    )
    effect = gap / (spread * math.sqrt(design_effect / cluster_size))

    def reached(units: int) -> float:
        return paired_mean_power(max(2, units), effect=effect, alpha=alpha)

    smallest = max(2, _smallest(reached, _normal_size(effect, alpha, power), _target(power, looks)))
    units = math.ceil((smallest + FOR_SKEWNESS) * _ratio(looks, alpha, power, spending))
    return SamplePlan(math.ceil(units * cluster_size), units, reached(smallest + FOR_SKEWNESS))


def shared_power(power: float, requirements: int) -> float:
    """The power that each of several requirements needs for all of them to hold with `power`.

    1 - (1 - power) / m, by Bonferroni: requirements may fail each by itself.

    Units: a probability.
    Assumptions: none on how they depend.
    Error rate: all hold with at least `power`.
    When not to use: for one requirement.

    Args:
        power: Chance that all hold, in (0, 1).
        requirements: Their number, at least 1.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(shared_power(0.8, 5), 3)
        0.96

    References:
        Senn, S., Bretz, F. (2007). Power and sample size when multiple endpoints are considered.
        Pharmaceutical Statistics 6, 161-170.
    """
    if not 0.0 < power < 1.0 or requirements < 1:
        raise InvalidInputError(
            f"power must be in (0, 1) and requirements at least 1, got {power} and {requirements}"
        )
    return 1.0 - (1.0 - power) / requirements


def _normal_size(effect: float, alpha: float, power: float) -> int:
    quantiles = float(special.ndtri(1.0 - alpha) + special.ndtri(power))
    return math.ceil(min(MOST_EXAMPLES + 1.0, (quantiles / effect) ** 2))


def _smallest(reached: Callable[[int], float], guess: int, power: float) -> int:
    """The smallest number near the guess from which on the power is enough."""
    if guess > MOST_EXAMPLES:
        raise InsufficientDataError(
            f"a plan may need at most {MOST_EXAMPLES:,} examples, got more; look for a larger "
            "difference or allow a larger margin"
        )
    low, high = 0, max(2, guess)
    while reached(high) < power:
        low, high = high, math.ceil(high * 1.25) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle, high)
    return high


def _target(power: float, looks: Sequence[float]) -> float:
    return power if len(looks) == 1 else min(power + FOR_LOOKS, (1.0 + power) / 2.0)


def _ratio(looks: Sequence[float], alpha: float, power: float, spending: Spending) -> float:
    if len(looks) == 1:
        return 1.0
    return information_ratio(looks, alpha=alpha, power=power, spending=spending)


def _checked_gap(difference: float, margin: float, alpha: float, power: float) -> float:
    checked_alpha(alpha)
    require(
        alpha < power < 1.0,
        f"power must be in (alpha, 1), got {power}; pass 0.8",
    )
    require(
        math.isfinite(difference) and math.isfinite(margin) and difference > margin,
        f"the difference must be above the margin, got {difference} and {margin}; what is not "
        "there cannot be shown with any number of examples",
    )
    return difference - margin
