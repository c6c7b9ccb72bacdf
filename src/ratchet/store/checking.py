"""Whether a store is whole: its file, each row by its digest, its counts and its journal.

A row carries the digest of what was sent, so that a changed or half-written one is told. Rows of
users who were forgotten no longer have the content that their digest is of; they are counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from ratchet import records
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted
from ratchet.records import Record, digest
from ratchet.records.signals import BY_NAME
from ratchet.store.batches import read_lists
from ratchet.store.connections import unpooled
from ratchet.store.copying import connected, known_migrations, sqlite_path
from ratchet.store.counts import count_interactions, read_counts
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.event_rows import (
    feedback_record,
    feedback_row,
    interaction_record,
    interaction_row,
)
from ratchet.store.events import EventStore
from ratchet.store.facts import identity_of, read_histories
from ratchet.store.months import PARTITIONED, ids_of
from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import (
    APPLIED,
    COUNTS,
    DEFINITIONS,
    FACTS,
    FEEDBACK_EVENTS,
    INTERACTIONS,
    JOURNAL,
    MIGRATIONS,
    SET_ASIDE,
)
from ratchet.store.user_texts import ERASED

ROWS = 1_000
_SHOWN = 5


@dataclass(slots=True)
class StoreCheck:
    """What was looked at and what is wrong.

    Attributes:
        counts: Rows read, by what they are.
        problems: What is wrong, a line each; rows of one kind are told together.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def check_store(store: EventStore, kinds: Iterable[type[Record]] = ()) -> StoreCheck:
    """Read a store whole, as of one moment; others may write meanwhile.

    Args:
        store: The store.
        kinds: Kinds of records in its journal besides those of `ratchet.records`.
    """
    found = StoreCheck()
    with _snapshot(store) as connection:
        if connection.dialect.name == "sqlite":
            lines = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars()
            found.problems += [f"the file is damaged: {line}" for line in lines if line != "ok"]
            if found.problems:
                return found  # rows of a damaged file raise errors of any kind
        _check_schema(connection, found)
        _check_rows(connection, INTERACTIONS, row_of_interaction, found)
        _check_rows(connection, FEEDBACK_EVENTS, row_of_feedback, found)
        _check_definitions(connection, found)
        _check_counts(connection, found)
        _check_ids(connection, found)
        _check_journal(connection, found, _kinds(kinds))
    return found


def row_of_interaction(row: Mapping[Any, Any]) -> str:
    """Return the digest that a stored interaction should have."""
    return interaction_row(interaction_record(row)).digest


def row_of_feedback(row: Mapping[Any, Any]) -> str:
    """Return the digest that a stored feedback event should have.

    Raises:
        InvalidInputError: This version knows no such kind.
    """
    if row["kind"] not in BY_NAME:
        raise InvalidInputError(f"a kind of feedback must be known, got {row['kind']!r}")
    return feedback_row(feedback_record(row)).digest


def is_erased(row: Mapping[Any, Any]) -> bool:
    """Tell whether a row is what is left of a user who was forgotten."""
    return row["user_id"] == FORGOTTEN or ERASED in (row.get("text"), row.get("response"))


