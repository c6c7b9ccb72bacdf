"""What people do with an item: decide it, take that back, pass it on.

    decide(store, "3f2a", "violation", reviewer="ann", now=now)
    undo(store, reviewer="ann", now=now, held_until=later)
    skip(store, "3f2a", reviewer="ann", reason="in Finnish", now=now)

What follows from a decision follows once as many people decided as the item wants: a
`safety_violation`, a `correction`, compared pairs for the gate. Where they disagree it waits for
another person, who sees their labels (`adjudicates=True`).
"""

from __future__ import annotations

from datetime import datetime

from ratchet.errors import InvalidInputError
from ratchet.judges.label_sets import TIE
from ratchet.judges.label_sheet import FIRST, SECOND
from ratchet.judges.pair_labels import keep_label
from ratchet.records import (
    WIN_RATE,
    KnownAnswer,
    ReviewDecision,
    ReviewItem,
    ReviewSkip,
    ReviewUndo,
    SafetyViolation,
    derive_id,
)
from ratchet.review.corrections import CONFIRMED, CORRECTION, check_decision, settle
from ratchet.review.pairs import shown_in_reverse
from ratchet.review.policy import DEFAULT_POLICY, ReviewPolicy
from ratchet.safety.source_validation import FINE, SAFETY, VIOLATION
from ratchet.store import EventStore
from ratchet.store.review_items import (
    Given,
    decisions_about,
    find_reviews,
    outcomes_about,
)
from ratchet.store.review_rows import DISPUTED, SETTLED
from ratchet.store.review_rows import START as SHORTEST_START
from ratchet.store.review_seats import (
    last_decision,
    leave_seat,
    pass_on,
    states_of,
    take_up_again,
)

REVIEW = "review"
KNOWN = "known"
"""The queue of items whose label is known."""
_LATEST_KNOWN = 500
"""So many of the latest answers to known items are looked through."""


def decide(
    store: EventStore,
    item: str,
    label: str,
    *,
    reviewer: str,
    now: datetime,
    note: str | None = None,
    answer: str | None = None,
    adjudicates: bool = False,
    policy: ReviewPolicy = DEFAULT_POLICY,
) -> ReviewDecision:
    """Keep what a person decided; of safety and corrections it is feedback as well.

    Where the item wants one person, several may decide it; all decisions are kept and the latest
    counts. An item whose label is known is answered too, and decides nothing.

    Args:
        store: The store.
        item: The item's id, or enough of its start.
        label: For safety `violation` or `fine`, for a correction in words `confirmed` or
            `rejected`, for a pair `a`, `b` or `tie`, else a label of the dimension.
        reviewer: Who decides.
        now: The time.
        note: Why, in the reviewer's words.
        answer: Of a correction that is confirmed the right answer, where it is not the one shown.
        adjudicates: Whether this person decides between others who disagreed.
        policy: The labels of dimensions.

    Raises:
        InvalidInputError: No item or several begin so, the label is none of the dimension's,
            this person has decided about the interaction before, or nobody disagrees.
    """
    with store.atomic():
        chosen = find_item(store, item)
        label = _checked_label(store, chosen, label, policy)
        if answer is not None and chosen.dimension != CORRECTION:
            raise InvalidInputError(
                f"a right answer belongs to a {CORRECTION}, got one for {chosen.dimension}; leave "
                "it out"
            )
        if chosen.known is not None:
            return _answer_known(store, chosen, label, reviewer, now, note)
        _refuse_second(store, chosen, reviewer)
        if adjudicates and states_of(store, [chosen.id])[chosen.id] != DISPUTED:
            raise InvalidInputError(
                f"a person decides between others where they disagree, got {chosen.id[:8]}, on "
                "which nobody does; decide it without --adjudicate"
            )
        decision = ReviewDecision(
            id=_decision_id(store, chosen, reviewer),
            created_at=now,
            item_id=chosen.id,
            label=label,
            reviewer=reviewer,
            note=note,
            answer=answer if chosen.people > 1 else None,
            adjudicates=adjudicates,
        )
        if chosen.dimension == CORRECTION:
            check_decision(label, answer)
        store.append(decision)
        leave_seat(store, chosen.id, reviewer)
        _follow(store, chosen, decision, answer, now, policy)
    return decision


def _checked_label(store: EventStore, item: ReviewItem, label: str, policy: ReviewPolicy) -> str:
    if item.dimension == SAFETY and label not in (VIOLATION, FINE):
        raise InvalidInputError(
            f"safety is decided as {VIOLATION} or {FINE}, got {label!r}; take one of them"
        )
    if item.dimension == WIN_RATE:
        return _winner(store, item, label)
    known = policy.dimensions.get(item.dimension)
    if known is None or item.dimension in (SAFETY, CORRECTION):
        return label
    by_name = {name.casefold(): name for name in known.names}
    found = by_name.get(label.casefold())
    if found is None:
        raise InvalidInputError(
            f"{item.dimension} is decided as {', '.join(known.names)}, got {label!r}; take one of "
            "them"
        )
    return found


