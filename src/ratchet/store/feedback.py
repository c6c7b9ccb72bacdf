"""Feedback events as rows, and back as records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ratchet.records import FEEDBACK, Feedback, digest
from ratchet.records.signals import BY_NAME, Value
from ratchet.store.tables import FEEDBACK_EVENTS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CHUNK = 500


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
    signal = BY_NAME[row["kind"]]
    values: dict[str, Any] = {
        "id": row["id"],
        "interaction_id": row["interaction_id"],
        "user_id": row["user_id"],
        "created_at": _EPOCH + timedelta(microseconds=row["created_at"]),
        "kind": signal.name,
        "value": _value(signal.value, row["number"], row["text"]),
    }
    if signal.detail is not None:
        values[signal.detail] = row["text"]
    return FEEDBACK.validate_python(values)


def _value(kind: Value, number: float, text: str) -> object:
    if kind == "text":
        return text
    if kind == "thumb":
        return "up" if number else "down"
    return {"boolean": bool, "integer": int, "number": float}[kind](number)


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
    """Return a value as the columns `number` and `text`."""
    signal = BY_NAME[feedback.kind]
    if signal.value == "text":
        return None, str(feedback.value)
    number = feedback.value == "up" if signal.value == "thumb" else feedback.value
    detail = getattr(feedback, signal.detail) if signal.detail else None
    return float(number), detail
