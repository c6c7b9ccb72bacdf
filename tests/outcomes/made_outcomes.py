"""Outcomes made of rows that name what was observed, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from ratchet.outcomes.join import Outcomes

NONE = float("nan")
NUMBERS = (
    "thumbs", "stars", "copied", "regenerated", "completed", "session_seconds", "edited",
    "next_turn",
)  # fmt: skip


def outcomes(rows: list[dict[str, Any]]) -> Outcomes:
    def numbers(name: str) -> Any:
        return np.array([row.get(name, NONE) for row in rows], dtype=np.float64)

    def objects(name: str, default: Any) -> Any:
        filled = np.empty(len(rows), dtype=np.object_)
        filled[:] = [row.get(name, default) for row in rows]
        return filled

    strings = ("model_versions", "segments", "user_ids", "session_ids")
    keys = [row.get("interaction_ids", f"i{place}") for place, row in enumerate(rows)]
    return Outcomes(
        created_at=np.zeros(len(rows), dtype="datetime64[us]"),
        failed_with_error=np.array([row.get("error", False) for row in rows], dtype=np.bool_),
        latency_seconds=numbers("latency_seconds"),
        judge_scores=numbers("judge_scores"),
        unsafe=numbers("unsafe"),
        prompts=objects("prompts", "?"),
        responses=objects("responses", "!"),
        corrections=objects("corrections", None),
        comments=objects("comments", None),
        interaction_ids=np.array(keys, dtype=np.object_),
        **{name: objects(name, "x") for name in strings},
        **{name: numbers(name) for name in NUMBERS},
    )
