"""The gate: promote, hold, reject or inconclusive, from recorded scores alone.

What: champion and challenger answered the same frozen examples; each answer is right or wrong. An
exact McNemar test on the examples where they differ decides whether the challenger is better.
Assumptions: examples are independent of each other and of everything the challenger was trained on.
Error rate: a challenger that is no better is promoted with probability at most `alpha / 2`, since
the two-sided test must reject and point upwards.
When not to use it: several looks at the same candidate (each look spends `alpha` again).
Reference: McNemar (1947), Psychometrika 12; Newcombe (1998), Statistics in Medicine 17, method 10.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.deploy.routing import REGISTRY_SECONDS, follow, reconcile, switch, waiting_move
from ratchet.errors import InvalidInputError, TrackingError
from ratchet.records import (
    ClusterComparison,
    Decision,
    RegressionSet,
    Release,
    Rollout,
    RolloutLook,
    Variant,
    Verdict,
    derive_id,
    digest,
)
from ratchet.stats.comparisons import McNemarResult, mcnemar_exact
from ratchet.stats.intervals import Interval, clopper_pearson, newcombe_paired
from ratchet.store import EventStore
from ratchet.tracking import ModelVersion, Tracker

logger = logging.getLogger(__name__)

_Level = Annotated[float, Field(gt=0.0, lt=1.0)]


class Policy(BaseModel):
    """What a challenger must show.

    Attributes:
        primary_metric: Name of the score, right or wrong per example.
        alpha: Level of the two-sided test.
        margin: How much worse a challenger may be and still be held rather than rejected.
        minimum_examples: Below this many, nothing is decided.
        beat_constant_answer: Whether the challenger must be shown to beat always giving the most
            common right answer; else a random guesser beats a model that answers off the menu.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    primary_metric: str = "exact_match"
    alpha: _Level = 0.05
    margin: _Level = 0.05
    minimum_examples: Annotated[int, Field(ge=20)] = 100
    beat_constant_answer: bool = True


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Recorded scores of two models on the same examples.

    Attributes:
        champion: Right or wrong by example id; None where there is no score.
        challenger: The same examples for the challenger.
        identical_outputs: Whether every answer was the same text.
        constant_answer_rate: What always giving the most common right answer scores.
    """

    champion: Mapping[str, bool | None]
    challenger: Mapping[str, bool | None]
    identical_outputs: bool
    constant_answer_rate: float


@dataclass(frozen=True, slots=True)
class _Evidence:
    examples: int
    unscored: int
    champion_right: int
    challenger_right: int
    test: McNemarResult
    difference: Interval
    floor: Interval

    @property
    def gain(self) -> float:
        return (self.challenger_right - self.champion_right) / self.examples


def decide(
    scores: PairedScores,
    policy: Policy,
    *,
    champion: ModelVersion,
    challenger: ModelVersion,
    cycle_id: str,
    example_set_id: str,
    now: datetime,
    clusters: Sequence[ClusterComparison] = (),
) -> Decision:
    """Apply the policy to recorded scores.

    Args:
        scores: Of both models on the same examples.
        policy: The rules.
        champion: What is in use.
        challenger: What would replace it.
        cycle_id: The cycle whose gate it is.
        example_set_id: The examples.
        now: The time.
        clusters: Both on the frozen examples of failure clusters, shown beside the verdict.

    Raises:
        InvalidInputError: The two models were not scored on the same examples, or on none.
    """
    evidence = _weigh(scores, policy)
    verdict, reasons = _judge(scores, policy, evidence, champion, challenger)
    return Decision(
        id=decision_id(policy, champion, challenger, cycle_id, example_set_id),
        cycle_id=cycle_id,
        created_at=now,
        champion=champion.reference,
        challenger=challenger.reference,
        verdict=verdict,
        reasons=reasons,
        primary_metric=policy.primary_metric,
        champion_value=evidence.champion_right / evidence.examples,
        challenger_value=evidence.challenger_right / evidence.examples,
        difference=evidence.gain,
        interval=(evidence.difference.lower, evidence.difference.upper),
        p_value=evidence.test.p_value,
        examples=evidence.examples,
        example_set_id=example_set_id,
        policy=policy.model_dump(mode="json"),
        evidence={
            "only_champion_right": float(evidence.test.only_first),
            "only_challenger_right": float(evidence.test.only_second),
            "unscored": float(evidence.unscored),
            "constant_answer_rate": scores.constant_answer_rate,
            "challenger_lower_bound": evidence.floor.lower,
        },
        clusters=tuple(clusters),
    )


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


def decision_id(
    policy: Policy,
    champion: ModelVersion,
    challenger: ModelVersion,
    cycle_id: str,
    example_set_id: str,
) -> str:
    """Return the id of this gate's decision: asking again finds the one that was stored."""
    rule = digest(policy.model_dump(mode="json"))
    return derive_id("decision", cycle_id, champion.digest, challenger.digest, example_set_id, rule)


