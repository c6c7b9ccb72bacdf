"""Requests and responses of OpenAI's API in pairs: logs of a proxy, of vLLM, files of a batch.

| row | holds |
|---|---|
| a pair | `request` (or `body`) and `response`, of chat completions, completions or responses |
| a batch's output | `custom_id` and `response.body`; its question stands in the batch's input |
| a batch's input | `custom_id`, `url` and `body` |
| a completion that was stored | a completion's fields beside its `messages` |

Lines of a batch's output find their questions among the input's lines where these come before them,
in the same file or folder; a line that does not is set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.collect.response_items import as_chat, error_of, message_of, reason_of
from ratchet.collect.turns import TurnReader
from ratchet.doors.door import UNKNOWN_MODEL, UNKNOWN_USER, Door, Given, Translation, door_id
from ratchet.doors.metadata import texts_of
from ratchet.doors.times import utc
from ratchet.doors.turns import parsed
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.records import digest
from ratchet.records.asking import FINISH_REASON, reported_usage, sampling_of

NAME = "openai"
_REQUESTS = ("request", "body", "request_body", "kwargs", "input")
_RESPONSES = ("response", "response_body", "completion", "output")
_CUSTOM_ID = "custom_id"
_TIMES = ("created_at", "timestamp", "time", "start_time", "startTime", "ts")
_USERS = ("user_id", "user", "end_user", "safety_identifier")
_SESSIONS = ("session_id", "conversation_id", "thread_id")
_OBJECTS = ("chat.completion", "text_completion", "response")


def _recognises(row: Mapping[str, Any]) -> bool:
    if _CUSTOM_ID in row:
        return "response" in row or ("body" in row and "url" in row)
    if "messages" in row and "choices" in row:
        return True
    request, response = _first(row, _REQUESTS), _first(row, _RESPONSES)
    asked = isinstance(request, Mapping) and any(
        name in request for name in ("messages", "prompt", "input")
    )
    told = isinstance(response, Mapping) and ("choices" in response or "output" in response)
    return asked and (told or "error" in row)


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    key = row.get(_CUSTOM_ID)
    if key is not None and "response" not in row:
        given.kept[str(key)] = row["body"]
        yield Passed("a question of a batch, whose answer is in the batch's output")
        return
    request, response = _first(row, _REQUESTS), _first(row, _RESPONSES)
    if key is not None:
        request = request or given.kept.get(str(key))
        response = _body_of_batch(response)
    elif "messages" in row and "choices" in row:
        request = response = row
    if not isinstance(request, Mapping):
        raise InvalidInputError(
            f"a response must have its request, got {printable(str(key), 40)!r} without one; "
            "import the batch's input with it, as one folder"
        )
    yield interaction_of(row, request, response if isinstance(response, Mapping) else {}, given)


def _body_of_batch(response: Any) -> Any:
    if isinstance(response, Mapping) and "body" in response:
        return response["body"]
    return response


def interaction_of(
    row: Mapping[str, Any],
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    given: Given,
    door: str = NAME,
) -> Mapping[str, Any]:
    """Return the interaction that a request and its response are.

    Args:
        row: What stands beside both: ids, user, session, error.
        request: The body of a chat completion, a completion or a response.
        response: The body of the answer; empty where there is none.
        given: What the translator is told.
        door: Name of the door, which begins the id.

    Raises:
        InvalidInputError: The request asks nothing, or nothing answers it.
    """
    is_items = "output" in response or ("messages" not in request and "input" in request)
    chat = as_chat(request) if is_items else dict(request)
    said, reason = _answer(response, is_items)
    error = _error(row, response, is_items)
    answer = TurnReader().answer(said)
    at = response.get("created") or response.get("created_at") or _first(row, _TIMES)
    made: dict[str, Any] = {
        "id": door_id(door, _key(row, request, response)),
        "user_id": str(_first({**chat, **row}, _USERS) or UNKNOWN_USER),
        "created_at": utc(at) if at else given.at,
        "model_version": str(response.get("model") or chat.get("model") or UNKNOWN_MODEL),
        "messages": _asked(chat),
        "response": answer.text,
        "metadata": {
            **texts_of(chat.get("metadata")),
            **answer.beside,
            **sampling_of(chat),
            **reported_usage(response.get("usage")),
            **({FINISH_REASON: reason} if reason else {}),
        },
    }
    made["session_id"] = str(_first({**made["metadata"], **row}, _SESSIONS) or made["id"])
    calls = {"tool_calls": list(answer.tool_calls), "refusal": answer.refusal, "error": error}
    made |= {name: value for name, value in calls.items() if value}
    made |= {name: chat[name] for name in ("tools", "response_format") if chat.get(name)}
    took = row.get("latency_seconds", row.get("duration_seconds"))
    if not (answer.text or calls["tool_calls"] or answer.refusal or error):
        raise InvalidInputError(
            "a response must have words, calls, a refusal or an error, got "
            f"{printable(repr(dict(response)), 80)}; leave it out"
        )
    return made if took is None else made | {"latency_seconds": took}


def _asked(chat: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = chat.get("messages")
    if isinstance(messages, list) and messages:
        return messages
    prompt = chat.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return [{"role": "user", "content": prompt}]
    raise InvalidInputError(
        f"a request must have messages, a prompt or input, got {printable(repr(dict(chat)), 80)}; "
        "leave out what is no question"
    )


def _answer(response: Mapping[str, Any], is_items: bool) -> tuple[Mapping[str, Any], str | None]:
    if is_items:
        return message_of(response.get("output") or ()), reason_of(response)
    choices = response.get("choices") or [{}]
    choice: Mapping[str, Any] = choices[0] if isinstance(choices[0], Mapping) else {}
    message = choice.get("message")
    if not isinstance(message, Mapping):
        message = {"content": choice.get("text")}
    return message, choice.get("finish_reason")


def _error(row: Mapping[str, Any], response: Mapping[str, Any], is_items: bool) -> str | None:
    found = response.get("error") or row.get("error")
    if is_items and not found:
        return error_of(response)
    if isinstance(found, Mapping):
        found = found.get("message") or found.get("code") or repr(dict(found))
    return str(found) if found else None


def _key(row: Mapping[str, Any], request: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    """Return what tells an answer apart: the response's own id, else what was said."""
    found = response.get("id") or row.get("id") or row.get("request_id")
    if found:
        return str(found)
    said = [dict(request), dict(response), row.get(_CUSTOM_ID), _first(row, _TIMES)]
    return digest(repr(said))


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the first of some fields that holds anything; what is JSON is read."""
    return next((parsed(row[name]) for name in names if row.get(name)), None)


DOOR = Door(
    name=NAME,
    holds="requests and responses of OpenAI's API, or files of a batch",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "id of the response",
        "session_id": "session_id of the row or of the request's metadata, else each its own",
        "user_id": "user, safety_identifier",
        "created_at": "created, created_at of the response; timestamp of the row",
        "model_version": "model",
        "messages": "messages, prompt, instructions and input",
        "response, tool_calls, refusal": "choices[0].message, or output",
        "error": "error",
        "tools, response_format": "the request's",
        "metadata": "metadata, sampling, usage, finish_reason",
    },
    is_timeless=True,
)
