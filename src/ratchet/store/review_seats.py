"""Who works on which item of the review queue, so that two people do not do the same one.

    key = take_seat(store, "ana", now=now, until=now + timedelta(minutes=30))
    leave_seat(store, key, "ana")

A person who takes an item holds it for a while. It is offered to no more people at once than have
to decide it. What a person held and left comes back to the same person first, as long as it is
held.

Cost: the next item is found by index, however long the queue and however far one person is ahead
of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ratchet.records import KnownAnswer
from ratchet.store.events import EventStore
from ratchet.store.review_items import open_places
from ratchet.store.review_rows import CLOSED, DISPUTED, KNOWN, OPEN, SETTLED
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import JOURNAL, REVIEW_DECISIONS, REVIEW_ITEMS, REVIEW_SEATS

_ITEM, _SEAT, _DECISION = REVIEW_ITEMS.c, REVIEW_SEATS.c, REVIEW_DECISIONS.c


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a queue is.

    Attributes:
        queue: The rule that chose the items; None for those of older records.
        waiting: Items that people have to decide.
        disputed: Items on which people disagree, so that another person decides.
        settled: Items that are decided.
    """

    queue: str | None
    waiting: int
    disputed: int
    settled: int


def take_seat(
    store: EventStore,
    reviewer: str,
    *,
    now: datetime,
    until: datetime,
    state: int = OPEN,
    queue: str | None = None,
    dimension: str | None = None,
    only_held: bool = False,
) -> str | None:
    """Give a person the next item and hold it for them; None where nothing waits for them.

    Args:
        store: The store.
        reviewer: Who.
        now: The time.
        until: How long it is held.
        state: What has to be done: `OPEN`, `DISPUTED`, or `KNOWN` for an item to check them with.
        queue: Only what this rule chose.
        dimension: Only what is decided on this dimension.
        only_held: Whether nothing new is given, only what they hold.
    """
    with store.atomic() as connection:
        held = _held(connection, reviewer, now, state, queue, dimension)
        if held is None and not only_held:
            held = _free(store, connection, reviewer, now, state, queue, dimension)
        if held is not None:
            _put(connection, held, reviewer, microseconds(until))
    return held


def _put(connection: sa.Connection, item: str, reviewer: str, until: int | None) -> None:
    mine = sa.and_(_SEAT.item_id == item, _SEAT.reviewer == reviewer)
    connection.execute(sa.delete(REVIEW_SEATS).where(mine))
    row = {"item_id": item, "reviewer": reviewer, "until": until}
    connection.execute(sa.insert(REVIEW_SEATS), row)


def _held(
    connection: sa.Connection,
    reviewer: str,
    now: datetime,
    state: int,
    queue: str | None,
    dimension: str | None,
) -> str | None:
    query = (
        sa.select(_ITEM.id)
        .join(REVIEW_SEATS, _SEAT.item_id == _ITEM.id)
        .where(_SEAT.reviewer == reviewer, _SEAT.until > microseconds(now), _ITEM.state == state)
        .limit(1)
    )
    if queue is not None:
        query = query.where(_ITEM.queue == queue)
    if dimension is not None:
        query = query.where(_ITEM.dimension == dimension)
    return connection.execute(query).scalar_one_or_none()


def _free(
    store: EventStore,
    connection: sa.Connection,
    reviewer: str,
    now: datetime,
    state: int,
    queue: str | None,
    dimension: str | None,
) -> str | None:
    connection.execute(sa.delete(REVIEW_SEATS).where(_SEAT.until <= microseconds(now)))
    others = sa.select(_SEAT.item_id).where(
        _SEAT.until > microseconds(now), _SEAT.reviewer != reviewer
    )
    busy = Counter(connection.execute(others).scalars())
    for key in open_places(
        store, reviewer, state=state, queue=queue, dimension=dimension, page=len(busy) + 1
    ):
        if state == KNOWN or busy[key] < _seats(connection, key, state):
            return key
    return None


def _seats(connection: sa.Connection, item: str, state: int) -> int:
    """Return how many people may work on an item at once."""
    if state == DISPUTED:
        return 1
    query = sa.select(_ITEM.wanted - _ITEM.decided).where(_ITEM.id == item)
    return int(connection.execute(query).scalar_one())


def leave_seat(store: EventStore, item: str, reviewer: str) -> None:
    """Let go of an item that a person held."""
    mine = sa.and_(_SEAT.item_id == item, _SEAT.reviewer == reviewer, _SEAT.until.is_not(None))
    with store.atomic() as connection:
        connection.execute(sa.delete(REVIEW_SEATS).where(mine))


