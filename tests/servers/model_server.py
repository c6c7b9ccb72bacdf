"""A vLLM-like server with a real small model behind it, and real adapters beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ratchet.gateway.backends import Target
from ratchet.gateway.local_backend import LocalBackend
from ratchet.models.serving import AdapterModel
from tests.servers.vllm_server import VllmServer


_LEFT_ALONE = ("tools", "tool_choice", "stream", "stream_options")


class ModelServer(VllmServer):
    """See the module's text.

    Attributes:
        model: Several servers may share one, as replicas of the same weights.
    """

    def __init__(self, base: str, model: AdapterModel, **options: Any) -> None:
        super().__init__(base, **options)
        self.backend = LocalBackend(model, max_tokens=64)

    async def text_of(self, body: dict[str, Any]) -> str:
        """Have the model answer, with the adapter where one is named; it calls no tool."""
        name = str(body["model"])
        folder = self.adapters.get(name)
        # the path is part of what PEFT calls it: a name that was loaded anew may be another adapter
        target = Target(
            f"{name}-{Path(folder).name}" if folder else name, Path(folder) if folder else None
        )
        asked = {field: body[field] for field in body if field not in _LEFT_ALONE}
        asked |= {"model": target.version, "messages": [_read(turn) for turn in body["messages"]]}
        reply = await self.backend.complete(asked, target)
        text: str = reply["choices"][0]["message"]["content"]
        return text


def _read(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn as a model sees it that reads texts alone."""
    content = turn["content"]
    if not isinstance(content, str):
        content = " ".join(part["text"] for part in content if part["type"] == "text")
    return turn | {"content": content}
