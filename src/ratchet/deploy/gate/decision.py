"""From scores to a decision that can be stored: the gate's result, its evidence, and its id.

    decision = decide(scores, policy, Gated(champion, challenger, cycle_id, sets), now=now)

A candidate is decided on once: a further decision on the same two artefacts is another look at
them, and is made only where the policy plans looks or the first one could weigh nothing.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ratchet.deploy.gate.evidence import MetricEvidence, weigh
from ratchet.deploy.gate.gate import GateResult, primary_question, run_gate
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.deploy.gate.scores import GateScores
from ratchet.errors import InvalidInputError
from ratchet.records import (
    ClusterComparison,
    Decision,
    Measured,
    RegressionSet,
    derive_id,
    digest,
)
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.store import EventStore
from ratchet.tracking import ModelVersion

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gated:
    """Identity of a gate run; the id of its decision derives from it.

    Attributes:
        champion: What is in use.
        challenger: What would replace it.
        cycle_id: The cycle whose gate it is.
        example_set_ids: The frozen sets that both answer, that of the primary metric first.
    """

    champion: ModelVersion
    challenger: ModelVersion
    cycle_id: str
    example_set_ids: tuple[str, ...]

    @property
    def same_digest(self) -> bool:
        """Whether both are the same artefact."""
        return self.champion.digest == self.challenger.digest


def decide(
    scores: GateScores,
    policy: GatePolicy,
    gated: Gated,
    *,
    now: datetime,
    clusters: Sequence[ClusterComparison] = (),
    earlier: Sequence[Decision] = (),
    usable_judges: Collection[str] = (),
    failure: str | None = None,
) -> Decision:
    """Run the gate over recorded scores and return its decision.

    Args:
        scores: Of both models on the same examples.
        policy: What must be shown.
        gated: What is gated.
        now: The time.
        clusters: Both on the frozen examples of failure clusters, shown beside the verdict.
        earlier: The looks before this one (`looks_before`).
        usable_judges: Names and versions of judges that were found usable.
        failure: Why the evaluation failed, if it did.
    """
    result = run_gate(
        scores,
        policy,
        earlier=[decision.examples for decision in earlier],
        usable_judges=usable_judges,
        same_digest=gated.same_digest,
        failure=failure,
    )
    for note in result.notes:
        logger.warning("the gate of %s: %s", gated.challenger.reference, note)
    primary = result.primary or _primary(scores, policy, result.level)
    waits = result.approval is not None
    return Decision(
        id=decision_id(policy, gated),
        cycle_id=gated.cycle_id,
        created_at=now,
        champion=gated.champion.reference,
        challenger=gated.challenger.reference,
        verdict=result.verdict,
        reasons=result.reasons,
        primary_metric=policy.primary.metric,
        champion_value=primary.champion,
        challenger_value=primary.challenger,
        difference=primary.difference,
        interval=_finite(primary.interval),
        p_value=primary.p_shown,
        examples=primary.examples,
        example_set_id=gated.example_set_ids[0],
        policy=policy.model_dump(mode="json"),
        evidence=_evidence(result, primary),
        clusters=tuple(clusters),
        measured=tuple(_record(one) for one in (primary, *result.guardrails, *result.secondary)),
        level=result.level,
        look=result.look,
        needed=result.needed,
        approval=result.approval,
        expires_at=now + timedelta(hours=policy.approval_hours) if waits else None,
        example_set_ids=gated.example_set_ids,
        notes=result.notes,
    )


def decision_id(policy: GatePolicy, gated: Gated) -> str:
    """Return the id of this gate's decision: asking again finds the one that was stored."""
    rule = digest(policy.model_dump(mode="json"))
    return derive_id(
        "decision",
        gated.cycle_id,
        gated.champion.digest,
        gated.challenger.digest,
        *gated.example_set_ids,
        rule,
    )


def stored_decision(store: EventStore, policy: GatePolicy, gated: Gated) -> Decision | None:
    """Return the decision that stands for this candidate, or None where it is to be decided.

    The same gate finds its own decision. Under another policy or on other examples the cycle's
    earlier decision on these two stands: to try again until one passes is what a gate is there to
    prevent. It does not stand where it could weigh nothing, and where the policy has looks left.
    """
    own = store.get(Decision, decision_id(policy, gated))
    if own is not None:
        return own
    before = [decision for decision in _of_candidate(store, gated) if _weighed(decision)]
    if not before or (_same_rule(before[-1], policy) and _looks_left(before, policy)):
        return None
    return before[-1]


