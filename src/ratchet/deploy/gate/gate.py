"""The gate over recorded scores: promote, hold, reject or inconclusive, at a stated error level.

    result = run_gate(read_scores(path), policy)
    result.verdict, result.reasons

To promote, the primary metric must be shown better and every guardrail that asks for it shown no
worse by its margin, each at the level: were one of these false, its own test would have to err, so
that a promotion is wrong with at most the level however many guardrails there are. To reject, the
primary metric must be shown worse or a guardrail broken, by Holm over all of them. What can be
shown neither way is held (no worse by the hold margin) or inconclusive. Missing data, too few
examples, an unusable judge and a failed evaluation never end in promote.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ratchet.deploy.gate.constant_answer import Floor, constant_answer_floor
from ratchet.deploy.gate.evidence import GateQuestion, MetricEvidence, default_hold_margin, weigh
from ratchet.deploy.gate.policy import GatePolicy, Guardrail
from ratchet.deploy.gate.sample_size import examples_to_settle
from ratchet.deploy.gate.scores import REGRESSION, GateScores, MetricScores
from ratchet.errors import InvalidInputError
from ratchet.records import Verdict
from ratchet.stats.comparisons.several_metrics import all_must_hold, holm
from ratchet.stats.comparisons.spending import SMALLEST_STEP, nominal_levels

BORDERLINE = 0.5  # of the level: a deciding p above it is borderline


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate decided, and on what evidence.

    Attributes:
        verdict: What to do.
        reasons: The rules that applied, in words.
        primary: The finding on the primary metric; None where nothing was weighed.
        guardrails: The findings on guardrails.
        secondary: Findings that decided nothing.
        adjusted: p-values of secondary metrics being better, by Holm.
        level: One-sided level of this look.
        look: Which look this is, from 1.
        hold_margin: By how much the primary metric may be worse and still be held.
        needed: Examples that would settle it, were the truth what was seen; None where it is
            settled, or where no number would do.
        approval: Why a person must approve a promotion; None where nobody must.
        floor: Where the policy asks that the constant answer is beaten, how that came out.
        policy: What was asked.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    policy: GatePolicy
    primary: MetricEvidence | None = None
    guardrails: tuple[MetricEvidence, ...] = ()
    secondary: tuple[MetricEvidence, ...] = ()
    adjusted: Mapping[str, float] = field(default_factory=dict)
    level: float = 0.05
    look: int = 1
    hold_margin: float | None = None
    needed: int | None = None
    approval: str | None = None
    floor: Floor | None = None


def run_gate(
    scores: GateScores,
    policy: GatePolicy,
    *,
    earlier: Sequence[int] = (),
    usable_judges: Collection[str] = (),
    same_digest: bool = False,
    failure: str | None = None,
    plan: bool = True,
) -> GateResult:
    """Decide on recorded scores.

    Args:
        scores: Of both on the same examples.
        policy: What must be shown.
        earlier: Examples of the primary metric at each look before, where the policy has looks.
        usable_judges: Judges, by name or version, that were found usable.
        same_digest: Whether both are the same artefact.
        failure: Why the evaluation failed, if it did.
        plan: Whether to say how many examples would settle what is open.

    Raises:
        InvalidInputError: Looks come more often than planned, or without new examples.
    """
    if same_digest or scores.identical_outputs:
        what = "the digests are the same" if same_digest else "every answer is identical"
        return GateResult("hold", (f"same artefact: {what}",), policy, level=policy.error_level)
    unusable = [judge for judge in policy.judges if judge not in usable_judges]
    if failure is not None or unusable:
        reason = f"the evaluation failed: {failure}"
        if failure is None:
            reason = f"judges that the policy asks for are not usable: {', '.join(unusable)}"
        return GateResult("inconclusive", (reason,), policy, level=policy.error_level)
    found = _primary_scores(scores, policy)
    examples = int((~(np.isnan(found.champion) | np.isnan(found.challenger))).sum())
    level, look = _level(policy, examples, earlier)
    hold_margin = policy.primary.hold_margin or default_hold_margin(found)
    primary = weigh(found, _primary_question(policy), alpha=level, hold_margin=hold_margin)
    guardrails = tuple(
        weigh(part, question, alpha=level) for part, question in _guarded(scores, policy)
    )
    secondary = tuple(
        weigh(scores.metrics[name], _secondary_question(policy, name), alpha=level)
        for name in policy.secondary
        if name in scores.metrics
    )
    adjusted = holm([finding.p_shown for finding in secondary])
    verdict, reasons = _verdict(policy, primary, guardrails, level, look, hold_margin)
    floor = None
    if policy.beat_constant_answer:
        higher = policy.primary.higher_is_better
        floor = constant_answer_floor(scores, found, alpha=level, higher_is_better=higher)
    if floor is not None and verdict in ("promote", "hold", "inconclusive") and not primary.blocks:
        verdict, reasons = _above_floor(floor, verdict, reasons)
    return GateResult(
        verdict=verdict,
        reasons=reasons,
        policy=policy,
        primary=primary,
        guardrails=guardrails,
        secondary=secondary,
        adjusted={
            finding.question.metric: float(p)
            for finding, p in zip(secondary, adjusted, strict=True)
        },
        level=level,
        look=look,
        hold_margin=hold_margin,
        floor=floor,
        needed=_needed(policy, primary, guardrails, level, hold_margin, look)
        if verdict == "inconclusive" and plan
        else None,
        approval=_approval(policy, primary, guardrails, level) if verdict == "promote" else None,
    )


def _primary_scores(scores: GateScores, policy: GatePolicy) -> MetricScores:
    nothing = MetricScores(policy.primary.metric, np.empty(0), np.empty(0))
    return scores.metrics.get(policy.primary.metric, nothing)


def _level(policy: GatePolicy, examples: int, earlier: Sequence[int]) -> tuple[float, int]:
    """The one-sided level of this look, and which it is."""
    look = len(earlier) + 1
    if policy.looks is None:
        if earlier:
            raise InvalidInputError(
                f"looks before this one go with a policy that has looks, got {list(earlier)}; "
                "state looks in the policy: each further look spends the error level again"
            )
        return policy.error_level, look
    if look > policy.looks.maximum:
        raise InvalidInputError(
            f"the policy has {policy.looks.maximum} looks, got look {look}; take fresh examples"
        )
    if examples == 0:
        return policy.error_level, look
    planned = policy.looks.examples
    seen = [min(1.0, count / planned) for count in (*earlier, examples)]
    if look == policy.looks.maximum:
        seen[-1] = 1.0  # nothing is left to be spent later
    if any(
        later - before < SMALLEST_STEP for before, later in zip([0.0, *seen], seen, strict=False)
    ):
        raise InvalidInputError(
            f"each look must have more examples than the one before and less than the {planned} "
            f"planned before the last, got {[*earlier, examples]}"
        )
    levels = nominal_levels(seen, alpha=policy.error_level, spending=policy.looks.spending)
    return float(levels[-1]), look


def _primary_question(policy: GatePolicy) -> GateQuestion:
    rule = policy.primary
    return GateQuestion(
        role="primary",
        metric=rule.metric,
        higher_is_better=rule.higher_is_better,
        margin=rule.margin,
        minimum_examples=policy.minimum_examples,
        minimum_users=policy.minimum_users,
        max_unscored_share=policy.max_unscored_share,
        max_unscored_difference=policy.max_unscored_difference,
    )


def _secondary_question(policy: GatePolicy, metric: str) -> GateQuestion:
    return GateQuestion(
        role="secondary",
        metric=metric,
        higher_is_better=policy.direction(metric),
        must_be_shown=False,
        minimum_examples=policy.minimum_examples,
        minimum_users=policy.minimum_users,
        max_unscored_share=policy.max_unscored_share,
        max_unscored_difference=policy.max_unscored_difference,
    )


def _guarded(scores: GateScores, policy: GatePolicy) -> list[tuple[MetricScores, GateQuestion]]:
    """Each guardrail's scores with its question; per cluster one for each."""
    asked = []
    for rule in policy.guardrails:
        default = REGRESSION if rule.per_cluster and REGRESSION in scores.sets else None
        measured = _measured(scores, rule.examples or default)
        if rule.per_cluster and rule.examples is None and default and not measured:
            continue  # there are no failure clusters
        found = measured.get(rule.metric, MetricScores(rule.metric, np.empty(0), np.empty(0)))
        if not rule.per_cluster:
            asked.append((found, _guardrail_question(policy, rule, None)))
            continue
        known = np.empty(0, np.int64) if found.clusters is None else found.clusters
        places = np.unique(known[known >= 0])
        if places.size == 0:  # a guardrail without anything to guard has not been passed
            empty = MetricScores(rule.metric, np.empty(0), np.empty(0))
            asked.append((empty, _guardrail_question(policy, rule, "any cluster")))
        for place in places:
            part = found.take(found.clusters == place)
            asked.append((part, _guardrail_question(policy, rule, scores.cluster_names[place])))
    return asked


