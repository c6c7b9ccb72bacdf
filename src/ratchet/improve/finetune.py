"""LoRA fine-tuning with TRL: rows in, an adapter in safetensors out.

The adapter's folder is named after what determines it (rows, configuration, base, adapter that it
starts from): the same run twice trains once. A run that was interrupted goes on from its last
checkpoint, and ends as if it had not been.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ratchet.improve import trainers
from ratchet.improve.callbacks import (
    Checkpoints,
    Plan,
    Report,
    best_step,
    measured_steps,
    numbers,
    out_of_patience,
    validation_losses,
)
from ratchet.improve.checkpoints import (
    STATE,
    latest_checkpoint,
    read_progress,
    refuse_pickles,
    sole_process,
)
from ratchet.improve.devices import (
    Device,
    choose_device,
    environment,
    load_base,
    multiplying,
    peak_memory_megabytes,
)
from ratchet.improve.rows import Example, Row, examples, short_enough, split
from ratchet.improve.training_config import (
    FinetuneConfig,
    effective_batch,
    finetune_key,
    micro_batch,
)
from ratchet.models import HuggingFaceModel, adapter_digest, require_safetensors
from ratchet.records import Message

__all__ = ["FinetuneConfig", "FinetuneResult", "Sample", "finetune", "finetune_key"]

logger = logging.getLogger(__name__)

_RESULT_FILE = "ratchet-result.json"
_BATCH_FILE, _SAMPLES_FILE = "batch.json", "samples.json"
_ABANDONED_SECONDS = 14 * 86_400.0
_SAMPLE_TOKENS = 48


class Sample(BaseModel):
    """A prompt with its answers before and after training.

    Attributes:
        wanted: The answer that was to be learnt; for KTO the one that got the thumb.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    wanted: str
    before: str
    after: str


