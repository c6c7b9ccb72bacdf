"""LoRA fine-tuning with TRL: rows in, an adapter in safetensors out.

The adapter's folder is named after what determines it (rows, configuration, base, adapter that it
starts from): the same run twice trains once. A run that was interrupted goes on from its last
checkpoint, and ends as if it had not been.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from ratchet.files.text import counted
from ratchet.improve.curation.rows import Row
from ratchet.improve.training.callbacks import (
    Checkpoints,
    Report,
    best_step,
    numbers,
    out_of_patience,
    validation_losses,
)
from ratchet.improve.training.checkpoints import refuse_pickles
from ratchet.improve.training.config import FinetuneConfig, finetune_key
from ratchet.improve.training.devices import environment, peak_memory_megabytes
from ratchet.improve.training.run import (
    BEST,
    Trained,
    TrainingJob,
    prepare_job,
    process,
    resumed_steps,
    train,
    work_folder,
)
from ratchet.improve.training.samples import Sample
from ratchet.improve.training.trainers import write_adapter
from ratchet.models import adapter_digest
from ratchet.models.given_template import write_template
from ratchet.models.hub import origin_of
from ratchet.models.own_base import write_base

__all__ = ["FinetuneConfig", "FinetuneResult", "finetune", "finetune_key"]

logger = logging.getLogger(__name__)

_RESULT_FILE = "ratchet-result.json"


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
        left_out: How many rows were not trained on or validated with, by why.
        maximum_tokens: How many tokens a row might have; 0 in a result of before.
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
    left_out: dict[str, int] = {}
    maximum_tokens: int = 0

    @classmethod
    def of_cache(cls, kept: Mapping[str, Any]) -> Self:
        """Read a result out of Prefect's cache, also one of release 0.1, which names its class."""
        return cls.model_validate(kept["data"] if "__class__" in kept else kept)

    @property
    def rows_left_out(self) -> int:
        """How many rows the base model could not be trained on or validated with."""
        return sum(self.left_out.values())

    @property
    def rows_too_long(self) -> int:
        """How many of them had too many tokens."""
        return sum(count for why, count in self.left_out.items() if why.endswith(" tokens"))

    @property
    def lengths_said(self) -> str:
        """How long rows might be and how many were longer, for people."""
        if not self.rows_too_long:
            return f"no row was too long (limit: {self.maximum_tokens} tokens)"
        longer = counted(self.rows_too_long, "row")
        return f"{longer} over {self.maximum_tokens} tokens left out, also of validation"

    @property
    def tokens_per_second(self) -> float:
        """Tokens seen in a second of training; 0 where no time passed."""
        return self.tokens / self.seconds if self.seconds else 0.0


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

    Run in several processes (see `ratchet.improve.training.launch`) they train one adapter
    together.

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
    if rows and is_finished(home, key):
        logger.info("adapter %s is trained already", key[:16])
        return FinetuneResult.model_validate_json(done.read_text("utf-8"))
    job = prepare_job(rows, config, base=base, start_from=start_from, validation=validation)
    job = replace(job, checkpoints=checkpoints or Checkpoints(), report=report, samples=samples)
    with work_folder(home, key) as work:
        trained = train(job, work)
        _finish(trained, job, work, home / relative)
    return FinetuneResult.model_validate_json(done.read_text("utf-8"))


def is_finished(home: Path, key: str) -> bool:
    """Tell whether the adapter of a key lies in a home, with its result."""
    return (home / "adapters" / key[:16] / _RESULT_FILE).exists()


def result_in(folder: Path) -> FinetuneResult | None:
    """Return the result of a trained adapter in its folder; None where it is not there."""
    path = folder / _RESULT_FILE
    return FinetuneResult.model_validate_json(path.read_text("utf-8")) if path.exists() else None


def _finish(trained: Trained, job: TrainingJob, work: Path, folder: Path) -> None:
    """Move the adapter to its folder, with the result; the first process does it."""
    trainer, adapter, best = trained.trainer, work / "adapter", work / BEST
    if job.config.patience is not None and best.exists():
        if process() == 0:
            shutil.copytree(best, adapter, dirs_exist_ok=True)
    else:
        write_adapter(trainer, adapter)
    if process() == 0:
        _drop_machine_paths(adapter)
        write_template(trainer.processing_class, adapter)
        write_base(job.base, adapter)
        refuse_pickles(adapter)
        result = _result(trained, job, adapter, str(folder.relative_to(folder.parents[1])), work)
        (adapter / _RESULT_FILE).write_text(result.model_dump_json(), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        adapter.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _result(
    trained: Trained, job: TrainingJob, adapter: Path, relative: str, work: Path
) -> FinetuneResult:
    history, measured = trained.history, validation_losses(trained.history)
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
        resumed_at=resumed_steps(work),
        peak_memory_megabytes=peak_memory_megabytes(trained.device),
        environment=environment(),
        samples=trained.samples,
        left_out=dict(trained.left_out),
        maximum_tokens=trained.maximum_tokens,
    )


def _drop_machine_paths(folder: Path) -> None:
    """Take the machine's path of the base model out of an adapter's folder.

    Of a model of the Hub its name and revision stand there, so that peft finds the same weights.
    """
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    base = Path(config["base_model_name_or_path"] or "")
    found = origin_of(base)
    config["base_model_name_or_path"] = found.name if found else base.name
    if found:
        config["revision"] = found.revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
