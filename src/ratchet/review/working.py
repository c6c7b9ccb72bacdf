"""One person's work on the queue: the next item, what it shows, how far everything is.

    work = next_work(store, policy, reviewer="ana", now=now)
    work.shown.turns, work.shown.choices      # blind: no model, no judge, no other reviewer
    decide(store, work.item.id, "violation", reviewer="ana", now=now, policy=policy)

An item is held for whoever opened it. Items whose label is known are mixed in, so that each
reviewer sees how often they agree with it; nobody is told which they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ratchet.records import ReviewItem, draw_of
from ratchet.review.agreement import coefficient
from ratchet.review.deciding import KNOWN as KNOWN_QUEUE
from ratchet.review.deciding import known_answers
from ratchet.review.policy import ReviewPolicy
from ratchet.review.showing import Shown, show_item
from ratchet.stats.agreement import Agreement, cohen_kappa
from ratchet.stats.intervals import Interval, wilson
from ratchet.store import EventStore
from ratchet.store.review_rows import DISPUTED, KNOWN, OPEN
from ratchet.store.review_seats import Progress, count_checked, decided_by, progress_of, take_seat


@dataclass(frozen=True, slots=True)
class Work:
    """An item that a person holds, and what they are shown of it; None where it is gone."""

    item: ReviewItem
    shown: Shown | None


@dataclass(frozen=True, slots=True)
class Mine:
    """How far one person is.

    Attributes:
        decided: Their decisions, those on known items not among them.
        checked: Known items that they labelled.
        share: How often they gave the known label; None where there is none.
        interval: Wilson's interval of the share.
        kappa: The same beyond chance.
    """

    decided: int
    checked: int
    share: float | None
    interval: Interval | None
    kappa: Agreement


def next_work(
    store: EventStore,
    policy: ReviewPolicy,
    *,
    reviewer: str,
    now: datetime,
    queue: str | None = None,
    dimension: str | None = None,
    adjudicates: bool = False,
) -> Work | None:
    """Give a person the next item; None where nothing waits for them.

    Args:
        store: The store.
        policy: What is shown, how long an item is held, how many known ones are mixed in.
        reviewer: Who.
        now: The time.
        queue: Only what this rule chose.
        dimension: Only what is decided on this dimension.
        adjudicates: Whether they decide between others who disagreed.
    """
    until = now + policy.held_for
    key = None
    if policy.known_share and not adjudicates and queue is None:
        key = take_seat(
            store,
            reviewer,
            now=now,
            until=until,
            state=KNOWN,
            dimension=dimension,
            only_held=not _is_turn_of_known(store, policy, reviewer),
        )
    if key is None:
        key = take_seat(
            store,
            reviewer,
            now=now,
            until=until,
            state=DISPUTED if adjudicates else OPEN,
            queue=queue,
            dimension=dimension,
        )
    item = None if key is None else store.get(ReviewItem, key)
    if item is None:
        return None
    return Work(item, show_item(store, item, policy, adjudicates=adjudicates))


def _is_turn_of_known(store: EventStore, policy: ReviewPolicy, reviewer: str) -> bool:
    """Tell by chance whether the next item is one whose label is known; again the same."""
    done = decided_by(store, reviewer) + count_checked(store, reviewer)
    return draw_of(KNOWN_QUEUE, reviewer, done) < policy.known_share


def progress(store: EventStore) -> tuple[Progress, ...]:
    """Return how far each queue is."""
    return progress_of(store)


def mine(store: EventStore, reviewer: str) -> Mine:
    """Return how far one person is, and how often they gave the label that is known."""
    given = known_answers(store, reviewer)
    # a label is told apart from the same name of another dimension
    said = [f"{one.dimension}: {one.label.casefold()}" for one in given]
    right = [f"{one.dimension}: {one.right.casefold()}" for one in given]
    menu = sorted({*said, *right})
    hits = sum(one == other for one, other in zip(said, right, strict=True))
    return Mine(
        decided=decided_by(store, reviewer),
        checked=len(given),
        share=hits / len(given) if given else None,
        interval=wilson(hits, len(given)) if given else None,
        kappa=coefficient(partial(cohen_kappa, said, right, categories=menu or None)),
    )
