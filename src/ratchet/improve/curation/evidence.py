"""How much speaks for an answer: a lower bound of its quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.outcomes.quality import Quality, QualityWeights
from ratchet.stats.intervals.shrunken import score_lower_bounds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def evidence_weights(quality: Quality, weights: QualityWeights) -> FloatArray:
    """Return what each interaction's quality rests on, in explicit ratings, shape (n,).

    A thumb or stars count as one observation; a judge and the implicit signals as their weight
    over that of the explicit part, so that the three are in proportion to what they decide.
    """
    unit = weights.explicit or max(weights.judge, weights.implicit)
    total = np.zeros(len(quality.value))
    for part, weight in (
        (quality.explicit, weights.explicit),
        (quality.judge, weights.judge),
        (quality.implicit, weights.implicit),
    ):
        total += np.where(np.isnan(part), 0.0, weight / unit)
    return np.where(np.isnan(quality.value), 0.0, total)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was observed of answers: arrays of shape (n,), in order of time.

    Attributes:
        same: Equal where the prompt and the answer are.
        user: Equal where the user is.
        weight: From `evidence_weights`.
        value: Quality, nan where nothing was observed.
    """

    same: NDArray[np.uint64]
    user: NDArray[np.uint64]
    weight: FloatArray
    value: FloatArray


def quality_lower_bounds(
    pooled: Evidence,
    same: NDArray[np.uint64],
    evidence: FloatArray,
    prior: float,
    confidence: float,
) -> FloatArray:
    """Return what each answer is worth at least, shape (n,), nan where nothing was observed.

    Evidence on the same answer to the same prompt is pooled, one interaction a user (the latest).

    Args:
        pooled: All that was observed of the answers, also where it came from other rows.
        same: The prompt with its answer, as in `pooled`, shape (n,).
        evidence: Of each answer itself, shape (n,).
        prior: What interactions with an explicit rating are worth on average.
        confidence: See `score_lower_bounds`.
    """
    if not len(pooled.same) or not len(same):
        return np.full(len(same), np.nan)
    names, answers = np.unique(pooled.same, return_inverse=True)
    user = np.unique(pooled.user, return_inverse=True)[1]
    counted = np.zeros(len(answers), dtype=np.bool_)
    pairs = (answers * (int(user.max()) + 1) + user)[::-1]
    counted[len(answers) - 1 - np.unique(pairs, return_index=True)[1]] = True
    weight = np.where(counted, pooled.weight, 0.0)
    sums = np.bincount(answers, weights=weight * np.nan_to_num(pooled.value))
    total: FloatArray = np.bincount(answers, weights=weight).astype(np.float64)
    mean = np.divide(sums, total, out=np.zeros_like(total), where=total > 0.0)
    mine = np.minimum(np.searchsorted(names, same), len(names) - 1)
    bounds = score_lower_bounds(mean[mine], total[mine], prior_mean=prior, confidence=confidence)
    return np.where(evidence > 0.0, bounds, np.nan)
