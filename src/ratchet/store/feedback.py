"""Feedback events as rows, and back as records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ratchet.records import FEEDBACK, Feedback, digest
from ratchet.store.tables import FEEDBACK_EVENTS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
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


def feedback_row(feedback: Feedback, now: int) -> dict[str, Any]:
    """Return the row of an event that came in `now`, in microseconds since 1970."""
    number, text = _split_value(feedback)
    return {
        "id": feedback.id,
        "digest": digest(feedback.canonical())[:16],
        "interaction_id": feedback.interaction_id,
        "user_id": feedback.user_id,
        "created_at": (feedback.created_at - _EPOCH) // _MICROSECOND,
        "received_at": now,
        "kind": feedback.kind,
        "number": number,
        "text": text,
    }


def _split_value(feedback: Feedback) -> tuple[float | None, str | None]:
    if feedback.kind in ("comment", "correction"):
        return None, str(feedback.value)
    if feedback.kind == "thumbs":
        return float(feedback.value == "up"), None
    if feedback.kind == "judge_score":
        return feedback.value, feedback.judge_version
    if feedback.kind == "dimension":
        return float(feedback.value), feedback.name
    if feedback.kind == "safety_violation":
        return float(feedback.value), feedback.source
    return float(feedback.value), None
