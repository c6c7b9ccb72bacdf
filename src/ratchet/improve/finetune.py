"""LoRA fine-tuning with TRL: rows in, an adapter in safetensors out.

The adapter's folder is named after what determines it (rows, configuration, base, adapter that it
starts from): the same run twice trains once.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InvalidInputError
from ratchet.improve.curation import TrainingRow
from ratchet.models import adapter_digest, load_pretrained, require_safetensors
from ratchet.records import digest

logger = logging.getLogger(__name__)

_RESULT_FILE = "ratchet-result.json"
_Positive = Annotated[int, Field(ge=1)]


class FinetuneConfig(BaseModel):
    """How the adapter is trained.

    Attributes:
        method: SFT on the targets, with the loss on the answer's tokens alone.
        rank: LoRA rank.
        alpha: LoRA scale; the update is multiplied by alpha / rank.
        learning_rate: Peak of a linear schedule.
        batch_size: Examples a step.
        maximum_tokens: Longer examples are left out, since a cut would take their answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["sft"] = "sft"
    rank: _Positive = 16
    alpha: _Positive = 32
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    epochs: Annotated[float, Field(gt=0.0, le=100.0)] = 2.0
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    batch_size: _Positive = 8
    warmup_steps: Annotated[int, Field(ge=0)] = 4
    maximum_tokens: _Positive = 512
    seed: int = 0


