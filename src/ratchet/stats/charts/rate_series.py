"""A rate over time beside what was expected of it: a phase II p chart whose center moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray, IntArray

WIDTH = 3.0


@dataclass(frozen=True, slots=True)
class RateSeries:
    """Points with their expectation and limits, arrays of shape (points,).

    Attributes:
        starts: When each point begins, seconds since 1970.
        values: Rate of each point.
        expected: What the baseline expects of it.
        lower: Expected minus three standard errors, not below 0.
        upper: Expected plus three standard errors, not above 1.
        trials: Observations of each point.
        signals: Indices of the points outside their limits.
    """

    starts: FloatArray
    values: FloatArray
    expected: FloatArray
    lower: FloatArray
    upper: FloatArray
    trials: FloatArray
    signals: IntArray


def rate_series(
    starts: ArrayLike, events: ArrayLike, trials: ArrayLike, expected: ArrayLike, *, group: int = 12
) -> RateSeries:
    """Sum batches to points and compare each with its expectation.

    limits = expected +- 3 sqrt(expected (1 - expected) / trials), the expectation of a point being
    that of its batches weighted by their trials. Points without trials are left out.

    Units: counts in, shares out.
    Assumptions: independent trials given the expectation, which is taken as known.
    Error rate: about 0.27 % false alarms a point where about 10 events are expected; it is a
    picture, no decision rests on it.
    When not to use: to decide; take the board's evidence, whose error rate holds for all points.

    Args:
        starts: When each batch begins, shape (batches,).
        events: Bad events of each batch.
        trials: Trials of each batch.
        expected: Expected rate of each batch.
        group: Batches to a point.

    Raises:
        InvalidInputError: Shapes differ.
        InsufficientDataError: No batch has a trial.

    Example:
        >>> series = rate_series([0, 1, 2, 3], [1, 1, 9, 9], [50] * 4, [0.02] * 4, group=2)
        >>> series.values.tolist(), series.signals.tolist()
        ([0.02, 0.18], [1])
    """
    arrays = [np.asarray(item, dtype=np.float64) for item in (starts, events, trials, expected)]
    if len({item.shape for item in arrays}) != 1 or arrays[0].ndim != 1:
        raise InvalidInputError(
            "starts, events, trials and expected must be equally long, got shapes "
            f"{[item.shape for item in arrays]}; pass one of each a batch"
        )
    begins, bad, seen, rates = arrays
    edges = np.arange(0, begins.size, group)
    total = np.add.reduceat(seen, edges) if begins.size else seen
    kept = total > 0.0
    if not kept.any():
        raise InsufficientDataError("a series needs a batch with trials, got none; collect more")
    total = total[kept]
    values = np.add.reduceat(bad, edges)[kept] / total
    center = np.add.reduceat(rates * seen, edges)[kept] / total
    half = WIDTH * np.sqrt(center * (1.0 - center) / total)
    outside = np.flatnonzero(np.abs(values - center) > half)
    return RateSeries(
        starts=begins[edges][kept],
        values=values,
        expected=center,
        lower=np.maximum(center - half, 0.0),
        upper=np.minimum(center + half, 1.0),
        trials=total,
        signals=outside.astype(np.int64),
    )
