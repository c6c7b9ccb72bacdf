"""Which answers are whole. An answer that was cut is no example of how to answer.

A server names the finish reason of each answer. A few reasons say that the model itself ended its
answer; any other one (`length`, `content_filter`, a user who left, an abort, a reason that is not
known) means that the stored text may be a part. Where no reason is named the answer counts as
whole: logs often hold none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ratchet.files.text import printable
from ratchet.outcomes.join import ObjectArray, Outcomes

WHOLE = frozenset(
    {
        "stop", "stop_sequence", "end_turn", "eos", "eos_token", "end_of_text", "complete",
        "completed", "tool_calls", "tool_use", "function_call",
    }
)  # fmt: skip
"""Finish reasons of whole answers, in lower case: OpenAI, Anthropic, Gemini, Cohere, Hugging Face
TGI, Ollama."""
FAILED = "answer is not whole: it ended with an error"
_SHOWN_CHARACTERS = 40


def cut_answers(outcomes: Outcomes, endings: Mapping[str, str]) -> ObjectArray:
    """Say for each answer why it is not whole, "" where it is, shape (n,).

    Args:
        outcomes: The interactions.
        endings: Finish reasons by interaction, at least those that are not in `WHOLE`.
    """
    reasons = np.full(len(outcomes), "", dtype=np.object_)
    if endings:
        for place, key in enumerate(outcomes.interaction_ids):
            named = endings.get(key, "").strip()
            if named and named.casefold() not in WHOLE:
                reasons[place] = cut_short(named)
    reasons[outcomes.failed_with_error] = FAILED
    return reasons


def cut_short(reason: str) -> str:
    """Say why an answer is not whole, for people, from its finish reason."""
    return f"answer is not whole: finish reason {printable(reason, _SHOWN_CHARACTERS)}"