def _weigh(scores: PairedScores, policy: Policy) -> _Evidence:
    if not scores.champion or scores.champion.keys() != scores.challenger.keys():
        raise InvalidInputError(
            "champion and challenger must be scored on the same examples, got "
            f"{len(scores.champion)} and {len(scores.challenger)}; evaluate both on one set"
        )
    pairs = [(scores.champion[key], scores.challenger[key]) for key in scores.champion]
    unscored = sum(None in pair for pair in pairs)
    cells = Counter((bool(first), bool(second)) for first, second in pairs)
    both, neither = cells[True, True], cells[False, False]
    only_first, only_second = cells[True, False], cells[False, True]
    right = both + only_second
    return _Evidence(
        examples=len(pairs),
        unscored=unscored,
        champion_right=both + only_first,
        challenger_right=right,
        test=mcnemar_exact(only_first, only_second),
        difference=newcombe_paired(both, only_first, only_second, neither, level=1 - policy.alpha),
        floor=clopper_pearson(right, len(pairs), level=1 - policy.alpha),
    )


def _judge(
    scores: PairedScores,
    policy: Policy,
    evidence: _Evidence,
    champion: ModelVersion,
    challenger: ModelVersion,
) -> tuple[Verdict, tuple[str, ...]]:
    """Apply the rules in order; the first that applies gives the verdict."""
    if challenger.digest == champion.digest:
        return "hold", ("same artefact: the challenger's digest is the champion's",)
    if evidence.unscored:
        missing = f"{evidence.unscored} of {evidence.examples} examples have no score"
        return "inconclusive", (f"{missing}; missing data never passes",)
    if evidence.examples < policy.minimum_examples:
        few = f"{evidence.examples} examples are fewer than the {policy.minimum_examples} asked for"
        return "inconclusive", (few,)
    if scores.identical_outputs:
        return "hold", ("same artefact: every answer is identical",)
    if policy.beat_constant_answer and evidence.floor.lower <= scores.constant_answer_rate:
        return "reject", (
            "not shown to beat always giving the most common answer: lower bound "
            f"{evidence.floor.lower:.1%} against {scores.constant_answer_rate:.1%}",
        )
    return _compare(policy, evidence)


def _compare(policy: Policy, evidence: _Evidence) -> tuple[Verdict, tuple[str, ...]]:
    test, interval = evidence.test, evidence.difference
    counts = (
        f"right where the champion is wrong on {test.only_second}, the reverse on "
        f"{test.only_first}; exact McNemar p = {test.p_value:.2g}"
    )
    if test.p_value <= policy.alpha:
        better = test.only_second > test.only_first
        return ("promote", (f"better: {counts}",)) if better else ("reject", (f"worse: {counts}",))
    if interval.lower > -policy.margin:
        return "hold", (
            f"not shown to be better ({counts}), shown to be no worse by {policy.margin:.0%}",
        )
    return "inconclusive", (
        f"neither better nor shown to be no worse by {policy.margin:.0%} ({counts}); "
        "evaluate on more examples",
    )


def establish_champion(
    store: EventStore, tracker: Tracker, base: ModelVersion, now: datetime
) -> ModelVersion:
    """Return the registry's champion, which is the base model until there is one.

    The registry's alias is the truth: should somebody have moved it by hand, the journal of
    releases takes note. A promotion that was interrupted after the move is completed first.
    """
    reconcile(store, tracker, now)
    champion = tracker.champion()
    if champion is None:
        tracker.move_champion(base.reference, None)
        champion = base
    latest = store.latest(Release)
    decision = store.latest(Decision)
    if decision is not None and latest is not None and latest.champion == decision.champion:
        interrupted = decision.verdict == "promote" and champion.reference == decision.challenger
        if interrupted and apply_decision(store, tracker, decision, now) is not None:
            return champion
    _take_note(store, tracker, champion, now)
    return champion


def adopt_champion(store: EventStore, tracker: Tracker, now: datetime) -> Release | None:
    """Follow a champion that somebody chose in the registry by hand: everybody gets it.

    Nothing is done where the registry is down or waits for a switch itself, and where the gate's
    own promotion is under way.

    Returns:
        The release that was recorded; None where the registry says what the journal says.
    """
    latest, decision = store.latest(Release), store.latest(Decision)
    if latest is None or waiting_move(store) is not None:
        return None
    if not tracker.answers(within_seconds=REGISTRY_SECONDS):
        return None
    champion = tracker.champion()
    if champion is None or store.latest(Release) != latest:
        return None
    under_way = (latest.champion, champion.reference)
    if decision is not None and decision.verdict == "promote":
        decided = (decision.champion, decision.challenger)
        return None if decided == under_way else _take_note(store, tracker, champion, now)
    return _take_note(store, tracker, champion, now)


