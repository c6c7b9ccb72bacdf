"""How many examples go through the model at once on a GPU, found by trial before the first step."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ratchet.improve.training.trainers import Batches, lengths, without_casts

logger = logging.getLogger(__name__)

_HEADROOM = 0.05  # of the GPU's memory, for what a later step needs more


def free_memory() -> None:
    """Let go of models that nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fit_micro_batch(trainer: Any, batches: Batches) -> Batches:
    """Find the most examples at once that fit, and set the trainer to it.

    The longest examples go forward and backward once; the weights, the generators and the trainer's
    counts stay as they are.

    Args:
        trainer: Of SFT, before its first step, in one process.
        batches: What is wanted; the examples of a step stay the same.

    Raises:
        RuntimeError: torch's, where not even one example fits.
    """
    longest = _longest_first(trainer.train_dataset)
    sizes = [size for size in range(batches.micro, 0, -1) if batches.effective % size == 0]
    for size in sizes:
        if _fits(trainer, longest[:size], last=size == sizes[-1]):
            break
        logger.info("%d examples at once do not fit into the GPU's memory", size)
    found = replace(batches, micro=size, accumulate=batches.effective // size)
    arguments = trainer.args
    arguments.per_device_train_batch_size = trainer._train_batch_size = found.micro
    arguments.per_device_eval_batch_size = found.micro
    arguments.gradient_accumulation_steps = found.accumulate
    return found


def _longest_first(dataset: Any) -> list[int]:
    found = lengths(dataset)
    return sorted(range(len(found)), key=lambda place: -found[place])


def _fits(trainer: Any, places: Sequence[int], *, last: bool) -> bool:
    """Try one forward and backward pass; the last try raises what went wrong."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        _once(trainer, places)
        fits = True
    except RuntimeError as error:
        if last or not should_reduce_batch_size(error):
            raise
        fits = False
    finally:
        trainer.model.zero_grad(set_to_none=True)
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = 0
        if gpu:
            total = torch.cuda.get_device_properties(0).total_memory
            tight = torch.cuda.max_memory_reserved() > (1.0 - _HEADROOM) * total
        free_memory()
    return fits and (last or not (gpu and tight))


def _once(trainer: Any, places: Sequence[int]) -> None:
    import torch

    model, arguments = trainer.model, trainer.args
    rows = [trainer.train_dataset[place] for place in places]
    inputs = trainer._prepare_inputs(trainer.data_collator(rows))
    model.train()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with (
        warnings.catch_warnings(action="ignore"),
        torch.random.fork_rng(devices=devices),
        without_casts(trainer),
        trainer.accelerator.autocast(),
    ):
        if arguments.gradient_checkpointing:
            model.gradient_checkpointing_enable(arguments.gradient_checkpointing_kwargs)
        loss = trainer.compute_loss(model, inputs)
    loss.backward()