def pass_on(store: EventStore, item: str, reviewer: str) -> None:
    """Offer an item to this person no more."""
    with store.atomic() as connection:
        _put(connection, item, reviewer, None)


def take_up_again(store: EventStore, item: str, reviewer: str, until: datetime) -> None:
    """Hold an item for a person who passed it on or decided it, so that it is offered next."""
    with store.atomic() as connection:
        connection.execute(
            sa.delete(REVIEW_SEATS).where(_SEAT.reviewer == reviewer, _SEAT.until.is_not(None))
        )
        _put(connection, item, reviewer, microseconds(until))


def close_items(store: EventStore, items: Sequence[str]) -> int:
    """Close items that nobody needs to decide any more; return how many were open."""
    closed = 0
    with store.atomic() as connection:
        for chunk in chunks(items):
            waits = sa.and_(_ITEM.id.in_(chunk), _ITEM.state.in_((OPEN, DISPUTED)))
            update = sa.update(REVIEW_ITEMS).where(waits).values(state=CLOSED)
            closed += connection.execute(update).rowcount
    return closed


def states_of(store: EventStore, items: Sequence[str]) -> dict[str, int]:
    """Return the state of each item, by id."""
    query = sa.select(_ITEM.id, _ITEM.state)
    found: dict[str, int] = {}
    with store.reading() as connection:
        for chunk in chunks(items):
            rows = connection.execute(query.where(_ITEM.id.in_(chunk)))
            found |= {row[0]: row[1] for row in rows}
    return found


def open_ids(store: EventStore, dimension: str) -> Iterator[tuple[str, str]]:
    """Yield id and interaction of the items of a dimension that people have to decide."""
    query = sa.select(_ITEM.id, _ITEM.interaction_id).where(_ITEM.dimension == dimension)
    with store.reading() as connection:
        for state in (OPEN, DISPUTED):
            rows = connection.execute(query.where(_ITEM.state == state).order_by(_ITEM.position))
            yield from [(row[0], row[1]) for row in rows]


def progress_of(store: EventStore) -> tuple[Progress, ...]:
    """Return how far each queue is, by its name."""
    counted = sa.select(_ITEM.queue, sa.func.count()).where(_ITEM.covered == 0)
    counts: dict[str | None, Counter[int]] = {}
    with store.reading() as connection:
        for state in (OPEN, DISPUTED, SETTLED):
            rows = connection.execute(counted.where(_ITEM.state == state).group_by(_ITEM.queue))
            for queue, count in rows:
                counts.setdefault(queue, Counter())[state] = count
    return tuple(
        Progress(queue, counts[queue][OPEN], counts[queue][DISPUTED], counts[queue][SETTLED])
        for queue in sorted(counts, key=lambda name: name or "")
    )


def decided_by(store: EventStore, reviewer: str) -> int:
    """Count the decisions of a person that count."""
    query = sa.select(sa.func.count()).select_from(REVIEW_DECISIONS)
    with store.reading() as connection:
        return int(connection.execute(query.where(_DECISION.reviewer == reviewer)).scalar_one())


def waiting_counts(store: EventStore, most: int) -> tuple[int, int]:
    """Count the items that people have to decide, and those on which they disagree.

    Args:
        store: The store.
        most: So many of each are counted at most, so that a long queue costs no more.
    """
    waits = sa.select(sa.literal(1)).where(_ITEM.covered == 0)
    parts = (waits.where(_ITEM.state == state).limit(most).subquery() for state in (OPEN, DISPUTED))
    counts = [sa.select(sa.func.count()).select_from(part).scalar_subquery() for part in parts]
    with store.reading() as connection:
        waiting, disputed = connection.execute(sa.select(*counts)).one()
    return waiting, disputed


def count_checked(store: EventStore, reviewer: str) -> int:
    """Count a person's answers to items whose label is known, those taken back among them."""
    answer = JOURNAL.c
    mine = sa.and_(answer.kind == KnownAnswer.__name__, answer.subject == reviewer)
    query = sa.select(sa.func.count()).select_from(JOURNAL).where(mine)
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


def last_decision(store: EventStore, reviewer: str) -> tuple[str, str] | None:
    """Return id and item of a person's latest decision; None where there is none."""
    query = (
        sa.select(_DECISION.id, _DECISION.item_id)
        .where(_DECISION.reviewer == reviewer)
        .order_by(_DECISION.position.desc())
        .limit(1)
    )
    with store.reading() as connection:
        row = connection.execute(query).first()
    return None if row is None else (row[0], row[1])
