"""Training runs that are timed: Ratchet's own, through the code that `improve` runs, and TRL's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ratchet.improve.curation.rows import Row
from ratchet.improve.training.callbacks import Checkpoints
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.devices import Device
from ratchet.improve.training.examples import examples
from ratchet.improve.training.finetune import finetune
from ratchet.improve.training.memory import free_memory
from ratchet.improve.training.run import Trained, prepare_job, train, work_folder
from tests.benchmarks.gpu_flops import training_flops
from tests.benchmarks.gpu_models import (
    LONGEST,
    SHAPES,
    lengths_of,
    make_model,
    make_rows,
    make_tokenizer,
)

RANK, ALPHA, RATE = 16, 32, 1e-4
WARM_STEPS = 3  # not timed: kernels are chosen and memory is taken in them
NEVER = Checkpoints(seconds=1e9)
KEY = "a" * 64


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run of the benchmark is.

    Attributes:
        device: `cuda` or `cpu`.
        small: Shape of the small model.
        big: Shape of the big model.
        shorten: What lengths of texts are multiplied by.
        steps: Optimizer steps of a timed run.
        home: Folder of models and adapters that parts share.
    """

    device: str
    small: str
    big: str
    shorten: float
    steps: int
    home: Path

    @property
    def longest(self) -> int:
        return int(LONGEST * self.shorten)

    def rows(self, method: str = "sft", steps: int | None = None) -> list[Row]:
        """Rows for so many steps of eight."""
        return make_rows(method, 8 * (steps or self.steps), scale=self.shorten)

    def config(self, **changes: Any) -> FinetuneConfig:
        """Ratchet's defaults, but for what the comparison sets for both."""
        return FinetuneConfig.model_validate(
            {"rank": RANK, "alpha": ALPHA, "learning_rate": RATE, "epochs": 1.0,
             "warmup_steps": 0, "maximum_tokens": self.longest} | changes
        )  # fmt: skip


class TimeOverError(Exception):
    """The time of a run is over."""


