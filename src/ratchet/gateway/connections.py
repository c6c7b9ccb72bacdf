"""What a worker's connections may cost it: headers, bodies, time, and how many there are.

    uvicorn.Config(app, **server_options(options))

uvicorn limits neither the bytes nor the time of headers with its parser httptools, and counts
connections that say nothing among those it refuses others for. So its protocol is watched here. A
connection is *waiting* until its request has come whole, and once more after each answer. Where
there are too many, the one that has waited longest makes room: who sends nothing, or a byte now
and then, is always older than who sends a request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ratchet.gateway.hosts import caller_address, proxy_networks
from ratchet.gateway.options import GatewayOptions
from ratchet.gateway.problems import JSON, ProblemError
from ratchet.gateway.tls import tls_context

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 5
_SWEEP_SECONDS = 0.5
_OTHER_FILES = 256
"""Descriptors left for the log, the store and the rest."""

Phase = Literal["headers", "body", "answering"]


def server_options(options: GatewayOptions) -> dict[str, Any]:
    """Return what uvicorn is told about connections, with this process's limits in force."""
    guard = Guard(options, most=_affordable(options.connections))
    proxies = proxy_networks(options.proxies)
    return {
        "http": guard.protocol,
        "ws": "none",
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "proxy_headers": bool(proxies),
        "forwarded_allow_ips": proxies,
    }


def _affordable(wanted: int) -> int:
    """Return how many connections there may be, each with one to a backend; allow all that can be.

    A process that runs out of descriptors accepts nobody.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
        except (OSError, ValueError) as error:
            logger.warning("the limit of open files stays at %s: %s", soft, error)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = max(2, (soft - _OTHER_FILES) // 2)
    logger.warning("at most %s connections are held, since %s files may be open", most, soft)
    return most


@dataclass(slots=True)
class Guard:
    """Counts the connections of a process and ends those that take too long.

    Attributes:
        options: The limits.
        most: Connections in all.
        clock: Seconds, monotonic.
    """

    options: GatewayOptions
    most: int
    clock: Callable[[], float] = time.monotonic
    _context: ssl.SSLContext | None = field(init=False)
    _open: dict[GuardedProtocol, None] = field(default_factory=dict)
    _waiting: dict[GuardedProtocol, None] = field(default_factory=dict)
    _open_of: dict[str, dict[GuardedProtocol, None]] = field(default_factory=dict)
    _waiting_of: dict[str, dict[GuardedProtocol, None]] = field(default_factory=dict)
    _proxies: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = field(init=False)
    _sweeping: bool = False

    def __post_init__(self) -> None:
        self._context = tls_context(self.options)
        named = proxy_networks(self.options.proxies)
        self._proxies = [ipaddress.ip_network(text) for text in named]

    def protocol(self, **told: Any) -> asyncio.Protocol:
        """Return the protocol of a new connection; uvicorn calls it."""
        found = GuardedProtocol(self, **told)
        return found if self._context is None else _Handshake(found, self._context)

    def admit(self, protocol: GuardedProtocol) -> bool:
        """Count a connection and make room for it; False where nobody waits who could make room."""
        address = protocol.address
        if not self._is_proxy(address):
            address = caller_address(address)
            own, waiting = self._open_of.get(address, {}), self._waiting_of.get(address, {})
            if len(own) >= self.options.connections_per_address and not _make_room(waiting):
                return False
            protocol.counted_as = address
        if len(self._open) >= self.most and not _make_room(self._waiting):
            return False
        self._open[protocol] = None
        if protocol.counted_as is not None:
            self._open_of.setdefault(protocol.counted_as, {})[protocol] = None
        self.waits(protocol)
        if not self._sweeping:
            self._sweeping = True
            protocol.loop.call_later(_SWEEP_SECONDS, self._sweep, protocol.loop)
        return True

    def waits(self, protocol: GuardedProtocol) -> None:
        """Note that a connection's next request has not come whole."""
        if protocol in self._open:
            self._waiting[protocol] = None
            if protocol.counted_as is not None:
                self._waiting_of.setdefault(protocol.counted_as, {})[protocol] = None

    def answers(self, protocol: GuardedProtocol) -> None:
        """Note that a connection's request has come whole."""
        self._waiting.pop(protocol, None)
        _drop(self._waiting_of, protocol)

    def leave(self, protocol: GuardedProtocol) -> None:
        """Forget a connection."""
        self._open.pop(protocol, None)
        _drop(self._open_of, protocol)
        self.answers(protocol)

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self.clock()
        for protocol in list(self._open):
            try:
                protocol.look(now)
            except Exception:
                logger.exception("a connection cannot be watched and is closed")
                protocol.abort()
        self._sweeping = bool(self._open)
        if self._sweeping:
            loop.call_later(_SWEEP_SECONDS, self._sweep, loop)


