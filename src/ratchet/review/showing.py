"""An item as a reviewer sees it: the whole conversation, what users did, and nothing that decides.

Neither the model's version, nor a judge's verdict, nor another reviewer's label is shown. Who
decides between people who disagreed sees their labels, without their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from ratchet.judges.prompts import second_first
from ratchet.records import WIN_RATE, Interaction, ReviewItem, offered, spoken, spoken_turns
from ratchet.records.signals import SIGNALS
from ratchet.records.tool_calls import spoken_answer
from ratchet.review.corrections import CORRECTION, RAISED_BY, interactions_about
from ratchet.review.deciding import proposed_answer
from ratchet.review.pairs import pair_of
from ratchet.review.policy import LabelOption, ReviewPolicy
from ratchet.safety.rules import REPORT
from ratchet.safety.source_validation import SAFETY
from ratchet.store import EventStore
from ratchet.store.event_rows import FeedbackRow
from ratchet.store.review_candidates import judges_of
from ratchet.store.review_items import decisions_about

_HIDDEN = ("judge_score", "session_score", "next_turn")
"""Feedback that is a reading of the answer by a model, not something that users did."""
_FLAGGED, _CHECKED = "flagged for safety", "chosen for a second look"
_LONGEST_DIFF = 20_000
_WORDS = re.compile(r"\s+|[^\s]+")
Change = Literal["same", "left", "right"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a reviewer is shown of an item.

    Attributes:
        question: What is asked.
        choices: What may be answered; of a pair by place: a, b or tie.
        guidelines: The written guidelines, in Markdown; "" where there are none.
        why: Why it is in the queue, in words that give no verdict away.
        turns: The conversation, who speaks and what people read of it.
        answers: What is to be judged, each with its heading: one answer, or two.
        changes: Of two answers, word by word which stand in both, and which in one alone.
        users: What users did with the answer.
        proposed: A right answer that another reviewer wrote, for this one to confirm.
        given: Labels of the people who disagreed, where this reviewer decides between them.
    """

    question: str
    choices: tuple[LabelOption, ...]
    guidelines: str
    why: str
    turns: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str], ...]
    changes: tuple[tuple[Change, str], ...] = ()
    users: tuple[str, ...] = ()
    proposed: str | None = None
    given: tuple[str, ...] = ()


def show_item(
    store: EventStore, item: ReviewItem, policy: ReviewPolicy, *, adjudicates: bool = False
) -> Shown | None:
    """Return what a reviewer is shown of an item; None where it is stored no more.

    Args:
        store: The store.
        item: The item.
        policy: Questions, labels and guidelines.
        adjudicates: Whether the labels of people who disagreed are shown.
    """
    known = policy.dimensions.get(item.dimension)
    said = _pair(store, item) if item.dimension == WIN_RATE else _answers(store, item)
    if said is None:
        return None
    turns, answers = said
    given: tuple[str, ...] = ()
    if adjudicates:
        found = decisions_about(store, [item.interaction_id], item.dimension)
        labels = [one.label for one in found.get(item.interaction_id, ())]
        given = tuple(
            sorted(labels if item.dimension != WIN_RATE else _by_place(store, item, labels))
        )
    return Shown(
        question=known.question if known is not None else item.dimension,
        choices=choices_of(item, policy),
        guidelines=policy.guidelines.get(item.dimension, ""),
        why=blind_why(store, item),
        turns=turns,
        answers=answers,
        changes=changes_between(answers[0][1], answers[1][1]) if len(answers) == 2 else (),
        users=_users_did(store, item),
        proposed=proposed_answer(store, item) if item.dimension == CORRECTION else None,
        given=given,
    )


def choices_of(item: ReviewItem, policy: ReviewPolicy) -> tuple[LabelOption, ...]:
    """Return what may be answered to an item."""
    if item.dimension == WIN_RATE:
        return (
            LabelOption(name="a", means="the first answer"),
            LabelOption(name="b", means="the second answer"),
            LabelOption(name="tie", means="neither is better"),
        )
    known = policy.dimensions.get(item.dimension)
    return known.labels if known is not None else ()


