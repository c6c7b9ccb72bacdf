"""How much speaks for an answer: a lower bound of its quality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratchet.outcomes.quality import Quality, QualityWeights
from ratchet.stats.intervals.shrunken import score_lower_bounds, shrunken_mean

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


def quality_lower_bounds(
    quality: Quality, evidence: FloatArray, answers: IntArray, users: IntArray, confidence: float
) -> FloatArray:
    """Return what each answer is worth at least, shape (n,), nan where nothing was observed.

    Evidence on the same answer to the same prompt is pooled, one interaction a user (the latest).
    The prior is what interactions with an explicit rating are worth on average.

    Args:
        quality: Of each interaction, in order of time.
        evidence: From `evidence_weights`.
        answers: Number of the prompt with its answer; equal where both are, shape (n,).
        users: Number of the user, shape (n,).
        confidence: See `score_lower_bounds`.
    """
    value = np.nan_to_num(quality.value)
    counted = np.zeros(len(value), dtype=np.bool_)
    pairs = (answers * (int(users.max(initial=0)) + 1) + users)[::-1]
    counted[len(value) - 1 - np.unique(pairs, return_index=True)[1]] = True
    weight = np.where(counted, evidence, 0.0)
    pooled = np.bincount(answers, weights=weight * value)
    total: FloatArray = np.bincount(answers, weights=weight).astype(np.float64)
    mean = np.divide(pooled, total, out=np.zeros_like(total), where=total > 0.0)[answers]
    rated = np.where(np.isnan(quality.explicit), 0.0, evidence)
    bounds = score_lower_bounds(
        mean, total[answers], prior_mean=shrunken_mean(value, rated), confidence=confidence
    )
    return np.where(evidence > 0.0, bounds, np.nan)
