"""Examples that begin alike cost their beginning once, and learn what they would alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from ratchet.improve.training.attention import skip_padding_mask
from ratchet.improve.training.heads import score_answers_only
from ratchet.models.prefix_cache import LEAST
from tests.models.test_prefix_cache import tokens_read

ROWS, LENGTH, BEGINNING = 4, 40, 25
LABELLED = torch.tensor([[30], [35], [38], [33]])  # each row's first token of the answer
ENDS = torch.tensor([[40], [40], [40], [36]])  # the last row is padded on the right


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    """Return a model with an adapter that is no beginner any more."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    adapter = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear")
    return get_peft_model(base, adapter).train()


def batch(beginning: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 900, (ROWS, LENGTH), generator=generator)
    tokens[:, :beginning] = tokens[0, :beginning]
    tokens[:, beginning] = torch.arange(100, 100 + ROWS)
    places = torch.arange(LENGTH)
    learnt = (places >= LABELLED) & (places < ENDS)
    return {
        "input_ids": tokens,
        "attention_mask": (places < ENDS).long(),
        "labels": torch.where(learnt, tokens, -100),
    }


def learnt(model: Any, given: dict[str, Any], *, ours: bool) -> tuple[Any, list[Any], list[int]]:
    """Return the loss, the adapter's gradients, and how many tokens went through the model."""
    model = copy.deepcopy(model)
    base = model.get_base_model()
    add_fused_lm_head(base)
    if ours:
        score_answers_only(base)
        skip_padding_mask(base)
    with tokens_read(base) as read:
        loss = model(**given, fused_lm_head=True).loss
    loss.backward()
    return loss, [p.grad for p in model.parameters() if p.requires_grad], read


def test_losses_and_gradients_are_those_of_each_example_read_whole(model: Any) -> None:
    given = batch(BEGINNING)
    expected, gradients, whole = learnt(model, given, ours=False)
    loss, found, read = learnt(model, given, ours=True)
    assert whole == [ROWS * LENGTH]
    assert read == [BEGINNING, ROWS * (LENGTH - BEGINNING)]
    torch.testing.assert_close(loss, expected)
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("beginning", [0, LEAST - 1])
def test_examples_that_hardly_begin_alike_go_through_whole(model: Any, beginning: int) -> None:
    assert learnt(model, batch(beginning), ours=True)[2] == [ROWS * LENGTH]


def test_with_dropout_each_example_goes_through_whole(tiny_model: Any) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear"))
    given = batch(BEGINNING)
    assert learnt(model.train(), given, ours=True)[2] == [ROWS * LENGTH]
    assert learnt(model.eval(), given, ours=True)[2] == [BEGINNING, ROWS * (LENGTH - BEGINNING)]
