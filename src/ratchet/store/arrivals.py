"""Reading by arrival: what came in since, whatever times it bears, and which versions were in use.

Rows have positions in the order in which they were stored. A time in a row is what its sender wrote
and may be wrong; a position never is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from ratchet.records.signals import ASSESSED_KINDS
from ratchet.store.events import EventStore, Window
from ratchet.store.reading import EVER, of_version
from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT, INTERACTIONS

BUSY_ANSWERS = 20
BUSY_WITHIN = timedelta(days=1)
"""A version is in use from the first answer on that begins a day with 20 of them: single rows with
a wrong time are no use."""

_BUSY_MICROSECONDS = BUSY_WITHIN // timedelta(microseconds=1)
_FIRST_ROWS = 1_000
_LAST = 2**62  # a position that no row reaches


@dataclass(frozen=True, slots=True)
class Position:
    """How far a store was read: the numbers of the interaction and the feedback event read last."""

    interactions: int
    feedback: int

    @property
    def both(self) -> tuple[int, int]:
        """As a board keeps it."""
        return self.interactions, self.feedback


@dataclass(frozen=True, slots=True)
class Arrived:
    """What arrived after a position.

    Attributes:
        rows: Interactions and feedback events.
        earliest: Time of the earliest interaction among them, or that feedback is about; None
            where there is none.
    """

    rows: int
    earliest: datetime | None


def last_position(store: EventStore) -> Position:
    """Return how far all rows have arrived; 0 in an empty table.

    No row comes in behind it later. While writers are at work it may lie behind an earlier answer
    by a few rows.
    """
    return Position(store.settled_position(INTERACTIONS), store.settled_position(FEEDBACK_EVENTS))


def arrived_between(
    store: EventStore, after: Position, until: Position, window: Window, *, lag: timedelta
) -> Arrived:
    """Return what arrived between two positions and belongs to a window.

    The cost follows what arrived and not what is stored.

    Args:
        store: The store.
        after: What had been read.
        until: What is read now.
        window: Interactions; of feedback, the interactions that it is about.
        lag: Feedback counts as in `EventStore.signals`.
    """
    new = _new_interactions(store, after, until, window.simulated)
    answers = sa.select(sa.func.count(), sa.func.min(new.c.created_at))
    answers = answers.where(*_inside(new, window))
    events = _new_feedback(after, until)
    # an outer join is read from the left: each new event looks its interaction up by its id
    about = sa.and_(
        INTERACTIONS.c.id == events.c.interaction_id,
        store.within(window),
        sa.or_(
            events.c.given_at
            < INTERACTIONS.c.created_at + sa.literal(lag // timedelta(microseconds=1)),
            events.c.kind.in_(ASSESSED_KINDS),
        ),
    )
    feedback = sa.select(
        sa.func.count(INTERACTIONS.c.position), sa.func.min(INTERACTIONS.c.created_at)
    ).select_from(events.outerjoin(INTERACTIONS, about))
    with store.reading() as connection:
        found = [connection.execute(query).one() for query in (answers, feedback)]
    times = [earliest for _, earliest in found if earliest is not None]
    return Arrived(sum(rows for rows, _ in found), moment_of(min(times)) if times else None)


def versions_between(store: EventStore, after: Position, until: Position) -> set[str]:
    """Return the versions of the interactions that arrived between two positions."""
    new = _new_interactions(store, after, until)
    with store.reading() as connection:
        return set(connection.execute(sa.select(new.c.model_version).distinct()).scalars())


def versions_in_use(store: EventStore, start: datetime, end: datetime) -> list[str]:
    """Return the versions with an answer between two times.

    Steps from version to version through the index, so that the cost follows the number of
    versions and not that of interactions.
    """
    version, created_at = INTERACTIONS.c.model_version, INTERACTIONS.c.created_at
    inside = sa.and_(
        created_at >= microseconds(start),
        created_at < microseconds(end),
        *store.origins().chosen(INTERACTIONS.c.position, None),
    )
    names: list[str] = []
    with store.reading() as connection:
        name: str | None = ""
        while name is not None:
            after = sa.select(sa.func.min(version)).where(version > name)
            name = connection.execute(after).scalar_one()
            one = sa.select(created_at).where(version == name, inside).limit(1)
            if name is not None and connection.execute(one).first() is not None:
                names.append(name)
    return names


def first_answer(store: EventStore, window: Window) -> datetime | None:
    """Return the time of the first answer of a window."""
    return _extreme(store, window, min)


def last_answer(store: EventStore, window: Window) -> datetime | None:
    """Return the time of the last answer of a window."""
    return _extreme(store, window, max)


def in_use_from(store: EventStore, window: Window) -> datetime | None:
    """Return the first answer of a window that begins a day with 20 answers or more."""
    created_at = INTERACTIONS.c.created_at
    times = sa.select(created_at).where(store.within(window)).order_by(created_at)
    recent: deque[int] = deque(maxlen=BUSY_ANSWERS)
    with store.reading() as connection:
        rows = connection.execute(times, execution_options={"yield_per": _FIRST_ROWS})
        for moment in rows.scalars():
            recent.append(moment)
            if len(recent) == BUSY_ANSWERS and moment - recent[0] <= _BUSY_MICROSECONDS:
                rows.close()
                return moment_of(recent[0])
    return None


def came_into_use(store: EventStore, start: datetime, end: datetime) -> list[tuple[datetime, str]]:
    """Return the versions that came into use between two times while others were, with when.

    The first version ever is no change of one.
    """
    found = []
    for name in versions_in_use(store, start, end):
        since = in_use_from(store, Window(EVER, end, name))
        if since is not None and since >= start:
            found.append((since, name))
    return [
        (since, name)
        for since, name in sorted(found)
        if any(other != name for other in versions_in_use(store, EVER, since))
    ]


def count_answers(store: EventStore, window: Window) -> int:
    """Count the answers of a window."""
    query = sa.select(sa.func.count()).select_from(INTERACTIONS).where(store.within(window))
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


def count_feedback(store: EventStore, window: Window) -> int:
    """Count the pieces of feedback on the answers of a window."""
    query = (
        sa.select(sa.func.count())
        .select_from(FEEDBACK_EVENTS)
        .join(INTERACTIONS, INTERACTIONS.c.id == FEEDBACK_EVENTS.c.interaction_id)
        .where(store.within(window))
    )
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


def _extreme(
    store: EventStore, window: Window, pick: Callable[[list[int]], int]
) -> datetime | None:
    """Return the first or last time of a window.

    What another window took is not read: what it did not take is later than it, or arrived since.
    """
    of = sa.func.min if pick is min else sa.func.max
    queries = [sa.select(of(INTERACTIONS.c.created_at)).where(store.within(window))]
    if window.without is not None:
        end, arrived = window.without
        later = replace(window, start=max(window.start, end), without=None)
        queries = [sa.select(of(INTERACTIONS.c.created_at)).where(store.within(later))]
        if arrived is not None:
            until = _LAST if window.arrived_until is None else window.arrived_until
            span = Position(arrived, 0), Position(until, 0)
            new = _new_interactions(store, *span, window.simulated)
            queries.append(sa.select(of(new.c.created_at)).where(*_inside(new, window)))
    with store.reading() as connection:
        found = [connection.execute(query).scalar_one() for query in queries]
    times = [moment for moment in found if moment is not None]
    if not times:
        return None
    return moment_of(pick(times))


def _inside(new: sa.CTE, window: Window) -> list[sa.ColumnElement[bool]]:
    """Say that what arrived belongs to a window, by its time and version."""
    inside = [new.c.created_at >= microseconds(window.start)]
    inside.append(new.c.created_at < microseconds(window.end))
    if window.model_version is not None:
        inside.append(of_version(new.c.model_version, window))
    return inside


def _new_interactions(
    store: EventStore, after: Position, until: Position, simulated: bool | None = None
) -> sa.CTE:
    """What arrived, read by position before anything else is asked of it."""
    new = sa.select(INTERACTIONS.c.created_at, INTERACTIONS.c.model_version).where(
        INTERACTIONS.c.position > after.interactions,
        INTERACTIONS.c.position <= until.interactions,
        *store.origins().chosen(INTERACTIONS.c.position, simulated),
    )
    return new.cte("new_interactions").prefix_with("MATERIALIZED")


def _new_feedback(after: Position, until: Position) -> sa.CTE:
    event = FEEDBACK_EVENTS.c
    new = sa.select(event.interaction_id, event.kind, GIVEN_AT.label("given_at")).where(
        event.position > after.feedback, event.position <= until.feedback
    )
    return new.cte("new_feedback").prefix_with("MATERIALIZED")
