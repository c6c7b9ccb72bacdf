"""Forget a user: the one exception to a store that changes nothing.

What is erased are texts and the user's name; ids, times and numbers stay, so that counts and rates
of the past keep their meaning.

It happens in steps of at most some hundred rows, each a transaction of its own, so that no writer
waits for long. What others made of the texts (vectors, verdicts, records, rows set aside) comes
first and the interactions last: stopped in between, the next call still finds by them what is left.
All is found by index but for what does not say whom it is about, which is read in batches.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from ratchet.records import GOLDEN, SAMPLED, Erasure, user_digest
from ratchet.records.signals import TEXT_KINDS
from ratchet.store.connections import BUSY_SECONDS
from ratchet.store.definitions import erase_documents
from ratchet.store.event_rows import interaction_record
from ratchet.store.events import EventStore
from ratchet.store.forgotten import forget_interactions
from ratchet.store.rows import chunks
from ratchet.store.tables import (
    ANSWERS,
    COUNTS,
    EMBEDDINGS,
    FEEDBACK_EVENTS,
    FORGOTTEN_NAMES,
    INTERACTIONS,
    JOURNAL,
    REVIEW_DECISIONS,
    REVIEW_ITEMS,
    SET_ASIDE,
    VERDICT_QUOTES,
    VERDICTS,
)
from ratchet.store.user_texts import ERASED, UserTexts, said_by_user
from ratchet.store.verdicts import delete_verdicts

logger = logging.getLogger(__name__)

FORGOTTEN = "forgotten"
ERASED_INTERACTION = {
    "user_id": FORGOTTEN,
    "session_id": FORGOTTEN,
    "prompt": ERASED,
    "messages": [{"role": "user", "content": ERASED}],
    "response": ERASED,
    "metadata": {"training_consent": "no"},
    "tool_calls": None,
    "refusal": None,
    "tools": None,
    "response_format": None,
    "documents": None,
    "continues": None,
}
"""What stands in a forgotten user's interaction; an error, where there is one, is erased too."""
_WITHOUT_TEXTS = (
    "ExampleSet", "ReviewItem", "ReviewDecision", "Erasure", "BoardState", "Baseline", "SafetyPass",
    "SampledDay", "RoutingFollowed", "CycleEnd", "ApiKey", "ApiKeyRevocation", "Delivery",
    "GoldenVersion",
)  # fmt: skip
"""Records that quote no users, or that are found by whose they are; all others are searched."""
_OF_TRAFFIC = ("regression-", "traffic-", f"{SAMPLED}-", f"{GOLDEN}-")
"""How sets of examples are called that are made of what users said."""
_BLANK = {"messages": [{"role": "user", "content": ERASED}], "target": ERASED}
_BETWEEN = re.compile(r"""["',;|]|\\t""")
"""What stands between the values of a row that was set aside: of JSON, of a table, or in words."""
_PAGE = 200
SHORTEST_OWN_ANSWER = 64
"""Shorter answers are given to many: a queue's name, a refusal, a greeting."""
_CHECKPOINT_MILLISECONDS = 300
_CHECKPOINTS = 30


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


def interactions_of(store: EventStore, user_id: str) -> tuple[str, ...]:
    """Return the ids of a user's interactions, oldest first."""
    query = sa.select(INTERACTIONS.c.id).where(INTERACTIONS.c.user_id == user_id)
    with store.reading() as connection:
        ids = connection.execute(query.order_by(INTERACTIONS.c.position)).scalars()
        return tuple(str(key) for key in ids)


