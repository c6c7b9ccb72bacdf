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
from ratchet.store.review_rows import DISPUTED, KNOWN, OPEN, SAMPLE, SETTLED, START, name_of
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
        _ITEM.dimension == dimension, _ITEM.raised_by != SAMPLE
    )
    with store.reading() as connection:
        if interaction_ids is None:
            waits = (_ITEM.covered == 0, _ITEM.state.in_((OPEN, DISPUTED)))
            return set(connection.execute(query.where(*waits)).scalars())
        query = query.where(_counts(), (_ITEM.state + 0).in_((OPEN, DISPUTED)))
        return {
            key
            for chunk in chunks(interaction_ids)
            for key in connection.execute(query.where(_ITEM.interaction_id.in_(chunk))).scalars()
        }


def _counts() -> sa.ColumnElement[bool]:
    """Say that an item is not covered by another, of items that are found by interaction.

    SQLite would else find them by the indexes that begin with `covered`, and read the whole queue.
    """
    return _ITEM.covered + 0 == 0


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
    query = sa.select(_ITEM.interaction_id, _ITEM.state, _ITEM.wanted).where(_counts())
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
        parts = _parts(store, state, only, limit)
    else:
        parts = [
            _places(store, one, (_ITEM.decided == count, *_not_by(reviewer, count)), only, limit)
            for one in (OPEN, DISPUTED, SETTLED)
            for count in range(decisions)
        ]
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

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on an item."""
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
            found.append(~_passed(self.reviewer).exists())
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
    parts = _parts(store, state, _Only(reviewer, None, queue, dimension), page)
    return (place[-1] for place in merge(*parts))


def _parts(store: EventStore, state: int, only: _Only, limit: int | None) -> list[Iterator[_Place]]:
    """Return what is in a state, in order: a part for each group of people who decided the same.

    So the groups with a reviewer among them are passed over as a whole, however many items they
    decided that wait for others.
    """
    if only.source is not None and only.reviewer is None:
        return [_places(store, state, (), only, limit)]  # in order by an index of its own
    name = None if only.reviewer is None else name_of(only.reviewer)
    return [
        _places(store, state, (_ITEM.deciders == group,), only, limit)
        for group in _groups(store, state, only)
        if name not in group.split()
    ]


def _groups(store: EventStore, state: int, only: _Only) -> list[str]:
    """Return the groups of people who decided what is in a state, each found by index."""
    waits = [_ITEM.covered == 0, _ITEM.state == state]
    if only.queue is not None:
        waits.append(_ITEM.queue == only.queue)
    elif only.dimension is not None:
        waits.append(_ITEM.dimension == only.dimension)
    least = sa.select(sa.func.min(_ITEM.deciders)).where(*waits)
    groups = sa.select(least.scalar_subquery().label("names")).cte("groups", recursive=True)
    after = least.where(_ITEM.deciders > groups.c.names).correlate(groups).scalar_subquery()
    groups = groups.union_all(sa.select(after).where(groups.c.names.is_not(None)))
    with store.reading() as connection:
        found = connection.execute(sa.select(groups.c.names).where(groups.c.names.is_not(None)))
        return list(found.scalars())


def _places(
    store: EventStore,
    state: int,
    which: Sequence[sa.ColumnElement[bool]],
    only: _Only,
    limit: int | None,
) -> Iterator[_Place]:
    """Yield rank, time, position and id of items, page by page."""
    order = (_ITEM.rank, _ITEM.created_at, _ITEM.position)
    waits = (_ITEM.covered == 0, _ITEM.state == state)
    query = sa.select(*order, _ITEM.id).where(*waits, *which, *only.conditions()).order_by(*order)
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


def _passed(reviewer: str) -> sa.Select[Any]:
    """Ask whether a reviewer passed an item on."""
    seat = REVIEW_SEATS.c
    query = sa.select(seat.item_id).where(
        seat.item_id == _ITEM.id, seat.reviewer == reviewer, seat.until.is_(None)
    )
    return query.correlate(REVIEW_ITEMS)


def _not_by(reviewer: str | None, count: int) -> list[sa.ColumnElement[bool]]:
    """Say that a reviewer did not decide an item that so many people decided."""
    if reviewer is None or not count:
        return []
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
    return [~mine.correlate(REVIEW_ITEMS).exists()]


def _bodies(store: EventStore, ids: Sequence[str]) -> dict[str, Any]:
    query = sa.select(JOURNAL.c.id, JOURNAL.c.body).where(
        JOURNAL.c.kind == ReviewItem.__name__, JOURNAL.c.id.in_(ids)
    )
    with store.reading() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}
