"""What a backend may not do to the gateway, and what users are not told of it."""

from __future__ import annotations

import gzip
import json
import resource

import httpx
import pytest

from ratchet.gateway.addresses import without_addresses
from ratchet.gateway.http_backend import HttpBackend
from tests.servers.mock_backend import MockBackend, Raw

ASK = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
JSON = {"content-type": "application/json"}
INSIDE = (
    "http://10.0.0.5:8001/v1", "https://vllm:8000/x?y=z", "10.0.0.5", "10.0.0.5:8001",
    "http://user:word@vllm.example.com/v1", "http://vllm-0.vllm.svc.cluster.local",
    "[fe80::1]:8000", "127.0.0.1:1",
    "fe80::1", "2001:db8::5", "vllm-0.vllm.models.svc", "gpu1.internal", "gpu1.corp:8000",
    "localhost:8000", "gpu1.example.com:8000", "redis://cache:6379/0", "::1", "[::1]",
    "http://gpu1/v1", "grpc://169.254.169.254/latest",
)  # fmt: skip
OUTSIDE = (
    "see https://platform.openai.com/docs/errors#x", "max_tokens 4096", "at 12:30:05", "1.5 of 2.0",
    "std::vector::at", 'in "messages.0.content"', "https://cats.example/cat.png?size=2",
    "version 1.2.3", "llama3:70b", "support-router/3", "2026-11-24T09:00:00Z",
)  # fmt: skip


def planned(reply):
    return MockBackend(lambda body: reply)


def bomb(megabytes: int) -> bytes:
    return gzip.compress(b'{"choices":[' + b" " * (megabytes << 20) + b"]}", 9)


@pytest.mark.mostly_slow("/v1/chat/completions-True")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_answer_has_a_size_when_it_is_unpacked(serve, path, stream):
    packed = bomb(200)
    assert len(packed) < 300_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with planned(Raw(packed, headers=JSON | {"content-encoding": "gzip"})) as mock:
        gateway = serve(backend=mock.url, most_answer_bytes=10_000_000)
        if path == "/v1/completions" and not stream:  # what was begun can only break off
            with pytest.raises(httpx.RemoteProtocolError):
                gateway.post(path, ASK | {"prompt": "x"})
        else:
            reply = gateway.post(path, ASK | {"prompt": "x", "stream": stream})
            assert len(reply.content) < 12_000_000
            told = reply.content[-2_000:]
            assert b"at most 10,000,000 bytes" in told or b"more than 4,000,000 bytes" in told
        assert gateway.get("/healthz").status_code in (200, 503)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 120_000, f"{grown} KiB"


def test_a_refusal_is_not_read_to_its_end(serve):
    with planned(Raw(b"x" * 30_000_000, status=500, headers=JSON)) as mock:
        gateway = serve(backend=mock.url)
        reply = gateway.post("/v1/chat/completions", ASK)
        assert reply.status_code == 503
        assert len(reply.content) < 5_000


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("depth", [500, 100_000])
def test_json_has_a_depth(serve, depth):
    answer = {
        "id": "1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}],
    }
    deep = json.dumps(answer)[:-1] + f', "more": {nested(depth)}' + "}"
    body = json.dumps(ASK)[:-1] + f', "metadata": {nested(depth)}' + "}"
    event = '{"id":"a","interaction_id":"b","kind":"thumbs","value":' + nested(depth) + "}"
    with planned(Raw(deep.encode(), headers=JSON)) as mock:
        gateway = serve(backend=mock.url)
        for path, content in (
            ("/v1/chat/completions", body),
            ("/v1/embeddings", body),
            ("/v1/feedback", event),
            ("/v1/feedback", f'{{"events":[{event}]}}'),
        ):
            reply = gateway.client.post(gateway.url + path, content=content)
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_json")
        reply = gateway.post("/v1/chat/completions", ASK)
        assert reply.status_code == 503
        assert "recursion limit" in reply.json()["error"]["message"]


def test_json_as_deep_as_is_read_comes_through_whole(serve):
    given = nested(150)
    body = json.dumps(ASK)[:-1] + f', "more": {given}, "metadata": {{"a": {given}}}' + "}"
    with MockBackend() as mock:
        gateway = serve(backend=mock.url)
        reply = gateway.client.post(gateway.url + "/v1/chat/completions", content=body)
        assert reply.status_code == 200
        assert json.dumps(mock.seen[-1]["more"]).replace(" ", "") == given


@pytest.mark.parametrize("text", INSIDE)
def test_users_are_not_told_where_machines_stand(text):
    for said in (text, f"cannot reach {text}.", f"({text})", f"upstream={text}, try again"):
        kept = without_addresses(said)
        assert "[address]" in kept
        assert not any(part in kept for part in ("10.0", "vllm", "gpu1", "8000", "db8", "fe80"))


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_is_no_address_of_a_machine_stays(text):
    assert without_addresses(text) == text


@pytest.mark.parametrize("stream", [False, True])
def test_a_backend_that_is_down_is_told_of_without_its_address(serve, stream):
    gateway = serve(backend="http://127.0.0.1:9")
    for path in ("/v1/chat/completions", "/v1/completions"):
        reply = gateway.post(path, ASK | {"prompt": "x", "stream": stream})
        assert reply.status_code == 503
        assert "127.0.0.1" not in reply.text
        assert "cannot be asked" in reply.text
    (recorded,) = {row.error for row in gateway.interactions()}
    assert "127.0.0.1" in recorded  # who looks after it is told


@pytest.mark.parametrize("status", [400, 422, 500, 502])
def test_what_a_backend_says_is_told_without_its_address(serve, status):
    said = {"error": {"message": "upstream http://gpu1:8000/v1 (10.0.0.5) failed at 127.0.0.1"}}
    with planned(Raw(json.dumps(said).encode(), status=status, headers=JSON)) as mock:
        reply = serve(backend=mock.url).post("/v1/chat/completions", ASK)
    assert reply.status_code >= 400
    assert "failed" in reply.text
    assert not any(part in reply.text for part in ("gpu1", "10.0.0.5", "127.0.0.1", "8000"))


def test_the_backends_own_name_is_left_out_wherever_it_stands():
    backend = HttpBackend("http://models.example.com/v1")
    assert without_addresses("models.example.com says no", backend.own) == "[address] says no"


def test_only_named_fields_are_passed_on_where_they_are_named(serve, mock):
    gateway = serve(backend=mock.url, passed_fields=("tools",))
    assert gateway.post("/v1/chat/completions", ASK | {"tools": []}).status_code == 200
    assert gateway.post("/v1/chat/completions", ASK | {"temperature": 0.5}).status_code == 200
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        refused = gateway.post(path, ASK | {"prompt": "x", "guided_regex": "(a+)+"})
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("field_not_allowed", "guided_regex")
    assert all("guided_regex" not in body for body in mock.seen)
    everything = serve(backend=mock.url)
    assert everything.post("/v1/chat/completions", ASK | {"guided_regex": "a"}).status_code == 200
