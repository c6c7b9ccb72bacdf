"""Intervals for observations that come in clusters, such as the interactions of one user.

Interactions of one user resemble each other, so that n of them tell less than n independent ones:
the variance of a mean is larger by the design effect. The unit that is independent is the user, and
users are what these intervals count. Their estimate weighs every observation alike, so that a user
with many observations counts for more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import checked_level, finite_values
from ratchet.stats.intervals.fixed import Interval

FEWEST_RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class ClusterInterval:
    """An estimate from clustered observations with its interval.

    Attributes:
        estimate: Mean of all observations.
        interval: Its confidence interval.
        standard_error: Standard error that allows for clusters.
        clusters: Number of clusters.
        observations: Number of observations.
        design_effect: Variance of the estimate over what independent observations would give; 4
            means that four observations count for one.
    """

    estimate: float
    interval: Interval
    standard_error: float
    clusters: int
    observations: int
    design_effect: float

    @property
    def effective_observations(self) -> float:
        """Independent observations that would tell as much."""
        return self.observations / self.design_effect


def cluster_rate_interval(
    successes: ArrayLike, trials: ArrayLike, *, level: float = 0.95
) -> ClusterInterval:
    """Interval of a rate from the counts of each cluster.

    Ratio estimator r = sum y / sum n with linearized variance
    m / (m - 1) sum (y_i - r n_i)^2 / (sum n)^2 over m clusters, and Student's t with m - 1 degrees
    of freedom; cut to [0, 1]. The design effect compares with r (1 - r) / (sum n - 1).

    Units: counts in, shares in [0, 1] out.
    Assumptions: independent clusters, enough of them (about 30) for the mean of residuals to be
    near normal, none with most of the trials. Within a cluster anything may depend on anything.
    Error rate: approximate. At level 0.95 with users whose own rates differ widely, 30 clusters
    cover a rate of 0.5 in 0.95 of samples and one of 0.05 in 0.91, 100 clusters in 0.95 and 0.93;
    10 clusters in 0.92 and 0.84.
    When not to use: for independent trials (`wilson` is better near 0 and 1); for a handful of
    clusters; where nothing or everything is a success.

    Args:
        successes: Successes of each cluster, shape (m,), 0 to its trials.
        trials: Trials of each cluster, shape (m,), at least 1.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Fewer than two clusters, or all have one rate, which leaves the
            variance between clusters unknown.
        InvalidInputError: A count or the level is out of range.

    Example:
        >>> result = cluster_rate_interval([0, 10, 2, 9, 1, 8], [10] * 6)
        >>> round(result.interval.lower, 3), round(result.interval.upper, 3)
        (0.031, 0.969)
        >>> round(result.design_effect, 1)
        7.9

    References:
        Cochran, W. G. (1977). Sampling Techniques, 3rd ed., section 3.12 (binomial variables in
        cluster sampling). Kish, L. (1965). Survey Sampling, section 5.4.
    """
    done, total = _counts(successes, trials)
    rate = float(done.sum() / total.sum())
    independent = rate * (1.0 - rate) / max(1.0, float(total.sum()) - 1.0)
    result = _ratio_interval(done, total, independent, level)
    ends = Interval(max(0.0, result.interval.lower), min(1.0, result.interval.upper), level)
    return replace(result, interval=ends)


def cluster_mean_interval(
    values: ArrayLike, clusters: ArrayLike, *, level: float = 0.95
) -> ClusterInterval:
    """Interval of a mean from values with the label of their cluster.

    As `cluster_rate_interval` with the sum of values in place of successes; not cut to a range.
    The design effect compares with s^2 / n, s the standard deviation of all values. With one value
    in each cluster it is Student's interval (`mean_interval`).

    Units: those of the values.
    Assumptions: as `cluster_rate_interval`.
    Error rate: as `cluster_rate_interval`; heavy-tailed values need more clusters.
    When not to use: as `cluster_rate_interval`.

    Args:
        values: Finite numbers, shape (n,).
        clusters: Label of each value's cluster, shape (n,), of any one type.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Fewer than two clusters, or all have one mean.
        InvalidInputError: A value is not finite, lengths differ, or the level is out of range.

    Example:
        >>> result = cluster_mean_interval([1.0, 2.0, 3.0, 5.0], ["a", "a", "b", "c"])
        >>> round(result.estimate, 2), result.clusters
        (2.75, 3)

    References:
        Cochran (1977), as `cluster_rate_interval`.
    """
    sample, sums, sizes = cluster_sums(values, clusters)
    independent = float(sample.var(ddof=1)) / sample.size if sample.size > 1 else 0.0
    return _ratio_interval(sums, sizes, independent, level)


def _ratio_interval(
    sums: FloatArray, sizes: FloatArray, independent: float, level: float
) -> ClusterInterval:
    """Ratio estimator; `independent` is the variance without clusters."""
    tail = (1.0 + checked_level(level)) / 2.0
    count, total = sums.size, float(sizes.sum())
    if count < 2:
        raise InsufficientDataError(
            f"an interval over clusters needs at least 2 clusters, got {count}; collect more users"
        )
    ratio = float(sums.sum()) / total
    residuals = sums - ratio * sizes
    error = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / total
    if error <= 1e-12 * float(np.abs(sums).sum()) / total or independent <= 0.0:
        raise InsufficientDataError(
            f"clusters must differ for their variance to be known, got {ratio:g} in all {count}; "
            "collect more, or count clusters in clopper_pearson"
        )
    half = float(special.stdtrit(count - 1, tail)) * error
    return ClusterInterval(
        estimate=ratio,
        interval=Interval(ratio - half, ratio + half, level),
        standard_error=error,
        clusters=count,
        observations=round(total),
        design_effect=error**2 / independent,
    )


def cluster_sums(
    values: ArrayLike, clusters: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the values, and the sum and number of values of each cluster.

    Raises:
        InsufficientDataError: Fewer than two clusters.
        InvalidInputError: A value is not finite, or lengths differ.
    """
    sample, labels = finite_values(values), np.asarray(clusters).ravel()
    if labels.size != sample.size:
        raise InvalidInputError(
            f"each value needs the label of its cluster, got {sample.size} values and "
            f"{labels.size} labels; pass arrays of one length"
        )
    distinct, places = np.unique(labels, return_inverse=True)
    if distinct.size < 2:
        raise InsufficientDataError(
            "an interval over clusters needs at least 2 clusters, got "
            f"{distinct.size}; collect more users"
        )
    sums = np.bincount(places, weights=sample, minlength=distinct.size).astype(np.float64)
    sizes = np.bincount(places, minlength=distinct.size).astype(np.float64)
    return sample, sums, sizes


def _counts(successes: ArrayLike, trials: ArrayLike) -> tuple[FloatArray, FloatArray]:
    done, total = np.asarray(successes).ravel(), np.asarray(trials).ravel()
    if done.size != total.size:
        raise InvalidInputError(
            f"successes and trials must have one count a cluster, got {done.size} and "
            f"{total.size}; pass arrays of one length"
        )
    if done.size < 2:
        raise InsufficientDataError(
            f"an interval over clusters needs at least 2 clusters, got {done.size}; collect more "
            "users"
        )
    if done.dtype.kind not in "iu" or total.dtype.kind not in "iu":
        raise InvalidInputError(
            f"counts must be whole numbers, got {done.dtype} and {total.dtype}; pass counts, or "
            "values to cluster_mean_interval"
        )
    wrong = (total < 1) | (done < 0) | (done > total)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise InvalidInputError(
            f"each cluster needs 0 <= successes <= trials and a trial, got {done[place]} of "
            f"{total[place]}; leave out clusters without trials"
        )
    return done.astype(np.float64), total.astype(np.float64)
