"""Forget a user: the one exception to a store that changes nothing.

What is erased are texts and the user's name; ids, times and numbers stay, so that counts and rates
of the past keep their meaning. It happens in one transaction with the record that tells of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ratchet.records.signals import TEXT_KINDS
from ratchet.store.events import EventStore
from ratchet.store.rows import chunks
from ratchet.store.tables import (
    EMBEDDINGS,
    FEEDBACK_EVENTS,
    INTERACTIONS,
    JOURNAL,
    SET_ASIDE,
    VERDICTS,
)

ERASED = "[erased]"
FORGOTTEN = "forgotten"
ERASED_INTERACTION = {
    "user_id": FORGOTTEN,
    "session_id": FORGOTTEN,
    "prompt": ERASED,
    "messages": [{"role": "user", "content": ERASED}],
    "response": ERASED,
    "metadata": {"training_consent": "no"},
}
"""What stands in a forgotten user's interaction; an error, where there is one, is erased too."""
_SHORTEST = 12
"""Shorter texts ("yes", "billing") are written by anybody and stay: they identify nobody."""
_RECORDS_WITH_TEXTS = ("Analysis", "ReviewItem", "ReviewDecision", "HumanLabel", "TrainingSet")


@dataclass(frozen=True, slots=True)
class UserData:
    """What there is of a user outside the store, in history.

    Attributes:
        interaction_ids: The user's interactions there, oldest first.
        texts: What the user said there, the answers and corrections.
    """

    interaction_ids: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()


NOTHING = UserData()


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased, in rows.

    Attributes:
        interaction_ids: The user's interactions, also those that only history has.
        example_sets: Ids of evaluation sets that hold a text of the user's; they are frozen, and
            left to a person.
    """

    interaction_ids: tuple[str, ...]
    feedback: int
    verdicts: int
    records: int
    set_aside: int
    example_sets: tuple[str, ...]


def interactions_of(store: EventStore, user_id: str) -> tuple[str, ...]:
    """Return the ids of a user's interactions, oldest first."""
    query = sa.select(INTERACTIONS.c.id).where(INTERACTIONS.c.user_id == user_id)
    with store.atomic() as connection:
        ids = connection.execute(query.order_by(INTERACTIONS.c.position)).scalars()
        return tuple(str(key) for key in ids)


def erase_user(
    store: EventStore,
    user_id: str,
    *,
    text_key: Callable[[str], str],
    in_history: UserData = NOTHING,
) -> Erased:
    """Erase what a user wrote, the answers to it, and the feedback on these.

    Args:
        store: The store.
        user_id: As it was sent.
        text_key: Names the vector of a text.
        in_history: Of whose interactions the store may hold feedback and copies of texts, though
            it no longer holds them.
    """
    with store.atomic() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")  # overwrites what is deleted
        ids = tuple(dict.fromkeys((*in_history.interaction_ids, *interactions_of(store, user_id))))
        all_texts = _longest_first({*_texts(connection, ids), *in_history.texts, user_id})
        texts = tuple(text for text in all_texts if len(text.strip()) >= _SHORTEST)
        for chunk in chunks(text_key(text) for text in all_texts):
            connection.execute(sa.delete(EMBEDDINGS).where(EMBEDDINGS.c.key.in_(chunk)))
        erased = Erased(
            interaction_ids=ids,
            feedback=_erase_feedback(connection, ids, user_id),
            verdicts=_delete_verdicts(connection, texts),
            records=_erase_in_records(connection, texts),
            set_aside=_delete_set_aside(connection, user_id, ids, texts),
            example_sets=_example_sets(connection, texts),
        )
        connection.execute(
            sa.update(INTERACTIONS)
            .where(INTERACTIONS.c.user_id == user_id)
            .values(
                error=sa.case((INTERACTIONS.c.error.is_(None), None), else_=ERASED),
                **ERASED_INTERACTION,
            )
        )
    return erased


