"""LiteLLM: spend logs of its proxy, as its table or its API `/spend/logs` has them.

Prompts are there where the proxy keeps them (`store_prompts_in_spend_logs: true`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.doors.door import Door, Given, Translation
from ratchet.doors.metadata import texts_of
from ratchet.doors.openai_pairs import interaction_of
from ratchet.doors.times import seconds_between, utc
from ratchet.doors.turns import parsed
from ratchet.errors import InvalidInputError
from ratchet.records.asking import FIRST_TOKEN_SECONDS

NAME = "litellm"
_KEY, _START, _END, _FIRST = "request_id", "startTime", "endTime", "completionStartTime"
_CALLS = ("completion", "text_completion", "responses", "anthropic_messages", "generate_content")
_LABELS = ("custom_llm_provider", "team_id", "cache_hit", "request_tags", "api_base")
_COUNTS = {
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "spend": "cost",
}
_SWITCH = "general_settings: {store_prompts_in_spend_logs: true}"


def _recognises(row: Mapping[str, Any]) -> bool:
    return _KEY in row and _START in row and ("call_type" in row or "spend" in row)


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    kind = str(row.get("call_type") or "acompletion").removeprefix("a")
    if not kind.startswith(_CALLS) and kind not in _CALLS:
        yield Passed("a call that is no chat (embeddings, pictures, sound)")
        return
    sent = parsed(row.get("proxy_server_request"))
    request = dict(sent) if isinstance(sent, Mapping) else {}
    messages, response = parsed(row.get("messages")), parsed(row.get("response"))
    if messages:
        request["messages"] = messages if isinstance(messages, list) else [messages]
    failed = _failure(row)
    if not request.get("messages") and not request.get("input"):
        raise InvalidInputError(
            f"a log must hold what was asked, got no messages; set {_SWITCH} in the proxy's file"
        )
    if not (response or failed):
        raise InvalidInputError(
            f"a log must hold what was answered, got no response; set {_SWITCH} in the proxy's file"
        )
    told = {
        "request_id": row[_KEY],
        "user_id": row.get("end_user") or row.get("user"),
        "session_id": row.get("session_id"),
        "error": failed,
    }
    answer = {**response} if isinstance(response, Mapping) else {}
    answer |= {"id": row[_KEY], "created": None, "created_at": None}
    request.setdefault("model", row.get("model"))
    answer["model"] = row.get("model") or answer.get("model")
    made = dict(interaction_of(told, request, answer, given, NAME))
    made["created_at"] = utc(row.get(_END) or row[_START])
    if (took := seconds_between(row[_START], row.get(_END))) is not None:
        made["latency_seconds"] = took
    made["metadata"] = {**made["metadata"], **_metadata(row)}
    yield made


def _failure(row: Mapping[str, Any]) -> str | None:
    if row.get("status") != "failure":
        return None
    metadata = parsed(row.get("metadata"))
    told = metadata.get("error_information") if isinstance(metadata, Mapping) else None
    said = told.get("error_message") if isinstance(told, Mapping) else None
    return str(said or "the call failed")


def _metadata(row: Mapping[str, Any]) -> dict[str, str]:
    counts = {ours: row.get(theirs) for theirs, ours in _COUNTS.items()}
    first = seconds_between(row[_START], row.get(_FIRST))
    is_stream = first and row.get(_FIRST) != row.get(_END)
    labels = {name: row.get(name) for name in _LABELS}
    return texts_of({**labels, **counts, FIRST_TOKEN_SECONDS: first if is_stream else None})


DOOR = Door(
    name=NAME,
    holds="spend logs of LiteLLM's proxy",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "request_id",
        "session_id": "session_id, else each its own",
        "user_id": "end_user, else user",
        "created_at": "endTime",
        "model_version": "model",
        "messages": "messages, else those of proxy_server_request",
        "response, tool_calls": "response",
        "error": "metadata.error_information, where status is failure",
        "latency_seconds": "endTime - startTime",
        "metadata": "prompt_tokens, completion_tokens, spend, team_id, request_tags and others",
    },
)
