"""Interactions and feedback: every row that the store ever took, those of history too.

| kind | a row | back again |
|---|---|---|
| interactions | one turn with everything stored | `ratchet ingest interactions.jsonl` |
| feedback | one version of one event | `ratchet ingest feedback.jsonl` |

In JSON Lines a row is the record as `ratchet ingest` takes it. In a table it has `received_at`
besides, and an interaction says in `training_consent` and `retain_until` what its user allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from ratchet.export.grammar import Request
from ratchet.export.parts import ROWS, Part, Tally, batches_of, moment_text
from ratchet.export.redacting import Texts, pseudonym, redact_values, texts_redactor
from ratchet.records import Interaction, Message, last_said, with_conversations_changed
from ratchet.records.events import DEFINITION_KINDS
from ratchet.records.signals import BY_NAME, TEXT_KINDS
from ratchet.store import EventStore
from ratchet.store.event_rows import feedback_record
from ratchet.store.history import History
from ratchet.store.history.every_row import Chosen, every_row
from ratchet.store.history.writing import identity_of
from ratchet.store.permissions import CONSENT, RETAIN
from ratchet.store.rows import microseconds

_JSON = ("messages", "metadata", "tool_calls")
_UNKNOWN_KIND = "its kind of feedback is not known to this version of Ratchet"
_HASH_BYTES = 8
_STRUCTURE = ("name", "type", "format", "required", "$ref", "$schema")
"""Under these names stands what a tool or a form is made of, and no words about anybody."""


def interactions(store: EventStore, history: History, request: Request, tally: Tally) -> Part:
    """Return the chosen interactions as a part."""
    import pyarrow as pa

    text, moment = pa.string(), pa.timestamp("us", "UTC")
    kinds = {"created_at": moment, "received_at": moment, "latency_seconds": pa.float64()}
    names = (*Interaction.model_fields, "prompt", "received_at", CONSENT, RETAIN)
    schema = pa.schema([(name, kinds.get(name, text)) for name in names])
    redact = texts_redactor(tally) if request.redacts else None
    salt = identity_of(store) if redact else ""
    rows = (
        row
        for batch in every_row(store, history, "interactions", _chosen(request))
        for row in _turns(_with_definitions(store, batch.to_pylist()), redact, salt)
    )
    return Part("interactions", schema, batches_of(rows, schema), _turn_line, "Interactions")


def feedback(store: EventStore, history: History, request: Request, tally: Tally) -> Part:
    """Return the chosen feedback events with all their versions as a part."""
    import pyarrow as pa

    moment = pa.timestamp("us", "UTC")
    kinds = {
        "created_at": moment, "updated_at": moment, "received_at": moment, "number": pa.float64(),
    }  # fmt: skip
    names = (
        "id", "interaction_id", "user_id", "created_at", "updated_at", "received_at", "kind",
        "value", "number", "text", "event",
    )  # fmt: skip
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    redact = texts_redactor(tally) if request.redacts else None
    salt = identity_of(store) if redact else ""
    about = _ids_of_chosen(store, history, request)
    spoken = Chosen(since=request.since, until=request.until)
    rows = (
        row
        for batch in every_row(store, history, "feedback", spoken)
        for row in _opinions(batch.to_pylist(), about, redact, salt, tally)
    )
    return Part("feedback", schema, batches_of(rows, schema), _opinion_line, "Feedback")


def _chosen(request: Request) -> Chosen:
    return Chosen(request.since, request.until, request.model_version, request.segment)


def _turns(rows: list[dict[str, Any]], redact: Texts | None, salt: str) -> list[dict[str, Any]]:
    for row in rows:
        for name in _JSON:
            row[name] = row[name] and json.loads(row[name])
        row |= {name: row["metadata"].get(name) for name in (CONSENT, RETAIN)}
    for start in range(0, len(rows) if redact else 0, ROWS):
        part = rows[start : start + ROWS]
        assert redact is not None
        _redact_turns(part, redact)
        redact_values(part, ["error", "metadata"], redact)
        for row in part:
            row |= {name: pseudonym(salt, row[name]) for name in ("user_id", "session_id")}
    kept = (*Interaction.model_fields, "prompt", "received_at", CONSENT, RETAIN)
    return [{name: row[name] for name in kept} for row in rows]


def _redact_turns(rows: list[dict[str, Any]], redact: Texts) -> None:
    """Take personal data out of conversations, answers, documents, and what tools are said to do.

    The application's instructions stay as they are.
    """
    said = [(*map(Message.model_validate, row["messages"]), _answer_of(row)) for row in rows]
    for row, turns in zip(rows, with_conversations_changed(said, redact), strict=True):
        *messages, answer = (turn.canonical() for turn in turns)
        row |= {"messages": messages, "prompt": last_said(turns[:-1])}
        row["response"] = answer.get("content") or ""
        row |= {name: answer[name] for name in ("tool_calls", "refusal") if name in answer}
    for name in DEFINITION_KINDS:
        bodies = [row for row in rows if _is_body(name, row[name])]
        for row in bodies:
            row[name] = json.loads(row[name])
        redact_values(bodies, [name], redact, keep=() if name == "documents" else _STRUCTURE)
        for row in bodies:
            row[name] = json.dumps(row[name], ensure_ascii=False)


def _answer_of(row: dict[str, Any]) -> Message:
    more = {name: row.get(name) for name in ("tool_calls", "refusal")}
    return Message.model_validate({"role": "assistant", "content": row["response"]} | more)


def _with_definitions(store: EventStore, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with what they refer to; what is there no longer stays a digest."""
    wanted = {row[name] for row in rows for name in DEFINITION_KINDS if row[name] is not None}
    found = store.definitions(wanted) if wanted else {}
    for row in rows if found else ():
        for name in DEFINITION_KINDS:
            if row[name] in found:
                row[name] = json.dumps(found[row[name]].body, ensure_ascii=False)
    return rows


