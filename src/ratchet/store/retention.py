"""What retention takes out of the store: found first, then deleted, a few rows a transaction.

    found = old_rows(store, SET_ASIDE, before=now - timedelta(days=90))
    delete_rows(store, found)

Each transaction is short, and as long a pause follows it, so that no writer waits a second. Nothing
is remembered: stopped at any moment, the next call finds what is left. The newest row of a table
always stays, so that no position is given twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from ratchet.records import BoardState, Delivery, RolloutLook, SafetyPass
from ratchet.store.arrivals import Position, last_position
from ratchet.store.events import EventStore
from ratchet.store.outbox import GIVEN_UP, OVERTAKEN, SENT
from ratchet.store.review_labels import human_labels
from ratchet.store.rows import chunks, microseconds, moment_of
from ratchet.store.sessions import ids_up_to
from ratchet.store.tables import (
    APPLIED,
    DEFINITIONS,
    DOCUMENT_USES,
    FEEDBACK_EVENTS,
    INTERACTIONS,
    JOURNAL,
    OUTBOX,
    REVIEW_ITEMS,
    VERDICTS,
)
from ratchet.store.verdicts import delete_verdicts

ADDED = "0015_date_recorded"
"""The migration since which answers and vectors say when they were added."""
_SECONDS = 0.2
"""How long a transaction may take; the number of its rows follows that."""
_FEWEST, _MOST, _PAGE = 20, 5_000, 5_000
_SAMPLE = 300
_DAY = timedelta(days=1)
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of a table that may go.

    Attributes:
        table: The table.
        positions: Where they stand.
        oldest: When the oldest of them was made; None where there are none.
    """

    table: sa.Table
    positions: list[int] = field(default_factory=list)
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """Interactions that may go, with the feedback about them.

    Attributes:
        before: Created before this time.
        until: History has everything up to these positions.
        kept: Ids of interactions that stay all the same.
    """

    before: datetime
    until: Position
    kept: frozenset[str]


@dataclass(frozen=True, slots=True)
class Size:
    """How much it is: rows, the time of the oldest, and bytes as far as a sample tells."""

    rows: int
    oldest: datetime | None
    bytes: int


def old_rows(store: EventStore, table: sa.Table, *, before: datetime) -> Found:
    """Return the rows of a table that were created before a time."""
    query = sa.select(table.c.position, table.c.created_at).where(
        table.c.created_at < microseconds(before), table.c.position < _newest(table)
    )
    with store.reading() as connection:
        return _found(table, [tuple(row) for row in connection.execute(query)])


def old_recorded(store: EventStore, table: sa.Table, *, before: datetime) -> Found:
    """Return recorded answers or vectors that were added before a time.

    They stand in the order in which they were added, so that no younger one is read. Of those that
    are older than the column the time is that of its migration.
    """
    rows: list[tuple[int, int]] = []
    limit, position = microseconds(before), 0
    with store.reading() as connection:
        since = connection.execute(
            sa.select(APPLIED.c.applied_at).where(APPLIED.c.name == ADDED)
        ).scalar_one()
        newest = connection.execute(sa.select(sa.func.max(table.c.position))).scalar_one() or 0
        added = sa.func.coalesce(table.c.added_at, since)
        page = sa.select(table.c.position, added).order_by(table.c.position).limit(_PAGE)
        while True:
            found = connection.execute(page.where(table.c.position > position)).fetchall()
            old = [row for row in found if row[1] < limit and row[0] < newest]
            rows += [(row[0], row[1]) for row in old]
            if len(old) < _PAGE:
                return _found(table, rows)
            position = found[-1][0]


def old_passes(store: EventStore, *, before: datetime) -> Found:
    """Return the records of safety passes from before a time, but for the last one."""
    rows = _records(store, SafetyPass.__name__, before)
    with store.reading() as connection:
        newest = connection.execute(
            sa.select(sa.func.max(JOURNAL.c.position)).where(JOURNAL.c.kind == SafetyPass.__name__)
        ).scalar_one()
    return _found(JOURNAL, [row for row in rows if row[0] != newest])


