"""What stands before the routes: the size of bodies, foreign web pages, the name of the host."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.gateway.options import LOOPBACK
from ratchet.gateway.problems import ProblemError

_CHANGING = ("POST", "PUT", "PATCH", "DELETE")


class Shield:
    """Refuses what no route should see.

    Bodies longer than `most_bytes`, also where their length is not announced. Web pages of other
    origins that post from a user's browser. While the gateway is open to its own machine, requests
    under another host's name, which a rebound DNS name would send.
    """

    def __init__(
        self, app: ASGIApp, *, most_bytes: int, origins: Collection[str], loopback_only: bool
    ) -> None:
        self._app, self._most_bytes = app, most_bytes
        self._origins, self._loopback_only = frozenset(origins), loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        problem = self._refusal(scope["method"], headers)
        if problem is None:
            problem = await self._guarded(scope, receive, send)
        if problem is not None:
            await problem.response()(scope, receive, send)

    def _refusal(self, method: str, headers: dict[bytes, bytes]) -> ProblemError | None:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most_bytes:
            return self._too_long()
        host = headers.get(b"host", b"").decode("latin-1")
        if self._loopback_only and not _is_loopback(host):
            return ProblemError(
                403,
                f"this gateway is open to its own machine only, got the host {host[:80]!r}; call "
                "127.0.0.1, or put keys in place by `ratchet keys create`",
                code="foreign_host",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or method not in _CHANGING or origin in self._origins or "*" in self._origins:
            return None
        if urlsplit(origin).netloc == host:
            return None
        return ProblemError(
            403,
            f"web pages that call must be of an allowed origin, got {origin[:80]!r}; "
            "start with --cors ORIGIN",
            code="foreign_origin",
        )

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> ProblemError | None:
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most_bytes:
                raise _TooLongError
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLongError:
            if not started:
                return self._too_long()
        return None

    def _too_long(self) -> ProblemError:
        return ProblemError(
            413,
            f"a request must have at most {self._most_bytes:,} bytes, got more; shorten it, or "
            "start with a larger --most-bytes",
            code="request_too_large",
        )


class _TooLongError(Exception):
    """The body went over the limit while it was read."""


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    return name in LOOPBACK or name.startswith("127.") or name.endswith(".localhost")
