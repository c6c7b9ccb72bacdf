"""The gate over recorded scores: promote, hold, reject or inconclusive, at a stated error level.

    result = run_gate(read_scores(path), policy)
    result.verdict, result.reasons

To promote, the primary metric must be shown better and every guardrail that asks for it shown no
worse by its margin, each at the level: were one of these false, its own test would have to err, so
that a promotion is wrong with at most the level however many guardrails there are. To reject, the
primary metric must be shown worse or a guardrail broken, by Holm over all of them. What can be
shown neither way is held (no worse by the hold margin) or inconclusive. Too few examples, an
unusable judge and a failed evaluation never end in promote. Where scores are missing, a promotion
has to stand with the missing ones counted against the challenger (`missing`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ratchet.deploy.gate.constant_answer import Floor, constant_answer_floor
from ratchet.deploy.gate.directions import with_directions
from ratchet.deploy.gate.evidence import (
    EQUAL,
    GateQuestion,
    MetricEvidence,
    Role,
    default_hold_margin,
    weigh,
)
from ratchet.deploy.gate.missing import (
    counted_against,
    lacking_scores,
    losses_to_overturn,
    with_losses,
)
from ratchet.deploy.gate.notes import gate_notes, interval_notes
from ratchet.deploy.gate.policy import GatePolicy, Guardrail
from ratchet.deploy.gate.sample_size import examples_to_decide
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
        primary: The evidence on the primary metric; None where nothing was weighed.
        guardrails: The evidence on guardrails.
        secondary: Findings that decided nothing.
        adjusted: p-values of secondary metrics being better, by Holm.
        level: One-sided level of this look.
        look: Which look this is, from 1.
        hold_margin: By how much the primary metric may be worse and still be held.
        needed: Examples in all that would decide it if the observed difference is the true one;
            None where it is decided, where no number would do, or where something else than
            examples is missing.
        approval: Why a person must approve a promotion; None where nobody must.
        floor: Where the policy asks that the constant answer is beaten, how that came out.
        policy: What was asked.
        losses_to_overturn: With how many unseen losses of the challenger the promotion would no
            longer be shown; None where nothing was, or that is not asked for.
        notes: What the reader of the decision should know of the scores and of the policy.
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
    losses_to_overturn: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def must_be_shown(self) -> tuple[MetricEvidence, ...]:
        """The evidence that a promotion rests on: the primary metric's, then guardrails'."""
        weighed = (self.primary, *self.guardrails)
        return tuple(e for e in weighed if e is not None and e.question.must_be_shown)

    @property
    def is_open_for_want_of_examples(self) -> bool:
        """Whether something is not shown, and more examples are all that it lacks."""
        weighed = [e for e in (self.primary, *self.guardrails) if e is not None]
        is_open = any(e.p_shown > self.level for e in self.must_be_shown)
        return is_open and not any(e.blocks and not e.is_few for e in weighed)


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
        plan: Whether to say how many examples would decide what is open, and how many unseen losses
            would overturn a promotion.

    Raises:
        InvalidInputError: A metric has no direction, or looks come more often than planned or
            without new examples.
    """
    policy = with_directions(policy)
    if same_digest or scores.identical_outputs:
        what = "the digests are the same" if same_digest else "every answer is identical"
        return GateResult("hold", (f"same artefact: {what}",), policy, level=policy.error_level)
    unusable = [judge for judge in policy.judges if judge not in usable_judges]
    if failure is not None or unusable:
        reason = f"the evaluation failed: {failure}"
        if failure is None:
            reason = f"judges that the policy asks for are not usable: {', '.join(unusable)}"
        return GateResult("inconclusive", (reason,), policy, level=policy.error_level)
    primary = _primary_scores(scores, policy)
    examples = primary.champion.size - lacking_scores(primary)
    level, look = _level(policy, examples, earlier)
    hold_margin = policy.primary.hold_margin or default_hold_margin(primary)
    as_seen = _weighed(scores, policy, level, look, hold_margin)
    is_shown = as_seen.verdict == "promote"
    result = _with_missing(as_seen, scores) if is_shown else as_seen
    return replace(
        result,
        needed=_needed(result) if plan and result.verdict == "inconclusive" else None,
        losses_to_overturn=_losses(as_seen, scores) if plan and is_shown else None,
        approval=_approval(result) if result.verdict == "promote" else None,
        notes=(
            *scores.notes,
            *gate_notes(scores, policy),
            *interval_notes(result.must_be_shown, level),
        ),
    )


