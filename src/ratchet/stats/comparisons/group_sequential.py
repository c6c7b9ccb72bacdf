"""Group-sequential tests: a few planned looks at one comparison, the error rate kept.

The statistic at information fraction t is Z(t); Z(t) sqrt(t) is a Brownian motion with drift, the
drift being the mean of Z at full information. The probability of stopping at each look is found by
recursive numerical integration over the values at which the test goes on (Armitage, McPherson, Rowe
1969), not by simulation.

Beside a confidence sequence (`ratchet.stats.experiments.confidence_sequences`) such a test needs
fewer observations, but its looks must be few and planned.

References:
    Jennison, C., Turnbull, B. W. (2000). Group Sequential Methods with Applications to Clinical
    Trials. Chapman and Hall, chapters 2, 4 and 19.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import require
from ratchet.stats.comparisons.quadrature import REACH, quadrature

Shape = Literal["pocock", "obrien_fleming"]
POWERS: dict[Shape, float] = {"pocock": 0.0, "obrien_fleming": -0.5}


@dataclass(frozen=True, slots=True, eq=False)
class ExitProbabilities:
    """Where and when a group-sequential test stops.

    Attributes:
        upper: Probability of stopping at each look with Z at or above the critical value.
        lower: Probability of stopping at each look with Z at or below minus the critical value.
    """

    upper: FloatArray
    lower: FloatArray

    @property
    def rejection(self) -> float:
        """Probability of stopping at any look, on either side."""
        return float(self.upper.sum() + self.lower.sum())


@dataclass(frozen=True, slots=True, eq=False)
class GroupSequentialDesign:
    """A two-sided test with equally spaced looks.

    Attributes:
        critical_values: Smallest |Z| that rejects at each look.
        constant: Factor of the boundary's shape; the critical value of the last look.
        drift: Mean of Z at full information under which the test has its power.
        maximum_information: Information at the last look, over that of a test with one look.
        expected_information_null: Expected information at the stop without a difference, over that
            of a test with one look; the expected sample number as a ratio.
        expected_information_alternative: The same at the difference that the test is planned for.
    """

    critical_values: FloatArray
    constant: float
    drift: float
    maximum_information: float
    expected_information_null: float
    expected_information_alternative: float


def exit_probabilities(
    critical_values: ArrayLike, *, information: ArrayLike | None = None, drift: float = 0.0
) -> ExitProbabilities:
    """Probability of stopping at each look of a two-sided test.

    Recursion over looks: the density of Z(t) sqrt(t) where the test goes on is integrated against
    the normal increment to the next look, by Gauss-Legendre quadrature.

    Units: critical values in standard errors; information as fractions of the last look's.
    Assumptions: normal statistics with independent increments.
    Error rate: the sums are accurate to about 1e-10.
    When not to use: for binary outcomes with few events a look, where Z is not normal.

    Args:
        critical_values: |Z| that stops the test at each look, shape (looks,), above 0; infinity
            for a look without a stop.
        information: Information fractions, ascending; equally spaced where left out.
        drift: Mean of Z at the last look.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(exit_probabilities([1.96] * 5).rejection, 4)
        0.1417
    """
    critical = np.atleast_1d(np.asarray(critical_values, dtype=np.float64))
    times = _checked_information(critical.size, information)
    if critical.ndim != 1 or not (critical > 0.0).all() or not math.isfinite(drift):
        raise InvalidInputError(
            f"critical values must be above 0 and the drift finite, got {critical_values!r} and "
            f"{drift}; pass |Z|, as 1.96"
        )
    upper, lower = np.empty(critical.size), np.empty(critical.size)
    limits = critical * np.sqrt(times)
    finest = math.sqrt(float(np.diff(times, prepend=0.0).min()))
    points, mass, before = np.zeros(1), np.ones(1), 0.0
    for look, (limit, time) in enumerate(zip(limits, times, strict=True)):
        scale = math.sqrt(time - before)
        mean = points + drift * (time - before)
        upper[look] = mass @ special.ndtr((mean - limit) / scale)
        lower[look] = mass @ special.ndtr((-limit - mean) / scale)
        reach = min(limit, REACH * math.sqrt(time) + abs(drift) * time)
        points, weights = quadrature(reach, finest)
        density = np.exp(-0.5 * ((points[:, np.newaxis] - mean) / scale) ** 2)
        mass = weights * (density @ mass) / (scale * math.sqrt(2.0 * math.pi))
        before = time
    return ExitProbabilities(upper, lower)


def group_sequential_constant(looks: int, *, alpha: float = 0.05, shape: Shape = "pocock") -> float:
    """Critical value of the last of equally spaced looks.

    The c with P(any |Z_k| >= c_k) = alpha, where c_k = c (Pocock: the same at every look) or
    c sqrt(looks / k) (O'Brien-Fleming: strict early, near the fixed test's at the end).

    Units: standard errors.
    Assumptions: as `exit_probabilities`.
    Error rate: two-sided type I error is `alpha`.
    When not to use: where looks come when they come; spend error in another way or take a
    confidence sequence.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(group_sequential_constant(5), 3)
        2.413
        >>> round(group_sequential_constant(5, shape="obrien_fleming"), 3)
        2.04

    References:
        Pocock, S. J. (1977). Group sequential methods in the design and analysis of clinical
        trials. Biometrika 64, 191-199. O'Brien, P. C., Fleming, T. R. (1979). A multiple testing
        procedure for clinical trials. Biometrics 35, 549-556.
    """
    _checked_looks(looks)
    _checked_share("alpha", alpha)
    factors = _shape_factors(looks, shape)
    fixed = float(special.ndtri(1.0 - alpha / 2.0))
    bonferroni = float(special.ndtri(1.0 - alpha / (2.0 * looks)))
    return _root(
        lambda c: exit_probabilities(c * factors).rejection - alpha, fixed - 1e-9, bonferroni + 1e-9
    )


def naive_type_one_error(looks: int, *, alpha: float = 0.05) -> float:
    """Type I error of testing at the fixed level at each of equally spaced looks.

    P(any |Z_k| >= z), z the two-sided normal quantile of `alpha`.

    Units: a probability.
    Assumptions: as `exit_probabilities`.
    Error rate: exact for normal statistics; it tends to 1 as looks go on.
    When not to use: it is the yardstick of what peeking costs, not a test.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(naive_type_one_error(10), 4)
        0.1934

    References:
        Armitage, P., McPherson, C. K., Rowe, B. C. (1969). Repeated significance tests on
        accumulating data. JRSS A 132, 235-244.
    """
    _checked_looks(looks)
    _checked_share("alpha", alpha)
    fixed = float(special.ndtri(1.0 - alpha / 2.0))
    return exit_probabilities(np.full(looks, fixed)).rejection


def group_sequential_design(
    looks: int, *, alpha: float = 0.05, power: float = 0.9, shape: Shape = "pocock"
) -> GroupSequentialDesign:
    """Two-sided test with equally spaced looks, and how much information it needs.

    The drift is where the chance of rejecting in the right direction is `power`. Information is
    compared with (z_{alpha/2} + z_{1-power})^2, that of a test with one look.

    Units: ratios of information; with equal variances those of sample sizes.
    Assumptions: as `exit_probabilities`.
    Error rate: two-sided type I error is `alpha`; rejection in the wrong direction is not counted
    as power.
    When not to use: as `group_sequential_constant`.

    Args:
        looks: Number of looks, 1 to 100.
        alpha: Two-sided type I error, in (0, 1).
        power: Chance of rejecting in the right direction at the planned difference, in (alpha, 1).
        shape: "pocock" stops early more often, "obrien_fleming" needs fewer at the most.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> design = group_sequential_design(4)
        >>> round(100 * design.maximum_information, 3)
        118.314

    References:
        Jennison and Turnbull (2000), chapter 2.
    """
    constant = group_sequential_constant(looks, alpha=alpha, shape=shape)
    require(
        alpha < power < 1.0,
        f"power must be above alpha and below 1, got {power} at alpha {alpha}; pass 0.9",
    )
    critical = constant * _shape_factors(looks, shape)
    fixed = float(special.ndtri(1.0 - alpha / 2.0) + special.ndtri(power))

    def shortfall(drift: float) -> float:
        return float(exit_probabilities(critical, drift=drift).upper.sum()) - power

    drift = _root(shortfall, 0.0, 2.0 * fixed + float(critical.max()))
    largest = (drift / fixed) ** 2
    return GroupSequentialDesign(
        critical_values=critical,
        constant=constant,
        drift=drift,
        maximum_information=largest,
        expected_information_null=largest * _expected_fraction(critical, 0.0),
        expected_information_alternative=largest * _expected_fraction(critical, drift),
    )


def _expected_fraction(critical: FloatArray, drift: float) -> float:
    """Mean information fraction at the stop: each look that is reached costs one step."""
    exits = exit_probabilities(critical, drift=drift)
    reached = 1.0 - np.concatenate(([0.0], np.cumsum(exits.upper + exits.lower)[:-1]))
    return float(reached.mean())


def _shape_factors(looks: int, shape: Shape) -> FloatArray:
    if shape not in get_args(Shape):
        raise InvalidInputError(f"shape must be one of {get_args(Shape)}, got {shape!r}")
    return np.asarray((np.arange(1, looks + 1) / looks) ** POWERS[shape], dtype=np.float64)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy import optimize

    return float(optimize.brentq(function, low, high, xtol=1e-12))


def _checked_information(looks: int, information: ArrayLike | None) -> FloatArray:
    _checked_looks(looks)
    if information is None:
        return np.arange(1, looks + 1) / looks
    times = np.atleast_1d(np.asarray(information, dtype=np.float64))
    ascending = np.diff(times, prepend=0.0) > 0.0
    if times.shape != (looks,) or not ascending.all() or abs(times[-1] - 1.0) > 1e-9:
        raise InvalidInputError(
            f"information must ascend from above 0 to 1 with one fraction a look, got "
            f"{information!r} for {looks} looks; divide by the last look's information"
        )
    return times


def _checked_looks(looks: int) -> None:
    require(
        1 <= looks <= 100,
        f"looks must be 1 to 100, got {looks}; for more take a confidence sequence",
    )


def _checked_share(name: str, value: float) -> None:
    require(
        0.0 < value < 1.0,
        f"{name} must be in (0, 1), got {value}; pass 0.05",
    )
