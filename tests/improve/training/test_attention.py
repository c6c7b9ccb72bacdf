"""Attention without masks gives what attention with masks gives."""

from __future__ import annotations

import copy
import sys
import types

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from ratchet.improve.training import attention
from ratchet.improve.training.attention import (
    PACKED,
    attend_apart,
    packed_attention,
    skip_padding_mask,
)
from ratchet.models import HuggingFaceModel
from tests.improve.training.cases import asked

EXACT = 1e-5  # the order of adding up differs


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 900, (3, 12), generator=generator)
    mask = torch.arange(12)[None] < torch.tensor([12, 7, 4])[:, None]
    labels = torch.where(mask, tokens, -100)
    return {"input_ids": tokens, "attention_mask": mask.long(), "labels": labels}


def seen_masks(model, monkeypatch):
    """Have the model's body note whether it got a mask."""
    seen, body = [], model.model.forward

    def forward(*args, **kwargs):
        seen.append(kwargs.get("attention_mask") is not None)
        return body(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", forward)
    return seen


def test_a_mask_that_hides_padding_on_the_right_is_left_out_and_changes_nothing(
    model, batch, monkeypatch
):
    plain, spared = copy.deepcopy(model), copy.deepcopy(model)
    for one in (plain, spared):
        add_fused_lm_head(one)
    assert skip_padding_mask(spared)
    seen = seen_masks(spared, monkeypatch)
    expected = plain(**batch, fused_lm_head=True).log_probs
    torch.testing.assert_close(
        spared(**batch, fused_lm_head=True).log_probs, expected, atol=EXACT, rtol=EXACT
    )
    assert seen == [False]


def test_a_mask_that_hides_more_is_kept(model, batch, monkeypatch):
    changed = copy.deepcopy(model)
    add_fused_lm_head(changed)
    skip_padding_mask(changed)
    seen = seen_masks(changed, monkeypatch)
    left = batch | {"attention_mask": batch["attention_mask"].flip(1)}
    hole = batch["attention_mask"].clone()
    hole[0, 5] = 0
    changed(**left, fused_lm_head=True)
    changed(**batch | {"attention_mask": hole}, fused_lm_head=True)
    changed(batch["input_ids"], attention_mask=batch["attention_mask"])  # not scored: generation
    assert seen == [True, True, True]


def test_a_model_that_routes_to_experts_keeps_its_mask(model):
    routed = copy.deepcopy(model)
    routed.config.output_router_logits = True
    assert not skip_padding_mask(routed)


def packed_inputs(batch):
    """The real tokens of the batch in one row, as TRL's collator packs them."""
    lengths = batch["attention_mask"].sum(dim=1)
    tokens = torch.cat([row[:size] for row, size in zip(batch["input_ids"], lengths, strict=True)])
    bounds = torch.cat([torch.zeros(1), lengths.cumsum(0)]).to(torch.int32)
    return {
        "input_ids": tokens[None],
        "position_ids": torch.cat([torch.arange(int(size)) for size in lengths])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": int(lengths.max()),
        "max_length_k": int(lengths.max()),
    }


def test_packed_examples_are_attended_to_as_if_each_were_alone(model, batch):
    apart = copy.deepcopy(model)
    assert attend_apart(apart)
    assert apart.config._attn_implementation == PACKED
    found = apart(**packed_inputs(batch)).logits[0]
    mask = batch["attention_mask"].bool()
    expected = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[mask]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_model_that_attends_apart_answers_as_before(tiny_model):
    plain, apart = HuggingFaceModel.load(tiny_model), HuggingFaceModel.load(tiny_model)
    attend_apart(apart._model)
    conversations = [asked("a"), asked("a much longer question than the other one")]
    answers = [
        [one.text for one in model.generate(conversations, max_new_tokens=8)]
        for model in (plain, apart)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("name", "value"), [("sliding_window", 64), ("attention_dropout", 0.1), ("layer_types", ["x"])]
)
def test_attention_that_is_not_plain_keeps_its_mask(model, name, value):
    special = copy.deepcopy(model)
    setattr(special.config, name, value)
    assert not attend_apart(special)
    assert special.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("told_by", ["is_causal", "window_size"])
def test_torchs_kernel_is_called_with_what_attention_one_by_one_is(monkeypatch, told_by):
    """The kernel runs on GPUs alone: here one with its signature, of two versions of torch."""

    def kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, **how):
        assert how in ({"is_causal": True}, {"window_size": (-1, 0)})
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert max_q == max_k == int(cu_seq_q.diff().max())
        assert query.shape == key.shape == value.shape
        return attention._one_by_one(query, key, value, cu_seq_q, scale)

    old = "lambda q, k, v, a, b, c, d, *, scale, is_causal=False: kernel(q, k, v, a, b, c, d,"
    new = "lambda q, k, v, a, b, c, d, *, scale, window_size=None: kernel(q, k, v, a, b, c, d,"
    text = {
        "is_causal": f"{old} scale=scale, is_causal=is_causal)",
        "window_size": f"{new} scale=scale, window_size=window_size)",
    }[told_by]
    module = types.ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = eval(text, {"kernel": kernel})
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    query, key, value = torch.randn(10, 4, 8), torch.randn(10, 2, 8), torch.randn(10, 2, 8)
    bounds = torch.tensor([0, 3, 10], dtype=torch.int32)
    found = attention._together(query, key, value, bounds, 7, 0.3)
    expected = packed_attention(
        None,
        *(part.transpose(0, 1)[None] for part in (query, key, value)),
        None,
        scaling=0.3,
        cu_seq_lens_q=bounds,
    )[0][0]
    torch.testing.assert_close(found, expected, atol=EXACT, rtol=EXACT)


def test_packed_attention_takes_over_the_precision_of_autocast():
    query, key, value = (torch.randn(1, 2, 10, 8) for _ in range(3))
    bounds = torch.tensor([0, 3, 10], dtype=torch.int32)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = packed_attention(None, query, key, value, None, cu_seq_lens_q=bounds)
    assert found.dtype == torch.bfloat16
    assert found.shape == (1, 10, 2, 8)
    exact, _ = packed_attention(None, query, key, value, None, cu_seq_lens_q=bounds)
    assert exact.dtype == torch.float32


def test_torchs_kernel_has_the_arguments_that_are_used():
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    how = attention._causal(varlen.varlen_attn)
    assert how in ({"is_causal": True}, {"window_size": (-1, 0)})
