"""Langfuse: observations, traces and scores, as its API, its blob export and its UI write them.

Keys are `trace_id` in blob exports (JSON, CSV, Parquet) and `traceId` in the API and the UI; both
are read. A score of the API of version 5 has a `subject` and one `value` of its type. An
observation of the type GENERATION is an interaction; other observations (spans, tools, retrievers)
are steps of the application and passed over. A trace that comes without observations is an
interaction of its own. Scores are feedback (`ratchet.doors.scores`): one on an observation is about
that answer, one on a trace about the trace's last answer, or that of the trace itself.
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
_IDS = ("trace_id", "traceId")
_OBSERVATION = (("observation_id", "observationId"), ("start_time", "startTime"))
_ANSWERS = "GENERATION"
_SUBJECT = "subject"
_CORRECTION, _TEXT, _CATEGORY, _BOOLEAN = "CORRECTION", "TEXT", "CATEGORICAL", "BOOLEAN"
_MODEL = ("provided_model_name", "providedModelName", "model", "internalModelId")
_USAGE = {
    "input": "prompt_tokens", "output": "completion_tokens", "promptTokens": "prompt_tokens",
    "completionTokens": "completion_tokens", "input_cached_tokens": "cached_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}  # fmt: skip
_LABELS = ("name", "release", "version", "environment", "tags")


def _recognises(row: Mapping[str, Any]) -> bool:
    if _is_score(row):
        return True
    if any(name in row for name in _IDS):
        return any(name in row for name in _OBSERVATION[1]) and "type" in row
    return _is_trace(row)


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    if _is_score(row):
        yield from _score(row, given)
    elif any(_of(row, name) is not None for name in _IDS) and "type" in row:
        yield from _observation(row, row)
    else:
        yield from _trace(row, given)


def _is_score(row: Mapping[str, Any]) -> bool:
    is_one = "name" in row and ("value" in row or "string_value" in row or "stringValue" in row)
    return is_one and ("data_type" in row or "dataType" in row)


def _is_trace(row: Mapping[str, Any]) -> bool:
    named = any(name in row for name in ("sessionId", "session_id", "htmlPath", "observations"))
    return named and "id" in row and "timestamp" in row and "input" in row and "output" in row


def _trace(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    inside = [one for one in parsed(row.get("observations")) or () if isinstance(one, Mapping)]
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
            yield from _score({"trace_id": row["id"], **score}, given)


def _inside(trace: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Translation]:
    try:
        yield from _observation(trace, {"traceId": trace["id"], **row})
    except InvalidInputError as error:
        yield Refused(str(error), f"observation {printable(str(row.get('id')), 40)}")


def _observation(trace: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Translation]:
    kind = row["type"]
    if kind != _ANSWERS:
        yield Passed("an observation that is no generation: a step of the application")
        return
    end = _of(row, "end_time", "endTime")
    if end is None and _of(row, "output") is None and row.get("level") != "ERROR":
        yield Passed("a generation that has not ended, which comes again once it has")
        return
    yield from _interaction(trace, row, row["id"], utc(end or _of(row, "start_time", "startTime")))


def _interaction(
    trace: Mapping[str, Any], row: Mapping[str, Any], observation: str, at: object
) -> Iterator[Translation]:
    error = _of(row, "status_message", "statusMessage") if row.get("level") == "ERROR" else None
    key = _of(row, *_IDS) if observation else row["id"]
    asked = parsed(row.get("input"))
    made: dict[str, Any] = {
        "id": door_id(NAME, observation or f"trace {key}"),
        "session_id": str(_of(row, "session_id", "sessionId")
                          or _of(trace, "session_id", "sessionId") or key),
        "user_id": str(_of(row, "user_id", "userId") or _of(trace, "user_id", "userId")
                       or UNKNOWN_USER),
        "created_at": at,
        "model_version": str(_of(row, *_MODEL) or UNKNOWN_MODEL),
        "messages": conversation(asked),
    }  # fmt: skip
    made |= {"response": "", "error": str(error)} if error else answer(row.get("output")).fields()
    took = seconds_between(_of(row, "start_time", "startTime"), _of(row, "end_time", "endTime"))
    if took is None:
        took = row.get("latency")
    if took is not None:
        made["latency_seconds"] = float(took)
    tools = _of(row, "tool_definitions", "toolDefinitions")
    tools = parsed(tools) or (asked.get("tools") if isinstance(asked, Mapping) else None)
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
    used = parsed(_of(row, "usage_details", "usageDetails"))
    if isinstance(used, list):  # a map of Parquet
        used = dict(used)
    if isinstance(used, Mapping):
        about |= {ours: used[theirs] for theirs, ours in _USAGE.items() if theirs in used}
    about["cost"] = _of(row, "total_cost", "totalCost")
    first = seconds_between(
        _of(row, "start_time", "startTime"),
        _of(row, "completion_start_time", "completionStartTime"),
    )
    if first is None:
        first = _of(row, "time_to_first_token", "timeToFirstToken")
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
    changed = _of(row, "updated_at", "updatedAt")
    event: dict[str, Any] = {
        "id": door_id(NAME, "score", row["id"]),
        "interaction_id": about if observation is None else door_id(NAME, observation),
        "created_at": utc(row.get("timestamp") or _of(row, "created_at", "createdAt")),
        "updated_at": utc(changed) if changed else None,
        OTHER: about if observation is not None else None,
    }
    kind, words = _of(row, "data_type", "dataType"), _of(row, "string_value", "stringValue")
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
        return _of(row, *_IDS), _of(row, *_OBSERVATION[0])
    kind, key = subject.get("kind"), _of(subject, "id")
    if kind == "observation":
        return _of(subject, *_IDS), key
    return (key if kind == "trace" else None), None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _of(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first of some fields that holds anything."""
    for name in names:
        value = row.get(name)
        if value is not None and value != "":
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
