"""Record what was asked and answered, what failed and what was refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from opentelemetry.trace import Span
from pydantic_core import from_json

from ratchet.collect.turns import Answer, TurnReader, json_bytes
from ratchet.gateway.access import Caller
from ratchet.gateway.blobs import BlobFolder
from ratchet.gateway.conversation import identifier
from ratchet.gateway.log import LogKind, WriteAheadLog
from ratchet.gateway.metrics import Metrics, Outcome
from ratchet.gateway.problems import ProblemError
from ratchet.gateway.routing import RoutingPlan
from ratchet.gateway.tracing import Tracing
from ratchet.records import digest
from ratchet.records.asking import FINISH_REASON, FIRST_TOKEN_SECONDS, reported_usage, sampling_of
from ratchet.store.permissions import RETAIN

logger = logging.getLogger(__name__)

DISCONNECTED = "disconnected"
"""Finish reason of an answer whose client left."""
RETRY_SECONDS = "5"
_LONGEST_REASON = 2_000
_LARGEST_KNOWN = 32_768


@dataclass(slots=True)
class Chat:
    """One request on its way to an answer.

    Attributes:
        conversation: The caller, where the conversation is known by what was said alone.
        asked: The version that was asked last.
        segment: Where the client says that it comes from; None where it does not.
        forwarded: Headers that the backend gets.
        continues: The interaction before it in the conversation, where that is known.
        documents: What the application had found for the answer.
        token: By which feedback on the answer is given; empty until it is needed.
        span: Of the request, where the gateway sends traces.
    """

    id: str
    body: dict[str, Any]
    plan: RoutingPlan
    caller: Caller
    user_id: str
    session_id: str
    at: datetime
    started: float
    conversation: str | None = None
    asked: str = ""
    segment: str | None = None
    forwarded: Mapping[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    continues: str | None = None
    documents: Any = None
    token: str = ""
    span: Span | None = None

    @property
    def version(self) -> str:
        """The version that was chosen."""
        return self.plan.variant.version

    def describe(self, reason: object, usage: object) -> None:
        """Note how the answer ended, what it cost and how it was asked for."""
        if reason:
            self.metadata[FINISH_REASON] = str(reason)[:100]
        self.metadata |= reported_usage(usage) | sampling_of(self.body)

    def first_told(self) -> None:
        """Note how long the user waited for the first word of a stream."""
        self.metadata[FIRST_TOKEN_SECONDS] = f"{time.monotonic() - self.started:.6f}"


class NotRecordedError(OSError):
    """Nothing can be acknowledged now."""


def not_recorded(what: str, error: OSError) -> ProblemError:
    """Return the error of something that cannot be acknowledged, which is to be sent again."""
    return ProblemError(
        503,
        f"{what} cannot be kept: {error.strerror or error}; send it again later",
        code="not_recorded",
        headers={"retry-after": RETRY_SECONDS},
    )


@dataclass(slots=True)
class Records:
    """The log, and whether what goes there may be acknowledged.

    Attributes:
        log: Where answers and feedback are recorded.
        sync: Whether to wait until a record is on the disk.
        refusal: Says why nothing may be acknowledged though the log can be written, or None.
    """

    log: WriteAheadLog
    sync: bool = False
    refusal: Callable[[], str | None] = lambda: None

    @property
    def problem(self) -> str | None:
        """Why nothing is recorded now; None where it is."""
        return self.refusal() or self.log.problem

    def append(
        self,
        lines: list[tuple[LogKind, bytes]],
        definitions: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Write lines to the log, after what they refer to.

        Raises:
            OSError: They cannot be, or may not be acknowledged.
        """
        refusal = self.refusal()
        if refusal is not None:
            raise NotRecordedError(refusal)
        self.log.append_all(lines, definitions)

    async def durable(self) -> None:
        """Wait until everything is on the disk, where that is asked for.

        Raises:
            OSError: It may not be.
        """
        if self.sync:
            await self.log.durable()


