"""What users are told when nobody answers, where the operator says so: a fixed text.

It is recorded as what it is: an answer of the version `last-resort`, with an error. So it counts
for no version that is served, and is never trained on, since answers with an error are not.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from ratchet.gateway.backends import Target

LAST_RESORT = "last-resort"
"""Name of the version and of the backend."""
REASON = "nobody answered: this is the text that is given as a last resort"


class LastResort:
    """A backend that always says the same."""

    def __init__(self, text: str) -> None:
        self._text = text

    @property
    def name(self) -> str:
        """What logs and metadata call it."""
        return LAST_RESORT

    async def complete(self, body: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """Return the text as a completion."""
        del body, target  # it is the same to everybody
        message = {"role": "assistant", "content": self._text}
        return self._reply("chat.completion", {"message": message, "finish_reason": "stop"})

    async def stream(
        self, body: Mapping[str, Any], target: Target
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the text as a chunk, and its end."""
        del body, target
        delta = {"role": "assistant", "content": self._text}
        yield self._reply("chat.completion.chunk", {"delta": delta, "finish_reason": None})
        yield self._reply("chat.completion.chunk", {"delta": {}, "finish_reason": "stop"})

    async def load_adapter(self, version: str, adapter: Path) -> None:
        """Do nothing: there is no model."""

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _reply(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": LAST_RESORT,
            "object": kind,
            "created": int(time.time()),
            "model": LAST_RESORT,
            "choices": [{"index": 0, **choice}],
        }


def why(version: str) -> str | None:
    """Return the error that an answer of a version is recorded with; None for all but this one."""
    return REASON if version == LAST_RESORT else None
