"""Whose a request is, and in which session."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

_LONGEST_ID = 200


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
