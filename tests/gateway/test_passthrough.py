"""What is passed on: other parts of OpenAI's API, odd but valid fields, waits, and refusals."""

from __future__ import annotations

import json

import pytest

from tests.gateway.conftest import routing
from tests.servers.mock_backend import Raw

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": -1}, {"max_tokens": 0}, {"top_p": 0}, {"temperature": 3.5}, {"n": 0},
        {"seed": -1}, {"seed": 2**64}, {"max_completion_tokens": -1}, {"min_p": 0.1},
        {"metadata": {"nested": {"a": 1}}}, {"logprobs": True, "top_logprobs": 3},
    ],
)  # fmt: skip
def test_fields_that_a_backend_can_take_are_not_refused(gateway, mock, fields):
    gateway.ask(**fields)
    assert mock.seen[-1] | fields == mock.seen[-1]


@pytest.mark.parametrize("fields", [{"max_tokens": "5"}, {"top_p": True}, {"temperature": "hot"}])
def test_fields_of_another_type_are_refused_before_anybody_is_asked(gateway, mock, fields):
    reply = gateway.post("/v1/chat/completions", {"model": "m", "messages": HELLO} | fields)
    assert (reply.status_code, mock.seen) == (400, [])


@pytest.mark.parametrize("path", ["completions", "embeddings"])
def test_other_parts_of_the_api_reach_the_backend_and_are_not_recorded(gateway, mock, path):
    answer = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}
    mock.behaviour = lambda body: Raw(
        json.dumps(answer).encode(), headers={"Content-Type": "application/json"}
    )
    reply = gateway.post(f"/v1/{path}", {"model": "m", "input": "x", "odd": {"a": [1]}})
    assert (reply.status_code, reply.json()) == (200, answer)
    assert mock.paths == [f"/v1/{path}"]
    assert mock.seen == [{"model": "m", "input": "x", "odd": {"a": [1]}}]
    assert gateway.interactions() == []


def test_the_routing_chooses_who_completes_and_leaves_embeddings_alone(gateway, mock):
    gateway.store.append(routing(("router/2", 1.0)))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = lambda body: None if "odd" in body else Raw(b"{}")
    gateway.post("/v1/responses", {"model": "gpt-4o", "input": "x", "odd": 1})
    for path in ("completions", "embeddings"):
        gateway.post(f"/v1/{path}", {"model": "gpt-4o", "input": "x"})
    gateway.post("/v1/embeddings", {"model": "champion", "input": "x"})
    assert [body["model"] for body in mock.seen] == ["router/2", "router/2", "gpt-4o", "router/2"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 404, 500])
def test_where_the_chosen_version_fails_the_one_before_completes(gateway, mock, status, stream):
    gateway.store.append(routing(("router/2", 1.0), previous="router/1"))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = lambda body: status if body["model"] == "router/2" else Raw(b"{}")
    reply = gateway.post("/v1/completions", {"model": "any", "prompt": "x", "stream": stream})
    assert reply.status_code == 200
    assert [body["model"] for body in mock.seen] == ["router/2", "router/1"]


def test_a_stream_is_passed_on_as_it_comes(gateway, mock):
    pieces = b'data: {"a": 1}\n\ndata: [DONE]\n\n'
    mock.behaviour = lambda body: Raw(pieces)
    reply = gateway.post("/v1/completions", {"model": "m", "prompt": "x", "stream": True})
    assert (reply.content, reply.headers["content-type"].split(";")[0]) == (
        pieces, "text/event-stream",
    )  # fmt: skip


@pytest.mark.parametrize(("status", "seen"), [(401, 502), (404, 502), (503, 503), (400, 400)])
def test_refusals_there_have_the_same_status_as_those_of_chats(gateway, mock, status, seen):
    mock.behaviour = lambda body: status
    reply = gateway.post("/v1/embeddings", {"model": "m", "input": "x"})
    assert (reply.status_code, "planned" in reply.json()["error"]["message"]) == (seen, True)


@pytest.mark.parametrize("body", [[1], {"input": "x"}, {"model": 5}])
def test_a_body_without_a_model_is_refused(gateway, body):
    assert gateway.post("/v1/completions", body).status_code == 400


def test_one_model_is_told_by_gateway_or_backend(gateway, mock):
    gateway.store.append(routing(("router/2", 1.0)))
    gateway.app.state.gateway.router.refresh()
    assert gateway.get("/v1/models/router/2").json()["owned_by"] == "ratchet"
    assert gateway.get("/v1/models/champion").json()["id"] == "champion"
    mock.behaviour = lambda body: Raw(b'{"id": "base", "object": "model"}')
    assert gateway.get("/v1/models/org/base").json() == {"id": "base", "object": "model"}
    assert mock.paths == ["/v1/models/org/base"]
    mock.behaviour = lambda body: 404
    reply = gateway.get("/v1/models/nobodys")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


def test_a_page_can_read_that_its_request_was_too_long(serve, mock):
    gateway = serve(backend=mock.url, most_bytes=2_000, origins=("https://shop.example",))
    headers = {"origin": "https://shop.example"}
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 3_000}]}
    for refused in (
        gateway.post("/v1/chat/completions", body, headers=headers),
        gateway.client.post(
            f"{gateway.url}/v1/feedback", content=(b"x" * 500 for _ in range(9)), headers=headers
        ),
    ):
        assert refused.status_code == 413
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        assert "retry-after" in refused.headers["access-control-expose-headers"]
    foreign = gateway.post(
        "/v1/chat/completions", {}, headers={"origin": "https://elsewhere.example"}
    )
    assert foreign.status_code == 403
    assert "access-control-allow-origin" not in foreign.headers
