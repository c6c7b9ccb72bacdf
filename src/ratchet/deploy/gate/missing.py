"""Examples without scores, counted against the challenger, and losses that nobody saw.

Scores are most often missing where an answer failed: the endpoint timed out, the parser gave up. A
promotion therefore has to stand when every missing score is the worst for the challenger that it
can be: the best one where the champion's is missing, the worst one where the challenger's is. For
scores within [0, 1] these are 1 and 0, for others the best and the worst score that was seen of
either, so that a failure worse than any that was seen is not accounted for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ratchet.deploy.gate.policy import GatePolicy
from ratchet.deploy.gate.scores import NO_CLUSTER, GateScores, MetricScores


def lacking_scores(scores: MetricScores) -> int:
    """Count the examples that lack a score of the champion, of the challenger or of both."""
    return int((np.isnan(scores.champion) | np.isnan(scores.challenger)).sum())


def counted_against(scores: GateScores, policy: GatePolicy) -> GateScores:
    """Return scores in which every missing one is the worst for the challenger that it can be."""

    def worst(part: MetricScores) -> MetricScores:
        best, least = _extremes(part, policy.direction(part.metric))
        return replace(
            part,
            champion=np.where(np.isnan(part.champion), best, part.champion),
            challenger=np.where(np.isnan(part.challenger), least, part.challenger),
        )

    return replace(
        scores,
        metrics={name: worst(part) for name, part in scores.metrics.items()},
        sets={
            examples_of: {name: worst(part) for name, part in metrics.items()}
            for examples_of, metrics in scores.sets.items()
        },
    )


def with_losses(scores: MetricScores, losses: int, *, higher_is_better: bool) -> MetricScores:
    """Return scores with so many further examples, each of a user of its own, lost outright."""
    best, least = _extremes(scores, higher_is_better)
    users, clusters = scores.users, scores.clusters
    if users is not None:
        users = np.append(users, users.max(initial=0) + 1 + np.arange(losses))
    if clusters is not None:
        clusters = np.append(clusters, np.full(losses, NO_CLUSTER))
    return MetricScores(
        scores.metric,
        np.append(scores.champion, np.full(losses, best)),
        np.append(scores.challenger, np.full(losses, least)),
        users,
        clusters,
    )


def losses_to_overturn(still_shown: Callable[[int], bool], examples: int) -> int | None:
    """Return with how many unseen losses something is no longer shown.

    Args:
        still_shown: Whether it is with so many losses; once it is not, it is not with more.
        examples: How many there are; more losses than these are not asked about.

    Returns:
        The smallest number; None where even so many losses as examples change nothing.
    """
    low, high = 0, 1
    while still_shown(high):
        if high >= examples:
            return None
        low, high = high, min(2 * high, examples)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if still_shown(middle) else (low, middle)
    return high


def _extremes(scores: MetricScores, higher_is_better: bool) -> tuple[float, float]:
    """The best and the worst score that an example may have."""
    seen = np.concatenate([scores.champion, scores.challenger])
    seen = seen[~np.isnan(seen)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    if low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    return (high, low) if higher_is_better else (low, high)