def old_deliveries(store: EventStore, *, before: datetime) -> Found:
    """Return the records of what was sent before a time; news is a day old at most."""
    return _found(JOURNAL, _records(store, Delivery.__name__, before))


def old_messages(store: EventStore, *, before: datetime) -> Found:
    """Return messages to people that ended before a time: sent, given up or overtaken."""
    ended = (SENT, GIVEN_UP, OVERTAKEN)
    query = sa.select(OUTBOX.c.position, OUTBOX.c.created_at).where(
        OUTBOX.c.state.in_(ended),
        OUTBOX.c.due_at < microseconds(before),
        OUTBOX.c.position < _newest(OUTBOX),
    )
    with store.reading() as connection:
        return _found(OUTBOX, [tuple(row) for row in connection.execute(query)])


def old_looks(store: EventStore, *, before: datetime, running: Collection[str]) -> Found:
    """Return looks from before a time that decided nothing; the last one of a rollout stays.

    Args:
        store: The store.
        before: The time.
        running: Ids of rollouts that have not ended: of these every look stays.
    """
    body = JOURNAL.c.body
    extra = (body["rollout_id"].as_string(), body["decision"].as_string())
    rows = _records(store, RolloutLook.__name__, before, *extra)
    last = {row[2]: row[0] for row in rows}
    idle = [
        row for row in rows if row[3] == "wait" and row[2] not in running and last[row[2]] != row[0]
    ]
    return _found(JOURNAL, idle)


def spare_boards(store: EventStore, *, now: datetime, late: timedelta) -> Found:
    """Return the states of boards that nothing goes back to.

    Of a board (version and beginning) every state of the last day stays, one an hour as long as
    answers may arrive late, and the newest one from before that, which a board goes back to when
    they do. A board that goes back further reads more again and comes to the same state.
    """
    body = JOURNAL.c.body
    extra = (
        JOURNAL.c.subject,
        body["opened_at"].as_string(),
        body["charted_until"].as_string(),
    )
    rows = _records(store, BoardState.__name__, now - _DAY, *extra)
    newest = _newest_states(store)
    kept: dict[tuple[str, str, object], int] = {}
    for position, _, version, opened_at, charted_until in rows:
        charted = datetime.fromisoformat(charted_until)
        hour = charted.replace(minute=0, second=0, microsecond=0)
        part: object = hour if charted >= now - late else "earlier"
        kept[version, opened_at, part] = position  # in order of arrival: the last one stays
    stay = {*kept.values(), *newest}
    return _found(JOURNAL, [row for row in rows if row[0] not in stay])


def _newest_states(store: EventStore) -> set[int]:
    query = (
        sa.select(sa.func.max(JOURNAL.c.position))
        .where(JOURNAL.c.kind == BoardState.__name__)
        .group_by(JOURNAL.c.subject)
    )
    with store.reading() as connection:
        return set(connection.execute(query).scalars())


def unreferred_definitions(store: EventStore, besides: Collection[str], *, now: datetime) -> Found:
    """Return definitions that no interaction refers to.

    Args:
        store: The store.
        besides: Digests that history refers to.
        now: The time; what was sent on the last day stays.
    """
    kept, added = DEFINITIONS.c, microseconds(now - _DAY)
    query = sa.select(kept.position, kept.added_at, kept.id).where(
        kept.added_at < added,
        *(
            # with a limit, so that PostgreSQL looks for one row and reads no whole index
            sa.select(column).where(column == kept.id).limit(1).scalar_subquery().is_(None)
            for column in (
                INTERACTIONS.c.tools,
                INTERACTIONS.c.response_format,
                DOCUMENT_USES.c.documents,
            )
        ),
    )
    with store.reading() as connection:
        rows = [row[:2] for row in connection.execute(query) if row[2] not in besides]
    return _found(DEFINITIONS, rows)