def erase_user(
    store: EventStore,
    user_id: str,
    ids: Sequence[str],
    begun: Erasure,
    *,
    text_key: Callable[[str], str],
    in_history: UserData = NOTHING,
    elsewhere: Callable[[UserTexts], None] = lambda _: None,
) -> Erasure:
    """Erase what a user wrote, the answers to it, and the feedback on these.

    Args:
        store: The store.
        user_id: As it was sent.
        ids: The user's interactions, also those that only history has.
        begun: What tells of it; it is kept up to date in the store.
        text_key: Names the vector of a text.
        in_history: Of whose interactions the store may hold feedback and copies of texts, though
            it no longer holds them.
        elsewhere: Erases the texts outside the store. It is called before the store loses them, so
            that what is stopped there begins anew with the next call, and again afterwards, for
            what was copied meanwhile.

    Returns:
        The record with what was erased added to its numbers.
    """
    forget_interactions(store, FORGOTTEN_NAMES, ids, begun.created_at)
    own = (*_texts(store, ids), *_own_feedback(store, user_id), *in_history.texts, user_id)
    texts = UserTexts.of(own)
    elsewhere(texts)
    for keys in chunks(text_key(text) for text in texts.every):
        with _erasing(store) as connection:
            connection.execute(sa.delete(EMBEDDINGS).where(EMBEDDINGS.c.key.in_(keys)))
    of_user = user_digest(user_id)
    named, of_examples = _example_sets(store, texts)
    lost, dropped = erase_examples(store, texts, of_user)
    begun = begun.model_copy(
        update={
            "example_sets": tuple(dict.fromkeys((*begun.example_sets, *named))),
            "examples": begun.examples + lost,
        }
    )
    examples = (*of_examples, *dropped)
    steps: tuple[tuple[str, Callable[[], int]], ...] = (
        ("verdicts", lambda: _delete_verdicts(store, (*ids, *examples), texts)),
        ("verdicts", lambda: _delete_set_aside(store, user_id, ids, texts)),
        ("verdicts", lambda: delete_answers(store, texts, dropped)),
        ("records", lambda: _erase_in_records(store, ids, texts)),
        ("feedback", lambda: _erase_own_feedback(store, user_id)),
        ("feedback", lambda: _erase_interactions(store, user_id, ids)),
    )
    for field, step in steps:
        begun = begun.model_copy(update={field: getattr(begun, field) + step()})
        rewrite(store, begun)
    elsewhere(texts)
    return begun


def erase_interactions(
    store: EventStore,
    ids: Sequence[str],
    *,
    now: datetime,
    text_key: Callable[[str], str],
    in_history: UserData = NOTHING,
    elsewhere: Callable[[UserTexts], None] = lambda _: None,
) -> None:
    """Erase interactions as those of a user who is forgotten, with what was made of their texts.

    Short answers, which are given to many, stay in records where these quote them.

    Args:
        store: The store.
        ids: The interactions, a few thousand at a time.
        now: The time.
        text_key: Names the vector of a text.
        in_history: Texts of those that only history has, without short answers.
        elsewhere: Erases the texts outside the store, while the store has them still.
    """
    everything = (*_texts(store, ids), *in_history.texts)
    for keys in chunks(text_key(text) for text in dict.fromkeys(everything)):
        with _erasing(store) as connection:
            connection.execute(sa.delete(EMBEDDINGS).where(EMBEDDINGS.c.key.in_(keys)))
    forget_interactions(store, FORGOTTEN_NAMES, ids, now)
    own = _texts(store, ids, shortest_answer=SHORTEST_OWN_ANSWER)
    texts = UserTexts.of((*own, *in_history.texts))
    elsewhere(texts)
    _, dropped = erase_examples(store, texts)
    _delete_verdicts(store, (*ids, *dropped), texts)
    _delete_set_aside(store, None, ids, texts)
    delete_answers(store, texts, dropped)
    _erase_in_records(store, ids, texts)
    _erase_interactions(store, None, ids)


def rewrite(store: EventStore, record: Erasure) -> None:
    """Put the record of an erasure in the place of what it said before."""
    mine = sa.and_(JOURNAL.c.kind == Erasure.__name__, JOURNAL.c.id == record.id)
    with store.atomic() as connection:
        connection.execute(sa.update(JOURNAL).where(mine).values(body=record.canonical()))


