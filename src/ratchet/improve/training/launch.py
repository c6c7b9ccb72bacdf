"""One adapter trained by several processes, started with `accelerate launch`.

    four = LaunchConfig(strategy="ddp", processes=4)
    launched(rows, config, four, base=base, start_from=None, key=key, home=home)

The configurations for accelerate lie in `launchers`. The processes read the rows from a file, work
in the same folder and can be killed and started again like a single one.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.errors import InvalidInputError, RatchetError
from ratchet.files.text import shown_line
from ratchet.improve.curation.rows import Row
from ratchet.improve.training.callbacks import Checkpoints, Report
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.devices import choose_device
from ratchet.improve.training.examples import write_rows
from ratchet.improve.training.finetune import FinetuneResult, finetune
from ratchet.processes import open_environment, python

logger = logging.getLogger(__name__)

LAUNCHERS = Path(__file__).parent / "launchers"
MARK, ERROR_MARK = "ratchet: ", "ratchet error: "  # how lines for the parent begin
_TAIL = 1500
_STOP_SECONDS = 20.0


class LaunchConfig(BaseModel):
    """How many processes train an adapter, and how they share the work.

    Attributes:
        strategy: `single` is this process; `ddp` a copy of the model a process; `fsdp` the model
            spread over the processes.
        processes: One a GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Literal["single", "ddp", "fsdp"] = "single"
    processes: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _holds_together(self) -> LaunchConfig:
        if (self.strategy == "single") != (self.processes == 1):
            raise ValueError(
                f"one process is 'single' and several are 'ddp' or 'fsdp', got {self.strategy!r} "
                f"with {self.processes}; change one of them"
            )
        return self


class Spec(BaseModel):
    """What a worker process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: str
    validation: str | None
    config: FinetuneConfig
    base: str
    start_from: str | None
    key: str
    home: str
    checkpoint_seconds: float
    checkpoint_steps: int | None = None


def launcher(launch: LaunchConfig, *, gpu: bool) -> Path:
    """Return accelerate's configuration.

    Raises:
        InvalidInputError: FSDP is asked for without a GPU, where accelerate does not have it.
    """
    if gpu:
        return LAUNCHERS / f"{launch.strategy}.yaml"
    if launch.strategy == "fsdp":
        raise InvalidInputError("strategy 'fsdp' needs GPUs, got none; use 'ddp' on processors")
    return LAUNCHERS / "ddp_cpu.yaml"


def command(launch: LaunchConfig, spec: Path, *, gpu: bool, bfloat16: bool) -> list[str]:
    """Return the command that starts the processes."""
    return python(
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(launcher(launch, gpu=gpu)),
        "--num_processes",
        str(launch.processes),
        "--main_process_port",
        "0",  # a free one
        "--mixed_precision",
        "bf16" if bfloat16 else "no",
        "-m",
        "ratchet.improve.training.worker",
        str(spec),
    )


def launched(
    rows: Sequence[Row],
    config: FinetuneConfig,
    launch: LaunchConfig,
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
    """Train as `finetune` does, in as many processes as `launch` says.

    What `report` and `samples` ask for is done where there is one process.

    Raises:
        InvalidInputError: As `finetune`; or there are fewer GPUs than processes.
        RatchetError: A process failed; the message has the end of what they printed.
    """
    if launch.strategy == "single":
        return finetune(
            rows,
            config,
            base=base,
            start_from=start_from,
            key=key,
            home=home,
            validation=validation,
            checkpoints=checkpoints,
            report=report,
            samples=samples,
        )
    gpu, bfloat16 = _precision(config, launch)
    folder = home / "adapters" / f"launch-{key[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    every = checkpoints or Checkpoints()
    spec = Spec(
        rows=str(folder / "rows.jsonl"),
        validation=str(folder / "validation.jsonl") if validation else None,
        config=config,
        base=str(base),
        start_from=str(start_from) if start_from else None,
        key=key,
        home=str(home),
        checkpoint_seconds=every.seconds,
        checkpoint_steps=every.steps,
    )
    write_rows(rows, Path(spec.rows))
    if spec.validation:
        write_rows(validation, Path(spec.validation))
    (folder / "spec.json").write_text(spec.model_dump_json(), "utf-8")
    _run(command(launch, folder / "spec.json", gpu=gpu, bfloat16=bfloat16), folder / "output.log")
    return finetune(
        rows, config, base=base, start_from=start_from, key=key, home=home, validation=validation
    )


def _precision(config: FinetuneConfig, launch: LaunchConfig) -> tuple[bool, bool]:
    """Return whether there are GPUs, and whether they compute in bfloat16."""
    device = choose_device(config)
    if device.kind == "cuda" and device.count < launch.processes:
        raise InvalidInputError(
            f"each process needs a GPU, got {device.count} GPUs for {launch.processes} processes; "
            f"use {device.count} processes"
        )
    return device.kind == "cuda", device.precision == "bfloat16"


def _run(arguments: Sequence[str], log: Path) -> None:
    """Run the processes, passing on what the first one logs; they end when this one does."""
    logger.info("starting %s", " ".join(arguments[2:]))
    said = ""
    child = subprocess.Popen(
        arguments,
        env=open_environment(os.environ),  # nothing that trains needs a key
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        with log.open("w", encoding="utf-8") as file:
            for line in child.stdout:
                file.write(shown_line(line.removesuffix("\n")) + chr(10))
                if line.startswith(MARK):
                    logger.info("%s", line.removeprefix(MARK).rstrip())
                if line.startswith(ERROR_MARK):
                    said = line.removeprefix(ERROR_MARK)
        code = child.wait()
    except BaseException:
        _stop(child)
        raise
    if code:
        said = said or f"the end of what they printed:\n{log.read_text('utf-8')[-_TAIL:]}"
        raise RatchetError(f"training in several processes ended with code {code}: {said}")


def _stop(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGTERM)  # torchrun ends its workers
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
