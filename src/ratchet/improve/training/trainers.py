"""TRL's trainers, made to be interrupted: exact resumption, no pickles, no telemetry.

transformers draws the order of an epoch out of the global generator, which a checkpoint in the
middle of the epoch no longer knows; and it writes optimizer, schedule and generators with
`torch.save`, a pickle. Both are replaced here for the trainers of SFT, KTO and DPO alike.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.errors import InvalidInputError, ModelError
from ratchet.improve.training.attention import attend_apart, skip_padding_mask
from ratchet.improve.training.callbacks import Report, TrainingPlan, build_callbacks
from ratchet.improve.training.checkpoints import (
    await_processes,
    load_optimizer,
    load_random,
    optimizer_state,
    read_progress,
    save_optimizer,
    save_optimizer_shards,
    save_progress,
    save_random,
    seal,
)
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.devices import Device
from ratchet.improve.training.examples import Example, as_texts, uses_tools
from ratchet.improve.training.heads import score_answers_only

_LINEARS = "all-linear"


@dataclass(frozen=True, slots=True)
class Batches:
    """How a step's examples are spread.

    Attributes:
        effective: Examples a step.
        micro: Examples that one process puts through the model at once.
        accumulate: Micro-batches of a process whose gradients add up to a step.
    """

    effective: int
    micro: int
    accumulate: int

    @property
    def processes(self) -> int:
        """How many share a step."""
        return self.effective // (self.micro * self.accumulate)


def check_targets(model: Any, config: FinetuneConfig) -> None:
    """Refuse names of layers that the model does not have.

    Raises:
        InvalidInputError: A target is the name of no linear layer.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    linear = {
        name.rpartition(".")[2]: name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D))
    }
    names = set(linear) | set(linear.values())
    unknown = [name for name in config.targets or () if name not in names]
    if unknown:
        raise InvalidInputError(
            f"targets must be linear layers of the base model, got {', '.join(unknown)}; choose "
            f"from {', '.join(sorted(linear))}"
        )


def build_trainer(
    model: Any,
    tokenizer: Any,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    config: FinetuneConfig,
    device: Device,
    batches: Batches,
    work: Path,
) -> Any:
    """Build the trainer of the method, with a new adapter or the one that the model has.

    Args:
        model: The base model, or a `PeftModel` whose adapter is trained on.
        tokenizer: Pads on the right.
        train: Examples in the method's columns.
        validation: Examples to measure the loss on, or none.
        config: How.
        device: Where.
        batches: How a step is spread.
        work: The run's folder.
    """
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from peft import PeftModel
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

    disable_progress_bar()
    set_seed(config.seed)  # the adapter's start is drawn before the trainer seeds anything
    if config.packing:
        attend_apart(model.get_base_model() if isinstance(model, PeftModel) else model)
    if uses_tools([*train, *validation]):
        train, validation = as_texts(train, tokenizer), as_texts(validation, tokenizer)
    kind, arguments = _method(config, train, batches.processes)
    if config.method == "kto":  # its batches stay as they are, so they are mixed here, once
        order = np.random.default_rng(config.seed).permutation(len(train))
        train = [train[place] for place in order]
    with warnings.catch_warnings(action="ignore"):
        trainer = _resumable(kind)(
            model=model,
            args=_on_one_gpu(arguments(**_arguments(config, device, batches, work))),
            train_dataset=Dataset.from_list(list(train)),
            eval_dataset=Dataset.from_list(list(validation)) if validation else None,
            processing_class=tokenizer,
            peft_config=None if isinstance(model, PeftModel) else lora(config),
        )
    trainer.remove_callback(PrinterCallback)
    trainer.set_order(batches.effective, config)
    trainer.bound = config.method == "kto" or _drops(trainer.model)
    score_answers_only(trainer.model.get_base_model())
    skip_padding_mask(trainer.model.get_base_model())
    return trainer


@contextmanager
def without_casts(trainer: Any) -> Iterator[None]:
    """Have the adapter take its layers' input as it is, where autocast narrows it anyway.

    peft widens each input to the adapter's float32, and autocast narrows it to bfloat16 again for
    the product: the same numbers, for one more copy of the activations at each adapted layer. DoRA
    computes with the widened input.
    """
    from peft.helpers import disable_input_dtype_casting

    dora = any(config.use_dora for config in trainer.model.peft_config.values())
    with disable_input_dtype_casting(trainer.model, active=trainer.args.bf16 and not dora):
        yield