def _weighed(
    scores: GateScores, policy: GatePolicy, level: float, look: int, hold_margin: float
) -> GateResult:
    """Decide on the examples that have scores."""
    primary_scores = _primary_scores(scores, policy)
    primary = weigh(primary_scores, primary_question(policy), alpha=level, hold_margin=hold_margin)
    guardrails = tuple(
        weigh(part, question, alpha=level) for part, question in _guarded(scores, policy)
    )
    secondary = tuple(
        weigh(
            scores.metrics[name],
            _question(policy, "secondary", name, must_be_shown=False),
            alpha=level,
        )
        for name in policy.secondary
        if name in scores.metrics
    )
    adjusted = holm([evidence.p_shown for evidence in secondary])
    verdict, reasons = _verdict(policy, primary, guardrails, level, look, hold_margin)
    floor = None
    if policy.beat_constant_answer:
        higher = policy.primary.higher_is_better
        floor = constant_answer_floor(scores, primary_scores, alpha=level, higher_is_better=higher)
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
            evidence.question.metric: float(p)
            for evidence, p in zip(secondary, adjusted, strict=True)
        },
        level=level,
        look=look,
        hold_margin=hold_margin,
        floor=floor,
    )


def _with_missing(result: GateResult, scores: GateScores) -> GateResult:
    """Keep a promotion only where it stands with missing scores counted against the challenger."""
    policy = result.policy
    lacking = _lacking(scores, policy)
    if not lacking:
        return result
    worst = _weighed(
        counted_against(scores, policy),
        policy,
        result.level,
        result.look,
        result.hold_margin or default_hold_margin(_primary_scores(scores, policy)),
    )
    if worst.verdict == "promote":
        stands = "; counted against the challenger, they do not change the decision"
        return replace(result, reasons=(*result.reasons, *lacking[:-1], lacking[-1] + stands))
    first, *others = worst.reasons
    counted = f"with them counted against the challenger, {first}"
    return replace(result, verdict="inconclusive", reasons=(*lacking, counted, *others))


def _lacking(scores: GateScores, policy: GatePolicy) -> tuple[str, ...]:
    """Say of each metric that decides how many examples lack scores, the primary one first."""
    parts = {policy.primary.metric: _primary_scores(scores, policy)}
    for rule in policy.guardrails:
        examples_of = _set_of(scores, rule)
        part = _measured(scores, examples_of).get(rule.metric)
        if part is not None:
            name = rule.metric if examples_of is None else f"{rule.metric} on {examples_of}"
            parts[name] = part
    return tuple(
        f"{lost:,} of {part.champion.size:,} examples lack scores"
        + ("" if name == policy.primary.metric else f" of {name}")
        for name, part in parts.items()
        if (lost := lacking_scores(part))
    )


def _losses(result: GateResult, scores: GateScores) -> int | None:
    """With how many unseen losses something that must be shown would no longer be shown."""
    policy = result.policy
    asked = [(_primary_scores(scores, policy), primary_question(policy))]
    asked += [pair for pair in _guarded(scores, policy) if pair[1].must_be_shown]

    def still_shown(losses: int) -> bool:
        return all(
            weigh(
                with_losses(part, losses, higher_is_better=question.higher_is_better),
                question,
                alpha=result.level,
            ).p_shown
            <= result.level
            for part, question in asked
        )

    return losses_to_overturn(still_shown, asked[0][0].champion.size)


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


def _question(policy: GatePolicy, role: Role, metric: str, **more: Any) -> GateQuestion:
    """What is asked of a metric, with what the policy says of all questions."""
    defaults = {
        "higher_is_better": policy.direction(metric),
        "minimum_examples": policy.minimum_examples,
        "minimum_users": policy.minimum_users,
        "max_unscored_share": policy.max_unscored_share,
        "max_unscored_difference": policy.max_unscored_difference,
    }
    return GateQuestion(role, metric, **(defaults | more))


def primary_question(policy: GatePolicy) -> GateQuestion:
    """Return what a policy asks of its primary metric."""
    return _question(policy, "primary", policy.primary.metric, margin=policy.primary.margin)


