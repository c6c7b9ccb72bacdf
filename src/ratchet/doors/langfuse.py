"""Langfuse: observations, traces and scores, as its API, its blob export and its UI write them.

Keys are `trace_id` in blob exports (JSON, CSV, Parquet) and `traceId` in the API and the UI; both
are read, by the former name. A score of the API of version 5 has a `subject` and one `value` of its
type. An observation of the type GENERATION is an interaction; other observations (spans, tools,
retrievers) are steps of the application and passed over. A trace that comes without observations is
an interaction of its own. Scores are feedback (`ratchet.doors.scores`): one on an observation is
about that answer, one on a trace about the trace's last answer, or that of the trace itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.doors.door import (
    OTHER,
    PLACE,
    UNKNOWN_MODEL,
    UNKNOWN_USER,
    Door,
    Given,
    Refused,
    Translation,
    door_id,
)
from ratchet.doors.metadata import texts_of
from ratchet.doors.scores import feedback_of
from ratchet.doors.times import seconds_between, utc
from ratchet.doors.turns import answer, conversation, parsed
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.records.asking import FIRST_TOKEN_SECONDS

NAME = "langfuse"
_NAMES = {
    "traceId": "trace_id", "observationId": "observation_id", "sessionId": "session_id",
    "userId": "user_id", "startTime": "start_time", "endTime": "end_time",
    "completionStartTime": "completion_start_time", "timeToFirstToken": "time_to_first_token",
    "statusMessage": "status_message", "toolDefinitions": "tool_definitions",
    "usageDetails": "usage_details", "totalCost": "total_cost", "dataType": "data_type",
    "stringValue": "string_value", "updatedAt": "updated_at", "createdAt": "created_at",
    "providedModelName": "provided_model_name", "internalModelId": "internal_model_id",
    "htmlPath": "html_path",
}  # fmt: skip
"""How the API and the UI call what a blob export calls otherwise."""
_NOTHING = (None, "")
_ANSWERS = "GENERATION"
_SUBJECT = "subject"
_CORRECTION, _TEXT, _CATEGORY, _BOOLEAN = "CORRECTION", "TEXT", "CATEGORICAL", "BOOLEAN"
_MODEL = ("provided_model_name", "model", "internal_model_id")
_USAGE = {
    "input": "prompt_tokens", "output": "completion_tokens", "promptTokens": "prompt_tokens",
    "completionTokens": "completion_tokens", "input_cached_tokens": "cached_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}  # fmt: skip
_LABELS = ("name", "release", "version", "environment", "tags")


def _recognises(row: Mapping[str, Any]) -> bool:
    row = _renamed(row)
    if _is_score(row):
        return True
    if "trace_id" in row:
        return "start_time" in row and "type" in row
    return _is_trace(row)


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    row = _renamed(row)
    if _is_score(row):
        return _score(row, given)
    if row.get("trace_id") not in _NOTHING and "type" in row:
        return _observation(row, row)
    return _trace(row, given)


def _renamed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row with the names of a blob export."""
    if _NAMES.keys().isdisjoint(row):
        return row
    return {_NAMES.get(name, name): value for name, value in row.items()}


def _is_score(row: Mapping[str, Any]) -> bool:
    is_one = "data_type" in row and "name" in row
    return is_one and ("value" in row or "string_value" in row)


def _is_trace(row: Mapping[str, Any]) -> bool:
    named = any(name in row for name in ("session_id", "html_path", "observations"))
    return named and "id" in row and "timestamp" in row and "input" in row and "output" in row


