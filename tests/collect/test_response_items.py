"""Items of the Responses API as a turn of the assistant."""

from __future__ import annotations

import pytest

from ratchet.collect.response_items import message_of
from ratchet.collect.turns import TurnReader

SAID = {"type": "message", "content": [{"type": "output_text", "text": "In Ulm."}]}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"summary": [{"type": "summary_text", "text": "They mean Ulm."}]}, "They mean Ulm."),
        (
            {
                "summary": [{"type": "summary_text", "text": "in short"}],
                "content": [{"type": "reasoning_text", "text": "Ulm,"}, {"text": "then."}],
            },
            "Ulm,\nthen.",
        ),
        ({"summary": []}, None),
        ({"summary": "no list", "content": 7}, None),
    ],
)
def test_what_a_model_thought_is_kept_beside_its_answer(told: dict[str, object], kept: str) -> None:
    answer = TurnReader().answer(message_of([{"type": "reasoning", **told}, SAID]))
    assert answer.text == "In Ulm."
    assert answer.beside.get("answer_reasoning") == kept
