"""Spans of each convention come in as the same answer, by the documented names of attributes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet.doors.otlp_messages import nested, said_on, tools_of
from ratchet.doors.otlp_spans import Item, items_of
from ratchet.records import Interaction
from tests.doors.bringing import answers, bring, new_store, said, write

CALL = {"name": "refund", "arguments": {"order": 7}}
TOOL = {"name": "refund", "description": "Pay back", "parameters": {"type": "object"}}
END = 1_796_032_801_200_000_000
"""2026-11-30 10:00:01.2 UTC."""


def value(given: Any) -> dict[str, Any]:
    """Return a value as OTLP's JSON writes it (the protocol's AnyValue)."""
    if isinstance(given, bool):
        return {"boolValue": given}
    if isinstance(given, int):
        return {"intValue": str(given)}
    if isinstance(given, float):
        return {"doubleValue": given}
    if isinstance(given, list):
        return {"arrayValue": {"values": [value(one) for one in given]}}
    if isinstance(given, dict):
        return {"kvlistValue": {"values": attributes(given)}}
    return {"stringValue": given}


def attributes(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": value(one)} for name, one in given.items()]


def event(name: str, given: dict[str, Any], at: int = END) -> dict[str, Any]:
    return {"name": name, "timeUnixNano": str(at), "attributes": attributes(given)}


def span(given: dict[str, Any], number: int = 1, trace: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "traceId": f"{trace:032x}", "spanId": f"{number:016x}", "name": "chat",
        "startTimeUnixNano": str(END - 1_200_000_000), "endTimeUnixNano": str(END),
        "attributes": attributes(given),
    } | more  # fmt: skip


def request(*spans: dict[str, Any], **resource: Any) -> dict[str, Any]:
    held = {"resource": {"attributes": attributes(resource)}, "scopeSpans": [{"spans": spans}]}
    return {"resourceSpans": [held]}


def records(*found: dict[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(found)}]}]}


def brought(tmp_path: Path, *rows: Any) -> tuple[list[Interaction], list[tuple[str, str, Any]]]:
    store = new_store(tmp_path)
    bring(write(tmp_path / "otlp.jsonl", *rows), store)
    return answers(store), said(store)


NEW = {
    "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o",
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be kind."}]),
    "gen_ai.input.messages": json.dumps([
        {"role": "user", "parts": [{"type": "text", "content": "Refund 7"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", **CALL}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "ok"}]},
    ]),
    "gen_ai.output.messages": json.dumps([
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"},
                                        {"type": "text", "content": "Done."}],
         "finish_reason": "stop"},
    ]),
}  # fmt: skip
LISTED = NEW | {name: json.loads(NEW[name]) for name in NEW if name.endswith("messages")}
EVENTS = [
    event("gen_ai.system.message", {"content": "Be kind."}),
    event("gen_ai.user.message", {"content": "Refund 7"}),
    event("gen_ai.assistant.message", {"tool_calls": json.dumps(
        [{"id": "c1", "type": "function",
          "function": {"name": "refund", "arguments": '{"order": 7}'}}])}),
    event("gen_ai.tool.message", {"id": "c1", "content": "ok"}),
    event("gen_ai.choice", {"index": 0, "finish_reason": "stop",
                            "message": json.dumps({"role": "assistant", "content": "Done."})}),
]  # fmt: skip
OLD = {"gen_ai.system": "openai", "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
PROMPT = json.dumps([
    {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Refund 7"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function",
         "function": {"name": "refund", "arguments": '{"order": 7}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "ok"},
])  # fmt: skip
ATTRIBUTE = OLD | {
    "gen_ai.prompt": PROMPT,
    "gen_ai.completion": json.dumps([{"role": "assistant", "content": "Done."}]),
    "gen_ai.response.finish_reasons": ["stop"],
}
OPENLLMETRY = {
    "llm.request.type": "chat", "gen_ai.request.model": "gpt-4o",
    "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "Be kind.",
    "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": "Refund 7",
    "gen_ai.prompt.2.role": "assistant", "gen_ai.prompt.2.tool_calls.0.id": "c1",
    "gen_ai.prompt.2.tool_calls.0.name": "refund",
    "gen_ai.prompt.2.tool_calls.0.arguments": '{"order": 7}',
    "gen_ai.prompt.3.role": "tool", "gen_ai.prompt.3.tool_call_id": "c1",
    "gen_ai.prompt.3.content": "ok",
    "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Done.",
    "gen_ai.completion.0.finish_reason": "stop",
}  # fmt: skip
_IN, _OUT = "llm.input_messages", "llm.output_messages"
OPENINFERENCE = {
    "openinference.span.kind": "LLM", "llm.model_name": "gpt-4o",
    f"{_IN}.0.message.role": "system", f"{_IN}.0.message.content": "Be kind.",
    f"{_IN}.1.message.role": "user",
    f"{_IN}.1.message.contents.0.message_content.type": "text",
    f"{_IN}.1.message.contents.0.message_content.text": "Refund 7",
    f"{_IN}.2.message.role": "assistant",
    f"{_IN}.2.message.tool_calls.0.tool_call.id": "c1",
    f"{_IN}.2.message.tool_calls.0.tool_call.function.name": "refund",
    f"{_IN}.2.message.tool_calls.0.tool_call.function.arguments": '{"order": 7}',
    f"{_IN}.3.message.role": "tool", f"{_IN}.3.message.tool_call_id": "c1",
    f"{_IN}.3.message.content": "ok",
    f"{_OUT}.0.message.role": "assistant", f"{_OUT}.0.message.content": "Done.",
    "llm.finish_reason": "stop",
}  # fmt: skip
CONVENTIONS = {
    "the conventions of today": span(NEW),
    "the same as lists": span(LISTED),
    "events of before": span(OLD, events=EVENTS),
    "attributes of before": span(ATTRIBUTE),
    "an event with attributes": span(OLD, events=[
        event("gen_ai.content.prompt", {"gen_ai.prompt": PROMPT}),
        event("gen_ai.content.completion", {"gen_ai.completion": "Done."}),
    ]) | {"attributes": attributes(OLD | {"gen_ai.response.finish_reasons": ["stop"]})},
    "OpenLLMetry": span(OPENLLMETRY),
    "OpenInference": span(OPENINFERENCE),
}  # fmt: skip


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_says_the_same(convention: str, tmp_path: Path) -> None:
    ((kept,), _) = brought(tmp_path, request(CONVENTIONS[convention]))
    assert [(turn.role, turn.content or "") for turn in kept.messages] == [
        ("system", "Be kind."), ("user", "Refund 7"), ("assistant", ""), ("tool", "ok")
    ]  # fmt: skip
    (call,) = kept.messages[2].tool_calls
    assert (call.id, call.name, call.arguments) == ("c1", "refund", {"order": 7})
    assert kept.messages[3].tool_call_id == "c1"
    assert (kept.response, kept.model_version) == ("Done.", "gpt-4o")
    assert kept.metadata["finish_reason"] == "stop"
    assert kept.latency_seconds == pytest.approx(1.2)
    assert kept.created_at.isoformat() == "2026-11-30T10:00:01.200000+00:00"


def test_use_sampling_and_labels_are_metadata(tmp_path: Path) -> None:
    told = NEW | {
        "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 8, "gen_ai.request.temperature": 0.5,
        "gen_ai.response.time_to_first_chunk": 0.25,
    }  # fmt: skip
    ((kept,), _) = brought(tmp_path, request(span(told), **{"service.name": "shop"}))
    assert kept.metadata == {
        "service": "shop", "prompt_tokens": "12", "completion_tokens": "3", "cached_tokens": "8",
        "temperature": "0.5", "first_token_seconds": "0.25", "finish_reason": "stop",
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {"gen_ai.tool.definitions": json.dumps([{"type": "function", **TOOL}])},
        {"gen_ai.tool.definitions": [{"type": "function", **TOOL}]},
        {"llm.tools.0.tool.json_schema": json.dumps({"type": "function", "function": TOOL})},
        {"llm.request.functions.0.name": "refund", "llm.request.functions.0.description":
         "Pay back", "llm.request.functions.0.parameters": '{"type": "object"}'},
    ],
)  # fmt: skip
def test_tools_are_in_openais_form(given: dict[str, Any]) -> None:
    assert tools_of(given) == [{"type": "function", "function": TOOL}]


def test_session_and_user_of_the_span_around_hold_for_the_answer(tmp_path: Path) -> None:
    around = span({"session.id": "s-9", "user.id": "ana"}, 2)
    ((kept,), _) = brought(tmp_path, request(span(NEW), around))
    assert (kept.session_id, kept.user_id) == ("s-9", "ana")


def test_pictures_come_as_parts(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "content": "What is it?"},
        {"type": "uri", "modality": "image", "uri": "https://x.example/a.png"},
    ]
    asked = {"gen_ai.input.messages": json.dumps([{"role": "user", "parts": parts}])}
    found = said_on(NEW | asked, ()).asked[-1]["content"]
    assert found == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
    ]


RATED = {"gen_ai.evaluation.name": "user_thumbs", "gen_ai.evaluation.score.label": "up"}


def test_an_evaluation_finds_its_answer_by_span_parent_response_id_and_trace(
    tmp_path: Path,
) -> None:
    identity = {"gen_ai.response.id": "r-1"}
    name = "gen_ai.evaluation.result"
    rows = (
        request(span(NEW | identity)),
        request(span({}, 2, parentSpanId=f"{1:016x}", events=[event(name, RATED, END + 1_000)])),
        request(span({}, 3, events=[event(name, RATED, END + 2_000)])),
        request(span({}, 4, trace=2, events=[event(name, RATED | identity, END + 3_000)])),
        records({"traceId": f"{1:032x}", "spanId": f"{1:016x}", "eventName": name,
                 "timeUnixNano": str(END + 4_000), "attributes": attributes(RATED)}),
    )  # fmt: skip
    _, feedback = brought(tmp_path, *rows)
    assert feedback == [("Done.", "thumbs", "up")] * 4


def test_an_evaluation_of_one_answer_is_not_about_another_of_its_trace(tmp_path: Path) -> None:
    other = NEW | {"gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [
        {"type": "text", "content": "Later."}]}])}  # fmt: skip
    rated = span(NEW, 1, events=[event("gen_ai.evaluation.result", RATED)])
    later = span(other, 2, endTimeUnixNano=str(END + 10**9))
    _, feedback = brought(tmp_path, request(rated, later))
    assert feedback == [("Done.", "thumbs", "up")]


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ({"gen_ai.evaluation.score.value": 0.75}, "judge_score", 0.75),
        ({"gen_ai.evaluation.score.value": 4}, "dimension", 4),
        ({"gen_ai.evaluation.explanation": "no source"}, "comment", "no source"),
    ],
)
def test_scores_are_feedback_by_value(
    tmp_path: Path, given: dict[str, Any], kind: str, told: object
) -> None:
    result = event("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "grounded"} | given)
    _, feedback = brought(tmp_path, request(span(NEW, events=[result])))
    assert feedback == [("Done.", kind, told)]


def test_an_answer_in_a_log_record_is_that_of_its_span(tmp_path: Path) -> None:
    told = {"traceId": f"{1:032x}", "spanId": f"{1:016x}", "timeUnixNano": str(END),
            "eventName": "gen_ai.client.inference.operation.details",
            "attributes": attributes(NEW)}  # fmt: skip
    silent = span({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"})
    found, _ = brought(tmp_path, request(silent), records(told))
    assert [kept.response for kept in found] == ["Done."]


@pytest.mark.parametrize(
    "given",
    [
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "refund"},
        NEW | {"gen_ai.operation.name": "invoke_agent"},
        {"openinference.span.kind": "CHAIN", "input.value": "a", "output.value": "b"},
        {"http.request.method": "POST"},
        {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"},
    ],
)
def test_what_is_no_answer_is_passed_over_and_counted(
    given: dict[str, Any], tmp_path: Path
) -> None:
    report = bring(write(tmp_path / "o.jsonl", request(span(given))), new_store(tmp_path))
    assert (report.interactions, report.set_aside) == (0, 0)
    assert sum(count for _, count in report.passed) == 1


def test_a_span_that_cannot_be_used_is_set_aside_with_its_place(tmp_path: Path) -> None:
    alone = {name: one for name, one in NEW.items() if "input" not in name and "system" not in name}
    path = write(tmp_path / "o.jsonl", request(span(NEW, 1), span(alone, 2)))
    report = bring(path, new_store(tmp_path))
    assert (report.interactions, report.set_aside) == (1, 1)
    assert report.examples[0].position == f"line 1, span {2:016x}"


def test_a_request_of_another_shape_is_set_aside(tmp_path: Path) -> None:
    broken = request(span(NEW)), {"resourceSpans": [{"scopeSpans": 3}]}
    report = bring(write(tmp_path / "o.jsonl", *broken), new_store(tmp_path))
    assert (report.interactions, report.set_aside) == (1, 1)


def test_numbers_may_be_texts_or_numbers() -> None:
    one = span({}) | {"startTimeUnixNano": 5, "endTimeUnixNano": "7"}
    (item,) = items_of(request(one))
    assert (item.start, item.end) == (5, 7)
    assert isinstance(item, Item)


def test_a_name_of_a_thousand_dots_is_no_attribute_of_a_message() -> None:
    assert nested({"p.0.a": "a", "p.0." + "b." * 5_000 + "c": "x"}, "p") == [{"a": "a"}]


def test_flat_names_with_a_gap_keep_their_order() -> None:
    flat = {"p.10.a": "c", "p.0.a": "a", "p.2.a": "b", "q.0.a": "x", "p.2": "a value beside"}
    assert nested(flat, "p") == [{"a": "a"}, {"a": "b"}, {"a": "c"}]
