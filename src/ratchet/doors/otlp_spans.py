"""Spans and log records of OpenTelemetry, read from an export request.

A request has the same fields in JSON and in protobuf (`ratchet.gateway.otlp_requests`): how a field
is read, how an id and a value are written is all that a `Form` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
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


class Form(NamedTuple):
    """How a request is written.

    Attributes:
        field: Returns a field of a message by its name in the protocol, such as `trace_id`.
        identity: Returns an id in hex.
        value: Returns an AnyValue as a plain value.
    """

    field: Callable[[Any, str], Any]
    identity: Callable[[Any], str]
    value: Callable[[Any], Any]


def items_of(request: Mapping[str, Any]) -> list[Item]:
    """Return the spans and records of an export request in JSON.

    Raises:
        InvalidInputError: It has not the shape of one.
    """
    try:
        return items_in(request, JSON)
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise InvalidInputError(
            "a request must have the shape of OTLP's JSON, got "
            f"{type(error).__name__}: {printable(str(error), 80)}; send what an exporter writes"
        ) from error


def items_in(request: Any, form: Form) -> list[Item]:
    """Return the spans and records of an export request."""
    spans = _each(request, form, "resource_spans", "scope_spans", "spans")
    records = _each(request, form, "resource_logs", "scope_logs", "log_records")
    found = [_span(one, resource, form) for one, resource in spans]
    return with_whose(found + [_record(one, resource, form) for one, resource in records])


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
    request: Any, form: Form, outer: str, scope: str, inner: str
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    for of_resource in form.field(request, outer) or ():
        holder = form.field(of_resource, "resource")
        resource = attributes_of(form.field(holder, "attributes"), form) if holder else {}
        for of_scope in form.field(of_resource, scope) or ():
            for one in form.field(of_scope, inner) or ():
                yield one, resource


def _span(one: Any, resource: Mapping[str, Any], form: Form) -> Item:
    field, status = form.field, form.field(one, "status")
    failed = bool(status) and field(status, "code") in _FAILED
    attributes = attributes_of(field(one, "attributes"), form)
    return Item(
        trace=form.identity(field(one, "trace_id")),
        span=form.identity(field(one, "span_id")),
        parent=form.identity(field(one, "parent_span_id")),
        name=str(field(one, "name") or ""),
        start=int(field(one, "start_time_unix_nano") or 0),
        end=int(field(one, "end_time_unix_nano") or 0),
        attributes=attributes,
        events=tuple(
            (
                str(field(event, "name") or ""),
                int(field(event, "time_unix_nano") or 0),
                attributes_of(field(event, "attributes"), form),
            )
            for event in field(one, "events") or ()
        ),
        resource=resource,
        error=error_of(field(status, "message"), attributes) if failed else None,
    )


def error_of(message: object, attributes: Mapping[str, Any]) -> str:
    """Return what went wrong on a span that failed."""
    return str(message or attributes.get("error.type") or "the span failed")


def _record(one: Any, resource: Mapping[str, Any], form: Form) -> Item:
    field, attributes = form.field, attributes_of(form.field(one, "attributes"), form)
    at = int(field(one, "time_unix_nano") or field(one, "observed_time_unix_nano") or 0)
    body = field(one, "body")
    return Item(
        trace=form.identity(field(one, "trace_id")),
        span=form.identity(field(one, "span_id")),
        parent="",
        name=str(field(one, "event_name") or attributes.get("event.name") or ""),
        start=at,
        end=at,
        attributes=attributes,
        resource=resource,
        body=form.value(body) if body else None,
        is_record=True,
    )


def attributes_of(given: Iterable[Any] | None, form: Form) -> dict[str, Any]:
    """Return attributes by name, as plain values."""
    found = {}
    for one in given or ():
        value = form.field(one, "value")
        found[str(form.field(one, "key"))] = form.value(value) if value else None
    return found


def _field(message: Mapping[str, Any], name: str) -> Any:
    return message.get(_in_json(name))


@cache
def _in_json(name: str) -> str:
    """Return the name that a field has in JSON: `trace_id` is `traceId`."""
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


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
            return attributes_of(given.get("values"), JSON)
        return given
    return None


JSON = Form(_field, _id, _value)
