"""Right answers that people gave: confirmed corrections, approved answers, labels.

    found = find_right(store, history, GoldenRules(), position=0)

An answer that a person approved is right as it is. One that was corrected should have been the
correction. A label of the dimension that rules name is the right answer itself. Where people
disagree, nothing is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ratchet.analyze.failures.asked_with import AskedWith
from ratchet.evaluation.call_metrics import call_fault, comparable
from ratchet.evaluation.metrics import normalise_answer
from ratchet.golden.rules import GoldenRules
from ratchet.records import HumanLabel, Interaction, digest, reads_as_text
from ratchet.records.conversations import AS_TEXT
from ratchet.records.tool_calls import written
from ratchet.review.corrections import CONFIRMED, CORRECTION, unsafe_among
from ratchet.store import EventStore
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.history import History
from ratchet.store.history.refusals import not_for_good
from ratchet.store.review_items import outcomes_about
from ratchet.store.review_labels import NO_OPINION, human_labels
from ratchet.store.right_answers import (
    corrected_after,
    corrections_of,
    decided_as,
    real_answers,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody holds to be right about an answer.

    Attributes:
        target: The right answer; None where the answer itself is.
        source: `label`, `correction` or `approval`.
        said_at: When it was said.
    """

    target: str | None
    source: str
    said_at: datetime


@dataclass(frozen=True, slots=True)
class Right:
    """A question with its right answer, as it was stored.

    Attributes:
        fields: Tools and response format of an example that asks the same again.
    """

    interaction: Interaction
    target: str
    source: str
    said_at: datetime
    fields: Mapping[str, object]

    @property
    def question(self) -> str:
        """Digest of what it answers: all turns, in the form in which texts are compared."""
        said = [[turn.role, normalise_answer(turn.text)] for turn in self.interaction.messages]
        return digest([said, self.interaction.tools])


@dataclass(frozen=True, slots=True)
class Found:
    """Right answers, oldest first, and what could not be used, by reason."""

    right: tuple[Right, ...]
    set_aside: Counter[str]


def find_right(
    store: EventStore, history: History, rules: GoldenRules, *, position: int = 0
) -> Found:
    """Return the answers that people said to be right, or of which they said what is.

    Args:
        store: The store.
        history: Who refused before what the store holds.
        rules: What counts.
        position: Where corrections `given` by users count, those that arrived after it.
    """
    aside: Counter[str] = Counter()
    claims = _claims(store, rules, position, aside)
    kept = _permitted(store, history, claims, aside)
    found = store.stored_interactions(sorted(kept))
    asked = AskedWith.among(store, list(found.values()))
    right = []
    for key, interaction in found.items():
        claim = claims[key]
        why, fields = _why_not(interaction, claim, asked)
        if why:
            aside[why] += 1
            continue
        right.append(
            Right(interaction, _target(interaction, claim), claim.source, claim.said_at, fields)
        )
    right.sort(key=lambda one: (one.said_at, one.interaction.id))
    return Found(_agreeing(right, aside), aside)


# What was said ------------------------------------------------------------------------------------


def _claims(
    store: EventStore, rules: GoldenRules, position: int, aside: Counter[str]
) -> dict[str, Claim]:
    """Return what is held to be right by answer: a label before a correction, before approval."""
    approved, labelled, disputed = _labels(store, rules)
    confirmed = _confirmed(store)
    corrected = set(confirmed)
    if rules.corrections == "given":
        corrected |= set(corrected_after(store, position))
    corrections = {
        key: Claim(
            said.text.strip(), "correction", max(said.said_at, confirmed.get(key, said.said_at))
        )
        for key, said in corrections_of(store, sorted(corrected)).items()
    }
    claims = {key: one for key, one in approved.items() if key not in disputed}
    aside["people disagree about the answer"] += len(disputed)
    for key in corrections.keys() & labelled.keys():
        if comparable(corrections[key].target or "") != comparable(labelled[key].target or ""):
            aside["its label and its correction differ"] += 1
            del corrections[key], labelled[key]
            claims.pop(key, None)
    return claims | corrections | labelled


