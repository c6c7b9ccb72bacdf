"""Spans of the gateway reach a collector by OTLP, between the client's and the backend's."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ratchet.gateway.options import GatewayOptions
from ratchet.settings import load_settings
from tests.gateway.conftest import Gateway, running
from tests.servers.mock_backend import MockBackend

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes spans as a collector does, and keeps them."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.keys: list[str | None] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                time.sleep(seconds)
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                collector.keys.append(self.headers.get("authorization"))
                for resource in traces.ExportTraceServiceRequest.FromString(body).resource_spans:
                    named = {a.key: a.value.string_value for a in resource.resource.attributes}
                    collector.services.add(named["service.name"])
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.server.shutdown()
    found.server.server_close()


@contextmanager
def tracing(gate: Any, mock: str, address: str, **more: Any) -> Iterator[Gateway]:
    settings = gate.model_copy(update={"traces": address, **more})
    with running(GatewayOptions(settings=settings, backend=mock)) as gateway:
        yield gateway


def flush(gateway: Gateway) -> None:
    assert gateway.app.state.gateway.answerer.recorder.tracing.provider.force_flush(10_000)


def said(span: Span) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def test_a_request_is_a_span_between_the_clients_and_the_backends(settings, mock, collector):
    with tracing(settings, mock.url, collector.url) as gateway:
        body = {"model": "any", "messages": [{"role": "user", "content": "a secret of mine"}]}
        before = time.time_ns()
        answer = gateway.post(
            "/v1/chat/completions", body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}
        ).json()
        streamed = gateway.post("/v1/chat/completions", body | {"stream": True})
        assert streamed.status_code == 200
        flush(gateway)
        kept = {one.id: one for one in gateway.interactions()}
    first, second = collector.spans
    assert collector.services == {"ratchet-gateway"}
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert first.kind == Span.SPAN_KIND_SERVER
    assert before < first.start_time_unix_nano <= first.end_time_unix_nano < time.time_ns()
    assert said(first)["gen_ai.response.id"] == answer["id"]
    assert said(first)["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]
    assert first.name == f"chat {answer['ratchet']['version']}"
    sent = [headers["traceparent"] for headers in mock.headers]
    assert sent[0] == f"00-{TRACE}-{first.span_id.hex()}-01"
    assert sent[1].startswith(f"00-{second.trace_id.hex()}-{second.span_id.hex()}-")
    assert second.trace_id.hex() != TRACE
    assert not second.parent_span_id
    assert kept[answer["id"]].metadata["trace_id"] == TRACE
    assert kept[answer["id"]].metadata["span_id"] == PARENT  # as the client sent it
    streamed_id = said(second)["gen_ai.response.id"]
    assert kept[streamed_id].metadata["trace_id"] == second.trace_id.hex()
    assert not any(b"a secret of mine" in span.SerializeToString() for span in collector.spans)


def test_failed_attempts_are_events_and_a_request_nobody_answers_is_an_error(settings, collector):
    with (
        MockBackend(lambda body: 500) as mock,
        tracing(settings, mock.url, collector.url) as gateway,
    ):
        body = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}
        assert gateway.post("/v1/chat/completions", body).status_code == 503
        flush(gateway)
    (span,) = collector.spans
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert [event.name for event in span.events] == ["attempt failed"]


def test_what_was_said_is_sent_only_where_a_setting_asks_for_it(settings, mock, collector):
    with tracing(settings, mock.url, collector.url, traces_content=True) as gateway:
        gateway.ask("where is my parcel?")
        gateway.ask("for a day only", metadata={"retain_days": "1"})
        flush(gateway)
    with_words, without = (said(span) for span in collector.spans)
    part = [{"type": "text", "content": "where is my parcel?"}]  # the mock says what it is told
    assert json.loads(with_words["gen_ai.input.messages"]) == [{"role": "user", "parts": part}]
    assert json.loads(with_words["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": part}
    ]
    assert not {"gen_ai.input.messages", "gen_ai.output.messages"} & set(without)


def test_ratchets_own_receiver_takes_them_and_counts_no_answer_twice(
    settings, mock, tmp_path: Path, made_store: Path
):
    (tmp_path / "other").mkdir(mode=0o700)
    shutil.copyfile(made_store, tmp_path / "other" / "store.db")
    other = load_settings({"RATCHET_HOME": str(tmp_path / "other")}, tmp_path)
    with (
        running(GatewayOptions(settings=other, backend=mock.url)) as receiver,
        tracing(settings, mock.url, receiver.url, traces_content=True) as gateway,
    ):
        gateway.ask("where is my parcel?")
        flush(gateway)
        told = receiver.get("/healthz").json()["telemetry"]
        assert not receiver.interactions()
    assert told == {"passed: an answer of this gateway, which recorded it when it gave it": 1}


def test_a_collector_that_is_away_or_slow_makes_nobody_wait(settings, mock):
    slow = Collector(seconds=3.0)
    for address in (slow.url, "http://127.0.0.1:9"):
        with tracing(settings, mock.url, address) as gateway:
            gateway.ask()
            began = time.monotonic()
            for _ in range(20):
                gateway.ask()
            assert time.monotonic() - began < 2.5
            assert len(gateway.interactions()) >= 21
    slow.server.shutdown()
    slow.server.server_close()


def test_a_key_is_sent_and_nothing_is_made_without_the_setting(
    settings, mock, collector, monkeypatch
):
    monkeypatch.setenv("RATCHET_TRACES_KEY", "k-1")
    with tracing(settings, mock.url, collector.url) as gateway:
        gateway.ask()
        flush(gateway)
    assert collector.keys == ["Bearer k-1"]
    with running(GatewayOptions(settings=settings, backend=mock.url)) as gateway:
        gateway.ask()
        assert gateway.app.state.gateway.answerer.recorder.tracing is None
        assert "traceparent" not in mock.headers[-1]
    assert len(collector.spans) == 1
