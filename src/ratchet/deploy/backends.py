"""The replicas of the server that answers users, asked by flows and commands.

    with Replicas.of(settings.backend, key=key) as replicas:
        for replica in replicas:
            replica.models()

The gateway has a client of its own, which answers users and never waits (`gateway.http_backend`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from ratchet.errors import ModelError
from ratchet.models.endpoint import read_completion, request_headers, server_address, shown

ASK_SECONDS = 10.0
LOAD_SECONDS = 120.0
PROBE_SECONDS = 60.0
KEY_VARIABLE = "RATCHET_BACKEND_KEY"
_NAMED = 8
"""So many names are listed of those that could have been meant."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A name that a server answers to.

    Attributes:
        parent: Of an adapter the base model, else None.
        root: What the server loaded under it, where it says so; several names of one model share
            it, as those of vLLM's `--served-model-name`.
    """

    name: str
    parent: str | None = None
    root: str | None = None


@dataclass(slots=True)
class Replica:
    """One server of OpenAI's API with what vLLM adds for adapters.

    Attributes:
        url: As it was given.
        client: Of HTTP.
        key: Of the server, which no message shows.
    """

    url: str
    client: httpx.Client
    key: str | None = field(default=None, repr=False)

    def models(self) -> dict[str, str | None]:
        """Return the names that it answers to, each with the base model of an adapter, else None.

        Raises:
            ModelError: It does not say.
        """
        return {item.name: item.parent for item in self.listed()}

    def listed(self, seconds: float = ASK_SECONDS) -> tuple[Listed, ...]:
        """Return what it lists, in its order.

        Args:
            seconds: So long it may take.

        Raises:
            ModelError: It does not say.
        """
        reply = self._ask("GET", "/models", None, seconds)
        try:
            return tuple(
                Listed(str(item["id"]), item.get("parent"), item.get("root"))
                for item in reply.json()["data"]
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{self.url} lists no models at /v1/models") from None

    def probe(self, name: str) -> float:
        """Have a model answer with one token; return the seconds that it took.

        Raises:
            ModelError: It gives no answer.
        """
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "Say yes."}],
            "max_tokens": 1,
        }
        started = time.monotonic()
        reply = self._ask("POST", "/chat/completions", body, PROBE_SECONDS)
        try:
            read_completion(reply.content)
        except ValueError as error:
            raise ModelError(
                f"{self.url} answers as {name!r} with no completion: {error}"
            ) from None
        return time.monotonic() - started

    def load_adapter(self, name: str, path: str) -> None:
        """Have it load an adapter; `models` says whether it has.

        Args:
            name: What it is to be called.
            path: Its folder as the server sees it.

        Raises:
            ModelError: It does not.
        """
        body = {"lora_name": name, "lora_path": path}
        self._ask("POST", "/load_lora_adapter", body, LOAD_SECONDS)

    def loads_adapters(self, seconds: float = ASK_SECONDS) -> bool:
        """Tell whether it loads adapters while it runs; nothing is loaded.

        vLLM that was not allowed to has no such address (404); else it only takes another method.

        Args:
            seconds: So long it may take.

        Raises:
            ModelError: It does not answer.
        """
        reply = self._send("GET", "/load_lora_adapter", None, seconds)
        return reply.status_code != httpx.codes.NOT_FOUND

    def answer_as(self, name: str, path: str) -> None:
        """Have it answer under a name with an adapter, loaded if it lacks it.

        What it lists afterwards is believed, not what the load answers: "already loaded" may stand
        for a load that failed, and another process may have been faster.

        Args:
            name: What it is to be called.
            path: Its folder as the server sees it.

        Raises:
            ModelError: It does not list the name afterwards.
        """
        if name in self.models():
            return
        try:
            self.load_adapter(name, path)
        except ModelError as error:
            if name in self.models():
                return
            if "already" not in str(error):
                raise ModelError(
                    f"{error} (asked to load {name} from {path}, a path as the backend sees it: "
                    "RATCHET_BACKEND_ADAPTER_ROOT)"
                ) from error
            self.unload_adapter(name)  # the name is taken and nothing behind it
            self.load_adapter(name, path)
        listed = self.models()
        if name not in listed:
            raise ModelError(
                f"{self.url} says that it has loaded {name!r} and does not list it, {named(listed)}"
            )

    def unload_adapter(self, name: str) -> None:
        """Have it unload an adapter.

        Raises:
            ModelError: It does not.
        """
        self._ask("POST", "/unload_lora_adapter", {"lora_name": name}, LOAD_SECONDS)

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> httpx.Response:
        reply = self._send(method, path, body, seconds)
        if not reply.is_success:
            what, said = f"{method} /v1{path}", shown(reply.text, self.key)
            raise ModelError(f"{self.url} answers {what} with HTTP {reply.status_code}: {said}")
        return reply

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> httpx.Response:
        what = f"{method} /v1{path}"
        try:
            return self.client.request(
                method, server_address(self.url) + path, json=body, timeout=seconds
            )
        except httpx.TimeoutException:
            raise ModelError(f"{self.url} does not answer {what} within {seconds:g} s") from None
        except (httpx.HTTPError, OSError) as error:
            why = shown(str(error), self.key) or type(error).__name__
            raise ModelError(f"{self.url} cannot be asked {what}: {why}") from None


def named(listed: Iterable[str]) -> str:
    """Say which names a server has."""
    names = sorted(listed)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"it has: {', '.join(names[:_NAMED]) or 'nothing'}{more}"


@dataclass(slots=True)
class Replicas:
    """All replicas, over kept connections."""

    each: Sequence[Replica]
    client: httpx.Client

    @classmethod
    def of(cls, urls: Sequence[str], *, key: str | None) -> Self:
        """Return the replicas at addresses; `key` is sent to each as a bearer token."""
        client = httpx.Client(headers=request_headers(key))
        return cls([Replica(url, client, key) for url in urls], client)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self.each)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
