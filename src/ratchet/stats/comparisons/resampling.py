"""A paired test by resampling: signs of differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray, IntArray
from ratchet.stats.checks import require
from ratchet.stats.comparisons.rates import checked_margin
from ratchet.stats.intervals.clustered import FEWEST_RESAMPLES, cluster_sums

EXACT_UP_TO = 20  # units that differ, of which all 2^20 sign patterns are counted
CELLS_AT_ONCE = 4_000_000
ROUNDING = 1e-9  # relative difference below which two sums are the same


@dataclass(frozen=True, slots=True)
class PermutationResult:
    """Result of a paired permutation test.

    Attributes:
        difference: Second minus first.
        p_value: Two-sided.
        p_above: One-sided, small where the second is better than the margin.
        p_below: One-sided, small where it is worse.
        patterns: Sign patterns that were counted.
        exact: Whether these were all there are.
    """

    difference: float
    p_value: float
    p_above: float
    p_below: float
    patterns: int
    exact: bool


def paired_permutation_test(
    differences: ArrayLike,
    *,
    rng: np.random.Generator,
    margin: float = 0.0,
    clusters: ArrayLike | None = None,
    resamples: int = 10_000,
) -> PermutationResult:
    """Sign-flip test of paired differences.

    Were the systems interchangeable (after the margin is taken off), each difference might as well
    have had the other sign. The p-value is the share of sign patterns whose sum is at least as
    large as the seen one: of all 2^m patterns up to m = 20 units that differ, else of a sample that
    holds the seen one, (1 + count) / (1 + resamples). Clusters (users) change sign as a whole.
    Equal magnitudes, as those of right and wrong, are drawn together by a binomial number.

    Units: those of the differences.
    Assumptions: under the null a unit's difference less the margin is distributed symmetrically
    around 0, as it is where the systems are interchangeable.
    Error rate: at most the level, for every sample size and also where patterns are sampled.
    When not to use: for equal means of differences that are skewed (`paired_mean_test`); for right
    or wrong without a margin, where it is `mcnemar_exact`, which is faster.

    Args:
        differences: Second minus first for each example, finite, shape (n,).
        rng: Generator of the patterns, where they are sampled.
        margin: What the difference is held against.
        clusters: Label of each example's cluster, shape (n,).
        resamples: Patterns to draw where there are too many to count, at least 100.

    Raises:
        InsufficientDataError: There are no differences.
        InvalidInputError: A difference is not finite, lengths differ, or a number is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> result = paired_permutation_test([1.0, 2.0, 3.0, -0.5, 1.5], rng=rng)
        >>> result.p_above, result.p_value, result.exact
        (0.0625, 0.125, True)

    References:
        Fisher, R. A. (1935). The Design of Experiments, section 21. Phipson, B., Smyth, G. K.
        (2010). Permutation p-values should never be zero. Statistical Applications in Genetics and
        Molecular Biology 9, article 39.
    """
    values = np.asarray(differences, dtype=np.float64).ravel()
    if values.size == 0:
        raise InsufficientDataError("a test needs at least 1 difference, got none; collect more")
    checked_resampling(values, resamples)
    difference = float(values.mean())
    units = values - checked_margin(margin)
    if clusters is not None:
        _, units, _ = cluster_sums(units, clusters)
    magnitudes, counts = np.unique(np.abs(units[units != 0.0]), return_counts=True)
    seen, tolerance = float(units.sum()), ROUNDING * float(np.abs(units).sum())
    exact = int(counts.sum()) <= EXACT_UP_TO
    sums = (
        _all_sums(np.repeat(magnitudes, counts))
        if exact
        else _drawn_sums(magnitudes, counts, rng, resamples)
    )
    added = 0 if exact else 1
    two_sided, above, below = (
        (int(np.count_nonzero(found)) + added) / (sums.size + added)
        for found in (
            np.abs(sums) >= abs(seen) - tolerance,
            sums >= seen - tolerance,
            sums <= seen + tolerance,
        )
    )
    return PermutationResult(difference, two_sided, above, below, sums.size + added, exact)


def _all_sums(magnitudes: FloatArray) -> FloatArray:
    sums = np.zeros(1)
    for magnitude in magnitudes:
        sums = np.concatenate([sums + magnitude, sums - magnitude])
    return sums


def _drawn_sums(
    magnitudes: FloatArray, counts: IntArray, rng: np.random.Generator, resamples: int
) -> FloatArray:
    """Sums of magnitudes with random signs; how many of equal ones are positive is binomial."""
    parts = [
        (2.0 * rng.binomial(counts, 0.5, size=(rows, counts.size)) - counts) @ magnitudes
        for rows in chunks(resamples, counts.size)
    ]
    return np.concatenate(parts)


def chunks(rows: int, columns: int) -> Iterator[int]:
    """Yield row counts that add up to `rows`, each a matrix of bounded size."""
    step = max(1, CELLS_AT_ONCE // max(1, columns))
    for start in range(0, rows, step):
        yield min(step, rows - start)


def checked_resampling(values: FloatArray, resamples: int) -> None:
    """Refuse values that are not finite and too few resamples.

    Raises:
        InvalidInputError: There are such.
    """
    require(
        bool(np.isfinite(values).all()),
        "values must be finite, got some that are not; leave out pairs without both scores",
    )
    if resamples < FEWEST_RESAMPLES:
        raise InvalidInputError(
            f"resamples must be at least {FEWEST_RESAMPLES}, got {resamples}; pass 10000"
        )