class FinetuneResult(BaseModel):
    """A trained adapter.

    Attributes:
        folder: Where it lies, relative to the home folder.
        losses: Loss of each step's batch, in order: per token for SFT, per row for KTO and DPO.
        seconds: Wall time of training, measuring included, over all interruptions.
        tokens: Tokens seen, prompt included.
        device: What it ran on, with the precision.
        history: Every number of every step and measurement; each has its `step`.
        validation: Validation losses as (step, loss).
        best_step: Step of the lowest of them; the adapter is that step's where the
            configuration has patience, and the last step's otherwise.
        stopped_early: Whether patience ran out.
        batch: Examples a step, and how many of them at once.
        resumed_at: Steps that the run went on from after interruptions.
        peak_memory_megabytes: Of the first process.
        environment: Versions and machine.
        samples: A few answers before and after.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    adapter_digest: str
    losses: tuple[float, ...]
    seconds: float
    tokens: int
    device: str
    history: tuple[dict[str, float], ...] = ()
    validation: tuple[tuple[int, float], ...] = ()
    best_step: int | None = None
    stopped_early: bool = False
    batch: tuple[int, int] = (0, 0)
    resumed_at: tuple[int, ...] = ()
    peak_memory_megabytes: float = 0.0
    environment: dict[str, str] = {}
    samples: tuple[Sample, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        """Tokens seen in a second of training; 0 where no time passed."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained, and how it is watched.

    Attributes:
        base: Folder of the base model.
        start_from: Folder of an adapter to go on from; None begins a new one.
        checkpoints: When the state is written down.
        report: Called with every step's numbers, by the first process.
        samples: How many answers before and after are kept.
        pause_at: Step to stop at for now; None goes to the end.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    config: FinetuneConfig
    base: Path
    start_from: Path | None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    report: Report | None = None
    samples: int = 0
    pause_at: int | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A run as it stands: its trainer, and what its history says.

    Attributes:
        steps: Steps of the whole run.
    """

    trainer: Any
    history: tuple[Mapping[str, Any], ...]
    seconds: float
    steps: int
    batches: trainers.Batches
    device: Device
    samples: tuple[Sample, ...]


def prepare_job(
    rows: Sequence[Row],
    config: FinetuneConfig,
    *,
    base: Path,
    start_from: Path | None,
    validation: Sequence[Row] = (),
) -> Job:
    """Turn rows into a job; without validation rows the configuration's share is set aside.

    Raises:
        InvalidInputError: The rows do not fit the method.
    """
    found = examples(rows, config.method)
    if validation:
        return Job(
            tuple(found), tuple(examples(validation, config.method)), config, base, start_from
        )
    rng = np.random.default_rng(config.seed)
    train, aside = split(found, config.validation_share, rng)
    return Job(tuple(train), tuple(aside), config, base, start_from)


def finetune(
    rows: Sequence[Row],
    config: FinetuneConfig,
    *,
    base: Path,
    start_from: Path | None,
    key: str,
    home: Path,
    validation: Sequence[Row] = (),
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    samples: int = 0,
) -> FinetuneResult:
    """Train an adapter, go on with one that was interrupted, or return the one of this key.

    Run in several processes (see `ratchet.improve.launch`) they train one adapter together.

    Args:
        rows: What to learn, of the configuration's method.
        config: How.
        base: Folder of the base model.
        start_from: Folder of an adapter to go on from; None begins a new one. KTO and DPO stay
            near it.
        key: From `finetune_key`.
        home: The home folder; the adapter goes to `adapters/<key>` in it.
        validation: Rows to measure the loss on, instead of the configuration's share.
        checkpoints: When the state is written down, once a minute unless given.
        report: Called with every step's numbers.
        samples: How many answers before and after training are kept.

    Raises:
        InvalidInputError: There are no rows, none that is short enough, or they do not fit.
        ModelError: Base or adapter hold no safetensors, or a pickle.
        BusyError: Another process trains this adapter.
    """
    relative = Path("adapters") / key[:16]
    done = home / relative / _RESULT_FILE
    if rows and done.exists():
        logger.info("adapter %s is trained already", key[:16])
        return FinetuneResult.model_validate_json(done.read_text("utf-8"))
    job = prepare_job(rows, config, base=base, start_from=start_from, validation=validation)
    job = replace(
        job, checkpoints=checkpoints or Checkpoints(), report=report, samples=samples
    )
    with work_folder(home, key) as work:
        trained = train(job, work)
        _finish(trained, job, work, home / relative)
    return FinetuneResult.model_validate_json(done.read_text("utf-8"))


@contextmanager
def work_folder(home: Path, key: str) -> Iterator[Path]:
    """Hold the folder that a run works in; it stays where there is a checkpoint to go on from.

    Raises:
        BusyError: Another process holds it.
    """
    adapters = home / "adapters"
    work = adapters / f"training-{key[:16]}"
    work.mkdir(parents=True, exist_ok=True)
    if _process() != 0:
        yield work
        return
    _forget_abandoned(adapters, work)
    with sole_process(work):
        try:
            yield work
        finally:
            if work.exists() and not any(work.glob("checkpoint-*")):
                shutil.rmtree(work, ignore_errors=True)


def _forget_abandoned(adapters: Path, current: Path) -> None:
    for other in adapters.glob("training-*"):
        idle = time.time() - max(path.stat().st_mtime for path in (other, *other.iterdir()))
        if other != current and idle > _ABANDONED_SECONDS:
            logger.info("removing %s, which nobody went on with for two weeks", other.name)
            shutil.rmtree(other, ignore_errors=True)


def _process() -> int:
    """Return the rank that a launcher gave this process."""
    return int(os.environ.get("RANK", "0"))


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


# Training -----------------------------------------------------------------------------------------


def train(job: Job, work: Path) -> Trained:
    """Train until the end or the pause, going on from the work folder's checkpoint.

    Out of memory, it tries once more with half the micro-batch, at the same examples a step.

    Raises:
        InvalidInputError: No example is short enough, or the machine cannot do what is asked.
        ModelError: Base, adapter or checkpoint are not as they must be.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    with multiplying(job.config.multiply):
        try:
            return _train(job, work)
        except RuntimeError as error:
            micro = _smaller(work) if should_reduce_batch_size(error) else None
            if micro is None or _processes() > 1:
                raise
            logger.warning("out of memory; once more with %d examples at once", micro)
            (work / _BATCH_FILE).write_text(json.dumps({"most": micro}), "utf-8")
        _free_memory()  # here the error, whose frames hold the model, is gone
        return _train(job, work)


