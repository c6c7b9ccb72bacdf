"""Judges at work on the store: validated first, then scoring, and watched for drift.

Verdicts of every judge are kept and shown. Only those of a judge whose latest validation, of this
very version, says *usable* become feedback of kind `judge_score`, and nothing but that feedback
enters the quality of an interaction, the monitoring board or a gate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.judges.effects import figure
from ratchet.judges.judge import Ask, Judge, Judged, Judgement, judge_items
from ratchet.judges.label_sets import LabelledVerdict, refuse_leaks, split_labels
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.sessions import session_items
from ratchet.judges.usable import require_usable
from ratchet.judges.validation import DEFAULT_BAR, Bar, Validation, validate_judge
from ratchet.records import (
    Figure,
    HumanLabel,
    Interaction,
    JudgeMode,
    JudgeScore,
    JudgeValidation,
    Usability,
    derive_id,
    digest,
    offered,
    spoken,
)
from ratchet.records.events import SessionScore
from ratchet.records.judging import JudgeUnit
from ratchet.stats.judges.drift import JudgeDrift, judge_drift
from ratchet.store import EventStore, Window
from ratchet.store.review_labels import agreed_labels, human_labels
from ratchet.store.sessions import last_answers
from ratchet.store.texts import answered_ids

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]
ANCHORS = 50
ON_INTERACTIONS: tuple[JudgeMode, ...] = ("pointwise", "guard")
_SCORES: Mapping[JudgeUnit, tuple[type[JudgeScore | SessionScore], str]] = {
    "answer": (JudgeScore, "judge-score"),
    "session": (SessionScore, "session-score"),
}
"""The feedback that a score of an answer or of a session is, and how its ids begin."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A validation with what it rests on.

    Attributes:
        record: As stored.
        validation: With kappa, confusion and disagreements; None where there are no labels.
        judged: The judgements of the labelled items.
    """

    record: JudgeValidation
    validation: Validation | None
    judged: Judged | None


@dataclass(frozen=True, slots=True)
class Assessed:
    """What became of a judge in a cycle.

    Attributes:
        validated: Whether it may count, and why.
        sample: The answers that it was asked about, of sessions their last ones.
        judgements: What it says of them; none of a judge of pairs.
        counts: Whether its scores are feedback.
        new: How many of these are new.
    """

    validated: Validated
    sample: Sequence[Interaction]
    judgements: Sequence[Judgement]
    counts: bool
    new: int


def assess_judge(
    store: EventStore,
    judge: Judge,
    window: Window,
    *,
    most: int,
    may_count: bool,
    ask: Ask,
    now: Clock,
    rng: np.random.Generator,
    bar: Bar = DEFAULT_BAR,
) -> Assessed:
    """Validate a judge and ask it about a window; let its scores count if it is usable.

    Args:
        store: The store.
        judge: The judge, of answers or of sessions.
        window: Whose answers or sessions it is asked about.
        most: So many of these at most.
        may_count: Whether its scores may count; an interaction has one score of each unit.
        ask: How its model is asked.
        now: The clock.
        rng: For the validation.
        bar: What it has to reach.
    """
    spec = judge.spec
    validated = validate(store, judge, ask=ask, now=now, rng=rng, bar=bar)
    sample = sample_for(spec, store, window, most=most)
    judgements: Sequence[Judgement] = ()
    if spec.mode in ON_INTERACTIONS:
        items = items_for(spec, store, sample)
        judgements = run_judge(store, judge, items, ask=ask, now=now).judgements
    scores = spec.dimension.violation_below is None  # safety judges raise flags instead
    is_usable = validated.record.decision == "usable"
    counts = may_count and scores and is_usable and bool(judgements)
    new = count_for(spec, store, judge.version, judgements, now()) if counts else 0
    return Assessed(validated, sample, judgements, counts, new)


def items_for(spec: JudgeSpec, store: EventStore, found: Sequence[Interaction]) -> list[Item]:
    """Return what a judge of answers, or of sessions that end with them, is shown."""
    return (session_items if spec.unit == "session" else items_of)(store, found)


def sample_for(
    spec: JudgeSpec, store: EventStore, window: Window, *, most: int
) -> list[Interaction]:
    """Return the answers that a judge is asked about, of sessions their last ones."""
    if spec.unit == "session":
        return _drawn(store, last_answers(store, window), "session-sample", most)
    return sample_of(store, window, most=most)


def count_for(
    spec: JudgeSpec,
    store: EventStore,
    judge_version: str,
    judgements: Sequence[Judgement],
    now: datetime,
) -> int:
    """Let a usable judge's scores count, of answers or of sessions. See `count_scores`."""
    return count_scores(store, judge_version, judgements, now, unit=spec.unit)


