"""Chats through the gateway: as clients see them, and as the store holds them."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from ratchet.records import Release, Routing, RoutingFollowed, ServedName, Variant
from tests.gateway.conftest import routing

openai = pytest.importorskip("openai")


def client(gateway, **options):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="anything", max_retries=0, **options)


SAID = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "wo ist meine Köfte"},
]


def test_the_official_client_gets_an_answer_and_the_store_its_interaction(gateway):
    done = client(gateway).chat.completions.create(
        model="gpt-4o-mini", messages=SAID, user="ana", temperature=0.5
    )
    assert done.choices[0].message.content == "wo ist meine Köfte"
    assert done.usage.total_tokens == 7
    (kept,) = gateway.interactions()
    assert kept.id == done.id
    assert [m.canonical() for m in kept.messages] == SAID
    assert kept.response == "wo ist meine Köfte"
    assert (kept.user_id, kept.error, kept.segment) == ("ana", None, "all")
    assert kept.metadata["requested_model"] == "gpt-4o-mini"
    assert kept.metadata["temperature"] == "0.5"
    assert 0 < kept.latency_seconds < 10


def test_the_official_client_streams_and_the_store_holds_the_whole_answer(gateway):
    stream = client(gateway).chat.completions.create(
        model="gpt-4o-mini", messages=SAID, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "wo ist meine Köfte"
    assert len(chunks) > 3
    (kept,) = gateway.interactions()
    assert {c.id for c in chunks} == {kept.id}
    assert kept.response == text
    assert kept.metadata["finish_reason"] == "stop"


def test_the_async_client_is_served_while_others_wait(gateway):
    import asyncio

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x") as asking:
            calls = [
                asking.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": f"q{n}"}]
                )
                for n in range(20)
            ]
            return await asyncio.gather(*calls)

    answers = asyncio.run(ask())
    assert [a.choices[0].message.content for a in answers] == [f"q{n}" for n in range(20)]
    assert sorted(i.id for i in gateway.interactions()) == sorted(a.id for a in answers)


def test_the_client_lists_models(gateway):
    gateway.store.append(routing(("router/2", 0.05), ("router/1", 0.95), previous="router/0"))
    gateway.app.state.gateway.router.refresh()
    names = [model.id for model in client(gateway).models.list()]
    assert names == ["champion", "challenger", "previous", "router/2", "router/1", "router/0"]


def test_errors_reach_the_client_as_its_own_exceptions(serve, mock):
    gateway = serve(backend=mock.url, most_bytes=5_000)
    with pytest.raises(openai.BadRequestError, match="messages"):
        client(gateway).chat.completions.create(model="m", messages=[])
    mock.behaviour = lambda body: 422
    with pytest.raises(openai.UnprocessableEntityError, match="planned 422"):
        client(gateway).chat.completions.create(model="m", messages=SAID)
    mock.behaviour = lambda body: 401  # of the gateway's own key, which is no matter of the user's
    with pytest.raises(openai.InternalServerError, match=r"502.*planned 401"):
        client(gateway).chat.completions.create(model="m", messages=SAID)
    mock.behaviour = lambda body: 500
    with pytest.raises(openai.InternalServerError, match="planned 500"):
        client(gateway).chat.completions.create(model="m", messages=SAID)
    with pytest.raises(openai.APIStatusError, match="at most 5,000 bytes"):
        client(gateway).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x" * 6_000}]
        )
    with pytest.raises(openai.NotFoundError):
        client(gateway).moderations.create(model="m", input="x")


def test_an_unannounced_body_is_measured_too(serve, mock):
    gateway = serve(backend=mock.url, most_bytes=5_000)
    reply = httpx.post(
        f"{gateway.url}/v1/chat/completions", content=(b"x" * 1_000 for _ in range(9))
    )
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "request_too_large"


# Failing over -----------------------------------------------------------------------------------


def failing(*versions, how=500):
    return lambda body: how if body["model"] in versions else None


@pytest.mark.parametrize("how", [401, 403, 404, 410, 500, 429, "drop", "stall"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_version_that_fails_is_replaced_by_the_one_before(serve, mock, how, stream):
    gateway = serve(backend=mock.url, stall_seconds=0.3, answer_seconds=0.3)
    gateway.store.append(routing(("router/2", 1.0), previous="router/1"))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = failing("router/2", how=how)
    if stream:
        chunks = list(
            client(gateway).chat.completions.create(model="m", messages=SAID, stream=True)
        )
        assert {c.model for c in chunks} == {"router/1"}
    else:
        done = client(gateway).chat.completions.create(model="m", messages=SAID)
        assert done.model == "router/1"
    failed, answered = sorted(gateway.interactions(), key=lambda kept: kept.error is None)
    assert (answered.model_version, answered.response) == ("router/1", SAID[1]["content"])
    assert answered.metadata["failed_over_from"] == "backend router/2"
    # the failure counts against the version that failed
    assert (failed.model_version, failed.response) == ("router/2", "")
    assert failed.id == f"{answered.id}-failed-1"


def test_a_second_backend_answers_where_the_first_is_gone(serve, mock):
    gateway = serve(backend="http://127.0.0.1:9", fallback=mock.url, fallback_model="spare")
    assert gateway.ask()["choices"][0]["message"]["content"] == "hello"
    assert mock.seen[-1]["model"] == "spare"
    assert gateway.get("/healthz").json()["backends"] == {"backend": False, "fallback": True}


@pytest.mark.parametrize("stream", [False, True])
def test_what_another_model_answered_is_recorded_as_that_model(serve, mock, stream):
    gateway = serve(backend="http://127.0.0.1:9", fallback=mock.url, fallback_model="spare")
    gateway.store.append(routing(("router/2", 1.0)))
    gateway.app.state.gateway.router.refresh()
    body = {"model": "any", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    reply = gateway.post("/v1/chat/completions", body)
    assert reply.headers["x-ratchet-version"] == "spare"
    failed, answered = sorted(gateway.interactions(), key=lambda kept: kept.error is None)
    assert (failed.model_version, answered.model_version) == ("router/2", "spare")
    assert answered.response == "hi"


def test_a_second_backend_that_has_the_version_itself_answers_as_it(serve, mock):
    gateway = serve(backend="http://127.0.0.1:9", fallback=mock.url, fallback_model="org/base")
    gateway.store.append(routing(("router/2", 1.0)))
    named = ServedName(id="n", created_at=datetime.now(UTC), version="router/2", name="org/base")
    gateway.store.append(named)
    gateway.app.state.gateway.router.refresh()
    assert gateway.ask()["model"] == "router/2"


def test_a_backend_that_keeps_failing_is_left_alone_for_a_while(serve, mock):
    gateway = serve(backend=mock.url)
    gateway.store.append(routing(("router/2", 1.0), previous="router/1"))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = failing("router/2")
    for _ in range(5):
        gateway.ask()
    assert [body["model"] for body in mock.seen].count("router/2") == 3


def test_a_stream_that_breaks_off_says_so_and_is_recorded_with_its_error(gateway, mock):
    mock.behaviour = lambda body: "break"
    with pytest.raises(openai.APIError, match=r"cannot be asked|before the answer was finished"):
        list(client(gateway).chat.completions.create(model="m", messages=SAID, stream=True))
    (kept,) = gateway.interactions()
    assert kept.error is not None
    assert kept.response == SAID[1]["content"]  # what the user saw


def test_a_user_who_leaves_in_the_middle_leaves_what_was_sent(gateway, mock):
    mock.delay = 0.0
    long = "word " * 20_000
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": long}]}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as reply:
        next(reply.iter_bytes())
    for _ in range(100):
        kept = gateway.interactions()
        if kept:
            break
        time.sleep(0.05)
    (kept,) = kept
    assert kept.metadata["finish_reason"] == "disconnected"
    assert 0 < len(kept.response) < len(long)


def test_nobody_answers_is_a_clear_error_and_a_recorded_one(serve):
    gateway = serve(backend="http://127.0.0.1:9")
    reply = gateway.post("/v1/chat/completions", {"model": "m", "messages": SAID})
    assert reply.status_code == 503
    assert reply.json()["error"]["type"] == "server_error"
    (kept,) = gateway.interactions()
    assert "cannot be asked" in kept.error
    assert gateway.get("/healthz").status_code == 503


@contextmanager
def answering(status, body=b"", **headers):
    """A server that gives every request the same reply, and the headers that it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(dict(self.headers))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", seen
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("stream", [False, True])
def test_a_redirect_of_a_backend_is_not_followed_so_that_no_key_goes_elsewhere(
    serve, mock, status, stream
):
    with answering(status, Location=f"{mock.url}/v1/chat/completions") as (url, seen):
        gateway = serve(backend=url, backend_key="open-sesame")
        reply = gateway.post(
            "/v1/chat/completions", {"model": "m", "messages": SAID, "stream": stream}
        )
    assert len(seen) == 1
    assert mock.seen == []
    assert reply.status_code == 503
    assert f"redirects (HTTP {status}), which is not followed" in reply.text


