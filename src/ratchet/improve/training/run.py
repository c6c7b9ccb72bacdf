"""One training run, in a folder that it can go on from.

The folder holds sealed checkpoints, the best adapter where that is wanted, and small notes: what
ran out of memory, what was answered before the first step, at which steps the run went on.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ratchet.improve.curation.rows import Row
from ratchet.improve.training import trainers
from ratchet.improve.training.callbacks import (
    Checkpoints,
    DivergedError,
    Report,
    TrainingPlan,
    measured_steps,
    out_of_patience,
    validation_losses,
)
from ratchet.improve.training.checkpoints import (
    STATE,
    latest_checkpoint,
    read_progress,
    refuse_pickles,
    sole_process,
)
from ratchet.improve.training.config import (
    FinetuneConfig,
    effective_batch,
    micro_batch,
    token_limit,
)
from ratchet.improve.training.devices import Device, choose_device, load_base, multiplying
from ratchet.improve.training.examples import (
    Example,
    check_labels,
    examples,
    short_enough,
    split,
    templated,
    token_lengths,
)
from ratchet.improve.training.memory import fit_micro_batch, free_memory
from ratchet.improve.training.samples import Sample, answers, answers_before, choose, compare
from ratchet.models import require_safetensors
from ratchet.models.given_template import check_template
from ratchet.models.own_base import check_base

logger = logging.getLogger(__name__)

Load: TypeAlias = Callable[[Path, FinetuneConfig, Device], tuple[Any, Any]]
BEST = "best"
_BATCH_FILE = "batch.json"
_ABANDONED_SECONDS = 14 * 86_400.0


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is trained, and how it is watched.

    Attributes:
        base: Folder of the base model.
        start_from: Folder of an adapter to go on from; None begins a new one.
        checkpoints: When the state is written down.
        report: Called with every step's numbers, by the first process.
        samples: How many answers before and after are kept.
        pause_at: Step to stop at for now; None goes to the end.
        pause_after: The same as a share of the run's steps.
        load: Returns model and tokenizer of the base; another one than `load_base` may make them
            on the device instead of reading them.
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
    pause_after: float | None = None
    load: Load = load_base

    def pause(self, steps: int) -> int | None:
        """Return the step of a run of `steps` at which to stop for now, or None."""
        if self.pause_after is None:
            return self.pause_at
        return max(1, min(steps, round(self.pause_after * steps)))


@dataclass(frozen=True, slots=True)
class Trained:
    """A run as it stands: its trainer, and what its history says.

    Attributes:
        steps: Steps of the whole run.
        left_out: How many rows the base model cannot be trained on, by why.
        maximum_tokens: How many tokens a row might have.
    """

    trainer: Any
    history: tuple[Mapping[str, Any], ...]
    seconds: float
    steps: int
    batches: trainers.Batches
    device: Device
    samples: tuple[Sample, ...]
    left_out: Mapping[str, int]
    maximum_tokens: int


def prepare_job(
    rows: Sequence[Row],
    config: FinetuneConfig,
    *,
    base: Path,
    start_from: Path | None,
    validation: Sequence[Row] = (),
) -> TrainingJob:
    """Turn rows into a job; without validation rows the configuration's share is set aside.

    Raises:
        InvalidInputError: The rows do not fit the method.
    """
    in_columns = examples(rows, config.method)
    if validation:
        return TrainingJob(
            tuple(in_columns), tuple(examples(validation, config.method)), config, base, start_from
        )
    rng = np.random.default_rng(config.seed)
    train, aside = split(in_columns, config.validation_share, rng)
    return TrainingJob(tuple(train), tuple(aside), config, base, start_from)


@contextmanager
def work_folder(home: Path, key: str) -> Iterator[Path]:
    """Hold the folder that a run works in; it stays where there is a checkpoint to go on from.

    Raises:
        BusyError: Another process holds it.
    """
    adapters = home / "adapters"
    work = adapters / f"training-{key[:16]}"
    work.mkdir(parents=True, exist_ok=True)
    if process() != 0:
        yield work
        return
    _forget_abandoned(adapters, work)
    with sole_process(work):
        try:
            yield work
        finally:
            if work.exists() and not any(work.glob("checkpoint-*")):
                shutil.rmtree(work, ignore_errors=True)


def is_known(home: Path, key: str) -> bool:
    """Tell whether the training of a key was finished or begun in a home."""
    adapters = home / "adapters"
    return any((adapters / f"{way}{key[:16]}").exists() for way in ("", "training-"))


def _forget_abandoned(adapters: Path, current: Path) -> None:
    for other in adapters.glob("training-*"):
        idle = time.time() - max(path.stat().st_mtime for path in (other, *other.iterdir()))
        if other != current and idle > _ABANDONED_SECONDS:
            logger.info("removing %s: the training was not resumed for two weeks", other.name)
            shutil.rmtree(other, ignore_errors=True)


def process() -> int:
    """Return the rank that a launcher gave this process."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def train(job: TrainingJob, work: Path) -> Trained:
    """Train until the end or the pause, going on from the work folder's checkpoint.

    Out of memory, it starts again with half the micro-batch, at the same examples a step, down to
    one example; then with gradient checkpointing.

    Raises:
        InvalidInputError: No example is short enough, or the machine cannot do what is asked.
        ModelError: Base, adapter or checkpoint are not as they must be, or a loss or a gradient is
            not finite; then nothing of the run is kept.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    with multiplying(job.config.multiply):
        while True:
            try:
                return _train(job, work)
            except DivergedError:
                _forget(work)
                raise
            except RuntimeError as error:
                retry = should_reduce_batch_size(error) and processes() == 1
                if not retry or not _need_less(work, job.config):
                    raise
            free_memory()  # here the error, whose frames hold the model, is gone


def _forget(work: Path) -> None:
    """Remove what a run that diverged kept: going on from it would diverge again."""
    if process() == 0:
        for path in (work / BEST, *work.glob("checkpoint-*")):
            shutil.rmtree(path, ignore_errors=True)


def _need_less(work: Path, config: FinetuneConfig) -> bool:
    """Note what the next try does to need less memory; False where nothing is left to do."""
    note = _notes(work)
    half = note["micro"] // 2
    if half >= note["least"]:
        logger.warning("out of memory; once more with %d examples at once", half)
        note["most"] = half
    elif not (config.gradient_checkpointing or note.get("checkpointing")):
        logger.warning("out of memory; once more with gradient checkpointing")
        note = {"checkpointing": True}
    else:
        return False
    (work / _BATCH_FILE).write_text(json.dumps(note), "utf-8")
    return True


def _notes(work: Path) -> dict[str, Any]:
    """Return what earlier tries noted of the micro-batch."""
    path = work / _BATCH_FILE
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def _train(job: TrainingJob, work: Path) -> Trained:
    config = job.config
    checkpoint = latest_checkpoint(work)
    trainer, device, batches, job, left_out = _build(job, work)
    an_epoch = _steps_an_epoch(trainer, batches)
    steps = int(np.ceil(config.epochs * an_epoch))
    measured = trainer.eval_dataset is not None
    plan = TrainingPlan(
        measure_at=measured_steps(steps, an_epoch, config.evaluations) if measured else frozenset(),
        patience=config.patience if measured else None,
        pause_at=job.pause(steps),
        checkpoints=job.checkpoints,
        best=work / BEST,
    )
    chosen = _sampled(job)
    before = answers_before(trainer, chosen, work) if chosen else []
    history = _history(checkpoint)
    at = _last_step(checkpoint)
    ended = at >= min(steps, plan.pause_at or steps)
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
    asked = plan.pause_at is None and bool(chosen)
    samples = compare(chosen, before, answers(trainer, chosen)) if asked else ()
    return Trained(
        trainer=trainer,
        history=tuple(history),
        seconds=seconds,
        steps=steps,
        batches=batches,
        device=device,
        samples=samples,
        left_out=left_out,
        maximum_tokens=job.config.maximum_tokens or 0,
    )


def _sampled(job: TrainingJob) -> list[Example]:
    """Return the examples whose answers are kept: of validation, where there is one."""
    if not job.samples or processes() > 1:  # a model spread over processes does not answer
        return []
    return choose(job.validation or job.train, job.samples, np.random.default_rng(job.config.seed))


def _usable(
    job: TrainingJob, tokenizer: Any, context: int | None
) -> tuple[TrainingJob, dict[str, int]]:
    """Return the job with the rows that the base model can be trained on, and what was left out.

    Its configuration says how many tokens a row may have.

    Raises:
        InvalidInputError: No row is left, none to validate with, or KTO has one kind of label.
    """
    sides, left_out = {}, {}
    given = {"examples": job.train, "validation examples": job.validation}
    read = {kind: templated(rows, tokenizer, kind=kind) for kind, rows in given.items()}
    lengths = {kind: token_lengths(rows, tokenizer) for kind, rows in read.items()}
    longest = max(chain.from_iterable(lengths.values()))
    most = token_limit(job.config, longest, context)
    for kind, rows in read.items():
        sides[kind] = tuple(short_enough(rows, lengths[kind], most, kind=kind))
        left_out[f"{kind} that the chat template refuses"] = len(given[kind]) - len(rows)
        left_out[f"{kind} over {most} tokens"] = len(rows) - len(sides[kind])
    check_labels(sides["examples"], job.config.method)
    usable = replace(
        job,
        train=sides["examples"],
        validation=sides["validation examples"],
        config=job.config.model_copy(update={"maximum_tokens": most}),
    )
    return usable, {why: count for why, count in left_out.items() if count}


def _build(
    job: TrainingJob, work: Path
) -> tuple[Any, Device, trainers.Batches, TrainingJob, dict[str, int]]:
    """Load the model and build the trainer, saying on what it will run.

    Returns:
        Trainer, device, batches, the job with the rows that can be used, and what was left out.
    """
    config, sharing = job.config, processes()
    if _notes(work).get("checkpointing"):
        config = config.model_copy(update={"gradient_checkpointing": True})
    device = choose_device(config)
    if job.start_from is not None:
        refuse_pickles(job.start_from)
        require_safetensors(job.start_from, "adapter_model.safetensors")
    model, tokenizer = job.load(job.base, config, device)
    if job.start_from is not None:
        check_base(job.base, job.start_from)
        check_template(tokenizer, job.start_from)
    trainers.check_targets(model, config)
    context = getattr(model.config, "max_position_embeddings", None)
    job, left_out = _usable(job, tokenizer, context)
    config = config.model_copy(update={"maximum_tokens": job.config.maximum_tokens})
    if job.start_from is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(job.start_from), is_trainable=True)
    batches = _batches(config, len(job.train), work)
    trainer = trainers.build_trainer(
        model,
        tokenizer,
        job.train,
        job.validation,
        config=config,
        device=device,
        batches=batches,
        work=work,
    )
    if device.kind == "cuda" and config.method == "sft" and sharing == 1:
        batches = _by_trial(trainer, batches, config, work)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    words = f"{device.words}, {trainable / 1e6:.1f} M trainable parameters"
    words += f", {sharing} processes" if sharing > 1 else ""
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))  # set by torchrun
    words += f" on {nodes} nodes" if nodes > 1 else ""
    logger.info(
        "training on %d examples by %s, %d a step, %d at once: %s",
        len(job.train),
        config.method.upper(),
        batches.effective,
        batches.micro,
        words,
    )
    return trainer, replace(device, words=words), batches, job, left_out


def _batches(config: FinetuneConfig, count: int, work: Path) -> trainers.Batches:
    """Spread a step's examples, as an earlier try that ran out of memory allows."""
    note, sharing = _notes(work), processes()
    micro = micro_batch(config, count, sharing, note.get("most"))
    effective = effective_batch(config, count, sharing)
    if process() == 0:
        least = 2 if config.method == "kto" else 1
        noted = json.dumps(note | {"micro": micro, "least": least})
        (work / _BATCH_FILE).write_text(noted, "utf-8")
    return trainers.Batches(effective, micro, effective // sharing // micro)


def _by_trial(
    trainer: Any, batches: trainers.Batches, config: FinetuneConfig, work: Path
) -> trainers.Batches:
    """Find the micro-batch by trial, once a run, unless one was asked for."""
    noted = _notes(work)
    if config.micro_batch is not None or "most" in noted:
        return batches
    path = work / _BATCH_FILE
    # the least, should it not fit either
    path.write_text(json.dumps(noted | {"micro": 1}), "utf-8")
    chosen = fit_micro_batch(trainer, batches)
    path.write_text(json.dumps(noted | {"micro": chosen.micro, "most": chosen.micro}), "utf-8")
    return chosen


def _steps_an_epoch(trainer: Any, batches: trainers.Batches) -> int:
    at_once = batches.micro * processes()
    return int(np.ceil(np.ceil(len(trainer.train_dataset) / at_once) / batches.accumulate))


def _state(checkpoint: Path | None) -> dict[str, Any]:
    if checkpoint is None:
        return {"log_history": [], "global_step": 0}
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text("utf-8"))
    return state


def _history(checkpoint: Path | None) -> list[Mapping[str, Any]]:
    return list(_state(checkpoint)["log_history"])


def _last_step(checkpoint: Path | None) -> int:
    return int(_state(checkpoint)["global_step"])


def resumed_steps(work: Path) -> tuple[int, ...]:
    """Return the steps that the run went on from."""
    return tuple(sorted(int(path.name.rpartition("-")[2]) for path in work.glob("resumed-*")))
