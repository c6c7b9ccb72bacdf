"""What judges and reviewers say, and what their validation found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.records.base import Identifier, Record, Share, Text, UtcTime
from ratchet.records.conversations import Message

JudgeMode = Literal["pointwise", "pairwise", "reference", "guard"]
JudgeUnit = Literal["answer", "session"]
Usability = Literal["usable", "not usable", "not enough labels"]


class JudgeVerdict(Record):
    """One reply of a judge, kept whole.

    Attributes:
        id: Digest of the judge's version and of everything that it was shown.
        judge: Name of the judge.
        judge_version: Digest of rubric, prompt, examples, model and decoding.
        model: The model as its server names it.
        prompt: What it was sent.
        reply: What it answered, raw.
        outcome: The option that it chose; None when it is unscored.
        score: The option's worth in [0, 1]; None when it is unscored.
        reason: Why it is unscored.
        shielded: Passages of the material that address a judge and were not shown to it.
        cost: In the currency of the configured prices; 0 where none are configured.
        item_id: What was judged first in these words: an interaction, an example or a pair; None in
            older records.
        shows: Other interactions that the prompt quotes: the earlier ones of a session, or the one
            with the user's next turn. Whatever of them is erased takes the verdict along.
    """

    id: Identifier
    created_at: UtcTime
    judge: Identifier
    judge_version: Identifier
    dimension: Identifier
    mode: JudgeMode
    model: Identifier
    prompt: tuple[Message, ...] = Field(min_length=1)
    reply: Text
    outcome: str | None
    score: Share | None
    reason: str | None = None
    shielded: int = Field(default=0, ge=0)
    input_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, ge=0)
    cost: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    latency_seconds: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    attempts: int = Field(default=1, ge=1)
    item_id: str | None = Field(default=None, exclude_if=lambda value: value is None)
    shows: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)


class HumanLabel(Record):
    """What a person holds an interaction (or a pair) to be, on one dimension.

    Attributes:
        item_id: The interaction, or the pair.
        label: An option of the dimension's menu.
        reviewer: Who; several may label one item.
        unit: What they hold so: the answer, or the whole session up to it.
        adjudicates: Whether it decides between people who disagreed, having seen their labels.
    """

    id: Identifier
    created_at: UtcTime
    item_id: Identifier
    dimension: Identifier
    label: Identifier
    reviewer: Identifier
    note: Text | None = None
    unit: JudgeUnit = Field(default="answer", exclude_if=lambda value: value == "answer")
    adjudicates: bool = Field(default=False, exclude_if=lambda value: not value)


class ComparedPair(Record):
    """Two answers to one example, which people compare without knowing whose they are.

    Attributes:
        example_id: The example, of the set that the sheet names.
        first: The challenger's answer.
        second: The champion's.
    """

    example_id: Identifier
    first: Text
    second: Text


class LabelSheet(Record):
    """Pairs of answers that wait for people, so that a sheet can be written on any machine.

    Attributes:
        id: Derived from all answers that were compared: of other answers it is another sheet.
        cycle_id: Whose decision waits for it.
        example_set_id: Holds the examples, with their conversations.
        pairs: A random part of all pairs.
        wanted: So many that differ people must compare before the gate decides.
        extends: The sheet whose pairs it begins with, where those were too few.
    """

    id: Identifier
    created_at: UtcTime
    cycle_id: Identifier
    example_set_id: Identifier
    pairs: tuple[ComparedPair, ...]
    wanted: int = Field(ge=0)
    extends: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)


class PairLabel(Record):
    """Whose answer of a pair a person prefers.

    Attributes:
        sheet_id: The sheet that it was on.
        pair: Digest of the example and both answers (`ratchet.judges.label_sheet.pair_name`).
        winner: "1" the first answer, "2" the second, "tie".
        reviewer: Who; of several labels of one person the latest counts.
    """

    id: Identifier
    created_at: UtcTime
    sheet_id: Identifier
    example_id: Identifier
    pair: Identifier
    winner: Literal["1", "2", "tie"]
    reviewer: Identifier


class Figure(Record):
    """A number of a validation, with its interval; None with the reason when it is undefined."""

    name: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    observations: int = Field(ge=0)
    reason: str | None = None


class JudgeValidation(Record):
    """Whether a version of a judge may count, and why.

    Attributes:
        labels_digest: Names the labels that it was held against.
        items: Items with a label and a verdict.
        unscored: Items with a label but without a verdict.
        figures: Agreement, kappa, order consistency, biases and what else was measured.
        confusion: Counts by label of people (rows) and verdict (columns), as `categories`.
        more_labels: How many more labels would decide it if they come out like those
            so far, where known.
    """

    id: Identifier
    created_at: UtcTime
    judge: Identifier
    judge_version: Identifier
    dimension: Identifier
    decision: Usability
    reasons: tuple[str, ...] = Field(min_length=1)
    labels_digest: str
    items: int = Field(ge=0)
    unscored: int = Field(ge=0)
    figures: tuple[Figure, ...]
    categories: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    more_labels: int | None = Field(default=None, ge=0)

    def figure(self, name: str) -> Figure | None:
        """Return the figure of this name, or None."""
        return next((figure for figure in self.figures if figure.name == name), None)


class ReviewItem(Record):
    """Something that a person has to look at; `id` is derived from interaction and dimension.

    Attributes:
        priority: Safety comes first.
        raised_by: The rule, judge or user that asked for it.
        why: What was seen, in words.
        other_id: Of a correction in words the interaction whose answer the user accepted then; of
            a pair of answers the sheet that it is on.
        queue: The rule by which it was chosen; None in older records.
        people: How many people decide it, each without seeing the others.
        unanimous: Whether all of them must agree; else most of them.
        known: The right label, where it is an item to check reviewers with.
    """

    id: Identifier
    created_at: UtcTime
    interaction_id: Identifier
    dimension: Identifier
    priority: Literal["safety", "normal"]
    raised_by: Identifier
    why: Text
    other_id: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)
    queue: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)
    people: int = Field(default=1, ge=1, exclude_if=lambda value: value == 1)
    unanimous: bool = Field(default=False, exclude_if=lambda value: not value)
    known: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)


class ReviewDecision(Record):
    """What a person decided about a review item.

    Attributes:
        item_id: The review item.
        label: An option of the dimension; for safety `violation` or `fine`.
        reviewer: Who.
        answer: Of a confirmed correction the right answer in the reviewer's words.
        adjudicates: Whether it decides between people who disagreed, having seen their labels.
    """

    id: Identifier
    created_at: UtcTime
    item_id: Identifier
    label: Identifier
    reviewer: Identifier
    note: Text | None = None
    answer: Text | None = Field(default=None, exclude_if=lambda value: value is None)
    adjudicates: bool = Field(default=False, exclude_if=lambda value: not value)


class ReviewUndo(Record):
    """A reviewer took a decision back; it counts no more, and the item waits again."""

    id: Identifier
    created_at: UtcTime
    decision_id: Identifier
    item_id: Identifier
    reviewer: Identifier


class ReviewSkip(Record):
    """A reviewer passed an item on to others, and why."""

    id: Identifier
    created_at: UtcTime
    item_id: Identifier
    reviewer: Identifier
    reason: Text = Field(min_length=1)


class KnownAnswer(Record):
    """A reviewer's label of an item whose right label is known; it decides nothing.

    Attributes:
        item_id: The item, whose `known` is the right label.
        right: The right label.
    """

    id: Identifier
    created_at: UtcTime
    item_id: Identifier
    dimension: Identifier
    label: Identifier
    right: Identifier
    reviewer: Identifier


class SafetyPass(Record):
    """How far answers were screened for safety, so that the next pass goes on from there."""

    id: Identifier
    created_at: UtcTime
    screened_until: UtcTime
    interactions: int = Field(ge=0)
    flags: int = Field(ge=0)


class SampledDay(Record):
    """How many answers the random sample of a day counts on, so that its share stays the same.

    Attributes:
        day: The day in UTC, as 2026-03-02.
    """

    id: Identifier
    created_at: UtcTime
    day: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    answers: int = Field(ge=1)
