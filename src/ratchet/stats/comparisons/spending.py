"""One-sided group-sequential looks by error spending: when to look need not be planned.

A look at information fraction t may spend the part of the level that a spending function allows up
to t and that earlier looks have not spent. What is returned is a nominal level for each look: any
one-sided p-value at most that level stops the test there. Looks that never stop for futility keep
the level too, so that going on is always allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy import special

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import require
from ratchet.stats.comparisons.quadrature import REACH, quadrature
from ratchet.stats.comparisons.rates import checked_alpha

Spending = Literal["obrien_fleming", "pocock"]
MOST_LOOKS = 20
SMALLEST_STEP = 1e-3  # of information between two looks
NOTHING = 1e-12  # a level that is as good as none


def spent(information: float, *, alpha: float = 0.05, spending: Spending = "pocock") -> float:
    """The part of a one-sided level that may be spent up to an information fraction.

    O'Brien-Fleming's kind: 2 (1 - Phi(z_{alpha/2} / sqrt(t))); Pocock's: alpha log(1 + (e - 1) t).

    Units: probabilities.
    Assumptions: none.
    Error rate: none: it is a plan.
    When not to use: with a fraction that depends on the results.

    Args:
        information: Examples seen over the planned maximum, in (0, 1].
        alpha: The level to spend in all.
        spending: "obrien_fleming" spends little early, "pocock" evenly.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(spent(0.5, spending="obrien_fleming"), 4), round(spent(0.5), 4)
        (0.0056, 0.031)

    References:
        Lan, K. K. G., DeMets, D. L. (1983). Discrete sequential boundaries for clinical trials.
        Biometrika 70, 659-663.
    """
    if spending not in get_args(Spending):
        raise InvalidInputError(f"spending must be one of {get_args(Spending)}, got {spending!r}")
    require(
        0.0 < information <= 1.0,
        f"information must be in (0, 1], got {information}; divide by the planned maximum",
    )
    level = checked_alpha(alpha)
    if spending == "pocock":
        return level * math.log1p((math.e - 1.0) * information)
    quantile = float(special.ndtri(1.0 - level / 2.0))
    return 2.0 * float(special.ndtr(-quantile / math.sqrt(information)))


def nominal_levels(
    information: Sequence[float], *, alpha: float = 0.05, spending: Spending = "obrien_fleming"
) -> FloatArray:
    """The one-sided level of each look, such that all looks together err in at most alpha.

    Look k's critical value c_k solves P(Z_1 < c_1, ..., Z_{k-1} < c_{k-1}, Z_k >= c_k) = what
    may be spent between t_{k-1} and t_k; the level is 1 - Phi(c_k). Computed by recursive
    integration, as `ratchet.stats.comparisons.group_sequential`.

    Units: probabilities.
    Assumptions: normal statistics with independent increments: each look keeps all earlier
    examples; when to look does not depend on the results.
    Error rate: alpha over all looks where the last fraction is 1, to about 1e-6, for normal
    statistics. It is kept whether or not looks stop for futility.
    When not to use: for looks that come because the last one was close; for looks without end
    (`ratchet.stats.experiments.confidence_sequences`).

    Args:
        information: Fraction of the planned maximum at each look, ascending, in (0, 1].
        alpha: One-sided level over all looks.
        spending: As `spent`.

    Returns:
        A level for each look, shape (looks,).

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> nominal_levels([1 / 3, 2 / 3, 1.0]).round(4).tolist()
        [0.0007, 0.0161, 0.0451]

    References:
        Lan and DeMets (1983), as `spent`. Jennison, C., Turnbull, B. W. (2000). Group Sequential
        Methods with Applications to Clinical Trials, chapters 7 and 19. Chapman and Hall.
    """
    times = _checked(information)
    levels, walk, before = np.empty(times.size), _Walk(), 0.0
    for look, time in enumerate(times):
        allowed = spent(float(time), alpha=alpha, spending=spending)
        walk.step(float(time), 0.0)
        critical = walk.critical_value(max(NOTHING, allowed - before))
        walk.stop_above(critical)
        levels[look], before = float(special.ndtr(-critical)), allowed
    return levels


def stopping_probabilities(
    levels: Sequence[float] | FloatArray, drift: float, *, information: Sequence[float]
) -> FloatArray:
    """Chance to stop at each look of a one-sided test.

    Units: probabilities.
    Assumptions: as `nominal_levels`.
    Error rate: accurate to about 1e-6.
    When not to use: as `nominal_levels`.

    Args:
        levels: One-sided level of each look, as of `nominal_levels`.
        drift: Mean of Z at full information; 0 where the null is just true.
        information: Fraction at each look, ascending, in (0, 1].

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> looks = [0.5, 1.0]
        >>> stopped = stopping_probabilities(nominal_levels(looks), 0.0, information=looks)
        >>> stopped.round(4).tolist()
        [0.0056, 0.0444]

    References:
        Jennison and Turnbull (2000), as `nominal_levels`.
    """
    times, walk = _checked(information), _Walk()
    if len(levels) != times.size or not all(0.0 < level < 1.0 for level in levels):
        raise InvalidInputError(
            f"levels must be in (0, 1), one for each of {times.size} looks, got {list(levels)}"
        )
    stopped = np.empty(times.size)
    for look, (time, level) in enumerate(zip(times, levels, strict=True)):
        walk.step(float(time), drift)
        critical = -float(special.ndtri(level))
        stopped[look] = walk.above(critical)
        walk.stop_above(critical)
    return stopped


def information_ratio(
    information: Sequence[float],
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    spending: Spending = "obrien_fleming",
) -> float:
    """How many times the examples of a test with one look these looks need at the most.

    Units: a ratio.
    Assumptions: as `nominal_levels`; the last fraction is 1.
    Error rate: none: it plans `power`.
    When not to use: as `nominal_levels`.

    Args:
        information: Fraction at each look, ascending, the last one 1.
        alpha: One-sided level.
        power: Chance to stop at some look, in (alpha, 1).
        spending: As `spent`.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(information_ratio([1 / 3, 2 / 3, 1.0]), 3)
        1.02

    References:
        Jennison and Turnbull (2000), as `nominal_levels`.
    """
    require(
        alpha < power < 1.0,
        f"power must be in (alpha, 1), got {power}; pass 0.8",
    )
    levels = nominal_levels(information, alpha=alpha, spending=spending)
    fixed = float(special.ndtri(1.0 - alpha) + special.ndtri(power))

    def shortfall(drift: float) -> float:
        stopped = stopping_probabilities(levels, drift, information=information)
        return float(stopped.sum()) - power

    from scipy import optimize

    drift = float(optimize.brentq(shortfall, fixed * 0.5, fixed * 3.0, xtol=1e-9))
    return (drift / fixed) ** 2


class _Walk:
    """The density of Z(t) sqrt(t) where the test still goes on, on quadrature points."""

    def __init__(self) -> None:
        self.points, self.mass = np.zeros(1), np.ones(1)
        self.time, self.drift = 0.0, 0.0
        self.means, self.scale = np.zeros(1), 1.0

    def step(self, time: float, drift: float) -> None:
        passed = time - self.time
        self.means, self.scale = self.points + drift * passed, math.sqrt(passed)
        self.time, self.drift = time, drift

    def above(self, critical: float) -> float:
        limit = critical * math.sqrt(self.time)
        return float(self.mass @ special.ndtr((self.means - limit) / self.scale))

    def critical_value(self, chance: float) -> float:
        from scipy import optimize

        return float(optimize.brentq(lambda c: self.above(c) - chance, -REACH, REACH, xtol=1e-10))

    def stop_above(self, critical: float) -> None:
        reach = REACH * math.sqrt(self.time) + abs(self.drift) * self.time
        upper = min(reach, critical * math.sqrt(self.time))
        nodes, weights = quadrature((upper + reach) / 2.0, self.scale)
        points = nodes + (upper - reach) / 2.0
        density = np.exp(-0.5 * ((points[:, np.newaxis] - self.means) / self.scale) ** 2)
        self.mass = weights * (density @ self.mass) / (self.scale * math.sqrt(2.0 * math.pi))
        self.points = points


def _checked(information: Sequence[float]) -> FloatArray:
    times = np.atleast_1d(np.asarray(information, dtype=np.float64))
    steps = np.diff(times, prepend=0.0)
    if times.ndim != 1 or times.size == 0 or (steps < SMALLEST_STEP).any() or times[-1] > 1.0:
        raise InvalidInputError(
            f"information must ascend by at least {SMALLEST_STEP} from above 0 to at most 1, got "
            f"{list(information)}; divide by the planned maximum"
        )
    if times.size > MOST_LOOKS:
        raise InvalidInputError(
            f"looks must be at most {MOST_LOOKS}, got {times.size}; take a confidence sequence"
        )
    return times