def test_a_backend_that_redirects_is_replaced_by_the_second_one(serve, mock):
    with answering(307, Location="http://127.0.0.1:9") as (url, _):
        gateway = serve(backend=url, fallback=mock.url)
        reply = gateway.post("/v1/chat/completions", {"model": "m", "messages": SAID})
    assert reply.status_code == 200
    assert len(mock.seen) == 1


def test_a_key_that_a_backend_repeats_reaches_nobody(serve, caplog):
    body = b'{"error": {"message": "no such key: open-sesame"}}'
    with answering(401, body) as (url, seen):
        gateway = serve(backend=url, backend_key="open-sesame")
        reply = gateway.post("/v1/chat/completions", {"model": "m", "messages": SAID})
    assert seen[0]["Authorization"] == "Bearer open-sesame"
    assert (reply.status_code, "no such key: ***" in reply.text) == (502, True)
    assert "open-sesame" not in f"{reply.text} {caplog.text}"


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_a_backend_is_named_with_its_version_or_without(serve, mock, suffix):
    gateway = serve(backend=mock.url + suffix)
    assert gateway.post("/v1/chat/completions", {"model": "m", "messages": SAID}).is_success
    assert mock.paths == ["/v1/chat/completions"]


# Routing ----------------------------------------------------------------------------------------


