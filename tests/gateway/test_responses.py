"""`/v1/responses` through the gateway: as clients see it, and as the store holds it."""

from __future__ import annotations

import json

import pytest

from tests.gateway.conftest import routing
from tests.servers.mock_backend import Raw, events_of

openai = pytest.importorskip("openai")

TOOL = {
    "type": "function", "name": "weather", "strict": True,
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
}  # fmt: skip
CALL = {
    "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
    "arguments": '{"town": "Ulm"}', "status": "completed",
}  # fmt: skip
AS_CALL = {
    "id": "call_1", "type": "function",
    "function": {"name": "weather", "arguments": '{"town": "Ulm"}'},
}  # fmt: skip


def client(gateway):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="anything", max_retries=0)


def response(*output, key="resp_1", status="completed", **fields):
    return {
        "id": key, "object": "response", "created_at": 1, "status": status, "model": "m",
        "output": list(output), "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13,
                  "input_tokens_details": {"cached_tokens": 2},
                  "output_tokens_details": {"reasoning_tokens": 1}},
    } | fields  # fmt: skip


def said(text):
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "m1", "role": "assistant", "status": "completed",
            "content": [part]}  # fmt: skip


def sent(found):
    return Raw(json.dumps(found).encode(), headers={"Content-Type": "application/json"})


def test_the_official_client_gets_a_response_and_the_store_its_interaction(gateway, mock):
    raw = client(gateway).responses.with_raw_response.create(
        model="gpt", instructions="be brief", input="wo ist sie?", user="ana", temperature=0.5,
        metadata={"segment": "de"},
    )  # fmt: skip
    assert raw.parse().output_text == "wo ist sie?"
    assert raw.parse().id == "resp_upstream"
    (kept,) = gateway.interactions()
    assert raw.headers["x-ratchet-interaction"] == kept.id
    assert [m.canonical() for m in kept.messages] == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "wo ist sie?"},
    ]  # fmt: skip
    assert (kept.response, kept.user_id, kept.segment) == ("wo ist sie?", "ana", "de")
    assert (kept.metadata["finish_reason"], kept.metadata["prompt_tokens"]) == ("stop", "3")
    assert (kept.metadata["temperature"], kept.metadata["requested_model"]) == ("0.5", "gpt")
    thumb = {"id": "t", "interaction_id": kept.id, "kind": "thumbs", "value": "up"}
    token = raw.headers["x-ratchet-token"]
    assert gateway.post("/v1/feedback", thumb | {"token": token}).json()["accepted"] == 1


def test_calls_results_pictures_and_forms_are_kept_as_those_of_chats(gateway, mock):
    mock.behaviour = lambda body: sent(response(CALL))
    items = [
        {"role": "user", "content": [
            {"type": "input_text", "text": "weather here?"},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        ]},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "I look", "annotations": []}]},
        {"type": "reasoning", "id": "rs", "summary": []},
        CALL | {"call_id": "call_0"},
        {"type": "function_call_output", "call_id": "call_0", "output": "12C"},
    ]  # fmt: skip
    form = {"type": "json_schema", "name": "town", "schema": {"type": "object"}, "strict": True}
    client(gateway).responses.create(
        model="m", input=items, tools=[TOOL], text={"format": form}, max_output_tokens=50
    )
    (kept,) = gateway.interactions()
    assert [m.canonical() for m in kept.messages] == [
        {"role": "user", "content": [
            {"type": "text", "text": "weather here?"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        ]},
        {"role": "assistant", "content": "I look", "tool_calls": [AS_CALL | {"id": "call_0"}]},
        {"role": "tool", "tool_call_id": "call_0", "content": "12C"},
    ]  # fmt: skip
    assert [call.canonical() for call in kept.tool_calls] == [AS_CALL]
    assert (kept.response, kept.metadata["finish_reason"]) == ("", "tool_calls")
    found = gateway.store.definitions([kept.tools, kept.response_format])
    function = {name: value for name, value in TOOL.items() if name != "type"}
    assert found[kept.tools].body == [{"type": "function", "function": function}]
    schema = {name: value for name, value in form.items() if name != "type"}
    assert found[kept.response_format].body == {"type": "json_schema", "json_schema": schema}
    assert kept.metadata["max_completion_tokens"] == "50"
    assert (kept.metadata["cached_tokens"], kept.metadata["reasoning_tokens"]) == ("2", "1")


def test_what_names_a_previous_response_continues_its_interaction(gateway, mock):
    for key in ("resp_1", "resp_2", "resp_3"):
        before = {"previous_response_id": f"resp_{int(key[-1]) - 1}"} if key > "resp_1" else {}
        mock.behaviour = lambda body, key=key: sent(response(said("yes"), key=key))
        assert (
            gateway.post("/v1/responses", {"model": "m", "input": key} | before).status_code == 200
        )
    one, two, three = gateway.interactions()
    assert [i.continues for i in (one, two, three)] == [None, one.id, two.id]
    assert len({(i.session_id, i.user_id) for i in (one, two, three)}) == 1


def test_a_stream_is_passed_on_as_it_comes_and_recorded_before_it_ends(gateway, mock):
    events = [
        {"type": "response.created", "response": response(status="in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": CALL | {"arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1",
         "delta": '{"town": "Ulm"}'},
        {"type": "response.output_item.done", "output_index": 0, "item": CALL},
        {"type": "response.completed", "response": response(CALL)},
    ]  # fmt: skip
    mock.behaviour = lambda body: Raw(events_of(events))
    reply = gateway.post("/v1/responses", {"model": "m", "input": "x", "stream": True})
    assert reply.content == events_of(events)
    (kept,) = gateway.interactions()
    assert [call.canonical() for call in kept.tool_calls] == [AS_CALL]
    assert kept.metadata["stream"] == "yes"
    assert float(kept.metadata["first_token_seconds"]) > 0


def test_a_stream_that_breaks_off_is_recorded_with_what_it_said(gateway, mock):
    mock.behaviour = lambda body: "break"
    body = {"model": "m", "input": "half of it", "stream": True}
    reply = gateway.post("/v1/responses", body)
    assert b"ended the stream before the answer was finished" in reply.content
    (kept,) = gateway.interactions()
    assert (kept.response, kept.error) == (
        "half of it", "backend ended the stream before the answer was finished",
    )  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_a_version_that_fails_is_recorded_and_the_one_before_answers(gateway, mock, stream):
    gateway.store.append(routing(("router/2", 1.0), previous="router/1"))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = lambda body: 500 if body["model"] == "router/2" else None
    reply = gateway.post("/v1/responses", {"model": "m", "input": "x", "stream": stream})
    assert reply.headers["x-ratchet-version"] == "router/1"
    failed, kept = sorted(gateway.interactions(), key=lambda one: one.error is None)
    assert (failed.model_version, "planned 500" in failed.error) == ("router/2", True)
    assert (kept.model_version, kept.response, kept.error) == ("router/1", "x", None)


def test_a_failed_response_is_an_error_of_the_version(gateway, mock):
    error = {"code": "server_error", "message": "out of memory"}
    mock.behaviour = lambda body: sent(response(status="failed", error=error))
    assert gateway.post("/v1/responses", {"model": "m", "input": "x"}).json()["error"] == error
    (kept,) = gateway.interactions()
    assert kept.error == "the backend answers with an error: out of memory"


def test_a_request_that_the_backend_refuses_counts_against_no_version(gateway, mock):
    mock.behaviour = lambda body: 400
    assert gateway.post("/v1/responses", {"model": "m", "input": "x"}).status_code == 400
    assert gateway.interactions() == []
    assert gateway.store.counts()["set_aside"] == 1
