"""What the review queue is asked: what is open, and what was raised or said about interactions.

Each function answers by an index of `review_items` and `review_decisions`: it costs what it is
asked about, however long the queue. See `ratchet.store.review_rows` for how they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Any

import sqlalchemy as sa

from ratchet.records import ReviewItem
from ratchet.store.events import EventStore, Window
from ratchet.store.review_rows import DISPUTED, KNOWN, OPEN, SAMPLE, SETTLED, START
from ratchet.store.rows import chunks, moment_of
from ratchet.store.tables import (
    FEEDBACK_EVENTS,
    GIVEN_AT,
    INTERACTIONS,
    JOURNAL,
    REVIEW_DECISIONS,
    REVIEW_ITEMS,
    REVIEW_SEATS,
)

_ITEM, _DECISION = REVIEW_ITEMS.c, REVIEW_DECISIONS.c
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Raised:
    """An item of the queue, without its text.

    Attributes:
        id: The item's.
        share: Of a sample the chance to be drawn, where it is known.
    """

    id: str
    interaction_id: str
    raised_by: str
    share: float | None


@dataclass(frozen=True, slots=True)
class Given:
    """A person's decision: its id, who, the label, and whether it decides between others."""

    id: str
    interaction_id: str
    reviewer: str
    label: str
    adjudicates: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Open items of one source.

    Attributes:
        waiting: How many there are.
        oldest: When the oldest of them was raised.
    """

    raised_by: str
    dimension: str
    rank: int
    waiting: int
    oldest: datetime


def raised_about(
    store: EventStore, interaction_ids: Iterable[str], dimension: str
) -> Iterator[Raised]:
    """Yield the items about interactions on a dimension, those drawn at random among them."""
    query = sa.select(_ITEM.id, _ITEM.interaction_id, _ITEM.raised_by, _ITEM.share)
    with store.reading() as connection:
        for chunk in chunks(interaction_ids):
            about = query.where(
                _ITEM.interaction_id.in_(chunk), _ITEM.dimension == dimension, _ITEM.state != KNOWN
            )
            for row in connection.execute(about.order_by(_ITEM.position)):
                yield Raised(*row)


def waiting_about(
    store: EventStore, interaction_ids: Iterable[str] | None, dimension: str
) -> set[str]:
    """Return those of the interactions that are flagged and not decided by as many as it takes.

    Args:
        store: The store.
        interaction_ids: The interactions; None for all there are.
        dimension: On which they were flagged.
    """
    query = sa.select(_ITEM.interaction_id).where(
        _ITEM.covered == 0,
        _ITEM.state.in_((OPEN, DISPUTED)),
        _ITEM.dimension == dimension,
        _ITEM.raised_by != SAMPLE,
    )
    with store.reading() as connection:
        if interaction_ids is None:
            return set(connection.execute(query).scalars())
        return {
            key
            for chunk in chunks(interaction_ids)
            for key in connection.execute(query.where(_ITEM.interaction_id.in_(chunk))).scalars()
        }


def decisions_about(
    store: EventStore, interaction_ids: Iterable[str], dimension: str
) -> dict[str, list[Given]]:
    """Return what people decided about interactions on a dimension, in the order they did."""
    given: dict[str, list[Given]] = {}
    query = (
        sa.select(
            _DECISION.id,
            _ITEM.interaction_id,
            _DECISION.reviewer,
            _DECISION.label,
            _DECISION.adjudicates,
        )
        .join(REVIEW_ITEMS, _ITEM.id == _DECISION.item_id)
        .order_by(_DECISION.position)
    )
    with store.reading() as connection:
        for chunk in chunks(interaction_ids):
            about = query.where(_ITEM.interaction_id.in_(chunk), _ITEM.dimension == dimension)
            for row in connection.execute(about):
                one = Given(*row[:4], adjudicates=bool(row[4]))
                given.setdefault(one.interaction_id, []).append(one)
    return given


def outcomes_about(
    store: EventStore, interaction_ids: Iterable[str], dimension: str
) -> dict[str, Given]:
    """Return the decision that counts about each interaction that is decided on a dimension.

    That is the word of who decided between people who disagreed, else what most people say; where
    one person decides alone, the latest. What waits for further people is left out.
    """
    ids = list(dict.fromkeys(interaction_ids))
    given = decisions_about(store, ids, dimension)
    query = sa.select(_ITEM.interaction_id, _ITEM.state, _ITEM.wanted).where(_ITEM.covered == 0)
    waits: set[str] = set()
    people: dict[str, int] = {}
    with store.reading() as connection:
        for chunk in chunks(given):
            about = query.where(_ITEM.interaction_id.in_(chunk), _ITEM.dimension == dimension)
            for key, state, wanted in connection.execute(about):
                people[key] = max(people.get(key, 1), wanted)
                if state in (OPEN, DISPUTED):
                    waits.add(key)
    return {
        key: _counting(said, people.get(key, 1)) for key, said in given.items() if key not in waits
    }


def _counting(said: Sequence[Given], wanted: int) -> Given:
    """Return the decision that counts of those about one item, which so many people decide."""
    last = [one for one in said if one.adjudicates] or ([said[-1]] if wanted == 1 else [])
    if last:
        return last[-1]
    labels = [one.label for one in said]
    most = max(map(labels.count, labels))
    return next(one for one in reversed(said) if labels.count(one.label) == most)


def open_reviews(
    store: EventStore,
    *,
    reviewer: str | None = None,
    decisions: int | None = None,
    source: Source | None = None,
    limit: int | None = None,
    state: int = OPEN,
    queue: str | None = None,
    dimension: str | None = None,
) -> Iterator[ReviewItem]:
    """Yield what waits for a decision: safety before normal, oldest first.

    Args:
        store: The store.
        reviewer: Only what this person has neither decided nor passed on.
        decisions: What fewer people than this decided, whether it needs more or not; None for what
            is in `state`.
        source: Only what this source raised.
        limit: So many at most.
        state: What has to be done: `OPEN` or `DISPUTED`.
        queue: Only what this rule chose.
        dimension: Only what is decided on this dimension.
    """
    only = _Only(reviewer, source, queue, dimension)
    if decisions is None:
        states: Sequence[int] = (state,)
        counts = range(_most_decisions(store, state) + 1)
    else:
        states, counts = (OPEN, DISPUTED, SETTLED), range(decisions)
    parts = [_places(store, one, count, only, limit) for one in states for count in counts]
    keys = islice((place[-1] for place in merge(*parts)), limit)
    for chunk in chunks(keys):
        bodies = _bodies(store, chunk)
        yield from (ReviewItem.model_validate(bodies[key]) for key in chunk)


def sources_waiting(store: EventStore) -> tuple[Source, ...]:
    """Return who raised what waits for people, and how much: safety first, the oldest first."""
    query = (
        sa.select(
            _ITEM.raised_by,
            _ITEM.dimension,
            _ITEM.rank,
            sa.func.count(),
            sa.func.min(_ITEM.created_at),
        )
        .where(_ITEM.covered == 0, _ITEM.state == OPEN)
        .group_by(_ITEM.rank, _ITEM.raised_by, _ITEM.dimension)
    )
    with store.reading() as connection:
        rows = connection.execute(query).all()
    sources = [
        Source(raised_by, dimension, rank, waiting, moment_of(oldest))
        for raised_by, dimension, rank, waiting, oldest in rows
    ]
    return tuple(sorted(sources, key=lambda s: (s.rank, s.oldest, s.raised_by, s.dimension)))


def find_reviews(store: EventStore, start: str) -> tuple[int, str | None]:
    """Return how many items' ids begin so, and the id where it is one, or is the whole `start`.

    A start of fewer than four characters counts all items.
    """
    whole = sa.select(_ITEM.id).where(_ITEM.id == start)
    begins = sa.func.substr(_ITEM.id, 1, len(start)) == start
    if len(start) >= START:
        begins = sa.and_(_ITEM.start == start[:START], begins)
    counted = sa.select(sa.func.count(), sa.func.min(_ITEM.id)).where(begins)
    with store.reading() as connection:
        if connection.execute(whole).first() is not None:
            return 1, start
        count, first = connection.execute(counted).one()
    return count, first if count == 1 else None


def reports_in(store: EventStore, window: Window, source: str) -> tuple[tuple[str, str], ...]:
    """Return the reports of a safety violation on a window's interactions, in order of time.

    Args:
        store: The store.
        window: The interactions.
        source: Whose reports.

    Returns:
        The id of each report and of its interaction.
    """
    event = FEEDBACK_EVENTS.c
    query = (
        sa.select(event.id, event.interaction_id)
        .join(INTERACTIONS, INTERACTIONS.c.id == event.interaction_id)
        .where(store.within(window), event.kind == "safety_violation")
        .where(event.number == 1.0, event.text == source)
        .order_by(GIVEN_AT, event.position)
    )
    with store.reading() as connection:
        return tuple((row[0], row[1]) for row in connection.execute(query))


def decided_items(store: EventStore, dimension: str, label: str) -> int:
    """Count the items of a dimension that somebody decided so."""
    query = (
        sa.select(sa.func.count(sa.distinct(_DECISION.item_id)))
        .join(REVIEW_ITEMS, _ITEM.id == _DECISION.item_id)
        .where(_ITEM.dimension == dimension, _DECISION.label == label)
    )
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


def name_sample(store: EventStore, item: str, *, share: float, day: int) -> None:
    """Keep with what chance a sampled item was drawn, and the day of its answer since 1970."""
    update = sa.update(REVIEW_ITEMS).where(_ITEM.id == item)
    with store.atomic() as connection:
        connection.execute(update.values(share=share, sample_day=day))


def count_sampled(store: EventStore, day: int, dimension: str) -> int:
    """Count the sample on a dimension of the answers of a day, given in days since 1970."""
    drawn = sa.and_(_ITEM.sample_day == day, _ITEM.dimension == dimension)
    query = sa.select(sa.func.count()).select_from(REVIEW_ITEMS).where(drawn)
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


_Place = tuple[int, int, int, str]


@dataclass(frozen=True, slots=True)
class _Only:
    """Which items are asked for."""

    reviewer: str | None = None
    source: Source | None = None
    queue: str | None = None
    dimension: str | None = None

    def conditions(self, count: int) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on an item that so many people decided."""
        found = []
        if self.source is not None:
            found += [
                _ITEM.rank == self.source.rank,
                _ITEM.raised_by == self.source.raised_by,
                _ITEM.dimension == self.source.dimension,
            ]
        if self.queue is not None:
            found.append(_ITEM.queue == self.queue)
        if self.dimension is not None:
            found.append(_ITEM.dimension == self.dimension)
        if self.reviewer is not None:
            found += _not_of(self.reviewer, count)
        return found