@dataclass(slots=True)
class Recorder:
    """Records answers; where it cannot, they go on without a record.

    Attributes:
        records: Where interactions are recorded.
        blobs: Where bytes that clients send are kept; None where they are not.
        metrics: Counts what is recorded.
        tracing: Ends the spans of requests.
    """

    records: Records
    blobs: BlobFolder | None = None
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing | None = None

    def interaction(
        self, chat: Chat, answer: Answer, version: str, error: str | None = None, attempt: int = 0
    ) -> bool:
        """Record an answer, or an attempt at one; return whether it is recorded.

        Args:
            chat: The request.
            answer: What was answered, or what there was of it.
            version: The version that gave it, or failed to.
            error: Why it is no whole answer.
            attempt: Number of an attempt after which another version was asked; 0 is the answer.
        """
        # bytes lie apart from the interaction, and would outlive one that is erased at its time
        reader = TurnReader(None if RETAIN in chat.metadata else self.blobs)
        spoken, key = reader.turns(chat.body["messages"]), chat.id
        if attempt:
            key = f"{chat.id}-failed-{attempt}"
        row: dict[str, Any] = {
            "id": key,
            "session_id": chat.session_id,
            "user_id": chat.user_id,
            "created_at": chat.at.isoformat(),
            "model_version": identifier(version),
            "messages": spoken,
            "response": answer.text,
            "latency_seconds": time.monotonic() - chat.started,
            "error": None if error is None else reader.text(error[:_LONGEST_REASON]),
            "segment": chat.segment or chat.caller.application,
        }
        if answer.tool_calls:
            row["tool_calls"] = answer.tool_calls
        if answer.refusal is not None:
            row["refusal"] = answer.refusal
        if chat.continues is not None:
            row["continues"] = chat.continues
        lines, definitions = [], dict[str, bytes]()
        for kind, body in _defined(chat.body):
            row[kind], definition = _definition(kind, json_bytes(reader.value(body)))
            definitions[row[kind]] = definition
        if chat.documents:
            row["documents"], line = self._documents(reader.value(chat.documents), key, chat)
            lines.append((LogKind.DEFINITION, line))
        row["metadata"] = {**chat.metadata, **answer.beside, **reader.notes}
        lines.append((LogKind.INTERACTION, json_bytes(row)))
        self.metrics.answer(version, _outcome(chat, error), row["latency_seconds"], chat.metadata)
        if attempt and error is not None and chat.span is not None:
            Tracing.failed(chat.span, version, row["error"])
        elif not attempt:
            self._end_span(chat, version, error, row)
        return self._append(lines, definitions)

    def unanswered(self, chat: Chat, reason: str) -> None:
        """Note that nobody answered a request; each attempt was recorded."""
        self._end_span(chat, chat.asked or chat.version, reason)

    def _end_span(
        self, chat: Chat, version: str, error: str | None, row: Mapping[str, Any] | None = None
    ) -> None:
        if chat.span is None or self.tracing is None:
            return
        said = None
        if row is not None and self.tracing.content and RETAIN not in chat.metadata:
            said = spoken_in_span(row["messages"], row["response"], row.get("tool_calls") or ())
        self.tracing.end(chat.span, chat.id, version, chat.metadata, error, said)

    def refused(self, chat: Chat, version: str, reason: str) -> bool:
        """Record a request that a backend refused for what was in it.

        What may be kept for a time only is recorded without its words: the row is no interaction,
        which would be erased when the time is over.
        """
        reader = TurnReader(self.blobs)
        spoken = reader.turns(() if RETAIN in chat.metadata else chat.body["messages"])
        row = {
            "id": chat.id,
            "user_id": chat.user_id,
            "session_id": chat.session_id,
            "model_version": identifier(version),
            "created_at": chat.at.isoformat(),
            "reason": reader.text(reason[:_LONGEST_REASON]),
            "messages": spoken,
        }
        self.metrics.answer(version, "refused", time.monotonic() - chat.started, {})
        self._end_span(chat, version, reason)
        return self._append([(LogKind.REFUSED, json_bytes(row))], {})

    async def durable(self) -> None:
        """Wait until the record is on the disk, where that is asked for.

        Raises:
            ProblemError: 503, it may not be.
        """
        try:
            await self.records.durable()
        except OSError as error:
            raise not_recorded("the answer", error) from error

    @staticmethod
    def _documents(documents: Any, interaction: str, chat: Chat) -> tuple[str, bytes]:
        """Return the digest of documents and their line.

        It names whose they are, so that it is blanked where the user is forgotten: so each
        interaction has its own.
        """
        documents = from_json(json_bytes(documents))
        key = digest(documents)
        row = {
            "id": key, "kind": "documents", "body": documents, "user_id": chat.user_id,
            "interaction_id": interaction,
        }  # fmt: skip
        return key, json_bytes(row)

    def _append(self, lines: list[tuple[LogKind, bytes]], definitions: Mapping[str, bytes]) -> bool:
        try:
            self.records.append(lines, definitions)
        except OSError as problem:
            # The user is answered all the same; without a token, since there is nothing to rate.
            logger.error("answers are sent and not recorded: %s", problem)
            self.metrics.unrecorded.inc()
            return False
        return True


def spoken_in_span(
    messages: Sequence[Mapping[str, Any]], answer: str, calls: Sequence[Any]
) -> tuple[str, str]:
    """Return what was asked and answered as OpenTelemetry's conventions have messages."""

    def parts(text: object, called: Sequence[Any]) -> list[dict[str, Any]]:
        found = [{"type": "text", "content": text}] if isinstance(text, str) and text else []
        return found + [{"type": "tool_call", "arguments": call} for call in called]

    asked = [
        {"role": m.get("role"), "parts": parts(m.get("content"), m.get("tool_calls") or ())}
        for m in messages
    ]
    told = [{"role": "assistant", "parts": parts(answer, calls)}]
    return json_bytes(asked).decode(), json_bytes(told).decode()


def _outcome(chat: Chat, error: str | None) -> Outcome:
    if chat.metadata.get(FINISH_REASON) == DISCONNECTED:
        return "left"
    return "answered" if error is None else "failed"


def _defined(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the tools and the response format of a request, which many requests share."""
    tools = body.get("tools")
    if not tools and isinstance(body.get("functions"), list):  # their older name
        tools = [{"type": "function", "function": function} for function in body["functions"]]
    for kind, said in (("tools", tools), ("response_format", body.get("response_format"))):
        if said:
            yield kind, said


def _definition(kind: str, content: bytes) -> tuple[str, bytes]:
    """Return the digest of a definition and its line."""
    make = _known_definition if len(content) <= _LARGEST_KNOWN else _new_definition
    return make(kind, content)


@lru_cache(maxsize=256)
def _known_definition(kind: str, content: bytes) -> tuple[str, bytes]:
    """Return the same without making it anew: the same tools come again and again."""
    return _new_definition(kind, content)


def _new_definition(kind: str, content: bytes) -> tuple[str, bytes]:
    body = from_json(content)
    key = digest(body)
    return key, json_bytes({"id": key, "kind": kind, "body": body})
