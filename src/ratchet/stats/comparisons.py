"""Tests of one system against another."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from scipy import special

from ratchet.errors import InvalidInputError


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
    first = _checked("only_first", only_first)
    second = _checked("only_second", only_second)
    discordant = first + second
    if discordant == 0:
        return McNemarResult(0, 0, p_value=1.0, p_value_second_better=1.0)
    smaller_tail = float(special.bdtr(min(first, second), discordant, 0.5))
    # P(Bin >= second) = P(Bin <= first), because the null distribution is symmetric
    second_better = float(special.bdtr(first, discordant, 0.5))
    return McNemarResult(first, second, min(1.0, 2.0 * smaller_tail), min(1.0, second_better))


def _checked(name: str, value: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise InvalidInputError(
            f"{name} must be a whole number, got {value!r}; pass a count of pairs, not a share"
        ) from None
    if count < 0:
        raise InvalidInputError(f"{name} must not be negative, got {count}; pass a count of pairs")
    return count