def clear_log(store: EventStore) -> None:
    """Write SQLite's log back, in which erased texts stand; PostgreSQL cleans up by itself.

    Writers wait for less than a second at a time: a reader that is in the way is not waited for.
    """
    with store._engine.connect() as connection:
        driver = connection.connection.driver_connection
        if connection.dialect.name != "sqlite" or driver is None:
            return
        driver.execute("PRAGMA wal_checkpoint(PASSIVE)")
        driver.execute(f"PRAGMA busy_timeout={_CHECKPOINT_MILLISECONDS}")
        try:
            for _ in range(_CHECKPOINTS):
                busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    return
                time.sleep(_CHECKPOINT_MILLISECONDS / 1_000)
        finally:
            driver.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1_000}")
    logger.warning(
        "erased texts still stand in the store's log, which others are reading: "
        "run `ratchet forget` again when they are done"
    )


@contextmanager
def _erasing(store: EventStore) -> Iterator[sa.Connection]:
    """One step: a transaction in which SQLite overwrites what is deleted.

    SQLite's waiting writers ask again and again: as much time as the step took is left to them.
    """
    start = time.monotonic()
    with store.atomic() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
        yield connection
    if sqlite:
        time.sleep(time.monotonic() - start)


def _texts(store: EventStore, ids: Collection[str], *, shortest_answer: int = 0) -> set[str]:
    """Return what the user said, answers, calls with their results, and corrections."""
    texts: set[str] = set()
    with store.reading() as connection:
        for chunk in chunks(ids):
            query = sa.select(INTERACTIONS).where(INTERACTIONS.c.id.in_(chunk))
            for row in connection.execute(query).mappings():
                found = interaction_record(row)
                error = found.error
                texts.update([error] if error and len(error) >= SHORTEST_OWN_ANSWER else [])
                texts |= said_by_user(found.messages, found.answer, shortest_answer=shortest_answer)
            feedback = sa.select(FEEDBACK_EVENTS.c.text).where(
                FEEDBACK_EVENTS.c.interaction_id.in_(chunk),
                FEEDBACK_EVENTS.c.kind.in_(TEXT_KINDS),
            )
            texts.update(connection.execute(feedback).scalars())
    # what an erasure that was stopped has erased already is nobody's text
    return texts - {ERASED}


def _own_feedback(store: EventStore, user_id: str) -> set[str]:
    """Return what the user said of anybody's interactions."""
    query = sa.select(FEEDBACK_EVENTS.c.text).where(
        FEEDBACK_EVENTS.c.user_id == user_id, FEEDBACK_EVENTS.c.kind.in_(TEXT_KINDS)
    )
    with store.reading() as connection:
        return {text for text in connection.execute(query).scalars() if text}


def _erase_own_feedback(store: EventStore, user_id: str) -> int:
    """Erase what the user said of anybody's interactions; return how many events."""
    own = sa.select(FEEDBACK_EVENTS.c.position).where(FEEDBACK_EVENTS.c.user_id == user_id)
    changed = 0
    while True:
        with _erasing(store) as connection:
            positions = connection.execute(own.limit(_PAGE)).scalars().all()
            update = sa.update(FEEDBACK_EVENTS).where(FEEDBACK_EVENTS.c.position.in_(positions))
            connection.execute(update.values(user_id=FORGOTTEN, text=_text_erased()))
        changed += len(positions)
        if len(positions) < _PAGE:
            return changed


def _erase_interactions(store: EventStore, user_id: str | None, ids: Sequence[str]) -> int:
    """Erase interactions (of a user), each with the feedback on it; return how many events."""
    changed, left = 0, iter(ids)
    while part := list(islice(left, _PAGE)):
        # a correction of an erased answer is none: it must not be trained on
        about = sa.update(FEEDBACK_EVENTS).where(
            FEEDBACK_EVENTS.c.interaction_id.in_(part),
            sa.or_(FEEDBACK_EVENTS.c.user_id.is_(None), FEEDBACK_EVENTS.c.user_id != FORGOTTEN),
        )
        mine = sa.update(INTERACTIONS).where(INTERACTIONS.c.id.in_(part))
        if user_id is not None:
            mine = mine.where(INTERACTIONS.c.user_id == user_id)
        error = sa.case((INTERACTIONS.c.error.is_(None), None), else_=ERASED)
        with _erasing(store) as connection:
            changed += connection.execute(about.values(text=_text_erased())).rowcount
            erase_documents(connection, part)
            connection.execute(mine.values(error=error, **ERASED_INTERACTION))
    return changed


