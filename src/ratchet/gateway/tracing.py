"""Spans of the gateway itself, sent by OTLP/HTTP to whoever collects traces.

    tracing = Tracing.to("http://collector:4318", version="0.1.0")
    span = tracing.begin(headers, name)      # below the client's `traceparent`, where it sent one
    tracing.forwarded(span)                  # what the backend gets, so that its spans hang below
    tracing.end(span, version, metadata)

One span a request, from its arrival until it is recorded, by the conventions for generative AI;
attempts that failed are events on it. Spans wait in memory and are sent by a thread of the SDK: a
collector that is slow or away costs spans, and no answer waits.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ratchet.records.asking import FINISH_REASON

SERVICE = "ratchet-gateway"
KEY = "RATCHET_TRACES_KEY"
"""The variable with the key that the collector asks for, sent as a bearer token."""
_SEND_SECONDS = 5
_CONTEXT = TraceContextTextMapPropagator()
_KNOWN = {"backend": "ratchet.backend", "experiment": "ratchet.experiment", "arm": "ratchet.arm"}
_USAGE = {
    "prompt_tokens": "gen_ai.usage.input_tokens", "completion_tokens": "gen_ai.usage.output_tokens",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tracing:
    """See the module's text.

    Attributes:
        provider: Keeps the spans and sends them.
        tracer: Makes them.
        content: Whether spans hold what was said.
    """

    provider: TracerProvider
    tracer: Tracer
    content: bool = False

    @classmethod
    def to(
        cls, address: str, *, version: str, key: str | None = None, content: bool = False
    ) -> Tracing:
        """Return spans that are sent to a collector.

        Args:
            address: Its base address, or that of its `/v1/traces`.
            version: Of Ratchet.
            key: That it asks for.
            content: Whether spans hold what was said.
        """
        about = {"service.name": SERVICE, "service.version": version}
        provider = TracerProvider(
            resource=Resource.create(about | {"host.name": socket.gethostname()})
        )
        base = address.rstrip("/")
        exporter = OTLPSpanExporter(
            endpoint=base if base.endswith("/v1/traces") else f"{base}/v1/traces",
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=_SEND_SECONDS,
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, provider.get_tracer("ratchet.gateway", version), content)

    def begin(self, headers: Mapping[str, str], requested: str) -> Span:
        """Begin the span of a request for a model."""
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": requested[:200]}
        return self.tracer.start_span(
            "chat", _CONTEXT.extract(headers), SpanKind.SERVER, attributes
        )

    @staticmethod
    def ids(span: Span) -> tuple[str, str]:
        """Return the ids of a span's trace and of itself, in hexadecimal digits."""
        context = span.get_span_context()
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"

    @staticmethod
    def forwarded(span: Span) -> dict[str, str]:
        """Return the headers by which the backend's spans hang below this one."""
        headers: dict[str, str] = {}
        _CONTEXT.inject(headers, set_span_in_context(span))
        return headers

    @staticmethod
    def failed(span: Span, version: str, reason: str) -> None:
        """Note an attempt after which another version is asked."""
        span.add_event("attempt failed", {"ratchet.version": version, "error.message": reason})

    def end(
        self,
        span: Span,
        interaction: str,
        version: str,
        metadata: Mapping[str, str],
        error: str | None = None,
        said: tuple[str, str] | None = None,
    ) -> None:
        """End the span of a request.

        Args:
            span: The span.
            interaction: Id of the answer.
            version: Who answered.
            metadata: Of the interaction.
            error: Why there is no whole answer.
            said: Messages and answer as the conventions have them, in JSON.
        """
        span.update_name(f"chat {version}")
        span.set_attributes({"gen_ai.response.id": interaction, "gen_ai.response.model": version})
        for name, key in _KNOWN.items():
            if name in metadata:
                span.set_attribute(key, metadata[name])
        for name, key in _USAGE.items():
            if metadata.get(name, "").isdecimal():
                span.set_attribute(key, int(metadata[name]))
        if FINISH_REASON in metadata:
            span.set_attribute("gen_ai.response.finish_reasons", [metadata[FINISH_REASON]])
        if said is not None and self.content:
            span.set_attribute("gen_ai.input.messages", said[0])
            span.set_attribute("gen_ai.output.messages", said[1])
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error[:200]))
            span.set_attribute("error.type", "backend_error")
        span.end()

    def close(self) -> None:
        """Send what waits, and make no further span."""
        self.provider.shutdown()
