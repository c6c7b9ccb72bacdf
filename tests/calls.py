"""Conversations in which a model calls tools, for tests of whoever reads conversations."""

from __future__ import annotations

import json
from typing import Any

from ratchet.records import Blob, Message

PICTURE = Blob("ab" * 32, "image/png", 12_345).reference


def turn(role: str, content: Any = None, **more: Any) -> Message:
    """Return a turn."""
    return Message.model_validate({"role": role, "content": content, **more})


def call(name: str, key: str = "c1", /, **arguments: Any) -> dict[str, Any]:
    """Return a call of a tool as it is sent."""
    written = json.dumps(arguments)
    return {"id": key, "type": "function", "function": {"name": name, "arguments": written}}


def looked_up(question: str, result: str, /, **arguments: Any) -> tuple[Message, ...]:
    """Return a conversation in which the assistant looked something up."""
    return (
        turn("developer", "Mail help@example.com if in doubt."),
        turn("user", question),
        turn("assistant", tool_calls=[call("find_customer", **arguments)]),
        turn("tool", result, tool_call_id="c1"),
        turn("user", "And now?"),
    )


def with_picture(words: str) -> Message:
    """Return a user's turn with a picture, whose bytes are not there."""
    parts = [{"type": "text", "text": words}] if words else []
    return turn("user", [*parts, {"type": "image_url", "image_url": {"url": PICTURE}}])
