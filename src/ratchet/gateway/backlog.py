"""What of the log is not in the store yet, told by the process that drains to those that answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ratchet.files.whole import write_whole
from ratchet.gateway.log_lines import lines_left, read, segments

FILE = "drained.json"
SILENT_SECONDS = 20.0
"""A drain that has told nothing for so long does not work."""


class Backlog(BaseModel):
    """Events that are acknowledged and not in the store yet.

    Attributes:
        lines: How many.
        bytes: Their size.
        age_seconds: Since when the oldest waits; 0 where none does.
        lost: Lines that were found missing or damaged since the gateway started.
        newer: Segments that another version of Ratchet is to read, or that cannot be read.
        problem: Why the store takes nothing now; None where it does.
        told_at: When this was so; None where nobody drains.
    """

    model_config = ConfigDict(frozen=True)

    lines: int = Field(ge=0)
    bytes: int = Field(ge=0)
    age_seconds: float = Field(ge=0.0)
    lost: int = Field(default=0, ge=0)
    newer: int = Field(default=0, ge=0)
    problem: str | None = None
    told_at: datetime | None = None

    @property
    def is_well(self) -> bool:
        """Whether events reach the store, and all of them did."""
        return self.problem is None and not self.lost and not self.newer

    def write(self, folder: Path) -> None:
        """Write it to the folder of the log, whole at any moment.

        Raises:
            OSError: It cannot be written.
        """
        write_whole(folder / FILE, self.model_dump_json().encode(), sync=False)


def read_backlog(folder: Path, now: datetime) -> Backlog:
    """Return what the drain told last; where it tells nothing any more, what the files say."""
    told = Backlog(lines=0, bytes=0, age_seconds=0.0)
    with suppress(OSError, ValueError):
        told = Backlog.model_validate_json((folder / FILE).read_bytes())
    silent = 0.0 if told.told_at is None else (now - told.told_at).total_seconds()
    if told.told_at is not None and abs(silent) <= SILENT_SECONDS:
        return told
    size, began = 0, now.timestamp()
    for path in segments(folder):
        with suppress(OSError):
            found = path.stat()
            size, began = size + found.st_size, min(began, found.st_mtime)
    if not size:
        return told.model_copy(update={"lines": 0, "bytes": 0, "age_seconds": 0.0})
    if told.told_at is None:
        silent = now.timestamp() - began  # a drain that has only just been started told nothing yet
    problem = None
    if abs(silent) > SILENT_SECONDS:
        problem = f"nobody has drained the log for more than {SILENT_SECONDS:.0f} s"
    waits = told.age_seconds + max(0.0, silent)
    return told.model_copy(update={"bytes": size, "age_seconds": waits, "problem": problem})


def measure(
    folder: Path,
    offsets: Mapping[str, int],
    now: datetime,
    *,
    lost: int = 0,
    newer: int = 0,
    problem: str | None = None,
) -> Backlog:
    """Return how much of the log lies behind what was drained."""
    lines = size = 0
    oldest = None
    for path in segments(folder):
        offset = offsets.get(path.name, 0)
        with suppress(OSError):
            size += max(0, path.stat().st_size - offset)
            first = next(read(path, offset, 1), None)
            if first is None:
                continue
            lines += lines_left(path, offset)
            if first.received_ns:
                oldest = min(first.received_ns, oldest or first.received_ns)
    waits = 0.0 if oldest is None else max(0.0, now.timestamp() - oldest / 1e9)
    return Backlog(
        lines=lines,
        bytes=size,
        age_seconds=waits,
        lost=lost,
        newer=newer,
        problem=problem,
        told_at=now,
    )