def _labels(
    store: EventStore, rules: GoldenRules
) -> tuple[dict[str, Claim], dict[str, Claim], set[str]]:
    """Return answers that labels approve, those that labels name, and those in dispute."""
    latest: dict[tuple[str, str], dict[str, HumanLabel]] = {}
    for label in human_labels(store):
        if label.unit == "answer" and label.dimension not in NO_OPINION:
            latest.setdefault((label.item_id, label.dimension), {})[label.reviewer] = label
    approved, labelled = dict[str, Claim](), dict[str, Claim]()
    disputed, bad = set[str](), set[str]()
    for (key, dimension), by_reviewer in latest.items():
        given = [one for one in by_reviewer.values() if one.adjudicates]
        given = given or list(by_reviewer.values())  # who decided between others counts alone
        said_at = max(label.created_at for label in given)
        names = {label.label for label in given}
        if dimension == rules.answer_dimension:
            if len(names) == 1:
                labelled[key] = Claim(names.pop(), "label", said_at)
            else:
                disputed.add(key)
            continue
        good = {name.casefold() in rules.good_labels for name in names}
        if len(good) > 1:
            disputed.add(key)
        if False in good:
            bad.add(key)
        else:
            approved[key] = Claim(None, "approval", said_at)
    return {key: one for key, one in approved.items() if key not in bad}, labelled, disputed


def _confirmed(store: EventStore) -> dict[str, datetime]:
    """Return the corrections that enough people confirmed, by answer, and when it was said last."""
    said = decided_as(store, CORRECTION, CONFIRMED)
    outcomes = outcomes_about(store, said, CORRECTION)
    agreed = {key for key, outcome in outcomes.items() if outcome.label == CONFIRMED}
    return {key: at for key, at in said.items() if key in agreed}


# What may be asked again --------------------------------------------------------------------------


def _permitted(
    store: EventStore, history: History, ids: Iterable[str], aside: Counter[str]
) -> set[str]:
    """Return the answers of real users that may be kept for good and are not unsafe."""
    wanted = set(ids)
    real = real_answers(store, sorted(wanted))
    aside["not stored any more, or of simulated users"] += len(wanted - real)
    refused = not_for_good(store, history, sorted(real))
    aside["its user refuses, or lets it be kept for a time only"] += len(refused)
    unsafe = unsafe_among(store, sorted(real - refused))
    aside["flagged as unsafe, or found so"] += len(unsafe)
    return real - refused - unsafe


def _why_not(
    interaction: Interaction, claim: Claim, asked: AskedWith
) -> tuple[str, Mapping[str, object]]:
    """Say why a question cannot be asked again with its answer; "" where it can, with what."""
    if interaction.user_id == FORGOTTEN:
        return "its user was forgotten", {}
    if interaction.messages[-1].role != "user" or not reads_as_text(interaction.messages):
        return "not a question in words", {}
    if claim.target is None and interaction.error is not None:
        return "the answer failed", {}
    target = _target(interaction, claim)
    if not target:
        return "no right answer in words or calls", {}
    fields = asked.fields(interaction)
    if fields is None:
        return "its tools are not stored any more", {}
    if AS_TEXT in target or call_fault(target, asked.tools(interaction) or ()):
        return "its calls are not ones that its tools take", {}
    return "", fields


def _target(interaction: Interaction, claim: Claim) -> str:
    return (written(interaction.answer) if claim.target is None else claim.target).strip()


def _agreeing(right: list[Right], aside: Counter[str]) -> tuple[Right, ...]:
    """Return one right answer a question, the newest; none where they differ."""
    by_question: dict[str, list[Right]] = {}
    for one in right:
        by_question.setdefault(one.question, []).append(one)
    return tuple(_of_each(by_question, aside))


def _of_each(by_question: Mapping[str, list[Right]], aside: Counter[str]) -> Iterator[Right]:
    for same in by_question.values():
        if len({comparable(one.target) for one in same}) > 1:
            aside["right answers to one question differ"] += len(same)
            continue
        aside["asked and answered alike before"] += len(same) - 1
        yield same[-1]
