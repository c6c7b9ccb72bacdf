"""Answers that followed a correction in words, found by the feedback on them.

    before = begin_corrected(store)
    after, answers = feedback_step(store, before)
    pairs = list(corrected_pairs(store, answers))
    keep_corrected(store, before=before, after=after)

Cost: it follows the feedback that arrived, and of each answer that it is about the answers of the
same session, by index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from ratchet.records.events import REACTIONS
from ratchet.store.counts import put_numbers, read_numbers
from ratchet.store.events import EventStore
from ratchet.store.following import begin_near_end
from ratchet.store.rows import chunks
from ratchet.store.tables import COUNTS, FEEDBACK_EVENTS, INTERACTIONS, REVIEW_ITEMS

SPEAKING = ("thumbs", "stars", "next_turn", "continued")
"""Kinds that may tell that an answer was accepted."""
_CORRECTED = float(REACTIONS.index("corrected") + 1)
_NAME, _PLACE = "corrections in words", "feedback"
_STEP = 1_000


@dataclass(frozen=True, slots=True)
class CorrectedPair:
    """An answer that the user corrected in words, and the answer to that.

    Attributes:
        first_id: The interaction that was corrected.
        second_id: The one that answers what the user wrote then.
        version: The version that read the user's words as a correction.
    """

    first_id: str
    second_id: str
    version: str


def begin_corrected(store: EventStore) -> int:
    """Return up to which position feedback was looked at; a new store begins near its end."""
    return begin_near_end(store, FEEDBACK_EVENTS, _NAME, (_PLACE,))[_PLACE]


def keep_corrected(store: EventStore, *, before: int, after: int) -> bool:
    """Keep how far it is; False where another process was faster."""
    with store.atomic() as connection:
        if _place(connection) != before:
            return False
        put_numbers(connection, COUNTS, _NAME, {_PLACE: after})
    return True


def _place(connection: sa.Connection) -> int | None:
    return read_numbers(connection, COUNTS, (_NAME,))[_NAME].get(_PLACE)


def feedback_step(store: EventStore, after: int) -> tuple[int, list[str]]:
    """Return how far the next step goes, and the answers that its feedback may speak well of."""
    event = FEEDBACK_EVENTS.c
    end = max(after, store.settled_position(FEEDBACK_EVENTS))
    query = (
        sa.select(event.position, event.interaction_id)
        .where(event.position > after, event.position <= end, event.kind.in_(SPEAKING))
        .order_by(event.position)
        .limit(_STEP)
    )
    with store.reading() as connection:
        rows = connection.execute(query).all()
    reached = rows[-1][0] if len(rows) == _STEP else end
    return reached, list(dict.fromkeys(row[1] for row in rows))


def corrected_pairs(store: EventStore, second_ids: list[str]) -> Iterator[CorrectedPair]:
    """Yield those of the answers that answer a correction in words, with what was corrected.

    The user's words came with the second request: the reading of them has its time.
    """
    first, second = INTERACTIONS.alias("first"), INTERACTIONS.alias("second")
    event = FEEDBACK_EVENTS.c
    query = (
        sa.select(first.c.id, second.c.id, event.text)
        .select_from(
            second.join(
                first,
                sa.and_(
                    first.c.session_id == second.c.session_id,
                    first.c.created_at < second.c.created_at,
                    first.c.user_id == second.c.user_id,
                ),
            ).join(
                FEEDBACK_EVENTS,
                sa.and_(
                    event.interaction_id == first.c.id,
                    event.created_at == second.c.created_at,
                    event.kind == "next_turn",
                    event.number == _CORRECTED,
                ),
            )
        )
        .order_by(second.c.position, first.c.position)
    )
    with store.reading() as connection:
        for chunk in chunks(second_ids):
            for row in connection.execute(query.where(second.c.id.in_(chunk))):
                yield CorrectedPair(*row)


def raised_since(store: EventStore, raised_by: str, since: int, user_id: str | None = None) -> int:
    """Count the items of the queue that somebody raised since a time, about one user or all."""
    item = REVIEW_ITEMS.c
    query = (
        sa.select(sa.func.count())
        .select_from(REVIEW_ITEMS)
        .where(item.raised_by == raised_by, item.created_at >= since)
    )
    if user_id is not None:
        about = sa.exists().where(
            INTERACTIONS.c.id == item.interaction_id, INTERACTIONS.c.user_id == user_id
        )
        query = query.where(about)
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())