def test_a_new_routing_is_followed_within_seconds_in_every_process(serve, mock):
    gateways = [serve(backend=mock.url) for _ in range(2)]
    gateways[0].store.append(routing(("router/2", 1.0)))
    until = time.monotonic() + 5
    while {g.ask()["model"] for g in gateways} != {"router/2"}:
        assert time.monotonic() < until, "a routing takes effect within five seconds"
        time.sleep(0.1)
    store = gateways[0].store
    (followed,) = store.records(RoutingFollowed)  # both run in this process
    assert followed.routing_id == store.latest(Routing).id
    assert followed.process.endswith(f":{os.getpid()}")
    assert timedelta(0) <= followed.created_at - store.latest(Routing).created_at < timedelta(0, 5)


def test_a_user_keeps_a_version_and_shares_are_kept(serve, mock):
    gateway = serve(backend=mock.url, rate_per_second=0)
    gateway.store.append(routing(("router/2", 0.25), ("router/1", 0.75)))
    gateway.app.state.gateway.router.refresh()
    answered = {
        user: {gateway.ask(user=user)["model"] for _ in range(2)} for user in map(str, range(40))
    }
    assert all(len(versions) == 1 for versions in answered.values())
    chosen = gateway.app.state.gateway.router.choose
    assert all(versions == {chosen(user)} for user, versions in answered.items())
    kept = gateway.interactions()
    assert {i.metadata["experiment"] for i in kept} == {"e"}
    assert all(i.metadata["arm"] == i.model_version for i in kept)


def test_a_younger_release_overrules_the_routing(gateway):
    gateway.store.append(routing(("router/2", 1.0)))
    gateway.store.append(
        Release(id="x", created_at=datetime.now(UTC), action="rollback", champion="router/1",
                previous=None)
    )  # fmt: skip
    gateway.app.state.gateway.router.refresh()
    assert gateway.ask()["model"] == "router/1"


def test_a_version_asked_for_by_name_answers_itself(gateway):
    gateway.store.append(routing(("router/2", 0.0), ("router/1", 1.0)))
    gateway.app.state.gateway.router.refresh()
    assert gateway.ask(model="router/2")["model"] == "router/2"
    assert gateway.ask(model="challenger")["model"] == "router/2"
    assert gateway.ask(model="gpt-4o")["model"] == "router/1"