def _winner(store: EventStore, item: ReviewItem, label: str) -> str:
    """Return the winner by identity of one that is named by its place."""
    if label == TIE:
        return TIE
    if label not in ("a", "b"):
        raise InvalidInputError(
            f"a pair is decided as a, b or {TIE}, got {label!r}; take one of them"
        )
    return SECOND if (label == "a") == shown_in_reverse(store, item) else FIRST


def _refuse_second(store: EventStore, item: ReviewItem, reviewer: str) -> None:
    about = item.interaction_id
    for given in decisions_about(store, [about], item.dimension).get(about, ()):
        if given.reviewer == reviewer:
            raise _decided_before(store, given)


def _decision_id(store: EventStore, item: ReviewItem, reviewer: str) -> str:
    """Return the id of a decision: another one where an earlier one was taken back."""
    key = derive_id("decision", item.id, reviewer)
    while store.get(ReviewUndo, _undo_id(key)) is not None:
        key = derive_id(key, "again")
    return key


def _undo_id(decision: str) -> str:
    return derive_id("undo", decision)


def _follow(
    store: EventStore,
    item: ReviewItem,
    decision: ReviewDecision,
    answer: str | None,
    now: datetime,
    policy: ReviewPolicy,
) -> None:
    """Do what follows from a decision, once as many people decided as the item wants."""
    about = item.interaction_id
    outcome = outcomes_about(store, [about], item.dimension).get(about)
    if outcome is None:
        return
    if item.dimension == SAFETY:
        say(store, outcome.label, about, derive_id("review", decision.id), now)
    elif item.dimension == CORRECTION:
        settle(store, item, outcome.label, answer or _written_answer(store, item, outcome), now)
    elif item.dimension == WIN_RATE:
        for given in decisions_about(store, [about], item.dimension)[about]:
            keep_label(store, str(item.other_id), about, given.label, given.reviewer, given.id, now)
    if outcome.adjudicates and policy.known_share and item.dimension not in (CORRECTION, WIN_RATE):
        add_known(store, item, outcome.label, now)


def _written_answer(store: EventStore, item: ReviewItem, outcome: Given) -> str | None:
    """Return the right answer in words of one of the people who confirmed a correction."""
    if item.people == 1 or outcome.label != CONFIRMED:
        return None
    return proposed_answer(store, item)


def proposed_answer(store: EventStore, item: ReviewItem) -> str | None:
    """Return the latest answer that a person wrote for a correction, for others to confirm."""
    given = decisions_about(store, [item.interaction_id], CORRECTION)
    for one in reversed(given.get(item.interaction_id, ())):
        said = store.get(ReviewDecision, one.id)
        if said is not None and said.item_id == item.id and said.answer is not None:
            return said.answer
    return None


def _decided_before(store: EventStore, given: Given) -> InvalidInputError:
    earlier = store.get(ReviewDecision, given.id)
    assert earlier is not None
    return InvalidInputError(
        f"one reviewer decides an item once, got a second decision by {earlier.reviewer!r}, "
        f"who said {earlier.label!r} on {earlier.created_at:%Y-%m-%d %H:%M} UTC; "
        "take it back with `ratchet review undo`, or have another person decide"
    )


def add_known(store: EventStore, item: ReviewItem, label: str, now: datetime) -> bool:
    """Keep an item to check reviewers with, whose label is known; False if it is there."""
    known = ReviewItem(
        id=derive_id("known", item.interaction_id, item.dimension),
        created_at=now,
        interaction_id=item.interaction_id,
        dimension=item.dimension,
        priority="normal",
        raised_by=KNOWN,
        why="its label is known",
        queue=KNOWN,
        known=label,
    )
    if store.get(ReviewItem, known.id) is not None:
        return False
    return store.append(known)


def _answer_known(
    store: EventStore,
    item: ReviewItem,
    label: str,
    reviewer: str,
    now: datetime,
    note: str | None,
) -> ReviewDecision:
    """Keep a person's label of an item whose label is known; it decides nothing."""
    key = _decision_id(store, item, reviewer)
    if store.get(KnownAnswer, key) is not None:
        raise InvalidInputError(
            f"one reviewer decides an item once, got a second decision by {reviewer!r}; take it "
            "back with `ratchet review undo`, or have another person decide"
        )
    answer = KnownAnswer(
        id=key,
        created_at=now,
        item_id=item.id,
        dimension=item.dimension,
        label=label,
        right=str(item.known),
        reviewer=reviewer,
    )
    store.append(answer)
    pass_on(store, item.id, reviewer)
    return ReviewDecision(
        id=key, created_at=now, item_id=item.id, label=label, reviewer=reviewer, note=note
    )


