"""One adapter trained by several processes, on one machine or on several.

    four = LaunchConfig(strategy="ddp", processes=4)
    launched(rows, config, four, base=base, start_from=None, key=key, home=home)

On one machine `accelerate launch` starts them, on several `torchrun` on each: here, and where
`ratchet train --join` waits (`training.nodes`). The configurations for accelerate lie in
`launchers`. The processes read the rows from a file, work in the same folder and can be killed and
started again like a single one.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.errors import InvalidInputError, RatchetError
from ratchet.files.text import shown_line
from ratchet.files.whole import write_whole
from ratchet.improve.curation.rows import Row
from ratchet.improve.training.callbacks import Checkpoints, Report
from ratchet.improve.training.checkpoints import SEAL
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.devices import choose_device
from ratchet.improve.training.examples import write_rows
from ratchet.improve.training.finetune import FinetuneResult, finetune, is_finished
from ratchet.models import model_digest
from ratchet.processes import open_environment, python

logger = logging.getLogger(__name__)

LAUNCHERS = Path(__file__).parent / "launchers"
MARK, ERROR_MARK = "ratchet: ", "ratchet error: "  # how lines for the parent begin
SPEC = "spec.json"
_TAIL = 1500
_STOP_SECONDS = 20.0


class Nodes(BaseModel):
    """Several machines (nodes) that train one adapter together.

    Which of them has which ranks, torch's rendezvous decides; no node is told its own.

    Attributes:
        count: How many, with the one that starts the training.
        endpoint: `HOST:PORT` of the one that starts it, as the others reach it. Without a host it
            is the address that this machine's name has.
        folder: A folder that all of them see, maybe under another path. Rows, checkpoints and the
            adapter lie there while it trains; the rows are removed when it ends.
        wait_seconds: How long the first ones wait for the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=2, le=1024)]
    endpoint: Annotated[str, Field(pattern=r"^[^:/\s]*:[0-9]{1,5}$")] = ":29400"
    folder: Path
    wait_seconds: Annotated[float, Field(gt=0.0, le=86_400.0)] = 600.0

    @model_validator(mode="after")
    def _holds_together(self) -> Nodes:
        if not self.folder.is_absolute():
            raise ValueError(
                f"folder must be an absolute path that every node sees, got {str(self.folder)!r}"
            )
        if not 0 < int(self.endpoint.rpartition(":")[2]) < 65_536:
            raise ValueError(f"endpoint must have a port below 65536, got {self.endpoint!r}")
        return self


class LaunchConfig(BaseModel):
    """How many processes train an adapter, and how they share the work.

    Attributes:
        strategy: `single` is this process; `ddp` a copy of the model a process; `fsdp` the model
            spread over the processes.
        processes: One a GPU; with `nodes` on each of them.
        nodes: Machines that train together; None is this one alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Literal["single", "ddp", "fsdp"] = "single"
    processes: Annotated[int, Field(ge=1)] = 1
    nodes: Nodes | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> LaunchConfig:
        if (self.strategy == "single") != (self.in_all == 1):
            raise ValueError(
                f"one process is 'single' and several are 'ddp' or 'fsdp', got {self.strategy!r} "
                f"with {self.in_all}; change one of them"
            )
        return self

    @property
    def in_all(self) -> int:
        """Processes on all machines together."""
        return self.processes * (self.nodes.count if self.nodes else 1)


class Spec(BaseModel):
    """What a worker process is told; paths may be relative to the spec's own folder.

    Attributes:
        launch: How it is launched on several nodes.
        endpoint: Where these nodes meet.
        job: Name of this attempt, by which they know each other.
    """

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
    launch: LaunchConfig | None = None
    endpoint: str = ""
    job: str = ""


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


def torchrun(spec: Spec, path: Path, base: Path, *, host: bool) -> list[str]:
    """Return the command that starts one node's processes.

    Args:
        spec: With `launch.nodes`.
        path: Of the spec on this node.
        base: Folder of the base model on this node.
        host: Whether the others meet here.
    """
    assert spec.launch is not None
    assert spec.launch.nodes is not None
    return python(
        "-m",
        "torch.distributed.run",
        f"--nnodes={spec.launch.nodes.count}",
        f"--nproc-per-node={spec.launch.processes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={spec.endpoint}",
        f"--rdzv-id={spec.job}",
        f"--rdzv-conf=is_host={int(host)},join_timeout={int(spec.launch.nodes.wait_seconds)}",
        "--max-restarts=0",  # a training that broke is started again as a whole
        f"--local-addr={_address_towards(spec.endpoint)}",
        "-m",
        "ratchet.improve.training.worker",
        str(path),
        str(base),
        model_digest(base),
    )


def run_node(spec: Spec, path: Path, base: Path, *, host: bool) -> None:
    """Run one node's part of a training on several, until it ends on all of them.

    Args:
        spec: With `launch.nodes`.
        path: Of the spec on this node.
        base: Folder of the base model on this node.
        host: Whether the others meet here.

    Raises:
        InvalidInputError: This node has not what the training needs.
        RatchetError: It ended on this node or another before its end.
    """
    assert spec.launch is not None
    assert spec.launch.nodes is not None
    gpu, bfloat16 = _precision(spec.config, spec.launch)
    environ = os.environ | _accelerate_variables(spec.launch, gpu=gpu, bfloat16=bfloat16)
    log = path.parent / f"output-{socket.gethostname()}-{os.getpid()}.log"
    try:
        _run(torchrun(spec, path, base, host=host), log, environ)
    except RatchetError as error:
        raise RatchetError(
            f"training on {spec.launch.nodes.count} nodes must go on on all of them until its end, "
            f"but broke: {error}\n{_next_try(path.parents[1] / f'training-{spec.key[:16]}')}"
        ) from error


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

    What `report` and `samples` ask for is done where there is one process. On several nodes only
    this one writes into the home; the others see nothing but the nodes' folder.

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
    write = partial(
        _write_spec,
        rows,
        config,
        checkpoints or Checkpoints(),
        base=base,
        start_from=start_from,
        key=key,
        validation=validation,
    )
    if launch.nodes is None:
        gpu, bfloat16 = _precision(config, launch)
        path = write(home=home)
        _run(command(launch, path, gpu=gpu, bfloat16=bfloat16), path.parent / "output.log")
    elif not is_finished(home, key):
        path = write(home=launch.nodes.folder, launch=launch)
        try:
            run_node(read_spec(path), path, base, host=True)
        finally:
            _remove_rows(path.parent)
        _bring_home(launch.nodes.folder, home, key)
    return finetune(
        rows, config, base=base, start_from=start_from, key=key, home=home, validation=validation
    )


def read_spec(path: Path) -> Spec:
    """Return what `launched` wrote."""
    return Spec.model_validate_json(path.read_text("utf-8"))


def _write_spec(
    rows: Sequence[Row],
    config: FinetuneConfig,
    checkpoints: Checkpoints,
    *,
    base: Path,
    start_from: Path | None,
    key: str,
    home: Path,
    validation: Sequence[Row],
    launch: LaunchConfig | None = None,
) -> Path:
    """Write the rows and what workers are told; for other nodes, what they need beside it."""
    folder = home / "adapters" / f"launch-{key[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    elsewhere = launch is not None and launch.nodes is not None
    start = str(start_from) if start_from else None
    if start_from is not None and elsewhere:
        shutil.copytree(start_from, folder / "start", dirs_exist_ok=True)
        start = "start"
    spec = Spec(
        rows="rows.jsonl",
        validation="validation.jsonl" if validation else None,
        config=config,
        base="" if elsewhere else str(base),
        start_from=start,
        key=key,
        home="../.." if elsewhere else str(home),
        checkpoint_seconds=checkpoints.seconds,
        checkpoint_steps=checkpoints.steps,
        launch=launch,
        endpoint=_endpoint(launch.nodes) if launch and launch.nodes else "",
        job=f"{key[:16]}-{uuid4().hex[:8]}" if elsewhere else "",
    )
    write_rows(rows, folder / spec.rows)
    if spec.validation:
        write_rows(validation, folder / spec.validation)
    write_whole(folder / SPEC, spec.model_dump_json().encode(), mode=None)
    return folder / SPEC


def _remove_rows(folder: Path) -> None:
    """Remove what users wrote from the nodes' folder, and what other nodes would join."""
    for name in (SPEC, "rows.jsonl", "validation.jsonl"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "start", ignore_errors=True)


