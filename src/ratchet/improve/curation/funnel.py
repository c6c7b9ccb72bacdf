"""What each step of a selection left out, with the setting that it follows.

    require_enough(selection, config)       # an error that names all of it
    for step in lost(selection.funnel): ...

Settings are named as in the options of the flow `improve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

from ratchet.errors import WaitingError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.rows import RowKind

Funnel = Sequence[tuple[str, int]]


class Counted(Protocol):
    """What is asked of a selection here."""

    @property
    def kind(self) -> RowKind:
        """The method that it is for."""

    @property
    def funnel(self) -> Funnel:
        """What each step left."""

    @property
    def set_aside(self) -> Funnel:
        """Why rows cannot be read."""

    @property
    def liked(self) -> Sequence[int]:
        """Of labelled answers those that were liked, after each of the last steps."""


C = TypeVar("C", bound=Counted)

EVERYTHING = "interactions"
IN_TIME = "of the time chosen"
GOOD, LABELLED, PAIRED = "corrected or well rated", "liked or not", "pairs of answers"
READABLE = "readable"
NOT_REFUSED = "not refused by their user"
NOT_HELD_OUT = "not of users held out"
SAFE = "not flagged as unsafe"
TRUSTED = "from trusted users"
ONE_PER_PROMPT = "one per prompt"
DISTINCT = "no near duplicates"
UNSEEN = "not in an evaluation set"
ORDINARY = "of ordinary length"
CAPPED = "capped per user and source"
BALANCED = "balanced and capped"
UNSEEN_BEFORE = "no earlier turn in an evaluation set"
WITHOUT_CALLS = "without calls of tools as text"
FITTING = "with calls that fit without personal data"
APART = "different without personal data"

SWITCHES: dict[str, str] = {
    IN_TIME: "curation.since and curation.until (--since, --until)",
    GOOD: "curation.minimum_quality, curation.minimum_lower_bound; or more feedback",
    LABELLED: "curation.minimum_quality; or more thumbs, stars and corrections",
    PAIRED: "more corrections or regenerations, or a judge's pairs in sources.preferences",
    READABLE: "curation.maximum_characters; or longer answers where they were cut off",
    NOT_REFUSED: "curation.consent, and what clients send as training_consent and retain_until",
    NOT_HELD_OUT: "collect.sample.user_share: the gate asks what these users asked",
    SAFE: "`ratchet review`, which decides on what is flagged",
    TRUSTED: "curation.poisoning.minimum_trust, or curation.poisoning.enabled",
    ONE_PER_PROMPT: "more users who name one answer, or sources.demonstrations: a tie drops all",
    DISTINCT: "curation.duplicates.similarity",
    UNSEEN: "curation.decontamination; or an evaluation set of other prompts",
    ORDINARY: "curation.length_ratio and curation.length_free",
    CAPPED: "curation.poisoning.user_rows, .user_share and .source_share",
    BALANCED: "curation.maximum_examples",
    UNSEEN_BEFORE: "curation.decontamination; or an evaluation set of other prompts",
    FITTING: "curation.redaction; or tools that take what it puts in the place of personal data",
    APART: "curation.redaction: what differs in personal data alone is the same without it",
    WITHOUT_CALLS: "corrections and demonstrations that do not hold the text [tool calls]",
}
"""What changes how many a step leaves."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A step of a funnel that left something out.

    Attributes:
        step: Its name: what those that were left are.
        lost: How many it left out.
        left: How many it left.
        switch: What changes that.
    """

    step: str
    lost: int
    left: int
    switch: str


def lost(funnel: Funnel) -> tuple[Lost, ...]:
    """Return the steps that left something out, in order."""
    return tuple(
        Lost(step, before - count, count, SWITCHES.get(step, ""))
        for (_, before), (step, count) in pairwise(funnel)
        if count < before
    )


def require_enough(selection: C, config: CurationConfig) -> C:
    """Return a selection of `minimum_examples` or more.

    Raises:
        WaitingError: It has fewer; the error names what each step left out.
    """
    size = selection.funnel[-1][1]
    if size >= config.minimum_examples:
        return selection
    steps = ", ".join(f"{step}: {count}" for step, count in selection.funnel)
    raise WaitingError(
        f"a training set needs at least {config.minimum_examples} examples, got {size} ({steps}); "
        f"{_in_words(selection.funnel)}{_reasons(selection.set_aside)}collect more feedback, "
        "change what is named here, or lower curation.minimum_examples",
        "feedback",
    )


def require_both_labels(selection: C) -> C:
    """Return a selection that its method can train on: KTO needs liked and disliked answers.

    Raises:
        WaitingError: All labels are the same; the error names what left the others out.
    """
    size = selection.funnel[-1][1]
    if selection.kind != "kto" or not size or 0 < selection.liked[-1] < size:
        return selection
    only = selection.liked[-1] == size
    steps = selection.funnel[-len(selection.liked) :]
    missing = [
        (step, total - liked if only else liked)
        for (step, total), liked in zip(steps, selection.liked, strict=True)
    ]
    names = ("liked", "disliked") if only else ("disliked", "liked")
    told = ", ".join(f"{step}: {count}" for step, count in missing)
    raise WaitingError(
        f"KTO needs liked and disliked answers, got {size} {names[0]} and no "
        f"{names[1]} ones ({names[1]} at each step: {told}); {_in_words(missing)}collect more "
        "feedback, change what is named here, or train by SFT, which needs good answers alone",
        "feedback",
    )


def _in_words(funnel: Funnel) -> str:
    told = [
        f"{step.lost:,} are not {step.step!r} ({step.switch})"
        for step in sorted(lost(funnel), key=lambda step: -step.lost)
    ]
    return f"{'; '.join(told)}; " if told else ""


def _reasons(set_aside: Funnel) -> str:
    told = ", ".join(f"{reason}: {count}" for reason, count in set_aside)
    return f"not readable were {told}; " if told else ""