def items_of(store: EventStore, interactions: Sequence[Interaction]) -> list[Item]:
    """Return interactions as a judge sees them, with the tools that could be called."""
    known = store.definitions({one.tools for one in interactions if one.tools is not None})
    return [
        Item(
            one.id,
            one.messages,
            spoken(one.answer),
            tools=offered(known[one.tools].body) if one.tools in known else "",
        )
        for one in interactions
    ]


def run_judge(
    store: EventStore,
    judge: Judge,
    items: Sequence[Item],
    *,
    ask: Ask,
    now: Clock,
    occasion: str | None = None,
    shielded: bool = True,
    again: bool = False,
) -> Judged:
    """Judge items with the store as the record; stopped and started again, it goes on."""
    return judge_items(
        judge,
        items,
        ask=ask,
        recorded=store.verdicts,
        save=store.add_verdicts,
        now=now,
        occasion=occasion,
        shielded=shielded,
        again=again,
    )


def labelled_rows(
    labels: Iterable[HumanLabel], judgements: Iterable[Judgement]
) -> tuple[LabelledVerdict, ...]:
    """Join people's labels with a judge's verdicts; items without a label are left out.

    The judge is held against what most people say of an item, or what somebody decided between
    people who disagreed. All that was said without seeing others makes the human ceiling. See
    `ratchet.store.review_labels.agreed_labels`.
    """
    agreed = agreed_labels(labels)
    return tuple(
        LabelledVerdict(
            item_id=judgement.item_id,
            human=given.label,
            judge=judgement.outcome,
            others=given.others,
            reason=judgement.reason,
            adjudicated=given.adjudicated,
        )
        for judgement in judgements
        if (given := agreed.get(judgement.item_id)) is not None
    )


def validate(
    store: EventStore,
    judge: Judge,
    *,
    ask: Ask,
    now: Clock,
    rng: np.random.Generator,
    bar: Bar = DEFAULT_BAR,
) -> Validated:
    """Hold a judge against the labels in the store and keep the decision.

    Labels of items that were set aside for few-shot examples are not used. The same labels and the
    same version of a judge give the stored decision again. The store holds interactions, not pairs
    or references: a judge of those keeps the decision that it has, of a gate on `win_rate` say.

    Raises:
        LeakError: An example shown to the judge is among the validation labels.
    """
    labels = _validation_labels(store, judge)
    refuse_leaks([e.item_id for e in judge.spec.examples], [label.item_id for label in labels])
    known = store.stored_interactions(sorted({label.item_id for label in labels}))
    content = digest([label.canonical() for label in labels if label.item_id in known])
    if judge.spec.mode not in ON_INTERACTIONS:
        for latest in store.records(JudgeValidation, latest=1, subject=judge.version):
            return Validated(latest, None, None)
    if not known or judge.spec.mode not in ON_INTERACTIONS:
        return Validated(keep_validation(store, judge, content, None, now()), None, None)
    items = items_for(judge.spec, store, list(known.values()))
    judged = run_judge(store, judge, items, ask=ask, now=now)
    rows = labelled_rows(labels, judged.judgements)
    validation = validate_judge(
        rows, rng=rng, bar=bar, categories=None if judge.spec.mode == "guard" else judge.spec.menu
    )
    return Validated(keep_validation(store, judge, content, validation, now()), validation, judged)


def count_scores(
    store: EventStore,
    judge_version: str,
    judgements: Sequence[Judgement],
    now: datetime,
    *,
    unit: JudgeUnit = "answer",
) -> int:
    """Make a usable judge's scores feedback on their interactions; return how many are new.

    Raises:
        JudgeNotUsableError: The judge may not count; nothing is stored.
    """
    require_usable(store, judge_version)
    record, name = _SCORES[unit]
    scores = [
        record(
            id=derive_id(name, judge_version, judgement.item_id),
            interaction_id=judgement.item_id,
            created_at=judgement.verdicts[0].created_at if judgement.verdicts else now,
            value=judgement.score,
            judge_version=judge_version,
        )
        for judgement in judgements
        if judgement.score is not None
    ]
    return store.add_feedback(scores).new


def sample_of(store: EventStore, window: Window, *, most: int) -> list[Interaction]:
    """Return at most so many of a window's answers, always the same ones of the same window."""
    return _drawn(store, answered_ids(store, window), "judge-sample", most)


def _drawn(store: EventStore, ids: Iterable[str], purpose: str, most: int) -> list[Interaction]:
    """Return the interactions of at most so many ids, the same ones of the same ids."""
    keys = nsmallest(most, ids, key=lambda key: digest([purpose, key]))
    found = store.stored_interactions(keys)
    return [found[key] for key in keys]


def in_halves(
    judgements: Sequence[Judgement],
) -> tuple[Sequence[Judgement], Sequence[Judgement]] | None:
    """Return the earlier and the later half of judgements; None where there are fewer than four."""
    half = len(judgements) // 2
    return None if len(judgements) < 4 else (judgements[:half], judgements[half:])