def _measured(scores: GateScores, examples: str | None) -> Mapping[str, MetricScores]:
    """The metrics on a set of examples; nothing where there is no such set."""
    return scores.metrics if examples is None else scores.sets.get(examples, {})


def _guardrail_question(policy: GatePolicy, rule: Guardrail, cluster: str | None) -> GateQuestion:
    return GateQuestion(
        role="guardrail",
        metric=rule.metric,
        cluster=cluster,
        examples_of=rule.examples,
        higher_is_better=rule.higher_is_better,
        margin=rule.margin,
        relative=rule.relative,
        must_be_shown=rule.requires == "shown",
        minimum_examples=rule.minimum_examples,
        minimum_users=min(policy.minimum_users, rule.minimum_examples),
        max_unscored_share=policy.max_unscored_share,
        max_unscored_difference=policy.max_unscored_difference,
    )


def _verdict(
    policy: GatePolicy,
    primary: MetricEvidence,
    guardrails: Sequence[MetricEvidence],
    level: float,
    look: int,
    hold_margin: float,
) -> tuple[Verdict, tuple[str, ...]]:
    """Apply the rules in order; the first that applies gives the verdict."""
    harms = [primary, *guardrails]
    harmful = [
        finding
        for finding, p in zip(harms, holm([one.p_harm for one in harms]), strict=True)
        if p <= level
    ]
    if harmful:
        return "reject", tuple(_harm(finding) for finding in harmful)
    blocking = [finding for finding in harms if finding.blocks]
    if blocking:
        return "inconclusive", tuple(f"{one.name}: {one.problem}" for one in blocking)
    better = f"{primary.name} is better, p = {primary.p_shown:.2g} ({primary.test})"
    open_ones = [one for one in guardrails if one.question.must_be_shown and one.p_shown > level]
    if primary.p_shown <= level and not open_ones:
        kept = [
            f"{one.name} is no worse by {_margin(one)}, p = {one.p_shown:.2g}"
            for one in guardrails
            if one.question.must_be_shown
        ]
        watched = len(guardrails) - len(kept)
        if watched:
            kept.append(f"{watched} other guardrails are not shown to be broken")
        return "promote", (better, *kept)
    if primary.p_shown <= level:
        return "inconclusive", (
            better,
            *(
                f"{one.name} is not shown to be no worse by {_margin(one)}, p = {one.p_shown:.2g}"
                for one in open_ones
            ),
        )
    not_shown = f"{primary.name} is not shown to be better, p = {primary.p_shown:.2g}"
    if policy.looks is not None and look < policy.looks.maximum:
        left = policy.looks.maximum - look
        return "inconclusive", (f"{not_shown}; {left} more looks are planned",)
    if primary.p_no_worse is not None and primary.p_no_worse <= level:
        return "hold", (f"{not_shown}, and shown to be no worse by {hold_margin:.3g}",)
    return "inconclusive", (f"{not_shown}, nor to be no worse by {hold_margin:.3g}",)