def size_of(store: EventStore, found: Found) -> Size:
    """Say how much it is; bytes are those of a sample times the number of rows."""
    step = max(1, len(found.positions) // _SAMPLE)
    sample = found.positions[::step]
    with store.reading() as connection:
        size = _mean_bytes(connection, found.table, sample)
    return Size(len(found.positions), found.oldest, round(size * len(found.positions)))


def delete_rows(
    store: EventStore, found: Found, *, rest: Callable[[float], None] = time.sleep
) -> int:
    """Delete what was found, in short transactions; return how many rows went."""
    position = found.table.c.position

    def delete(connection: sa.Connection, part: list[int]) -> int:
        if found.table is VERDICTS:
            return delete_verdicts(connection, part)
        return connection.execute(sa.delete(found.table).where(position.in_(part))).rowcount

    return _in_turns(store, found.positions, delete, rest)


# Interactions -----------------------------------------------------------------------------------


def labelled(store: EventStore) -> frozenset[str]:
    """Return the ids that people labelled: judges are held against these again.

    Of a session that is labelled, its earlier answers belong to what a judge is shown.
    """
    labels = human_labels(store)
    ends = store.stored_interactions(
        sorted({one.item_id for one in labels if one.unit == "session"})
    )
    earlier = (key for last in ends.values() for key in ids_up_to(store, last))
    return frozenset((*(label.item_id for label in labels), *earlier))


def size_of_expired(store: EventStore, expired: Expired) -> tuple[Size, Size]:
    """Say how many interactions may go, and how much feedback with them."""
    where = _may_go(store, expired)
    columns, about = INTERACTIONS.c, FEEDBACK_EVENTS.c.interaction_id == INTERACTIONS.c.id
    sample = sa.select(columns.position).where(*where).limit(_SAMPLE)
    with store.reading() as connection:
        counted = sa.select(sa.func.count(), sa.func.min(columns.created_at)).where(*where)
        rows, oldest = connection.execute(counted).one()
        for chunk in chunks(sorted(expired.kept)):
            here = sa.select(sa.func.count()).where(*where, columns.id.in_(chunk))
            rows -= connection.execute(here).scalar_one()
        positions = list(connection.execute(sample).scalars())
        size = _mean_bytes(connection, INTERACTIONS, positions)
        said = sa.select(FEEDBACK_EVENTS.c.position).join(INTERACTIONS, about)
        events = list(connection.execute(said.where(columns.position.in_(positions))).scalars())
        feedback = round(rows * len(events) / max(1, len(positions)))
        event_size = _mean_bytes(connection, FEEDBACK_EVENTS, events[:_SAMPLE])
    when = moment_of(oldest) if rows else None
    return (
        Size(rows, when, round(rows * size)),
        Size(feedback, when if feedback else None, round(feedback * event_size)),
    )


def delete_expired(
    store: EventStore, expired: Expired, *, rest: Callable[[float], None] = time.sleep
) -> tuple[int, int]:
    """Delete interactions with the feedback about them; return how many of both went.

    What came since they were found is looked at again: feedback that history lacks stays, and so
    does an interaction that it is about or that is under review by now.
    """
    events, where = 0, _may_go(store, expired)

    def delete(connection: sa.Connection, part: list[tuple[int, str, int]]) -> int:
        nonlocal events
        ids, times = [row[1] for row in part], [row[2] for row in part]
        when = INTERACTIONS.c.created_at.between(min(times), max(times))
        gone = 0
        for some in chunks(ids):
            still = sa.select(INTERACTIONS.c.id).where(INTERACTIONS.c.id.in_(some), when, *where)
            found = list(connection.execute(still).scalars())
            about = sa.delete(FEEDBACK_EVENTS).where(
                FEEDBACK_EVENTS.c.interaction_id.in_(found),
                FEEDBACK_EVENTS.c.position <= expired.until.feedback,
            )
            events += connection.execute(about).rowcount
            rows = sa.delete(INTERACTIONS).where(INTERACTIONS.c.id.in_(found), when)
            gone += connection.execute(rows).rowcount
        return gone

    return _in_turns(store, _expired_rows(store, expired), delete, rest), events


def old_orphans(store: EventStore, *, before: datetime, until: Position) -> Found:
    """Return feedback that arrived before a time and is about interactions that are not stored.

    Feedback about an interaction that retention took may come later; so may that of another system.
    """
    event = FEEDBACK_EVENTS.c
    is_about = sa.exists().where(INTERACTIONS.c.id == event.interaction_id)
    query = sa.select(event.position, event.received_at).where(
        event.received_at < microseconds(before),
        event.position <= until.feedback,
        event.position < _newest(FEEDBACK_EVENTS),
        ~is_about,
    )
    with store.reading() as connection:
        return _found(FEEDBACK_EVENTS, [tuple(row) for row in connection.execute(query)])


def _may_go(store: EventStore, expired: Expired) -> list[sa.ColumnElement[bool]]:
    """Conditions on an interaction: old, in history with its feedback, and not under review."""
    columns, last = INTERACTIONS.c, last_position(store)
    event = FEEDBACK_EVENTS.c
    newer = sa.exists().where(
        event.interaction_id == columns.id,
        event.position > min(expired.until.feedback, last.feedback - 1),
    )
    return [
        columns.created_at < microseconds(expired.before),
        columns.position <= min(expired.until.interactions, last.interactions - 1),
        ~sa.exists().where(REVIEW_ITEMS.c.interaction_id == columns.id),
        ~newer,
    ]


def _expired_rows(store: EventStore, expired: Expired) -> Iterator[tuple[int, str, int]]:
    """Yield position, id and time of what may go, in order of time, read a page at a time."""
    columns = INTERACTIONS.c
    where, place = _may_go(store, expired), (-(2**62), 0)
    key = sa.tuple_(columns.created_at, columns.position)
    page = sa.select(columns.position, columns.id, columns.created_at).where(*where)
    page = page.order_by(columns.created_at, columns.position).limit(_PAGE)
    while True:
        with store.reading() as connection:
            rows = connection.execute(page.where(key > sa.tuple_(*place))).fetchall()
        for position, name, created_at in rows:
            if name not in expired.kept:
                yield position, name, created_at
        if len(rows) < _PAGE:
            return
        place = (rows[-1][2], rows[-1][0])


# What they share ----------------------------------------------------------------------------------


def _in_turns(
    store: EventStore,
    rows: Iterable[Row],
    delete: Callable[[sa.Connection, list[Row]], int],
    rest: Callable[[float], None],
) -> int:
    """Delete rows in transactions of a fifth of a second, and rest as long after each."""
    size, gone = _FEWEST, 0
    part: list[Row] = []

    def turn() -> float:
        nonlocal gone
        began = time.perf_counter()
        with store.atomic() as connection:
            gone += delete(connection, part)
        return time.perf_counter() - began

    for row in rows:
        part.append(row)
        if len(part) < size:
            continue
        took = turn()
        rest(took)
        size = min(_MOST, max(_FEWEST, round(size * min(2.0, _SECONDS / max(took, 1e-3)))))
        part = []
    if part:
        turn()
    return gone


def _newest(table: sa.Table) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.max(table.c.position)).scalar_subquery()


