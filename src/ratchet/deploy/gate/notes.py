"""What the reader of a gate's decision should know of its scores, beside the verdict."""

from __future__ import annotations

import numpy as np

from ratchet.deploy.gate.policy import GatePolicy
from ratchet.deploy.gate.scores import GateScores, MetricScores
from ratchet.errors import InsufficientDataError
from ratchet.stats.comparisons.means import serial_correlation

DEPENDENT = 0.01
"""p-value of the correlation of consecutive examples below which rows look dependent."""


def gate_notes(scores: GateScores, policy: GatePolicy) -> tuple[str, ...]:
    """Return a sentence for each thing that a policy or the scores leave unused or unsaid."""
    notes = [
        f"the policy names {name} as secondary, and no score is of it; there are "
        f"{', '.join(scores.metrics) or 'none'}"
        for name in policy.secondary
        if name not in scores.metrics
    ]
    unused = [name for name in scores.metrics if name not in policy.metrics]
    if unused:
        notes.append(f"scores of {', '.join(unused)} are not used: the policy does not name them")
    primary = scores.metrics.get(policy.primary.metric)
    if primary is not None and not _has_repeated_users(primary):
        notes += _looks_dependent(primary)
    return tuple(notes)


def _has_repeated_users(scores: MetricScores) -> bool:
    return scores.users is not None and np.unique(scores.users).size < scores.users.size


def _looks_dependent(primary: MetricScores) -> list[str]:
    """Say that consecutive examples resemble each other, as those of one user or hour do."""
    differences = primary.challenger - primary.champion
    try:
        found = serial_correlation(differences[~np.isnan(differences)])
    except InsufficientDataError:
        return []
    if found.p_value > DEPENDENT:
        return []
    return [
        f"consecutive examples of {primary.metric} resemble each other (correlation "
        f"{found.correlation:.2f}, p = {found.p_value:.1g}), and p-values hold for independent "
        "examples only; say by a column user_id or group which belong together, unless the file is "
        "sorted by score"
    ]
