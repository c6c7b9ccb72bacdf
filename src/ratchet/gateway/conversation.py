"""What is kept of a chat: turns of text that the store can hold, whose, and in which session.

The backend gets the request as it came. The record differs where the store has a rule: NUL
characters become U+FFFD, texts end at 100,000 characters, pictures and tool calls are named in
brackets. `metadata` says which of these happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
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


def user_and_session(
    body: Mapping[str, Any], headers: Mapping[str, str], interaction_id: str, at: datetime
) -> tuple[str, str]:
    """Return whose chat it is, and its session.

    The user is the request's `user`, `safety_identifier` or the header `x-ratchet-user`. The
    session is `metadata.session_id` or the header `x-ratchet-session`; without one, turns that
    begin with the same words of the same user on the same day are one session, since a chat sends
    all its turns every time. A user who is not named is told apart by session.
    """
    metadata = body.get("metadata") or {}
    user = _first(body.get("user"), body.get("safety_identifier"), headers.get("x-ratchet-user"))
    session = _first(metadata.get("session_id"), headers.get("x-ratchet-session"))
    if session is None:
        opening = next((m for m in body["messages"] if m.get("role") == "user"), None)
        if user is None:
            session = f"session-{interaction_id}"
        else:
            words = to_json([user, at.date().isoformat(), opening])
            session = f"session-{hashlib.sha256(words).hexdigest()[:24]}"
    return user or identifier(f"anonymous-{session}") or "anonymous", session


def _first(*values: object) -> str | None:
    for value in values:
        if isinstance(value, str) and (found := identifier(value)):
            return found
    return None


def _spoken(message: Mapping[str, Any], notes: dict[str, str]) -> str:
    content = message.get("content")
    parts = [content] if isinstance(content, str) else [_part(p) for p in content or ()]
    if message.get("refusal"):
        parts.append(str(message["refusal"]))
    if message.get("tool_calls"):
        notes["tools"] = "yes"
        parts.append(f"[tool calls] {to_json(message['tool_calls']).decode()}")
    return "\n".join(part for part in parts if part)


def _part(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type", "part") if isinstance(part, Mapping) else "part"
    return f"[{kind}]"
