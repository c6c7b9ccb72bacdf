"""A bound on the requests that wait for an answer: a quick 503 is better than a slow one."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ratchet.gateway.problems import ProblemError

RETRY_SECONDS = "1"
_BEHIND_BACKEND = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


class BoundedQueue:
    """Refuses requests for an answer while `most` of them are being answered in this process.

    A request counts from its arrival until the last byte of its answer is sent or its client left.
    Feedback, health and pages are never refused: they wait for no backend.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app, self._most, self._waiting = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] not in _BEHIND_BACKEND or not self._most:
            await self._app(scope, receive, send)
            return
        if self._waiting >= self._most:
            await self._refusal().response()(scope, receive, send)
            return
        self._waiting += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._waiting -= 1

    def _refusal(self) -> ProblemError:
        return ProblemError(
            503,
            f"at most {self._most} requests are answered at a time, got one more; try again later",
            code="overloaded",
            headers={"retry-after": RETRY_SECONDS},
        )