def test_a_variant_may_be_a_prompt(gateway, mock):
    arms = (
        Variant(version="router/1", share=1.0, name="short", system_prompt="answer in one word"),
        Variant(version="router/1", share=0.0, name="plain"),
    )
    gateway.store.append(
        Routing(id="p", created_at=datetime.now(UTC), experiment="prompts", variants=arms)
    )
    gateway.app.state.gateway.router.refresh()
    gateway.post("/v1/chat/completions", {"model": "m", "messages": SAID})
    assert mock.seen[-1]["messages"][0]["content"] == "answer in one word"
    (kept,) = gateway.interactions()
    assert kept.metadata["arm"] == "short"
    assert kept.messages[0].content == "answer in one word"


# What is kept -----------------------------------------------------------------------------------


def test_pictures_tools_and_nul_are_kept_as_sent_and_reach_the_backend_as_they_came(gateway, mock):
    messages = [
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": [
            {"type": "text", "text": "see\x00this"},
            {"type": "image_url", "image_url": {"url": "data:x"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "n", "arguments": "{\"a\": 1}"}},
        ]},
        {"role": "tool", "tool_call_id": "t", "content": "42"},
        {"role": "user", "content": "so?"},
    ]  # fmt: skip
    gateway.post("/v1/chat/completions", {"model": "m", "messages": messages, "logit_bias": {}})
    assert mock.seen[-1]["messages"] == messages
    assert mock.seen[-1]["logit_bias"] == {}
    (kept,) = gateway.interactions()
    messages[1]["content"][0]["text"] = "see\ufffdthis"
    assert [m.canonical() for m in kept.messages] == messages
    assert kept.metadata["altered"] == "NUL became U+FFFD"


def test_a_turn_of_another_shape_than_openais_is_kept_in_words(gateway):
    messages = [
        {"role": "assistant", "content": "before", "tool_calls": [{"id": "t"}]},
        {"role": "user", "content": "so?"},
    ]
    gateway.post("/v1/chat/completions", {"model": "m", "messages": messages})
    (kept,) = gateway.interactions()
    assert [m.text for m in kept.messages] == ["before", "so?"]
    assert json.loads(kept.messages[0].canonical()["as_sent"]) == messages[0]
    assert kept.metadata["altered"] == "a turn was of another shape than OpenAI's"


def test_a_conversation_longer_than_the_store_takes_is_answered_and_shortened(gateway):
    text = "ä" * 150_000
    assert gateway.ask(text)["choices"][0]["message"]["content"] == text
    (kept,) = gateway.interactions()
    assert len(kept.response) == len(kept.messages[0].content) == 100_000
    assert kept.metadata["shortened"] == "from 150,000 characters"


def test_one_chat_is_one_session_and_strangers_are_apart(gateway):
    first = {"role": "user", "content": "hello"}
    for turns in ([first], [first, {"role": "assistant", "content": "hello"}, first]):
        gateway.post("/v1/chat/completions", {"model": "m", "messages": turns, "user": "ana"})
    gateway.ask()
    gateway.ask()
    gateway.ask(user="ana", metadata={"session_id": "mine"})
    one, two, third, fourth, named = gateway.interactions()
    assert one.session_id == two.session_id
    assert len({one.session_id, third.session_id, fourth.session_id}) == 3
    assert third.user_id != fourth.user_id
    assert (named.user_id, named.session_id) == ("ana", "mine")


def test_answers_go_on_unrated_when_the_log_cannot_be_written(gateway, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    # the disk is the seam: nothing of the package is replaced
    monkeypatch.setattr("os.write", full)
    reply = gateway.post("/v1/chat/completions", {"model": "m", "messages": SAID})
    refused = gateway.post(
        "/v1/feedback", {"id": "f", "interaction_id": "i", "kind": "copy", "value": True}
    )
    health = gateway.get("/healthz")
    monkeypatch.undo()
    assert reply.status_code == 200
    assert reply.headers["x-ratchet-recorded"] == "no"
    assert "x-ratchet-token" not in reply.headers
    assert refused.status_code == 503
    assert health.status_code == 503
    assert gateway.ask()["choices"]
    assert len(gateway.interactions()) == 1
