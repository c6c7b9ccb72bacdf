"""Record what was asked and answered, what failed and what was refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ratchet.gateway.access import Caller
from ratchet.gateway.conversation import identifier, storable, turns
from ratchet.gateway.log import LogKind, WriteAheadLog
from ratchet.gateway.problems import ProblemError
from ratchet.gateway.replies import json_bytes
from ratchet.gateway.routing import RoutingPlan
from ratchet.store.permissions import RETAIN

logger = logging.getLogger(__name__)

DISCONNECTED = "disconnected"
"""Finish reason of an answer whose client left."""
RETRY_SECONDS = "5"
_FORWARDED = ("max_completion_tokens", "temperature", "top_p", "seed")
_LONGEST_REASON = 2_000


@dataclass(slots=True)
class Chat:
    """One request on its way to an answer.

    Attributes:
        conversation: The caller, where the conversation is known by what was said alone.
        asked: The version that was asked last.
        segment: Where the client says that it comes from; None where it does not.
        forwarded: Headers that the backend gets.
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

    @property
    def version(self) -> str:
        """The version that was chosen."""
        return self.plan.variant.version

    def describe(self, reason: object, usage: object) -> None:
        """Note how the answer ended, what it cost and how it was asked for."""
        if reason:
            self.metadata["finish_reason"] = str(reason)[:100]
        if isinstance(usage, Mapping):
            for name in ("prompt_tokens", "completion_tokens"):
                if isinstance(usage.get(name), int):
                    self.metadata[name] = str(usage[name])
        for name in _FORWARDED:
            if self.body.get(name) is not None:
                self.metadata[name] = str(self.body[name])


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

    def append(self, lines: list[tuple[LogKind, bytes]]) -> None:
        """Write lines to the log.

        Raises:
            OSError: They cannot be, or may not be acknowledged.
        """
        refusal = self.refusal()
        if refusal is not None:
            raise NotRecordedError(refusal)
        self.log.append_all(lines)

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
    """

    records: Records

    def interaction(
        self, chat: Chat, text: str, version: str, error: str | None = None, attempt: int = 0
    ) -> bool:
        """Record an answer, or an attempt at one; return whether it is recorded.

        Args:
            chat: The request.
            text: The answer, or what there was of it.
            version: The version that gave it, or failed to.
            error: Why it is no whole answer.
            attempt: Number of an attempt after which another version was asked; 0 is the answer.
        """
        spoken, notes = turns(chat.body["messages"])
        row = {
            "id": f"{chat.id}-failed-{attempt}" if attempt else chat.id,
            "session_id": chat.session_id,
            "user_id": chat.user_id,
            "created_at": chat.at.isoformat(),
            "model_version": identifier(version),
            "messages": spoken,
            "response": text,
            "latency_seconds": time.monotonic() - chat.started,
            "error": None if error is None else storable(error[:_LONGEST_REASON], notes),
            "segment": chat.segment or chat.caller.application,
            "metadata": chat.metadata | notes,
        }
        return self._append(LogKind.INTERACTION, row)

    def refused(self, chat: Chat, version: str, reason: str) -> bool:
        """Record a request that a backend refused for what was in it.

        What may be kept for a time only is recorded without its words: the row is no interaction,
        which would be erased when the time is over.
        """
        spoken, notes = turns(() if RETAIN in chat.metadata else chat.body["messages"])
        row = {
            "id": chat.id,
            "user_id": chat.user_id,
            "session_id": chat.session_id,
            "model_version": identifier(version),
            "created_at": chat.at.isoformat(),
            "reason": storable(reason[:_LONGEST_REASON], notes),
            "messages": spoken,
        }
        return self._append(LogKind.REFUSED, row)

    async def durable(self) -> None:
        """Wait until the record is on the disk, where that is asked for.

        Raises:
            ProblemError: 503, it may not be.
        """
        try:
            await self.records.durable()
        except OSError as error:
            raise not_recorded("the answer", error) from error

    def _append(self, kind: LogKind, row: Mapping[str, Any]) -> bool:
        try:
            self.records.append([(kind, json_bytes(row))])
        except OSError as problem:
            # The user is answered all the same; without a token, since there is nothing to rate.
            logger.error("answers are sent and not recorded: %s", problem)
            return False
        return True
