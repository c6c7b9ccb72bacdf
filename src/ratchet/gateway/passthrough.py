"""Parts of OpenAI's API that are passed on to the backend and not recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import product
from typing import Any

import aiohttp
from fastapi import Request, Response
from starlette.responses import StreamingResponse

from ratchet.collect.turns import json_bytes
from ratchet.gateway.backends import Backend, Target
from ratchet.gateway.chat import nobody_answers, not_found, plan_of, refusal
from ratchet.gateway.conversation import named_user
from ratchet.gateway.http_backend import NETWORK_ERRORS, HttpBackend
from ratchet.gateway.leaving import ClientWatcher
from ratchet.gateway.problems import JSON, ProblemError, read_json
from ratchet.gateway.replies import BackendError, bounded
from ratchet.gateway.request_metadata import trace_headers
from ratchet.gateway.routing import ALIASES, Router
from ratchet.gateway.schemas import ModelEntry, checked_object

PASSED_ON = ("completions", "embeddings")
_OWN_MODELS = "embeddings"
"""Where any name is the backend's own, since no version of ours makes embeddings."""


class Passthrough:
    """See the module's text."""

    def __init__(
        self,
        router: Router,
        backends: Sequence[Backend],
        *,
        passed_fields: frozenset[str] | None = None,
    ) -> None:
        self._router, self._watcher = router, ClientWatcher()
        self._passed_fields = passed_fields
        self._servers = [server for server in backends if isinstance(server, HttpBackend)]

    async def post(self, request: Request) -> Response:
        """Pass a request on, as it came but for the model's name.

        Backends are asked in turn, and after them for `previous`.

        Raises:
            ProblemError: It is no JSON object, or no backend answers it.
            ClientLeftError: The client left; the backend's work is cancelled.
        """
        body = checked_object(read_json(await request.body()), self._passed_fields)
        path = request.url.path.removeprefix("/v1")
        targets = self._targets(path, body, named_user(body, request.headers) or "")
        with self._watcher.watching(request.receive):
            return await self._ask(
                path,
                body,
                targets,
                stream=body.get("stream") is True,
                headers=trace_headers(request.headers),
            )

    async def model(self, name: str) -> Response:
        """Return the entry of one name: the gateway's own, else the backend's.

        Raises:
            ProblemError: 404, nobody has the name; another where no backend answers.
        """
        ours = Response(ModelEntry(id=name).model_dump_json(), media_type=JSON)
        if name in self._router.names():
            return ours
        unknown = not_found(name, self._router.names())
        if not self._servers or name in ALIASES or self._router.is_version(name):
            raise unknown
        try:
            return await self._ask(f"/models/{name}")
        except ProblemError as problem:
            if any(name in server.listed for server in self._servers):
                return ours  # some servers list models and have no page of each
            raise unknown if problem.status == 502 else problem from None

    def _targets(self, path: str, body: dict[str, Any], user: str) -> list[Target | None]:
        """Return whom to ask for, in order: as in a chat, `previous` after the chosen one.

        None stands for the name as it was sent, which is the backend's own.
        """
        name, router = str(body["model"]), self._router
        ours = name in ALIASES or router.is_version(name)
        if path.endswith(_OWN_MODELS) and not ours:
            return [None]
        plan = plan_of(router, name, user)
        versions = dict.fromkeys([plan.variant.version, plan.previous or plan.variant.version])
        return [router.state.target(version) for version in versions]

    async def _ask(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        targets: Sequence[Target | None] = (None,),
        *,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Post a body to the first server that answers it; without one, get the path."""
        failures: list[BackendError] = []
        for target, server in product(targets, self._servers):
            model = {} if target is None else {"model": server.asked_as(target)}
            try:
                reply = await server.open(
                    path, body and body | model, stream=stream, headers=headers
                )
            except BackendError as failure:
                if failure.is_users:
                    raise refusal(failure) from failure
                failures.append(failure)
                continue
            return StreamingResponse(
                _pieces(reply, server.most_bytes, stream=stream),
                reply.status,
                media_type=reply.content_type,
            )
        if not self._servers:
            raise ProblemError(
                404,
                f"the local model answers /v1/chat/completions alone, got /v1{path}; start with "
                "--backend",
                code="not_supported",
            )
        raise nobody_answers(failures)


async def _pieces(
    reply: aiohttp.ClientResponse, most_bytes: int, *, stream: bool
) -> AsyncIterator[bytes]:
    """Yield a reply as it comes; a stream that breaks off ends with an error event."""
    try:
        async for piece in bounded(reply.content.iter_any(), most_bytes):
            yield piece
    except (*NETWORK_ERRORS, BackendError) as error:
        if not stream:
            raise
        why = error.told if isinstance(error, BackendError) else type(error).__name__
        problem = ProblemError(502, f"the backend broke off: {why}", code="backend_error")
        yield b"data: " + json_bytes(problem.body()) + b"\n\n"
    finally:
        reply.close()
