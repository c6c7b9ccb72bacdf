"""Every failed attempt counts against the version that failed, for users, records and rollouts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from ratchet.deploy.rollout.canary import start_rollout, take_look
from ratchet.deploy.routing import current_routing
from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.store import Window
from ratchet.views.text.timeline import moments_between
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released
from tests.gateway.conftest import ALWAYS, routing
from tests.servers.mock_backend import MockBackend, Raw


def chunk(delta, reason=None):
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}


def event(value, name=None):
    head = b"" if name is None else f"event: {name}\n".encode()
    text = value if isinstance(value, str) else json.dumps(value)
    return head + b"data: " + text.encode() + b"\n\n"


HELLO, END = event(chunk({"content": "hel"})), event(chunk({}, "stop"))
DONE = b"data: [DONE]\n\n"
HUGE = event(chunk({"content": "x" * 4_100_000}))

BROKEN_EVENTS = {
    "error object": event({"error": {"message": "boom", "code": 500}}),
    "error text": event({"error": "boom"}),
    "error event": event({"error": {"message": "boom"}}, "error"),
    "error event in plain text": event("boom", "error"),
    "error beside choices": event(chunk({"content": "x"}) | {"error": {"message": "boom"}}),
    "no JSON": event("{boom"),
    "a list": event([1]),
    "no choices": event({"id": "c"}),
    "choices of another type": event({"choices": {"0": "boom"}}),
    "a choice that is text": event({"choices": ["boom"]}),
    "a delta that is text": event({"choices": [{"index": 0, "delta": "boom"}]}),
    "content that is a number": event({"choices": [{"index": 0, "delta": {"content": 7}}]}),
    "a part that is text": event({"choices": [{"delta": {"content": ["boom"]}}]}),
    "tool calls that are text": event({"choices": [{"delta": {"tool_calls": ["boom"]}}]}),
    "an index that is text": event({"choices": [{"index": "0", "delta": {"content": "x"}}]}),
    "lone surrogate": event('{"choices": [{"index": 0, "delta": {"content": "\\ud800"}}]}'),
    "lone low surrogate": event('{"choices": [{"index": 0, "delta": {"content": "\\udc00x"}}]}'),
    "NaN": event('{"choices": [], "score": NaN}'),
    "Infinity": event('{"choices": [], "score": -Infinity}'),
    "finish reason error": event(chunk({}, "error")),
    "finish reason abort": event(chunk({}, "abort")),
    "longer than the limit": HUGE,
    "no UTF-8": b'data: {"choices": [], "x": "\xff"}\n\n',
}


def ask(gateway, *, stream=True, user="ann", **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream,
            "user": user} | fields  # fmt: skip
    return gateway.post("/v1/chat/completions", body)


def sent(reply):
    """The text of a stream, its error, and whether it ended as a whole one."""
    events = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    values = [json.loads(text) for text in events if text != "[DONE]"]
    text = "".join(
        choice["delta"].get("content") or "" for v in values for choice in v.get("choices", ())
    )
    error = next((v["error"]["message"] for v in values if "error" in v), None)
    return text, error, "[DONE]" in events


@pytest.fixture
def canary(serve, mock):
    """Everybody gets router/2, which fails as a test says; router/1 stands by."""

    def started(how, **options):
        gateway = serve(backend=mock.url, rate_per_second=0, **options)
        gateway.store.append(routing(("router/2", 1.0), previous="router/1"))
        gateway.app.state.gateway.router.refresh()
        mock.behaviour = lambda body: how if body["model"] == "router/2" else None
        return gateway

    return started


# Streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BROKEN_EVENTS)
def test_a_stream_whose_first_event_is_broken_is_answered_by_the_version_before(canary, what):
    gateway = canary(Raw(BROKEN_EVENTS[what] + DONE))
    assert sent(ask(gateway)) == ("hi", None, True)
    failed, answered = sorted(gateway.interactions(), key=lambda kept: kept.error is None)
    assert (failed.model_version, failed.response) == ("router/2", "")
    assert (answered.model_version, answered.response) == ("router/1", "hi")


@pytest.mark.parametrize("what", BROKEN_EVENTS)
def test_a_stream_that_breaks_later_tells_its_error_and_is_recorded_with_it(canary, what):
    gateway = canary(Raw(HELLO + BROKEN_EVENTS[what] + END + DONE))
    text, error, whole = sent(ask(gateway))
    assert (text, whole) == ("hel", False)
    assert error
    (kept,) = gateway.interactions()
    assert (kept.model_version, kept.response, kept.error) == ("router/2", "hel", error)
    assert kept.metadata.get("finish_reason") != "stop"


@pytest.mark.parametrize(
    ("body", "text"),
    [(b"", ""), (DONE, ""), (b": only a comment\n\n", ""), (b'{"error": "no stream"}', "")],
)
def test_a_stream_without_any_chunk_has_failed(canary, body, text):
    gateway = canary(Raw(body))
    assert sent(ask(gateway)) == ("hi", None, True)
    assert [kept.model_version for kept in gateway.interactions() if kept.error] == ["router/2"]


def test_a_stream_that_ends_without_reason_and_done_is_broken(canary):
    gateway = canary(Raw(HELLO))
    text, error, whole = sent(ask(gateway))
    assert (text, whole) == ("hel", False)
    assert "before the answer was finished" in error
    (kept,) = gateway.interactions()
    assert (kept.response, kept.error) == ("hel", error)


OTHER_ENDS = event({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]})
OTHER_BEGINS = event({"choices": [{"index": 1, "delta": {"content": "x"}}]})


@pytest.mark.parametrize("body", [HELLO + OTHER_ENDS, HELLO + OTHER_BEGINS + END])
def test_a_stream_of_several_answers_is_broken_where_one_of_them_is_not_finished(canary, body):
    gateway = canary(Raw(body))
    text, error, whole = sent(ask(gateway, n=2))
    assert (text.startswith("hel"), whole) == (True, False)
    assert "before the answer was finished" in error
    (kept,) = gateway.interactions()
    assert (kept.response, kept.error) == ("hel", error)


def test_each_of_several_answers_may_end_at_its_own_time(canary):
    gateway = canary(Raw(HELLO + OTHER_BEGINS + END + OTHER_ENDS))
    assert sent(ask(gateway, n=2)) == ("helx", None, True)


def test_a_byte_order_mark_before_a_stream_costs_no_event(canary):
    gateway = canary(Raw(b"\xef\xbb\xbf" + HELLO + END + DONE))
    assert sent(ask(gateway)) == ("hel", None, True)


@pytest.mark.parametrize("body", [HELLO + END, HELLO + DONE])
def test_a_finish_reason_or_done_alone_ends_a_stream(canary, body):
    gateway = canary(Raw(body))
    assert sent(ask(gateway)) == ("hel", None, True)
    (kept,) = gateway.interactions()
    assert kept.error is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_may_have_several_lines_comments_and_any_line_end(canary, end):
    lines = [
        b": ping", b"", b"id: 7", b"event: message", b'data: {"choices": [{"index": 0,',
        b'data:"delta": {"content": "one"}}]}', b"retry: 5", b"", b"", END.strip(), b"", DONE,
    ]  # fmt: skip
    gateway = canary(Raw(end.join(lines)))
    assert sent(ask(gateway)) == ("one", None, True)


def test_an_event_longer_than_a_network_read_is_passed_on_whole(canary):
    text = "ä" * 300_000
    gateway = canary(Raw(event(chunk({"content": text})) + END + DONE))
    assert sent(ask(gateway)) == (text, None, True)


def test_a_silent_stream_has_failed_and_one_that_goes_on_slowly_has_not(canary, mock):
    gateway = canary(Raw(HELLO, goes_on=True), stall_seconds=0.3)
    text, error, _ = sent(ask(gateway))
    assert (text, error) == ("hel", "backend said nothing for 0.3 s")


# Whole answers ------------------------------------------------------------------------------------

ANSWER = {"id": "a", "object": "chat.completion", "created": 1, "model": "m"}
BROKEN_ANSWERS = {
    "no JSON": b"<html>boom</html>",
    "error under 200": b'{"error": {"message": "boom"}}',
    "no choices": json.dumps(ANSWER | {"choices": []}).encode(),
    "choices null": json.dumps(ANSWER | {"choices": None}).encode(),
    "no message": json.dumps(ANSWER | {"choices": [{"index": 0}]}).encode(),
    "content that is a number": json.dumps(
        ANSWER | {"choices": [{"index": 0, "message": {"content": 5}}]}
    ).encode(),
    "NaN": b'{"choices": [{"index": 0, "message": {"content": "x"}}], "score": NaN}',
    "lone surrogate": b'{"choices": [{"index": 0, "message": {"content": "\\udfff"}}]}',
    "a part that is text": json.dumps(
        ANSWER | {"choices": [{"index": 0, "message": {"content": ["boom"]}}]}
    ).encode(),
    "a part that is null": json.dumps(
        ANSWER | {"choices": [{"index": 0, "message": {"content": [{"text": "x"}, None]}}]}
    ).encode(),
    "aborted": json.dumps(
        ANSWER | {"choices": [{"message": {"content": "x"}, "finish_reason": "abort"}]}
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN_ANSWERS)
def test_an_answer_that_is_none_is_given_by_the_version_before(canary, what):
    gateway = canary(Raw(BROKEN_ANSWERS[what], headers={"Content-Type": "application/json"}))
    reply = ask(gateway, stream=False)
    assert reply.json()["model"] == "router/1"
    assert [kept.model_version for kept in gateway.interactions() if kept.error] == ["router/2"]


def test_a_number_too_large_for_json_readers_reaches_no_client(canary):
    body = {"choices": [{"index": 0, "message": {"content": "x"}, "logprobs": "BIG"}]}
    gateway = canary(Raw(json.dumps(body).replace('"BIG"', "1e999").encode()))
    reply = ask(gateway, stream=False)
    assert json.loads(reply.text, parse_constant=pytest.fail)["choices"][0]["logprobs"] is None


def test_a_whole_answer_has_a_limit_of_its_own(canary, mock):
    gateway = canary(None, stall_seconds=0.2, answer_seconds=5.0)
    mock.delay = 0.6  # silent for longer than a stream may be
    assert ask(gateway, stream=False).json()["model"] == "router/2"


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 409, 410, 451, 500, 501, 529])
def test_what_a_backend_has_against_the_gateway_is_never_the_users_status(
    serve, mock, status, stream
):
    mock.behaviour = lambda body: status
    gateway = serve(backend=mock.url)
    assert ask(gateway, stream=stream).status_code in (502, 503)
    (kept,) = gateway.interactions()
    assert (kept.model_version, f"HTTP {status}" in kept.error) == ("m", True)


def test_an_adapter_that_the_backend_lacks_costs_no_user_an_answer_and_is_recorded(serve, mock):
    gateway = serve(backend=mock.url, rate_per_second=0)
    gateway.store.append(routing(("m/2", 0.5), ("m/1", 0.5), previous="m/1"))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = lambda body: 404 if body["model"] == "m/2" else None
    for number in range(60):
        assert ask(gateway, user=f"u{number}", stream=number % 2 == 0).status_code == 200
    asked = [body["model"] for body in mock.seen]
    failed = [kept for kept in gateway.interactions() if kept.error]
    assert 0 < asked.count("m/2") == len(failed)
    assert {(kept.model_version, kept.metadata["arm"]) for kept in failed} == {("m/2", "m/2")}
    assert gateway.get("/healthz").json()["status"] == "degraded"


@pytest.mark.parametrize("status", [401, 404])
@pytest.mark.parametrize("stream", [False, True])
def test_without_a_version_before_the_fallback_answers(serve, mock, status, stream):
    with MockBackend() as spare:
        gateway = serve(backend=mock.url, fallback=spare.url)
        mock.behaviour = lambda body: status
        assert ask(gateway, stream=stream).status_code == 200
        assert len(spare.seen) == 1
    assert [f"HTTP {status}" in (kept.error or "") for kept in gateway.interactions()].count(True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_users_own_bad_request_is_told_to_the_user_and_kept_apart(canary, status, stream):
    error = {"message": "temperature must be at most 2", "param": "temperature", "code": "value"}
    gateway = canary(Raw(json.dumps({"error": error}).encode(), status))
    reply = ask(gateway, stream=stream, user="bad one")
    assert (reply.status_code, reply.json()["error"] | error) == (
        status, reply.json()["error"]
    )  # fmt: skip
    assert gateway.interactions() == []
    ((reason, count),) = gateway.store.set_aside_reasons().items()
    assert (f"HTTP {status}" in reason, count) == (True, 1)
    assert gateway.get("/healthz").json()["versions"]["router/2"] == {"answered": 0, "failed": 0}


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "bad", "param": "model", "code": 400}},
        {"error": {"message": "x", "code": "model_not_found"}},
        {"message": "The following requested LoRA adapters are not loaded: router/2"},
        {"error": {"message": "/chat/completions: Invalid model name passed in model=router/2"}},
        {"detail": "Model router/2 does not exist"},
    ],
)
def test_a_400_about_the_model_is_no_fault_of_the_user(canary, body):
    gateway = canary(Raw(json.dumps(body).encode(), 400))
    assert ask(gateway, stream=False).json()["model"] == "router/1"


def test_what_a_user_sent_that_was_refused_is_forgotten_with_the_user(canary, tmp_path):
    from ratchet.store.forget import forget

    gateway = canary(400)
    ask(gateway, user="Jörg")
    gateway.settle()
    forget(gateway.store, tmp_path, "Jörg", now=datetime.now(UTC), text_key=str)
    assert gateway.store.counts()["set_aside"] == 0


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["17", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_the_time_to_wait_is_passed_on(serve, mock, status, wait):
    mock.behaviour = lambda body: Raw(b"{}", status, {"Retry-After": wait})
    gateway = serve(backend=mock.url)
    reply = ask(gateway, stream=False)
    assert (reply.status_code, reply.headers["retry-after"]) == (status, wait)


# Health and circuits ------------------------------------------------------------------------------


def test_one_users_failures_take_a_version_from_nobody(canary, mock):
    gateway = canary(500)
    for _ in range(10):
        ask(gateway, user="unlucky", stream=False)
    mock.behaviour = lambda body: None
    assert ask(gateway, user="other", stream=False).json()["model"] == "router/2"


def test_failures_of_several_callers_leave_a_version_alone(canary, mock):
    gateway = canary(500)
    for user in "abc":
        ask(gateway, user=user, stream=False)
    mock.behaviour = lambda body: None
    assert ask(gateway, user="d", stream=False).json()["model"] == "router/1"
    health = gateway.get("/healthz")
    # users are answered, so the gateway stays in service, and says what fails
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["versions"] == {
        "router/2": {"answered": 0, "failed": 3}, "router/1": {"answered": 4, "failed": 0},
    }  # fmt: skip


def test_one_failed_request_is_not_unhealthy_for_good(gateway, mock):
    mock.behaviour = lambda body: 500
    ask(gateway, stream=False)
    assert gateway.get("/healthz").status_code == 503
    mock.behaviour = lambda body: None
    ask(gateway, stream=False)
    assert (gateway.get("/healthz").status_code, gateway.get("/healthz").json()["status"]) == (
        200, "ok",
    )  # fmt: skip


# In timeline, error rate and rollout --------------------------------------------------------------


def leave(gateway, user):
    """Ask and leave before the answer."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "user": user}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=0.15)


