"""Rates of groups that are looked at because they were high: intervals that allow for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from ratchet.errors import InvalidInputError
from ratchet.stats.intervals.fixed import Interval

_STEPS = 60
_TINY = 1e-250
_TERMS = 100_000


def selected_proportion(
    successes: int, trials: int, *, threshold: int, level: float = 0.95
) -> Interval:
    """Exact interval of a proportion that is reported only from a number of successes on.

    The rates p that neither one-sided test rejects at (1 - level) / 2, each given that there are
    `threshold` successes or more: P(X >= k | X >= c) and P(X <= k | X >= c) for X binomial. With
    threshold 0 it is `clopper_pearson`. Right at the threshold the lower end is 0: that it was
    reached says nothing that the threshold did not say.

    Units: counts in, shares in [0, 1] out.
    Assumptions: as `wilson`; the group is reported whenever it has `threshold` successes.
    Error rate: of the intervals that are reported, at least `level` cover their rates, for every
    rate and every number of trials.
    When not to use: where groups are chosen by more than the threshold.

    Args:
        successes: Number of successes, `threshold` to `trials`.
        trials: Number of trials, at least 1.
        threshold: The smallest number that is reported.
        level: Guaranteed coverage in (0, 1), given that it is reported.

    Returns:
        The interval, within [0, 1].

    Raises:
        InvalidInputError: A count or the level is out of range.

    Example:
        >>> interval = selected_proportion(12, 20, threshold=8)
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.3062, 0.8088)

    References:
        Lee, J. D., Sun, D. L., Sun, Y., Taylor, J. E. (2016). Exact post-selection inference, with
        application to the lasso. Annals of Statistics 44, 907-927 (the conditional approach).
    """
    if not 0 <= threshold <= successes <= trials or trials < 1 or not 0.0 < level < 1.0:
        raise InvalidInputError(
            f"counts must be 0 <= threshold <= successes <= trials with trials >= 1 and level in "
            f"(0, 1), got {threshold}, {successes}, {trials} and {level}; count again"
        )
    tail = (1.0 - level) / 2.0

    def at_least_given(rate: float) -> float:
        return _tail_given(successes, threshold, trials, rate)

    def above_given(rate: float) -> float:
        return _tail_given(successes + 1, threshold, trials, rate)

    lower = 0.0 if successes == threshold else _where_it_crosses(at_least_given, tail)
    upper = 1.0 if successes == trials else _where_it_crosses(above_given, 1.0 - tail)
    return Interval(lower, upper, level)


def _tail_given(count: int, threshold: int, trials: int, rate: float) -> float:
    """P(X >= count | X >= threshold) for X binomial."""

    def at_least(least: int) -> float:
        if least <= 0:
            return 1.0
        return float(special.betainc(least, trials - least + 1, rate)) if least <= trials else 0.0

    if (reported := at_least(threshold)) > _TINY:
        return at_least(count) / reported
    # Far out in the tail both are 0 in floating point, but the terms fall off fast: they are added
    # up as multiples of the first, P(X = threshold).
    last = min(trials, threshold + _TERMS)
    counts = np.arange(threshold, last, dtype=np.float64)
    steps = np.log((trials - counts) / (counts + 1.0)) + special.logit(rate)
    terms = np.exp(np.concatenate([[0.0], np.cumsum(steps)]))
    return float(terms[count - threshold :].sum() / terms.sum())


def _where_it_crosses(function: Callable[[float], float], value: float) -> float:
    """Bisect an increasing function of a rate."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = float(np.mean([low, high]))
        low, high = (middle, high) if function(middle) < value else (low, middle)
    return high
