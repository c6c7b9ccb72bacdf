"""Write what the rows of the fault matrix came to into `docs/reliability.md`.

    make test-all PART=faults KEEP=build/faults
    python -m tests.faults.table build/faults

It replaces the tables under "Kills and faults" and leaves the rest of the page as it is.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.ledger import Row, kept_rows

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"
_HEAD = (
    "| row | store | faults | kills | in start | acknowledged | stored | doubled | seconds |\n"
    "|---|---|---|---:|---:|---:|---:|---:|---:|\n"
)


def table(rows: list[Row]) -> str:
    lines = [
        f"| {row.name} | {row.database} | {row.faults} | {row.kills or ''} | {row.in_start or ''} "
        f"| {row.acknowledged:,} | {row.stored:,} | {row.doubled} | {row.seconds:.0f} |\n"
        for row in rows
    ]
    gateway = [row for row in rows if "gateway" in row.name]
    kills, starts = (sum(getattr(row, name) for row in gateway) for name in ("kills", "in_start"))
    events = sum(row.acknowledged for row in gateway)
    stored = sum(row.stored for row in gateway)
    told = (
        f"\nOf gateways: {kills:,} kills, {starts:,} of them before the worker had recorded "
        f"anything; {events:,} events acknowledged, {stored:,} of them stored, "
        f"{sum(row.doubled for row in gateway)} stored twice.\n"
    )
    return _HEAD + "".join(lines) + told


def measured() -> str:
    commit = subprocess.check_output(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PAGE.parent, text=True
    ).strip()
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} at commit {commit}, on {os.cpu_count()} cores "
        f"({platform.machine()}, Python {platform.python_version()}).\n"
    )


def write(page: Path, rows: list[Row]) -> None:
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} must hold {BEGIN} and {END}, got none; put them back")
    body = f"{BEGIN}\n{measured()}\n{table(rows)}{END}"
    page.write_text(before + body + after, "utf-8")


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0])
    rows = kept_rows(folder)
    if not rows:
        raise SystemExit(f"{folder} must hold the rows that `make test-all PART=faults` kept")
    write(PAGE, rows)
    print(f"{len(rows)} rows written to {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
