"""What a client says about a request: its `metadata`, `store`, and headers.

    said = read_remarks(body, headers, at)
    said.segment, said.metadata, said.forwarded

Nothing of it fails a request. What cannot be kept is left out and `metadata_note` says so. Where a
body and a header, or two headers, disagree about training or keeping, the more protective one wins;
of anything else the body's word stands.

A name that the gateway uses for what it found itself (`RESERVED`) is the gateway's: a client's pair
of that name is kept under `client.<name>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from starlette.datastructures import Headers

from ratchet.collect.turns import json_bytes
from ratchet.gateway.conversation import identifier
from ratchet.records.asking import FIRST_TOKEN_SECONDS, PROMPT_VERSION, SAMPLING, Usage
from ratchet.store.endings import KEYS
from ratchet.store.permissions import CONSENT, RETAIN, agrees, end_of_keeping

MOST_PAIRS = 64
LONGEST_VALUE = 2_000
"""OpenAI allows 16 pairs of up to 512 characters."""
RETAIN_DAYS, SEGMENT, TAGS = "retain_days", "segment", "tags"
TRACE, SPAN, REQUEST = "trace_id", "span_id", "request_id"
NOTE, APPLICATION = "metadata_note", "application"
OF_CLIENT = "client."
DOCUMENTS = "documents"
RESERVED = frozenset(
    {
        *KEYS, *SAMPLING, *Usage.model_fields, FIRST_TOKEN_SECONDS, NOTE, APPLICATION,
        "requested_model", "experiment", "arm", "backend", "stream", "failed_over_from", "tools",
        "altered", "shortened",
    }
)  # fmt: skip
"""Names of what the gateway itself says in an interaction's metadata."""
_HEADERS: Mapping[bytes, str] = {
    b"x-ratchet-training-consent": CONSENT,
    b"x-ratchet-consent": CONSENT,
    b"x-ratchet-retain-until": RETAIN,
    b"x-ratchet-retain-days": RETAIN_DAYS,
    b"x-ratchet-segment": SEGMENT,
    b"x-ratchet-tags": TAGS,
    b"x-ratchet-prompt-version": PROMPT_VERSION,
    b"x-request-id": REQUEST,
    b"traceparent": "traceparent",
    b"tracestate": "tracestate",
}
_OURS = b"x-ratchet-"
_READ_ELSEWHERE = (b"x-ratchet-user", b"x-ratchet-session")
_UNDERSTOOD = {
    name.replace("_", ""): name
    for name in (CONSENT, RETAIN, RETAIN_DAYS, SEGMENT, TAGS, PROMPT_VERSION)
}
"""Names that mean something, as they are compared: case, `-` and `_` do not matter."""
_CONSUMED = frozenset({"session_id", "user_id"})
_LONGEST_KEEPING = 36_500.0  # days
_UNREADABLE = "[unreadable]"
_TRACEPARENT = re.compile(
    r"(?!ff)(?:00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}"
    r"|(?!00)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?)"
)
"""W3C Trace Context: version, trace, parent and flags; later versions may say more."""


@dataclass(frozen=True, slots=True)
class Remarks:
    """What a client says about a request.

    Attributes:
        metadata: As the interaction keeps it.
        segment: Where the traffic comes from; None where nothing is said.
        forwarded: Headers that the backend gets.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    segment: str | None = None
    forwarded: Mapping[str, str] = field(default_factory=dict)


NOTHING = Remarks(MappingProxyType({}), None, MappingProxyType({}))
Sent = dict[str, list[str]]


def read_remarks(body: Mapping[str, Any], headers: Headers, at: datetime) -> Remarks:
    """Return what is said about a request.

    Args:
        body: Its body.
        headers: Its headers.
        at: When it came; `retain_days` counts from then.
    """
    sent = [pair for pair in headers.raw if pair[0] in _HEADERS or pair[0].startswith(_OURS)]
    given, stored = body.get("metadata"), body.get("store", True)
    if not sent and given is None and stored is True:
        return NOTHING
    notes: list[str] = []
    in_headers, (understood, others) = _from_headers(sent, notes), _from_body(given, notes)
    consents = understood.get(CONSENT, []) + in_headers.get(CONSENT, [])
    if stored in (False, "false"):
        consents.append("no")
        notes.append("store is false: not trained on")
    metadata = _kept(others, notes)
    metadata |= _described(understood, in_headers)
    until = _keeping(understood, in_headers, at, notes, consents)
    if consents:
        metadata[CONSENT] = "yes" if all(map(agrees, consents)) else "no"
    if until is not None:
        metadata[RETAIN] = until
    forwarded = _trace(in_headers, metadata, notes)
    if notes:
        metadata[NOTE] = _clean("; ".join(notes))
    segments = understood.get(SEGMENT, []) + in_headers.get(SEGMENT, [])
    segment = next(filter(None, map(identifier, segments)), None)
    return Remarks(metadata, segment, forwarded)


def without_documents(body: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return a request as the backend gets it, and the documents that its application found.

    These are the field `documents`, which is the backend's as well where it has one (vLLM's does),
    or `metadata.documents`, which is the gateway's alone and goes no further.
    """
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(
        told := metadata.get(DOCUMENTS), list | Mapping
    ):
        return body, body.get(DOCUMENTS)
    rest = {name: value for name, value in metadata.items() if name != DOCUMENTS}
    return body | {"metadata": rest}, told