def _bring_home(shared: Path, home: Path, key: str) -> None:
    """Move a finished adapter from the nodes' folder into the home."""
    made, draft = shared / "adapters" / key[:16], home / "adapters" / f".{key[:16]}"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(made, draft)
    shutil.rmtree(home / "adapters" / key[:16], ignore_errors=True)
    draft.rename(home / "adapters" / key[:16])
    shutil.rmtree(made)


def _next_try(work: Path) -> str:
    """Say where a training that broke goes on."""
    steps = [int(path.parent.name.rpartition("-")[2]) for path in work.glob(f"*-*/{SEAL}")]
    at = f"after step {max(steps)}, the last sealed checkpoint" if steps else "from the beginning"
    return f"started again, it goes on {at}"


def _endpoint(nodes: Nodes) -> str:
    host, _, port = nodes.endpoint.rpartition(":")
    return f"{host or socket.gethostbyname(socket.gethostname())}:{port}"


def _address_towards(endpoint: str) -> str:
    """Return the address under which this machine speaks to another; nothing is sent.

    Raises:
        InvalidInputError: Nothing leads there.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InvalidInputError(
            f"the nodes' endpoint must be reached from each of them, got {endpoint}: {error}; "
            "correct nodes.endpoint"
        ) from error


def _accelerate_variables(launch: LaunchConfig, *, gpu: bool, bfloat16: bool) -> Mapping[str, str]:
    """Return what `accelerate launch` would tell its workers of the shipped configuration."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    asked = command(launch, Path(SPEC), gpu=gpu, bfloat16=bfloat16)[4:]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(asked))
    told = prepare_multi_gpu_env(arguments)
    return {name: told[name] for name in told if name.startswith(("ACCELERATE_", "FSDP_"))}


def _precision(config: FinetuneConfig, launch: LaunchConfig) -> tuple[bool, bool]:
    """Return whether there are GPUs, and whether they compute in bfloat16."""
    device = choose_device(config)
    if device.kind == "cuda" and device.count < launch.processes:
        raise InvalidInputError(
            f"each process needs a GPU, got {device.count} GPUs for {launch.processes} processes; "
            f"use {device.count} processes"
        )
    return device.kind == "cuda", device.precision == "bfloat16"


def _run(arguments: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
    """Run the processes, passing on what the first one logs; they end when this one does."""
    logger.info("starting %s", " ".join(arguments[2:]))
    said = ""
    child = subprocess.Popen(
        arguments,
        env=open_environment(
            os.environ if environ is None else environ
        ),  # nothing that trains needs a key
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