def _text_erased() -> sa.Case[Any]:
    return sa.case((FEEDBACK_EVENTS.c.kind.in_(TEXT_KINDS), ERASED), else_=FEEDBACK_EVENTS.c.text)


def _delete_verdicts(store: EventStore, items: Iterable[str], texts: UserTexts) -> int:
    """Delete verdicts about the items, or that quote them; old ones also by the texts in them."""
    position, quotes, about = VERDICTS.c.position, VERDICT_QUOTES.c, list(items)
    quoting = _ids_of(store, quotes.verdict_id, quotes.interaction_id, about)
    found = _positions(store, VERDICTS, VERDICTS.c.item_id, about)
    found += _positions(store, VERDICTS, VERDICTS.c.id, dict.fromkeys(quoting))
    unnamed = sa.select(position, VERDICTS.c.body).where(VERDICTS.c.item_id.is_(None))
    found += [at for at, body in _pages(store, unnamed, position) if texts.are_in(body)]
    deleted = 0
    for chunk in chunks(dict.fromkeys(found)):
        with _erasing(store) as connection:
            deleted += delete_verdicts(connection, chunk)
    return deleted


def _delete_set_aside(
    store: EventStore, user_id: str | None, ids: Collection[str], texts: UserTexts
) -> int:
    """Delete rows set aside that are the user's, and those without a user that quote them."""
    position, columns = SET_ASIDE.c.position, SET_ASIDE.c
    users = [] if user_id is None else [user_id]
    found = _positions(store, SET_ASIDE, columns.user_id, users)
    found += _positions(store, SET_ASIDE, columns.interaction_id, ids)
    unnamed = sa.select(position, columns.raw, columns.reason).where(
        columns.user_id.is_(None), columns.interaction_id.is_(None)
    )
    names = {*users, *ids}
    escaped = {json.dumps(name) for name in names if json.dumps(name) != f'"{name}"'}
    found += [
        at
        for at, raw, reason in _pages(store, unnamed, position)
        if not names.isdisjoint(raw.split('"'))
        or not names.isdisjoint(part.strip(" :{}[]") for part in _BETWEEN.split(raw))
        or any(name in raw for name in escaped)
        or texts.are_in(raw, cut=True)
        or texts.are_in(reason)
    ]
    deleted = _delete(store, SET_ASIDE, list(dict.fromkeys(found)))
    _delete_counts(store, texts)
    return deleted


def _delete_counts(store: EventStore, texts: UserTexts) -> None:
    """Delete the counts of reasons that quote what was received: no row has them any more."""
    with store.reading() as connection:
        query = sa.select(COUNTS.c.key, COUNTS.c.part).where(COUNTS.c.name == SET_ASIDE.name)
        keys = {key for key, part in connection.execute(query) if texts.are_in([key, part])}
    for chunk in chunks(keys):
        with _erasing(store) as connection:
            mine = sa.and_(COUNTS.c.name == SET_ASIDE.name, COUNTS.c.key.in_(chunk))
            connection.execute(sa.delete(COUNTS).where(mine))


def _erase_in_records(store: EventStore, ids: Collection[str], texts: UserTexts) -> int:
    """Replace the texts in records; return how many held one."""
    position, kind = JOURNAL.c.position, JOURNAL.c.kind
    items = _ids_of(store, REVIEW_ITEMS.c.id, REVIEW_ITEMS.c.interaction_id, ids)
    decisions = _ids_of(store, REVIEW_DECISIONS.c.id, REVIEW_DECISIONS.c.item_id, items)
    found = _positions(store, JOURNAL, JOURNAL.c.id, items, kind == "ReviewItem")
    found += _positions(store, JOURNAL, JOURNAL.c.id, decisions, kind == "ReviewDecision")
    query = sa.select(position, JOURNAL.c.body).where(kind.not_in(_WITHOUT_TEXTS))
    found += [at for at, body in _pages(store, query, position) if texts.are_in(body)]
    changed = 0
    for at in found:  # read again in its transaction: another erasure may have changed it
        with _erasing(store) as connection:
            query = sa.select(JOURNAL.c.body).where(position == at)
            body = connection.execute(query).scalar_one()
            if texts.are_in(body):
                update = sa.update(JOURNAL).where(position == at)
                connection.execute(update.values(body=texts.erased_in(body)))
                changed += 1
    return changed


