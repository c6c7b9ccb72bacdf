"""Pairs of answers that a gate waits for, as items of the review queue.

A pair is an item of the dimension `win_rate`: its `interaction_id` is the pair's name, its
`other_id` the sheet that it is on. Whose answer stands first on the screen is chosen by a digest of
the pair, as on a sheet.
"""

from __future__ import annotations

from datetime import datetime

from ratchet.judges.label_sheet import pair_name
from ratchet.judges.pair_labels import bare_pairs, pairs_on, votes_on, waiting_sheets
from ratchet.judges.prompts import Item, second_first
from ratchet.judges.win_rate import is_same
from ratchet.records import WIN_RATE, LabelSheet, ReviewItem, derive_id
from ratchet.store import EventStore
from ratchet.store.review_candidates import undecided_pairs
from ratchet.store.review_seats import close_items, open_ids

PAIRS, BORDERLINE = "pairs", "gate_borderline"
"""Queues of pairs: all that a gate waits for, and those on which its judge is of two minds."""


def queue_pairs(
    store: EventStore, *, now: datetime, people: int = 1, unanimous: bool = False
) -> int:
    """Put the pairs that gates wait for in the queue, and close those that none waits for.

    A pair on which the judge names another winner in the other order, or a tie, is a borderline
    example of the gate and comes first.

    Args:
        store: The store.
        now: The time.
        people: How many people compare each.
        unanimous: Whether all of them must agree.

    Returns:
        How many are new.
    """
    wanted: dict[str, ReviewItem] = {}
    for record, _ in waiting_sheets(store):
        votes = votes_on(store, record)
        pairs = [pair for pair in bare_pairs(record) if not is_same(pair)]
        answers = {pair.id: (pair.answer, str(pair.other)) for pair in pairs}
        borderline = undecided_pairs(store, answers)
        for pair in sorted(pairs, key=lambda one: one.id not in borderline):
            name = pair_name(pair)
            if len(votes.get(name, ())) < people:
                wanted[name] = _item(record, name, pair.id in borderline, now, people, unanimous)
    waiting = list(open_ids(store, WIN_RATE))
    close_items(store, [key for key, name in waiting if name not in wanted])
    new = 0
    with store.atomic():
        there = store.present(ReviewItem, [item.id for item in wanted.values()])
        for item in wanted.values():
            if item.id not in there:
                new += store.append(item)
    return new


def _item(
    record: LabelSheet, name: str, borderline: bool, now: datetime, people: int, unanimous: bool
) -> ReviewItem:
    return ReviewItem(
        id=derive_id("review", record.extends or record.id, name),
        created_at=now,
        interaction_id=name,
        dimension=WIN_RATE,
        priority="normal",
        raised_by=BORDERLINE if borderline else PAIRS,
        why=f"a gate of cycle {record.cycle_id[:8]} waits for people to compare two answers",
        other_id=record.id,
        queue=BORDERLINE if borderline else PAIRS,
        people=people,
        unanimous=unanimous,
    )


def pair_of(store: EventStore, item: ReviewItem) -> Item | None:
    """Return the pair that an item is about; None where its sheet is not stored."""
    record = store.get(LabelSheet, str(item.other_id))
    if record is None:
        return None
    return next(
        (pair for pair in pairs_on(store, record) if pair_name(pair) == item.interaction_id), None
    )


def shown_in_reverse(store: EventStore, item: ReviewItem) -> bool:
    """Tell whether the second answer of an item's pair stands first on the screen."""
    pair = pair_of(store, item)
    return pair is not None and second_first(pair)
