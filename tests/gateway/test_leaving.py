"""A client that leaves before it is answered."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest

from tests.servers.mock_backend import Raw


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("stream", [False, True])
def test_the_backend_stops_and_the_record_says_that_the_client_left(gateway, mock, stream):
    mock.behaviour = lambda body: "stall"
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=0.3)
    until(lambda: mock.left == 1)
    until(gateway.interactions)
    (kept,) = gateway.interactions()
    assert kept.metadata["finish_reason"] == "disconnected"
    assert "the client left after" in kept.error
    assert kept.response == ""


def test_the_version_that_was_asked_last_is_the_one_that_was_left(gateway, mock):
    from tests.gateway.conftest import routing

    gateway.store.append(routing(("router/2", 1.0), previous="router/1"))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = lambda body: 500 if body["model"] == "router/2" else "stall"
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=0.4)
    until(lambda: len(gateway.interactions()) == 2)
    assert {kept.model_version: "left" in kept.error for kept in gateway.interactions()} == {
        "router/2": False, "router/1": True,
    }  # fmt: skip


def test_a_client_that_leaves_a_stream_leaves_what_was_sent_and_the_backend_stops(gateway, mock):
    first = b'data: {"choices": [{"index": 0, "delta": {"content": "one"}}]}\n\n'
    mock.behaviour = lambda body: Raw(first, goes_on=True)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as reply:
        next(reply.iter_bytes())
    until(gateway.interactions)
    (kept,) = gateway.interactions()
    # the user saw a part and stopped: no failure of the version, and no whole answer either
    assert (kept.response, kept.error) == ("one", None)
    assert kept.metadata["finish_reason"] == "disconnected"
    until(lambda: not mock.open)


def test_a_client_that_stays_is_answered_however_long_it_takes(gateway, mock):
    mock.delay = 0.4
    assert gateway.ask()["choices"][0]["message"]["content"] == "hello"
    (kept,) = gateway.interactions()
    assert (kept.error, kept.metadata["finish_reason"]) == (None, "stop")


@pytest.mark.parametrize("path", ["completions", "embeddings", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_backend_stops_too_where_the_request_was_passed_on(gateway, mock, path, stream):
    mock.behaviour = lambda body: "stall"
    body = {"model": "m", "input": "hi", "stream": stream}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/{path}", json=body, timeout=0.3)
    until(lambda: mock.left == 1)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "feedback"])
def test_a_client_that_leaves_half_way_through_its_request_is_no_error_of_the_gateway(
    gateway, mock, caplog, path
):
    host, port = gateway.url.removeprefix("http://").split(":")
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + json.dumps({"model": "m"}).encode())
        time.sleep(0.1)
    time.sleep(0.2)
    assert gateway.get("/healthz").status_code == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    assert mock.seen == []