def _turn_line(row: dict[str, Any]) -> dict[str, Any]:
    fields = {name: moment_text(row[name]) for name in Interaction.model_fields}
    return {
        name: json.loads(value) if name in _JSON or _is_body(name, value) else value
        for name, value in fields.items()
        if value is not None
    }


def _is_body(name: str, value: object) -> bool:
    return name in DEFINITION_KINDS and isinstance(value, str) and value[:1] in ("[", "{")


def _opinions(
    rows: list[dict[str, Any]],
    about: np.ndarray[Any, Any] | None,
    redact: Texts | None,
    salt: str,
    tally: Tally,
) -> Iterator[dict[str, Any]]:
    if about is not None:
        hashes = _hashes([row["interaction_id"] for row in rows])
        rows = [row for row, is_in in zip(rows, np.isin(hashes, about), strict=True) if is_in]
    known = [row for row in rows if row["kind"] in BY_NAME]
    if len(known) < len(rows):
        tally.left_out[_UNKNOWN_KIND] += len(rows) - len(known)
    if redact is not None and known:
        redact_values([row for row in known if row["kind"] in TEXT_KINDS], ["text"], redact)
        for row in known:
            row["user_id"] = pseudonym(salt, row["user_id"])
    for row in known:
        stored = row | {
            name: None if row[name] is None else microseconds(row[name])
            for name in ("created_at", "updated_at")
        }
        record = feedback_record(stored)
        shown = ("interaction_id", "user_id", "created_at", "updated_at", "received_at", "kind",
                 "number", "text")  # fmt: skip
        event = record.model_dump(mode="json")
        yield {name: row[name] for name in shown} | {
            "id": record.id,
            "value": json.dumps(event["value"], ensure_ascii=False),
            "event": json.dumps(event, ensure_ascii=False),
        }


def _opinion_line(row: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(row["event"])
    return {name: value for name, value in event.items() if value is not None}


def _ids_of_chosen(
    store: EventStore, history: History, request: Request
) -> np.ndarray[Any, Any] | None:
    """Return hashes of the ids of the interactions of a version or segment; None for all.

    Eight bytes an interaction: of ten million two share one with a chance of one in 400,000.
    """
    if request.model_version is None and request.segment is None:
        return None
    of_these = Chosen(model_version=request.model_version, segment=request.segment)
    parts = [
        _hashes(batch["id"].to_pylist())
        for batch in every_row(store, history, "interactions", of_these)
    ]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def _hashes(ids: list[str]) -> np.ndarray[Any, Any]:
    made = (hashlib.blake2b(key.encode(), digest_size=_HASH_BYTES).digest() for key in ids)
    return np.frombuffer(b"".join(made), np.uint64)