def _make_room(waiting: dict[GuardedProtocol, None]) -> bool:
    oldest = next(iter(waiting), None)
    if oldest is None:
        return False
    oldest.abort()
    return True


def _drop(by_address: dict[str, dict[GuardedProtocol, None]], protocol: GuardedProtocol) -> None:
    found = by_address.get(protocol.counted_as or "")
    if found is not None:
        found.pop(protocol, None)
        if not found:
            del by_address[protocol.counted_as or ""]


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within the limits of a `Guard`.

    Attributes:
        address: Where it comes from.
        counted_as: What it is counted by; None for a named proxy.
    """

    def __init__(self, guard: Guard, **told: Any) -> None:
        super().__init__(**told)
        self._guard, self._options = guard, guard.options
        self.address = "?"
        self.counted_as: str | None = None
        self._raw: asyncio.Transport | None = None
        self._early = b""
        self._phase: Phase = "headers"
        self._since = guard.clock()
        self._whole = True  # the last request has come whole
        self._in_headers = False
        self._header_bytes = self._silent_bytes = 0
        self._called = False
        self._problem: ProblemError | None = None
        self._stuck_since: float | None = None

    # Connections ------------------------------------------------------------------------------

    def arrived(self, transport: asyncio.Transport) -> bool:
        """Count a new connection; False where it must not be served."""
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) and peer else "?"
        self._raw = transport
        return self._guard.admit(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse a connection too many."""
        admitted = self._raw is not None or self.arrived(transport)
        super().connection_made(transport)
        if not admitted:
            self._refuse(_too_many())
        elif self._early:  # came with the end of a TLS handshake
            early, self._early = self._early, b""
            self.data_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._guard.leave(self)
        if self.transport is not None:
            super().connection_lost(exc)

    def abort(self) -> None:
        """Close at once, and forget what was not sent."""
        self._guard.leave(self)
        if self._raw is not None:
            self._raw.abort()

    def look(self, now: float) -> None:
        """End the connection where its time is over."""
        if self.transport is None:  # in a TLS handshake
            if now - self._since > self._options.header_seconds:
                self.abort()
            return
        if self.flow.write_paused or self.transport.is_closing():
            self._stuck_since = self._stuck_since or now
            if now - self._stuck_since > self._options.write_seconds:
                self.abort()
            return
        self._stuck_since = None
        waited = now - self._since
        if self._phase == "headers" and waited > self._options.header_seconds:
            if self._in_headers or self._silent_bytes:
                self._refuse(_too_slow("headers", self._options.header_seconds))
            else:
                self.transport.close()
        elif self._phase == "body" and not self.pipeline and waited > self._options.body_seconds:
            self._refuse(_too_slow("a body", self._options.body_seconds))

    # Requests ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what came, and count bytes of which the parser says nothing yet."""
        if self.transport is None:
            self._early += data
            return
        if self.transport.is_closing():
            return
        self._called = False
        super().data_received(data)
        self._silent_bytes = 0 if self._called else self._silent_bytes + len(data)
        if self._silent_bytes > self._options.header_bytes and not self.transport.is_closing():
            self._refuse(self._too_long())

    def on_message_begin(self) -> None:
        """Begin to count a request's headers."""
        self._called = True
        self._header_bytes = 0
        self._whole, self._in_headers = False, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header. Those after a body are counted and left out."""
        self._count(len(name) + len(value) + 4)
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to wait for the body."""
        self._called, self._in_headers = True, False
        if not self.url.startswith(b"/"):
            self._problem = ProblemError(
                400,
                "a request must name a path of this gateway, got another address; send it as /path",
                code="malformed_request",
            )
            raise ValueError("the target is no path")
        super().on_headers_complete()
        if not self.pipeline:
            self._phase, self._since = "body", self._guard.clock()

    def on_chunk_header(self) -> None:
        """Note that the parser goes on."""
        self._called = True

    def on_body(self, body: bytes) -> None:
        """Note that the parser goes on."""
        self._called = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request has come whole."""
        self._called, self._whole = True, True
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait()
        elif not self.pipeline:
            self._phase = "answering"
            self._guard.answers(self)

    def on_response_complete(self) -> None:
        """Wait for the next request, or go on with the one that came already."""
        waited = bool(self.pipeline)
        super().on_response_complete()
        if waited and not self._whole:
            self._phase, self._since = "body", self._guard.clock()
            self._guard.waits(self)
        elif not waited and (self._whole or self._in_headers):
            self._wait()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn calls it so
        """Refuse what the parser cannot read, in the shape of every other error."""
        self._refuse(self._problem or _unreadable())

    def _wait(self) -> None:
        self._phase, self._since = "headers", self._guard.clock()
        self._guard.answers(self)  # to the end of the queue
        self._guard.waits(self)

    def _count(self, more: int) -> None:
        self._called = True
        self._header_bytes += more
        if self._header_bytes > self._options.header_bytes:
            self._problem = self._too_long()
            raise ValueError("the headers are too long")

    def _refuse(self, problem: ProblemError) -> None:
        """Answer with an error, unless an answer has begun, and close."""
        self._phase = "answering"
        begun = self.cycle is not None and self.cycle.response_started
        if begun and not self.cycle.response_complete:
            self.abort()
            return
        content = bytes(problem.response().body)
        head = [f"HTTP/1.1 {problem.status} ", f"\r\ncontent-type: {JSON}\r\n"]
        head += [f"{name}: {value}\r\n" for name, value in problem.headers.items()]
        head.append(f"content-length: {len(content)}\r\nconnection: close\r\n\r\n")
        self.transport.write("".join(head).encode("latin-1") + content)
        self.transport.close()

    def _too_long(self) -> ProblemError:
        return ProblemError(
            431,
            f"a request's headers must have at most {self._options.header_bytes:,} bytes, got "
            "more; shorten them",
            code="headers_too_large",
        )


class _Handshake(asyncio.Protocol):
    """Begins TLS on a connection that is counted from its first moment."""

    def __init__(self, inner: GuardedProtocol, context: ssl.SSLContext) -> None:
        self._inner, self._context = inner, context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()  # what comes is TLS's to read
        if self._inner.arrived(transport):
            self._task = self._inner.loop.create_task(self._begin(transport))
        else:
            transport.abort()

    async def _begin(self, transport: asyncio.Transport) -> None:
        start = partial(self._inner.loop.start_tls, transport, self._inner, self._context)
        try:
            secure = await start(server_side=True)
        except (OSError, asyncio.CancelledError):  # also ssl.SSLError and time-outs
            self._inner.abort()
            return
        if secure is None or secure.is_closing():
            self._inner.abort()
            return
        self._inner.connection_made(secure)


def _too_many() -> ProblemError:
    return ProblemError(
        503,
        "too many requests are being answered; send this one again later",
        code="too_many_connections",
        headers={"retry-after": "1"},
    )


def _too_slow(what: str, seconds: float) -> ProblemError:
    return ProblemError(
        408,
        f"{what} must come within {seconds:g} s, got less than that; send it again faster",
        code="request_timeout",
    )


def _unreadable() -> ProblemError:
    return ProblemError(
        400, "a request must be HTTP/1.1, got something else", code="malformed_request"
    )