def looks_before(store: EventStore, policy: GatePolicy, gated: Gated) -> tuple[Decision, ...]:
    """Return the earlier looks at this candidate under a policy with looks."""
    if policy.looks is None:
        return ()
    return tuple(one for one in _of_candidate(store, gated) if _weighed(one))


def compare_on_cluster(
    regression: RegressionSet,
    champion: Mapping[str, bool | None],
    challenger: Mapping[str, bool | None],
) -> ClusterComparison:
    """Compare two models on the frozen examples of one failure cluster.

    Args:
        regression: The cluster's set.
        champion: Right or wrong by example id; None where there is no score.
        challenger: The same examples for the challenger.

    Raises:
        InvalidInputError: The two were not scored on the same examples.
    """
    if champion.keys() != challenger.keys():
        raise InvalidInputError(
            f"both must be scored on the same examples of {regression.name!r}, got "
            f"{len(champion)} and {len(challenger)}; evaluate both on one set"
        )
    pairs = [(champion[key], challenger[key]) for key in champion]
    cells = Counter(pair for pair in pairs if None not in pair)
    only_first, only_second = cells[True, False], cells[False, True]
    return ClusterComparison(
        cluster_id=regression.id,
        name=regression.name,
        example_set_id=regression.example_set_id,
        examples=cells.total(),
        unscored=len(pairs) - cells.total(),
        champion_right=cells[True, True] + only_first,
        challenger_right=cells[True, True] + only_second,
        only_champion_right=only_first,
        only_challenger_right=only_second,
        p_value=mcnemar_exact(only_first, only_second).p_value,
    )


def _of_candidate(store: EventStore, gated: Gated) -> list[Decision]:
    both = (gated.champion.reference, gated.challenger.reference)
    return [
        decision
        for decision in store.records(Decision)
        if decision.cycle_id == gated.cycle_id and (decision.champion, decision.challenger) == both
    ]


def _weighed(decision: Decision) -> bool:
    """Whether the primary metric was looked at; what lacked data or failed spent nothing."""
    return not decision.measured or decision.measured[0].problem is None


def _same_rule(decision: Decision, policy: GatePolicy) -> bool:
    return decision.policy == policy.model_dump(mode="json")


def _looks_left(before: Sequence[Decision], policy: GatePolicy) -> bool:
    return (
        policy.looks is not None
        and len(before) < policy.looks.maximum
        and before[-1].verdict == "inconclusive"
    )


def _primary(scores: GateScores, policy: GatePolicy, level: float) -> MetricEvidence:
    """What the scores say where the gate did not need them; without any, that there are none."""
    question = primary_question(policy)
    metric_scores = scores.metrics.get(question.metric)
    if metric_scores is None:
        return MetricEvidence(question, problem="no example has both scores")
    return weigh(metric_scores, question, alpha=level)


def _evidence(result: GateResult, primary: MetricEvidence) -> dict[str, float]:
    numbers: dict[str, float | None] = {"unscored": float(max(primary.unscored))}
    if primary.discordance is not None and primary.difference is not None:
        differ = primary.discordance * primary.examples
        more = primary.gain * primary.examples  # right alone is better alone
        numbers["only_champion_right"] = round((differ - more) / 2)
        numbers["only_challenger_right"] = round((differ + more) / 2)
    if result.floor is not None:
        numbers["constant_answer_rate"] = result.floor.rate
        numbers["challenger_lower_bound"] = result.floor.lower
    numbers["hold_margin"] = result.hold_margin
    numbers["losses_to_overturn"] = result.losses_to_overturn
    return {name: value for name, value in numbers.items() if value is not None}


def _record(evidence: MetricEvidence) -> Measured:
    question = evidence.question
    return Measured(
        role=question.role,
        name=evidence.name,
        metric=question.metric,
        cluster=question.cluster,
        examples_of=question.examples_of,
        higher_is_better=question.higher_is_better,
        margin=question.margin,
        relative=question.relative,
        champion=evidence.champion,
        challenger=evidence.challenger,
        difference=evidence.difference,
        interval=_finite(evidence.interval),
        p_shown=evidence.p_shown,
        p_harm=evidence.p_harm,
        examples=evidence.examples,
        units=evidence.units,
        unscored=evidence.unscored,
        test=evidence.test,
        problem=evidence.problem,
    )


def _finite(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval if interval is not None and all(map(math.isfinite, interval)) else None
