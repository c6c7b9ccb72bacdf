"""The floor under the gate: a challenger must beat always giving the most common right answer.

Without it a guesser beats a champion that answers off the menu (docs/decisions/0004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ratchet.deploy.gate.scores import GateScores, MetricScores
from ratchet.stats.comparisons.means import equal_differences_bound, paired_mean_test
from ratchet.stats.intervals import clopper_pearson


@dataclass(frozen=True, slots=True)
class Floor:
    """How a challenger compares with the constant answer.

    Attributes:
        rate: What the constant answer scores; None where that is not known.
        lower: One-sided lower bound of the challenger's score.
        problem: Why nothing can be shown.
    """

    rate: float | None = None
    lower: float | None = None
    problem: str | None = None

    @property
    def is_beaten(self) -> bool:
        """Whether the challenger is shown to be above it."""
        return self.rate is not None and self.lower is not None and self.lower > self.rate


def constant_answer_floor(
    scores: GateScores, primary: MetricScores, *, alpha: float, higher_is_better: bool = True
) -> Floor:
    """Bound the challenger's share of right answers from below.

    Exact (Clopper and Pearson) where examples are independent; over users, by Student's test of
    means, where users repeat. A challenger that is no better than the constant answer passes with
    probability at most alpha. The rate is that of the same examples and taken as known.

    Args:
        scores: What the gate decides on.
        primary: The scores of the primary metric, right or wrong.
        alpha: One-sided level.
        higher_is_better: The direction of the primary metric; of one of which less is better the
            constant answer is no floor.
    """
    rate = scores.constant_answer_rate
    has_scores = ~(np.isnan(primary.champion) | np.isnan(primary.challenger))
    values = primary.challenger[has_scores]
    if not higher_is_better:
        return Floor(problem=f"{primary.metric} must count right answers, and lower is better")
    if rate is None:
        return Floor(problem="what it scores is not known; give examples with their targets")
    if values.size == 0 or not np.isin(values, (0.0, 1.0)).all():
        return Floor(rate, problem=f"{primary.metric} must be right or wrong to be held against it")
    users = None if primary.users is None else primary.users[has_scores]
    if users is not None and np.unique(users).size < users.size:
        if np.ptp(values) == 0.0:
            reach = equal_differences_bound(int(np.unique(users).size), 1.0, alpha=alpha)
            return Floor(rate, float(values[0]) - reach)
        tested = paired_mean_test(values, margin=0.0, clusters=users, alpha=alpha)
        return Floor(rate, tested.interval.lower)
    right = int(values.sum())
    return Floor(rate, clopper_pearson(right, values.size, level=1.0 - 2.0 * alpha).lower)
