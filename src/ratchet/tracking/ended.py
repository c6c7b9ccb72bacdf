"""Runs that ended, and how much they keep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ratchet.tracking.places import folder_of


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ended, and the bytes of its artifacts where they lie in a folder."""

    run_id: str
    ended_at: datetime
    bytes: int


def ended_run(info: Any) -> EndedRun:
    """Return a run that ended, as MLflow tells of it."""
    folder = folder_of(str(info.artifact_uri))
    files = folder.rglob("*") if folder is not None and folder.is_dir() else ()
    size = sum(path.stat().st_size for path in files if path.is_file())
    return EndedRun(info.run_id, datetime.fromtimestamp(info.end_time / 1000, UTC), size)
