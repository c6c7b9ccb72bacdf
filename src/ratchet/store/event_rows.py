"""Interactions and feedback as rows of their tables, ready for the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ratchet.records import FEEDBACK, Feedback, Interaction, digest
from ratchet.records.signal import Value
from ratchet.records.signals import BY_NAME
from ratchet.store.rows import microseconds, moment_of

DIGEST_CHARACTERS = 16
_FIELDS = tuple(Interaction.model_fields)


class InteractionRow(NamedTuple):
    """An interaction as it is stored, but for its arrival: times in microseconds since 1970.

    Attributes:
        digest: The first 16 hex digits of the SHA-256 of the record in canonical form.
        prompt: The last thing the user said.
        messages: JSON, as are `metadata` and `tool_calls`.
    """

    id: str
    digest: str
    session_id: str
    user_id: str
    created_at: int
    model_version: str
    segment: str
    prompt: str
    messages: str
    response: str
    latency_seconds: float | None
    error: str | None
    metadata: str
    tool_calls: str | None = None
    refusal: str | None = None
    tools: str | None = None
    response_format: str | None = None
    documents: str | None = None
    continues: str | None = None


class FeedbackRow(NamedTuple):
    """A feedback event as it is stored, but for its arrival. See `InteractionRow`.

    Attributes:
        digest: Of the record without `updated_at`.
        version_of: The event that this is another version of; see `ratchet.store.feedback`.
    """

    id: str
    digest: str
    interaction_id: str
    user_id: str | None
    created_at: int
    kind: str
    number: float | None
    text: str | None
    updated_at: int | None
    version_of: str | None = None


def interaction_row(interaction: Interaction) -> InteractionRow:
    """Return the row of an interaction."""
    body = interaction.canonical()
    return InteractionRow(
        id=interaction.id,
        digest=digest(body)[:DIGEST_CHARACTERS],
        session_id=interaction.session_id,
        user_id=interaction.user_id,
        created_at=microseconds(interaction.created_at),
        model_version=interaction.model_version,
        segment=interaction.segment,
        prompt=interaction.prompt,
        messages=json.dumps(body["messages"]),
        response=interaction.response,
        latency_seconds=interaction.latency_seconds,
        error=interaction.error,
        metadata=json.dumps(body["metadata"]),
        tool_calls=json.dumps(body["tool_calls"]) if interaction.tool_calls else None,
        refusal=interaction.refusal,
        tools=interaction.tools,
        response_format=interaction.response_format,
        documents=interaction.documents,
        continues=interaction.continues,
    )


def has_content_of(row: InteractionRow | FeedbackRow, stored: str) -> bool:
    """Tell whether a row has the content of a stored one, by the stored one's digest.

    What an answer continues may be known to one log and not to another, or to a later version of
    Ratchet alone: a row that names it is the same as one that does not.
    """
    if row.digest == stored:
        return True
    if not isinstance(row, InteractionRow) or row.continues is None:
        return False
    values = row._asdict() | {"continues": None}
    for name in ("messages", "metadata", "tool_calls"):
        values[name] = values[name] and json.loads(values[name])
    without = interaction_record(values)
    return digest(without.canonical())[:DIGEST_CHARACTERS] == stored


def interaction_record(row: Mapping[Any, Any]) -> Interaction:
    """Return the interaction of a stored row, by the names of its columns."""
    values = {name: value for name in _FIELDS if (value := row[name]) is not None}
    values["created_at"] = moment_of(values["created_at"])
    return Interaction.model_validate(values)


def feedback_row(feedback: Feedback) -> FeedbackRow:
    """Return the row of an event."""
    signal = BY_NAME[feedback.kind]
    detail = getattr(feedback, signal.detail) if signal.detail else None
    number, text = split_value(signal.value, feedback.value, detail)
    body = feedback.model_dump(mode="json", exclude={"updated_at"})
    updated = feedback.updated_at
    return FeedbackRow(
        id=feedback.id,
        digest=digest(body)[:DIGEST_CHARACTERS],
        interaction_id=feedback.interaction_id,
        user_id=feedback.user_id,
        created_at=microseconds(feedback.created_at),
        kind=feedback.kind,
        number=number,
        text=text,
        updated_at=None if updated is None else microseconds(updated),
    )


def feedback_record(row: Mapping[Any, Any]) -> Feedback:
    """Return the event of a stored row, by the names of its columns."""
    signal = BY_NAME[row["kind"]]
    values: dict[str, Any] = {
        "id": row["version_of"] or row["id"],
        "interaction_id": row["interaction_id"],
        "user_id": row["user_id"],
        "created_at": moment_of(row["created_at"]),
        "updated_at": None if row["updated_at"] is None else moment_of(row["updated_at"]),
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


def split_value(kind: Value, value: object, detail: str | None) -> tuple[float | None, str | None]:
    """Return a value as the columns `number` and `text`.

    Args:
        kind: The type of the signal's value.
        value: It.
        detail: What its record holds beside it.
    """
    if kind == "text":
        return None, str(value)
    number = value == "up" if kind == "thumb" else value
    return float(number), detail  # type: ignore[arg-type]  # the record's type is a number's