@dataclass(frozen=True, slots=True)
class Schema:
    """Which migrations a store has had.

    Attributes:
        missing: Those that this version would apply when it opens the store.
        unknown: Those of a later version.
        newest: The time of the row of an interaction that arrived last; None without one.
        histories: The addresses that history of it was written to.
        identity: What tells it from every other store.
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    newest: datetime | None
    histories: frozenset[str] = frozenset()
    identity: str = ""


def read_schema(url: str) -> Schema | None:
    """Look at a store without changing it; None where there is none.

    Raises:
        InvalidInputError: It does not open.
    """
    path = sqlite_path(url)
    if path is not None and not path.exists():
        return None
    with connected(url) as connection:
        if not sa.inspect(connection).has_table(APPLIED.name):
            return None
        applied = set(connection.execute(sa.select(APPLIED.c.name)).scalars())
        newest = connection.execute(
            sa.select(INTERACTIONS.c.received_at).order_by(INTERACTIONS.c.position.desc()).limit(1)
        ).scalar()
        identity = identity_of(connection, APPLIED)
        has_facts = sa.inspect(connection).has_table(FACTS.name)
        histories = read_histories(connection, FACTS) if has_facts else frozenset[str]()
    return Schema(
        missing=tuple(name for name in MIGRATIONS if name not in applied),
        unknown=tuple(sorted(applied - set(MIGRATIONS))),
        newest=None if newest is None else moment_of(newest),
        histories=histories,
        identity=identity,
    )


@contextmanager
def _snapshot(store: EventStore) -> Iterator[sa.Connection]:
    with store.reading() as opened:
        engine = unpooled(opened.engine)
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection


def _check_schema(connection: sa.Connection, found: StoreCheck) -> None:
    try:
        applied = known_migrations(connection)
    except InvalidInputError as error:
        found.problems.append(str(error))
        return
    found.problems += [
        f"the migration {name} was not applied; open the store once: ratchet status"
        for name in MIGRATIONS
        if name not in applied
    ]


def _check_rows(
    connection: sa.Connection,
    table: sa.Table,
    digest_of: Callable[[Mapping[Any, Any]], str],
    found: StoreCheck,
) -> None:
    wrong: list[str] = []
    for rows in read_lists(connection, sa.select(table), ROWS):
        for row in rows:
            found.counts[table.name] += 1
            values = row._mapping
            if is_erased(values):
                found.counts["erased"] += 1
            elif (why := why_wrong(values, digest_of)) is not None:
                wrong.append(f"{values['id']} ({why})")
    found.problems += together(f"of {table.name} are not what was sent", wrong)


def _check_definitions(connection: sa.Connection, found: StoreCheck) -> None:
    wrong: list[str] = []
    for rows in read_lists(connection, sa.select(DEFINITIONS), ROWS):
        for row in rows:
            found.counts["definitions"] += 1
            if digest(row.body) != row.id:
                wrong.append(f"{row.kind} {row.id} (another digest)")
    found.problems += together("of definitions are not what was sent", wrong)


def why_wrong(row: Mapping[Any, Any], digest_of: Callable[[Mapping[Any, Any]], str]) -> str | None:
    """Return why a row is not what its digest says; None where it is."""
    try:
        return None if digest_of(row) == row["digest"] else "another digest"
    except (ValidationError, InvalidInputError, TypeError, ValueError) as error:
        return " ".join(str(error).split())[:120]


def together(what: str, wrong: list[str]) -> list[str]:
    """Return one line about many rows that are wrong, none where none is."""
    if not wrong:
        return []
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return [f"{counted(len(wrong), 'row')} {what}: {', '.join(wrong[:_SHOWN])}{more}"]


def _check_counts(connection: sa.Connection, found: StoreCheck) -> None:
    events = sa.and_(FEEDBACK_EVENTS.c.version_of.is_(None))
    says: dict[str, dict[str, int]] = {
        "feedback": read_counts(connection, COUNTS, "feedback"),
        "set_aside": read_counts(connection, COUNTS, "set_aside"),
    }
    there = {
        "feedback": sa.select(FEEDBACK_EVENTS.c.kind, sa.func.count()).where(events),
        "set_aside": sa.select(SET_ASIDE.c.reason, sa.func.count()),
    }
    for name, query in there.items():
        part = query.selected_columns[0]
        rows = {key: int(count) for key, count in connection.execute(query.group_by(part))}
        found.counts["set_aside"] += sum(rows.values()) if name == "set_aside" else 0
        if rows != says[name]:
            found.problems.append(
                f"the kept counts of {name} say {sum(says[name].values())}, got "
                f"{counted(sum(rows.values()), 'row')}"
            )
    kept = count_interactions(connection, COUNTS, INTERACTIONS)
    if kept != found.counts["interactions"]:
        found.problems.append(
            f"the kept count of interactions says {kept}, got "
            f"{counted(found.counts['interactions'], 'row')}"
        )


def _check_ids(connection: sa.Connection, found: StoreCheck) -> None:
    """On PostgreSQL each row's id lies in a table beside, which says where its row is."""
    if connection.dialect.name != "postgresql":
        return
    for table in PARTITIONED:
        ids = ids_of(table)
        same = "a.id = b.id AND a.created_at = b.created_at AND a.digest = b.digest"
        for one, other, what in ((table, ids, "without an id"), (ids, table, "without a row")):
            lacking = connection.exec_driver_sql(
                f"SELECT count(*) FROM {one} a LEFT JOIN {other} b ON {same} WHERE b.id IS NULL"
            ).scalar_one()
            if lacking:
                found.problems.append(f"{lacking} entries of {one} are {what} in {other}")


def _check_journal(
    connection: sa.Connection, found: StoreCheck, kinds: Mapping[str, type[Record]]
) -> None:
    wrong: list[str] = []
    for rows in read_lists(connection, sa.select(JOURNAL), ROWS):
        for row in rows:
            found.counts["records"] += 1
            kind = kinds.get(row.kind)
            why = "of an unknown kind" if kind is None else _why_not_record(kind, row)
            if why is not None:
                wrong.append(f"{row.kind} {row.id} ({why})")
    found.problems += together("of the journal cannot be read", wrong)


def _why_not_record(kind: type[Record], row: Any) -> str | None:
    try:
        body = kind.model_validate(row.body).canonical()
    except ValidationError as error:
        return " ".join(str(error).split())[:120]
    if str(body["id"]) != row.id:
        return f"its body has the id {body['id']}"
    created = kind.model_validate(row.body).created_at  # type: ignore[attr-defined]
    return None if microseconds(created) == row.created_at else "its body has another time"


def _kinds(others: Iterable[type[Record]]) -> dict[str, type[Record]]:
    known = (getattr(records, name) for name in dir(records))
    found = [kind for kind in known if isinstance(kind, type) and issubclass(kind, Record)]
    return {kind.__name__: kind for kind in (*found, *others)}
