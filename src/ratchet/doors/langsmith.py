"""LangSmith: runs and feedback, as its bulk export (Parquet) and its API write them.

A run of the type `llm` is an interaction; other runs (chains, tools, retrievers) are steps of the
application and passed over. Feedback is a table of its own: it is about the run that it names, or
about the last answer of the trace where that run is no answer. Rows of feedback need not name the
trace, so that of steps is kept for those that come after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.doors.door import (
    OTHER,
    UNKNOWN_MODEL,
    UNKNOWN_USER,
    Door,
    Given,
    Translation,
    door_id,
)
from ratchet.doors.metadata import texts_of
from ratchet.doors.scores import feedback_of
from ratchet.doors.times import seconds_between, utc
from ratchet.doors.turns import answer, conversation, parsed
from ratchet.records.asking import FIRST_TOKEN_SECONDS, sampling_of

NAME = "langsmith"
_TYPE, _ANSWERS = "run_type", "llm"
_TRACE = ("trace_id", "dotted_order")
_MODEL = ("ls_model_name", "model", "model_name")
_SESSION = ("session_id", "thread_id", "conversation_id")
_USER = ("user_id", "user")
_USAGE = {
    "prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens",
    "total_cost": "cost",
}  # fmt: skip


def _recognises(row: Mapping[str, Any]) -> bool:
    if _TYPE in row:
        return "inputs" in row and any(name in row for name in _TRACE)
    return "run_id" in row and "key" in row and ("score" in row or "value" in row)


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    if _TYPE not in row:
        yield from _feedback(row, given)
    elif row[_TYPE] != _ANSWERS:
        if (trace := row.get("trace_id")) not in (None, row["id"]):
            given.kept[str(row["id"])] = str(trace)
        yield Passed("a run that is no answer of a model: a step of the application")
    else:
        yield _interaction(row)


def _interaction(row: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = parsed(row.get("extra"))
    extra = extra if isinstance(extra, Mapping) else {}
    held, asked_with = _object(extra.get("metadata")), _object(extra.get("invocation_params"))
    trace, inputs = str(row.get("trace_id") or row["id"]), parsed(row["inputs"])
    made: dict[str, Any] = {
        "id": door_id(NAME, row["id"]),
        "session_id": str(_first(held, _SESSION) or trace),
        "user_id": str(_first(held, _USER) or UNKNOWN_USER),
        "created_at": utc(row.get("end_time") or row["start_time"]),
        "model_version": str(_first({**asked_with, **held}, _MODEL) or UNKNOWN_MODEL),
        "messages": conversation(_asked(inputs)),
        OTHER: door_id(NAME, "of trace", trace),
    }
    if row.get("error"):
        made |= {"response": "", "error": str(row["error"])}
    else:
        made |= answer(_told(parsed(row.get("outputs")))).fields()
    took = seconds_between(row.get("start_time"), row.get("end_time"))
    if took is not None:
        made["latency_seconds"] = took
    tools = asked_with.get("tools") or (inputs.get("tools") if isinstance(inputs, Mapping) else 0)
    if tools:
        made["tools"] = tools
    metadata = texts_of(held) | sampling_of(asked_with) | texts_of({"tags": row.get("tags")})
    metadata |= texts_of({ours: row.get(theirs) for theirs, ours in _USAGE.items()})
    first = seconds_between(row.get("start_time"), row.get("first_token_time"))
    made["metadata"] = metadata | texts_of({FIRST_TOKEN_SECONDS: first})
    return made


def _asked(inputs: Any) -> Any:
    """Return what a model was asked: messages of LangChain, prompts, or what was sent."""
    if not isinstance(inputs, Mapping):
        return inputs
    messages = inputs.get("messages")
    if isinstance(messages, list) and messages:
        batch = messages[0] if isinstance(messages[0], list) else messages
        return [_turn(one) for one in batch]
    prompts = inputs.get("prompts")
    return prompts[0] if isinstance(prompts, list) and prompts else inputs


def _told(outputs: Any) -> Any:
    """Return what a model answered: a generation of LangChain, a message, or what came back."""
    if not isinstance(outputs, Mapping):
        return outputs
    generations = outputs.get("generations")
    if isinstance(generations, list) and generations:
        first = generations[0][0] if isinstance(generations[0], list) else generations[0]
        return _turn(first["message"]) if first.get("message") else first.get("text")
    if isinstance(outputs.get("messages"), list) and outputs["messages"]:
        return _turn(outputs["messages"][-1])
    return _turn(outputs["output"]) if "output" in outputs else outputs


def _turn(message: Any) -> Any:
    """Return a message of LangChain as a turn: it is serialised with the name of its class."""
    if isinstance(message, Mapping) and isinstance(message.get("kwargs"), Mapping):
        kind = message.get("id")
        return {"type": kind[-1] if isinstance(kind, list) else kind, "data": message["kwargs"]}
    if isinstance(message, list) and len(message) == len(("role", "content")):
        return {"role": message[0], "content": message[1]}
    return message


def _feedback(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    run = row.get("run_id") or row.get("trace_id")
    if run is None:
        yield Passed("feedback on a project, not on a run")
        return
    changed = row.get("modified_at")
    event: dict[str, Any] = {
        "id": door_id(NAME, "feedback", row["id"]),
        "interaction_id": door_id(NAME, run),
        "created_at": utc(row["created_at"]),
        "updated_at": utc(changed) if changed else None,
        OTHER: door_id(NAME, "of trace", row.get("trace_id") or given.kept.get(str(run), run)),
    }
    correction = parsed(row.get("correction"))
    if isinstance(correction, Mapping) and len(correction) == 1:
        (correction,) = correction.values()
    if isinstance(correction, str) and correction:
        key = door_id(NAME, "correction", row["id"])
        yield {**event, "id": key, "kind": "correction", "value": correction}
    value = row.get("score")
    value = parsed(row.get("value")) if value is None else value
    if isinstance(value, float) and value.is_integer():  # a column of Parquet is of one type
        value = int(value)
    value = None if isinstance(value, Mapping | list) else value
    yield from feedback_of(
        str(row["key"]), value, event, comment=row.get("comment"), kinds=given.scores
    )


def _object(value: Any) -> Mapping[str, Any]:
    found = parsed(value)
    return found if isinstance(found, Mapping) else {}


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)


DOOR = Door(
    name=NAME,
    holds="LangSmith: runs and feedback",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "id of the run",
        "session_id": "session_id, thread_id or conversation_id of extra.metadata, else the trace",
        "user_id": "user_id of extra.metadata",
        "created_at": "end_time, else start_time",
        "model_version": "ls_model_name of extra.metadata, model of extra.invocation_params",
        "messages": "inputs: messages or prompts",
        "response, tool_calls": "outputs: generations, messages or choices",
        "error": "error",
        "latency_seconds": "end_time - start_time",
        "tools": "tools of extra.invocation_params",
        "metadata": "extra.metadata, sampling, tags, tokens, total_cost, first_token_time",
        "feedback": "key with score or value, comment and correction; on run_id, else on the "
        "trace's last answer; a later modified_at replaces",
    },
)
