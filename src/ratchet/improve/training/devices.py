"""What training runs on: the device and the precision, chosen for the machine and said in words."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ratchet.errors import InvalidInputError
from ratchet.improve.training.config import FinetuneConfig
from ratchet.models import quiet_transformers, require_safetensors

PACKAGES = (
    "ratchet-llm",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "bitsandbytes",
    "numpy",
)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model is trained.

    Attributes:
        kind: `cuda` is any GPU that torch addresses so, AMD's too.
        count: GPUs that this process sees; 0 on a CPU.
        precision: Of weights and activations; the adapter itself is always float32.
        words: All of it, with the reason.
    """

    kind: Literal["cuda", "cpu"]
    count: int
    precision: Literal["float32", "bfloat16"]
    words: str


def choose_device(config: FinetuneConfig) -> Device:
    """Choose device and precision for this machine.

    Raises:
        InvalidInputError: QLoRA is asked for where there is no GPU or no bitsandbytes.
    """
    import torch

    gpu = torch.cuda.is_available()
    if config.quantize:
        _require_quantization(gpu)
    if gpu:
        return _gpu(config)
    threads = torch.get_num_threads()
    asked = config.precision == "bfloat16"
    why = "as asked for" if config.precision != "auto" else "exact, and fast on any CPU"
    words = f"CPU, {threads} threads, {'bfloat16' if asked else 'float32'} ({why})"
    if config.multiply != "highest" and not asked:
        words += f", products at {config.multiply!r} precision"
    return Device("cpu", 0, "bfloat16" if asked else "float32", words)


def _gpu(config: FinetuneConfig) -> Device:
    import torch

    count, name = torch.cuda.device_count(), torch.cuda.get_device_name(0)
    able = torch.cuda.is_bf16_supported(including_emulation=False)
    if config.precision == "bfloat16" and not able:
        raise InvalidInputError(
            f"precision 'bfloat16' needs a GPU that computes in it, got {name}; "
            "use 'auto' or 'float32'"
        )
    half = able and config.precision != "float32"
    why = (
        "as asked for"
        if config.precision != "auto"
        else ("half the memory at float32's range" if half else "this GPU has no bfloat16")
    )
    words = f"{count} x {name}, {'bfloat16' if half else 'float32'} ({why})"
    words += ", base in 4 bits" if config.quantize else ""
    return Device("cuda", count, "bfloat16" if half else "float32", words)


def _require_quantization(gpu: bool) -> None:
    missing = [] if gpu else ["a GPU"]
    if importlib.util.find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes")
    if missing:
        raise InvalidInputError(
            f"quantize (QLoRA) needs a GPU and bitsandbytes, this machine lacks "
            f"{' and '.join(missing)}; set quantize to false, or train where both are there"
        )


def load_base(folder: Path, config: FinetuneConfig, device: Device) -> tuple[Any, Any]:
    """Load model and tokenizer for training.

    Raises:
        ModelError: The folder holds no safetensors.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    require_safetensors(folder, "model*.safetensors")
    options: dict[str, Any] = {"dtype": getattr(torch, device.precision), "use_safetensors": True}
    if config.quantize:
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, device.precision),
        )
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), trust_remote_code=False, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), padding_side="right", trust_remote_code=False
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


@contextmanager
def multiplying(precision: str) -> Iterator[None]:
    """Multiply float32 matrices at a precision, and as before afterwards."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def peak_memory_megabytes(device: Device) -> float:
    """Return the most memory this process held: the GPU's on a GPU, else resident memory."""
    import torch

    if device.kind == "cuda":
        return float(torch.cuda.max_memory_allocated()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def environment() -> dict[str, str]:
    """Return what a result may depend on: versions, system and threads."""
    import torch

    versions = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    versions["processors"] = str(os.cpu_count())
    versions["threads"] = str(torch.get_num_threads())
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        versions["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        versions["cuda"] = str(torch.version.cuda or torch.version.hip)
    return versions