def _take_note(
    store: EventStore, tracker: Tracker, champion: ModelVersion, now: datetime
) -> Release | None:
    """Record that the registry has another champion than the journal, and switch to it.

    Whoever moved `champion` alone left `previous` behind: it becomes what users had until now.
    """
    latest, standing_by = store.latest(Release), tracker.previous()
    if latest is not None and latest.champion == champion.reference:
        return None
    previous = standing_by.reference if standing_by else None
    if latest is not None and previous != latest.champion:
        previous = latest.champion
        tracker.move_champion(champion.reference, previous)
    release = Release(
        id=derive_id("release", champion.reference, now.isoformat()),
        created_at=now,
        action="start" if latest is None else "moved outside Ratchet",
        champion=champion.reference,
        previous=previous,
    )
    switch(store, release, by=release.action, told=True)
    return release


def apply_decision(
    store: EventStore, tracker: Tracker, decision: Decision, now: datetime
) -> Release | None:
    """Act on a stored decision, once: move the aliases on promote, else nothing but a tag.

    Returns:
        The release, also where it was made before; None where nothing was promoted, as when the
        challenger was rolled back or the champion replaced since the decision.
    """
    tracker.tag_version(
        decision.challenger,
        {"ratchet.verdict": decision.verdict, "ratchet.decision": decision.id},
    )
    if decision.verdict != "promote":
        return None
    key = derive_id("release", decision.id)
    done = store.get(Release, key)
    if done is not None:
        return done
    obstacle = _obstacle(store, tracker, decision)
    if obstacle is not None:
        logger.warning("%s is not promoted: %s", decision.challenger, obstacle)
        return None
    tracker.move_champion(decision.challenger, decision.champion)
    release = Release(
        id=key,
        created_at=now,
        action="promote",
        champion=decision.challenger,
        previous=decision.champion,
        decision_id=decision.id,
    )
    switch(store, release, by="promotion", told=True)
    return release


def _obstacle(store: EventStore, tracker: Tracker, decision: Decision) -> str | None:
    """Say what happened since the decision that takes away its ground, if anything did."""
    for release in store.records(Release):
        if release.action == "rollback" and release.created_at >= decision.created_at:
            return "there was a rollback since the decision"
    champion = tracker.champion()
    if champion is None or champion.reference in (decision.champion, decision.challenger):
        return None
    return f"it was compared with {decision.champion}, but the champion is {champion.reference}"


def rollback(
    store: EventStore,
    tracker: Tracker,
    now: datetime,
    *,
    only: str = "",
    by: str | None = None,
    note: str = "",
) -> Release | None:
    """Make the previous version the champion again, for every gateway at once.

    The store is switched first and is enough; the aliases follow, later where MLflow is down. The
    version rolled back keeps its tags and can be looked at; there is no `previous` afterwards, so
    that a second call does not bring the bad version back. A prompt that came with the champion
    goes with it.

    Args:
        store: The store.
        tracker: The registry.
        now: The time.
        only: Only this champion; where it is another one, nothing is done and None returned.
        by: Who rolls back.
        note: Why.

    Raises:
        TrackingError: There is no previous version.
    """
    up = tracker.answers(within_seconds=REGISTRY_SECONDS)
    champion, previous = _standing(store, tracker, now) if up else _recorded(store)
    if only and champion != only:
        return None
    if champion is None or previous is None:
        raise TrackingError(
            "a rollback needs a version with the alias 'previous', got none; "
            "nothing was promoted since the start or the last rollback"
        )
    release = Release(
        id=derive_id("rollback", champion, now.isoformat()),
        created_at=now,
        action="rollback",
        champion=previous,
        previous=None,
        by=by,
        note=note,
    )
    move = switch(
        store,
        release,
        variant=_variant_before(store, previous),
        withdrawn=None if champion == previous else champion,
        by="rollback",
    )
    if up:
        follow(store, tracker, move, now)
    else:
        logger.warning("MLflow does not answer; its alias is moved when it does")
    return release


def _standing(store: EventStore, tracker: Tracker, now: datetime) -> tuple[str | None, str | None]:
    """Return champion and previous as the registry says, after what it waits for."""
    reconcile(store, tracker, now)
    champion, previous = tracker.champion(), tracker.previous()
    return (
        champion.reference if champion else None,
        previous.reference if previous else None,
    )


def _recorded(store: EventStore) -> tuple[str | None, str | None]:
    release = store.latest(Release)
    return (None, None) if release is None else (release.champion, release.previous)


def _variant_before(store: EventStore, version: str) -> Variant:
    """Return the previous champion with the prompt that it had, where a rollout replaced it."""
    release = store.latest(Release)
    look = store.get(RolloutLook, release.look_id) if release and release.look_id else None
    rollout = store.get(Rollout, look.rollout_id) if look else None
    if rollout is not None and rollout.champion.version == version:
        return rollout.champion
    return Variant(version=version, share=1.0)
