"""Reading feedback events back as records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ratchet.records import FEEDBACK, Feedback
from ratchet.store.tables import FEEDBACK_EVENTS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK = 500
_BOOLEANS = ("copy", "regenerate", "task_completed", "safety_violation")


def read_feedback(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Feedback]:
    """Return those of the events with these ids that are stored, by id."""
    found: dict[str, Feedback] = {}
    for start in range(0, len(ids), _CHUNK):
        chunk = list(ids[start : start + _CHUNK])
        query = sa.select(FEEDBACK_EVENTS).where(FEEDBACK_EVENTS.c.id.in_(chunk))
        for row in connection.execute(query).mappings():
            found[row["id"]] = _feedback(row)
    return found


def _feedback(row: sa.RowMapping) -> Feedback:
    kind, number, text = row["kind"], row["number"], row["text"]
    values: dict[str, Any] = {
        "id": row["id"],
        "interaction_id": row["interaction_id"],
        "user_id": row["user_id"],
        "created_at": _EPOCH + timedelta(microseconds=row["created_at"]),
        "kind": kind,
        "value": number,
    }
    if kind in ("comment", "correction"):
        values["value"] = text
    elif kind == "thumbs":
        values["value"] = "up" if number else "down"
    elif kind in ("stars", "dimension"):
        values["value"] = int(number)
    elif kind in _BOOLEANS:
        values["value"] = bool(number)
    if kind == "judge_score":
        values["judge_version"] = text
    if kind == "dimension":
        values["name"] = text
    if kind == "safety_violation":
        values["source"] = text
    return FEEDBACK.validate_python(values)
