"""What the reader of a gate's decision should know of its scores, beside the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratchet.deploy.gate.evidence import MCNEMAR, MetricEvidence
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


def interval_notes(weighed: Sequence[MetricEvidence], level: float) -> tuple[str, ...]:
    """Explain each p-value that says another thing than the interval beside it.

    Most intervals hold what their test does not reject. Two do not quite: that of right or wrong
    answers, beside the exact McNemar test, and that of scores of which few differ, beside the exact
    test of their signs.

    Args:
        weighed: What a promotion rests on.
        level: One-sided level of the look.
    """
    return tuple(_disagreement(one, level) for one in weighed if _disagrees(one, level))


def _disagrees(evidence: MetricEvidence, level: float) -> bool:
    question, interval = evidence.question, evidence.interval
    if interval is None or question.relative or evidence.problem is not None:
        return False
    low = interval[0] if question.higher_is_better else -interval[1]
    return (low > _asked(evidence)) != (evidence.p_shown <= level)


def _asked(evidence: MetricEvidence) -> float:
    """How much better it has to be, below 0 where it may be worse."""
    question = evidence.question
    return question.margin if question.role == "primary" else -question.margin


def _disagreement(evidence: MetricEvidence, level: float) -> str:
    assert evidence.interval is not None
    low, high = evidence.interval
    is_shown = evidence.p_shown <= level
    one, other = ("at most", "holds") if is_shown else ("above", "lies beyond")
    exact = "counts the examples on which one alone is right"
    if evidence.test != MCNEMAR:
        exact = "counts the signs of the few differences that there are"
    return (
        f"{evidence.name}: p = {evidence.p_shown:.3g} is {one} the level of {level:.3g}, and the "
        f"interval [{low:+.4g}, {high:+.4g}] {other} {_asked(evidence):.3g}: they come from "
        f"different procedures. p decides: its test is exact, {exact} and errs in no more than the "
        "level; the interval is an approximation, close but not the same near the border"
    )


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
