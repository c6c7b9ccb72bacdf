"""What answers behind the gateway, seen from the gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Target:
    """What to ask a backend for.

    Attributes:
        version: The version that is to answer.
        adapter: Folder of its adapter, where the local model is to load one.
        name: What a server calls it, where that is not the version's own name.
        headers: What the client's headers say of the trace that the request is part of.
    """

    version: str
    adapter: Path | None = None
    name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """Anything that completes chats in the shapes of OpenAI's API."""

    @property
    def name(self) -> str:
        """What logs and metadata call it."""
        ...

    async def complete(self, body: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """Return the completion, checked by `replies.read_completion`.

        Raises:
            BackendError: There is none.
        """
        ...

    def stream(self, body: Mapping[str, Any], target: Target) -> AsyncGenerator[dict[str, Any]]:
        """Yield the chunks of a completion, checked by `replies.read_chunk`.

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