def watch_drift(
    store: EventStore,
    judge: Judge,
    *,
    ask: Ask,
    now: Clock,
    occasion: str,
    traffic_before: Sequence[Judgement],
    traffic_after: Sequence[Judgement],
    anchors: int = ANCHORS,
) -> tuple[JudgeDrift | None, tuple[Figure, ...]]:
    """Ask a judge about its frozen anchors again and tell its drift from the system's.

    Anchors are labelled interactions of the validation, always the same ones; their verdicts there
    are the time before, those of this occasion the time after.

    Args:
        store: Labels and verdicts.
        judge: The judge.
        ask: How its model is asked.
        now: The clock.
        occasion: Names the time after, e.g. `2026-W48`; asked once.
        traffic_before: Judgements of traffic of the time before.
        traffic_after: Judgements of traffic of the time after.
        anchors: How many at most.
    """
    dimension = judge.spec.dimension
    agreed = agreed_labels(_validation_labels(store, judge))
    labels = {key: one.label for key, one in agreed.items()}
    known = store.stored_interactions(sorted(labels))
    keys = sorted(known, key=lambda key: digest(["anchor", key]))[:anchors]
    items = items_for(judge.spec, store, [known[key] for key in keys])
    before = run_judge(store, judge, items, ask=ask, now=now)
    after = run_judge(store, judge, items, ask=ask, now=now, occasion=occasion)
    worth = [
        dimension.score(labels[j.item_id]) if labels[j.item_id] in dimension.names else np.nan
        for j in before.judgements
    ]
    try:
        drift = judge_drift(
            worth,
            scores_of(before.judgements),
            scores_of(after.judgements),
            scores_of(traffic_before),
            scores_of(traffic_after),
        )
    except InsufficientDataError as error:
        return None, (Figure(name="judge_drift", value=None, observations=0, reason=str(error)),)
    return drift, (
        figure("judge_drift", drift.judge.estimate, drift.judge.interval, drift.anchors),
        figure("system_drift", drift.system.estimate, drift.system.interval, drift.after),
    )


def scores_of(judgements: Sequence[Judgement]) -> list[float]:
    """Return scores with NaN for what is unscored."""
    return [np.nan if found.score is None else found.score for found in judgements]


def _validation_labels(store: EventStore, judge: Judge) -> tuple[HumanLabel, ...]:
    """Return people's labels on the judge's dimension, less those kept for few-shot examples.

    Those of sessions are for judges of sessions, those of answers for the others.
    """
    what = (judge.spec.dimension.name, judge.spec.unit)
    given = human_labels(store, judge.spec.dimension.name)
    labels = tuple(one for one in given if (one.dimension, one.unit) == what)
    return split_labels(labels)[1] if judge.spec.examples else labels


def keep_validation(
    store: EventStore, judge: Judge, labels: str, validation: Validation | None, now: datetime
) -> JudgeValidation:
    """Store a validation, unless it is the latest one of this version already."""
    key = derive_id("judge-validation", judge.version, labels)
    if store.get(JudgeValidation, key) is not None:
        key = derive_id(key, now.isoformat())
    record = as_record(
        validation,
        key=key,
        judge=judge.spec.name,
        judge_version=judge.version,
        dimension=judge.spec.dimension.name,
        labels_digest=labels,
        now=now,
        mode=judge.spec.mode,
    )
    for latest in store.records(JudgeValidation, latest=1, subject=judge.version):
        if _says(latest) == _says(record):
            return latest
    store.append(record)
    logger.info("%s: %s (%s)", record.judge_version, record.decision, record.reasons[0])
    return record


def _says(record: JudgeValidation) -> tuple[str, Usability, tuple[str, ...]]:
    return record.labels_digest, record.decision, record.reasons


def as_record(
    validation: Validation | None,
    *,
    key: str,
    judge: str,
    judge_version: str,
    dimension: str,
    labels_digest: str,
    now: datetime,
    mode: JudgeMode = "pointwise",
) -> JudgeValidation:
    """Return a validation as it is stored; None is a judge without labels."""
    if validation is None:
        why = f"no interaction in the store has a label for {dimension}"
        if mode not in ON_INTERACTIONS:
            why = f"the store holds nothing for mode {mode}; label a sheet of the gate's pairs"
        return JudgeValidation(
            id=key,
            created_at=now,
            judge=judge,
            judge_version=judge_version,
            dimension=dimension,
            decision="not enough labels",
            reasons=(why,),
            labels_digest=labels_digest,
            items=0,
            unscored=0,
            figures=(),
        )
    return JudgeValidation(
        id=key,
        created_at=now,
        judge=judge,
        judge_version=judge_version,
        dimension=dimension,
        decision=validation.decision,
        reasons=validation.reasons,
        labels_digest=labels_digest,
        items=validation.items,
        unscored=sum(validation.unscored.values()),
        figures=validation.figures,
        categories=validation.categories,
        confusion=validation.confusion,
        more_labels=validation.more_labels,
    )
