"""Conversations as they are stored, and how far signals were derived from them.

    place = begin(store)
    rows = arrivals(store, after=place.arrived, until=end, most=1_000)
    for row in rows_of_sessions(store, {row.session_id for row in rows}, first, last, since=since):
        ...

Cost: `arrivals` follows the rows it returns, `rows_of_sessions` those of the sessions within a span
of time, by an index of sessions and times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.records import TRAFFIC_KINDS, SignalSwitch, derive_id
from ratchet.store.counts import put_numbers, read_numbers
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.event_rows import FeedbackRow
from ratchet.store.events import EventStore
from ratchet.store.reporting import (
    DERIVED,
    FOLLOWED,
    STARTED,
    STOPPED,
    application,
    shown,
)
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import COUNTS, INTERACTIONS
from ratchet.strict_json import loads

FIRST_ROWS = 200_000
"""Rows of a table that the first pass over a store goes back by."""
MOST_OF_A_SESSION = 500
"""A session with more interactions in a span is no conversation: nothing is derived from it."""
_FETCHED = 500
_READ = "traffic read"
_ARRIVED, _SETTLED = "arrived", "settled"
_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Place:
    """How far signals were derived, by the positions of interactions.

    Attributes:
        arrived: What followed these answers, and what they follow, is derived.
        settled: Of these it is told as well that nothing followed.
    """

    arrived: int
    settled: int


class ArrivedRow(NamedTuple):
    """An interaction as it arrived: where, in which session, and when it was asked for."""

    position: int
    session_id: str
    at: int


class StoredExchange(NamedTuple):
    """An interaction of a session; times in microseconds since 1970.

    Attributes:
        at: When the answer was asked for.
        ended: When it was there to be read.
        shown: Whether there was an answer and no error.
        messages: The turns before the answer, as JSON has them; None where they were not asked for.
    """

    id: str
    position: int
    user_id: str
    session_id: str
    at: int
    ended: int
    shown: bool
    application: str
    response: str
    messages: list[dict[str, Any]] | None


def begin(store: EventStore) -> Place:
    """Return how far signals were derived; a store that is new to it begins near its end.

    From then on everything that arrives is taken in, however much it is.
    """
    kept = begin_near_end(store, INTERACTIONS, _READ, (_ARRIVED, _SETTLED))
    return Place(kept[_ARRIVED], kept[_SETTLED])


def begin_near_end(
    store: EventStore, table: sa.Table, name: str, parts: Sequence[str]
) -> dict[str, int]:
    """Return the positions kept under a name; where there are none, all are near a table's end."""
    end = store.settled_position(table)
    with store.reading() as connection:
        kept = read_numbers(connection, COUNTS, (name,))[name]
    if kept:
        return kept
    with store.atomic() as connection:
        kept = read_numbers(connection, COUNTS, (name,))[name]
        if not kept:  # else another process was faster
            kept = dict.fromkeys(parts, max(0, end - FIRST_ROWS))
            put_numbers(connection, COUNTS, name, kept)
    return kept


def _place(connection: sa.Connection) -> Place | None:
    read = read_numbers(connection, COUNTS, (_READ,))[_READ]
    return Place(read[_ARRIVED], read[_SETTLED]) if read else None


def arrivals(store: EventStore, *, after: int, until: int, most: int) -> list[ArrivedRow]:
    """Return the first interactions of real users that arrived between two positions, in order."""
    row = INTERACTIONS.c
    query = (
        sa.select(row.position, row.session_id, row.created_at)
        .where(row.position > after, row.position <= until)
        .where(*store.origins().chosen(row.position, simulated=False), row.user_id != FORGOTTEN)
        .order_by(row.position)
        .limit(most)
    )
    with store.reading() as connection:
        return [ArrivedRow(*found) for found in connection.execute(query).fetchall()]


def rows_of_sessions(
    store: EventStore, sessions: Collection[str], first: int, last: int, *, since: int
) -> Iterator[StoredExchange]:
    """Yield the interactions of sessions within a span, by session, in order of time.

    Sessions with more than `MOST_OF_A_SESSION` of them are left out.

    Args:
        store: The store.
        sessions: Their names.
        first: Start of the span, in microseconds since 1970.
        last: Its end, inclusive.
        since: From when on the turns are read.
    """
    row = INTERACTIONS.c
    spanned = row.created_at.between(first, last)
    # by the index alone; what was erased lies in one session, whoever's it was
    counted = sa.select(row.session_id, sa.func.count()).where(spanned).group_by(row.session_id)
    inside = sa.and_(spanned, row.user_id != FORGOTTEN)
    words = sa.case((row.created_at >= since, sa.cast(row.messages, sa.Text)), else_=None)
    query = sa.select(
        row.id, row.position, row.user_id, row.session_id, row.created_at, row.latency_seconds,
        shown(), application(), row.response, words,
    ).where(inside)  # fmt: skip
    with store.reading() as connection:
        for chunk in chunks(sorted(sessions)):
            sizes = connection.execute(counted.where(row.session_id.in_(chunk))).fetchall()
            small = [name for name, size in sizes if size <= MOST_OF_A_SESSION]
            if not small:
                continue
            order = (row.session_id, row.created_at, row.id)
            found = connection.execute(query.where(row.session_id.in_(small)).order_by(*order))
            for part in found.partitions(_FETCHED):
                yield from (_exchange(*values) for values in part)