SORTS = {
    "HTTP 404": (404, ask),
    "HTTP 401": (401, ask),
    "HTTP 403": (403, ask),
    "an error": (Raw(BROKEN_EVENTS["error object"]), ask),
    "an error ": (Raw(HELLO + BROKEN_EVENTS["error event"]), ask),
    "before the answer was finished": (Raw(HELLO), ask),
    "has more than": (Raw(HELLO + HUGE), ask),
    "another shape": (Raw(HELLO + BROKEN_EVENTS["a choice that is text"]), ask),
    "not JSON": (Raw(HELLO + BROKEN_EVENTS["lone surrogate"]), ask),
    "not JSON ": (Raw(BROKEN_ANSWERS["NaN"]), lambda g, user: ask(g, user=user, stream=False)),
    "the client left": ("stall", leave),
}


@pytest.mark.mostly_slow("HTTP 401", "not JSON")
@pytest.mark.parametrize("reason", SORTS)
def test_a_failed_attempt_is_in_timeline_error_rate_and_rollout(serve, mock, reason):
    how, send = SORTS[reason]
    gateway = serve(backend=mock.url, rate_per_second=0)
    start = datetime.now(UTC)
    released(gateway.store, start)
    rollout = start_rollout(gateway.store, NEW_VARIANT, PLAN, now=start - timedelta(minutes=1))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = lambda body: how if body["model"] == NEW else None
    route = current_routing(gateway.store)
    by_arm = {NEW: [], OLD: []}
    for number in range(200):
        user = f"user-{number}"
        by_arm[route.choose(user).version].append(user)
    for user in by_arm[NEW][:10]:
        send(gateway, user=user)
    for user in by_arm[OLD][:20]:
        ask(gateway, user=user, stream=False)
    for _ in range(100):  # a client that left is recorded when the gateway notices
        failed = [
            kept for kept in gateway.interactions() if kept.created_at >= start and kept.error
        ]
        if reason != "the client left" or len(failed) == 10:
            break
    # a version is left alone after three failures, and its users are answered by the other one
    assert len(failed) >= 3
    assert {kept.model_version for kept in failed} == {NEW}
    assert all(reason.strip() in kept.error for kept in failed)

    now = datetime.now(UTC) + timedelta(seconds=1)
    told = [m for m in moments_between(gateway.store, since=start, until=now) if m.what == "failed"]
    assert [(m.text.split(", the last")[0], reason.strip() in m.more[0]) for m in told] == [
        (f"failed attempts of {NEW}: {len(failed)}", True)
    ]

    window = Window(start, now, NEW)
    outcomes = join_feedback(gateway.store.interactions(window), gateway.store.feedback(window))
    metrics = experience_metrics(outcomes, quality(outcomes, QualityWeights()))
    (rate,) = [metric for metric in metrics if metric.name == "error_rate"]
    assert (rate.value, rate.observations) == (1.0, len(failed))

    look = take_look(gateway.store, rollout, now + timedelta(hours=1))
    (readout,) = [found for found in look.readouts if found.signal == "failed"]
    assert readout.variant[0] >= 10  # the users of an arm that is left alone are counted too
    assert (readout.says, look.decision) == ("harm", "abort")
    assert gateway.store.interactions(ALWAYS).num_rows