def _trace(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    inside = [
        _renamed(one) for one in parsed(row.get("observations")) or () if isinstance(one, Mapping)
    ]
    answers = [one for one in inside if one.get("type") == _ANSWERS]
    if "project_id" in row and not inside:
        yield Passed("a trace of a blob export, whose answers are among its observations")
        return
    for one in inside:
        yield from _inside(row, one)
    if not answers:
        yield from _interaction(row, row, "", utc(row["timestamp"]))
    for score in parsed(row.get("scores")) or ():
        if isinstance(score, Mapping) and "name" in score:
            yield from _score({"trace_id": row["id"], **_renamed(score)}, given)


def _inside(trace: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Translation]:
    try:
        yield from _observation(trace, {"trace_id": trace["id"], **row})
    except InvalidInputError as error:
        yield Refused(str(error), f"observation {printable(str(row.get('id')), 40)}")


def _observation(trace: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Translation]:
    kind = row["type"]
    if kind != _ANSWERS:
        yield Passed("an observation that is no generation: a step of the application")
        return
    end = row.get("end_time")
    if not end and row.get("output") in _NOTHING and row.get("level") != "ERROR":
        yield Passed("a generation that has not ended, which comes again once it has")
        return
    yield from _interaction(trace, row, row["id"], utc(end or row.get("start_time")))


def _interaction(
    trace: Mapping[str, Any], row: Mapping[str, Any], observation: str, at: object
) -> Iterator[Translation]:
    error = row.get("status_message") if row.get("level") == "ERROR" else None
    key = row["trace_id"] if observation else row["id"]
    asked = parsed(row.get("input"))
    made: dict[str, Any] = {
        "id": door_id(NAME, observation or f"trace {key}"),
        "session_id": str(row.get("session_id") or trace.get("session_id") or key),
        "user_id": str(row.get("user_id") or trace.get("user_id") or UNKNOWN_USER),
        "created_at": at,
        "model_version": str(_first(row, *_MODEL) or UNKNOWN_MODEL),
        "messages": conversation(asked),
    }  # fmt: skip
    made |= {"response": "", "error": str(error)} if error else answer(row.get("output")).fields()
    took = seconds_between(row.get("start_time"), row.get("end_time"))
    if took is None:
        took = row.get("latency")
    if took is not None:
        made["latency_seconds"] = float(took)
    tools = parsed(row.get("tool_definitions"))
    tools = tools or (asked.get("tools") if isinstance(asked, Mapping) else None)
    if tools:
        made["tools"] = tools
    if metadata := _metadata(trace, row):
        made["metadata"] = metadata
    made[OTHER] = door_id(NAME, "of trace", key)
    if row is not trace:
        made[PLACE] = f"observation {printable(observation, 40)}"
    yield made


def _metadata(trace: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    about = {name: trace.get(name) for name in _LABELS}
    used = parsed(row.get("usage_details"))
    if isinstance(used, list):  # a map of Parquet
        used = dict(used)
    if isinstance(used, Mapping):
        about |= {ours: used[theirs] for theirs, ours in _USAGE.items() if theirs in used}
    about["cost"] = row.get("total_cost")
    first = seconds_between(row.get("start_time"), row.get("completion_start_time"))
    if first is None:
        first = row.get("time_to_first_token")
    about[FIRST_TOKEN_SECONDS] = first
    return {**texts_of(row.get("metadata")), **texts_of(about)}


def _score(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    trace, observation = _subject(row)
    if trace is None and observation is None:
        yield Refused(
            "a score must be on an observation or a trace, got one on neither (of a session or a "
            f"run of a data set), {printable(str(row.get('name')), 40)!r}; leave it out"
        )
        return
    about = door_id(NAME, "of trace", trace)
    changed = row.get("updated_at")
    event: dict[str, Any] = {
        "id": door_id(NAME, "score", row["id"]),
        "interaction_id": about if observation is None else door_id(NAME, observation),
        "created_at": utc(row.get("timestamp") or row.get("created_at")),
        "updated_at": utc(changed) if changed else None,
        OTHER: about if observation is not None else None,
    }
    kind, words = row.get("data_type"), row.get("string_value")
    words = None if words == "" else words
    value, comment = row.get("value"), row.get("comment")
    if kind == _CORRECTION:
        words = words if words is not None else value
        if isinstance(words, str) and words:
            yield event | {"kind": "correction", "value": words}
        else:
            yield Passed("a correction that says nothing")
        return
    if kind in (_TEXT, _CATEGORY):  # the number of a text is 0, whatever it says
        value = words if words is not None else value
    elif isinstance(value, str):  # of CSV
        value = _number(value)
    if kind == _BOOLEAN:
        value = value in (1, True, "true", "True")
    yield from feedback_of(str(row["name"]), value, event, comment=comment, kinds=given.scores)


def _subject(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the trace and the observation that a score is on."""
    subject = row.get(_SUBJECT)
    if not isinstance(subject, Mapping):
        return _first(row, "trace_id"), _first(row, "observation_id")
    kind, key = subject.get("kind"), _first(subject, "id")
    if kind == "observation":
        return _first(_renamed(subject), "trace_id"), key
    return (key if kind == "trace" else None), None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _first(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first of some fields that holds anything."""
    for name in names:
        value = row.get(name)
        if value not in _NOTHING:
            return value
    return None


DOOR = Door(
    name=NAME,
    holds="Langfuse: observations, traces and scores",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "id of the observation, or of a trace without observations",
        "session_id": "session_id, else the trace",
        "user_id": "user_id",
        "created_at": "end_time, else start_time; timestamp of a trace",
        "model_version": "provided_model_name, model",
        "messages": "input",
        "response, tool_calls": "output",
        "error": "status_message, where level is ERROR",
        "latency_seconds": "end_time - start_time, else latency",
        "tools": "tool_definitions",
        "metadata": "metadata, name, release, version, environment, tags, usage, total_cost",
        "feedback": "scores: value or string_value by name and data_type, and their comments; on "
        "observation_id, else on the last answer of trace_id; a later updated_at replaces",
    },
    as_json=("metadata", "usage_details", "observations", "scores"),
)  # fmt: skip