def known_answers(store: EventStore, reviewer: str) -> tuple[KnownAnswer, ...]:
    """Return a person's latest answers to items whose label is known, less those taken back."""
    mine = store.records(KnownAnswer, subject=reviewer, latest=_LATEST_KNOWN)
    undone = {one.decision_id for one in store.records(ReviewUndo, subject=reviewer)}
    return tuple(one for one in mine if one.id not in undone)


def said_before(store: EventStore, item: ReviewItem, reviewer: str, label: str) -> bool:
    """Tell whether a person gave an item this label; of a pair, whether they compared it."""
    if item.known is not None:
        mine = (one.label for one in known_answers(store, reviewer) if one.item_id == item.id)
        return label.casefold() in map(str.casefold, mine)
    given = decisions_about(store, [item.interaction_id], item.dimension)
    for one in given.get(item.interaction_id, ()):
        if one.reviewer == reviewer:
            return item.dimension == WIN_RATE or one.label.casefold() == label.casefold()
    return False


def undo(store: EventStore, *, reviewer: str, now: datetime, held_until: datetime) -> ReviewUndo:
    """Take a person's latest decision back: it counts no more, and the item is theirs again.

    Feedback that followed from it stands until the item is decided again. It waits meanwhile, so
    that nothing of it is trained on.

    Args:
        store: The store.
        reviewer: Who.
        now: The time.
        held_until: How long the item is held for them.

    Raises:
        InvalidInputError: There is none, or it confirmed a correction, which is learnt from.
    """
    with store.atomic():
        known = known_answers(store, reviewer)
        last = last_decision(store, reviewer)
        decision = store.get(ReviewDecision, last[0]) if last is not None else None
        if known and (decision is None or known[-1].created_at >= decision.created_at):
            key, item_id = known[-1].id, known[-1].item_id
        elif decision is not None:
            key, item_id = decision.id, decision.item_id
            _refuse_learnt(store, decision)
        else:
            raise InvalidInputError(
                f"a decision must be there to take back, got none by {reviewer!r}; name who made "
                "it with --by"
            )
        record = ReviewUndo(
            id=_undo_id(key), created_at=now, decision_id=key, item_id=item_id, reviewer=reviewer
        )
        store.append(record)
        take_up_again(store, item_id, reviewer, held_until)
    return record


def _refuse_learnt(store: EventStore, decision: ReviewDecision) -> None:
    item = store.get(ReviewItem, decision.item_id)
    if item is None or item.dimension != CORRECTION or decision.label != CONFIRMED:
        return
    if states_of(store, [item.id]).get(item.id) == SETTLED:
        raise InvalidInputError(
            "a confirmed correction is part of the record and may be in training sets, got "
            f"{item.id[:8]} to take back; confirm it again with the right answer"
        )


def skip(store: EventStore, item: str, *, reviewer: str, reason: str, now: datetime) -> ReviewSkip:
    """Pass an item on to others: it is offered to this person no more.

    Raises:
        InvalidInputError: No item or several begin so, or no reason is given.
    """
    if not reason.strip():
        raise InvalidInputError("an item is passed on with a reason, got none; say why")
    with store.atomic():
        chosen = find_item(store, item)
        record = ReviewSkip(
            id=derive_id("skip", chosen.id, reviewer, now.isoformat()),
            created_at=now,
            item_id=chosen.id,
            reviewer=reviewer,
            reason=reason,
        )
        store.append(record)
        pass_on(store, chosen.id, reviewer)
    return record


def say(store: EventStore, label: str, interaction_id: str, key: str, now: datetime) -> None:
    """Make a decision about safety feedback of its interaction."""
    event = SafetyViolation(
        id=key,
        interaction_id=interaction_id,
        created_at=now,
        value=label == VIOLATION,
        source=REVIEW,
    )
    store.add_feedback([event])


def find_item(store: EventStore, start: str) -> ReviewItem:
    """Return the item whose id begins so.

    Raises:
        InvalidInputError: None or several do.
    """
    count, key = find_reviews(store, start)
    found = store.get(ReviewItem, key) if key is not None else None
    if found is None or (key != start and len(start) < SHORTEST_START):
        raise InvalidInputError(
            f"an item must be named by its id, or by {SHORTEST_START} or more characters with "
            f"which no other id begins, got {start!r}, with which {count} begin; "
            "`ratchet review` lists the open items"
        )
    return found
