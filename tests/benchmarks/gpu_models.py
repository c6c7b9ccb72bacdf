"""Models with random weights and rows of real lengths, made on the spot: nothing is downloaded.

Lengths are like those of chats with an assistant: turns of users of about 300 tokens, a few of
them very long, and answers of about 440, as reported for WildChat (Zhao et al. 2024, "WildChat: 1M
ChatGPT interaction logs in the wild"). Both are drawn from log-normal distributions, and again
where the two together are longer than a run takes (1,024 tokens, TRL's default).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.improve.curation.rows import LabelledRow, PreferenceRow, Row, TrainingRow
from ratchet.records import Message
from ratchet.simulation.messages import QUEUES, support_messages
from tests.benchmarks.gpu_flops import Shape

# Shapes of Llama 3.2 1B and Llama 3.1 8B.
SHAPES = {
    "1b": Shape("1B", 16, 2048, 8192, 32, 8, 128_256, tied=True),
    "8b": Shape("8B", 32, 4096, 14_336, 32, 8, 128_256, tied=False),
    "toy": Shape("toy", 2, 64, 128, 4, 2, 1024, tied=True),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PROMPT, ANSWER = (296.0, 1609.0), (441.0, 411.0)  # mean and standard deviation
LONGEST = 1024
_TEMPLATE_TOKENS = 24  # of the roles and marks around a row, at most
_SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the rows that a run trains on.

    Attributes:
        rows: Tokens of each row, the template's included.
        answers: Tokens that are scored, of all rows.
    """

    rows: tuple[int, ...]
    answers: int

    @property
    def tokens(self) -> int:
        return sum(self.rows)


def make_model(size: str, device: str, dtype: Any) -> Any:
    """Make a model with random weights on the device itself."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape, tokens = SHAPES[size], make_tokenizer()
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=8192,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)


def base_folder(size: str, home: Path, device: str) -> Path:
    """Write a model and its tokenizer once, and return their folder."""
    import torch

    folder = home / f"base-{size}"
    if not (folder / "done").exists():
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        make_model(size, device, dtype).save_pretrained(str(folder))
        make_tokenizer().save_pretrained(str(folder))
        (folder / "done").touch()
    return folder


@cache
def make_tokenizer() -> Any:
    """Train a small tokenizer on simulated messages."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*QUEUES, *_texts()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


@cache
def _texts() -> tuple[str, ...]:
    return tuple(one.text for one in support_messages(np.random.default_rng(0), 500))


def draw_lengths(rng: np.random.Generator, count: int, scale: float) -> list[tuple[int, int]]:
    """Draw tokens of prompts and answers; `scale` shortens them for a toy."""
    found: list[tuple[int, int]] = []
    most = int(LONGEST * scale) - _TEMPLATE_TOKENS
    while len(found) < count:
        prompt, answer = (
            max(_SHORTEST, round(scale * _log_normal(rng, mean, deviation)))
            for mean, deviation in (PROMPT, ANSWER)
        )
        if prompt + answer <= most:
            found.append((prompt, answer))
    return found


def _log_normal(rng: np.random.Generator, mean: float, deviation: float) -> float:
    """Draw from the log-normal distribution with this mean and standard deviation."""
    variance = math.log1p((deviation / mean) ** 2)
    return float(rng.lognormal(math.log(mean) - variance / 2, math.sqrt(variance)))


def make_rows(method: str, count: int, *, scale: float = 1.0, seed: int = 0) -> list[Row]:
    """Make rows of a method with texts of drawn lengths."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for place, (prompt, answer) in enumerate(draw_lengths(rng, count, scale)):
        turns = (Message(role="user", content=_text(rng, prompt)),)
        first, second = _text(rng, answer), _text(rng, answer)
        if method == "sft":
            rows.append(TrainingRow(f"i{place}", turns, first, "correction"))
        elif method == "dpo":
            rows.append(PreferenceRow(f"i{place}", f"i{place}", turns, first, second, "correction"))
        else:
            rows.append(LabelledRow(f"i{place}", turns, first, bool(place % 2), "thumbs"))
    return rows


def _text(rng: np.random.Generator, tokens: int) -> str:
    """Return about so many tokens of messages in a row, from a place drawn at random."""
    ids = _all_ids()
    start = int(rng.integers(len(ids) - tokens))
    return str(make_tokenizer().decode(ids[start : start + tokens])).strip()


@cache
def _all_ids() -> tuple[int, ...]:
    return tuple(make_tokenizer()(" ".join(_texts()), add_special_tokens=False)["input_ids"])


def lengths_of(rows: list[Row]) -> Lengths:
    """Count the tokens of SFT rows as they are trained on."""
    tokenizer, totals, answers = make_tokenizer(), [], 0
    for row in rows:
        assert isinstance(row, TrainingRow)
        turns = [message.canonical() for message in row.messages]
        before = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(
            [*turns, {"role": "assistant", "content": row.target}], tokenize=False
        )
        sizes = [
            len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (before, whole)
        ]
        totals.append(sizes[1])
        answers += sizes[1] - sizes[0]
    return Lengths(tuple(totals), answers)