def _smaller(work: Path) -> int | None:
    """Return half of the micro-batch that failed; None where that was tried or cannot be."""
    said = json.loads((work / _BATCH_FILE).read_text("utf-8"))
    half = said["micro"] // 2
    return half if "most" not in said and half >= said["least"] else None


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _train(job: Job, work: Path) -> Trained:
    config = job.config
    checkpoint = latest_checkpoint(work)
    trainer, device, batches = _build(job, work)
    an_epoch = _steps_an_epoch(trainer, batches)
    steps = int(np.ceil(config.epochs * an_epoch))
    measured = trainer.eval_dataset is not None
    plan = Plan(
        measure_at=measured_steps(steps, an_epoch, config.evaluations) if measured else frozenset(),
        patience=config.patience if measured else None,
        pause_at=job.pause_at,
        checkpoints=job.checkpoints,
        best=work / "best",
    )
    before = _answers_before(trainer, job, work)
    history = _history(checkpoint)
    at = _last_step(checkpoint)
    ended = at >= min(steps, job.pause_at or steps)
    if checkpoint is not None and (
        ended or out_of_patience(validation_losses(history), plan.patience)
    ):
        trainers.set_adapter(trainer, checkpoint)
        seconds = read_progress(checkpoint)["seconds"]
    else:
        if checkpoint is not None:
            logger.info("going on after step %d of %d", at, steps)
            (work / f"resumed-{at}").touch()
        seconds = trainers.run(trainer, plan, resume_from=checkpoint, report=job.report)
        history = trainer.state.log_history
    if plan.patience is not None and plan.best.exists() and not trainer.is_fsdp_enabled:
        trainers.set_adapter(trainer, plan.best)
    return Trained(
        trainer, tuple(history), seconds, steps, batches, device, _samples(trainer, job, before)
    )


def _build(job: Job, work: Path) -> tuple[Any, Device, trainers.Batches]:
    """Load the model and build the trainer, saying on what it will run."""
    config, processes = job.config, _processes()
    device = choose_device(config)
    if job.start_from is not None:
        refuse_pickles(job.start_from)
        require_safetensors(job.start_from, "adapter_model.safetensors")
    model, tokenizer = load_base(job.base, config, device)
    most = config.maximum_tokens
    training = short_enough(job.train, tokenizer, most)
    validation = short_enough(job.validation, tokenizer, most, kind="validation examples")
    if job.start_from is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(job.start_from), is_trainable=True)
    batches = _batches(config, len(training), work)
    trainer = trainers.build_trainer(
        model,
        tokenizer,
        training,
        validation,
        config=config,
        device=device,
        batches=batches,
        work=work,
    )
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    words = f"{device.words}, {trainable / 1e6:.1f} M trainable parameters"
    words += f", {processes} processes" if processes > 1 else ""
    logger.info(
        "training on %d examples by %s, %d a step, %d at once: %s",
        len(training),
        config.method.upper(),
        batches.effective,
        batches.micro,
        words,
    )
    return trainer, replace(device, words=words), batches


