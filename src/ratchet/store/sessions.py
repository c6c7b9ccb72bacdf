"""Sessions: the interactions of one user under one session id, named by their last answer."""

from __future__ import annotations

import sqlalchemy as sa

from ratchet.records import Interaction
from ratchet.store.batches import ROWS, read_lists
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.events import EventStore, Window
from ratchet.store.following import MOST_OF_A_SESSION
from ratchet.store.rows import microseconds
from ratchet.store.tables import INTERACTIONS


def last_answers(store: EventStore, window: Window) -> list[str]:
    """Return the id of the last answer of each session of a window.

    An answer counts that has no error; a session that goes on after the window ends with it here.
    What was erased belongs to no session any more.
    """
    row = INTERACTIONS.c
    query = sa.select(row.id, row.user_id, row.session_id).where(
        store.within(window), row.error.is_(None), row.user_id != FORGOTTEN
    )
    last: dict[tuple[str, str], str] = {}
    with store.reading() as connection:
        for rows in read_lists(connection, query.order_by(row.created_at, row.id), ROWS):
            last |= {(user, session): key for key, user, session in rows}
    return list(last.values())


def up_to(store: EventStore, last: Interaction) -> list[Interaction]:
    """Return the interactions of a session up to one of them, oldest first.

    Of a session with more than `MOST_OF_A_SESSION` the last ones.
    """
    ids = ids_up_to(store, last)
    known = store.stored_interactions(ids)
    return [known[key] for key in ids if key in known]


def ids_up_to(store: EventStore, last: Interaction) -> list[str]:
    """Return the ids of the same interactions."""
    row = INTERACTIONS.c
    mine = sa.and_(
        row.session_id == last.session_id,
        row.user_id == last.user_id,
        row.created_at <= microseconds(last.created_at),
        row.error.is_(None),
    )
    query = sa.select(row.id).where(mine).order_by(row.created_at.desc(), row.id.desc())
    with store.reading() as connection:
        ids = list(connection.execute(query.limit(MOST_OF_A_SESSION)).scalars())
    if last.id in ids:  # what came at the same moment and sorts after it is no part
        ids = ids[ids.index(last.id) :]
    return ids[::-1]
