"""The parts of the GPU benchmark, in order of worth; each yields rows of the table as it goes.

for row in PARTS["lora-1b"].measure(scale, until): ...
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu_flops import known_peak, measured_product

ROOT = Path(__file__).parents[2]
GOAL = 0.40  # of the card's peak, at 8 billion parameters
EXACT = 1e-6
_KILL_AT, _CHECKPOINT_STEPS, _RESUMED_STEPS = 5, 2, 8
_PROFILED_STEPS = 3
_ANSWERING = ("torch", "transformers", "peft", "safetensors", "pydantic")
_TRAINING = (*_ANSWERING, "accelerate", "trl", "datasets")

Row = dict[str, Any]
Measure = Callable[[Any, float], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the benchmark.

    Attributes:
        measure: Called with the scale and `time.monotonic()` at which it is ended.
        seconds: How long it may take.
        needs: Packages; where one is missing the part is skipped.
    """

    measure: Measure
    seconds: float
    needs: tuple[str, ...] = _TRAINING


def machine(scale: Any, _until: float) -> Iterator[Row]:
    """What the card is, and how fast a bare product is on it."""
    import platform

    import torch

    size = 8192 if scale.device == "cuda" else 256
    product = measured_product(scale.device, size)
    name = torch.cuda.get_device_name(0) if scale.device == "cuda" else "CPU"
    known = known_peak(name)
    yield {
        "what": f"{name}: a bfloat16 product of {size} x {size}",
        "flops_per_second": product,
        "peak": known or product,
        "peak_from": "data sheet" if known else "this product, since the card is not in the table",
        "name": name,
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in (*_TRAINING, "bitsandbytes", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def lora_small(scale: Any, until: float) -> Iterator[Row]:
    """LoRA of the small model: Ratchet's defaults, then TRL's."""
    yield from _lora(scale, scale.small, until)


def lora_big(scale: Any, until: float) -> Iterator[Row]:
    """LoRA of the big model: Ratchet's defaults, TRL's, and a profile where it is slow."""
    from tests.benchmarks.gpu_training import WARM_STEPS, Clock, kernels, ours

    share = 0.0
    for row in _lora(scale, scale.big, until):
        yield row
        if row["who"] == "Ratchet" and "flops_per_second" in row and scale.device == "cuda":
            share = row["flops_per_second"] / _peak()
    if share >= GOAL:
        return
    clock = Clock(until, profile=_PROFILED_STEPS)
    steps = max(scale.steps, _PROFILED_STEPS + WARM_STEPS + 1)
    ours(scale, scale.big, scale.rows(steps=steps), clock)
    found = kernels(clock, gpu=scale.device == "cuda")
    yield {"what": "profile", "who": "Ratchet", "model": scale.big} | found


def _peak() -> float:
    import torch

    return known_peak(torch.cuda.get_device_name(0)) or measured_product("cuda", 8192)


def _lora(scale: Any, shape: str, until: float) -> Iterator[Row]:
    from tests.benchmarks.gpu_training import ours, trls

    rows = scale.rows()
    yield _row(scale, shape, "Ratchet", "defaults", ours, rows, until)
    yield _row(scale, shape, "TRL", "defaults", trls, rows, until)


def _row(
    scale: Any, shape: str, who: str, what: str, train: Any, rows: Any, until: float, **changes: Any
) -> Row:
    from tests.benchmarks.gpu_training import Clock

    half = time.monotonic() + max(5.0, (until - time.monotonic()) / 2)
    row: Row = {"what": what, "who": who, "model": shape}
    try:
        return row | train(scale, shape, rows, Clock(half), **changes)
    except RuntimeError as error:  # out of memory, say: the other runs go on
        return row | {"note": f"{type(error).__name__}: {str(error)[:200]}"}


def variants_big(scale: Any, until: float) -> Iterator[Row]:
    """Packing and gradient checkpointing on the big model, with and without, beside TRL's."""
    yield from _variants(scale, scale.big, until)


def variants_small(scale: Any, until: float) -> Iterator[Row]:
    """The same on the small model."""
    yield from _variants(scale, scale.small, until)


def _variants(scale: Any, shape: str, until: float) -> Iterator[Row]:
    from tests.benchmarks.gpu_training import ours, trls

    rows, packed = scale.rows(), scale.rows(steps=2 * scale.steps)
    check = "gradient_checkpointing"
    yield _row(scale, shape, "Ratchet", "packing", ours, packed, until, packing=True)
    yield _row(
        scale, shape, "TRL", "no gradient checkpointing", trls, rows, until, **{check: False}
    )
    yield _row(
        scale, shape, "Ratchet", "gradient checkpointing", ours, rows, until, **{check: True}
    )
    both = {"packing": True, check: True}
    yield _row(
        scale, shape, "Ratchet", "packing, gradient checkpointing", ours, packed, until, **both
    )
    yield _row(scale, shape, "TRL", "packing", trls, packed, until, packing=True)


# Killed and resumed -------------------------------------------------------------------------------


def resume(scale: Any, until: float) -> Iterator[Row]:
    """SIGKILL in the middle of a run; the losses of the one that goes on beside a whole run's."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same sums in the same order
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield from _resumed(scale, until)
    finally:
        torch.use_deterministic_algorithms(was)


def _resumed(scale: Any, until: float) -> Iterator[Row]:
    from tests.benchmarks.gpu_models import base_folder

    base, home = base_folder(scale.small, scale.home, scale.device), scale.home / "resume"
    shutil.rmtree(home, ignore_errors=True)
    whole = train_for_resumption(scale, base, home / "whole")
    killed_at = _run_and_kill(scale, base, home / "killed", until)
    again = train_for_resumption(scale, base, home / "killed")
    apart = max(abs(one - two) for one, two in zip(whole.losses, again.losses, strict=True))
    yield {
        "what": f"killed after step {killed_at}, resumed after {again.resumed_at}",
        "who": "Ratchet",
        "model": scale.small,
        "steps": len(again.losses),
        "largest_difference_of_losses": apart,
        "equal": apart <= EXACT,
        "device": again.device,
    }


def train_for_resumption(scale: Any, base: Path, home: Path, report: Any = None) -> Any:
    """Train with `finetune`, with a checkpoint every other step."""
    from ratchet.improve.training.callbacks import Checkpoints
    from ratchet.improve.training.finetune import finetune
    from tests.benchmarks.gpu_training import KEY

    return finetune(
        scale.rows(steps=_RESUMED_STEPS), scale.config(dropout=0.1), base=base, start_from=None,
        key=KEY, home=home, report=report,
        checkpoints=Checkpoints(seconds=1e9, steps=_CHECKPOINT_STEPS),
    )  # fmt: skip


def _run_and_kill(scale: Any, base: Path, home: Path, until: float) -> int:
    """Start the run in a process of its own and kill it after a step."""
    toy = ["--toy"] if scale.device == "cpu" else []
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *toy, "--train", str(base), str(home)]
    home.mkdir(parents=True)
    with (home / "killed.log").open("w") as log:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
        )  # fmt: skip
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if line.startswith(f"step {_KILL_AT}\n"):
                break
            if time.monotonic() > until:
                raise TimeoutError("the run that was to be killed took too long")
    finally:
        ended = child.poll()
        child.send_signal(signal.SIGKILL)
        child.wait()
    if ended is not None:
        said = (home / "killed.log").read_text("utf-8")[-1000:]
        raise RuntimeError(f"the run ended before it was killed: {said}")
    return _KILL_AT


# Preferences --------------------------------------------------------------------------------------


def preferences(scale: Any, until: float) -> Iterator[Row]:
    """Steps of DPO and KTO on the small model."""
    from tests.benchmarks.gpu_models import base_folder

    base = base_folder(scale.small, scale.home, scale.device)
    for method in ("dpo", "kto"):
        yield _finetuned(scale, base, method, until, method=method)


def qlora(scale: Any, until: float) -> Iterator[Row]:
    """QLoRA of the small model, from a folder: it becomes 4 bits while transformers reads it."""
    from tests.benchmarks.gpu_models import base_folder

    base = base_folder(scale.small, scale.home, scale.device)
    yield _finetuned(scale, base, "qlora", until, quantize=True)


def _finetuned(scale: Any, base: Path, name: str, until: float, **changes: Any) -> Row:
    from tests.benchmarks.gpu_training import Clock, TimeOverError, from_folder, numbers_of

    home = scale.home / name
    shutil.rmtree(home, ignore_errors=True)
    rows = scale.rows(str(changes.get("method", "sft")))
    clock = Clock(time.monotonic() + max(5.0, (until - time.monotonic()) / 2))
    row: Row = {"what": name.upper(), "who": "Ratchet", "model": scale.small}
    try:
        row |= from_folder(scale, base, rows, clock, home, **changes)
    except TimeOverError:
        row["note"] = "stopped by the clock"
    return row | numbers_of(clock, scale, scale.small, rows)


# Answers ------------------------------------------------------------------------------------------


def generation(scale: Any, _until: float) -> Iterator[Row]:
    """Answers of two adapters in one batch beside those of one, on the small model."""
    from ratchet.models.serving import AdapterModel
    from tests.benchmarks.gpu_models import base_folder
    from tests.benchmarks.gpu_training import peak_gigabytes, reset_peak

    base = base_folder(scale.small, scale.home, scale.device)
    adapters = {name: _random_adapter(scale, base, name) for name in ("first", "second")}
    reset_peak(scale)
    model = AdapterModel.load(base, together=16)
    try:
        for name, folder in adapters.items():
            model.add_adapter(name, folder)
        _answer(model, scale, ["first"])  # not timed
        for names in (["first"], ["first", "second"]):
            tokens, seconds, texts = _answer(model, scale, names)
            yield {
                "what": f"answers in batches of 16, {len(names)} adapter(s)",
                "who": "Ratchet",
                "model": scale.small,
                "tokens_per_second": tokens / seconds,
                "memory_gb": peak_gigabytes(scale),
                "different_answers": len(set(texts)),
            }
    finally:
        model.close()


def _random_adapter(scale: Any, base: Path, name: str) -> Path:
    """Write an adapter with random weights, which changes every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder: Path = scale.home / "adapters" / name
    if (folder / "adapter_model.safetensors").exists():
        return folder
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype="auto", trust_remote_code=False)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    torch.manual_seed(len(name))
    for weight_name, weight in adapted.named_parameters():
        if "lora_B" in weight_name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def _answer(model: Any, scale: Any, names: list[str]) -> tuple[int, float, list[str]]:
    """Have the adapters answer one prompt in turn; tokens, seconds, and the answers."""
    from ratchet.models.serving import Ending, Generation
    from ratchet.records import Message

    count, longest = (32, 128) if scale.device == "cuda" else (4, 8)
    texts, endings, done = [""] * count, [], threading.Event()
    turns = (Message(role="user", content="Where is my parcel? It should have come last week."),)

    def ended(ending: Ending) -> None:
        endings.append(ending)
        if len(endings) == count:
            done.set()

    def told(place: int) -> Callable[[str], None]:
        def add(text: str) -> None:
            texts[place] += text

        return add

    started = time.monotonic()
    for place in range(count):
        asked = Generation(turns, adapter=names[place % len(names)], max_new_tokens=longest)
        model.submit(asked, told(place), ended)
    if not done.wait(120.0):
        raise TimeoutError(f"{len(endings)} of {count} answers came in two minutes")
    failed = [ending.error for ending in endings if ending.error]
    if failed:
        raise RuntimeError(failed[0])
    return sum(one.completion_tokens for one in endings), time.monotonic() - started, texts


# In order of worth. The seconds are limits, which few parts need: should all of them, the last
# parts get what is left of the whole time, or are skipped.
PARTS: dict[str, Part] = {
    "machine": Part(machine, 30.0, ("torch",)),
    "lora-1b": Part(lora_small, 60.0),
    "lora-8b": Part(lora_big, 120.0),
    "variants-8b": Part(variants_big, 120.0),
    "resume": Part(resume, 80.0),
    "preferences": Part(preferences, 60.0),
    "generation": Part(generation, 45.0, _ANSWERING),
    "variants-1b": Part(variants_small, 60.0),
    "qlora": Part(qlora, 60.0, (*_TRAINING, "bitsandbytes")),
}
