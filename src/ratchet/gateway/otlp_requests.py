"""Requests of OTLP/HTTP: unpacked, read from protobuf or JSON, and answered in the same form."""

from __future__ import annotations

import zlib
from typing import Any, Literal

from fastapi import Response
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from pydantic_core import to_json

from ratchet.doors.otlp_spans import Form, Item, attributes_of, items_in, items_of
from ratchet.errors import InvalidInputError
from ratchet.gateway.problems import JSON, ProblemError, read_json

PROTOBUF = "application/x-protobuf"
Signal = Literal["traces", "logs"]
_REQUESTS: dict[Signal, Any] = {
    "traces": traces.ExportTraceServiceRequest, "logs": logs.ExportLogsServiceRequest,
}  # fmt: skip
_ANY_WINDOW = 47
"""Tells zlib to find out by itself whether gzip or deflate packed the bytes."""
_GRPC = {400: 3, 401: 16, 403: 7, 413: 8, 415: 3, 429: 8, 503: 14}
"""gRPC's codes, which errors of OTLP name."""
_INTERNAL = 13


def form_of(content_type: str | None) -> str:
    """Return the form of a body.

    Raises:
        ProblemError: 415, it is none of OTLP's.
    """
    found = (content_type or "").partition(";")[0].strip().lower()
    if found not in (PROTOBUF, JSON):
        raise ProblemError(
            415,
            f"a request must be {PROTOBUF} or {JSON}, got {found[:80] or 'no type'!r}; set the "
            "exporter's protocol to http/protobuf or http/json",
        )
    return found


def unpacked(content: bytes, encoding: str | None, most_bytes: int) -> bytes:
    """Return a body as it was before it was packed.

    Raises:
        ProblemError: 400, it cannot be unpacked; 413, it is too long; 415, it is packed otherwise.
    """
    packing = (encoding or "identity").strip().lower()
    if packing not in ("identity", "gzip", "deflate"):
        raise ProblemError(
            415, f"a request must be packed by gzip, deflate or not, got {packing[:80]!r}"
        )
    if packing == "identity":
        return content
    reader = zlib.decompressobj(_ANY_WINDOW)
    try:
        found = reader.decompress(content, most_bytes + 1)
    except zlib.error as error:
        raise ProblemError(
            400, f"a body must be packed as its header says, got {packing}: {error}; send it again"
        ) from error
    if len(found) > most_bytes:
        raise ProblemError(
            413,
            f"a request must have at most {most_bytes:,} bytes unpacked, got more; send fewer "
            "spans at once, or start with a larger --most-bytes",
            code="request_too_large",
        )
    if not reader.eof:
        raise ProblemError(400, f"a body must be whole, got {packing} that ends early")
    return found


def read_items(content: bytes, form: str, signal: Signal) -> list[Item]:
    """Return the spans or records of a request.

    Raises:
        ProblemError: 400, it is none.
    """
    if form == JSON:
        body = read_json(content)
        if not isinstance(body, dict):
            raise ProblemError(400, f"the body must be an object, got {type(body).__name__}")
        try:
            return items_of(body)
        except InvalidInputError as error:
            raise ProblemError(400, str(error)) from error
    try:
        kind = _REQUESTS[signal]
        return items_in(kind.FromString(content), PROTOBUF_FORM)
    except DecodeError as error:
        raise ProblemError(
            400, f"the body must be a request of OTLP in protobuf, got: {error}"
        ) from error


def receipt(form: str, signal: Signal, rejected: int, message: str) -> Response:
    """Return the answer to a request that was taken, wholly or in part."""
    found: Message
    if signal == "traces":
        found = traces.ExportTraceServiceResponse()
        if rejected or message:
            found.partial_success.rejected_spans = rejected
            found.partial_success.error_message = message
    else:
        found = logs.ExportLogsServiceResponse()
        if rejected or message:
            found.partial_success.rejected_log_records = rejected
            found.partial_success.error_message = message
    content = MessageToJson(found) if form == JSON else found.SerializeToString()
    return Response(content, 200, media_type=form)


def refusal(problem: ProblemError, form: str) -> Response:
    """Return an error as OTLP has it: a `google.rpc.Status` in the form of the request.

    Its fields are a number 1 and a text 2, which is how the count and the message of a partial
    success are written too; the message's own package is not installed.
    """
    code = _GRPC.get(problem.status, _INTERNAL)
    if form == JSON:
        content = to_json({"code": code, "message": problem.message})
    else:
        status = traces.ExportTracePartialSuccess(
            rejected_spans=code, error_message=problem.message
        )
        content = status.SerializeToString()
    return Response(content, problem.status, problem.headers, form)


def _field(message: Any, name: str) -> Any:
    return getattr(message, name, None)  # a request of traces has no logs


def _identity(value: bytes) -> str:
    return value.hex()


def _value(value: Any) -> Any:
    """Return an AnyValue as a plain value."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_value(one) for one in found.values]
    if kind == "kvlist_value":
        return attributes_of(found.values, PROTOBUF_FORM)
    return found.hex() if kind == "bytes_value" else found


PROTOBUF_FORM = Form(_field, _identity, _value)
