"""Spans and log records of OpenTelemetry come in over OTLP/HTTP, sent by its real SDK."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.trace import Status, StatusCode

from ratchet.gateway.access import new_key
from ratchet.gateway.erasing import erase_lines
from ratchet.gateway.log_lines import LogKind
from ratchet.store.forget import forget as forget_user
from tests.gateway.test_feedback import lock

QUESTION = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
TOLD = {"role": "assistant", "parts": [{"type": "text", "content": "hello"}]}
ANSWER = json.dumps([TOLD | {"finish_reason": "stop"}])
CHAT = {
    "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2026", "gen_ai.conversation.id": "s-1", "user.id": "ana",
    "gen_ai.input.messages": QUESTION, "gen_ai.output.messages": ANSWER,
}  # fmt: skip
EVALUATION = {
    "gen_ai.evaluation.name": "user_thumbs", "gen_ai.evaluation.score.label": "down",
    "gen_ai.evaluation.explanation": "too short",
}  # fmt: skip
PROTOBUF = {"content-type": "application/x-protobuf"}


class Sent(SimpleSpanProcessor):
    """Remembers how each export ended."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self.results: list[SpanExportResult] = []
        export = exporter.export

        def noted(spans: Any) -> SpanExportResult:
            self.results.append(export(spans))
            return self.results[-1]

        exporter.export = noted  # type: ignore[method-assign]
        super().__init__(exporter)


@contextmanager
def sdk(gateway: Any, **options: Any) -> Iterator[tuple[Any, Sent]]:
    """Yield a tracer that sends to the gateway."""
    exporter = OTLPSpanExporter(endpoint=f"{gateway.url}/v1/traces", timeout=20, **options)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    sent = Sent(exporter)
    provider.add_span_processor(sent)
    yield provider.get_tracer("test"), sent
    provider.shutdown()


def chat(tracer: Any, **attributes: Any) -> Any:
    with tracer.start_as_current_span("chat gpt-4o", attributes={**CHAT, **attributes}) as span:
        return span.get_span_context()


def request_of(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def span(number: int = 1, attributes: dict[str, Any] = CHAT, **more: Any) -> dict[str, Any]:
    end = time.time_ns()
    return {
        "traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": "chat",
        "startTimeUnixNano": str(end - 10**9), "endTimeUnixNano": str(end),
        "attributes": [
            {"key": key, "value": {"stringValue": value}} for key, value in attributes.items()
        ],
    } | more  # fmt: skip


@pytest.mark.parametrize("compression", list(Compression))
def test_the_real_exporter_brings_an_answer(gateway, compression):
    with sdk(gateway, compression=compression) as (tracer, sent):
        chat(tracer)
    assert sent.results == [SpanExportResult.SUCCESS]
    (kept,) = gateway.interactions()
    assert (kept.prompt, kept.response, kept.user_id, kept.session_id, kept.model_version) == (
        "hi", "hello", "ana", "s-1", "gpt-4o-2026"
    )  # fmt: skip
    assert kept.metadata["finish_reason"] == "stop"
    assert kept.metadata["service"] == "shop"


def test_an_evaluation_on_the_answers_span_is_feedback_on_it(gateway):
    with sdk(gateway) as (tracer, _), tracer.start_as_current_span("chat", attributes=CHAT) as one:
        one.add_event("gen_ai.evaluation.result", EVALUATION)
    (kept,) = gateway.interactions()
    found = {row["kind"]: row for row in gateway.feedback()}
    assert {row["interaction_id"] for row in found.values()} == {kept.id}
    assert (found["thumbs"]["number"], found["comment"]["text"]) == (0.0, "too short")


def test_an_evaluation_on_the_request_around_finds_the_answer_that_is_sent_before(gateway):
    with sdk(gateway) as (tracer, _), tracer.start_as_current_span("POST /ask") as around:
        chat(tracer)
        around.add_event("gen_ai.evaluation.result", EVALUATION)
    (kept,) = gateway.interactions()
    assert {row["interaction_id"] for row in gateway.feedback()} == {kept.id}


def test_an_evaluation_by_response_id_waits_for_its_answer(gateway):
    about = {"gen_ai.response.id": "resp-7"}
    with sdk(gateway) as (tracer, _):
        with tracer.start_as_current_span("evaluate") as one:
            one.add_event("gen_ai.evaluation.result", EVALUATION | about)
        gateway.settle()
        chat(tracer, **about)
    (kept,) = gateway.interactions()
    rated = [row for row in gateway.feedback() if row["interaction_id"] == kept.id]
    assert sorted(row["kind"] for row in rated) == ["comment", "thumbs"]


def test_other_spans_are_taken_and_counted(gateway):
    with sdk(gateway) as (tracer, sent):
        with tracer.start_as_current_span("GET /"):
            pass
        with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}):
            pass
    assert sent.results == [SpanExportResult.SUCCESS] * 2
    assert gateway.interactions() == []
    counts = gateway.get("/healthz").json()["telemetry"]
    assert [(name.partition(":")[0], count) for name, count in counts.items()] == [
        ("passed", 1), ("passed", 1)
    ]  # fmt: skip


def test_a_failed_answer_is_an_error(gateway):
    asked = {key: value for key, value in CHAT.items() if key != "gen_ai.output.messages"}
    with sdk(gateway) as (tracer, _), tracer.start_as_current_span("chat", attributes=asked) as one:
        one.set_status(Status(StatusCode.ERROR, "overloaded"))
    (kept,) = gateway.interactions()
    assert (kept.response, kept.error) == ("", "overloaded")


def test_sending_again_changes_nothing(gateway):
    body = request_of(span())
    for _ in range(2):
        assert gateway.post("/v1/traces", body).json() == {}
    assert len(gateway.interactions()) == 1
    assert gateway.store.counts()["set_aside"] == 0


