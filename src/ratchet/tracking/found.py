"""What is found in MLflow: versions of the registry, and runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in the registry.

    Attributes:
        reference: Name and version, e.g. `support-router/3`, or the name of a model that a server
            has; stored with every interaction.
        adapter: Folder of the adapter as recorded, None for the base model alone.
        digest: Digest of the artefact: of base model and adapter together.
        adapter_digest: Digest of the adapter alone, where it was registered with it.
        base: What its base model is called, as `RATCHET_BASE_MODEL` names it; None where nobody
            noted it.
        chat_template: What `RATCHET_CHAT_TEMPLATE` was.
    """

    reference: str
    version: str
    adapter: Path | None
    digest: str
    run_id: str | None
    adapter_digest: str | None = None
    base: str | None = None
    chat_template: str = ""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ended, and the bytes of its artifacts where they lie in a folder."""

    run_id: str
    ended_at: datetime
    bytes: int


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run that is there, and the flow run in Prefect that wrote it, where that is known."""

    run_id: str
    experiment_id: str
    flow_run_id: str | None
