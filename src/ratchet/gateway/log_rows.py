"""What becomes of lines of the log: events for the store, or rows set aside with their reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from ratchet.collect.batches import Translated
from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row
from ratchet.gateway.log_lines import Entry, LogKind
from ratchet.records import Definition, Interaction, SetAside, derive_id
from ratchet.records.events import DEFINITION_KINDS, ORIGIN, SIMULATED
from ratchet.store import EventStore
from ratchet.store.naming import named_in, names_of
from ratchet.store.rows import microseconds

SOURCE = "gateway"
OTHER_NAMES = "other_names"
"""Key in a translated event: other names by which feedback may refer to the answer."""
_RAW_CHARACTERS = 2_000
_LAST_NS = 4_000_000_000 * 10**9
"""The year 2096: what is later was no time."""


def arrival(entry: Entry) -> datetime:
    """Return when a line was appended; 1970 where it does not say."""
    return datetime.fromtimestamp(min(entry.received_ns, _LAST_NS) / 1e9, UTC)


def rows_of(entries: Sequence[Entry], store: EventStore) -> list[object]:
    """Return what `ingest` reads; feedback without a time gets that of its first arrival.

    A body that is no event stays as it is: `ingest` sets it aside.
    """
    rows: list[object] = [entry.body for entry in entries]
    untimed = {
        number: row
        for number, entry in enumerate(entries)
        if entry.kind is LogKind.UNTIMED_FEEDBACK and (row := _object(entry.body)) is not None
    }
    stored = store.stored_feedback([row["id"] for row in untimed.values()])
    first = {key: event.created_at for key, event in stored.items()}
    for number, row in untimed.items():
        moment = arrival(entries[number])
        rows[number] = row | {"created_at": first.setdefault(row["id"], moment)}
    return rows


def simulated_answer(entry: Entry) -> Interaction | None:
    """Return an answer whose application says that its user is simulated; None of any other line.

    One that breaks a rule is none: `ingest` sets it aside.
    """
    if entry.kind is not LogKind.INTERACTION or ORIGIN.encode() not in entry.body:
        return None
    try:
        found = Interaction.model_validate_json(entry.body)
    except ValidationError:
        return None
    return found if found.metadata.get(ORIGIN) == SIMULATED else None


def definition_of(entry: Entry, store: EventStore) -> Definition | None:
    """Return what a line defines; None of documents that were found for a forgotten user.

    Raises:
        InvalidInputError: It is no definition.
    """
    row = _object(entry.body)
    if row is None or row.get("kind") not in DEFINITION_KINDS:
        raise InvalidInputError("a definition must be an object with id, kind and body")
    try:
        found = Definition.of(row["kind"], row["body"])
    except (KeyError, ValueError) as error:
        raise InvalidInputError("a definition must have a body that the store can hold") from error
    user, about = (row.get(name) for name in ("user_id", "interaction_id"))
    if isinstance(user, str) and isinstance(about, str):
        known = store.forgotten({user}, {about})
        if known.covers(user, about, microseconds(arrival(entry))):
            return None
    return found


def translated_of(entry: Entry) -> object:
    """Return an event that came in another form as `ingest_placed` takes it."""
    try:
        fields = from_json(entry.body)
    except ValueError:
        return entry.body
    if not isinstance(fields, dict):
        return entry.body
    names = fields.pop(OTHER_NAMES, [])
    others = tuple(name for name in names if isinstance(name, str))
    where = f"{entry.segment} at {entry.start}"
    raw = entry.body[: _RAW_CHARACTERS + 1].decode("utf-8", "replace")
    return Translated(Row(0, 0, where, 1, fields, raw, None, "json"), len(entry.body), others)


def set_aside_of(entry: Entry, now: datetime) -> SetAside:
    """Return a row that was set aside when it came."""
    try:
        return SetAside.model_validate_json(entry.body)
    except ValidationError:
        return unusable(entry, "a row that was set aside must be written as one", now)


def set_aside_refused(entry: Entry, now: datetime) -> SetAside:
    """Return a refused request as it is kept: apart, so that it counts against no version."""
    row = _object(entry.body)
    if row is None or not isinstance(row.get("reason"), str):
        return unusable(entry, "a refused request must be an object with id and reason", now)
    where = f"{entry.segment} at {entry.start}"
    return SetAside(
        id=derive_id(SOURCE, where, row["id"]),
        created_at=arrival(entry),
        source=SOURCE,
        position=row["id"],
        reason=f"a request must be one that the backend takes, got {row.pop('reason')}",
        raw=json.dumps(row)[:_RAW_CHARACTERS],
        **names_of(row),
    )


def unusable(entry: Entry, reason: str, now: datetime) -> SetAside:
    """Return a line that cannot be used as it is kept."""
    where = f"{entry.segment} at {entry.start}"
    return SetAside(
        id=derive_id(SOURCE, where, reason),
        created_at=arrival(entry) if entry.received_ns else now,
        source=SOURCE,
        position=where,
        reason=reason,
        raw=entry.body.decode("utf-8", "replace").replace("\x00", "\ufffd")[:_RAW_CHARACTERS],
        **named_in(entry.body.decode("utf-8", "replace")),
    )


def _object(body: bytes) -> dict[str, Any] | None:
    """Return the object that a body holds, with an id of text; None where it holds none."""
    try:
        row = from_json(body)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None
