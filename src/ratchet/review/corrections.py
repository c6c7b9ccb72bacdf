"""Corrections in words, for people to confirm: "no, I meant the refund", and the answer to that.

    report = queue_corrections(store, now=now)      # what was corrected, and then accepted
    said = shown(first, second)                     # as people read it

Where a user corrected an answer in words and accepted the next one, the second answer may be what
the first should have been. It may as well begin with an apology, or answer something else: so it is
a candidate, and a person says (`ratchet review --decide 3f2a --label confirmed`). What is confirmed
becomes a `correction` of the first answer, as if the user had written it, and reaches training sets
as such: by SFT as a demonstration, by DPO as a pair. What is not confirmed is no row of any set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ratchet.errors import InvalidInputError
from ratchet.files.text import counted
from ratchet.records import (
    Correction,
    Interaction,
    ReviewItem,
    derive_id,
    spoken,
    spoken_turns,
)
from ratchet.records.events import REACTIONS
from ratchet.records.tool_calls import written
from ratchet.safety.source_validation import SAFETY, VIOLATION
from ratchet.store import EventStore
from ratchet.store.corrected import (
    CorrectedPair,
    begin_corrected,
    corrected_pairs,
    feedback_step,
    keep_corrected,
    raised_since,
)
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.event_rows import FeedbackRow
from ratchet.store.permissions import CONSENT, RETAIN, Permission, agrees, end_of_keeping
from ratchet.store.review_items import (
    decided_items,
    outcomes_about,
    sources_waiting,
    waiting_about,
)
from ratchet.store.rows import microseconds

logger = logging.getLogger(__name__)

CORRECTION: Final = "correction"
"""The dimension of the queue on which these are decided."""
CONFIRMED, REJECTED = "confirmed", "rejected"
RAISED_BY: Final = "correction in words"
A_DAY = 50
"""New candidates of a day at most, so that people can keep up."""
A_USER = 5
"""New candidates of a day at most from one user."""
_BAD_TURNS = {REACTIONS.index(name) + 1.0 for name in ("complained", "corrected", "rephrased")}
_GOOD_STARS, _BAD_STARS = 4.0, 2.0


@dataclass(frozen=True, slots=True)
class QueuedCorrections:
    """What a pass did.

    Attributes:
        queued: New items of the queue.
        left_out: Candidates beyond what a day or a user may bring.
    """

    queued: int = 0
    left_out: int = 0

    @property
    def in_words(self) -> str:
        """One line that says what the pass did."""
        more = f"; {self.left_out} left out, beyond {A_DAY} a day or {A_USER} of one user"
        return (
            f"{counted(self.queued, 'correction')} in words for a person to confirm "
            f"(`ratchet review`){more if self.left_out else ''}"
        )


def queue_corrections(
    store: EventStore,
    *,
    now: datetime,
    most: int | None = None,
    people: int = 1,
    unanimous: bool = False,
) -> QueuedCorrections:
    """Put in the queue what feedback that arrived since the last pass shows to be a candidate.

    An answer was accepted where a user gave it a thumb or four stars and more, thanked for it, or
    went on, and nothing says otherwise: no bad rating, no further correction, not asked again.

    Args:
        store: The store.
        now: The time.
        most: Answers spoken of that one pass looks at; the next one goes on. None for all.
        people: How many people decide each.
        unanimous: Whether all of them must agree.
    """
    place, queued, left_out, looked_at = begin_corrected(store), 0, 0, 0
    while most is None or looked_at < most:
        reached, ids = feedback_step(store, place)
        if reached == place:
            break
        for pair, first, second in _candidates(store, ids, now):
            new, is_room = _queue(
                store, _candidate(pair, first, second, now, people, unanimous), first, now
            )
            queued, left_out = queued + new, left_out + (not is_room)
        if not keep_corrected(store, before=place, after=reached):
            break  # another process was faster and goes on
        place, looked_at = reached, looked_at + len(ids)
    return QueuedCorrections(queued, left_out)


def _candidates(
    store: EventStore, ids: list[str], now: datetime
) -> Iterable[tuple[CorrectedPair, Interaction, Interaction]]:
    pairs = list(corrected_pairs(store, ids))
    if not pairs:
        return
    about: dict[str, list[FeedbackRow]] = {}
    for row in store.feedback_about({pair.second_id for pair in pairs}):
        about.setdefault(row.interaction_id, []).append(row)
    names = {key for pair in pairs for key in (pair.first_id, pair.second_id)}
    known = store.stored_interactions(sorted(names))
    for pair in pairs:
        first, second = known.get(pair.first_id), known.get(pair.second_id)
        if first is None or second is None or not was_accepted(about.get(second.id, ())):
            continue
        if may_stand_for(second, first, now) and answers_correction_of(first, second):
            yield pair, first, second


def was_accepted(feedback: Sequence[FeedbackRow]) -> bool:
    """Tell whether users accepted an answer, by the latest of each kind of feedback on it."""
    latest: dict[str, float] = {}
    for row in sorted(feedback, key=lambda row: (row.updated_at or row.created_at, row.id)):
        # of several readers of the next turn each has its say
        name = f"{row.kind}/{row.text}" if row.kind == "next_turn" else row.kind
        latest[name] = 1.0 if row.number is None else row.number
    said = [(name.partition("/")[0], number) for name, number in latest.items()]
    return any(_is_good(*each) for each in said) and not any(_is_bad(*each) for each in said)


def _is_good(kind: str, number: float) -> bool:
    return (kind in ("thumbs", "continued") and number == 1.0) or (
        kind == "stars" and number >= _GOOD_STARS
    )


def _is_bad(kind: str, number: float) -> bool:
    if kind in ("asked_again", "regenerate", "edited", "safety_violation"):
        return number == 1.0
    if kind == "stars":
        return number <= _BAD_STARS
    if kind == "thumbs":
        return number == 0.0
    return kind == "correction" or (kind == "next_turn" and number in _BAD_TURNS)


def may_stand_for(second: Interaction, first: Interaction, now: datetime) -> bool:
    """Tell whether an answer may be learnt in the place of another one, as far as its user says.

    A correction is used under what came with the first interaction; so what came with the second
    must not ask for more.
    """
    mine, other = second.metadata, first.metadata
    said = Permission(second.id, mine.get(CONSENT), mine.get(RETAIN))
    if FORGOTTEN in (first.user_id, second.user_id) or first.user_id != second.user_id:
        return False
    if said.refuses(now, only_if_given=CONSENT in other and agrees(other[CONSENT])):
        return False
    if RETAIN not in mine:
        return True
    mine_until, until = end_of_keeping(mine[RETAIN]), end_of_keeping(other.get(RETAIN, ""))
    return mine_until is not None and until is not None and until <= mine_until


def answers_correction_of(first: Interaction, second: Interaction) -> bool:
    """Tell whether an interaction answers the user's turn right after the first one's answer."""
    if second.error or not _target(second) or _target(second) == _target(first):
        return False
    turns = [turn for turn in second.messages if turn.role not in ("system", "developer")]
    if len(turns) < 2 or [turn.role for turn in turns[-2:]] != ["assistant", "user"]:
        return False
    return turns[-2].text.strip() == first.answer.text.strip()


def _target(interaction: Interaction) -> str:
    """Return the answer as a target of training has it; "" for a refusal, which is none."""
    return "" if interaction.refusal else written(interaction.answer).strip()


def _candidate(
    pair: CorrectedPair,
    first: Interaction,
    second: Interaction,
    now: datetime,
    people: int,
    unanimous: bool,
) -> ReviewItem:
    return ReviewItem(
        id=derive_id("review", first.id, CORRECTION, second.id),
        created_at=now,
        interaction_id=first.id,
        dimension=CORRECTION,
        priority="normal",
        raised_by=RAISED_BY,
        why=f"the user corrected the answer in words ({pair.version}) and accepted the next one: "
        "is that what it should have been?",
        other_id=second.id,
        queue=CORRECTION,
        people=people,
        unanimous=unanimous,
    )


def _queue(
    store: EventStore, item: ReviewItem, first: Interaction, now: datetime
) -> tuple[int, bool]:
    """Return how many items are new, and whether there was room."""
    day = microseconds(now.replace(hour=0, minute=0, second=0, microsecond=0))
    with store.atomic():
        if store.get(ReviewItem, item.id) is not None:
            return 0, True
        if (
            raised_since(store, RAISED_BY, day) >= A_DAY
            or raised_since(store, RAISED_BY, day, first.user_id) >= A_USER
        ):
            return 0, False
        store.append(item)
    return 1, True


# What people are shown, and what they say ---------------------------------------------------------


def interactions_about(store: EventStore, items: Iterable[ReviewItem]) -> dict[str, Interaction]:
    """Return the stored interactions that items are about, both of a correction, by id."""
    return store.stored_interactions(ids_about(items))


def counts_in_words(store: EventStore) -> str:
    """Say how many corrections in words wait, were confirmed and were rejected."""
    waiting = sum(one.waiting for one in sources_waiting(store) if one.raised_by == RAISED_BY)
    confirmed, rejected = (
        decided_items(store, CORRECTION, label) for label in (CONFIRMED, REJECTED)
    )
    return (
        f"corrections in words: {waiting:,} wait for a person, {confirmed:,} confirmed, "
        f"{rejected:,} rejected"
    )


def ids_about(items: Iterable[ReviewItem]) -> list[str]:
    """Return the ids of the interactions that items are about, both of a correction."""
    every = (key for item in items for key in (item.interaction_id, item.other_id) if key)
    return list(dict.fromkeys(every))


def shown(item: ReviewItem, known: Mapping[str, Interaction]) -> list[tuple[str, str]] | None:
    """Return what a person is shown of an item, each with who says it; None where it is gone.

    Of a correction in words both answers with what the user wrote to each.
    """
    first = known.get(item.interaction_id)
    if first is None:
        return None
    said = [("user", first.prompt), ("answer", spoken(first.answer))]
    if item.other_id is None:
        return said
    second = known.get(item.other_id)
    if second is None:
        return [*said, ("then", "the answer after the correction is no longer stored")]
    words = next(text for role, text in reversed(spoken_turns(second.messages)) if role == "user")
    return [*said, ("then", words), ("second", spoken(second.answer))]


def check_decision(label: str, answer: str | None) -> None:
    """Refuse what is no decision about a correction in words.

    Raises:
        InvalidInputError: The label is none of the two, or a right answer comes with the other one.
    """
    if label not in (CONFIRMED, REJECTED):
        raise InvalidInputError(
            f"a correction in words is decided as {CONFIRMED} or {REJECTED}, got {label!r}; take "
            "one of them"
        )
    if answer is not None and (label != CONFIRMED or not answer.strip()):
        raise InvalidInputError(
            f"a right answer must be some words and come with the label {CONFIRMED}, got "
            f"{answer[:40]!r} with {label!r}; leave it out or confirm"
        )


def settle(
    store: EventStore, item: ReviewItem, label: str, answer: str | None, now: datetime
) -> None:
    """Act on a decision about a candidate: a confirmed one is stored as a `correction`.

    Args:
        store: The store, in the transaction of the decision.
        item: The item.
        label: What was decided.
        answer: The right answer in the reviewer's words; None for the one that was shown.
        now: The time.

    Raises:
        InvalidInputError: The label is none of the two, or what would be learnt must not be.
    """
    check_decision(label, answer)
    key = derive_id("review", CORRECTION, item.interaction_id)
    earlier = store.stored_feedback([key]).get(key)
    if label == REJECTED:
        if earlier is not None:
            raise InvalidInputError(
                "a confirmed correction is part of the record and may be in training sets, got "
                f"{label!r} after {CONFIRMED!r}; confirm again with the right answer"
            )
        return
    event = Correction(
        id=key,
        interaction_id=item.interaction_id,
        created_at=now if earlier is None else earlier.created_at,
        updated_at=None if earlier is None else now,
        value=answer if answer is not None else _confirmed_answer(store, item, now),
    )
    store.add_feedback([event])


def _confirmed_answer(store: EventStore, item: ReviewItem, now: datetime) -> str:
    known = interactions_about(store, [item])
    first, second = known.get(item.interaction_id), known.get(item.other_id or "")
    way_out = "give the right answer yourself"
    if first is None or second is None:
        raise InvalidInputError(
            "what is confirmed must be stored, got an item whose answers are no longer there; "
            f"{way_out}"
        )
    if not may_stand_for(second, first, now):
        raise InvalidInputError(
            "an answer that is confirmed must be one that may be trained on, got one whose user "
            f"does not allow it; decide {REJECTED} or {way_out}"
        )
    if unsafe_among(store, [second.id]):
        raise InvalidInputError(
            "an answer that is confirmed must be safe, got one that is flagged or was found "
            f"unsafe; decide its safety first, or {way_out}"
        )
    return _target(second)


def unsafe_among(store: EventStore, ids: Sequence[str]) -> set[str]:
    """Return the answers that are flagged and wait for people, or that were found unsafe."""
    waiting = waiting_about(store, ids, SAFETY)
    given = outcomes_about(store, ids, SAFETY)
    latest: dict[str, FeedbackRow] = {}
    rows = [row for row in store.feedback_about(ids) if row.kind == "safety_violation"]
    for row in sorted(rows, key=lambda row: (row.updated_at or row.created_at, row.id)):
        latest[row.interaction_id] = row
    decided = {key: said.label == VIOLATION for key, said in given.items()}
    found = {key: row.number == 1.0 for key, row in latest.items()} | decided
    return waiting | {key for key, unsafe in found.items() if unsafe}
