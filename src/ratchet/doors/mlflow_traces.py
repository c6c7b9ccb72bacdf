"""MLflow: traces with their assessments, as a tracking server or `Trace.to_json` writes them.

A span of the type LLM or CHAT_MODEL is an interaction; a trace without one is an interaction of its
own, by what went into its first span and what came out. Feedback is read as scores are, an
expectation of an answer as its correction; on a span, else on the trace's last answer. Metadata
names the trace, so that verdicts and labels are written back to it.
"""

from __future__ import annotations

import base64
import json
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
from ratchet.doors.times import moment, utc
from ratchet.doors.turns import Answer, answer, conversation
from ratchet.errors import InvalidInputError
from ratchet.records.asking import MLFLOW_TRACE, WRITTEN_BY

NAME = "mlflow"
_ANSWERS = ("LLM", "CHAT_MODEL")
_TYPE, _INPUTS, _OUTPUTS = "mlflow.spanType", "mlflow.spanInputs", "mlflow.spanOutputs"
_MODEL, _TOOLS, _USAGE = "mlflow.llm.model", "mlflow.chat.tools", "mlflow.chat.tokenUsage"
_COST = "mlflow.llm.cost"
_SESSION, _USER = "mlflow.trace.session", "mlflow.trace.user"
_TOKENS = {
    "input_tokens": "prompt_tokens", "output_tokens": "completion_tokens",
    "cache_read_input_tokens": "cached_tokens",
}  # fmt: skip
_EXPECTED = frozenset(
    {"expected_response", "expected_output", "expected_answer", "ground_truth", "correction"}
)
_FAILED = "ERROR"
_BASE64_ID = 12
"""Characters of a span's id where that is written as base64 of its eight bytes."""


def _recognises(row: Mapping[str, Any]) -> bool:
    info, data = row.get("info"), row.get("data")
    return (
        isinstance(info, Mapping)
        and isinstance(data, Mapping)
        and ("trace_id" in info or "request_id" in info)
        and "spans" in data
    )


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    info = row["info"]
    trace = str(info.get("trace_id") or info["request_id"])
    spans = [_span(one) for one in row["data"]["spans"] or ()]
    answers = [one for one in spans if one["attributes"].get(_TYPE) in _ANSWERS]
    told = answers or [one for one in spans if not one["parent"]][:1]
    for _ in range(len(spans) - len(told)):
        yield Passed("a span that is no answer of a model: a step of the application")
    for one in told:
        try:
            yield _interaction(info, trace, one, one["id"] if answers else "", given)
        except InvalidInputError as error:
            yield Refused(str(error), f"span {one['id']}")
    for one in info.get("assessments") or ():
        yield from _assessment(trace, one, given)


