"""`/v1/responses`: asked of the backends as it came, recorded as the chat that it is.

The id of a response stays the backend's, which knows what it said under it: the interaction's id
and token come as headers. A request that names `previous_response_id` holds what is new alone; its
record says which interaction it continues.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import aiohttp
from fastapi import Request, Response
from pydantic_core import from_json

from ratchet.collect.response_items import (
    UNFINISHED,
    ToldItems,
    as_chat,
    error_of,
    message_of,
    reason_of,
    with_instructions,
)
from ratchet.collect.turns import json_bytes
from ratchet.gateway.access import Caller
from ratchet.gateway.backends import Target
from ratchet.gateway.chat import Answerer
from ratchet.gateway.http_backend import NETWORK_ERRORS, HttpBackend
from ratchet.gateway.leaving import ClientLeftError
from ratchet.gateway.problems import JSON, ProblemError, read_json
from ratchet.gateway.recording import DISCONNECTED, Chat
from ratchet.gateway.replies import BackendError, bounded, read_response, server_sent_events
from ratchet.gateway.request_metadata import without_documents
from ratchet.gateway.schemas import checked_object

_EVENTS_IN_A_ROW = 32


@dataclass(slots=True)
class Responses:
    """See the module's text.

    Attributes:
        answerer: Opens and records requests as it does chats.
        servers: Whom to ask, in order.
    """

    answerer: Answerer
    servers: Sequence[HttpBackend]

    async def post(self, request: Request, caller: Caller) -> Response:
        """Answer a request, whole or as a stream of events.

        Raises:
            ProblemError: It is no JSON object with a model, or no backend answers it.
            ClientLeftError: The client left; the backend's work is cancelled, and that is recorded.
        """
        body = checked_object(read_json(await request.body()), self.answerer.passed_fields)
        if not self.servers:
            raise ProblemError(
                404,
                "the local model answers /v1/chat/completions alone, got /v1/responses; start with "
                "--backend",
                code="not_supported",
            )
        before = body.get("previous_response_id")
        earlier = _key(before, caller) if isinstance(before, str) else None
        chat = self.answerer.begin(as_chat(body), request.headers, caller, earlier=earlier)
        sent, _ = without_documents(body)
        prompt = chat.plan.variant.system_prompt
        if prompt is not None:
            sent = with_instructions(sent, prompt)
        try:
            with self.answerer.watcher.watching(request.receive):
                return await self._ask(chat, sent)
        except ClientLeftError:
            self.answerer.left(chat)
            raise

    async def _ask(self, chat: Chat, body: Mapping[str, Any]) -> Response:
        failures: list[BackendError] = []
        for target, server in product(self._targets(chat), self.servers):
            chat.asked = target.version
            streams = body.get("stream") is True
            try:
                named = {**body, "model": server.asked_as(target)}
                reply = await server.open(
                    "/responses", named, stream=streams, headers=target.headers
                )
                if not streams:
                    return await self._whole(chat, server, target, reply)
            except BackendError as failure:
                failures.append(failure)
                self.answerer.give_up_on(chat, len(failures), server, target, failure)
                continue
            chat.metadata |= {"backend": server.name, "stream": "yes"}
            events = self._events(chat, server, target, reply)
            return self.answerer.streamed(chat, target, events, reply.status)
        raise self.answerer.nobody(chat, failures)

    def _targets(self, chat: Chat) -> list[Target]:
        """Return the chosen version and, after it, `previous`."""
        versions = dict.fromkeys([chat.version, chat.plan.previous or chat.version])
        state = self.answerer.router.state
        return [state.target(version, chat.forwarded) for version in versions]

    async def _whole(
        self, chat: Chat, server: HttpBackend, target: Target, reply: aiohttp.ClientResponse
    ) -> Response:
        try:
            pieces = bounded(reply.content.iter_any(), server.most_bytes)
            content = b"".join([piece async for piece in pieces])
        except NETWORK_ERRORS as error:
            raise BackendError(f"{server.name} broke off: {type(error).__name__}") from error
        finally:
            reply.close()
        response = read_response(content)
        self.answerer.note(chat, server, target, answered=True)
        chat.metadata["backend"] = server.name
        recorded = self._record(chat, target, response, response["output"], error_of(response))
        if recorded:
            await self.answerer.recorder.durable()
        headers = self.answerer.headers(chat, target.version, recorded)
        return Response(content, reply.status, headers, JSON)

    async def _events(
        self, chat: Chat, server: HttpBackend, target: Target, reply: aiohttp.ClientResponse
    ) -> AsyncIterator[bytes]:
        told, ended, recorded, count = ToldItems(), False, False, 0
        problem: str | None = None
        try:
            pieces = bounded(reply.content.iter_any(), server.most_bytes)
            async for name, data in server_sent_events(pieces):
                begun, count = told.begun, count + 1
                if not ended and told.add(_event(data)):
                    ended = True
                    self.answerer.note(chat, server, target, answered=told.problem is None)
                    recorded = self._record(
                        chat, target, told.response or {}, told.output(), told.problem
                    )
                    if recorded:
                        await self.answerer.recorder.durable()
                if told.begun and not begun:
                    chat.first_told()
                if count % _EVENTS_IN_A_ROW == 0:
                    await asyncio.sleep(0)  # let others work, and a user who left be noticed
                yield _sent(name, data)
            if not ended:
                problem = f"{server.name} ended the stream before the answer was finished"
        except BackendError as error:
            problem = error.told
        except NETWORK_ERRORS as error:
            problem = f"{server.name} broke off: {type(error).__name__}"
        finally:
            reply.close()
            if not ended:
                if problem is not None:
                    self.answerer.note(chat, server, target, answered=False)
                said = {"status": DISCONNECTED} if problem is None else {}
                self._record(chat, target, told.response or said, told.output(), problem, told.id)
        if problem is not None and not ended:
            body = ProblemError(502, problem, code="backend_error").body()
            yield b"data: " + json_bytes(body) + b"\n\n"

    def _record(
        self,
        chat: Chat,
        target: Target,
        response: Mapping[str, Any],
        output: Sequence[Any],
        error: str | None,
        key: str | None = None,
    ) -> bool:
        """Record an answer that is finished, and remember its id for the next request."""
        if response.get("status") in UNFINISHED:
            return False
        message = message_of(output)
        chat.describe(reason_of(response), response.get("usage"))
        answer = self.answerer.read(chat, message)
        recorded = self.answerer.recorder.interaction(chat, answer, target.version, error)
        key = response.get("id") or key
        if error is None and isinstance(key, str):
            self.answerer.remember(chat, message, _key(key, chat.caller))
        return recorded


def _key(response: str, caller: Caller) -> bytes:
    """Return the key under which a response is remembered; only its caller can continue it."""
    return hashlib.sha256(json_bytes(["response", caller.id, response])).digest()


def _event(data: bytes) -> Mapping[str, Any]:
    try:
        found = from_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sent(name: bytes, data: bytes) -> bytes:
    lines = [b"event: " + name] if name else []
    lines += [b"data: " + line for line in data.split(b"\n")]
    return b"\n".join([*lines, b"", b""])
