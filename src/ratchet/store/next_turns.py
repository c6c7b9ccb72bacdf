"""What users wrote after answers, as the next requests of their conversations hold it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ratchet.records import last_said
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.event_rows import interaction_record
from ratchet.store.events import EventStore, Window
from ratchet.store.rows import chunks
from ratchet.store.tables import FEEDBACK_EVENTS, INTERACTIONS


@dataclass(frozen=True, slots=True)
class NextTurnRow:
    """An answer and what its user wrote then.

    Attributes:
        interaction_id: The answer's.
        next_id: The interaction that holds what the user wrote then.
        session_id: Its conversation's.
        user_id: Its user.
        read_at: When the user wrote.
        version: The version that read it, with the language.
        place: How it read it, see `ratchet.records.events.REACTIONS`.
        question: What the user wrote before.
        answer: The answer.
        words: What the user wrote then.
    """

    interaction_id: str
    next_id: str
    session_id: str
    user_id: str
    read_at: datetime
    version: str
    place: int
    question: str
    answer: str
    words: str


def next_turns(store: EventStore, ids: Iterable[str], *, reader: str) -> list[NextTurnRow]:
    """Return what followed those of the answers that a reader has read, in order of their ids.

    Args:
        store: The store.
        ids: The answers.
        reader: How its versions begin.
    """
    first, second = INTERACTIONS.alias("first"), INTERACTIONS
    event = FEEDBACK_EVENTS.c
    query = (
        sa.select(first.c.id, first.c.prompt, first.c.response, event.text, event.number, *second.c)
        .select_from(
            first.join(FEEDBACK_EVENTS, event.interaction_id == first.c.id).join(
                second,
                sa.and_(
                    second.c.session_id == first.c.session_id,
                    second.c.user_id == first.c.user_id,
                    second.c.created_at == event.created_at,
                    second.c.id != first.c.id,
                ),
            )
        )
        .where(
            event.kind == "next_turn",
            event.text.startswith(reader),
            first.c.user_id != FORGOTTEN,  # what was erased lies in one session, of one user
        )
    )
    found: dict[str, NextTurnRow] = {}
    with store.reading() as connection:
        for chunk in chunks(sorted(set(ids))):
            for row in connection.execute(query.where(first.c.id.in_(chunk))):
                key, question, answer, version, number, *rest = row
                then = interaction_record(dict(zip(second.c.keys(), rest, strict=True)))
                found[key] = NextTurnRow(
                    key, then.id, then.session_id, then.user_id, then.created_at, version,
                    int(number), question, answer, last_said(then.messages),
                )  # fmt: skip
    return [found[key] for key in sorted(found)]


def read_answers_in(store: EventStore, window: Window, *, reader: str, most: int) -> list[str]:
    """Return the latest answers of a window that a reader has read what followed of."""
    event = FEEDBACK_EVENTS.c
    query = (
        sa.select(INTERACTIONS.c.id)
        .join(FEEDBACK_EVENTS, event.interaction_id == INTERACTIONS.c.id)
        .where(store.within(window), event.kind == "next_turn", event.text.startswith(reader))
        .order_by(INTERACTIONS.c.created_at.desc())
        .limit(most)
    )
    with store.reading() as connection:
        return list(dict.fromkeys(connection.execute(query).scalars()))
