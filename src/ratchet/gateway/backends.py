"""What answers behind the gateway: an OpenAI-compatible server, or the local model.

Servers are asked through aiohttp: a request costs it a tenth of what httpx takes, and in a proxy
the client is half of the work (docs/decisions/0011).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from pydantic_core import from_json, to_json

from ratchet.errors import InvalidInputError, ModelError
from ratchet.gateway.conversation import turns
from ratchet.models.endpoint import request_headers, server_address, shown
from ratchet.models.serving import AdapterModel, Ending, Generation, refuse_unsupported
from ratchet.records import Message

CONNECT_SECONDS = 5.0
_REDIRECTED, _REFUSED = 300, 400
_MOST_READ = 2_000  # bytes of a refusal, of which the log shows the start
_RETRYABLE = (408, 409, 425, 429)


@dataclass(frozen=True, slots=True)
class Target:
    """What to ask a backend for.

    Attributes:
        version: The version that is to answer.
        adapter: Folder of its adapter, where the local model is to load one.
    """

    version: str
    adapter: Path | None = None


class BackendError(Exception):
    """A backend errs, stalls or refuses.

    Attributes:
        reason: What happened, in words.
        status: What it answered with; None where it did not answer.
        body: The body of its refusal.
        retryable: Whether another backend may do better.
    """

    def __init__(
        self, reason: str, *, status: int | None = None, body: bytes = b"", retryable: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason, self.status, self.body, self.retryable = reason, status, body, retryable


class Backend(Protocol):
    """Anything that completes chats in the shapes of OpenAI's API."""

    @property
    def name(self) -> str:
        """What logs and metadata call it."""
        ...

    async def complete(self, body: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """Return the completion.

        Raises:
            BackendError: There is none.
        """
        ...

    def stream(self, body: Mapping[str, Any], target: Target) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of a completion.

        Raises:
            BackendError: There is none, or it breaks off.
        """
        ...

    async def load_adapter(self, version: str, adapter: Path) -> None:
        """Make a version ready to answer; one that is ready stands.

        Raises:
            BackendError: It cannot.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class HttpBackend:
    """A server that speaks OpenAI's chat completions, over kept connections."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "backend",
        key: str | None = None,
        model: str | None = None,
        stall_seconds: float = 30.0,
    ) -> None:
        root = server_address(url)
        self._name, self._model, self._key = name, model, key
        self._address = f"{root}/chat/completions"
        self._loading = f"{root}/load_lora_adapter"
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=stall_seconds
        )
        self._stall_seconds = stall_seconds
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """What logs and metadata call it."""
        return self._name

    async def complete(self, body: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """See `Backend`."""
        try:
            async with self._post(self._address, self._payload(body, target)) as reply:
                content = await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failure(error) from error
        if reply.status >= _REDIRECTED:
            raise self._refusal(reply.status, content)
        return _object(content)

    async def stream(
        self, body: Mapping[str, Any], target: Target
    ) -> AsyncIterator[dict[str, Any]]:
        """See `Backend`."""
        try:
            async with self._post(self._address, self._payload(body, target)) as reply:
                if reply.status >= _REDIRECTED:
                    raise self._refusal(reply.status, await reply.read())
                async for line in reply.content:
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    yield _object(data)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._failure(error) from error

    async def load_adapter(self, version: str, adapter: Path) -> None:
        """Have vLLM load an adapter under the version's name; one that is loaded stands."""
        payload = to_json({"lora_name": version, "lora_path": str(adapter)})
        try:
            async with self._post(self._loading, payload) as reply:
                content = await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failure(error) from error
        if reply.status >= _REDIRECTED and b"already" not in content:
            raise self._refusal(reply.status, content)

    async def close(self) -> None:
        """See `Backend`."""
        if self._session is not None:
            await self._session.close()

    def _post(self, address: str, payload: bytes) -> Any:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=request_headers(self._key), timeout=self._timeout
            )
        return self._session.post(address, data=payload, allow_redirects=False)

    def _payload(self, body: Mapping[str, Any], target: Target) -> bytes:
        return to_json({**body, "model": self._model or target.version})

    def _failure(self, error: Exception) -> BackendError:
        if isinstance(error, TimeoutError):
            return BackendError(f"{self._name} said nothing for {self._stall_seconds:g} s")
        return BackendError(f"{self._name} cannot be asked: {type(error).__name__}: {error}")

    def _refusal(self, status: int, content: bytes) -> BackendError:
        if self._key:
            content = content.replace(self._key.encode(), b"***")  # callers are told what it said
        said = shown(content[:_MOST_READ].decode("utf-8", "replace"), self._key)
        if status < _REFUSED:
            return BackendError(f"{self._name} redirects (HTTP {status}), which is not followed")
        retryable = status >= 500 or status in _RETRYABLE
        reason = f"HTTP {status}: {said}"
        return BackendError(reason, status=status, body=content, retryable=retryable)


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = from_json(content)
    except ValueError as error:
        raise BackendError(f"the answer is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BackendError(f"the answer must be a JSON object, got {type(found).__name__}")
    return found


class LocalBackend:
    """The model in this process, in OpenAI's shapes."""

    def __init__(self, model: AdapterModel, *, max_tokens: int, name: str = "local") -> None:
        self._model, self._max_tokens, self._name = model, max_tokens, name

    @property
    def name(self) -> str:
        """What logs and metadata call it."""
        return self._name

    async def complete(self, body: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """See `Backend`."""
        parts: list[str] = []
        ending = Ending("stop")
        async for piece in self._pieces(body, target):
            if isinstance(piece, Ending):
                ending = piece
            else:
                parts.append(piece)
        message = {"role": "assistant", "content": "".join(parts)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ending.reason}
        return _envelope("chat.completion", target, [choice]) | {"usage": _usage(ending)}

    async def stream(
        self, body: Mapping[str, Any], target: Target
    ) -> AsyncIterator[dict[str, Any]]:
        """See `Backend`."""
        envelope = _envelope("chat.completion.chunk", target, [])
        pieces = self._pieces(body, target)
        await anext(pieces)  # what is refused has no first chunk
        yield envelope | {"choices": [_delta({"role": "assistant", "content": ""})]}
        async for piece in pieces:
            if isinstance(piece, str):
                yield envelope | {"choices": [_delta({"content": piece})]}
                continue
            yield envelope | {"choices": [_delta({}, piece.reason)]}
            if (body.get("stream_options") or {}).get("include_usage"):
                yield envelope | {"usage": _usage(piece)}

    async def load_adapter(self, version: str, adapter: Path) -> None:
        """Load an adapter beside the others."""
        await asyncio.to_thread(self._model.add_adapter, version, adapter)

    async def close(self) -> None:
        """See `Backend`."""
        await asyncio.to_thread(self._model.close)

    async def _pieces(self, body: Mapping[str, Any], target: Target) -> AsyncIterator[str | Ending]:
        """Yield an empty piece when the model takes the request, then the answer's."""
        if target.adapter is not None and not self._model.has_adapter(target.version):
            try:
                await self.load_adapter(target.version, target.adapter)
            except (ModelError, OSError, ValueError, RuntimeError) as error:
                raise BackendError(f"{target.version} cannot be loaded: {error}") from error
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[str | Ending] = asyncio.Queue()

        def tell(piece: str | Ending) -> None:
            loop.call_soon_threadsafe(told.put_nowait, piece)

        try:
            refuse_unsupported(body)
            job = self._model.submit(self._generation(body, target), tell, tell)
        except InvalidInputError as error:
            raise BackendError(str(error), status=400, retryable=False) from error
        try:
            yield ""
            while True:
                piece = await told.get()
                if isinstance(piece, Ending) and piece.error is not None:
                    raise BackendError(piece.error)
                yield piece
                if isinstance(piece, Ending):
                    return
        finally:
            job.cancelled = True

    def _generation(self, body: Mapping[str, Any], target: Target) -> Generation:
        stop = body.get("stop") or ()
        wanted = body.get("max_completion_tokens") or body.get("max_tokens") or self._max_tokens
        spoken, _ = turns(body["messages"])
        return Generation(
            conversation=tuple(Message.model_validate(turn) for turn in spoken),
            adapter=target.version if target.adapter is not None else None,
            max_new_tokens=int(wanted),
            temperature=float(body.get("temperature") or 0.0),
            top_p=float(body.get("top_p") or 1.0),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            seed=body.get("seed"),
        )


def _envelope(kind: str, target: Target, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": target.version,
        "choices": choices,
    }


def _delta(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def _usage(ending: Ending) -> dict[str, int]:
    return {
        "prompt_tokens": ending.prompt_tokens,
        "completion_tokens": ending.completion_tokens,
        "total_tokens": ending.prompt_tokens + ending.completion_tokens,
    }
