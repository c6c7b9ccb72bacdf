"""Bring in what a server hands out page by page, and go on where that ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ratchet.collect.ingest import ingest_placed
from ratchet.collect.recognising import Recogniser
from ratchet.collect.rejecting import RAW_CHARACTERS
from ratchet.collect.report import IngestReport
from ratchet.doors.door import Door, Given
from ratchet.doors.rows import events_of
from ratchet.files.rows import Row
from ratchet.records import digest
from ratchet.store import EventStore
from ratchet.store.cursors import keep_cursors, read_cursors

LOOKED_BACK = timedelta(days=7)
"""Feedback on an answer may come so long after it: such answers are read again."""


def reached(store: EventStore, door: Door, source: str) -> datetime | None:
    """Return from when on a source is to be read; None for all of it."""
    kept = read_cursors(store, [_key(door, source)])
    return datetime.fromisoformat(next(iter(kept.values()))) - LOOKED_BACK if kept else None


def store_pages(
    pages: Iterable[tuple[Sequence[Mapping[str, Any]], datetime]],
    door: Door,
    source: str,
    given: Given,
    store: EventStore,
    *,
    known: Recogniser,
    now: datetime,
) -> Iterator[IngestReport]:
    """Store pages of rows; yield what each brought, and keep up to where they go.

    Args:
        pages: Rows, and the time of the last one.
        door: Their format.
        source: The server and what of it, by which is known where to go on.
        given: What the translator is told.
        store: Where the events go.
        known: Knows answers again.
        now: The time.
    """
    key = _key(door, source)
    for rows, last in pages:
        placed = events_of(map(_row, rows), door, given, None, now)
        yield ingest_placed(placed, store, source=given.source, now=now, known=known)
        before = read_cursors(store, [key]).get(key)
        if before is None or datetime.fromisoformat(before) < last:
            keep_cursors(store, {key: last.isoformat()})


def _row(fields: Mapping[str, Any]) -> Row:
    info = fields.get("info")
    name = info.get("trace_id") if isinstance(info, Mapping) else None
    raw = json.dumps(fields, default=str)[: RAW_CHARACTERS + 1]
    return Row(0, 0, f"trace {name}", 1, fields, raw, None, "json")


def _key(door: Door, source: str) -> str:
    return digest([door.name, source])
