"""Take OpenTelemetry's spans and log records over OTLP/HTTP, for applications that send them.

    POST /v1/traces    POST /v1/logs       protobuf or JSON, packed by gzip or not

Answers and evaluations among them (`ratchet.doors.otlp`) are checked, logged and only then
acknowledged, as feedback is; the drain brings them to the store. What cannot be stored is rejected
by OTLP's partial success, and set aside with its reason. Other spans are taken and let go of.

An answer of this gateway that an application sends as a span too was recorded already: it is let go
of, and evaluations of it are about the recorded one, for whoever may rate that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from ratchet.collect.batches import Batch, PlacedEvent
from ratchet.collect.ingest import batches_to_store
from ratchet.doors.door import Given
from ratchet.doors.otlp import DOOR, ITEM
from ratchet.doors.otlp_answers import NO_CONTENT, response_name
from ratchet.doors.otlp_spans import Item
from ratchet.doors.rows import events_of
from ratchet.files.rows import Row
from ratchet.gateway.access import ANYBODY, Caller, RateLimits
from ratchet.gateway.log import LogKind
from ratchet.gateway.log_rows import OTHER_NAMES
from ratchet.gateway.otlp_requests import (
    Signal,
    form_of,
    read_items,
    receipt,
    refusal,
    unpacked,
)
from ratchet.gateway.problems import JSON, ProblemError
from ratchet.gateway.recording import Records, not_recorded
from ratchet.gateway.request_metadata import APPLICATION
from ratchet.gateway.rights import Rights
from ratchet.gateway.tokens import is_of_a_gateway
from ratchet.records import SetAside

SOURCE = "otlp"
RECORDED = "an answer of this gateway, which recorded it when it gave it"
_RESPONSE_ID = "gen_ai.response.id"
_PACKED = 4
"""So many times as long as a request may be what it is unpacked to."""
Line = tuple[LogKind, bytes]


@dataclass(slots=True)
class Telemetry:
    """See the module's text.

    Attributes:
        rights: Who may rate what.
        records: Where answers and evaluations are kept.
        limits: Each of them counts, not each request.
        most_bytes: Longest body of a request.
        counts: What came to this process so far: answers, feedback, spans that were let go of, by
            reason, and what was rejected.
    """

    rights: Rights
    records: Records
    limits: RateLimits
    most_bytes: int
    counts: Counter[str] = field(default_factory=Counter)

    async def take(self, request: Request, caller: Caller, signal: Signal) -> Response:
        """Take a request of an exporter; an error is said as OTLP says it."""
        form = JSON
        try:
            caller.require("ingest", "feedback")
            form = form_of(request.headers.get("content-type"))
            content = await request.body()
            encoding = request.headers.get("content-encoding")
            content = unpacked(content, encoding, _PACKED * self.most_bytes)
            found = await asyncio.to_thread(_read, content, form, signal, caller)
            return await self._kept(found, caller, form, signal)
        except ProblemError as problem:
            return refusal(problem, form)

    async def _kept(self, found: _Found, caller: Caller, form: str, signal: Signal) -> Response:
        lines = [(LogKind.TRANSLATED, to_json(event)) for event in found.answers]
        events = found.feedback
        known = await self.rights.look_up(events, caller) if events else {}
        refused: list[str] = []
        for event in events:
            key, user = event["interaction_id"], event.get("user_id")
            try:
                self.rights.check(key, event["kind"], None, user, caller, known)
            except ProblemError as problem:
                refused.append(problem.message)
            else:
                lines.append((LogKind.TRANSLATED, to_json(event)))
        kept = len(lines)
        lines += [(LogKind.SET_ASIDE, one.model_dump_json().encode()) for one in found.rejected]
        self.limits.owe(caller, kept - 1)
        try:
            if lines:
                self.records.append(lines)
            await self.records.durable()
        except OSError as error:
            raise not_recorded("what was sent", error) from error
        reasons = [one.reason for one in found.rejected] + refused
        self.counts["answers"] += len(found.answers)
        self.counts["feedback"] += kept - len(found.answers)
        self.counts["rejected"] += len(reasons)
        self.counts += Counter({f"passed: {why}": count for why, count in found.passed.items()})
        rejected = min(len(reasons), found.sent)  # a span may hold several pieces of feedback
        return receipt(form, signal, rejected, _message(reasons, found.passed))


@dataclass(slots=True)
class _Found:
    """What a request holds: `sent` is how many spans or records these are."""

    sent: int
    answers: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[SetAside] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Batch, caller: Caller, own: Mapping[str, str]) -> None:
        """Add what a batch holds.

        Args:
            batch: Rows that can be stored, and those that cannot.
            caller: Who sends them.
            own: Ids of answers that a gateway gave, by the names that spans give them.
        """
        recorded: dict[str, str] = {}
        for event in batch.interactions:
            names = batch.others.get(event.event.id, ())
            gave = next((own[name] for name in names if name in own), None)
            if gave is not None:
                recorded[event.event.id] = gave
                self.passed[RECORDED] += 1
                continue
            self.answers.append(_of_application(_fields(event, names), caller))
        for event in batch.feedback:
            about = event.event.interaction_id
            names = (about, *batch.others.get(about, ()))
            gave = next(
                (found for name in names if (found := own.get(name) or recorded.get(name))), None
            )
            fields = _fields(event, names[1:] if gave is None else ())
            self.feedback.append(fields | ({"interaction_id": gave} if gave else {}))
        self.rejected += batch.rejected
        self.passed += batch.passed


def _read(content: bytes, form: str, signal: Signal, caller: Caller) -> _Found:
    """Return what a request holds. It takes as long as its content, so a thread does it.

    Raises:
        ProblemError: 400, it cannot be read.
    """
    items, now = read_items(content, form, signal), datetime.now(UTC)
    found, given = _Found(len(items)), Given(at=now, source=SOURCE)
    own = {
        response_name(key): key
        for item in items
        if is_of_a_gateway(key := str(item.attributes.get(_RESPONSE_ID) or ""))
    }

    def rows() -> Iterator[tuple[str, object]]:
        return events_of(map(_row, items), DOOR, given, None, now)

    for batch in batches_to_store(rows, source=SOURCE, now=now):
        found.add(batch, caller, own)
    return found


def _row(item: Item) -> Row:
    fields = {ITEM: item, "user_id": item.user}
    shown = to_json({"traceId": item.trace, "spanId": item.span, "name": item.name[:80]}).decode()
    return Row(0, 0, f"trace {item.trace}", 1, fields, shown, None, "json")


def _fields(event: PlacedEvent, names: Sequence[str]) -> dict[str, Any]:
    fields = {name: value for name, value in event.row.fields.items() if value is not None}
    return fields | ({OTHER_NAMES: list(names)} if names else {})


def _of_application(fields: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """Say which application sent an answer, as of those that a gateway gives."""
    metadata = {k: v for k, v in fields.get("metadata", {}).items() if k != APPLICATION}
    if caller.application != ANYBODY:
        metadata[APPLICATION] = caller.application
    return fields | {"metadata": metadata}


def _message(reasons: Sequence[str], passed: Mapping[str, int]) -> str:
    """Return what the sender is told: why something was rejected, or what it should know."""
    told = [f"{count} × {reason}" for reason, count in Counter(reasons).most_common(3)]
    if NO_CONTENT in passed:
        told.append(f"{passed[NO_CONTENT]} × {NO_CONTENT}")
    return "; ".join(told)