@dataclass(slots=True)
class Clock:
    """Notes when each step ended, and how many tokens had been seen by then.

    Attributes:
        until: `time.monotonic()` after which the run ends.
        profile: Steps that are profiled, after those that are not timed; 0 for none.
    """

    until: float
    profile: int = 0
    marks: list[tuple[float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    profiler: Any = None

    def __call__(self, _step: int, numbers: Mapping[str, float]) -> None:
        """Take a step's numbers, as `Job.report` gives them.

        Raises:
            TimeOverError: The time is over and something was timed.
        """
        if "loss" not in numbers:
            return
        self.marks.append((time.monotonic(), numbers.get("num_tokens", 0.0)))
        self.losses.append(numbers["loss"])
        if self.profile:
            self._profile()
        if self.marks[-1][0] > self.until and len(self.marks) > WARM_STEPS + 1:
            raise TimeOverError

    def _profile(self) -> None:
        from torch.profiler import profile

        if len(self.marks) == WARM_STEPS:
            self.profiler = profile()
            self.profiler.start()
        if len(self.marks) == WARM_STEPS + self.profile:
            self.profiler.stop()
            raise TimeOverError

    @property
    def timed(self) -> tuple[int, float, float]:
        """Steps, seconds and tokens after the first steps."""
        marks = self.marks[min(WARM_STEPS, len(self.marks) - 1) - 1 :] if self.marks else []
        if len(marks) < 2:
            raise RuntimeError(f"nothing to time: {len(self.marks)} steps")
        (start, first), (end, last) = marks[0], marks[-1]
        return len(marks) - 1, end - start, last - first


def numbers_of(clock: Clock, scale: Scale, shape: str, rows: list[Row]) -> dict[str, Any]:
    """Return what a run's clock says; model FLOPs for SFT rows alone."""
    steps, seconds, tokens = clock.timed
    found: dict[str, Any] = {
        "steps": steps,
        "seconds_a_step": seconds / steps,
        "tokens_per_second": tokens / seconds,
        "memory_gb": peak_gigabytes(scale),
    }
    if hasattr(rows[0], "target"):
        lengths = lengths_of(rows)
        flops = training_flops(SHAPES[shape], RANK, lengths.rows, lengths.answers)
        found["flops_per_second"] = flops / lengths.tokens * tokens / seconds
    return found


def peak_gigabytes(scale: Scale) -> float:
    from ratchet.improve.training.devices import peak_memory_megabytes

    kind: Any = scale.device
    return peak_memory_megabytes(Device(kind, 0, "float32", "")) / 1e3


def reset_peak(scale: Scale) -> None:
    free_memory()
    if scale.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def on_device(shape: str) -> Callable[[Path, FinetuneConfig, Device], tuple[Any, Any]]:
    """Return what a job loads its base with: random weights, made on the device."""

    def load(_base: Path, _config: FinetuneConfig, device: Device) -> tuple[Any, Any]:
        import torch

        return make_model(shape, device.kind, getattr(torch, device.precision)), make_tokenizer()

    return load


def ours(scale: Scale, shape: str, rows: list[Row], clock: Clock, **changes: Any) -> dict[str, Any]:
    """Train with Ratchet on a model made on the device, and time it."""
    reset_peak(scale)
    job = prepare_job(rows, scale.config(**changes), base=Path(shape), start_from=None)
    job = replace(job, load=on_device(shape), report=clock, checkpoints=NEVER)
    said: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home, work_folder(Path(home), KEY) as work:
        try:
            said = _said(train(job, work))
        except TimeOverError:
            said = {"note": "stopped by the clock"}
    return numbers_of(clock, scale, shape, rows) | said


def _said(trained: Trained) -> dict[str, Any]:
    model, batches = trained.trainer.model, trained.batches
    return {
        "at_once": batches.micro,
        "attention": str(model.get_base_model().config._attn_implementation),
        "device": trained.device.words,
    }


def from_folder(
    scale: Scale, base: Path, rows: list[Row], clock: Clock, home: Path, **changes: Any
) -> dict[str, Any]:
    """Train with `finetune`, from a model on disk to an adapter on disk, and time it."""
    reset_peak(scale)
    started = time.monotonic()
    result = finetune(
        rows, scale.config(**changes), base=base, start_from=None, key=KEY, home=home,
        report=clock, checkpoints=NEVER,
    )  # fmt: skip
    return {
        "at_once": result.batch[1],
        "device": result.device,
        "seconds_in_all": time.monotonic() - started,
        "adapter": result.folder,
    }


def trls(scale: Scale, shape: str, rows: list[Row], clock: Clock, **changes: Any) -> dict[str, Any]:
    """Train the same rows with TRL's SFTTrainer and its defaults, and time it.

    Its script would load float32 weights; here it is given the same bfloat16 ones.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    reset_peak(scale)
    gpu = scale.device == "cuda"
    here = {} if gpu else {"bf16": False, "use_cpu": True}
    dtype = torch.bfloat16 if gpu else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=make_model(shape, scale.device, dtype),
            args=SFTConfig(
                output_dir=folder, num_train_epochs=1, logging_steps=1, report_to="none",
                save_strategy="no", disable_tqdm=True, seed=0, max_length=scale.longest,
                **here, **changes,
            ),
            train_dataset=Dataset.from_list(examples(rows, "sft")),
            processing_class=make_tokenizer(),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )  # fmt: skip
        trainer._send_telemetry = lambda: None
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_heard(clock))
        with suppress(TimeOverError):
            trainer.train()
        found = numbers_of(clock, scale, shape, rows)
        found["at_once"] = trainer.args.per_device_train_batch_size
        found["attention"] = str(trainer.model.get_base_model().config._attn_implementation)
    return found


def _heard(clock: Clock) -> Any:
    """Build the callback that tells the clock what TRL logs."""
    from transformers import TrainerCallback

    class Heard(TrainerCallback):
        """Tells the clock."""

        def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            """Tell it a step's numbers."""
            clock(state.global_step, logs or {})

    return Heard()


def kernels(clock: Clock, *, gpu: bool, top: int = 15) -> dict[str, Any]:
    """Return what took most of the profiled steps' time, with its share of it.

    `busy` is the share of the steps in which the card computed at all; the rest waits for Python.
    """
    taken = list(_times(clock.profiler.key_averages(), gpu=gpu))
    total = sum(micros for _, micros, _ in taken) or 1.0
    wall = clock.marks[WARM_STEPS + clock.profile - 1][0] - clock.marks[WARM_STEPS - 1][0]
    most = sorted(taken, key=lambda one: -one[1])[:top]
    found = [
        {
            "kernel": name[:100],
            "kind": kind_of_kernel(name),
            "share": micros / total,
            "calls": calls,
        }
        for name, micros, calls in most
    ]
    return {"kernels": found, "busy": total / 1e6 / wall}


def _times(events: Any, *, gpu: bool) -> Iterator[tuple[str, float, int]]:
    """Yield names, microseconds and calls: of kernels on a GPU, else of operators."""
    from torch.autograd import DeviceType

    for event in events:
        if not gpu:
            yield event.key, float(event.self_cpu_time_total), event.count
        elif event.device_type != DeviceType.CPU and not getattr(
            event, "is_user_annotation", False
        ):
            yield event.key, float(event.self_device_time_total), event.count


KINDS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("attention", ("flash", "fmha", "attention", "attn")),
    ("product", ("gemm", "cutlass", "nvjet", "matmul", "::mm", "addmm", "linear", "xmma")),
    ("copy or cast", ("memcpy", "memset", "copy", "_to_copy", "cat")),
    ("adding up", ("reduce", "softmax", "norm", "sum", "mean")),
    ("element by element", ("elementwise", "mul", "add", "silu", "sigmoid", "pow", "vectorized")),
)


def kind_of_kernel(name: str) -> str:
    """Tell what a kernel does by its name."""
    low = name.lower()
    return next((kind for kind, parts in KINDS if any(part in low for part in parts)), "other")
