"""What stands before the routes: the size of bodies, foreign web pages, the name of the host."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.gateway.hosts import Host, is_loopback, parse_host, parse_origin
from ratchet.gateway.problems import ProblemError

_CHANGING = ("POST", "PUT", "PATCH", "DELETE")
Headers = Sequence[tuple[bytes, bytes]]


class Shield:
    """Refuses what no route should see.

    Bodies longer than `most_bytes`, also where their length is not announced. Hosts and origins
    that are none, or come twice. Web pages of other origins that post from a user's browser. While
    the gateway is open to its own machine, requests under another host's name, which a rebound DNS
    name would send.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        most_bytes: int,
        origins: Collection[str],
        loopback_only: Callable[[], bool],
    ) -> None:
        self._app, self._most_bytes = app, most_bytes
        self._loopback_only = loopback_only
        self._any_origin = "*" in origins
        self._origins = frozenset(parse_origin(text) for text in origins if text != "*")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            problem = await self._guarded(scope, receive, send)
        except ProblemError as found:
            problem = found
        if problem is not None:
            await problem.response()(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Refuse a request by its headers.

        Raises:
            ProblemError: 400, 403 or 413.
        """
        headers: Headers = scope["headers"]
        host = _host_of(headers, needed=scope["http_version"] != "1.0")
        if self._loopback_only() and not (host and is_loopback(host.name)):
            shown = repr(host.name[:80]) if host else "none"
            raise ProblemError(
                403,
                f"this gateway is open to its own machine only, got the host {shown}; call "
                "127.0.0.1, or put keys in place by `ratchet keys create`",
                code="foreign_host",
            )
        self._check_origin(scope["method"], headers, host)
        length = _only(headers, b"content-length") or b"0"
        if length.isdigit() and int(length) > self._most_bytes:
            raise self._too_long()

    def _check_origin(self, method: str, headers: Headers, host: Host | None) -> None:
        given = _only(headers, b"origin")
        if given is None:
            return
        text = given.decode("latin-1")
        try:
            origin = parse_origin(text)
        except ValueError as error:
            raise _malformed("Origin", text, error) from error
        if method not in _CHANGING or self._any_origin or (origin and origin in self._origins):
            return
        if origin is None or host is None or not origin.is_of(host):
            raise ProblemError(
                403,
                f"web pages that call must be of an allowed origin, got {text[:80]!r}; "
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


def _host_of(headers: Headers, *, needed: bool) -> Host | None:
    """Return the host that a request is for; None where HTTP/1.0 names none.

    Raises:
        ProblemError: 400, there is none, another one, or something else (RFC 9112, 3.2).
    """
    given = _only(headers, b"host")
    if given is None and not needed:
        return None
    text = (given or b"").decode("latin-1")
    try:
        return parse_host(text)
    except ValueError as error:
        raise _malformed("Host", text, error) from error


def _only(headers: Headers, name: bytes) -> bytes | None:
    """Return a header that may come once.

    Raises:
        ProblemError: 400, it comes again.
    """
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        shown = name.decode().title()
        raise ProblemError(
            400,
            f"a request must have one header {shown}, got {len(found)}; send one",
            code="repeated_header",
        )
    return found[0] if found else None


def _malformed(header: str, text: str, error: ValueError) -> ProblemError:
    return ProblemError(
        400,
        f"the header {header} must name a host: {error}; got {text[:80]!r}",
        code="malformed_header",
    )