def _above_floor(
    floor: Floor, verdict: Verdict, reasons: tuple[str, ...]
) -> tuple[Verdict, tuple[str, ...]]:
    """What does not beat the constant answer is rejected; where that is unknown, not promoted."""
    if floor.problem is not None:
        return "inconclusive", (f"the constant answer: {floor.problem}",)
    if not floor.is_beaten:
        return "reject", (
            "not shown to beat always giving the most common answer: lower bound "
            f"{floor.lower:.1%} against {floor.rate:.1%}",
        )
    return verdict, reasons


def _harm(finding: MetricEvidence) -> str:
    if finding.question.role == "primary" or finding.question.margin == 0.0:
        return f"{finding.name} is worse, p = {finding.p_harm:.2g} ({finding.test})"
    return f"{finding.name} is worse by more than {_margin(finding)}, p = {finding.p_harm:.2g}"


def _margin(finding: MetricEvidence) -> str:
    share = finding.question.relative
    return f"{finding.question.margin:.3g}" + (" of the champion's mean" if share else "")


def _needed(
    policy: GatePolicy,
    primary: MetricEvidence,
    guardrails: Sequence[MetricEvidence],
    level: float,
    hold_margin: float,
    look: int,
) -> int | None:
    """Examples that would settle all that is open; None where no number would."""
    waiting = [one for one in guardrails if one.question.must_be_shown and one.p_shown > level]
    if primary.p_shown > level or primary.blocks:
        if policy.looks is not None and look < policy.looks.maximum and not primary.blocks:
            return policy.looks.examples
        waiting = [primary, *(one for one in guardrails if one.blocks)]
    found = [examples_to_settle(one, policy, hold_margin) for one in waiting]
    if not found or None in found:
        return None
    return max(number for number in found if number is not None)


def _approval(
    policy: GatePolicy, primary: MetricEvidence, guardrails: Sequence[MetricEvidence], level: float
) -> str | None:
    """Say why a person must approve, if one must."""
    if policy.approval == "always":
        return "the policy asks for a person's approval of every promotion"
    critical = sorted({rule.metric for rule in policy.guardrails if rule.safety_critical})
    if critical:
        return f"safety-critical: {', '.join(critical)}"
    deciding = [primary.p_shown, *(g.p_shown for g in guardrails if g.question.must_be_shown)]
    if policy.approval == "borderline" and all_must_hold(deciding) > BORDERLINE * level:
        return f"borderline: p = {all_must_hold(deciding):.2g} at a level of {level:.2g}"
    return None
