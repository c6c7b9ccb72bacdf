"""Conversations as a gateway records them, for tests of what is derived from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ratchet.records import Interaction

START = datetime(2026, 3, 2, 9, tzinfo=UTC)


def asked(
    key: str,
    *turns: str,
    answer: str = "an answer",
    at: float = 0.0,
    session: str = "s",
    user: str = "ana",
    **more: Any,
) -> Interaction:
    """Return an interaction whose turns alternate, the user's first; `at` counts minutes."""
    roles = ("user", "assistant")
    messages = [{"role": "system", "content": f"You are asked at {at}."}]
    messages += [{"role": roles[n % 2], "content": words} for n, words in enumerate(turns)]
    values = {
        "id": key,
        "session_id": session,
        "user_id": user,
        "created_at": START + timedelta(minutes=at),
        "model_version": "m/1",
        "messages": messages,
        "response": answer,
        "latency_seconds": 1.0,
        "segment": "shop",
    }
    return Interaction.model_validate(values | more)
