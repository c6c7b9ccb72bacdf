"""An OpenAI-compatible server behind the gateway, such as vLLM.

It is asked through aiohttp: a request costs it a tenth of what httpx takes, and in a proxy the
client is half of the work (docs/decisions/0011).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from ratchet.collect.turns import json_bytes
from ratchet.gateway.addresses import without_addresses
from ratchet.gateway.backends import Target
from ratchet.gateway.replies import (
    BackendError,
    bounded,
    is_users_fault,
    read_chunk,
    read_completion,
    read_detail,
    read_object,
    server_sent_events,
)
from ratchet.models.endpoint import request_headers, server_address, shown

CONNECT_SECONDS = 5.0
MODELS_SECONDS = 5.0
LOAD_SECONDS = 60.0
_REDIRECTED, _REFUSED = 300, 400
MOST_BYTES = 64_000_000
"""Bytes of an answer, unpacked; a longer one is an error."""
_LONGEST_REFUSAL = 1_000_000
_MOST_READ = 2_000  # bytes of a refusal, of which the log shows the start
NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class HttpBackend:
    """A server that speaks OpenAI's API, over kept connections."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "backend",
        key: str | None = None,
        model: str | None = None,
        stall_seconds: float = 30.0,
        answer_seconds: float = 600.0,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._root = server_address(url)
        self._name, self._model, self._key = name, model, key
        self.own = (urlsplit(self._root).netloc, urlsplit(self._root).hostname or "")
        self.most_bytes = most_bytes
        self._stall_seconds, self._answer_seconds = stall_seconds, answer_seconds
        self._streaming = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=stall_seconds
        )
        self._whole = aiohttp.ClientTimeout(total=answer_seconds, sock_connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None
        self._listed: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """What logs and metadata call it."""
        return self._name

    async def complete(self, body: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """See `Backend`."""
        payload = self._payload(body, target)
        path, headers = "/chat/completions", target.headers
        return read_completion(await self._exchange(path, payload, self._whole, headers))

    async def stream(
        self, body: Mapping[str, Any], target: Target
    ) -> AsyncGenerator[dict[str, Any]]:
        """See `Backend`."""
        ended, begun, finished = False, set[int](), set[int]()
        try:
            async with self._request(
                "POST",
                "/chat/completions",
                self._payload(body, target),
                self._streaming,
                target.headers,
            ) as reply:
                if reply.status >= _REDIRECTED:
                    raise self._refusal(reply, await self._start_of(reply))
                pieces = bounded(reply.content.iter_any(), self.most_bytes)
                async for name, data in server_sent_events(pieces):
                    if data.strip() == b"[DONE]":
                        ended = True
                        break
                    chunk = read_chunk(name, data)
                    for choice in chunk["choices"]:
                        places = finished if choice.get("finish_reason") else begun
                        places.add(choice.get("index", 0))
                    yield chunk
        except NETWORK_ERRORS as error:
            raise self._failure(error, f"said nothing for {self._stall_seconds:g} s") from error
        # of several answers in one stream each has to be finished, above all the one on record
        if not ended and not (0 in finished and begun <= finished):
            raise BackendError(f"{self._name} ended the stream before the answer was finished")

    async def models(self) -> set[str]:
        """Return the names that the server answers to: base models and loaded adapters.

        Raises:
            BackendError: It does not say.
        """
        self._listed, timeout = None, aiohttp.ClientTimeout(total=MODELS_SECONDS)
        found = read_object(await self._exchange("/models", None, timeout))
        entries = found.get("data")
        if not isinstance(entries, list):
            raise BackendError(f"{self._name} lists no models")
        names = {str(entry.get("id")) for entry in entries if isinstance(entry, dict)}
        self._listed = frozenset(names)
        return names

    def asked_as(self, target: Target) -> str:
        """Return the name by which the server is asked for a version."""
        return self._model or target.name or target.version

    def has(self, target: Target) -> bool:
        """Tell whether the server listed a version last; true where it did not say."""
        return self._listed is None or self.asked_as(target) in self._listed

    @property
    def listed(self) -> frozenset[str]:
        """The names that it listed last; none where it did not say."""
        return self._listed or frozenset()

    async def load_adapter(self, version: str, adapter: Path) -> None:
        """Have vLLM load an adapter under the version's name.

        Raises:
            BackendError: It does not; also where it says that the name is loaded already, which
                `models` has to show.
        """
        payload = json_bytes({"lora_name": version, "lora_path": str(adapter)})
        await self._exchange("/load_lora_adapter", payload, self._loading)

    async def unload_adapter(self, version: str) -> None:
        """Have vLLM unload an adapter.

        Raises:
            BackendError: It does not.
        """
        await self._exchange(
            "/unload_lora_adapter", json_bytes({"lora_name": version}), self._loading
        )

    async def open(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request of another part of OpenAI's API; the caller closes the reply.

        Args:
            path: Below `/v1`.
            body: What is posted; None sends a GET.
            stream: Whether the answer is to come in pieces.
            headers: More headers.

        Raises:
            BackendError: It is refused, or the server cannot be asked.
        """
        timeout = self._streaming if stream else self._whole
        payload = None if body is None else json_bytes(body)
        try:
            reply: aiohttp.ClientResponse = await self._request(
                "GET" if body is None else "POST", quote(path, safe="/"), payload, timeout, headers
            )
            if reply.status >= _REDIRECTED:
                async with reply:
                    raise self._refusal(reply, await self._start_of(reply))
        except NETWORK_ERRORS as error:
            raise self._failure(error, "did not answer in time") from error
        return reply

    async def close(self) -> None:
        """See `Backend`."""
        if self._session is not None:
            await self._session.close()

    @property
    def _loading(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=LOAD_SECONDS, sock_connect=CONNECT_SECONDS)

    async def _exchange(
        self,
        path: str,
        payload: bytes | None,
        timeout: aiohttp.ClientTimeout,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the whole body of a reply that is no refusal."""
        method = "GET" if payload is None else "POST"
        try:
            async with self._request(method, path, payload, timeout, headers) as reply:
                if reply.status >= _REDIRECTED:
                    raise self._refusal(reply, await self._start_of(reply))
                pieces = bounded(reply.content.iter_any(), self.most_bytes)
                return b"".join([piece async for piece in pieces])
        except NETWORK_ERRORS as error:
            late = f"gave no whole answer within {timeout.total or 0:g} s"
            raise self._failure(error, late) from error

    def _request(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        timeout: aiohttp.ClientTimeout,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=request_headers(self._key)
            )
        return self._session.request(
            method,
            self._root + path,
            data=payload,
            timeout=timeout,
            allow_redirects=False,
            headers=headers or None,
        )

    def _payload(self, body: Mapping[str, Any], target: Target) -> bytes:
        return json_bytes({**body, "model": self.asked_as(target)})

    def _failure(self, error: Exception, late: str) -> BackendError:
        if isinstance(error, BackendError):
            return error
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            late = f"took no connection within {CONNECT_SECONDS:g} s"
        if isinstance(error, TimeoutError):
            return BackendError(f"{self._name} {late}")
        kind = type(error).__name__
        return BackendError(
            f"{self._name} cannot be asked: {kind}: {error}",
            told=f"{self._name} cannot be asked: {kind}",
        )

    async def _start_of(self, reply: aiohttp.ClientResponse) -> bytes:
        """Return the start of a refusal; the rest is not read."""
        held, size = [], 0
        async for piece in reply.content.iter_any():
            held.append(piece)
            size += len(piece)
            if size > _LONGEST_REFUSAL:
                reply.close()
                break
        return b"".join(held)[:_LONGEST_REFUSAL]

    def _refusal(self, reply: aiohttp.ClientResponse, content: bytes) -> BackendError:
        status = reply.status
        if status < _REFUSED:
            return BackendError(f"{self._name} redirects (HTTP {status}), which is not followed")
        if self._key:
            content = content.replace(self._key.encode(), b"***")  # callers are told what it said
        said = shown(content[:_MOST_READ].decode("utf-8", "replace"), self._key)
        detail = read_detail(content)
        detail = replace(detail, message=without_addresses(detail.message, self.own))
        return BackendError(
            f"HTTP {status}: {said}",
            told=f"HTTP {status}: {without_addresses(said, self.own)}",
            status=status,
            detail=detail,
            is_users=is_users_fault(status, detail),
            retry_after=reply.headers.get("retry-after"),
        )
