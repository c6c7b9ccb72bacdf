"""Users with known truth: how they react to right and wrong answers, and (from `traffic`) when.

Everything is drawn from the random generator that is passed in, and every id is derived, so that
planning or reacting again gives the same events.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InvalidInputError
from ratchet.records import (
    Comment,
    Copy,
    Correction,
    Feedback,
    Interaction,
    Regenerate,
    SessionEnd,
    Share,
    Stars,
    TaskCompleted,
    Thumbs,
    derive_id,
)
from ratchet.simulation.traffic import Visit, plan_traffic

__all__ = ["ReactionRates", "Visit", "is_right", "plan_traffic", "react", "reaction_rng"]

Seconds = Annotated[float, Field(gt=0.0, le=2_592_000.0)]
Spread = Annotated[float, Field(gt=0.0, le=10.0)]
StarMean = Annotated[float, Field(ge=1.0, le=5.0)]

_COMMENTS_WRONG = (
    "wrong team again",
    "this is clearly about {truth}",
    "should have gone to {truth}",
    "they sent me on to {truth} in the end",
    "not what I asked",
    "did it even read my message?",
    "had to explain everything twice",
    "no, completely wrong",
    "bot sent me to the wrong people",
    "useless, I'll call instead",
)
_COMMENTS_RIGHT = (
    "quick and right",
    "{truth} sorted it in five minutes, thanks",
    "perfect, thank you",
    "finally someone who gets it",
    "good bot",
    "fine, but the chat window is tiny",
)


class ReactionRates(BaseModel):
    """How users react to an answer, given whether it was right or wrong.

    Shares are chances per interaction in [0, 1]; times are means in seconds, above 0
    and at most 30 days.

    Attributes:
        thumbs: Share of interactions that get a thumb.
        thumb_error: Chance that a thumb points the wrong way.
        stars: Share of interactions that get stars.
        stars_right: Mean stars of a right answer, before noise, rounding and clipping to 1 to 5.
        stars_wrong: Mean stars of a wrong answer, likewise.
        stars_spread: Standard deviation of that noise, in stars.
        comment_right: Share of right answers that get a comment.
        comment_wrong: Share of wrong answers that get a comment.
        correction_wrong: Share of wrong answers that the user corrects; right ones never are.
        correction_error: Chance that a correction names another label than the truth.
        copy_right: Share of right answers that are copied.
        copy_wrong: Share of wrong answers that are copied.
        regenerate_right: Share of right answers for which another is asked.
        regenerate_wrong: Share of wrong answers for which another is asked.
        completion_observed: Share of interactions after which it is known whether the user's task
            was done.
        completed_right: Share of tasks done after a right answer.
        completed_wrong: Share of tasks done after a wrong answer.
        abandon_right: Share of sessions that are cut short after a right last answer.
        abandon_wrong: Share of sessions that are cut short after a wrong last answer.
        turn_seconds_right: Mean length of a turn in a session whose last answer was right.
        turn_seconds_wrong: Mean length of a turn in a session whose last answer was wrong.
        turn_seconds_abandoned: Mean length of the last turn of a session that is cut short.
        explicit_delay: Mean time from answer to thumb, stars, comment or correction
            (exponential: most within the hour, some many hours later).
        implicit_delay: Mean time from answer to copy, regenerate and task completion
            (exponential).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thumbs: Share = 0.35
    thumb_error: Share = 0.05
    stars: Share = 0.05
    stars_right: StarMean = 4.5
    stars_wrong: StarMean = 1.8
    stars_spread: Spread = 0.8
    comment_right: Share = 0.01
    comment_wrong: Share = 0.08
    correction_wrong: Share = 0.55
    correction_error: Share = 0.03
    copy_right: Share = 0.40
    copy_wrong: Share = 0.05
    regenerate_right: Share = 0.05
    regenerate_wrong: Share = 0.35
    completion_observed: Share = 0.8
    completed_right: Share = 0.90
    completed_wrong: Share = 0.20
    abandon_right: Share = 0.03
    abandon_wrong: Share = 0.20
    turn_seconds_right: Seconds = 45.0
    turn_seconds_wrong: Seconds = 90.0
    turn_seconds_abandoned: Seconds = 6.0
    explicit_delay: Seconds = 1_800.0
    implicit_delay: Seconds = 20.0


def reaction_rng(seed: int, interaction_id: str) -> np.random.Generator:
    """Return the generator for one interaction's reactions.

    It depends on its arguments alone, so reactions stay the same in whatever order, and from
    whatever point, the interactions are worked through.

    Raises:
        InvalidInputError: If the seed is negative.
    """
    if seed < 0:
        raise InvalidInputError(f"seed must be 0 or more, got {seed}; pass its absolute value")
    name = hashlib.sha256(interaction_id.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(name[:16])])


