"""Answer a chat: choose the version, ask backends in turn, record, and stamp the answer.

An answer is acknowledged when it is sent; its record is in the log before that. In a stream the
record is in the log before `[DONE]`. A version that fails is recorded too, as an interaction with
an error, so that fail-over hides nothing from whoever watches the version.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from pydantic_core import from_json, to_json
from starlette.responses import StreamingResponse

from ratchet.gateway.access import Caller, token_for
from ratchet.gateway.backends import Backend, BackendError, Target
from ratchet.gateway.conversation import identifier, said, storable, turns, user_and_session
from ratchet.gateway.log import LogKind, WriteAheadLog
from ratchet.gateway.problems import JSON, ProblemError
from ratchet.gateway.routing import Router, RoutingPlan
from ratchet.gateway.schemas import check_chat

logger = logging.getLogger(__name__)

_FAILURES_TO_SKIP = 3
_SKIPPED_SECONDS = 5.0
_CHUNKS_IN_A_ROW = 32
_FORWARDED = ("max_completion_tokens", "temperature", "top_p", "seed")


@dataclass(slots=True)
class Chat:
    """One request on its way to an answer."""

    id: str
    body: dict[str, Any]
    plan: RoutingPlan
    caller: Caller
    user_id: str
    session_id: str
    at: datetime
    started: float
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The version that was chosen."""
        return self.plan.variant.version


