"""Spans and log records of OpenTelemetry, read from an export request in OTLP's JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

SPANS = ("resourceSpans", "scopeSpans", "spans")
LOGS = ("resourceLogs", "scopeLogs", "logRecords")
_SESSION = ("gen_ai.conversation.id", "session.id", "langfuse.session.id")
_USER = ("user.id", "enduser.id", "langfuse.user.id")
_ID = re.compile(r"[0-9a-fA-F]{1,64}")
_FAILED = (2, "2", "STATUS_CODE_ERROR")


class Item(NamedTuple):
    """A span or a log record.

    Attributes:
        trace: Id of its trace, in hex; empty where it has none.
        span: Its id, or that of the span that a record belongs to.
        parent: Id of the span around it.
        name: Its name, or that of the event that a record is.
        start: Nanoseconds since 1970; 0 where it does not say.
        end: The same.
        attributes: By name, as plain values.
        events: Those of a span: name, nanoseconds, attributes.
        resource: Attributes of what sent it.
        error: What went wrong, of a span that failed.
        body: Of a record.
        is_record: Whether it is a log record.
        session: Session of the span, else of another one of its trace.
        user: The same of its user.
    """

    trace: str
    span: str
    parent: str
    name: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, int, Mapping[str, Any]], ...] = ()
    resource: Mapping[str, Any] = {}
    error: str | None = None
    body: Any = None
    is_record: bool = False
    session: str | None = None
    user: str | None = None


def items_of(request: Mapping[str, Any]) -> list[Item]:
    """Return the spans and records of an export request in JSON.

    Raises:
        InvalidInputError: It has not the shape of one.
    """
    try:
        spans = [_span(one, resource) for one, resource in _each(request, *SPANS)]
        records = [_record(one, resource) for one, resource in _each(request, *LOGS)]
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise InvalidInputError(
            "a request must have the shape of OTLP's JSON, got "
            f"{type(error).__name__}: {printable(str(error), 80)}; send what an exporter writes"
        ) from error
    return with_whose(spans + records)


def with_whose(items: list[Item]) -> list[Item]:
    """Return items with their sessions and users, also where only another span of a trace says."""
    known: dict[str, tuple[str | None, str | None]] = {}
    for item in items:
        session, user = known.get(item.trace, (None, None))
        known[item.trace] = session or _named(item, _SESSION), user or _named(item, _USER)
    return [
        item._replace(
            session=_named(item, _SESSION) or known[item.trace][0],
            user=_named(item, _USER) or known[item.trace][1],
        )
        for item in items
    ]


def _named(item: Item, names: tuple[str, ...]) -> str | None:
    value = next((item.attributes[name] for name in names if item.attributes.get(name)), None)
    return None if value is None else str(value)


def _each(
    request: Mapping[str, Any], outer: str, scope: str, inner: str
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for of_resource in request.get(outer) or ():
        resource = _attributes((of_resource.get("resource") or {}).get("attributes"))
        for of_scope in of_resource.get(scope) or ():
            for one in of_scope.get(inner) or ():
                yield one, resource


def _span(one: Mapping[str, Any], resource: Mapping[str, Any]) -> Item:
    status = one.get("status") or {}
    failed = status.get("code") in _FAILED
    attributes = _attributes(one.get("attributes"))
    return Item(
        trace=_id(one.get("traceId")),
        span=_id(one.get("spanId")),
        parent=_id(one.get("parentSpanId")),
        name=str(one.get("name") or ""),
        start=int(one.get("startTimeUnixNano") or 0),
        end=int(one.get("endTimeUnixNano") or 0),
        attributes=attributes,
        events=tuple(
            (
                str(event.get("name") or ""),
                int(event.get("timeUnixNano") or 0),
                _attributes(event.get("attributes")),
            )
            for event in one.get("events") or ()
        ),
        resource=resource,
        error=error_of(status.get("message"), attributes) if failed else None,
    )


def error_of(message: object, attributes: Mapping[str, Any]) -> str:
    """Return what went wrong on a span that failed."""
    return str(message or attributes.get("error.type") or "the span failed")


def _record(one: Mapping[str, Any], resource: Mapping[str, Any]) -> Item:
    attributes = _attributes(one.get("attributes"))
    at = int(one.get("timeUnixNano") or one.get("observedTimeUnixNano") or 0)
    return Item(
        trace=_id(one.get("traceId")),
        span=_id(one.get("spanId")),
        parent="",
        name=str(one.get("eventName") or attributes.get("event.name") or ""),
        start=at,
        end=at,
        attributes=attributes,
        resource=resource,
        body=_value(one.get("body") or {}),
        is_record=True,
    )


def _id(value: object) -> str:
    """Return an id in hex.

    Raises:
        ValueError: It is none.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError(f"an id must be hex digits, got {value!r:.80}")
    return value.lower()


def _attributes(given: Any) -> dict[str, Any]:
    return {str(one["key"]): _value(one.get("value") or {}) for one in given or ()}


def _value(value: Mapping[str, Any]) -> Any:
    """Return an AnyValue as a plain value."""
    for kind, given in value.items():
        if kind == "intValue":
            return int(given)
        if kind == "doubleValue":
            return float(given)
        if kind == "arrayValue":
            return [_value(one) for one in given.get("values") or ()]
        if kind == "kvlistValue":
            return _attributes(given.get("values"))
        return given
    return None