def _exchange(
    key: str, position: int, user: str, session: str, at: int, latency: float | None,
    is_shown: int, name: str, response: str, messages: str | None,
) -> StoredExchange:  # fmt: skip
    ended = at + round((latency or 0.0) * 1e6)
    turns = None if messages is None else loads(messages)
    return StoredExchange(
        key, position, user, session, at, ended, bool(is_shown), name, response, turns
    )


def keep(
    store: EventStore,
    events: Sequence[FeedbackRow],
    *,
    before: Place,
    after: Place,
    followed: Mapping[str, int],
) -> int | None:
    """Store derived events with how far it is; return how many are new.

    Args:
        store: The store.
        events: What was derived.
        before: How far it was when reading began.
        after: How far it is now.
        followed: The first answer of each application whose conversation followed it.

    Returns:
        None where another process was faster: nothing was stored.
    """
    with store.atomic() as connection:
        if _place(connection) != before:
            return None
        new = store.add_feedback_rows(events).new if events else 0
        known = read_numbers(connection, COUNTS, (FOLLOWED,))[FOLLOWED]
        earlier = {name: at for name, at in followed.items() if at < known.get(name, _NEVER)}
        put_numbers(connection, COUNTS, FOLLOWED, earlier)
        put_numbers(connection, COUNTS, _READ, {_ARRIVED: after.arrived, _SETTLED: after.settled})
        return new


def note_kinds(
    store: EventStore, kinds: Collection[str], off: Collection[str], *, since: int, now: datetime
) -> None:
    """Keep from when on which kinds are derived, so that absence says nothing of other times.

    Args:
        store: The store.
        kinds: All kinds.
        off: Those that are switched off.
        since: The first answer that the first pass derives for.
        now: The time.
    """
    with store.reading() as connection:
        changed = _changed(connection, kinds, off)
    if not changed:
        return
    at = microseconds(now)
    with store.atomic() as connection:
        known = read_numbers(connection, COUNTS, (DERIVED,))[DERIVED]
        for kind in _changed(connection, kinds, off):
            if kind in off:
                put_numbers(connection, COUNTS, STOPPED, {kind: at})
                continue
            again = kind in known
            put_numbers(connection, COUNTS, DERIVED, {kind: at if again else since})
            put_numbers(connection, COUNTS, STARTED, {kind: at})
            if again:
                put_numbers(connection, COUNTS, STOPPED, {kind: _NEVER})


def _changed(connection: sa.Connection, kinds: Collection[str], off: Collection[str]) -> list[str]:
    """Return the kinds to switch off that are on, and those to switch on that are off."""
    known = read_numbers(connection, COUNTS, (DERIVED, STOPPED))
    runs = {kind for kind in known[DERIVED] if known[STOPPED].get(kind, _NEVER) == _NEVER}
    return sorted(kind for kind in kinds if (kind in runs) == (kind in off))


def switched_off(store: EventStore) -> dict[str, SignalSwitch]:
    """Return the kinds that a person switched off, each with the switch that did it."""
    latest = {one.kind: one for one in store.records(SignalSwitch)}
    return {kind: one for kind, one in latest.items() if one.off}


def switch(
    store: EventStore,
    kind: str,
    *,
    off: bool,
    by: str,
    note: str,
    now: datetime,
    by_setting: Collection[str] = (),
) -> SignalSwitch | None:
    """Switch a derived signal off or on again, from the next pass on; None where it stands so.

    Args:
        store: The store.
        kind: The kind of signal.
        off: Whether it is derived no longer.
        by: Who says so.
        note: Why.
        now: The time.
        by_setting: Kinds that the setting RATCHET_NOT_DERIVED leaves out, or `all`.

    Raises:
        InvalidInputError: No such signal is derived, or the setting leaves out what is switched on.
    """
    if kind not in TRAFFIC_KINDS:
        raise InvalidInputError(
            f"a signal that is switched off or on must be one of {', '.join(TRAFFIC_KINDS)}, got "
            f"{kind[:40]!r}; name one of these"
        )
    if not off and (kind in by_setting or "all" in by_setting):
        raise InvalidInputError(
            f"{kind} is left out by the setting RATCHET_NOT_DERIVED, which goes before a switch; "
            "take it out of the setting"
        )
    with store.atomic():
        if (kind in switched_off(store)) == off:
            return None
        made = SignalSwitch(
            id=derive_id("signal switch", kind, now.isoformat()),
            created_at=now,
            kind=kind,
            off=off,
            by=by,
            note=note,
        )
        store.append(made)
    return made