def _records(
    store: EventStore, kind: str, before: datetime, *extra: sa.ColumnElement[str]
) -> list[tuple[Any, ...]]:
    """Return position, time and more of the journal's records of a kind, in order."""
    query = sa.select(JOURNAL.c.position, JOURNAL.c.created_at, *extra).where(
        JOURNAL.c.kind == kind,
        JOURNAL.c.created_at < microseconds(before),
        JOURNAL.c.position < _newest(JOURNAL),
    )
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(query.order_by(JOURNAL.c.position))]


def _found(table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> Found:
    oldest = min((int(row[1]) for row in rows), default=None)
    when = None if oldest is None else moment_of(oldest)
    return Found(table, [int(row[0]) for row in rows], when)


def _mean_bytes(connection: sa.Connection, table: sa.Table, positions: list[int]) -> float:
    """Return what a row takes on average: its texts, and 8 bytes for every other value."""
    if not positions:
        return 0.0
    total: sa.ColumnElement[int] = sa.literal(0)
    for column in table.columns:
        if isinstance(column.type, sa.String | sa.JSON):
            total = total + sa.func.coalesce(sa.func.length(sa.cast(column, sa.Text)), 0)
        elif isinstance(column.type, sa.LargeBinary):
            total = total + sa.func.length(column)
        else:
            total = total + 8
    some = sa.select(sa.func.avg(total)).where(table.c.position.in_(positions[:_SAMPLE]))
    return float(connection.execute(some).scalar_one() or 0.0)