@dataclass(slots=True)
class Answerer:
    """See the module's text.

    Attributes:
        backends: In the order in which they are asked; the first two forms are the primary's.
        log: Where interactions are recorded.
        sync: Whether to wait until a record is on the disk.
        recording: Whether the last record could be written.
    """

    router: Router
    backends: list[Backend]
    log: WriteAheadLog
    secret: bytes
    sync: bool = False
    recording: bool = True
    _failures: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    async def answer(self, request: Request, caller: Caller) -> Response:
        """Answer a request, whole or as a stream.

        Raises:
            ProblemError: The request breaks a rule, or nobody answers it.
        """
        chat = self._open(await request.body(), request.headers, caller)
        if chat.body.get("stream"):
            return await self._stream(chat)
        completion, answered_by = await self._complete(chat)
        return await self._send(chat, completion, answered_by)

    def health(self) -> dict[str, bool]:
        """Return whether each backend answered when it was last asked."""
        failing = {name for (name, _), (count, _) in self._failures.items() if count}
        return {backend.name: backend.name not in failing for backend in self.backends}

    # Opening ----------------------------------------------------------------------------------

    def _open(self, content: bytes, headers: Mapping[str, str], caller: Caller) -> Chat:
        try:
            body = from_json(content, allow_inf_nan=False)
        except ValueError as error:
            raise ProblemError(
                400, f"the body must be JSON, got: {error}", code="invalid_json"
            ) from error
        check_chat(body)
        started, at = time.monotonic(), datetime.now(UTC)
        key = f"chatcmpl-{uuid4().hex}"
        user_id, session_id = user_and_session(body, headers, key, at)
        plan = self.router.plan(body["model"], user_id)
        chat = Chat(key, body, plan, caller, user_id, session_id, at, started)
        chat.metadata["requested_model"] = identifier(body["model"]) or "?"
        if plan.experiment is not None:
            chat.metadata |= {"experiment": plan.experiment, "arm": plan.variant.label}
        if plan.variant.system_prompt is not None:
            chat.body = body | {"messages": _with_prompt(body, plan.variant.system_prompt)}
        return chat

    def _targets(self, chat: Chat) -> list[tuple[Backend, Target]]:
        """Whom to ask, in order; what failed three times running is left out for five seconds."""
        adapters = self.router.state.adapters
        first, *others = self.backends
        wanted = [(first, chat.version)]
        if chat.plan.previous not in (None, chat.version):
            wanted.append((first, str(chat.plan.previous)))
        wanted += [(backend, chat.version) for backend in others]
        now = time.monotonic()
        fit = [
            (backend, version)
            for backend, version in wanted
            if not self._is_skipped(backend.name, version, now)
        ]
        return [(b, Target(version, adapters.get(version))) for b, version in fit or wanted]

    def _is_skipped(self, backend: str, version: str, now: float) -> bool:
        count, since = self._failures.get((backend, version), (0, 0.0))
        return count >= _FAILURES_TO_SKIP and now < since + _SKIPPED_SECONDS

    # Whole answers ----------------------------------------------------------------------------

    async def _complete(self, chat: Chat) -> tuple[dict[str, Any], str]:
        failure = None
        for number, (backend, target) in enumerate(self._targets(chat)):
            try:
                completion = await backend.complete(chat.body, target)
                message = completion["choices"][0]["message"]
                said(message, {})
            except BackendError as error:
                failure = error
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                failure = BackendError(f"{backend.name} sent no chat completion: {error!r}")
            else:
                self._note(backend, target, None)
                chat.metadata["backend"] = backend.name
                return completion, target.version
            self._give_up_on(chat, number, backend, target, failure)
        raise _nobody(failure)

    async def _send(self, chat: Chat, completion: dict[str, Any], answered_by: str) -> Response:
        choice = completion["choices"][0]
        self._describe(chat, choice.get("finish_reason"), completion.get("usage"))
        text = said(choice["message"], chat.metadata)
        recorded = await self._record(chat, text, answered_by)
        content = to_json(completion | self._stamp(chat, answered_by, recorded))
        return Response(content, 200, self._headers(chat, answered_by, recorded), JSON)

    # Streams ----------------------------------------------------------------------------------

    async def _stream(self, chat: Chat) -> Response:
        failure = None
        for number, (backend, target) in enumerate(self._targets(chat)):
            chunks = backend.stream(chat.body, target)
            try:
                first = await anext(chunks)
            except (BackendError, StopAsyncIteration) as error:
                failure = (
                    error
                    if isinstance(error, BackendError)
                    else BackendError(f"{backend.name} sent an empty stream")
                )
                self._give_up_on(chat, number, backend, target, failure)
                continue
            chat.metadata |= {"backend": backend.name, "stream": "yes"}
            return StreamingResponse(
                self._events(chat, backend, target, first, chunks),
                headers=self._headers(chat, target.version, True)
                | {"cache-control": "no-cache", "x-accel-buffering": "no"},
                media_type="text/event-stream",
            )
        raise _nobody(failure)

    async def _events(
        self,
        chat: Chat,
        backend: Backend,
        target: Target,
        first: dict[str, Any],
        chunks: AsyncIterator[dict[str, Any]],
    ) -> AsyncIterator[bytes]:
        told, error = _Told(), None
        finished = recorded = False
        stamp = self._stamp(chat, target.version, True)
        try:
            chunk: dict[str, Any] | None = first
            while chunk is not None:
                told.add(chunk)
                if told.chunks % _CHUNKS_IN_A_ROW == 0:
                    await asyncio.sleep(0)  # let others work, and a user who left be noticed
                yield b"data: " + to_json(chunk | stamp) + b"\n\n"
                stamp = {"id": chat.id, "model": target.version}
                chunk = await anext(chunks, None)
            finished = True
        except BackendError as failure:
            error = failure.reason
        finally:
            if not finished and error is None:
                told.reason = "disconnected"
            self._note(backend, target, error)
            self._describe(chat, told.reason, told.usage)
            try:
                self._append(chat, said(told.message(), chat.metadata), target.version, error)
                recorded = True
            except OSError as problem:
                self._cannot_record(problem)
        if self.sync and recorded:
            await self.log.durable()
        if error is not None:
            yield (
                b"data: " + to_json(ProblemError(502, error, code="backend_error").body()) + b"\n\n"
            )
        elif recorded:
            yield b"data: [DONE]\n\n"

    # Recording --------------------------------------------------------------------------------

    def _describe(self, chat: Chat, reason: object, usage: object) -> None:
        if reason:
            chat.metadata["finish_reason"] = str(reason)[:100]
        if isinstance(usage, Mapping):
            for name in ("prompt_tokens", "completion_tokens"):
                if isinstance(usage.get(name), int):
                    chat.metadata[name] = str(usage[name])
        for name in _FORWARDED:
            if chat.body.get(name) is not None:
                chat.metadata[name] = str(chat.body[name])

    async def _record(self, chat: Chat, text: str, version: str) -> bool:
        try:
            self._append(chat, text, version, None)
        except OSError as problem:
            self._cannot_record(problem)
            return False
        if self.sync:
            await self.log.durable()
        return True

    def _append(
        self, chat: Chat, text: str, version: str, error: str | None, attempt: int = 0
    ) -> None:
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
            "error": None if error is None else storable(error[:2_000], notes),
            "segment": chat.caller.application,
            "metadata": chat.metadata | notes,
        }
        self.log.append(LogKind.INTERACTION, to_json(row))
        self.recording = True

    def _cannot_record(self, problem: OSError) -> None:
        # The user is answered all the same; without a token, since there is nothing to rate.
        self.recording = False
        logger.error("answers are sent and not recorded, the log cannot be written: %s", problem)

    # Failures ---------------------------------------------------------------------------------

    def _give_up_on(
        self, chat: Chat, number: int, backend: Backend, target: Target, failure: BackendError
    ) -> None:
        """Count and record a failure, and let the next one try.

        Raises:
            ProblemError: The request itself is at fault.
        """
        if not failure.retryable:
            raise _nobody(failure)
        self._note(backend, target, failure.reason)
        logger.warning("%s failed as %s: %s", backend.name, target.version, failure.reason)
        chat.metadata["failed_over_from"] = f"{backend.name} {target.version}"[:200]
        try:
            self._append(chat, "", target.version, failure.reason, attempt=number + 1)
        except OSError as problem:
            self._cannot_record(problem)

    def _note(self, backend: Backend, target: Target, error: str | None) -> None:
        key = (backend.name, target.version)
        if error is None:
            if key in self._failures:
                del self._failures[key]
        else:
            self._failures[key] = (self._failures.get(key, (0, 0.0))[0] + 1, time.monotonic())

    # Stamps -----------------------------------------------------------------------------------

    def _stamp(self, chat: Chat, version: str, recorded: bool) -> dict[str, Any]:
        token = token_for(self.secret, chat.id) if recorded else ""
        return {
            "id": chat.id,
            "model": version,
            "ratchet": {"token": token, "version": version},
        }

    def _headers(self, chat: Chat, version: str, recorded: bool) -> dict[str, str]:
        headers = {"x-ratchet-interaction": chat.id, "x-ratchet-recorded": "yes"}
        if recorded:
            headers["x-ratchet-token"] = token_for(self.secret, chat.id)
        else:
            headers["x-ratchet-recorded"] = "no"
        if version.isascii() and version.isprintable():
            headers["x-ratchet-version"] = version
        return headers