class FinetuneResult(BaseModel):
    """A trained adapter.

    Attributes:
        folder: Where it lies, relative to the home folder.
        losses: Mean loss per token of each step's batch, in order.
        seconds: Wall time of training.
        tokens: Tokens seen, prompt included.
        device: What it ran on, with the precision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    adapter_digest: str
    losses: tuple[float, ...]
    seconds: float
    tokens: int
    device: str


def finetune_key(
    dataset_digest: str, config: FinetuneConfig, base_digest: str, start_digest: str | None
) -> str:
    """Return the digest of everything that determines an adapter."""
    return digest([dataset_digest, config.model_dump(mode="json"), base_digest, start_digest])


def finetune(
    rows: Sequence[TrainingRow],
    config: FinetuneConfig,
    *,
    base: Path,
    start_from: Path | None,
    key: str,
    home: Path,
) -> FinetuneResult:
    """Train an adapter, or return the one that was trained with this key.

    Args:
        rows: What to learn.
        config: How.
        base: Folder of the base model.
        start_from: Folder of an adapter to go on from; None begins a new one.
        key: From `finetune_key`.
        home: The home folder; the adapter goes to `adapters/<key>` in it.

    Raises:
        InvalidInputError: There are no rows, or none that is short enough.
        ModelError: Base or adapter hold no safetensors.
    """
    if not rows:
        raise InvalidInputError("fine-tuning needs at least one row, got none; curate a set first")
    relative = Path("adapters") / key[:16]
    folder = home / relative
    if (folder / _RESULT_FILE).exists():
        logger.info("adapter %s is trained already", key[:16])
        return FinetuneResult.model_validate_json((folder / _RESULT_FILE).read_text("utf-8"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    for interrupted in folder.parent.glob("training-*"):
        shutil.rmtree(interrupted, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix="training-", dir=folder.parent))
    try:
        losses, seconds, tokens, device = _train(rows, config, base, start_from, work)
        result = FinetuneResult(
            folder=str(relative),
            adapter_digest=adapter_digest(work),
            losses=tuple(losses),
            seconds=seconds,
            tokens=tokens,
            device=device,
        )
        (work / _RESULT_FILE).write_text(result.model_dump_json(), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return result


def _train(
    rows: Sequence[TrainingRow],
    config: FinetuneConfig,
    base: Path,
    start_from: Path | None,
    work: Path,
) -> tuple[list[float], float, int, str]:
    """Train and write the adapter into `work`; return losses, seconds, tokens and device."""
    trainer = _build_trainer(rows, config, base, start_from, work)
    device = _describe_device(trainer.model)
    logger.info("training on %d examples, %s", len(trainer.train_dataset), device)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    # "auto" would ask the model hub about an embedding that is not trained here
    trainer.model.save_pretrained(str(work), save_embedding_layers=False)
    shutil.rmtree(work / "trainer", ignore_errors=True)
    _drop_machine_paths(work)
    history = trainer.state.log_history
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    tokens = max((int(entry.get("num_tokens", 0)) for entry in history), default=0)
    return losses, seconds, tokens, device


def _build_trainer(
    rows: Sequence[TrainingRow],
    config: FinetuneConfig,
    base: Path,
    start_from: Path | None,
    work: Path,
) -> Any:
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from peft import LoraConfig, PeftModel
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    disable_progress_bar()
    require_safetensors(base, "model*.safetensors")
    model, tokenizer = load_pretrained(base)
    tokenizer.padding_side = "right"
    examples = _short_enough(rows, tokenizer, config.maximum_tokens)
    lora = None
    if start_from is None:
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    else:
        require_safetensors(start_from, "adapter_model.safetensors")
        model = PeftModel.from_pretrained(model, str(start_from), is_trainable=True)
    with warnings.catch_warnings(action="ignore"):
        trainer = SFTTrainer(
            model=model,
            args=_arguments(config, work, len(examples)),
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[_progress()],
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _short_enough(
    rows: Sequence[TrainingRow], tokenizer: Any, most: int
) -> list[dict[str, list[dict[str, Any]]]]:
    """Return the rows as conversations, without those of more than `most` tokens."""
    examples = [
        {
            "prompt": [message.canonical() for message in row.messages],
            "completion": [{"role": "assistant", "content": row.target}],
        }
        for row in rows
    ]
    texts = [
        tokenizer.apply_chat_template(example["prompt"] + example["completion"], tokenize=False)
        for example in examples
    ]
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    kept = [example for example, ids in zip(examples, tokens, strict=True) if len(ids) <= most]
    if not kept:
        raise InvalidInputError(
            f"fine-tuning needs an example of at most maximum_tokens = {most} tokens, got "
            f"{len(rows)} that are longer; raise maximum_tokens"
        )
    if len(kept) < len(rows):
        left_out = len(rows) - len(kept)
        logger.warning("left out %d of %d examples over %d tokens", left_out, len(rows), most)
    return kept


def _arguments(config: FinetuneConfig, work: Path, rows: int) -> Any:
    import torch
    from trl import SFTConfig

    gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(work / "trainer"),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=min(config.batch_size, rows),
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_steps,
        max_length=config.maximum_tokens,
        train_sampling_strategy="group_by_length",
        gradient_checkpointing=False,
        bf16=gpu,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        seed=config.seed,
        data_seed=config.seed,
    )


def _progress() -> Any:
    """Build a callback that logs about ten lines a run, with loss and time left."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Logs steps, loss and time left."""

        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            """Start the clock."""
            self.started = time.monotonic()

        def on_log(
            self, _args: Any, state: Any, _control: Any, logs: Any = None, **_kwargs: Any
        ) -> None:
            """Log every tenth of the run."""
            step, steps = state.global_step, state.max_steps
            if not logs or "loss" not in logs or step % max(1, steps // 10):
                return
            left = (time.monotonic() - self.started) / step * (steps - step)
            loss = float(logs["loss"])
            logger.info("training step %d of %d, loss %.3f, %.0f s left", step, steps, loss, left)

    return Progress()


def _describe_device(model: Any) -> str:
    parameter = next(model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    precision = str(parameter.dtype).removeprefix("torch.")
    return f"{parameter.device.type}, {precision}, {trainable / 1e6:.1f} M trainable parameters"


def _drop_machine_paths(folder: Path) -> None:
    """Take the machine's path of the base model out of an adapter's folder."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["base_model_name_or_path"] = Path(config["base_model_name_or_path"] or "").name
    path.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
