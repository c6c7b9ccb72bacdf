"""Does what the user wrote next tell dissatisfaction? Held against people, like any judge.

    for record in validate_next_turns(store, rng=rng, now=now):
        print(record.judge_version, record.decision)

People label answers on the dimension `dissatisfied` (`ratchet judge label`). A reader's version
names its language, so that each language is validated by itself; only where the
decision is *usable* do readings count in rates, boards, rollouts and failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.judges.judge import Ask, Judge
from ratchet.judges.label_sets import LabelledVerdict
from ratchet.judges.on_store import Clock, as_record, run_judge
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec, Option, RubricDimension
from ratchet.judges.validation import DEFAULT_BAR, Bar, validate_judge
from ratchet.records import HumanLabel, JudgeValidation, Message, derive_id, digest, spoken
from ratchet.records.events import REACTIONS, NextTurn
from ratchet.records.signals import BY_NAME
from ratchet.store import EventStore, Window
from ratchet.store.next_turns import next_turns, read_answers_in
from ratchet.store.review_labels import agreed_labels, human_labels

DISSATISFIED: Final = RubricDimension(
    name="dissatisfied",
    question="Was the user dissatisfied with the answer?",
    options=(
        Option(name="yes", score=0.0, means="what the user wrote next shows it"),
        Option(name="no", score=1.0, means="it does not"),
    ),
)
KIND: Final = "next_turn"
RULES: Final = "next-turn-rules"
"""How the versions of the rules begin, which have read every turn in their languages."""


def validate_next_turns(
    store: EventStore, *, rng: np.random.Generator, now: datetime, bar: Bar = DEFAULT_BAR
) -> tuple[JudgeValidation, ...]:
    """Hold each version of the reader of next turns against people's labels; keep the decisions.

    The same labels and readings give the stored decision again.
    """
    labels = human_labels(store, DISSATISFIED.name)
    records = []
    for version, rows in sorted(_labelled(store, labels).items()):
        content = digest([[row.item_id, row.human, row.judge, list(row.others)] for row in rows])
        key = derive_id("next-turn-validation", version, content)
        known = store.get(JudgeValidation, key)
        if known is None:
            found = validate_judge(rows, rng=rng, bar=bar, categories=("yes", "no"))
            known = as_record(
                found,
                key=key,
                judge=version.partition("/")[0],
                judge_version=version,
                dimension=DISSATISFIED.name,
                labels_digest=content,
                now=now,
            )
            store.append(known)
        records.append(known)
    return tuple(records)


def reads_next_turns(spec: JudgeSpec) -> bool:
    """Tell whether a judge of the settings is one of what users write next.

    Raises:
        InvalidInputError: It is, and cannot read it: another mode or another menu.
    """
    if spec.dimension.name != DISSATISFIED.name:
        return False
    of_answers = spec.mode == "pointwise" and spec.unit == "answer"
    if not of_answers or set(spec.dimension.names) != set(DISSATISFIED.names):
        raise InvalidInputError(
            f"a judge of the dimension {DISSATISFIED.name} must be pointwise, of answers, with the "
            f"options {' and '.join(DISSATISFIED.names)}, got {spec.mode}, of {spec.unit}s, with "
            f"{', '.join(spec.dimension.names)}; correct judge {spec.name} in the file of judges"
        )
    return True


def read_by_judge(
    store: EventStore, judge: Judge, window: Window, *, most: int, ask: Ask, now: Clock
) -> int:
    """Have a judge read what users wrote after labelled answers, and after some of a window.

    It is shown the conversation with the user's next turn, and asked about the answer before. Only
    answers that the rules read are taken: they tell the language, by which readers are validated.

    Args:
        store: The store.
        judge: The judge; see `reads_next_turns`.
        window: Whose latest answers are read.
        most: So many of these at most.
        ask: How its model is asked.
        now: The clock.

    Returns:
        How many readings are new.
    """
    labels = [one.item_id for one in human_labels(store, DISSATISFIED.name)]
    recent = read_answers_in(store, window, reader=RULES, most=most)
    rows = {row.interaction_id: row for row in next_turns(store, [*labels, *recent], reader=RULES)}
    known = store.stored_interactions(sorted(rows))
    items = [
        Item(
            key,
            (*one.messages, one.answer, Message(role="user", content=rows[key].words)),
            spoken(one.answer),
            shows=(rows[key].next_id,),
        )
        for key, one in known.items()
    ]
    judged = run_judge(store, judge, items, ask=ask, now=now)
    events = [
        NextTurn(
            id=derive_id("derived", "next_turn", version, one.item_id),
            interaction_id=one.item_id,
            created_at=rows[one.item_id].read_at,
            user_id=rows[one.item_id].user_id,
            value=REACTIONS.index("complained" if one.outcome == "yes" else "moved on") + 1,
            judge_version=version,
        )
        for one in judged.judgements
        if one.outcome is not None
        and (version := f"{judge.version}/{rows[one.item_id].version.partition('/')[2]}")
    ]
    return store.add_feedback(events).new if events else 0


def in_words(records: Sequence[JudgeValidation]) -> str:
    """Return in which languages the next turn counts, and why not in others, in a line."""
    usable = [one.judge_version for one in records if one.decision == "usable"]
    off = [
        f"{one.judge_version} ({one.reasons[0]})"
        for one in records
        if one.judge_version not in usable
    ]
    counts = ", ".join(usable) or "nothing"
    why = "; ".join(off) or f"label answers on {DISSATISFIED.name} with `ratchet judge label`"
    return f"of what users write next {counts} counts" + ("" if usable and not off else f": {why}")


def _labelled(store: EventStore, labels: Sequence[HumanLabel]) -> dict[str, list[LabelledVerdict]]:
    """Return labelled readings by the version that read them."""
    people = agreed_labels(labels)
    found: dict[str, dict[str, LabelledVerdict]] = {}
    for row in store.feedback_about(people):
        if row.kind == KIND and row.text is not None and row.number is not None:
            given = people[row.interaction_id]
            verdict = "yes" if BY_NAME[KIND].is_bad(row.number) else "no"
            found.setdefault(row.text, {})[row.interaction_id] = LabelledVerdict(
                item_id=row.interaction_id,
                human=given.label,
                judge=verdict,
                others=given.others,
                adjudicated=given.adjudicated,
            )
    return {version: [rows[key] for key in sorted(rows)] for version, rows in found.items()}
