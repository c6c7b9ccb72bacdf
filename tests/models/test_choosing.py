"""The likeliest of some answers: what it says is what log-likelihoods of whole prompts say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ratchet.errors import ModelError
from ratchet.models import HuggingFaceModel
from ratchet.models.choosing import score_answers
from ratchet.records import Message

ANSWERS = ["billing", "account access and more words", "refunds"]


def asked(text: str, system: str = "Name the queue.") -> tuple[Message, ...]:
    return Message(role="system", content=system), Message(role="user", content=text)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> HuggingFaceModel:
    return HuggingFaceModel.load(tiny_model)


@pytest.mark.parametrize(
    "turns",
    [
        [asked(f"where is parcel {n}" + " again" * n) for n in range(19)],  # more than one batch
        [asked("hi"), asked("hello there", "Say something else altogether.")],
        [asked("alone")],
        [asked("the same"), asked("the same")],
    ],
    ids=["one system prompt", "nothing in common but the template", "one", "the same"],
)
def test_scores_are_those_of_reading_each_prompt_anew_for_each_answer(
    model: HuggingFaceModel, turns: list[tuple[Message, ...]]
) -> None:
    flat = [(turn, answer) for turn in turns for answer in ANSWERS]
    alone = model.log_likelihoods([turn for turn, _ in flat], [answer for _, answer in flat])
    expected = np.array([score for score, _ in alone]).reshape(len(turns), len(ANSWERS))
    prompts = [
        model._tokenizer(
            model._template.render([message.canonical() for message in turn]),
            add_special_tokens=False,
        ).input_ids
        for turn in turns
    ]
    answers = model._tokenizer(ANSWERS, add_special_tokens=False).input_ids
    found = score_answers(model._model, prompts, answers)
    assert found == pytest.approx(expected, abs=1e-3)
    assert model.likeliest(turns, ANSWERS) == expected.argmax(axis=1).tolist()


def test_of_no_answers_none_is_the_likeliest(model: HuggingFaceModel) -> None:
    with pytest.raises(ModelError, match="at least 1 to choose from"):
        model.likeliest([asked("hi")], [])
    with pytest.raises(ModelError, match="at least 1 token"):
        model.likeliest([asked("hi")], ["billing", ""])
    assert model.likeliest([], ANSWERS) == []