def _span(one: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {name: _value(value) for name, value in (one.get("attributes") or {}).items()}
    context = one.get("context") or {}  # as versions before 3 wrote it
    status = one.get("status") or {}
    code = str(status.get("code") if isinstance(status, Mapping) else one.get("status_code") or "")
    return {
        "id": _hex(one.get("span_id") or context.get("span_id")),
        "parent": _hex(one.get("parent_span_id") or one.get("parent_id")),
        "attributes": attributes,
        "start": int(one.get("start_time_unix_nano") or one.get("start_time") or 0),
        "end": int(one.get("end_time_unix_nano") or one.get("end_time") or 0),
        "error": _error(one, status) if code.endswith(_FAILED) else None,
    }


def _value(value: object) -> Any:
    """Return an attribute: MLflow writes each as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _hex(value: object) -> str:
    """Return a span's id as assessments name it."""
    text = str(value or "")
    if len(text) == _BASE64_ID:
        return base64.b64decode(text).hex()
    return text.removeprefix("0x")


def _error(one: Mapping[str, Any], status: object) -> str:
    message = status.get("message") if isinstance(status, Mapping) else one.get("status_message")
    for event in one.get("events") or ():
        message = message or (event.get("attributes") or {}).get("exception.message")
    return str(message or "the span failed")


def _interaction(
    info: Mapping[str, Any], trace: str, span: Mapping[str, Any], key: str, given: Given
) -> Translation:
    attributes, held = span["attributes"], info.get("trace_metadata") or {}
    held = held or info.get("request_metadata") or {}
    inputs, outputs = attributes.get(_INPUTS), attributes.get(_OUTPUTS)
    asked_of = inputs.get("model") if isinstance(inputs, Mapping) else None
    made: dict[str, Any] = {
        "id": door_id(NAME, trace, key),
        "session_id": str(held.get(_SESSION) or trace),
        "user_id": str(held.get(_USER) or UNKNOWN_USER),
        "created_at": moment(span["end"]) or utc(info.get("request_time")) or given.at,
        "model_version": str(attributes.get(_MODEL) or asked_of or UNKNOWN_MODEL),
        "messages": _asked(inputs),
        OTHER: door_id(NAME, "of trace", trace),
    }
    if key:
        made[PLACE] = f"span {key}"
    if span["error"] is not None:
        made |= {"response": "", "error": span["error"]}
    else:
        made |= _answered(outputs).fields()
    if span["start"] and span["end"] > span["start"]:
        made["latency_seconds"] = (span["end"] - span["start"]) / 1e9
    tools = attributes.get(_TOOLS) or (inputs.get("tools") if isinstance(inputs, Mapping) else None)
    if tools:
        made["tools"] = tools
    made["metadata"] = _metadata(info, attributes) | {MLFLOW_TRACE: trace}
    return made


def _asked(inputs: Any) -> list[dict[str, Any]]:
    """Return what a span was given as turns; the only argument of a function is its question."""
    if isinstance(inputs, Mapping) and len(inputs) == 1:
        (inputs,) = inputs.values()
    return conversation(inputs)


def _answered(outputs: Any) -> Answer:
    if isinstance(outputs, Mapping) and outputs.get("generations"):  # LangChain
        first = outputs["generations"][0]
        first = first[0] if isinstance(first, list) else first
        return answer(first.get("message") or first.get("text"))
    return answer(outputs)


def _metadata(info: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, str]:
    tags = info.get("tags") or {}
    found = texts_of({key: tag for key, tag in tags.items() if not key.startswith("mlflow.")})
    used, cost = attributes.get(_USAGE), attributes.get(_COST)
    if isinstance(used, Mapping):
        found |= texts_of({ours: used.get(theirs) for theirs, ours in _TOKENS.items()})
    if isinstance(cost, Mapping):
        found |= texts_of({"cost": cost.get("total_cost")})
    return found


def _assessment(trace: str, one: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    name = str(one.get("assessment_name") or one.get("name") or "feedback")
    source = (one.get("source") or {}).get("source_id")
    span, about = _hex(one.get("span_id")), door_id(NAME, "of trace", trace)
    key = one.get("assessment_id") or f"{trace} {name} {source} {one.get('create_time')}"
    event = {
        "id": door_id(NAME, "assessment", key),
        "interaction_id": door_id(NAME, trace, span) if span else about,
        "created_at": utc(one.get("create_time")) or given.at,
        "updated_at": utc(one.get("last_update_time")),
        OTHER: about if span else None,
        PLACE: f"assessment {key}",
    }
    if one.get("valid") is False:
        yield Passed("an assessment that a later one replaced")
    elif WRITTEN_BY in (one.get("metadata") or {}):
        yield Passed("an assessment that was written back by Ratchet")
    elif isinstance(one.get("expectation"), Mapping):
        yield _expected(name, one["expectation"], event)
    elif not isinstance(one.get("feedback"), Mapping):
        yield Passed("an assessment that is neither feedback nor an expectation")
    elif one["feedback"].get("error"):
        yield Passed("an assessment that failed")
    else:
        value, why = one["feedback"].get("value"), one.get("rationale")
        yield from feedback_of(name, _whole(value), event, comment=why, kinds=given.scores)


def _expected(name: str, held: Mapping[str, Any], event: Mapping[str, Any]) -> Translation:
    value = held.get("value")
    if name in _EXPECTED and isinstance(value, str) and value:
        return {**event, "kind": "correction", "value": value}
    return Passed("an expectation that is no answer")


def _whole(value: object) -> object:
    """Return a number as it was given: MLflow's messages make 4 a 4.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


DOOR = Door(
    name=NAME,
    holds="MLflow: traces with assessments",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "trace_id and the span's id",
        "session_id": "mlflow.trace.session, else the trace",
        "user_id": "mlflow.trace.user",
        "created_at": "the span's end",
        "model_version": "mlflow.llm.model, model of the inputs",
        "messages": "mlflow.spanInputs of spans LLM and CHAT_MODEL, else of the first span",
        "response, tool_calls": "mlflow.spanOutputs",
        "error": "the span's status",
        "latency_seconds": "the span's time",
        "tools": "mlflow.chat.tools, tools of the inputs",
        "metadata": "mlflow_trace_id, tags, mlflow.chat.tokenUsage, mlflow.llm.cost",
        "feedback": "assessments: feedback by name and value, rationale as a comment",
        "correction": "the expectations expected_response, expected_output, ground_truth",
    },
    as_json=("info", "data"),
    is_timeless=True,
)
