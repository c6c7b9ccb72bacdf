"""Paired bootstrap of any score that is a function of sums.

A corpus score (BLEU, chrF, F1 of fields) is no mean of its examples' scores, but a function of the
sum of a few statistics of each example. Resampling needs these sums only: a resample is a row of
counts, and all resamples of both systems are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.comparisons.resampling import checked_resampling, chunks
from ratchet.stats.intervals import Interval, checked_level
from ratchet.stats.intervals.clustered import cluster_sums

Score = Callable[[FloatArray], FloatArray]
"""Sums of the statistics, shape (rows, statistics), to one score a row."""


@dataclass(frozen=True, slots=True)
class BootstrapComparison:
    """Result of a paired bootstrap.

    Attributes:
        first: Score of the first system.
        second: Score of the second.
        difference: Second minus first.
        interval: Of the difference, from the quantiles of the resamples.
        p_value: Two-sided: resampled differences, moved to mean 0, larger than the one seen.
        p_value_moses: What Moses and sacrebleu print: magnitudes of resampled differences, moved to
            mean 0, larger than the one seen. Where systems differ it counts one tail only and is
            about half of the two-sided one.
        resamples: Their number.
    """

    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float
    p_value_moses: float
    resamples: int


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    score: Score | None = None,
    *,
    rng: np.random.Generator,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1_000,
) -> BootstrapComparison:
    """Bootstrap of the difference of two systems, each example drawn with both its results.

    Examples (or whole clusters) are drawn with replacement, as many as there are; both systems are
    scored on the same draw. The p-value is (1 + number of |d* - mean d*| > |d|) / (1 + resamples),
    d* the resampled differences; that of Moses and sacrebleu counts |d*| - mean |d*| > |d|.

    Units: those of the score.
    Assumptions: independent examples (or clusters), about 30 or more; a score that is smooth in the
    sums.
    Error rate: approaches the level as examples grow in number.
    When not to use: for means, where `paired_mean_test` needs no resampling; for few examples.

    Args:
        first: Each example's statistics under the first system, shape (n,) or (n, statistics).
        second: The same of the second.
        score: From sums of shape (rows, statistics) to a score a row; the mean where left out.
        rng: Generator of the resamples.
        clusters: Label of each example's cluster, shape (n,).
        level: Nominal coverage in (0, 1).
        resamples: At least 100.

    Raises:
        InsufficientDataError: Fewer than two examples.
        InvalidInputError: Shapes differ, a value is not finite, or a number is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> right = rng.random((400, 2)) < (0.6, 0.8)
        >>> result = paired_bootstrap(right[:, 0], right[:, 1], rng=rng)
        >>> result.p_value < 0.05, 0.0 in result.interval
        (True, False)

    References:
        Koehn, P. (2004). Statistical significance tests for machine translation evaluation. EMNLP,
        388-395. Riezler, S., Maxwell, J. T. (2005). On some pitfalls in automatic evaluation and
        significance testing for MT. ACL workshop, 57-64.
    """
    one, two, score = _statistics(first, second, score)
    if clusters is not None:
        one, two = _summed(one, clusters), _summed(two, clusters)
    if one.shape[0] < 2:
        raise InsufficientDataError(
            f"a bootstrap needs at least 2 examples, got {one.shape[0]}; collect more"
        )
    checked_resampling(one, resamples)
    tail = (1.0 - checked_level(level)) / 2.0
    both = np.hstack([one, two])
    sums = np.vstack([counts @ both for counts in _bootstrap_counts(len(both), resamples, rng)])
    drawn = score(sums[:, one.shape[1] :]) - score(sums[:, : one.shape[1]])
    scores = [float(score(part.sum(axis=0, keepdims=True))[0]) for part in (one, two)]
    difference = scores[1] - scores[0]
    magnitudes = np.abs(drawn)
    tails = (np.abs(drawn - drawn.mean()), magnitudes - magnitudes.mean())
    larger = [int(np.count_nonzero(tail > abs(difference))) for tail in tails]
    ends = np.quantile(drawn, [tail, 1.0 - tail])
    return BootstrapComparison(
        first=scores[0],
        second=scores[1],
        difference=difference,
        interval=Interval(float(ends[0]), float(ends[1]), level),
        p_value=(larger[0] + 1) / (resamples + 1),
        p_value_moses=(larger[1] + 1) / (resamples + 1),
        resamples=resamples,
    )


def _bootstrap_counts(size: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """How often each example is in each resample, shape (rows, size)."""
    for rows in chunks(resamples, size):
        counts = np.empty((rows, size))
        for row in counts:  # one by one, its counts stay near the processor
            row[:] = np.bincount(rng.integers(0, size, size), minlength=size)
        yield counts


def _statistics(
    first: ArrayLike, second: ArrayLike, score: Score | None
) -> tuple[FloatArray, FloatArray, Score]:
    """Both as (n, statistics); a mean is a sum and a count."""
    one, two = (np.asarray(part, dtype=np.float64) for part in (first, second))
    if one.shape != two.shape or one.ndim not in (1, 2) or (one.ndim == 2 and score is None):
        raise InvalidInputError(
            f"both systems need statistics of the same examples, got shapes {one.shape} and "
            f"{two.shape}; pass a score for more than one statistic"
        )
    if score is not None:
        return one.reshape(len(one), -1), two.reshape(len(two), -1), score
    with_counts = [np.column_stack([part, np.ones(part.size)]) for part in (one, two)]
    return with_counts[0], with_counts[1], lambda sums: sums[:, 0] / sums[:, 1]


def _summed(statistics: FloatArray, clusters: ArrayLike) -> FloatArray:
    columns = [cluster_sums(column, clusters)[1] for column in statistics.T]
    return np.column_stack(columns)
