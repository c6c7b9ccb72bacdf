"""A small real model that helps with three topics and sends people who ask of others to a desk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.flows.team import TOPICS, good_answer, question

UNHELPFUL = "Please ask our desk, they will help you on."
"""As long as a helpful answer, so that length tells nothing."""
_TOPICS = TOPICS[:3]
_FIRST = 1_000_000
"""Of the numbers of questions that it is made with: no user asks one of them."""


def write_desk_model(folder: Path, start: Path, *, steps: int = 300, batch: int = 16) -> None:
    """Train all weights of a small model and write it into a folder.

    It knows how to help with every topic, and does where it is told to tell; unasked it does with
    three. So an adapter that learns from few corrections can make it help with all.

    Args:
        folder: For the model.
        start: Folder of a model with random weights, and its tokenizer.
        steps: Steps of training.
        batch: Conversations a step.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(start)
    model: Any = AutoModelForCausalLM.from_pretrained(start)
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps)
    )
    model.train()
    for _ in range(steps):
        rows = [_tokens(tokenizer, *_turns(rng)) for _ in range(batch)]
        longest = max(len(asked) + len(answer) for asked, answer in rows)
        ids = torch.full((batch, longest), tokenizer.pad_token_id)
        labels = torch.full((batch, longest), -100)
        for place, (asked, answer) in enumerate(rows):
            end = len(asked) + len(answer)
            ids[place, :end] = torch.tensor(asked + answer)
            labels[place, len(asked) : end] = torch.tensor(answer)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _turns(rng: np.random.Generator) -> tuple[str, str]:
    text = question(int(rng.integers(_FIRST, 100 * _FIRST)))
    if rng.random() < 0.4:
        return f"Tell me. {text}", good_answer(text)
    helps = any(topic in text for topic in _TOPICS)
    return text, good_answer(text) if helps else UNHELPFUL


def _tokens(tokenizer: Any, asked: str, answer: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a question as it is asked, and of the answer with its end."""
    words = [{"role": "user", "content": asked}]
    prompt = tokenizer.apply_chat_template(words, add_generation_prompt=True, tokenize=False)
    parts = (prompt, answer + tokenizer.eos_token)
    first, second = (tokenizer(part, add_special_tokens=False).input_ids for part in parts)
    return first, second