def trace_headers(headers: Headers) -> Mapping[str, str]:
    """Return the headers by which a trace goes on at the backend."""
    sent = [pair for pair in headers.raw if pair[0] in (b"traceparent", b"tracestate")]
    return _trace(_from_headers(sent, []), {}, []) if sent else NOTHING.forwarded


def _from_headers(sent: Sequence[tuple[bytes, bytes]], notes: list[str]) -> Sent:
    found: Sent = {}
    for name, value in sent:
        known = _HEADERS.get(name)
        if known is not None:
            try:
                text = value.decode()
            except UnicodeDecodeError:
                text = value.decode("latin-1")
            if text.strip():
                found.setdefault(known, []).append(text.strip())
        elif name not in _READ_ELSEWHERE:
            notes.append(f"header {name.decode('latin-1')[:80]} means nothing here")
    return found


def _from_body(given: Any, notes: list[str]) -> tuple[Sent, dict[str, str]]:
    """Return what of a body's metadata is understood, and its other pairs."""
    understood: Sent = {}
    others: dict[str, str] = {}
    if given is None:
        return understood, others
    if not isinstance(given, Mapping):
        notes.append("metadata is no object, so it is not trained on")
        return {CONSENT: [_UNREADABLE]}, others
    nested = []
    for key, value in given.items():
        name = _UNDERSTOOD.get(key.replace("_", "").replace("-", "").casefold())
        if value is None or (key in _CONSUMED and isinstance(value, str)):
            continue
        if key == DOCUMENTS and isinstance(value, list | Mapping):
            continue
        text = _text(value, listed=name == TAGS)
        if name is not None:
            text = _UNREADABLE if text is None and name in (CONSENT, RETAIN, RETAIN_DAYS) else text
            if text is not None:
                understood.setdefault(name, []).append(text)
                continue
        if text is None:
            nested.append(key)
        else:
            others[key] = text
    if nested:
        shown = ", ".join(key[:80] for key in nested[:5])
        notes.append(f"{len(nested)} nested values left out ({shown})")
    return understood, others


def _text(value: Any, *, listed: bool = False) -> str | None:
    """Return a value as text, numbers and booleans as JSON writes them; None where it is nested."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json_bytes(value).decode()
    if listed and isinstance(value, list):
        return ",".join(filter(None, map(_text, value)))
    return None


def _kept(others: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Return a client's own pairs as they are kept."""
    kept: dict[str, str] = {}
    cut = 0
    for key, text in list(others.items())[:MOST_PAIRS]:
        name = identifier(key) or "?"
        if name in RESERVED or name.startswith(OF_CLIENT):
            name = OF_CLIENT + name
        cut += len(text) > LONGEST_VALUE
        kept[name] = _clean(text)
    if cut:
        notes.append(f"{cut} values cut at {LONGEST_VALUE:,} characters")
    if len(others) > MOST_PAIRS:
        notes.append(f"{len(others) - MOST_PAIRS} pairs beyond {MOST_PAIRS} left out")
    return kept


def _described(understood: Sent, in_headers: Sent) -> dict[str, str]:
    """Return tags, which add up, and the prompt's version."""
    found = {}
    tags = [
        tag.strip()
        for text in understood.get(TAGS, []) + in_headers.get(TAGS, [])
        for tag in text.split(",")
    ]
    if any(tags):
        found[TAGS] = _clean(",".join(dict.fromkeys(filter(None, tags))))
    for text in understood.get(PROMPT_VERSION, []) + in_headers.get(PROMPT_VERSION, []):
        found.setdefault(PROMPT_VERSION, _clean(text))
    return found


def _keeping(
    understood: Sent, in_headers: Sent, at: datetime, notes: list[str], consents: list[str]
) -> str | None:
    """Return until when it may be kept: the earliest of what is said, in UTC.

    What cannot be read limits no time, but it is not trained on either.
    """
    ends = []
    for name in (RETAIN, RETAIN_DAYS):
        for text in understood.get(name, []) + in_headers.get(name, []):
            end = end_of_keeping(text) if name == RETAIN else _after_days(text, at)
            if end is None:
                notes.append(f"{name} {text[:40]!r} cannot be read: not trained on")
                consents.append(_UNREADABLE)
            else:
                ends.append(end)
    return min(ends).isoformat() if ends else None


def _after_days(text: str, at: datetime) -> datetime | None:
    try:
        days = float(text)
    except ValueError:
        return None
    if days != days:
        return None
    return at + timedelta(days=min(max(days, 0.0), _LONGEST_KEEPING))


def _trace(in_headers: Sent, metadata: dict[str, str], notes: list[str]) -> dict[str, str]:
    """Keep the ids by which a request is known elsewhere; return the headers to send on."""
    found = {REQUEST: next(iter(in_headers.get(REQUEST, ())), "")}
    forwarded = {}
    parent = next(iter(in_headers.get("traceparent", ())), None)
    if parent is not None:
        match = _TRACEPARENT.fullmatch(parent)
        trace, span = (part for part in match.groups() if part) if match else ("0", "0")
        if int(trace, 16) and int(span, 16):
            found |= {TRACE: trace, SPAN: span}
            forwarded["traceparent"] = parent
            state = ",".join(in_headers.get("tracestate", ()))
            if state and state.isascii() and state.isprintable():
                forwarded["tracestate"] = state
        else:
            notes.append("traceparent is none of W3C's")
    for name, text in found.items():
        if text:
            if name in metadata:
                metadata[OF_CLIENT + name] = metadata[name]
            metadata[name] = _clean(text)
    return forwarded


def _clean(text: str) -> str:
    return text[:LONGEST_VALUE].replace("\x00", "\ufffd")
