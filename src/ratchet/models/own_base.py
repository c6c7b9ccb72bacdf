"""Which base model an adapter belongs to: its folder carries the digest of its own.

Over other weights of the same shapes an adapter loads without an error and answers nonsense.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ratchet.errors import ModelError
from ratchet.models.weights import folder_digest

BASE_FILE = "ratchet-base.txt"


@lru_cache(maxsize=8)
def base_digest(base: Path) -> str:
    """Return the digest of a base model's weights, read once in a process: they may be gigabytes.

    The chat template that a base model was given is no part of it: an adapter carries its own.
    """
    return folder_digest(base, "model*.safetensors")


def write_base(base: Path, adapter: Path) -> None:
    """Write which base model an adapter was trained on into its folder."""
    (adapter / BASE_FILE).write_text(f"{base_digest(base)}\n", "utf-8")


def belongs_to(base: Path, adapter: Path) -> bool:
    """Tell whether an adapter may be read over a base model.

    One that carries nothing, of an earlier version or of another program, may be.
    """
    carried = adapter / BASE_FILE
    return not carried.is_file() or carried.read_text("utf-8").strip() == base_digest(base)


def check_base(base: Path, adapter: Path) -> None:
    """Refuse an adapter over another base model than its own.

    Raises:
        ModelError: It is.
    """
    if not belongs_to(base, adapter):
        carried = (adapter / BASE_FILE).read_text("utf-8").strip()
        raise ModelError(
            "an adapter must be read over the base model that it was trained on, got one of digest "
            f"{carried[:12]} in {adapter.name!r} over a base model of digest "
            f"{base_digest(base)[:12]}; set RATCHET_BASE_MODEL to its own, or train on this one"
        )