def lora(config: FinetuneConfig) -> Any:
    """Return peft's configuration of a new adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=_LINEARS if config.targets is None else list(config.targets),
        use_dora=config.dora,
        use_rslora=config.rslora,
        task_type="CAUSAL_LM",
    )


def _method(config: FinetuneConfig, train: Sequence[Example], processes: int) -> tuple[Any, Any]:
    """Return trainer and arguments of the method."""
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    if config.method == "sft":
        return SFTTrainer, partial(SFTConfig, packing=config.packing)
    # Rows are compared with the start, whose word does not change from epoch to epoch. TRL keeps it
    # in a file that processes do not share.
    once = config.epochs > 1.0 and processes == 1
    reference = {"beta": config.beta, "precompute_ref_log_probs": once}
    if config.method == "dpo":
        return DPOTrainer, partial(DPOConfig, **reference)
    wanted, unwanted = kto_weights(config, train)
    weights = {"desirable_weight": wanted, "undesirable_weight": unwanted}
    return KTOTrainer, partial(KTOConfig, **reference, **weights)


def kto_weights(config: FinetuneConfig, train: Sequence[Example]) -> tuple[float, float]:
    """Return the weights of wanted and unwanted answers.

    Unless one is given, the rarer kind is weighted up until both count the same, the lower bound
    of equation 8 in Ethayarajh et al. (2024), "KTO: model alignment as prospect theoretic
    optimization".
    """
    if config.desirable_weight is not None:
        return config.desirable_weight, 1.0
    wanted = sum(bool(example["label"]) for example in train)
    unwanted = len(train) - wanted
    return max(1.0, unwanted / wanted), max(1.0, wanted / unwanted)


def _arguments(
    config: FinetuneConfig, device: Device, batches: Batches, work: Path
) -> dict[str, Any]:
    gpu = device.kind == "cuda"
    return {
        "output_dir": str(work),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": batches.micro,
        "per_device_eval_batch_size": batches.micro,
        "gradient_accumulation_steps": batches.accumulate,
        "learning_rate": config.peak_learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_length": config.maximum_tokens,
        "gradient_checkpointing": config.gradient_checkpointing,
        "bf16": device.precision == "bfloat16",
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show an average in place of a loss of nan
        "disable_tqdm": True,
        "report_to": "none",
        "eval_strategy": "no",  # the callbacks ask for measurements and checkpoints
        "save_strategy": "no",
        "save_total_limit": 2,
        "seed": config.seed,
        "data_seed": config.seed,
    }


def _on_one_gpu(arguments: Any) -> Any:
    """Have a process use one GPU: of several, transformers would copy the model to each."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def run(
    trainer: Any, plan: TrainingPlan, *, resume_from: Path | None, report: Report | None
) -> float:
    """Train, from the beginning or from a sealed checkpoint.

    Args:
        trainer: From `build_trainer`.
        plan: What happens when.
        resume_from: A checkpoint of the same run.
        report: Called with each step's numbers.

    Returns:
        Seconds of training, those before an interruption included.
    """
    for callback in build_callbacks(plan, report, partial(write_adapter, trainer)):
        trainer.add_callback(callback)
    trainer.seconds_before = _read_before(trainer, resume_from) if resume_from else 0.0
    trainer.started = time.monotonic()
    if resume_from is not None:
        _set_adapter(trainer.model, resume_from)
    with warnings.catch_warnings(action="ignore"), without_casts(trainer):
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    return float(trainer.seconds_before + time.monotonic() - trainer.started)


def _read_before(trainer: Any, checkpoint: Path) -> float:
    """Return the seconds that a checkpoint took.

    Raises:
        ModelError: Its steps had another number of examples.
    """
    progress = read_progress(checkpoint)
    batch = int(progress.get("batch", trainer.examples_a_step))
    if batch != trainer.examples_a_step:
        raise ModelError(
            f"a run goes on with as many examples a step as it began with, got "
            f"{trainer.examples_a_step} for {checkpoint.name}, which has {batch}; start it on as "
            "many processes as before"
        )
    return progress["seconds"]


def _drops(model: Any) -> bool:
    """Tell whether training draws: a module's dropout, or one that the model's code calls."""
    import torch

    modules = (m for m in model.modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd))
    settings = model.config.to_dict().items()
    named = (value for name, value in settings if "drop" in name and isinstance(value, float))
    return any(module.p > 0.0 for module in modules) or any(value > 0.0 for value in named)


def _set_adapter(model: Any, folder: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))


def set_adapter(trainer: Any, folder: Path) -> None:
    """Give the model the weights of an adapter of the same run, such as the best."""
    _set_adapter(trainer.accelerator.unwrap_model(trainer.model), folder)


def adapter_state(trainer: Any) -> dict[str, Any] | None:
    """Return the adapter's whole weights where they are spread over processes, else None.

    Every process takes part.
    """
    if not trainer.is_fsdp_enabled:
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state: dict[str, Any] = get_model_state_dict(trainer.model, options=options)
    return state


