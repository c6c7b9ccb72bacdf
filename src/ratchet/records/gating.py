"""What the gate stores: decisions, a person's word on them, and moves of the registry's aliases."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ratchet.records.base import Identifier, Record, Text, UtcTime
from ratchet.records.clusters import ClusterComparison
from ratchet.records.rollout import RolloutPlan

Verdict = Literal["promote", "hold", "reject", "inconclusive"]


def direction_words(higher_is_better: bool) -> str:
    """Say which direction of a metric is better."""
    return f"{'higher' if higher_is_better else 'lower'} is better"


class Measured(Record):
    """What a decision rests on: one metric of both, and what its test says.

    Attributes:
        role: What it is for.
        name: The metric, with the cluster or set where it is of one.
        higher_is_better: Its direction.
        margin: How much better it must be (primary) or may be worse (guardrail).
        relative: Whether the margin is a share of the champion's mean.
        difference: Challenger minus champion, with its interval at level 1 - 2 `Decision.level`.
        p_shown: One-sided, of "not better than the margin asks".
        p_harm: One-sided, of "not worse".
        units: Independent examples, or users where examples have users.
        unscored: Examples without a score of the champion, and of the challenger.
        test: What the p-values are of.
        problem: Why nothing can be shown.
    """

    role: Literal["primary", "guardrail", "secondary"]
    name: str
    metric: str
    cluster: str | None = None
    examples_of: str | None = None
    higher_is_better: bool = True
    margin: float = 0.0
    relative: bool = False
    champion: float | None = None
    challenger: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_shown: float = 1.0
    p_harm: float = 1.0
    examples: int = 0
    units: int = 0
    unscored: tuple[int, int] = (0, 0)
    test: str = ""
    problem: str | None = None


class Decision(Record):
    """What the gate decided and on what evidence. Stored before it is acted on.

    Attributes:
        champion_value: Mean of the primary metric; None where neither was scored.
        difference: Challenger minus champion on the primary metric, with its interval.
        p_value: Of the primary metric being better, one-sided; two-sided where `level` is None.
        evidence: Further numbers that the verdict rests on.
        reasons: The rules that applied, in words.
        clusters: Champion and challenger on the frozen examples of each failure cluster.
        measured: Every metric that was asked for; empty in older records.
        level: One-sided error level of this look; None in older records, whose interval has 95 %.
        look: Which look at growing data this is.
        needed: Examples in all that would decide it if the observed difference is the true one.
        approval: Why a person must approve a promotion first; None where nobody must.
        expires_at: Until when a person may; after that it is rejected.
        rollout: How a promotion reaches users, by stages; None for all of them at once.
        example_set_ids: All sets that were answered.
        notes: What the reader should know of the scores and the numbers.
    """

    id: Identifier
    cycle_id: Identifier
    created_at: UtcTime
    champion: str
    challenger: str
    verdict: Verdict
    reasons: tuple[str, ...]
    primary_metric: str
    champion_value: float | None
    challenger_value: float | None
    difference: float | None
    interval: tuple[float, float] | None
    p_value: float
    examples: int
    example_set_id: str
    policy: dict[str, Any]
    evidence: dict[str, float]
    clusters: tuple[ClusterComparison, ...] = ()
    measured: tuple[Measured, ...] = ()
    level: float | None = None
    look: int = 1
    needed: int | None = None
    approval: str | None = None
    expires_at: UtcTime | None = None
    rollout: RolloutPlan | None = None
    example_set_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the primary metric; of older records by their policy, else higher."""
        if self.measured:
            return self.measured[0].higher_is_better
        primary = self.policy.get("primary")
        return not (isinstance(primary, dict) and primary.get("higher_is_better") is False)


class ReferenceScore(Record):
    """What a simple way of answering reaches on an evaluation set, beside the models of a gate.

    Attributes:
        name: The way, in a few words.
        says: What it is for, in a sentence.
        metric: What is measured.
        value: The mean over the set's examples.
    """

    id: Identifier
    created_at: UtcTime
    example_set_id: Identifier
    name: str
    says: str
    metric: str
    value: float


class Approval(Record):
    """A person's word on a promotion that waited for one. Written once; `id` is the decision's.

    Attributes:
        by: Who; `expiry` where nobody said anything in time.
        via: Where it was said.
    """

    id: Identifier
    created_at: UtcTime
    challenger: str
    approved: bool
    by: Identifier
    reason: Text
    via: Literal["prefect", "command", "page", "expiry"] = Field(default="command")


class Release(Record):
    """A change of the champion; the latest one names it, and the registry's aliases follow.

    Attributes:
        decision_id: The gate's decision that it rests on.
        look_id: The look at a rollout that promoted it.
        by: Who made it; None for Ratchet itself.
        note: Why.
    """

    id: Identifier
    created_at: UtcTime
    action: Literal[
        "start", "adopt", "promote", "rollback", "moved outside Ratchet", "released elsewhere"
    ]
    champion: str
    previous: str | None
    decision_id: str | None = None
    look_id: str | None = None
    by: str | None = None
    note: Text = ""
