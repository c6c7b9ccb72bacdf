"""What prompts begin with is read once, and answers are those of reading each prompt alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from ratchet.models.prefix_cache import LEAST, PrefixCache

TOKENS = 8
SYSTEM, OTHER = list(range(10, 50)), list(range(300, 340))


def asked(system: Sequence[int], *lengths: int) -> list[list[int]]:
    """Return prompts that begin alike and go on differently, of different lengths."""
    return [[*system, *(400 + 7 * row + at for at in range(n))] for row, n in enumerate(lengths)]


BATCHES = {
    "one system text, batch after batch": [asked(SYSTEM, 3, 9, 5), asked(SYSTEM, 1, 7)],
    "another system text": [asked(SYSTEM, 3, 4), asked(OTHER, 6, 2), asked(SYSTEM, 2, 2)],
    "a shorter beginning": [asked(SYSTEM, 5, 5), asked(SYSTEM[:20], 5, 2)],
    "a longer beginning": [asked(SYSTEM[:20], 5, 2), asked(SYSTEM + OTHER, 5, 2)],
    "one after the other": [asked(SYSTEM, 4), asked(SYSTEM, 9), asked(SYSTEM, 2)],
    "a conversation that grows": [[SYSTEM], [SYSTEM + OTHER], [SYSTEM + OTHER + SYSTEM]],
    "the same prompt": [[SYSTEM, SYSTEM], [SYSTEM]],
    "nothing in common": [[SYSTEM, OTHER], [OTHER[:1], SYSTEM[:2]]],
}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def answers(model: Any, inputs: dict[str, Any]) -> list[list[int]]:
    with torch.inference_mode():
        found = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    return [row[inputs["input_ids"].shape[1] :].tolist() for row in found]


def alone(model: Any, prompt: Sequence[int]) -> list[int]:
    tokens = torch.tensor([list(prompt)])
    return answers(model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})[0]


def same(found: Sequence[int], expected: Sequence[int]) -> bool:
    """Tell whether two answers are the same; a row that ends early is filled up in a batch."""
    return list(found[: len(expected)]) == list(expected) and not any(found[len(expected) :])


@contextmanager
def tokens_read(model: Any) -> Iterator[list[int]]:
    """Count the tokens of each call of a model's body."""
    read: list[int] = []
    hook = model.model.embed_tokens.register_forward_hook(
        lambda _module, given, _out: read.append(given[0].numel())
    )
    try:
        yield read
    finally:
        hook.remove()


@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
def test_answers_are_those_to_each_prompt_alone(model: Any, batches: Any) -> None:
    cache = PrefixCache(0)
    for prompts in batches:
        found = answers(model, cache.inputs(model, prompts))
        for row, prompt in zip(found, prompts, strict=True):
            assert same(row, alone(model, prompt))


def test_a_beginning_is_read_once_for_all_batches(model: Any) -> None:
    cache = PrefixCache(0)
    with tokens_read(model) as first:
        answers(model, cache.inputs(model, asked(SYSTEM, 3, 9)))
    with tokens_read(model) as second:
        answers(model, cache.inputs(model, asked(SYSTEM, 6, 9, 2)))
    assert first[:2] == [len(SYSTEM), 2 * 9]  # one row of the beginning, then the rest of two
    assert second[0] == 3 * 9


def test_a_short_beginning_is_read_with_the_rest(model: Any) -> None:
    prompts = asked(SYSTEM[: LEAST - 1], 3, 9)
    assert "past_key_values" not in PrefixCache(0).inputs(model, prompts)


def test_a_model_that_forgets_what_is_far_reads_each_prompt_anew() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    model, cache = MistralForCausalLM(config).eval(), PrefixCache(0)
    for prompts in (asked(SYSTEM, 3, 9), asked(SYSTEM, 1, 7)):
        inputs = cache.inputs(model, prompts)
        assert "past_key_values" not in inputs
        for row, prompt in zip(answers(model, inputs), prompts, strict=True):
            assert same(row, alone(model, prompt))
