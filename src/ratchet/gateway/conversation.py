"""What is kept of a chat: turns of text that the store can hold, whose, and in which session.

The backend gets the request as it came. The record differs where the store has a rule: NUL
characters become U+FFFD, texts end at 100,000 characters, pictures and tool calls are named in
brackets. `metadata` says which of these happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from ratchet.records import MAX_TEXT_CHARACTERS

_ROLES = {"system": "system", "developer": "system", "assistant": "assistant"}
_LONGEST_ID = 200


def turns(messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Return the turns as records hold them, and what was altered."""
    notes: dict[str, str] = {}
    found = []
    for message in messages:
        role = message.get("role", "user")
        text = _spoken(message, notes)
        if role in ("tool", "function"):
            # what a tool said is context, neither the user's words nor the model's
            notes["tools"] = "yes"
            role, text = "system", f"[{role}] {text}"
        found.append({"role": _ROLES.get(role, "user"), "content": storable(text, notes)})
    return found, notes


def storable(text: str, notes: dict[str, str]) -> str:
    """Return a text that the store can hold, and note what was altered."""
    if "\x00" in text:
        text, notes["altered"] = text.replace("\x00", "\ufffd"), "NUL became U+FFFD"
    if len(text) > MAX_TEXT_CHARACTERS:
        text, notes["shortened"] = text[:MAX_TEXT_CHARACTERS], f"from {len(text):,} characters"
    return text


def said(message: Mapping[str, Any], notes: dict[str, str]) -> str:
    """Return the text of an answer; tool calls are kept as JSON in brackets."""
    return storable(_spoken(message, notes), notes)


def identifier(text: str) -> str | None:
    """Return a text as an identifier: without NUL, at most 200 characters; None where empty."""
    text = text.replace("\x00", "\ufffd")
    if len(text) > _LONGEST_ID:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
        text = f"{text[: _LONGEST_ID - 33]}~{digest}"
    return text or None


def named_user(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return `user`, `safety_identifier`, `metadata.user_id` or the header `x-ratchet-user`."""
    names = (body.get("user"), body.get("safety_identifier"), _said(body, "user_id"))
    return _first(*names, headers.get("x-ratchet-user"))


def named_session(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return the request's `metadata.session_id` or header `x-ratchet-session`."""
    return _first(_said(body, "session_id"), headers.get("x-ratchet-session"))


def session_of(*words: object) -> str:
    """Return the name of a session that is known by what was said in it."""
    return f"session-{hashlib.sha256(to_json(words)).hexdigest()[:24]}"


def anonymous(session: str) -> str:
    """Return the user of a session in which nobody is named."""
    return identifier(f"anonymous-{session}") or "anonymous"


def _said(body: Mapping[str, Any], name: str) -> object:
    metadata = body.get("metadata")
    return metadata.get(name) if isinstance(metadata, Mapping) else None


def _first(*values: object) -> str | None:
    for value in values:
        if isinstance(value, str) and (found := identifier(value)):
            return found
    return None


def _spoken(message: Mapping[str, Any], notes: dict[str, str]) -> str:
    content = message.get("content")
    parts = [content] if isinstance(content, str) else [part_text(p) for p in content or ()]
    if message.get("refusal"):
        parts.append(str(message["refusal"]))
    if message.get("tool_calls"):
        notes["tools"] = "yes"
        parts.append(f"[tool calls] {to_json(message['tool_calls']).decode()}")
    return "\n".join(part for part in parts if part)


def part_text(part: Any) -> str:
    """Return the text of a part of a message, else its type in brackets."""
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type", "part") if isinstance(part, Mapping) else "part"
    return f"[{kind}]"
