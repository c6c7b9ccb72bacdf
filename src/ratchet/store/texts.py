"""Texts of single interactions: of those that are needed, not of a whole window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa

from ratchet.store.batches import ROWS, read_lists
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.events import EventStore, Window
from ratchet.store.rows import chunks
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT, INTERACTIONS


def answered_ids(store: EventStore, window: Window) -> Iterator[str]:
    """Yield the ids of a window's interactions that have an answer and no error.

    An answer without words may call tools or refuse. What was erased is no answer.
    """
    columns = INTERACTIONS.c
    says = (columns.response != "", columns.tool_calls.is_not(None), columns.refusal.is_not(None))
    query = sa.select(columns.id).where(
        store.within(window),
        columns.error.is_(None),
        columns.user_id != FORGOTTEN,
        sa.or_(*says),
    )
    with store.reading() as connection:
        for rows in read_lists(connection, query, ROWS):
            yield from (row[0] for row in rows)


def texts_of(store: EventStore, ids: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield id, prompt and answer of those of the interactions that are stored."""
    query = sa.select(INTERACTIONS.c.id, INTERACTIONS.c.prompt, INTERACTIONS.c.response)
    with store.reading() as connection:
        for chunk in chunks(ids):
            for row in connection.execute(query.where(INTERACTIONS.c.id.in_(chunk))):
                yield row[0], row[1], row[2]


def calling_ids(store: EventStore, ids: Iterable[str]) -> Iterator[str]:
    """Yield those of the interactions whose request had tools, or that call some or hold results.

    A request that asked for a form of its answer is one of them.
    """
    columns = INTERACTIONS.c
    told = sa.cast(columns.messages, sa.Text).like('%"role": "tool"%')
    named = (columns.tool_calls, columns.tools, columns.response_format)
    query = sa.select(columns.id).where(sa.or_(*(one.is_not(None) for one in named), told))
    with store.reading() as connection:
        for chunk in chunks(ids):
            yield from connection.execute(query.where(columns.id.in_(chunk))).scalars()


def feedback_texts(
    store: EventStore, ids: Iterable[str], kinds: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield what was written about interactions: id, kind and text, the latest of a kind last."""
    event = FEEDBACK_EVENTS.c
    query = (
        sa.select(event.interaction_id, event.kind, event.text)
        .where(event.kind.in_(kinds), event.text.is_not(None))
        .order_by(GIVEN_AT, event.id)
    )
    with store.reading() as connection:
        for chunk in chunks(ids):
            for row in connection.execute(query.where(event.interaction_id.in_(chunk))):
                yield row[0], row[1], row[2]