def test_what_cannot_be_stored_is_rejected_and_set_aside(gateway):
    alone = {key: value for key, value in CHAT.items() if key != "gen_ai.input.messages"}
    reply = gateway.post("/v1/traces", request_of(span(1), span(2, alone)))
    partial = reply.json()["partialSuccess"]
    assert (reply.status_code, partial["rejectedSpans"]) == (200, "1")
    assert "an answer must have a question" in partial["errorMessage"]
    assert len(gateway.interactions()) == 1
    (reason,) = gateway.store.set_aside_reasons()
    assert reason.startswith("an answer must have a question")


def test_spans_without_content_are_taken_with_a_word_to_their_sender(gateway):
    silent = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    partial = gateway.post("/v1/traces", request_of(span(1, silent))).json()["partialSuccess"]
    assert "rejectedSpans" not in partial
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" in partial["errorMessage"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"\xff\xff", PROTOBUF, 400, 3),
        (b"x", PROTOBUF | {"content-encoding": "gzip"}, 400, 3),
        (gzip.compress(b"\x00" * 100)[:-9], PROTOBUF | {"content-encoding": "gzip"}, 400, 3),
        (b"", PROTOBUF | {"content-encoding": "br"}, 415, 3),
        (gzip.compress(bytes(17_000_000)), PROTOBUF | {"content-encoding": "gzip"}, 413, 8),
    ],
)
def test_a_bad_request_is_refused_as_otlp_says(gateway, content, headers, status, code):
    reply = gateway.client.post(f"{gateway.url}/v1/traces", content=content, headers=headers)
    said = traces.ExportTracePartialSuccess.FromString(reply.content)  # written as a Status is
    assert (reply.status_code, said.rejected_spans) == (status, code)
    assert reply.headers["content-type"] == "application/x-protobuf"
    assert said.error_message


@pytest.mark.parametrize(
    "body", [[], {"resourceSpans": 3}, request_of(span(traceId="nothing hex"))]
)
def test_json_that_is_no_request_is_refused(gateway, body):
    reply = gateway.post("/v1/traces", body)
    assert (reply.status_code, reply.json()["code"]) == (400, 3)


def test_a_key_with_the_right_to_give_feedback_is_needed(gateway):
    key = lock(gateway)
    read = lock(gateway, "read")
    body = request_of(span())
    assert gateway.post("/v1/traces", body).status_code == 401
    assert gateway.post("/v1/traces", body, headers=read).status_code == 403
    assert gateway.post("/v1/traces", body, headers=key).status_code == 200
    (kept,) = gateway.interactions()
    assert kept.metadata["application"] == "shop"


def test_an_answer_of_the_gateway_is_not_recorded_twice_and_its_evaluation_is_about_it(gateway):
    answer = gateway.ask()
    event = {
        "name": "gen_ai.evaluation.result", "timeUnixNano": str(time.time_ns()),
        "attributes": [
            {"key": key, "value": {"stringValue": value}} for key, value in EVALUATION.items()
        ],
    }  # fmt: skip
    asked = CHAT | {"gen_ai.response.id": answer["id"]}
    assert gateway.post("/v1/traces", request_of(span(1, asked, events=[event]))).json() == {}
    assert [kept.id for kept in gateway.interactions()] == [answer["id"]]
    assert {row["interaction_id"] for row in gateway.feedback()} == {answer["id"]}


def test_evaluations_of_foreign_answers_of_the_gateway_are_rejected(gateway):
    asker = lock(gateway)
    answer = gateway.post(
        "/v1/chat/completions",
        {"model": "any", "messages": [{"role": "user", "content": "hi"}]},
        headers=asker,
    ).json()
    record, key = new_key("other", ["ingest"], now=datetime.now(UTC))
    gateway.store.append(record)
    gateway.app.state.gateway.router.refresh()
    evaluation = EVALUATION | {"gen_ai.response.id": answer["id"]}
    body = {
        "resourceLogs": [{"scopeLogs": [{"logRecords": [{
            "eventName": "gen_ai.evaluation.result", "timeUnixNano": str(time.time_ns()),
            "attributes": [
                {"key": name, "value": {"stringValue": value}} for name, value in evaluation.items()
            ],
        }]}]}]
    }  # fmt: skip
    reply = gateway.post("/v1/logs", body, headers={"authorization": f"Bearer {key}"})
    assert reply.json()["partialSuccess"]["rejectedLogRecords"] == "1"
    assert gateway.feedback() == []
    assert gateway.post("/v1/logs", body, headers=asker).json() == {}
    assert len(gateway.feedback()) == 2


def test_what_is_acknowledged_is_in_the_log_before(gateway):
    assert gateway.post("/v1/traces", request_of(span())).status_code == 200
    folder = gateway.settings.home / "gateway" / "wal"
    kinds = [line.split(b" ", 4)[3] for path in folder.glob("*.wal2")
             for line in path.read_bytes().splitlines()]  # fmt: skip
    assert LogKind.TRANSLATED.value in kinds


def test_lines_of_a_forgotten_user_are_blanked(gateway, forget: Callable[..., None]):
    gateway.post("/v1/traces", request_of(span()))
    forget(gateway, "ana")
    folder = gateway.settings.home / "gateway" / "wal"
    assert b"hello" not in b"".join(path.read_bytes() for path in folder.glob("*.wal2"))
    assert gateway.interactions() == []


@pytest.fixture
def forget() -> Callable[..., None]:
    def forgotten(gateway: Any, user: str) -> None:
        now, home = datetime.now(UTC), gateway.settings.home
        forget_user(gateway.store, home, user, now=now, text_key=str)
        erase_lines(gateway.settings.home / "gateway" / "wal", gateway.store, now)

    return forgotten