@dataclass(slots=True)
class _Told:
    """What a stream said so far; of several choices the first."""

    parts: list[str] = field(default_factory=list)
    tool_calls: list[Any] = field(default_factory=list)
    reason: str | None = None
    usage: object = None
    chunks: int = 0

    def add(self, chunk: Mapping[str, Any]) -> None:
        self.chunks += 1
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                delta = choice.get("delta") or {}
                if isinstance(delta.get("content"), str):
                    self.parts.append(delta["content"])
                self.tool_calls += delta.get("tool_calls") or ()
                self.reason = choice.get("finish_reason") or self.reason

    def message(self) -> dict[str, Any]:
        return {"content": "".join(self.parts), "tool_calls": self.tool_calls}


def _with_prompt(body: Mapping[str, Any], prompt: str) -> list[dict[str, Any]]:
    rest = [m for m in body["messages"] if m.get("role") not in ("system", "developer")]
    return [{"role": "system", "content": prompt}, *rest]


def _nobody(failure: BackendError | None) -> ProblemError:
    if failure is None:
        return ProblemError(503, "nobody answers: no backend is in place", code="backend_error")
    if failure.status is None or failure.status >= 500:
        message = f"no backend answers: {failure.reason}; try again"
        return ProblemError(503, message, code="backend_error", headers={"retry-after": "1"})
    try:
        detail = from_json(failure.body)["error"]
        message, param, code = detail["message"], detail.get("param"), detail.get("code")
    except (ValueError, KeyError, TypeError):
        message, param, code = failure.reason, None, None
    text = None if code is None else str(code)
    return ProblemError(failure.status, str(message), param=param, code=text)
