"""What recorded scores show of one metric: is it better than a margin, is it worse.

The test follows from the scores. Right or wrong of independent examples: the exact McNemar test,
against a margin Tango's. All else: Student's test with a correction for skewness, over users where
examples have users; where few units differ at all, also the exact test of their signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ratchet.deploy.gate.scores import MetricScores
from ratchet.errors import InsufficientDataError
from ratchet.records import WIN_RATE
from ratchet.stats.arrays import FloatArray, IntArray
from ratchet.stats.comparisons import MarginTest, paired_rate_test
from ratchet.stats.comparisons.means import equal_differences_bound, paired_mean_test
from ratchet.stats.comparisons.resampling import EXACT_UP_TO, paired_permutation_test
from ratchet.stats.intervals import Interval

Role = Literal["primary", "guardrail", "secondary"]

MCNEMAR = "exact McNemar test"
TANGO = "Tango's score test"
STUDENT = "Student's test, corrected for skewness"
CLUSTERED = "Student's test over users, corrected for skewness"
EQUAL = "no example differs"
ALIKE = "every example differs by the same; rule of three"


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """What is asked of a metric.

    Attributes:
        role: What the answer is for.
        metric: Its name.
        cluster: The cluster that it is asked in; None for all examples.
        examples_of: The set of examples that it is asked of; None for the primary's.
        higher_is_better: Its direction.
        margin: How much better it must be (primary) or may be worse (guardrail), at least 0.
        relative: Whether the margin is a share of the champion's mean.
        must_be_shown: Whether a promotion waits for the answer.
        minimum_examples: Below this many nothing is shown.
        minimum_users: Below this many users nothing is shown.
        max_unscored_share: As `GatePolicy`.
        max_unscored_difference: As `GatePolicy`.
    """

    role: Role
    metric: str
    cluster: str | None = None
    examples_of: str | None = None
    higher_is_better: bool = True
    margin: float = 0.0
    relative: bool = False
    must_be_shown: bool = True
    minimum_examples: int = 30
    minimum_users: int = 20
    max_unscored_share: float = 0.05
    max_unscored_difference: float = 0.0


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """What the scores answer. Without an answer, `problem` says why, and nothing is shown.

    Attributes:
        question: What was asked.
        champion: Mean of the examples that both have a score for.
        challenger: The same.
        difference: Challenger minus champion.
        interval: Of the difference, at level 1 - 2 alpha.
        p_shown: One-sided, of "not better than the margin asks".
        p_harm: One-sided, of "not worse" (primary) or "not worse than the margin allows".
        p_no_worse: One-sided, of "worse by the hold margin or more"; of the primary metric alone.
        examples: With both scores.
        units: Independent ones: users where examples have users.
        unscored: Examples without a score of the champion, and of the challenger.
        spread: Standard deviation of the paired differences.
        discordance: Share of examples on which one alone is right; None where it is not 0 or 1.
        design_effect: Variance with users over that without.
        test: What the p-values are of.
        problem: Why nothing can be shown.
        is_few: Whether that is for want of examples or users alone.
    """

    question: GateQuestion
    champion: float | None = None
    challenger: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_shown: float = 1.0
    p_harm: float = 1.0
    p_no_worse: float | None = None
    examples: int = 0
    units: int = 0
    unscored: tuple[int, int] = (0, 0)
    spread: float | None = None
    discordance: float | None = None
    design_effect: float = 1.0
    test: str = ""
    problem: str | None = None
    is_few: bool = False

    @property
    def blocks(self) -> bool:
        """Whether a promotion must wait, whatever else is shown."""
        return self.problem is not None and (self.question.must_be_shown or not self.is_few)

    @property
    def name(self) -> str:
        """The metric, with its cluster or set where it is asked in one."""
        cluster, examples_of = self.question.cluster, self.question.examples_of
        name = (
            self.question.metric
            if examples_of is None
            else f"{self.question.metric} on {examples_of}"
        )
        return name if cluster is None else f"{name} in {cluster}"

    @property
    def gain(self) -> float:
        """The difference in the direction that is better; 0 where there is none."""
        sign = 1.0 if self.question.higher_is_better else -1.0
        return sign * (self.difference or 0.0)


def weigh(
    scores: MetricScores, question: GateQuestion, *, alpha: float, hold_margin: float | None = None
) -> MetricEvidence:
    """Answer a question from scores.

    Args:
        scores: Of the metric, and of the cluster where it is asked in one.
        question: What is asked.
        alpha: One-sided level of this look.
        hold_margin: By how much the primary metric may be worse and still be held.
    """
    lost = (int(np.isnan(scores.champion).sum()), int(np.isnan(scores.challenger).sum()))
    both = scores.take(~(np.isnan(scores.champion) | np.isnan(scores.challenger)))
    problem = _unscored(scores, both, lost, question)
    few = _few(both, question)
    is_few = problem is None and few is not None
    problem = problem or few
    if both.champion.size == 0:
        return MetricEvidence(question, unscored=lost, problem="no example has both scores")
    pairs = _Pairs.of(both, question)
    margin = question.margin if question.role == "primary" else -question.margin
    asked = pairs.against(margin, alpha, relative=question.relative)
    plain = pairs.against(0.0, alpha)
    if question.relative and problem is None and both.champion.mean() <= 0.0:
        problem = "a relative margin needs a champion's mean above 0"
    low, high = plain.interval.lower, plain.interval.upper
    return MetricEvidence(
        question=question,
        champion=float(both.champion.mean()),
        challenger=float(both.challenger.mean()),
        difference=float(both.challenger.mean() - both.champion.mean()),
        interval=(low, high) if question.higher_is_better else (-high, -low),
        p_shown=asked.p_above if problem is None else 1.0,
        p_harm=1.0 if problem else (plain if question.role == "primary" else asked).p_below,
        p_no_worse=None
        if hold_margin is None
        else (pairs.against(-hold_margin, alpha).p_above if problem is None else 1.0),
        examples=both.champion.size,
        units=plain.units,
        unscored=lost,
        spread=float(pairs.differences.std()),
        discordance=pairs.discordance,
        design_effect=pairs.design_effect(plain),
        test=pairs.test(margin, relative=question.relative),
        problem=problem,
        is_few=is_few,
    )


def default_hold_margin(scores: MetricScores) -> float:
    """Return 0.05 for scores within [0, 1], else a fifth of the champion's standard deviation.

    Where the champion's scores are all the same, 5 % of the largest score in magnitude.

    Corrected win rates are shares too: single pairs lie outside of [0, 1], their mean does not.
    """
    if scores.metric == WIN_RATE:
        return 0.05
    seen = np.concatenate([scores.champion, scores.challenger])
    seen = seen[~np.isnan(seen)]
    if seen.size == 0 or (seen.min() >= 0.0 and seen.max() <= 1.0):
        return 0.05
    spread = float(np.nanstd(scores.champion))
    return 0.2 * spread if spread > 0.0 else 0.05 * float(np.abs(seen).max())


def _unscored(
    scores: MetricScores, both: MetricScores, lost: tuple[int, int], question: GateQuestion
) -> str | None:
    """Say what is wrong with what has no score."""
    total, kept = scores.champion.size, both.champion.size
    if total and (total - kept) / total > question.max_unscored_share:
        allowed = f"{question.max_unscored_share:.1%}" if question.max_unscored_share else "none"
        return (
            f"{total - kept:,} of {total:,} examples lack scores, and the policy allows {allowed}; "
            "have them scored"
        )
    if total and abs(lost[0] - lost[1]) / total > question.max_unscored_difference:
        return (
            f"{total - kept:,} of {total:,} examples lack scores, {lost[0]:,} of the champion's "
            f"and {lost[1]:,} of the challenger's; what is missing on one side only may be what "
            "fails there; have them scored"
        )
    return None


def _few(both: MetricScores, question: GateQuestion) -> str | None:
    """Say what there is too little of."""
    examples, least = both.champion.size, question.minimum_examples
    if examples < least:
        return f"{examples} examples are fewer than the {least} asked for"
    if both.users is None:
        return None
    users, fewest = int(np.unique(both.users).size), question.minimum_users
    return f"{users} users are fewer than the {fewest} asked for" if users < fewest else None


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Scores of both on the same examples, turned so that more is better.

    Attributes:
        differences: Challenger less champion, or the reverse where less is better.
        champion: The champion's scores as they are.
        allowance: The relative margin's share of them.
        users: Where examples have users that repeat.
        cells: Both, only the champion, only the challenger, neither, for right or wrong.
        largest: Largest score in magnitude.
    """

    differences: FloatArray
    champion: FloatArray
    allowance: float
    users: IntArray | None
    cells: tuple[int, int, int, int] | None
    largest: float

    @classmethod
    def of(cls, scores: MetricScores, question: GateQuestion) -> _Pairs:
        champion, challenger = scores.champion, scores.challenger
        sign = 1.0 if question.higher_is_better else -1.0
        users = scores.users
        if users is not None and np.unique(users).size == users.size:
            users = None
        binary = bool(np.isin(champion, (0.0, 1.0)).all() and np.isin(challenger, (0.0, 1.0)).all())
        only_one = int(((champion == 1) & (challenger == 0)).sum())
        only_two = int(((champion == 0) & (challenger == 1)).sum())
        if not question.higher_is_better:
            only_one, only_two = only_two, only_one
        both = int(((champion == 1) & (challenger == 1)).sum())
        cells = (both, only_one, only_two, champion.size - both - only_one - only_two)
        return cls(
            differences=sign * (challenger - champion),
            champion=champion,
            allowance=question.margin if question.relative else 0.0,
            users=users,
            cells=cells if binary else None,
            largest=max(float(np.abs(champion).max()), float(np.abs(challenger).max())) or 1.0,
        )

    @property
    def discordance(self) -> float | None:
        if self.cells is None:
            return None
        return (self.cells[1] + self.cells[2]) / self.differences.size

    def against(self, margin: float, alpha: float, *, relative: bool = False) -> MarginTest:
        values = self.differences
        if relative:
            values, margin = values + self.allowance * self.champion, 0.0
        elif self.cells is not None and self.users is None:
            return paired_rate_test(*self.cells, margin=margin, alpha=alpha)
        try:
            tested = paired_mean_test(values, margin=margin, clusters=self.users, alpha=alpha)
        except InsufficientDataError:
            return self._equal(values, margin, alpha)
        return self._with_signs(tested, values, margin)

    def test(self, margin: float, *, relative: bool) -> str:
        if not self.differences.any():
            return EQUAL
        if not np.ptp(self.differences) and (self.cells is None or self.users is not None):
            return ALIKE
        if self.cells is not None and self.users is None and not relative:
            return MCNEMAR if margin == 0.0 else TANGO
        return STUDENT if self.users is None else CLUSTERED

    def design_effect(self, tested: MarginTest) -> float:
        alone = float(self.differences.std()) / math.sqrt(self.differences.size)
        return 1.0 if self.users is None or not alone else (tested.standard_error / alone) ** 2

    def _with_signs(self, tested: MarginTest, values: FloatArray, margin: float) -> MarginTest:
        """Where few units differ at all, the normal approximation must not decide alone."""
        if margin != 0.0:
            return tested
        sums = values
        if self.users is not None:
            _, places = np.unique(self.users, return_inverse=True)
            sums = np.bincount(places, weights=values).astype(np.float64)
        if np.count_nonzero(sums) > EXACT_UP_TO:
            return tested
        # exact up to that many: the generator is not used
        signs = paired_permutation_test(sums, rng=np.random.default_rng(0))
        return replace(
            tested,
            p_above=max(tested.p_above, signs.p_above),
            p_below=max(tested.p_below, signs.p_below),
        )

    def _equal(self, values: FloatArray, margin: float, alpha: float) -> MarginTest:
        """All units differ by the same, most often not at all: how far may others be from it."""
        mean = float(values.mean())
        units = values.size if self.users is None else int(np.unique(self.users).size)
        if units < 2:
            interval = Interval(-math.inf, math.inf, 1.0 - 2.0 * alpha)
            return MarginTest(mean, interval, margin, 1.0, 1.0, values.size, units, math.inf)
        reach = equal_differences_bound(units, self.largest, alpha=alpha)
        gap = min(1.0, abs(mean - margin) / self.largest)
        missed = (1.0 - gap) ** units if mean != margin else 1.0
        return MarginTest(
            difference=mean,
            interval=Interval(mean - reach, mean + reach, 1.0 - 2.0 * alpha),
            margin=margin,
            p_above=missed if mean > margin else 1.0,
            p_below=missed if mean < margin else 1.0,
            pairs=values.size,
            units=units,
            standard_error=0.0,
        )