def open_places(
    store: EventStore,
    reviewer: str,
    *,
    state: int,
    queue: str | None,
    dimension: str | None,
    page: int,
) -> Iterator[str]:
    """Yield the ids of what waits for a person, safety first, oldest first.

    Args:
        store: The store.
        reviewer: Who neither decided nor passed it on.
        state: What has to be done.
        queue: Only what this rule chose.
        dimension: Only what is decided on this dimension.
        page: So many are read at a time.
    """
    only = _Only(reviewer, None, queue, dimension)
    counts = range(_most_decisions(store, state) + 1)
    parts = [_places(store, state, count, only, page) for count in counts]
    return (place[-1] for place in merge(*parts))


def _most_decisions(store: EventStore, state: int) -> int:
    most = sa.select(sa.func.max(_ITEM.decided)).where(_ITEM.covered == 0, _ITEM.state == state)
    with store.reading() as connection:
        return int(connection.execute(most).scalar_one() or 0)


def _places(
    store: EventStore, state: int, count: int, only: _Only, limit: int | None
) -> Iterator[_Place]:
    """Yield rank, time, position and id of items with so many decisions, page by page."""
    order = (_ITEM.rank, _ITEM.created_at, _ITEM.position)
    waits = (_ITEM.covered == 0, _ITEM.state == state, _ITEM.decided == count)
    query = sa.select(*order, _ITEM.id).where(*waits, *only.conditions(count)).order_by(*order)
    size = _PAGE if limit is None else min(limit, _PAGE)
    last: _Place | None = None
    while True:
        page = query if last is None else query.where(_after(order, last))
        with store.reading() as connection:
            rows: Sequence[Any] = connection.execute(page.limit(size)).all()
        yield from (tuple(row) for row in rows)
        if len(rows) < size:
            return
        last = tuple(rows[-1])


