"""What each row of the fault matrix came to: printed as it ends, and kept for the table.

With `RATCHET_FAULTS_KEEP=FOLDER` (`make test-all PART=faults KEEP=FOLDER`) a row that passed is
kept in a file there, and is not run again: delete its file to run it anew. `tests.faults.table`
writes the table of `docs/reliability.md` from the files.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest


@dataclass
class Row:
    """A row of the table.

    Attributes:
        name: What runs.
        faults: What is done to it.
        database: Of the store.
        kills: Processes that were killed.
        in_start: Of these, how many before they had recorded anything.
        acknowledged: Events that a client was told are kept, or records that a flow has to leave.
        stored: How many of these are stored.
        doubled: How many are stored twice.
        seconds: How long it took.
    """

    name: str = ""
    faults: str = ""
    database: str = ""
    kills: int = 0
    in_start: int = 0
    acknowledged: int = 0
    stored: int = 0
    doubled: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        kills = f"{self.kills} kills" + (f" ({self.in_start} in start)" if self.in_start else "")
        return (
            f"{self.name} [{self.database}] {self.faults}: {kills}, {self.acknowledged} "
            f"acknowledged, {self.stored} stored, {self.doubled} doubled, {self.seconds:.0f} s"
        )


def kept_rows(folder: Path) -> list[Row]:
    found = [Row(**json.loads(path.read_text("utf-8"))) for path in folder.glob("*.json")]
    return sorted(found, key=lambda row: (row.name, row.faults, row.database))


def recorded(request: pytest.FixtureRequest) -> Iterator[Row]:
    """Yield the row that a test fills in; keep and print it where the test passes."""
    keep = os.environ.get("RATCHET_FAULTS_KEEP")
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.nodeid.rpartition("/")[2]).strip("-")
    file = Path(keep, f"{name}.json") if keep else None
    if file is not None and file.exists():
        pytest.skip(f"passed before: {file}")
    row, began = Row(), time.monotonic()
    yield row
    if not row.name or getattr(request.node, "failed", False):
        return
    row.seconds = round(time.monotonic() - began, 1)
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\n  {row}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(row), indent=1), "utf-8")
