"""The interval of a difference between two numbers that each have an interval of their own."""

from __future__ import annotations

import math

from ratchet.errors import InvalidInputError
from ratchet.stats.intervals.fixed import Interval


def mover_difference(
    first: float, of_first: Interval, second: float, of_second: Interval
) -> Interval:
    """Interval of first - second from the interval of each (MOVER).

    With limits (l, u) of each, the limits are d - sqrt((x1 - l1)^2 + (u2 - x2)^2) and
    d + sqrt((u1 - x1)^2 + (x2 - l2)^2), d = x1 - x2. From Wilson's intervals of two proportions it
    is Newcombe's (`newcombe_independent`).

    Units: those of the two numbers.
    Assumptions: the two are independent, and their intervals have the same level.
    Error rate: that of the two intervals; it is near the level where theirs are.
    When not to use: for two numbers of the same users or examples, which are not independent.

    Args:
        first: A number.
        of_first: Its interval.
        second: Another number.
        of_second: Its interval.

    Raises:
        InvalidInputError: The intervals have different levels.

    Example:
        >>> found = mover_difference(0.5, Interval(0.4, 0.6, 0.95), 0.3, Interval(0.2, 0.4, 0.95))
        >>> round(found.lower, 4), round(found.upper, 4)
        (0.0586, 0.3414)

    References:
        Zou, G. Y., Donner, A. (2008). Construction of confidence limits about effect measures: a
        general approach. Statistics in Medicine 27, 1693-1702.
    """
    if of_first.level != of_second.level:
        raise InvalidInputError(
            f"intervals must have one level, got {of_first.level:g} and {of_second.level:g}; "
            "compute both at the same"
        )
    down = math.hypot(first - of_first.lower, of_second.upper - second)
    up = math.hypot(of_first.upper - first, second - of_second.lower)
    return Interval(first - second - down, first - second + up, of_first.level)
