"""Take feedback: check who sends it, log it, and only then say so.

Rules:
    Again: an event whose id came before changes nothing and is accepted.
    Contradictory: under one id, the first content stands and the other is set aside with its
        reason. Under ids of their own, or with another `updated_at`, both are kept, and readers
        take the latest of a kind.
    Late: always taken; what counts for what is up to the reader, as boards count what came within
        minutes and quality whatever came. Times of the future become that of arrival, since a
        user's clock may be wrong.
    Early: a key of the role ingest may send feedback before its interaction.
    Times: as `ratchet.collect.times` has it for every way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from ratchet.collect.times import check_time
from ratchet.errors import InvalidInputError
from ratchet.gateway.access import Caller, RateLimits
from ratchet.gateway.log import LogKind
from ratchet.gateway.metrics import Metrics
from ratchet.gateway.problems import JSON, ProblemError, read_json
from ratchet.gateway.recording import Records, not_recorded
from ratchet.gateway.rights import Known, Rights
from ratchet.gateway.schemas import (
    MOST_EVENTS,
    FeedbackReceipt,
    FeedbackRejection,
    invalid,
)
from ratchet.records import FEEDBACK_KINDS
from ratchet.records.signal import Value
from ratchet.records.signals import BY_NAME, REPORTED_FEEDBACK


@dataclass(slots=True)
class FeedbackDesk:
    """See the module's text.

    Attributes:
        rights: Who may rate what.
        records: Where events are kept.
        limits: Each event counts, not each request.
        metrics: Counts events.
    """

    rights: Rights
    records: Records
    limits: RateLimits
    metrics: Metrics = field(default_factory=Metrics)

    async def take(self, request: Request, caller: Caller) -> Response:
        """Take one event or many; one alone that is bad is an error, in a batch it is listed.

        Raises:
            ProblemError: The body is neither, or its only event is bad.
        """
        body = read_json(await request.body())
        if not isinstance(body, dict):
            raise ProblemError(400, f"the body must be an object, got {type(body).__name__}")
        if "events" not in body:
            known = await self.rights.look_up([body], caller)
            lines = [self._line(body, caller, datetime.now(UTC), known)]
            rejected: list[FeedbackRejection] = []
        else:
            lines, rejected = await self._batch(body, caller)
        await self._keep(lines)
        self.metrics.feedback.labels("accepted").inc(len(lines))
        self.metrics.feedback.labels("rejected").inc(len(rejected))
        receipt = FeedbackReceipt(accepted=len(lines), rejected=rejected)
        return Response(receipt.model_dump_json(), 200, media_type=JSON)

    async def _batch(
        self, body: Mapping[str, Any], caller: Caller
    ) -> tuple[list[tuple[LogKind, bytes]], list[FeedbackRejection]]:
        events = body["events"]
        if not isinstance(events, list) or len(events) > MOST_EVENTS or len(body) > 1:
            raise ProblemError(
                400,
                f"events must be the body's only field, a list of at most {MOST_EVENTS:,}, got "
                f"{repr(events)[:80]}; send the rest in another request",
                param="events",
            )
        others = [index for index, event in enumerate(events) if not isinstance(event, dict)]
        if others:
            got = repr(events[others[0]])[:80]
            raise ProblemError(
                400, f"each event must be an object, got {got} at {others[0]}", param="events"
            )
        self.limits.owe(caller, len(events) - 1)  # the request itself was counted
        known = await self.rights.look_up(events, caller)
        lines, rejected, now = [], [], datetime.now(UTC)
        for index, event in enumerate(events):
            try:
                lines.append(self._line(event, caller, now, known))
            except ProblemError as problem:
                key = event.get("id")
                rejected.append(
                    FeedbackRejection(
                        index=index,
                        id=key if isinstance(key, str) else None,
                        code="forbidden" if problem.status in (401, 403) else "invalid",
                        reason=problem.message,
                    )
                )
        return lines, rejected

    def _line(
        self, event: dict[str, Any], caller: Caller, now: datetime, known: Known
    ) -> tuple[LogKind, bytes]:
        """Return an event as it is logged.

        Raises:
            ProblemError: 400, it breaks a rule; 401 or 403, it comes without the right token.
        """
        token = event.pop("token", None)
        untimed = event.get("created_at") is None
        event["created_at"] = now if untimed else event["created_at"]
        if _value_type(event) == "text" and isinstance(event.get("value"), str):
            event["value"] = event["value"].replace("\x00", "\ufffd")  # the store holds no NUL
        _check_json_types(event, untimed)
        if _value_type(event) == "integer" and isinstance(event.get("value"), float):
            whole = event["value"].is_integer()  # 5.0 is an integer in JSON
            event["value"] = int(event["value"]) if whole else event["value"]
        try:
            feedback = REPORTED_FEEDBACK.validate_python(event)
        except (ValidationError, OverflowError) as error:
            if isinstance(error, OverflowError):
                raise ProblemError(400, f"created_at: {error}", param="created_at") from error
            raise invalid(error) from error
        try:
            check_time(feedback, now)
        except InvalidInputError as error:
            raise ProblemError(400, str(error), param="created_at") from error
        key, kind, user = feedback.interaction_id, feedback.kind, feedback.user_id
        self.rights.check(key, kind, token, user, caller, known)
        if untimed or feedback.created_at > now:
            del event["created_at"]
            return LogKind.UNTIMED_FEEDBACK, to_json(event)
        return LogKind.FEEDBACK, to_json(event)

    async def _keep(self, lines: list[tuple[LogKind, bytes]]) -> None:
        try:
            if lines:
                self.records.append(lines)
            await self.records.durable()
        except OSError as error:
            raise not_recorded("the feedback", error) from error


def _value_type(event: Mapping[str, Any]) -> Value | None:
    """Return the type of an event's value, None where its kind is not known."""
    kind = event.get("kind")
    return BY_NAME[kind].value if isinstance(kind, str) and kind in FEEDBACK_KINDS else None


def _check_json_types(event: Mapping[str, Any], untimed: bool) -> None:
    """Refuse what pydantic would convert and the description does not have.

    Raises:
        ProblemError: 400.
    """
    value = event.get("value")
    if _value_type(event) == "number" and isinstance(value, bool | str):
        raise ProblemError(400, f"value: must be a number, got {repr(value)[:80]}", param="value")
    for name in ("updated_at",) if untimed else ("created_at", "updated_at"):
        moment = event.get(name)
        if moment is not None and not isinstance(moment, str):
            raise ProblemError(
                400,
                f"{name}: must be text such as 2026-11-24T09:00:00Z, got {repr(moment)[:80]}",
                param=name,
            )