def blind_why(store: EventStore, item: ReviewItem) -> str:
    """Return why an item is in the queue, in words that give no verdict of a judge away."""
    if item.raised_by == RAISED_BY or item.dimension == WIN_RATE:
        return item.why
    if item.dimension != SAFETY or item.known is not None:
        return _CHECKED
    by_judge = item.raised_by != REPORT and judges_of(store, item.interaction_id)
    return _FLAGGED if by_judge else item.why


def _answers(
    store: EventStore, item: ReviewItem
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] | None:
    known = interactions_about(store, [item])
    first = known.get(item.interaction_id)
    if first is None:
        return None
    turns: list[tuple[str, str]] = [*_tools(store, first), *spoken_turns(first.messages)]
    answer = spoken(first.answer)
    if item.other_id is None:
        return tuple(turns), (("answer", answer),)
    second = known.get(item.other_id)
    if second is None:
        return tuple(turns), (("answer", answer),)
    turns.append(("assistant", answer))
    words = [turn for turn in spoken_turns(second.messages) if turn[0] == "user"]
    turns += words[-1:]
    return tuple(turns), (("answer", answer), ("the answer after that", spoken(second.answer)))


def _tools(store: EventStore, interaction: Interaction) -> Iterable[tuple[str, str]]:
    if interaction.tools is None:
        return
    found = store.definitions({interaction.tools})
    if interaction.tools in found:
        yield "tools", offered(found[interaction.tools].body)


def _pair(
    store: EventStore, item: ReviewItem
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] | None:
    pair = pair_of(store, item)
    if pair is None:
        return None
    both = [spoken_answer(pair.answer), spoken_answer(pair.other or "")]
    if second_first(pair):
        both.reverse()
    turns = tuple(spoken_turns(pair.conversation))
    return turns, (("answer a", both[0]), ("answer b", both[1]))


def _by_place(store: EventStore, item: ReviewItem, labels: Sequence[str]) -> list[str]:
    pair = pair_of(store, item)
    turned = pair is not None and second_first(pair)
    places = {"1": "b" if turned else "a", "2": "a" if turned else "b"}
    return [places.get(label, label) for label in labels]


def changes_between(left: str, right: str) -> tuple[tuple[Change, str], ...]:
    """Return two texts word by word: what stands in both, in the left alone, in the right alone.

    Example:
        >>> changes_between("It left on Monday.", "It left on Friday.")
        (('same', 'It left on '), ('left', 'Monday.'), ('right', 'Friday.'))
    """
    if len(left) + len(right) > _LONGEST_DIFF:
        return (("left", left), ("right", right))
    ones, others = _WORDS.findall(left), _WORDS.findall(right)
    found: list[tuple[Change, str]] = []
    matcher = SequenceMatcher(None, ones, others, autojunk=False)
    for kind, start, end, begin, stop in matcher.get_opcodes():
        if kind == "equal":
            found.append(("same", "".join(ones[start:end])))
            continue
        if start < end:
            found.append(("left", "".join(ones[start:end])))
        if begin < stop:
            found.append(("right", "".join(others[begin:stop])))
    return tuple(found)


def _users_did(store: EventStore, item: ReviewItem) -> tuple[str, ...]:
    if item.dimension == WIN_RATE:
        return ()
    rows = [row for row in store.feedback_about([item.interaction_id]) if _is_of_users(row)]
    rows.sort(key=lambda row: (row.updated_at or row.created_at, row.id))
    return tuple(dict.fromkeys(_in_words(row) for row in rows))


def _is_of_users(row: FeedbackRow) -> bool:
    if row.kind == "safety_violation":
        return row.text == REPORT
    return row.kind not in _HIDDEN


_NAMES: Mapping[str, str] = {signal.name: signal.name.replace("_", " ") for signal in SIGNALS}


def _in_words(row: FeedbackRow) -> str:
    name = _NAMES.get(row.kind, row.kind.replace("_", " "))
    if row.kind == "thumbs":
        return "thumbs up" if row.number == 1.0 else "thumbs down"
    if row.kind == "stars":
        return f"{row.number:g} of 5 stars"
    if row.kind == "safety_violation":
        return "reported as unsafe"
    if row.text is not None and row.number is None:
        return f"{name}: {row.text}"
    if row.number in (0.0, 1.0):
        return f"{name}: {'yes' if row.number else 'no'}"
    return f"{name}: {row.number:g}" if row.number is not None else name
