"""The rows of a source as events, each with its place, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ratchet.collect.batches import Passed, Translated
from ratchet.collect.ingest import rows_of_events
from ratchet.collect.rejecting import RAW_CHARACTERS, whose
from ratchet.collect.turns import TurnReader
from ratchet.doors.door import OTHER, PLACE, Door, Given, Refused
from ratchet.doors.known import door_named
from ratchet.doors.sources import SourceFile, opened
from ratchet.doors.times import instant
from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row, read_rows
from ratchet.files.text import printable
from ratchet.records import SetAside, derive_id
from ratchet.store.foreign_tables import rows_of_table

TOO_OLD = "older than --since"
USER_KEYS = ("user_id", "userId", "end_user", "user")
"""Under which names tools say who asked."""


def rows_of_source(
    files: Sequence[SourceFile], door: str, given: Given, since: datetime | None, now: datetime
) -> Iterator[tuple[str, object]]:
    """Yield what the rows of files become, as `ratchet.collect.ingest` takes it.

    Args:
        files: They are read in this order.
        door: Name of the door.
        given: What its translator is told.
        since: Events before that are passed over.
        now: Time that the set-aside rows carry.

    Raises:
        InvalidInputError: A file cannot be read.
    """
    through = door_named(door)
    for file in files:
        told = replace(given, at=file.at or now)
        rows = _rows_of(file, through)
        placed = (_placed(row, file.name) for row in rows) if file.name else rows
        yield from events_of(placed, through, told, since, now)


def _rows_of(file: SourceFile, door: Door) -> Iterator[Row]:
    """Yield the rows of a file, or a table, as they are."""
    if file.is_table:
        for number, fields in enumerate(rows_of_table(file.address), start=1):
            yield Row(number, number, f"row {number}", 1, fields, None, None, "parquet")
        return
    with opened(file) as path:
        if door.translate is None:
            yield from (row for _, row in rows_of_events(path))
            return
        with read_rows(path, finite=True, may_be_empty=True) as rows:
            yield from rows


def events_of(
    rows: Iterable[Row], door: Door, given: Given, since: datetime | None, now: datetime
) -> Iterator[tuple[str, object]]:
    """Yield what rows become. See `rows_of_source`."""
    for row in rows:
        if door.translate is None:
            is_old = since is not None and row.problem is None and _is_before(row.fields, since)
            yield row.position, Passed(TOO_OLD) if is_old else row
            continue
        raw, size = _text_of(row)
        try:
            fields = row.given(as_json=door.as_json)
            for made in door.translate(fields, given):
                if isinstance(made, Passed):
                    yield row.position, made
                elif isinstance(made, Refused):
                    yield _set_aside(row, made, given.source, now)
                elif since is not None and _is_before(made, since):
                    yield row.position, Passed(TOO_OLD)
                else:
                    yield _translated(row, raw, size, dict(made))
        except InvalidInputError as error:
            yield _set_aside(row, Refused(str(error)), given.source, now)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            reason = (
                f"a row of {door.name} must have the shape that {door.name} writes, got "
                f"{type(error).__name__}: {printable(str(error), 80)}; check the export"
            )
            yield _set_aside(row, Refused(reason), given.source, now)


def _text_of(row: Row) -> tuple[str, int]:
    """Return the beginning of a row's text, and how long it is about."""
    if row.raw is not None:
        return row.raw[: RAW_CHARACTERS + 1], len(row.raw)
    texts = (value for value in row.fields.values() if isinstance(value, str))
    return repr(row.fields)[: RAW_CHARACTERS + 1], sum(map(len, texts))


def _translated(row: Row, raw: str, size: int, fields: dict[str, Any]) -> tuple[str, Translated]:
    other, place = fields.pop(OTHER, None), fields.pop(PLACE, "")
    if "messages" in fields:
        _make_storable(fields)
    position = f"{row.position}, {place}" if place else row.position
    made = Row(row.number, row.place, position, row.lines, fields, raw, None, "json")
    names = (other,) if isinstance(other, str) else tuple(other or ())
    return position, Translated(made, size, names)


def _make_storable(fields: dict[str, Any]) -> None:
    """Write turns as the gateway records them: no bytes, nothing that the store cannot hold."""
    reader = TurnReader()
    fields["messages"] = reader.turns(fields["messages"])
    fields["response"] = reader.text(fields.get("response") or "")
    if reader.notes:
        fields["metadata"] = {**fields.get("metadata", {}), **reader.notes}


def _set_aside(row: Row, why: Refused, source: str, now: datetime) -> tuple[str, SetAside]:
    position = f"{row.position}, {why.place}" if why.place else row.position
    received, shown = row.received, printable(source, RAW_CHARACTERS)
    rejected = SetAside(
        id=derive_id(shown, position, why.reason, received),
        created_at=now,
        source=shown,
        position=position,
        reason=why.reason,
        raw=received,
        **_whose(row),
    )
    return position, rejected


def _whose(row: Row) -> dict[str, str | None]:
    """Return whom a row names, so that forgetting a user finds it."""
    names = whose(row)
    if names.get("user_id") is None:
        found = next((row.fields[key] for key in USER_KEYS if row.fields.get(key)), None)
        if isinstance(found, str | int):
            return {**names, "user_id": str(found)[:200]}
    return names


def _placed(row: Row, name: str) -> Row:
    return row._replace(position=f"{name}, {row.position}")


def _is_before(fields: Any, since: datetime) -> bool:
    """Tell whether an event is older; what has no time that can be read is not."""
    at = instant(fields.get("updated_at") or fields.get("created_at"))
    return at is not None and at < since