def _after(order: Sequence[sa.Column[int]], last: _Place) -> sa.ColumnElement[bool]:
    return sa.tuple_(*order) > sa.tuple_(*(sa.literal(value) for value in last[:3]))


def _not_of(reviewer: str, count: int) -> list[sa.ColumnElement[bool]]:
    """Say that a reviewer neither decided nor passed on an item that so many people decided."""
    passed = sa.select(REVIEW_SEATS.c.item_id).where(
        REVIEW_SEATS.c.item_id == _ITEM.id,
        REVIEW_SEATS.c.reviewer == reviewer,
        REVIEW_SEATS.c.until.is_(None),
    )
    found = [~passed.correlate(REVIEW_ITEMS).exists()]
    if count:
        # one question within the other, so that each item is asked about by its id, not a
        # reviewer's decisions one by one
        same = REVIEW_ITEMS.alias("same")
        decided = sa.select(_DECISION.id).where(
            _DECISION.item_id == same.c.id, _DECISION.reviewer == reviewer
        )
        mine = sa.select(same.c.id).where(
            same.c.interaction_id == _ITEM.interaction_id,
            same.c.dimension == _ITEM.dimension,
            decided.correlate(same).exists(),
        )
        found.append(~mine.correlate(REVIEW_ITEMS).exists())
    return found


def _bodies(store: EventStore, ids: Sequence[str]) -> dict[str, Any]:
    query = sa.select(JOURNAL.c.id, JOURNAL.c.body).where(
        JOURNAL.c.kind == ReviewItem.__name__, JOURNAL.c.id.in_(ids)
    )
    with store.reading() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}
