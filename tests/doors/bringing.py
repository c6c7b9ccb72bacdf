"""Bring a file of another tool into an empty store, and look at what became of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport
from ratchet.doors.importing import prepare, store_import
from ratchet.doors.mapping import ImportMap
from ratchet.records import Feedback, Interaction
from ratchet.store import EventStore
from ratchet.store.tables import FEEDBACK_EVENTS, INTERACTIONS

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@cache
def _empty() -> bytes:
    """Return an empty store, whose making takes longer than all that these tests put into one."""
    with TemporaryDirectory() as folder:
        EventStore.open(f"sqlite:///{folder}/store.db", clock=lambda: NOW)
        with closing(sqlite3.connect(f"{folder}/store.db")) as connection:
            return connection.serialize()


def new_store(folder: Path) -> EventStore:
    folder.mkdir(exist_ok=True)
    (folder / "store.db").write_bytes(_empty())
    return EventStore.open(f"sqlite:///{folder}/store.db", clock=lambda: NOW)


def bring(
    source: Path | str,
    store: EventStore,
    *,
    as_format: str | None = None,
    mapping: dict[str, Any] | None = None,
    since: datetime | None = None,
    now: datetime = NOW,
) -> IngestReport:
    what = prepare(
        str(source),
        now=now,
        as_format=as_format,
        mapping=ImportMap.model_validate(mapping) if mapping else None,
        since=since,
    )
    return store_import(what, store, known=Recogniser(store))


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def answers(store: EventStore) -> list[Interaction]:
    """Return what is stored, in the order of arrival."""
    with store.reading() as connection:
        ids = connection.execute(INTERACTIONS.select().order_by(INTERACTIONS.c.position))
        keys = [row.id for row in ids]
    found = store.stored_interactions(keys)
    return [found[key] for key in keys]


def said(store: EventStore) -> list[tuple[str, str, Any]]:
    """Return each piece of feedback in effect: the answer that it is about, kind, value."""
    with store.reading() as connection:
        rows = connection.execute(FEEDBACK_EVENTS.select().order_by(FEEDBACK_EVENTS.c.position))
        keys = [row.id for row in rows if row.version_of is None]
    by_id = {item.id: item.response for item in answers(store)}
    events: list[Feedback] = [store.stored_feedback([key])[key] for key in keys]
    return [(by_id.get(one.interaction_id, "?"), one.kind, one.value) for one in events]