def _example_sets(store: EventStore, texts: UserTexts) -> tuple[list[str], list[str]]:
    """Return the sets made by people that hold one of the texts, and these of their examples."""
    sets: list[str] = []
    examples: list[str] = []
    for _, body in _all_sets(store):
        if body["name"].startswith(_OF_TRAFFIC):
            continue
        held = [example["id"] for example in body["examples"] if texts.are_in(example)]
        if held:
            sets.append(body["id"])
            examples += held
    return sets, examples


def erase_examples(
    store: EventStore, texts: UserTexts, of_user: str | None = None
) -> tuple[int, list[str]]:
    """Take a user's questions out of the evaluation sets that are made of what users said.

    A set keeps its id, and the questions of others; the last question leaves a blank in its place.

    Args:
        store: The store.
        texts: What the user said.
        of_user: What stands for the user in sets.

    Returns:
        How many were taken out, and their ids.
    """
    dropped: list[str] = []
    for position, body in _all_sets(store):
        if not body["name"].startswith(_OF_TRAFFIC):
            continue
        mine = [
            example
            for example in body["examples"]
            if (of_user is not None and example.get("user_id") == of_user) or texts.are_in(example)
        ]
        if mine:
            left = [example for example in body["examples"] if example not in mine]
            blank = {"id": "erased", **_BLANK}
            update = sa.update(JOURNAL).where(JOURNAL.c.position == position)
            with _erasing(store) as connection:
                connection.execute(update.values(body=body | {"examples": left or [blank]}))
            dropped += [example["id"] for example in mine]
    return len(dropped), dropped


def delete_answers(store: EventStore, texts: UserTexts, examples: Collection[str] = ()) -> int:
    """Delete recorded answers to some examples, and those that quote one of the texts."""
    position, wanted = ANSWERS.c.position, set(examples)
    rows = _pages(store, sa.select(position, ANSWERS.c.example_id, ANSWERS.c.answer), position)
    found = [at for at, key, answer in rows if key in wanted or texts.are_in(answer)]
    return _delete(store, ANSWERS, found)


def _all_sets(store: EventStore) -> Iterator[tuple[int, dict[str, Any]]]:
    query = sa.select(JOURNAL.c.position, JOURNAL.c.body).where(JOURNAL.c.kind == "ExampleSet")
    yield from _pages(store, query, JOURNAL.c.position, size=10)


def _positions(
    store: EventStore,
    table: sa.Table,
    column: sa.ColumnElement[Any],
    values: Iterable[str],
    *also: sa.ColumnElement[bool],
) -> list[int]:
    """Return where the rows with these values stand."""
    return _ids_of(store, table.c.position, column, values, *also)


def _ids_of(
    store: EventStore,
    wanted: sa.ColumnElement[Any],
    column: sa.ColumnElement[Any],
    values: Iterable[str],
    *also: sa.ColumnElement[bool],
) -> list[Any]:
    with store.reading() as connection:
        return [
            value
            for chunk in chunks(values)
            for value in connection.execute(
                sa.select(wanted).where(column.in_(chunk), *also)
            ).scalars()
        ]


def _pages(
    store: EventStore, query: sa.Select[Any], position: sa.ColumnElement[int], size: int = _PAGE
) -> Iterator[Any]:
    """Yield the rows of a query that begins with the position, without a long transaction."""
    last = 0
    while True:
        page = query.where(position > last).order_by(position).limit(size)
        with store.reading() as connection:
            rows = connection.execute(page).all()
        yield from rows
        if len(rows) < size:
            return
        last = rows[-1][0]


def _delete(store: EventStore, table: sa.Table, positions: Iterable[int]) -> int:
    deleted = 0
    for chunk in chunks(positions):
        with _erasing(store) as connection:
            query = sa.delete(table).where(table.c.position.in_(chunk))
            deleted += connection.execute(query).rowcount
    return deleted
