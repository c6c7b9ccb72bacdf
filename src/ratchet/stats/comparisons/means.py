"""Mean difference of two systems on the same examples, also where users repeat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import finite_values, require
from ratchet.stats.comparisons.rates import MarginTest, checked_alpha, checked_margin
from ratchet.stats.intervals import Interval
from ratchet.stats.intervals.clustered import cluster_sums

SMALLEST_SPREAD = 1e-12  # standard deviation over the largest value, below which it is rounding
# A sample that missed rare large losses shows too good a mean and too little skewness at once.
SKEWNESS_FACTOR = 1.3
FEWEST_IN_SERIES = 20


@dataclass(frozen=True, slots=True)
class _Moments:
    """What a test of a mean rests on: one contribution for each independent unit.

    Attributes:
        mean: Of all values.
        spread: Standard deviation of the units' contributions to it.
        skewness: Of the same, unbiased for normal ones, enlarged by `SKEWNESS_FACTOR`.
        units: Number of units.
        freedom: Degrees of freedom, less than units - 1 where few units have most of the values.
    """

    mean: float
    spread: float
    skewness: float
    units: int
    freedom: float

    @property
    def error(self) -> float:
        return self.spread / math.sqrt(self.units)

    def student(self, margin: float) -> float:
        return (self.mean - margin) / self.error

    def corrected(self, margin: float) -> float:
        """Hall's cubic transform of Student's statistic; it grows with it."""
        share, skewness = (self.mean - margin) / self.spread, self.skewness
        cubic = share + skewness * share**2 / 3.0 + skewness**2 * share**3 / 27.0
        return math.sqrt(self.units) * (cubic + skewness / (6.0 * self.units))

    def bound(self, quantile: float) -> float:
        """The margin at which the corrected statistic is the quantile."""
        target, skewness = quantile / math.sqrt(self.units), self.skewness
        if abs(skewness) < 1e-9:
            return self.mean - self.spread * target
        inner = 1.0 + skewness * (target - skewness / (6.0 * self.units))
        return self.mean - self.spread * 3.0 / skewness * (float(np.cbrt(inner)) - 1.0)


def paired_mean_test(
    differences: ArrayLike,
    *,
    margin: float = 0.0,
    clusters: ArrayLike | None = None,
    alpha: float = 0.05,
) -> MarginTest:
    """Test of a mean paired difference against a margin.

    The larger of two one-sided p-values: Student's, t = (m - margin) / (s / sqrt(n)), and that of
    Hall's transform, which takes out the skewness g of the differences:
    sqrt(n) (u + g u^2 / 3 + g^2 u^3 / 27 + g / (6 n)) with u = t / sqrt(n), g 1.3 times the sample
    skewness: samples that miss rare large losses have too good a mean and too little skewness at
    once. Both are compared with Student's distribution. With clusters (users) the units are
    clusters, each with the sum of its residuals as its contribution (linearized ratio estimator).
    A cluster with a share h of the examples has its residual divided by the root of 1 - h, or of
    1 - 2 h + sum h^2 where that is less: what residuals lack of the variance where examples of a
    cluster are independent, or all alike. The degrees of freedom are 1 / sum h^2 - 1, the number of
    equally large clusters that would tell as much, less one.

    Units: those of the differences.
    Assumptions: independent units, their number fixed in advance; within a cluster anything may
    depend on anything.
    Error rate: each one-sided p-value is at most alpha in about alpha of samples. At 5 %, by
    simulation (`tests/calibration/test_paired_mean_level.py`), with 30, 100 and 300 units: 4.5, 5.1
    and 4.8 % for normal differences, 4.6, 4.7 and 4.7 % for exponential ones on the side that
    skewness hurts (standard error 0.15). It is missed where rare large losses make the mean: 7.3,
    5.8 and 5.3 % for lognormal ones (skewness 6), 13.2, 9.7 and 6.5 % where four in five are equal
    and the rest exponential.
    When not to use: for right or wrong answers of independent examples (`paired_rate_test` is
    exact); for heavy tails, as latency in seconds (take logarithms); below about 20 clusters.

    Args:
        differences: Second minus first for each example, finite, shape (n,).
        margin: What the mean is held against; negative for non-inferiority.
        clusters: Label of each example's cluster, shape (n,).
        alpha: One-sided level of each end of the interval, in (0, 0.5).

    Raises:
        InsufficientDataError: Fewer than two units, or differences that do not vary, whose spread
            is unknown (see `equal_differences_bound`).
        InvalidInputError: A difference is not finite, lengths differ, or margin or alpha is out of
            range.

    Example:
        >>> result = paired_mean_test([0.1, 0.3, -0.1, 0.2, 0.4, 0.1, 0.0, 0.2])
        >>> round(result.difference, 2), round(result.p_above, 4)
        (0.15, 0.0166)

    References:
        Student (1908). The probable error of a mean. Biometrika 6, 1-25. Hall, P. (1992). On the
        removal of skewness by transformation. JRSS B 54, 221-228. Cochran, W. G. (1977). Sampling
        Techniques, 3rd ed., section 6.3. Bell, R. M., McCaffrey, D. F. (2002). Bias reduction in
        standard errors for linear regression with multi-stage samples. Survey Methodology 28,
        169-181. Carter, A. V., Schnepel, K. T., Steigerwald, D. G. (2017).
        Asymptotic behavior of a t test robust to cluster heterogeneity. Review of Economics and
        Statistics 99, 698-709.
    """
    values = finite_values(differences, "differences")
    checked_margin(margin)
    moments = _moments(values, clusters)
    quantile = float(special.stdtrit(moments.freedom, 1.0 - checked_alpha(alpha)))
    student, corrected = moments.student(margin), moments.corrected(margin)
    lower = min(moments.mean - quantile * moments.error, moments.bound(quantile))
    upper = max(moments.mean + quantile * moments.error, moments.bound(-quantile))
    return MarginTest(
        difference=moments.mean,
        interval=Interval(lower, upper, 1.0 - 2.0 * alpha),
        margin=margin,
        p_above=float(special.stdtr(moments.freedom, -min(student, corrected))),
        p_below=float(special.stdtr(moments.freedom, max(student, corrected))),
        pairs=values.size,
        units=moments.units,
        standard_error=moments.error,
    )


@dataclass(frozen=True, slots=True)
class SerialCorrelation:
    """How much consecutive values resemble each other.

    Attributes:
        correlation: Of each value with the next one.
        p_value: One-sided, of "consecutive values are not alike".
    """

    correlation: float
    p_value: float


def serial_correlation(values: ArrayLike) -> SerialCorrelation:
    """Correlation of each value with the next one, with a test against independence.

    r = sum (x_i - m)(x_{i+1} - m) / sum (x_i - m)^2; under independence (r + 1 / n) sqrt(n) is
    about standard normal.

    Units: any; a correlation out.
    Assumptions: values in the order in which they came.
    Error rate: asymptotic; one-sided.
    When not to use: for values that were sorted by size, which are alike by that.

    Args:
        values: Finite numbers, shape (n,).

    Raises:
        InsufficientDataError: There are fewer than 20 values, or they do not vary.
        InvalidInputError: A value is not finite.

    Example:
        >>> serial_correlation([0.0, 0.0, 1.0, 1.0] * 10).p_value > 0.05
        True
        >>> round(serial_correlation([0.0] * 20 + [1.0] * 20).correlation, 2)
        0.93

    References:
        Bartlett, M. S. (1946). On the theoretical specification and sampling properties of
        autocorrelated time-series. Supplement to the JRSS 8, 27-41.
    """
    sample = finite_values(values)
    centred = sample - sample.mean() if sample.size else sample
    total = float(centred @ centred)
    if sample.size < FEWEST_IN_SERIES or total == 0.0:
        raise InsufficientDataError(
            f"a serial correlation needs {FEWEST_IN_SERIES} values that vary, got {sample.size}; "
            "collect more"
        )
    correlation = float(centred[:-1] @ centred[1:]) / total
    statistic = (correlation + 1.0 / sample.size) * math.sqrt(sample.size)
    return SerialCorrelation(correlation, float(special.ndtr(-statistic)))


def equal_differences_bound(units: int, largest: float, *, alpha: float = 0.05) -> float:
    """How far the mean difference may be from 0 where no unit shows any.

    largest (1 - alpha^(1 / n)): a share of other units of 1 - alpha^(1 / n), about 3 / n at 5 %,
    would be missed by n units with probability alpha, and none differs by more than the largest.

    Units: those of `largest`.
    Assumptions: independent units; no difference is larger than the largest.
    Error rate: one-sided alpha, where that is so.
    When not to use: where any difference was seen.

    Args:
        units: Independent units, at least 1.
        largest: Largest difference that can be; where scores have no range, the largest score seen.
        alpha: One-sided level, in (0, 0.5).

    Raises:
        InsufficientDataError: There are no units.
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(equal_differences_bound(100, 1.0), 4)
        0.0295

    References:
        Hanley, J. A., Lippman-Hand, A. (1983). If nothing goes wrong, is everything all right?
        JAMA 249, 1743-1745.
    """
    if units < 1:
        raise InsufficientDataError(f"a bound needs at least 1 unit, got {units}; collect more")
    require(
        math.isfinite(largest) and largest >= 0.0,
        f"largest must be a finite number from 0 on, got {largest}; pass the range of the score",
    )
    return largest * float(1.0 - checked_alpha(alpha) ** (1.0 / units))


def _moments(values: FloatArray, clusters: ArrayLike | None) -> _Moments:
    if clusters is None:
        mean, units = float(values.mean()) if values.size else 0.0, values.size
        weights, freedom = np.full(units, 1.0 / max(1, units)), units - 1.0
        residuals = values - mean
    else:
        _, sums, sizes = cluster_sums(values, clusters)
        units, total = sums.size, float(sizes.sum())
        mean = float(sums.sum()) / total
        weights = sizes / total
        residuals = (sums - mean * sizes) * units / total
        freedom = total**2 / float(sizes @ sizes) - 1.0
    if units < 2 or freedom <= 0.0:
        raise InsufficientDataError(
            f"a test of a mean needs at least 2 independent examples or users, got {units}; "
            "collect more"
        )
    residuals = residuals / np.sqrt(
        np.minimum(1.0 - weights, 1.0 - 2.0 * weights + float(weights @ weights))
    )
    variance = float(residuals @ residuals) / units
    if math.sqrt(variance) <= SMALLEST_SPREAD * float(np.abs(values).max()):
        raise InsufficientDataError(
            f"differences must vary for their spread to be known, got {mean:g} from all {units}; "
            "see equal_differences_bound"
        )
    skewness = SKEWNESS_FACTOR * float((residuals**3).mean()) / variance**1.5
    skewness *= units / max(1, units - 2)
    return _Moments(mean, math.sqrt(variance), skewness, units, freedom)