def _guarded(scores: GateScores, policy: GatePolicy) -> list[tuple[MetricScores, GateQuestion]]:
    """Each guardrail's scores with its question; per cluster one for each."""
    asked = []
    for rule in policy.guardrails:
        examples_of = _set_of(scores, rule)
        measured = _measured(scores, examples_of)
        if rule.examples is None and examples_of == REGRESSION and not measured:
            continue  # there are no failure clusters
        metric_scores = measured.get(
            rule.metric, MetricScores(rule.metric, np.empty(0), np.empty(0))
        )
        if not rule.per_cluster:
            asked.append((metric_scores, _guardrail_question(policy, rule, None)))
            continue
        known = np.empty(0, np.int64) if metric_scores.clusters is None else metric_scores.clusters
        clusters = np.unique(known[known >= 0])
        if clusters.size == 0:  # a guardrail without anything to guard has not been passed
            empty = MetricScores(rule.metric, np.empty(0), np.empty(0))
            asked.append((empty, _guardrail_question(policy, rule, "any cluster")))
        for cluster in clusters:
            part = metric_scores.take(metric_scores.clusters == cluster)
            asked.append((part, _guardrail_question(policy, rule, scores.cluster_names[cluster])))
    return asked


def _set_of(scores: GateScores, rule: Guardrail) -> str | None:
    """The set of examples that a guardrail is asked of; None for the primary metric's."""
    default = REGRESSION if rule.per_cluster and REGRESSION in scores.sets else None
    return rule.examples or default


def _measured(scores: GateScores, examples: str | None) -> Mapping[str, MetricScores]:
    """The metrics on a set of examples; nothing where there is no such set."""
    return scores.metrics if examples is None else scores.sets.get(examples, {})


def _guardrail_question(policy: GatePolicy, rule: Guardrail, cluster: str | None) -> GateQuestion:
    return _question(
        policy,
        "guardrail",
        rule.metric,
        cluster=cluster,
        examples_of=rule.examples,
        margin=rule.margin,
        relative=rule.relative,
        must_be_shown=rule.requires == "shown",
        minimum_examples=rule.minimum_examples,
        minimum_users=min(policy.minimum_users, rule.minimum_examples),
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
        evidence
        for evidence, p in zip(harms, holm([one.p_harm for one in harms]), strict=True)
        if p <= level
    ]
    if harmful:
        return "reject", tuple(_harm(evidence) for evidence in harmful)
    blocking = [evidence for evidence in harms if evidence.blocks]
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
    if primary.test == EQUAL:
        not_shown = f"{EQUAL} in {primary.name}"
    if policy.looks is not None and look < policy.looks.maximum:
        left = policy.looks.maximum - look
        return "inconclusive", (f"{not_shown}; {left} more looks are planned",)
    if primary.p_no_worse is not None and primary.p_no_worse <= level:
        return "hold", (f"{not_shown}, and it is shown to be no worse by {hold_margin:.3g}",)
    return "inconclusive", (f"{not_shown}, and not shown to be no worse by {hold_margin:.3g}",)


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


def _harm(evidence: MetricEvidence) -> str:
    if evidence.question.role == "primary" or evidence.question.margin == 0.0:
        return f"{evidence.name} is worse, p = {evidence.p_harm:.2g} ({evidence.test})"
    return f"{evidence.name} is worse by more than {_margin(evidence)}, p = {evidence.p_harm:.2g}"


def _margin(evidence: MetricEvidence) -> str:
    share = evidence.question.relative
    return f"{evidence.question.margin:.3g}" + (" of the champion's mean" if share else "")


def _needed(result: GateResult) -> int | None:
    """Examples that would decide all that is open; None where no number would."""
    policy, primary, level = result.policy, result.primary, result.level
    if primary is None or not result.is_open_for_want_of_examples:
        return None
    waiting = [e for e in result.guardrails if e.question.must_be_shown and e.p_shown > level]
    if primary.p_shown > level or primary.blocks:
        if policy.looks is not None and result.look < policy.looks.maximum and not primary.blocks:
            return policy.looks.examples
        waiting = [primary, *(e for e in result.guardrails if e.blocks)]
    hold_margin = result.hold_margin or 0.0
    numbers = [examples_to_decide(evidence, policy, hold_margin) for evidence in waiting]
    if None in numbers:
        return None
    return max(number for number in numbers if number is not None)


def _approval(result: GateResult) -> str | None:
    """Say why a person must approve, if one must."""
    policy, level = result.policy, result.level
    if policy.approval == "always":
        return "the policy asks for a person's approval of every promotion"
    critical = sorted({rule.metric for rule in policy.guardrails if rule.safety_critical})
    if critical:
        return f"safety-critical: {', '.join(critical)}"
    largest = all_must_hold([evidence.p_shown for evidence in result.must_be_shown])
    if policy.approval == "borderline" and largest > BORDERLINE * level:
        return f"borderline: p = {largest:.2g} at a level of {level:.2g}"
    return None
