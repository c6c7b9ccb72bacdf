"""Adapters as files: a digest is of the settings that act and of the bytes of the weights."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ratchet.models import adapter_digest
from ratchet.records import Candidate

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def make_adapter(folder, *, weights=b"weights", rank=8):
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 16}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def register(tracker, folder):
    """Register as the loop does, which tags the version with the adapter's digest."""
    with tracker.run("test", key=str(folder), name="improve", tags={}) as run:
        source = run.folder(folder, "adapter")
    return tracker.register_adapter(
        run.run_id, source, f"of {folder}", adapter_digest=adapter_digest(folder)
    )


def candidate(store, reference, digest, path):
    name, _, number = reference.partition("/")
    made = Candidate(
        id=reference, cycle_id="c", created_at=NOW, model_name=name, version=number,
        adapter_digest=digest, path=path, training_set_id="t", run_id="r", losses=(),
        training_seconds=1.0,
    )  # fmt: skip
    store.append(made)
    return made


def trained(store, tracker, home, number, *, rank=8):
    """Train, register and record: the folder lies in the home, the version in MLflow."""
    folder = make_adapter(home / "adapters" / f"k{number}", weights=b"%d" % number, rank=rank)
    version = register(tracker, folder)
    candidate(store, version.reference, adapter_digest(folder), f"adapters/k{number}")
    return version.reference
