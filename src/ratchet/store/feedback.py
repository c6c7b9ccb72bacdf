"""Feedback events and their versions.

A source that edits feedback in place sends the same id again with a later `updated_at`. The first
version has the event's id; each other one is a row of its own, whose `version_of` is that id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ratchet.records import Feedback, derive_id
from ratchet.store.event_rows import FeedbackRow, feedback_record
from ratchet.store.rows import chunks, one_of
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT


def read_feedback(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Feedback]:
    """Return those of the events with these ids that are stored, by id: the version in effect."""
    events: dict[str, Feedback] = {}
    for chunk in chunks(ids):
        for row in connection.execute(_versions(connection, chunk).order_by(GIVEN_AT)).mappings():
            events[row["version_of"] or row["id"]] = feedback_record(row)
    return events


def name_versions(connection: sa.Connection, rows: Sequence[FeedbackRow]) -> list[FeedbackRow]:
    """Return rows with those that are another version of a stored event named as that version.

    A version is known by its time, `updated_at` or else `created_at`. One that says the same as the
    version in effect is taken for that one, so that a new time alone stores nothing.
    """
    dated = [row.id for row in rows if row.updated_at is not None]
    versions: dict[str, list[tuple[int, str, str]]] = {}
    about: dict[str, tuple[str, str]] = {}
    for chunk in chunks(dict.fromkeys(dated)):
        for stored in connection.execute(_versions(connection, chunk)):
            event = stored.version_of or stored.id
            versions.setdefault(event, []).append((stored.given_at, stored.id, stored.digest))
            about[event] = (stored.kind, stored.interaction_id)
    named = list(rows)
    for place, row in enumerate(rows if dated else ()):
        event, given_at = row.id, row.updated_at
        of_this = (row.kind, row.interaction_id)
        known = versions.setdefault(event, [])
        if given_at is None:
            if about.setdefault(event, of_this) == of_this and not known:
                known.append((row.created_at, event, row.digest))
            continue
        if about.setdefault(event, of_this) != of_this:
            continue  # no version of it but another event: a conflict
        same_time = next((version for version in known if version[0] == given_at), None)
        in_effect = max(known, default=None)
        key = event
        if same_time is not None:
            key = same_time[1]
        elif in_effect is not None and in_effect[0] < given_at and in_effect[2] == row.digest:
            key = in_effect[1]
        elif known:
            key = derive_id("feedback version", event, given_at)
        if key != event:
            named[place] = row._replace(id=key, version_of=event)
        if same_time is None:
            known.append((given_at, key, row.digest))
    return named


def _versions(connection: sa.Connection, ids: Sequence[str]) -> sa.Select[Any]:
    """Select all versions of the events with these ids, with the time of each."""
    columns = FEEDBACK_EVENTS.c
    about = sa.or_(
        *(one_of(connection, column, ids) for column in (columns.id, columns.version_of))
    )
    return sa.select(FEEDBACK_EVENTS, GIVEN_AT.label("given_at")).where(about)
