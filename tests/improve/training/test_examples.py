from dataclasses import replace

import numpy as np
import pytest

from ratchet.errors import InvalidInputError
from ratchet.improve.training.examples import (
    examples,
    read_rows,
    short_enough,
    split,
    token_lengths,
    write_rows,
)
from ratchet.records import Message
from tests.improve.training.cases import made_up, pair, thumb

PROMPT = [
    {"role": "system", "content": "Answer with the queue."},
    {"role": "user", "content": "where is it"},
]


def test_rows_become_the_columns_that_trl_reads():
    assert examples(made_up("sft", 1), "sft")[0] == {
        "prompt": [
            {"role": "system", "content": "Answer with the queue."},
            {"role": "user", "content": "message 0 "},
        ],
        "completion": [{"role": "assistant", "content": "billing"}],
    }
    thumbs = [
        thumb("where is it", "billing", True),
        thumb("where is it", "refunds", False),
    ]
    found = examples(thumbs, "kto")
    assert [example["label"] for example in found] == [True, False]
    assert found[0]["prompt"] == PROMPT
    assert found[0]["completion"] == [{"role": "assistant", "content": "billing"}]
    assert examples([pair("where is it", "billing", "refunds")], "dpo") == [
        {
            "prompt": PROMPT,
            "chosen": [{"role": "assistant", "content": "billing"}],
            "rejected": [{"role": "assistant", "content": "refunds"}],
        }
    ]


def test_rows_of_another_method_are_refused():
    with pytest.raises(InvalidInputError, match="'dpo' trains on PreferenceRow"):
        examples(made_up("sft", 2), "dpo")
    with pytest.raises(InvalidInputError, match="at least one row, got none"):
        examples([], "sft")


def test_kto_needs_both_thumbs():
    up = [thumb("x", "billing", True)] * 3
    with pytest.raises(InvalidInputError, match="wanted and unwanted answers, got 3"):
        examples(up, "kto")


@pytest.mark.parametrize("method", ["sft", "kto", "dpo"])
def test_rows_survive_the_disk(method, tmp_path):
    rows = made_up(method, 5)
    odd = "two\nlines, a\u2028separator and \u00fc"
    rows[0] = replace(rows[0], messages=(Message(role="user", content=odd),))
    write_rows(rows, tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_no_prompt_is_on_both_sides_of_a_split():
    found = examples(made_up("sft", 40) * 2, "sft")  # every prompt twice
    train, aside = split(found, 0.25, np.random.default_rng(0))
    prompts = [{example["prompt"][-1]["content"] for example in side} for side in (train, aside)]
    assert (len(train), len(aside)) == (60, 20)
    assert not prompts[0] & prompts[1]
    again = split(found, 0.25, np.random.default_rng(0))
    assert again == (train, aside)
    assert split(found, 0.25, np.random.default_rng(1)) != (train, aside)
    assert split(found, 0.0, np.random.default_rng(0)) == (found, [])


def test_a_split_that_leaves_a_side_empty_is_refused():
    found = examples(made_up("sft", 1), "sft")
    with pytest.raises(InvalidInputError, match="prompts on both sides, got 1"):
        split(found, 0.5, np.random.default_rng(0))


class Words:
    """A tokenizer that counts words."""

    def apply_chat_template(self, messages, tokenize):
        return " ".join(message["content"] for message in messages)

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [text.split() for text in texts]}


def test_what_is_longer_than_the_limit_is_left_out_by_its_longest_answer(caplog):
    pairs = [
        pair("short", "yes", "no"),
        pair("short", "yes", "no " * 30),
    ]
    found = examples(pairs, "dpo")
    lengths = token_lengths(found, Words())
    assert lengths == [4 + 1 + 1, 4 + 1 + 30]  # words of system text, message, longer answer
    assert short_enough(found, lengths, 10) == found[:1]
    assert "left out 1 of 2 examples over 10 tokens" in caplog.text
    with pytest.raises(InvalidInputError, match="at most maximum_tokens = 3 tokens, got 2"):
        short_enough(found, lengths, 3)
