"""The micro-batch that is found by trial, and the casts that bfloat16 does without."""

from __future__ import annotations

import logging

import pytest
import torch
from peft.tuners.lora import LoraLayer

from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.memory import fit_micro_batch
from ratchet.improve.training.run import (
    _batches,
    _build,
    _by_trial,
    prepare_job,
    train,
    work_folder,
)
from ratchet.improve.training.trainers import Batches, without_casts
from tests.improve.training.cases import made_up

CONFIG = FinetuneConfig(rank=4, alpha=8, dropout=0.2, epochs=1.0, warmup_steps=0)


def job_of(base, **settings):
    config = CONFIG.model_copy(update=settings)
    return prepare_job(made_up("sft", 16), config, base=base, start_from=None)


def scarce_memory(monkeypatch, above):
    embedding, tried = torch.nn.Embedding.forward, []

    def scarce(self, tokens):
        tried.append(len(tokens))
        if len(tokens) > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return embedding(self, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", scarce)
    return tried


def test_the_trial_finds_what_fits_and_leaves_the_run_as_it_was(tiny_model, tmp_path, monkeypatch):
    with work_folder(tmp_path / "plain", "a" * 64) as work:
        expected = train(job_of(tiny_model, micro_batch=2), work)
    with work_folder(tmp_path / "tried", "a" * 64) as work:
        trainer, _, batches, *_ = _build(job_of(tiny_model), work)
        tried = scarce_memory(monkeypatch, above=3)
        before = torch.random.get_rng_state()
        found = fit_micro_batch(trainer, batches)
        assert tried == [8, 4, 2]
        assert found == Batches(effective=8, micro=2, accumulate=4)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert all(weight.grad is None for weight in trainer.model.parameters())
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    wanted = [entry["loss"] for entry in expected.history if "loss" in entry]
    assert losses == pytest.approx(wanted, abs=1e-6)
    assert trainer.state.log_history[0]["num_tokens"] == expected.history[0]["num_tokens"]


def test_the_trial_is_made_once_a_run_and_not_where_a_micro_batch_is_asked_for(
    tiny_model, tmp_path, monkeypatch
):
    with work_folder(tmp_path, "a" * 64) as work:
        trainer, _, batches, *_ = _build(job_of(tiny_model), work)
        tried = scarce_memory(monkeypatch, above=4)
        asked = CONFIG.model_copy(update={"micro_batch": 8})
        assert _by_trial(trainer, batches, asked, work) == batches
        assert tried == []
        assert _by_trial(trainer, batches, CONFIG, work).micro == 4
        assert tried == [8, 4]
        again = _batches(CONFIG, 16, work)
        assert again == Batches(effective=8, micro=4, accumulate=2)
        assert _by_trial(trainer, again, CONFIG, work) == again
        assert tried == [8, 4]


@pytest.mark.slow
def test_after_a_trial_that_nothing_passes_gradient_checkpointing_comes_next(
    tiny_model, tmp_path, monkeypatch, caplog
):
    from ratchet.improve.training.run import _need_less

    caplog.set_level(logging.WARNING, "ratchet")  # whatever an earlier test has set
    with work_folder(tmp_path, "a" * 64) as work:
        trainer, _, batches, *_ = _build(job_of(tiny_model), work)
        scarce_memory(monkeypatch, above=0)
        with pytest.raises(torch.OutOfMemoryError):
            _by_trial(trainer, batches, CONFIG, work)
        assert _need_less(work, CONFIG)
        assert caplog.messages == ["out of memory; once more with gradient checkpointing"]
        monkeypatch.undo()
        trainer, _, batches, *_ = _build(job_of(tiny_model), work)
        assert trainer.args.gradient_checkpointing or trainer.args.activation_checkpointing
        assert batches.micro == 8


@pytest.mark.slow
def test_a_trial_that_nothing_passes_raises_what_torch_said(tiny_model, tmp_path, monkeypatch):
    with work_folder(tmp_path, "a" * 64) as work:
        trainer, _, batches, *_ = _build(job_of(tiny_model, gradient_checkpointing=True), work)
        scarce_memory(monkeypatch, above=0)
        with pytest.raises(torch.OutOfMemoryError):
            fit_micro_batch(trainer, batches)


def test_in_bfloat16_the_adapters_input_is_not_widened_and_the_numbers_are_the_same(
    tiny_model, tmp_path, monkeypatch
):
    with work_folder(tmp_path, "a" * 64) as work:
        trainer, *_ = _build(job_of(tiny_model, precision="bfloat16", dropout=0.0), work)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    inputs = trainer.data_collator([trainer.train_dataset[place] for place in range(4)])
    widened, cast = [], LoraLayer._cast_input_dtype

    def noted(self, x, dtype):
        found = cast(self, x, dtype)
        widened.append(found.dtype == torch.float32)
        return found

    monkeypatch.setattr(LoraLayer, "_cast_input_dtype", noted)

    def gradients():
        trainer.model.zero_grad()
        with trainer.accelerator.autocast():
            loss = trainer.compute_loss(trainer.model, dict(inputs))
        loss.backward()
        return [loss.detach(), *(p.grad for p in trainer.model.parameters() if p.requires_grad)]

    expected = gradients()
    assert all(widened)
    widened.clear()
    with without_casts(trainer):
        found = gradients()
    assert not any(widened)
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one, two)