def clear_log(store: EventStore) -> None:
    """Write SQLite's log back, in which erased texts stand; PostgreSQL cleans up by itself."""
    with store._engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            driver = connection.connection.driver_connection
            if driver is not None:
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _texts(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """Return what the user said, the answers and corrections."""
    texts: set[str] = set()
    for chunk in chunks(ids):
        columns = (INTERACTIONS.c.messages, INTERACTIONS.c.response)
        rows = connection.execute(sa.select(*columns).where(INTERACTIONS.c.id.in_(chunk)))
        for messages, response in rows:
            texts.update(m["content"] for m in messages if m["role"] != "system")
            texts.add(response)
        feedback = sa.select(FEEDBACK_EVENTS.c.text).where(
            FEEDBACK_EVENTS.c.interaction_id.in_(chunk),
            FEEDBACK_EVENTS.c.kind.in_(TEXT_KINDS),
        )
        texts.update(connection.execute(feedback).scalars())
    return texts


def _longest_first(texts: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(filter(None, texts), key=lambda text: (-len(text), text)))


def _erase_feedback(connection: sa.Connection, ids: Collection[str], user_id: str) -> int:
    texts = sa.case(
        (FEEDBACK_EVENTS.c.kind.in_(TEXT_KINDS), ERASED),
        else_=FEEDBACK_EVENTS.c.text,
    )
    mine = sa.update(FEEDBACK_EVENTS).where(FEEDBACK_EVENTS.c.user_id == user_id)
    # a correction of an erased answer is none: it must not be trained on
    changed = connection.execute(mine.values(user_id=FORGOTTEN, text=texts)).rowcount
    for chunk in chunks(ids):
        about = sa.update(FEEDBACK_EVENTS).where(
            FEEDBACK_EVENTS.c.interaction_id.in_(chunk),
            sa.or_(FEEDBACK_EVENTS.c.user_id.is_(None), FEEDBACK_EVENTS.c.user_id != FORGOTTEN),
        )
        changed += connection.execute(about.values(text=texts)).rowcount
    return changed


def _delete_verdicts(connection: sa.Connection, texts: tuple[str, ...]) -> int:
    rows = connection.execute(sa.select(VERDICTS.c.position, VERDICTS.c.body))
    matching = [position for position, body in rows if _holds(body, texts)]
    for chunk in chunks(matching):
        connection.execute(sa.delete(VERDICTS).where(VERDICTS.c.position.in_(chunk)))
    return len(matching)


def _erase_in_records(connection: sa.Connection, texts: tuple[str, ...]) -> int:
    query = sa.select(JOURNAL.c.position, JOURNAL.c.body).where(
        JOURNAL.c.kind.in_(_RECORDS_WITH_TEXTS)
    )
    changed = 0
    for position, body in connection.execute(query).all():
        if _holds(body, texts):
            update = sa.update(JOURNAL).where(JOURNAL.c.position == position)
            connection.execute(update.values(body=_without(body, texts)))
            changed += 1
    return changed


def _delete_set_aside(
    connection: sa.Connection, user_id: str, ids: Collection[str], texts: tuple[str, ...]
) -> int:
    named = {user_id, *ids}
    rows = connection.execute(sa.select(SET_ASIDE.c.position, SET_ASIDE.c.raw))
    matching = [
        position
        for position, raw in rows
        if any(json.dumps(name) in raw for name in named) or any(text in raw for text in texts)
    ]
    for chunk in chunks(matching):
        connection.execute(sa.delete(SET_ASIDE).where(SET_ASIDE.c.position.in_(chunk)))
    return len(matching)


def _example_sets(connection: sa.Connection, texts: tuple[str, ...]) -> tuple[str, ...]:
    query = sa.select(JOURNAL.c.id, JOURNAL.c.body).where(JOURNAL.c.kind == "ExampleSet")
    return tuple(str(key) for key, body in connection.execute(query) if _holds(body, texts))


def _holds(value: Any, texts: tuple[str, ...]) -> bool:
    if isinstance(value, str):
        return any(text in value for text in texts)
    if isinstance(value, dict):
        return any(_holds(item, texts) for item in value.values())
    return isinstance(value, list) and any(_holds(item, texts) for item in value)


def _without(value: Any, texts: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        for text in texts:
            value = value.replace(text, ERASED)
        return value
    if isinstance(value, dict):
        return {name: _without(item, texts) for name, item in value.items()}
    return [_without(item, texts) for item in value] if isinstance(value, list) else value