def write_adapter(trainer: Any, folder: Path) -> None:
    """Write the trained adapter; every process takes part, the first one writes."""
    state = adapter_state(trainer)
    if not trainer.is_world_process_zero():
        return
    # "auto" would ask the model hub about an embedding that is not trained here
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(
        str(folder), state_dict=state, selected_adapters=["default"], save_embedding_layers=False
    )
    (folder / "README.md").unlink(missing_ok=True)  # a card that names places on the machine


def _order(lengths: Sequence[int], batch: int, seed: int) -> Any:
    """Build a sampler whose order follows from seed and epoch alone, similar lengths together."""
    import torch
    from torch.utils.data import Sampler
    from transformers.trainer_pt_utils import get_length_grouped_indices

    class Order(Sampler[int]):
        """The examples of an epoch, in its order."""

        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            """Choose the epoch."""
            self.epoch = epoch

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Any:
            generator = torch.Generator().manual_seed(1_000_003 * self.epoch + seed)
            return iter(get_length_grouped_indices(lengths, batch, generator=generator))

    return Order()


def _epochs(order: Any) -> Any:
    """Build the callback that tells the order which epoch it is, in any number of processes."""
    from transformers import TrainerCallback

    class Epochs(TrainerCallback):  # type: ignore[misc]
        """Tells the order the epoch."""

        def on_epoch_begin(self, _args: Any, state: Any, *_more: Any, **_kwargs: Any) -> None:
            """Tell the order; a run that goes on begins within an epoch."""
            order.set_epoch(int(state.epoch + 1e-6))

    return Epochs()


def lengths(dataset: Any) -> list[int]:
    """Return the tokens of each example, as far as they go through the model at once."""
    names = [name for name in dataset.column_names if name.endswith("_ids")]
    rows = zip(*(dataset[name] for name in names), strict=True)
    return [sum(len(ids) for ids in row) for row in rows]


def _resumable(kind: Any) -> Any:
    """Derive from one of TRL's trainers one that goes on exactly, without pickles."""

    class Resumable(kind):  # type: ignore[misc]
        """Keeps its state as safetensors and JSON."""

        order: Any = None
        seconds_before = started = 0.0
        examples_a_step = 0
        bound = True

        def set_order(self, batch: int, config: FinetuneConfig) -> None:
            """Choose the order of the examples; KTO's is fixed before."""
            self.examples_a_step = batch
            if config.method != "kto":
                self.order = _order(lengths(self.train_dataset), batch, config.seed)
                self.add_callback(_epochs(self.order))

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return self.order or super()._get_train_sampler(train_dataset)

        def _send_telemetry(self) -> None:
            """Send nothing."""

        def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
            """Write no card: it would name places on the machine."""

        def save_model(self, output_dir: Any = None, _internal_call: bool = False) -> None:
            """Write the adapter alone, without the pickled arguments."""
            write_adapter(self, Path(output_dir or self.args.output_dir))

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            if self.is_deepspeed_enabled:
                raise InvalidInputError("checkpoints are for DDP and FSDP, got DeepSpeed; use FSDP")
            if self.is_fsdp_enabled:
                save_optimizer_shards(
                    self.model_wrapped,
                    self.optimizer,
                    self.lr_scheduler,
                    Path(output_dir),
                    first=self.args.should_save,
                )
                return
            state = optimizer_state(self.model_wrapped, self.optimizer)
            if self.args.should_save:
                save_optimizer(state, self.lr_scheduler, Path(output_dir))

        def _save_rng_state(self, output_dir: str) -> None:
            save_random(Path(output_dir), self.args.process_index)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                seconds = self.seconds_before + time.monotonic() - self.started
                await_processes(folder, self.args.world_size)
                save_progress(folder, {"seconds": seconds, "batch": self.examples_a_step})
                seal(folder)

        def _load_from_checkpoint(self, *_args: Any, **_kwargs: Any) -> None:
            """Do nothing: `run` has set the adapter before the model was spread."""

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            if checkpoint is None:
                return
            load_optimizer(self.model_wrapped, self.optimizer, self.lr_scheduler, Path(checkpoint))
            self._total_train_tokens = _tokens(self.state.log_history)

        def _load_rng_state(self, checkpoint: str | None) -> None:
            if checkpoint is not None:
                arguments = self.args
                load_random(
                    Path(checkpoint),
                    arguments.process_index,
                    arguments.world_size,
                    bound=self.bound,
                )

    return Resumable


def _tokens(history: Sequence[Mapping[str, Any]]) -> int:
    return max((int(entry.get("num_tokens", 0)) for entry in history), default=0)
