"""Answer a chat: choose the version, ask backends in turn, record, and stamp the answer.

An answer is acknowledged when it is sent; its record is in the log before that. In a stream the
record is in the log before `[DONE]`. A version that fails is recorded too, as an interaction with
an error, so that fail-over hides nothing from whoever watches the version.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeGuard

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse

from ratchet.collect.turns import NO_ANSWER, Answer, TurnReader, json_bytes
from ratchet.gateway.access import ANYBODY, Caller
from ratchet.gateway.addresses import without_addresses
from ratchet.gateway.backends import Backend, Target
from ratchet.gateway.circuits import Circuits
from ratchet.gateway.conversation import (
    anonymous,
    identifier,
    named_session,
    named_user,
    session_of,
)
from ratchet.gateway.last_resort import LAST_RESORT, why
from ratchet.gateway.leaving import ClientLeftError, ClientWatcher
from ratchet.gateway.problems import JSON, ProblemError, read_json
from ratchet.gateway.recording import DISCONNECTED, Chat, Recorder
from ratchet.gateway.replies import BackendError
from ratchet.gateway.request_metadata import (
    APPLICATION,
    OF_CLIENT,
    SPAN,
    TRACE,
    read_remarks,
    without_documents,
)
from ratchet.gateway.routing import Router, RoutingPlan, UnknownModelError
from ratchet.gateway.schemas import check_chat, check_fields
from ratchet.gateway.sessions import Conversations, answer_of, digest_of, opening_of
from ratchet.gateway.streams import Told
from ratchet.gateway.tokens import Tokens
from ratchet.records import APPLICATION_ROLES
from ratchet.records.asking import PROMPT_VERSION
from ratchet.store.permissions import RETAIN

logger = logging.getLogger(__name__)

_CHUNKS_IN_A_ROW = 32
_REPLICAS_ASKED = 2
_NAMES_SHOWN = 50


@dataclass(slots=True)
class Answerer:
    """See the module's text.

    Attributes:
        backends: In the order in which they are asked.
        replicas: How many of them, from the first on, are the same and share the requests.
        conversations: What was said in chats that name neither user nor session.
        circuits: How versions fared lately.
        watcher: Notices clients that leave.
        fallback_version: What answers of the fallback are recorded as, where it has another model.
        last_resort: Answers when nobody else does.
        passed_fields: Fields that Ratchet does not know and the backend gets; None is all.
    """

    router: Router
    backends: Sequence[Backend]
    recorder: Recorder
    tokens: Tokens
    conversations: Conversations
    replicas: int = 1
    circuits: Circuits = field(default_factory=Circuits)
    watcher: ClientWatcher = field(default_factory=ClientWatcher)
    fallback_version: str | None = None
    last_resort: Backend | None = None
    passed_fields: frozenset[str] | None = None
    _turn: count[int] = field(default_factory=count)

    async def answer(self, request: Request, caller: Caller) -> Response:
        """Answer a request, whole or as a stream.

        Raises:
            ProblemError: The request breaks a rule, or nobody answers it.
            ClientLeftError: The client left; the backend's work is cancelled, and that is recorded.
        """
        chat = self._open(await request.body(), request.headers, caller)
        try:
            with self.watcher.watching(request.receive):
                if chat.body.get("stream"):
                    return await self._stream(chat)
                completion, answered_by = await self._complete(chat)
        except ClientLeftError:
            self.left(chat)
            raise
        return await self._send(chat, completion, answered_by)

    # Opening ----------------------------------------------------------------------------------

    def _open(self, content: bytes, headers: Headers, caller: Caller) -> Chat:
        body = read_json(content)
        check_chat(body)
        check_fields(body, self.passed_fields)
        return self.begin(body, headers, caller)

    def begin(
        self,
        body: dict[str, Any],
        headers: Headers,
        caller: Caller,
        *,
        earlier: bytes | None = None,
    ) -> Chat:
        """Return a request that may be answered: whose it is, and which version is asked.

        Args:
            body: A chat that was checked.
            headers: Its headers.
            caller: Who sent it.
            earlier: What tells the answer that it follows, where the request names that.

        Raises:
            ProblemError: It asks for a version that does not answer.
        """
        started, at = time.monotonic(), datetime.now(UTC)
        key = self.tokens.new_id(caller.application)
        user_id, session_id, conversation = self._whose(body, headers, key, at, caller, earlier)
        plan = plan_of(self.router, body["model"], user_id)
        chat = Chat(key, body, plan, caller, user_id, session_id, at, started, conversation)
        remarks = read_remarks(body, headers, at)
        chat.segment, chat.forwarded = remarks.segment, remarks.forwarded
        chat.metadata |= remarks.metadata
        if (tracing := self.recorder.tracing) is not None:
            chat.span = tracing.begin(remarks.forwarded, str(body["model"]))
            chat.forwarded = {**remarks.forwarded, **tracing.forwarded(chat.span)}
            trace, span = tracing.ids(chat.span)
            chat.metadata.setdefault(TRACE, trace)  # by which the span is found
            chat.metadata.setdefault(SPAN, span)
        said = earlier or answer_of(body["messages"], f"{caller.id} {user_id}")
        if said is not None:
            chat.continues = self.conversations.find_answer(said)
        chat.body, chat.documents = without_documents(body)
        if caller.application != ANYBODY or remarks.segment:
            chat.metadata[APPLICATION] = caller.application
        chat.metadata["requested_model"] = identifier(body["model"]) or "?"
        if plan.experiment is not None:
            chat.metadata |= {"experiment": plan.experiment, "arm": plan.variant.label}
        if plan.variant.system_prompt is not None:
            chat.body = chat.body | {"messages": _with_prompt(body, plan.variant.system_prompt)}
            if PROMPT_VERSION in chat.metadata:  # it was not that prompt which was answered
                chat.metadata[OF_CLIENT + PROMPT_VERSION] = chat.metadata.pop(PROMPT_VERSION)
        return chat

    def _whose(
        self,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        key: str,
        at: datetime,
        caller: Caller,
        earlier: bytes | None,
    ) -> tuple[str, str, str | None]:
        """Return user and session of a request, and the caller where both are only known so.

        Without a named session, turns of the same user that begin with the same words on the same
        day are one session, since a chat sends all its turns every time. Where no user is named
        either, a request that holds an earlier answer goes on with the conversation in which that
        answer was given.
        """
        user, session = named_user(body, headers), named_session(body, headers)
        if session is not None:
            return user or anonymous(session), session, None
        messages = body["messages"]
        known = None if earlier is None else self.conversations.find(earlier)
        if known is not None:
            return user or known[0], known[1], None if user else caller.id
        if user is not None:
            opening = next((m for m in messages if m.get("role") == "user"), None)
            return user, session_of(user, at.date().isoformat(), opening), None
        before = digest_of(messages, caller.id)
        found = None if before is None else self.conversations.find(before)
        if found is not None:
            return *found, caller.id
        session = (
            f"session-{key}" if before is None else session_of(caller.id, opening_of(messages))
        )
        return anonymous(session), session, caller.id

    def _targets(self, chat: Chat) -> list[tuple[Backend, Target]]:
        """Whom to ask, in order, without what most callers were failed by lately."""
        state = self.router.state
        servers, others = self.backends[: self.replicas], self.backends[self.replicas :]
        if self.replicas > 1:
            first = next(self._turn) % self.replicas
            servers = [*servers[first:], *servers[:first]][:_REPLICAS_ASKED]
        wanted = [(server, chat.version) for server in servers]
        if chat.plan.previous not in (None, chat.version):
            wanted += [(server, str(chat.plan.previous)) for server in servers]
        called = state.names.get(chat.version, chat.version)
        other = self.fallback_version
        spare = chat.version if other in (None, called) else str(other)
        wanted += [(backend, spare) for backend in others]
        fit = [
            (backend, version)
            for backend, version in wanted
            if not self.circuits.is_open((backend.name, version))
        ]
        fit = fit or wanted
        if self.last_resort is not None:
            fit = [*fit, (self.last_resort, LAST_RESORT)]
        return [(backend, state.target(version, chat.forwarded)) for backend, version in fit]

    # Whole answers ----------------------------------------------------------------------------

    async def _complete(self, chat: Chat) -> tuple[dict[str, Any], str]:
        failures = []
        for backend, target in self._targets(chat):
            chat.asked = target.version
            try:
                completion = await backend.complete(chat.body, target)
            except BackendError as failure:
                failures.append(failure)
                self.give_up_on(chat, len(failures), backend, target, failure)
                continue
            self.note(chat, backend, target, answered=True)
            chat.metadata["backend"] = backend.name
            return completion, target.version
        raise self.nobody(chat, failures)

    async def _send(self, chat: Chat, completion: dict[str, Any], answered_by: str) -> Response:
        choice = completion["choices"][0]
        chat.describe(choice.get("finish_reason"), completion.get("usage"))
        answer = self.read(chat, choice["message"])
        recorded = self.recorder.interaction(chat, answer, answered_by, why(answered_by))
        if recorded:
            await self.recorder.durable()
        self.remember(chat, choice["message"])
        content = json_bytes(completion | self._stamp(chat, answered_by, recorded))
        return Response(content, 200, self.headers(chat, answered_by, recorded), JSON)

    # Streams ----------------------------------------------------------------------------------

    async def _stream(self, chat: Chat) -> Response:
        failures = []
        for backend, target in self._targets(chat):
            chat.asked = target.version
            chunks = backend.stream(chat.body, target)
            try:
                first = await anext(chunks)
            except (BackendError, StopAsyncIteration) as error:
                if isinstance(error, StopAsyncIteration):
                    error = BackendError(f"{backend.name} sent an empty stream")
                failures.append(error)
                self.give_up_on(chat, len(failures), backend, target, error)
                continue
            chat.metadata |= {"backend": backend.name, "stream": "yes"}
            return self.streamed(chat, target, self._events(chat, backend, target, first, chunks))
        raise self.nobody(chat, failures)

    async def _events(
        self,
        chat: Chat,
        backend: Backend,
        target: Target,
        first: dict[str, Any],
        chunks: AsyncGenerator[dict[str, Any]],
    ) -> AsyncIterator[bytes]:
        told, error = Told(), None
        finished = recorded = begun = False
        stamp = self._stamp(chat, target.version, True)
        try:
            chunk: dict[str, Any] | None = first
            while chunk is not None:
                told.add(chunk)
                if told.begun and not begun:
                    begun = True
                    chat.first_told()
                if told.chunks % _CHUNKS_IN_A_ROW == 0:
                    await asyncio.sleep(0)  # let others work, and a user who left be noticed
                yield b"data: " + json_bytes(chunk | stamp) + b"\n\n"
                stamp = {"id": chat.id, "model": target.version}
                chunk = await anext(chunks, None)
            finished = True
        except BackendError as failure:
            error = failure.reason
        except Exception as failure:
            logger.exception("a stream of %s cannot be passed on", backend.name)
            error = f"{backend.name} sent what cannot be passed on: {type(failure).__name__}"
        finally:
            if not finished and error is None:
                told.reason = DISCONNECTED
            else:
                self.note(chat, backend, target, answered=finished)
            chat.describe(told.reason, told.usage)
            answer = self.read(chat, told.message())
            reason = error or why(target.version)
            recorded = self.recorder.interaction(chat, answer, target.version, reason)
            with suppress(Exception):
                await chunks.aclose()  # the backend need not go on
        problem = None
        if error is not None:
            problem = ProblemError(502, without_addresses(error), code="backend_error")
        try:
            if recorded:
                await self.recorder.durable()
        except ProblemError as failure:
            problem = problem or failure
        if problem is not None:
            yield b"data: " + json_bytes(problem.body()) + b"\n\n"
        elif recorded:
            self.remember(chat, told.message())
            yield b"data: [DONE]\n\n"

    # What comes of an attempt -----------------------------------------------------------------

    def give_up_on(
        self, chat: Chat, attempt: int, backend: Backend, target: Target, failure: BackendError
    ) -> None:
        """Count and record a failure, and let the next one try.

        Raises:
            ProblemError: The request itself is at fault.
        """
        if failure.is_users:
            self.recorder.refused(chat, target.version, failure.reason)
            raise refusal(failure)
        self.note(chat, backend, target, answered=False)
        logger.warning("%s failed as %s: %s", backend.name, target.version, failure.reason)
        chat.metadata["failed_over_from"] = f"{backend.name} {target.version}"[:200]
        self.recorder.interaction(chat, NO_ANSWER, target.version, failure.reason, attempt)

    def left(self, chat: Chat) -> None:
        """Record that the client left before it was answered."""
        seconds = time.monotonic() - chat.started
        chat.describe(DISCONNECTED, None)
        reason = f"the client left after {seconds:.1f} s, before it was answered"
        self.recorder.interaction(chat, NO_ANSWER, chat.asked or chat.version, reason)

    def note(self, chat: Chat, backend: Backend, target: Target, *, answered: bool) -> None:
        """Count an attempt, and a request that was answered."""
        caller = f"{chat.caller.id} {chat.user_id}"
        self.circuits.attempt((backend.name, target.version), caller, answered)
        if answered:
            self.circuits.request(caller, backend is not self.last_resort)

    def nobody(self, chat: Chat, failures: Sequence[BackendError]) -> ProblemError:
        """Return the error of a request that nobody answered."""
        self.circuits.request(f"{chat.caller.id} {chat.user_id}", False)
        problem = nobody_answers(failures)
        self.recorder.unanswered(chat, problem.message)
        return problem

    def remember(self, chat: Chat, message: Mapping[str, Any], called: bytes | None = None) -> None:
        """Keep what the conversation got to, by which its next turn is known.

        Args:
            chat: The request.
            message: The answer.
            called: What tells the answer, where the next request may name it.
        """
        if called is not None:
            self.conversations.remember(called, chat.user_id, chat.session_id)
            self.conversations.remember_answer(called, chat.user_id, chat.id)
        content = message.get("content")
        answer: dict[str, Any] = {
            **message,
            "role": "assistant",
            "content": content if isinstance(content, str | list) else "",
        }
        turns = [*chat.body["messages"], answer]
        said = answer_of(turns, f"{chat.caller.id} {chat.user_id}")
        if said is not None:
            self.conversations.remember_answer(said, chat.user_id, chat.id)
        if chat.conversation is None:
            return
        after = digest_of(turns, chat.conversation)
        if after is not None:
            self.conversations.remember(after, chat.user_id, chat.session_id)

    def read(self, chat: Chat, message: Mapping[str, Any]) -> Answer:
        """Return what a message of the model says, as it is recorded."""
        kept = None if RETAIN in chat.metadata else self.recorder.blobs
        reader = TurnReader(kept, chat.metadata)
        return reader.answer(message)

    # Stamps -----------------------------------------------------------------------------------

    def _stamp(self, chat: Chat, version: str, recorded: bool) -> dict[str, Any]:
        token = self._token(chat) if recorded else ""
        return {
            "id": chat.id,
            "model": version,
            "ratchet": {"token": token, "version": version},
        }

    def _token(self, chat: Chat) -> str:
        """Return the token of an answer, which is the same in its headers and its body."""
        chat.token = chat.token or self.tokens.issue(chat.id, chat.user_id)
        return chat.token

    def headers(self, chat: Chat, version: str, recorded: bool) -> dict[str, str]:
        """Return the headers by which an answer is known, and feedback on it given."""
        headers = {"x-ratchet-interaction": chat.id, "x-ratchet-recorded": "yes"}
        if recorded:
            headers["x-ratchet-token"] = self._token(chat)
        else:
            headers["x-ratchet-recorded"] = "no"
        if version.isascii() and version.isprintable():
            headers["x-ratchet-version"] = version
        return headers

    def streamed(
        self, chat: Chat, target: Target, events: AsyncIterator[bytes], status: int = 200
    ) -> StreamingResponse:
        """Return an answer that is sent as events, which no proxy may hold back."""
        headers = self.headers(chat, target.version, True)
        headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(events, status, headers, "text/event-stream")


def _with_prompt(body: Mapping[str, Any], prompt: str) -> list[dict[str, Any]]:
    rest = [m for m in body["messages"] if m.get("role") not in APPLICATION_ROLES]
    return [{"role": "system", "content": prompt}, *rest]


def nobody_answers(failures: Sequence[BackendError]) -> ProblemError:
    """Return the error of a request for which every attempt failed.

    503 where trying again may help, 429 where the backend asks for fewer requests, else 502: what a
    backend has against the gateway, such as 401 for its key, is no status for its users.
    """
    if not failures:
        return ProblemError(503, "no backend is configured", code="backend_error")
    last = failures[-1]
    status = 503 if last.status is None or last.status >= 500 else 502
    if last.status in (408, 425):
        status = 503
    elif last.status == 429:
        status = 429
    waits = [failure.retry_after for failure in failures if _is_wait(failure.retry_after)]
    headers = {} if status == 502 else {"retry-after": waits[-1] if waits else "1"}
    message = f"no backend answers: {last.told}; try again"
    return ProblemError(status, message, code="backend_error", headers=headers)


def plan_of(router: Router, name: str, user_id: str) -> RoutingPlan:
    """Return who answers a request for a model.

    Raises:
        ProblemError: 404, the name stands for a version or an alias that does not answer.
    """
    try:
        return router.plan(name, user_id)
    except UnknownModelError as error:
        raise not_found(name, error.names, error.why) from error


def not_found(name: str, names: Sequence[str], why: str = "") -> ProblemError:
    """Return the error of a model that does not answer, with the names of those that do."""
    shown = ", ".join(names[:_NAMES_SHOWN]) or "none"
    return ProblemError(
        404,
        f"a model must be one that `GET /v1/models` lists, got {name[:200]!r}"
        f"{f': {why}' if why else ''}; it lists {shown}",
        code="model_not_found",
        param="model",
    )


def refusal(failure: BackendError) -> ProblemError:
    """Return the error of a request that a backend refused for what was in it."""
    detail = failure.detail
    assert failure.status is not None
    assert detail is not None
    told = without_addresses(detail.message)
    return ProblemError(failure.status, told, param=detail.param, code=detail.code)


def _is_wait(text: str | None) -> TypeGuard[str]:
    """Tell whether a text may be sent on as `Retry-After`: seconds or a date (RFC 9110, 10.2.3)."""
    return (
        text is not None and re.fullmatch(r"\d{1,9}|[A-Za-z]{3}, [\w: ]{10,40}", text) is not None
    )
