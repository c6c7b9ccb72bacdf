"""Messages to people, kept until they arrived or nobody has to know any more.

    put(store, [Outgoing(...)])                      # once an id, whoever puts it again
    taken = take(store, now=now, lease=LEASE)        # nobody else is given it meanwhile
    end(store, taken, SENT, now=now)                 # or `put_off`, to be tried again

A row names what its message is about; the message is made when it is sent, so that no copy of what
users said lies here. Who takes a row holds it for the time of the lease. If that process dies, the
next one is given the row once the lease is over, and is told that a try was cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa

from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import OUTBOX
from ratchet.store.transactions import Transactions, insert_if_new

WAITING: Final = 0
SENT: Final = 1
GIVEN_UP: Final = 2
OVERTAKEN: Final = 3
"""States of a message: the last one of what became untrue, or was muted, before it was sent."""
_ROW = OUTBOX.c


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to one channel.

    Attributes:
        id: The same for the same message to the same channel.
        kind: What made it: an alert's step, a repetition, a reminder, a report, a trial.
        about: Id of what it tells of.
        channel: Where to.
        created_at: When it was put here.
        expires_at: From then on it is no news, and not tried any more.
        attempts: How many times it was taken.
        was_cut_off: Whether the last try ended without a result, so that it may have arrived.
        said: Why the last try failed, or why it ended unsent.
        leased_by: The try that holds it.
        state: One of the states above.
        due_at: When it is tried again; of an ended one when it ended.
    """

    id: str
    kind: str
    about: str
    channel: str
    created_at: datetime
    expires_at: datetime
    attempts: int = 0
    was_cut_off: bool = False
    said: str | None = None
    leased_by: str | None = None
    state: int = WAITING
    due_at: datetime | None = None


def put(store: Transactions, messages: Sequence[Outgoing]) -> None:
    """Keep messages that are to be sent now; those whose id is there already stay as they are."""
    rows = [
        {
            "id": one.id,
            "kind": one.kind,
            "about": one.about,
            "channel": one.channel,
            "created_at": microseconds(one.created_at),
            "expires_at": microseconds(one.expires_at),
            "state": one.state,
            "due_at": microseconds(one.created_at),
            "attempts": 0,
            "said": one.said,
        }
        for one in messages
    ]
    if rows:
        with store.atomic() as connection:
            connection.execute(insert_if_new(connection, OUTBOX), rows)


def take(store: Transactions, *, now: datetime, lease: timedelta) -> Outgoing | None:
    """Return the message that is due longest, and hold it for the time of the lease.

    Args:
        store: The store.
        now: When.
        lease: How long no other process is given it.

    Returns:
        The message; None where none is due.
    """
    due = sa.select(OUTBOX).where(_ROW.state == WAITING, _ROW.due_at <= microseconds(now))
    with store.atomic() as connection:
        first = due.order_by(_ROW.due_at, _ROW.position).limit(1)
        found = connection.execute(first).mappings().first()
        if found is None:
            return None
        held = {
            "leased_by": uuid4().hex,
            "due_at": microseconds(now + lease),
            "attempts": found["attempts"] + 1,
        }
        connection.execute(sa.update(OUTBOX).where(_ROW.id == found["id"]).values(held))
    return _message({**found, **held}, was_cut_off=found["leased_by"] is not None)


def put_off(store: Transactions, taken: Outgoing, *, until: datetime, said: str) -> bool:
    """Let go of a message that is tried again later, and with it of what waits for its channel.

    So a channel that fails is asked once, and what it is told stays in order.

    Returns:
        Whether it was still held by this try.
    """
    due = microseconds(until)
    waits = sa.and_(
        _ROW.channel == taken.channel,
        _ROW.state == WAITING,
        _ROW.due_at < due,
        _ROW.leased_by.is_(None),
    )
    with store.atomic() as connection:
        mine = _change(store, taken, {"due_at": due, "said": said})
        connection.execute(sa.update(OUTBOX).where(waits).values(due_at=due))
    return mine


def end(
    store: Transactions, taken: Outgoing, state: int, *, now: datetime, said: str | None = None
) -> bool:
    """End a message: it was sent, given up or overtaken.

    Returns:
        Whether it was still held by this try.
    """
    return _change(store, taken, {"state": state, "due_at": microseconds(now), "said": said})


def last_put(store: Transactions, kind: str, about: str) -> datetime | None:
    """Return when a message of a kind about something was put here last; None where none was."""
    query = sa.select(sa.func.max(_ROW.created_at)).where(_ROW.about == about, _ROW.kind == kind)
    with store.reading() as connection:
        found = connection.execute(query).scalar_one()
    return None if found is None else moment_of(found)


def latest_of(store: Transactions, channel: str, state: int, most: int = 1) -> list[Outgoing]:
    """Return messages of a channel in a state, the latest in front."""
    query = sa.select(OUTBOX).where(_ROW.channel == channel, _ROW.state == state)
    with store.reading() as connection:
        rows = connection.execute(query.order_by(_ROW.due_at.desc()).limit(most)).mappings().all()
    return [_message(row) for row in rows]


def count_of(store: Transactions, channel: str, state: int, since: datetime) -> int:
    """Return how many messages of a channel are in a state since a time."""
    query = sa.select(sa.func.count()).select_from(OUTBOX)
    query = query.where(_ROW.channel == channel, _ROW.state == state)
    with store.reading() as connection:
        of = query.where(_ROW.due_at >= microseconds(since))
        return int(connection.execute(of).scalar_one())


def _change(store: Transactions, taken: Outgoing, values: dict[str, Any]) -> bool:
    mine = sa.and_(_ROW.id == taken.id, _ROW.leased_by == taken.leased_by)
    with store.atomic() as connection:
        change = sa.update(OUTBOX).where(mine).values({**values, "leased_by": None})
        return bool(connection.execute(change).rowcount)


def _message(row: Any, *, was_cut_off: bool = False) -> Outgoing:
    return Outgoing(
        id=row["id"],
        kind=row["kind"],
        about=row["about"],
        channel=row["channel"],
        created_at=moment_of(row["created_at"]),
        expires_at=moment_of(row["expires_at"]),
        attempts=row["attempts"],
        was_cut_off=was_cut_off,
        said=row["said"],
        leased_by=row["leased_by"],
        state=row["state"],
        due_at=moment_of(row["due_at"]),
    )