def _batches(config: FinetuneConfig, found: int, work: Path) -> trainers.Batches:
    """Spread a step's examples, as an earlier try that ran out of memory allows."""
    path, processes = work / _BATCH_FILE, _processes()
    said = json.loads(path.read_text("utf-8")) if path.exists() else {}
    micro = micro_batch(config, found, processes, said.get("most"))
    effective = effective_batch(config, found, processes)
    if _process() == 0:
        least = 2 if config.method == "kto" else 1
        path.write_text(json.dumps(said | {"micro": micro, "least": least}), "utf-8")
    return trainers.Batches(effective, micro, effective // processes // micro)


def _steps_an_epoch(trainer: Any, batches: trainers.Batches) -> int:
    at_once = batches.micro * _processes()
    return int(np.ceil(np.ceil(len(trainer.train_dataset) / at_once) / batches.accumulate))


def _state(checkpoint: Path | None) -> dict[str, Any]:
    if checkpoint is None:
        return {"log_history": [], "global_step": 0}
    found: dict[str, Any] = json.loads((checkpoint / STATE).read_text("utf-8"))
    return found


def _history(checkpoint: Path | None) -> list[Mapping[str, Any]]:
    return list(_state(checkpoint)["log_history"])


def _last_step(checkpoint: Path | None) -> int:
    return int(_state(checkpoint)["global_step"])


# Samples ------------------------------------------------------------------------------------------


def _answers_before(trainer: Any, job: Job, work: Path) -> list[str]:
    """Answer the sample's prompts with the model that training starts from, once a run."""
    path = work / _SAMPLES_FILE
    if not job.samples or _processes() > 1:
        return []
    if path.exists():
        return list(json.loads(path.read_text("utf-8")))
    found = _answer(trainer, _sampled(job))
    path.write_text(json.dumps(found), "utf-8")
    return found


def _sampled(job: Job) -> list[Example]:
    """Return the examples that are sampled: of validation, where there is one."""
    source = job.validation or job.train
    if job.config.method == "kto":
        source = tuple(example for example in source if example["label"])
    places = np.random.default_rng(job.config.seed).permutation(len(source))[: job.samples]
    return [source[place] for place in sorted(places)]


def _answer(trainer: Any, sampled: Sequence[Example]) -> list[str]:
    tokenizer = copy(trainer.processing_class)
    tokenizer.padding_side = "left"
    trained = trainer.accelerator.unwrap_model(trainer.model)
    was_training = trained.training
    trained.eval()
    model = HuggingFaceModel(trained, tokenizer, "", 8, one_line=False)
    conversations = [[Message(**turn) for turn in example["prompt"]] for example in sampled]
    completions = model.generate(conversations, max_new_tokens=_SAMPLE_TOKENS)
    trained.train(was_training)
    return [completion.text for completion in completions]


def _samples(trainer: Any, job: Job, before: Sequence[str]) -> tuple[Sample, ...]:
    if not before or job.pause_at is not None:
        return ()
    sampled = _sampled(job)
    return tuple(
        Sample(
            prompt=example["prompt"][-1]["content"],
            wanted=example.get("completion", example.get("chosen"))[0]["content"],
            before=first,
            after=second,
        )
        for example, first, second in zip(sampled, before, _answer(trainer, sampled), strict=True)
    )


# Results ------------------------------------------------------------------------------------------


def _finish(trained: Trained, job: Job, work: Path, folder: Path) -> None:
    """Move the adapter to its folder, with the result; the first process does it."""
    trainer, adapter, best = trained.trainer, work / "adapter", work / "best"
    if job.config.patience is not None and best.exists():
        if _process() == 0:
            shutil.copytree(best, adapter, dirs_exist_ok=True)
    else:
        trainers.write_adapter(trainer, adapter)
    if _process() == 0:
        _drop_machine_paths(adapter)
        refuse_pickles(adapter)
        result = _result(trained, job, adapter, str(folder.relative_to(folder.parents[1])), work)
        (adapter / _RESULT_FILE).write_text(result.model_dump_json(), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        adapter.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _result(
    trained: Trained, job: Job, adapter: Path, relative: str, work: Path
) -> FinetuneResult:
    history, measured = trained.history, validation_losses(trained.history)
    resumed = [int(path.name.rpartition("-")[2]) for path in work.glob("resumed-*")]
    return FinetuneResult(
        folder=relative,
        adapter_digest=adapter_digest(adapter),
        losses=tuple(float(entry["loss"]) for entry in history if "loss" in entry),
        seconds=trained.seconds,
        tokens=max((int(entry.get("num_tokens", 0)) for entry in history), default=0),
        device=trained.device.words,
        history=tuple(numbers(entry, leave_out=()) for entry in history),
        validation=tuple(measured),
        best_step=best_step(measured),
        stopped_early=out_of_patience(measured, job.config.patience),
        batch=(trained.batches.effective, trained.batches.micro),
        resumed_at=tuple(sorted(resumed)),
        peak_memory_megabytes=peak_memory_megabytes(trained.device),
        environment=environment(),
        samples=trained.samples,
    )


def _drop_machine_paths(folder: Path) -> None:
    """Take the machine's path of the base model out of an adapter's folder."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["base_model_name_or_path"] = Path(config["base_model_name_or_path"] or "").name
    path.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
