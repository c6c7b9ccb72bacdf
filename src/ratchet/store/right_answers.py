"""What people said to be right about answers: decisions of reviewers and corrections, with times.

Each function answers by an index: it costs what it is asked about, however much is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ratchet.records import ReviewDecision
from ratchet.store.events import EventStore
from ratchet.store.rows import chunks, moment_of
from ratchet.store.tables import (
    FEEDBACK_EVENTS,
    GIVEN_AT,
    INTERACTIONS,
    JOURNAL,
    REVIEW_DECISIONS,
    REVIEW_ITEMS,
)


@dataclass(frozen=True, slots=True)
class Corrected:
    """What an answer should have been, by the latest correction of it."""

    text: str
    said_at: datetime


def decided_as(store: EventStore, dimension: str, label: str) -> dict[str, datetime]:
    """Return the answers on which somebody decided so, and when it was said last."""
    item, decision, journal = REVIEW_ITEMS.c, REVIEW_DECISIONS.c, JOURNAL.c
    query = (
        sa.select(item.interaction_id, journal.created_at)
        .select_from(REVIEW_DECISIONS)
        .join(REVIEW_ITEMS, item.id == decision.item_id)
        .join(
            JOURNAL,
            sa.and_(journal.kind == ReviewDecision.__name__, journal.id == decision.id),
        )
        .where(item.dimension == dimension, decision.label == label)
        .order_by(decision.position)
    )
    with store.reading() as connection:
        return {row[0]: moment_of(row[1]) for row in connection.execute(query)}


def corrections_of(store: EventStore, ids: Iterable[str]) -> dict[str, Corrected]:
    """Return the latest correction of each of some answers that has one."""
    event = FEEDBACK_EVENTS.c
    query = (
        sa.select(event.interaction_id, event.text, GIVEN_AT)
        .where(event.kind == "correction", event.text.is_not(None))
        .order_by(GIVEN_AT, event.id)
    )
    found: dict[str, Corrected] = {}
    with store.reading() as connection:
        for chunk in chunks(ids):
            for row in connection.execute(query.where(event.interaction_id.in_(chunk))):
                found[row[0]] = Corrected(row[1], moment_of(row[2]))
    return found


def corrected_after(store: EventStore, position: int) -> list[str]:
    """Return the answers that corrections are about which arrived after a position."""
    event = FEEDBACK_EVENTS.c
    query = (
        sa.select(event.interaction_id)
        .where(event.position > position, event.kind == "correction")
        .order_by(event.position)
    )
    with store.reading() as connection:
        return list(dict.fromkeys(connection.execute(query).scalars()))


def real_answers(store: EventStore, ids: Iterable[str]) -> set[str]:
    """Return those of the interactions that are stored and of real users."""
    column = INTERACTIONS.c
    real = store.origins().chosen(column.position, False)
    query = sa.select(column.id).where(*real)
    with store.reading() as connection:
        return {
            key
            for chunk in chunks(ids)
            for key in connection.execute(query.where(column.id.in_(chunk))).scalars()
        }


def users_of(store: EventStore, ids: Iterable[str]) -> set[str]:
    """Return the users of those of the interactions that are stored."""
    column = INTERACTIONS.c
    query = sa.select(column.user_id).distinct()
    with store.reading() as connection:
        return {
            user
            for chunk in chunks(ids)
            for user in connection.execute(query.where(column.id.in_(chunk))).scalars()
        }