def is_right(visit: Visit, interaction: Interaction) -> bool:
    """Return whether the answer names the truth.

    Case, blanks around and between words and punctuation at the end are ignored. An interaction
    with an error is wrong.
    """
    return interaction.error is None and _plain(interaction.response) == _plain(visit.truth)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(string.punctuation + "… ")


def react(
    visit: Visit,
    interaction: Interaction,
    rates: ReactionRates,
    labels: Sequence[str],
    rng: np.random.Generator,
) -> tuple[Feedback, ...]:
    """Return what the user gives back on an answer.

    Copy and regenerate are always observed, as true or false; task completion on a share of the
    interactions; the session's length where the visit ends it. Explicit feedback is rare and late.

    Args:
        visit: What the user sent.
        interaction: The answer to it.
        rates: How users react.
        labels: All labels an answer may name; wrong corrections are drawn from them.
        rng: Source of all choices, best from `reaction_rng`.

    Returns:
        The events in order of time, at most one of a kind; ids are
        `derive_id(interaction.id, kind)` and none is earlier than the interaction.

    Raises:
        InvalidInputError: If the interaction is not the visit's, or no label but the truth exists.
    """
    if interaction.id != visit.interaction_id:
        raise InvalidInputError(
            f"the interaction must be the visit's, {visit.interaction_id}, got {interaction.id}; "
            "pass the answer to this visit"
        )
    others = [label for label in labels if _plain(label) != _plain(visit.truth)]
    if not others:
        raise InvalidInputError(
            f"labels must hold one besides the truth {visit.truth!r}, got {list(labels)}; "
            "pass all labels"
        )
    right = is_right(visit, interaction)
    events = [
        *_explicit(visit, interaction, right, rates, others, rng),
        *_implicit(interaction, right, rates, rng),
    ]
    if visit.ends_session:
        events.append(_session_end(visit, interaction, right, rates, rng))
    return tuple(sorted(events, key=lambda event: event.created_at))


def _explicit(
    visit: Visit,
    interaction: Interaction,
    right: bool,
    rates: ReactionRates,
    others: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[Feedback]:
    def about(kind: str) -> dict[str, Any]:
        return _event(interaction, kind, rng.exponential(rates.explicit_delay))

    if _happens(rates.thumbs, rng):
        up = right is not _happens(rates.thumb_error, rng)
        yield Thumbs(value="up" if up else "down", **about("thumbs"))
    if _happens(rates.stars, rng):
        mean = rates.stars_right if right else rates.stars_wrong
        stars = round(rng.normal(mean, rates.stars_spread))
        yield Stars(value=min(max(stars, 1), 5), **about("stars"))
    if _happens(rates.comment_right if right else rates.comment_wrong, rng):
        phrase = _one_of(_COMMENTS_RIGHT if right else _COMMENTS_WRONG, rng)
        yield Comment(value=phrase.format(truth=visit.truth), **about("comment"))
    if not right and _happens(rates.correction_wrong, rng):
        mistaken = _happens(rates.correction_error, rng)
        value = _one_of(others, rng) if mistaken else visit.truth
        yield Correction(value=value, **about("correction"))


def _implicit(
    interaction: Interaction, right: bool, rates: ReactionRates, rng: np.random.Generator
) -> Iterator[Feedback]:
    def about(kind: str) -> dict[str, Any]:
        return _event(interaction, kind, rng.exponential(rates.implicit_delay))

    copied = _happens(rates.copy_right if right else rates.copy_wrong, rng)
    yield Copy(value=copied, **about("copy"))
    again = _happens(rates.regenerate_right if right else rates.regenerate_wrong, rng)
    yield Regenerate(value=again, **about("regenerate"))
    if _happens(rates.completion_observed, rng):
        done = _happens(rates.completed_right if right else rates.completed_wrong, rng)
        yield TaskCompleted(value=done, **about("task_completed"))


def _session_end(
    visit: Visit,
    interaction: Interaction,
    right: bool,
    rates: ReactionRates,
    rng: np.random.Generator,
) -> SessionEnd:
    """End the session; its last answer stands for how the whole of it went."""
    mean = rates.turn_seconds_right if right else rates.turn_seconds_wrong
    earlier = float(rng.exponential(mean, size=visit.session_turn - 1).sum())
    abandoned = _happens(rates.abandon_right if right else rates.abandon_wrong, rng)
    last = float(rng.exponential(rates.turn_seconds_abandoned if abandoned else mean))
    return SessionEnd(value=earlier + last, **_event(interaction, "session_end", last))


def _event(interaction: Interaction, kind: str, delay: float) -> dict[str, Any]:
    """Return the fields that all kinds of feedback share; `delay` is in seconds."""
    return {
        "id": derive_id(interaction.id, kind),
        "interaction_id": interaction.id,
        "created_at": interaction.created_at + timedelta(seconds=delay),
        "user_id": interaction.user_id,
    }


def _happens(share: float, rng: np.random.Generator) -> bool:
    return bool(rng.random() < share)


def _one_of(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
