"""Outcomes for tests, from a table of columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ratchet.outcomes.join import Outcomes

START = np.datetime64("2026-11-01T00:00:00", "us")


def outcomes_of(size: int, **columns: Any) -> Outcomes:
    """Interactions a minute apart, each by a user of its own, with the given columns."""

    def texts(values: Any) -> Any:
        return np.array(list(values), dtype=np.object_)

    blank: dict[str, Any] = {
        "interaction_ids": texts(f"i{n:06d}" for n in range(size)),
        "created_at": START + np.arange(size) * np.timedelta64(60_000_000, "us"),
        "model_versions": texts(["m/1"] * size),
        "segments": texts(["all"] * size),
        "user_ids": texts(f"u{n:06d}" for n in range(size)),
        "session_ids": texts(f"s{n:06d}" for n in range(size)),
        "prompts": texts(f"prompt {n}" for n in range(size)),
        "responses": texts(["a"] * size),
        "failed_with_error": np.zeros(size, dtype=np.bool_),
        "latency_seconds": np.full(size, 0.1),
        "corrections": texts([None] * size),
        "comments": texts([None] * size),
    }
    names = (
        "thumbs", "stars", "copied", "regenerated", "completed", "session_seconds",
        "judge_scores", "unsafe", "edited", "next_turn",
    )  # fmt: skip
    blank |= {name: np.full(size, np.nan) for name in names}
    for name, values in columns.items():
        blank[name] = values if isinstance(values, np.ndarray) else texts(values)
    return Outcomes(**blank)
