"""`ratchet history`: copy what is new into Parquet files a day, and show what is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, open_history, required_store
from ratchet.files.text import one_line

_DAYS_SHOWN = 14


def history(
    show_only: Annotated[
        bool, typer.Option("--show-only", help="Copy nothing, only show what is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy new interactions and feedback to history (Parquet files a day), and show what is there.

    Where history lies is the setting RATCHET_HISTORY: a folder or object storage.
    """
    kept = open_history()
    copied = None
    if not show_only:
        copied = kept.advance(required_store("history"))
    days, cursor = kept.days(), kept.cursor()
    if as_json:
        shown = {
            "history": kept.address,
            "copied": copied and asdict(copied),
            "cursor": cursor and cursor.canonical(),
            "days": [asdict(day) | {"day": day.day.isoformat()} for day in days],
        }
        say_json(shown, indent=2)
        return
    if copied is not None:
        say(f"copied {copied.interactions:,} interactions, {copied.feedback:,} feedback events")
    if cursor is None:
        say(f"nothing is written to {one_line(kept.address)} yet; run `ratchet history`")
        return
    say(
        f"{one_line(kept.address)} has every row up to number {cursor.interactions:,} of the "
        f"interactions and {cursor.feedback:,} of the feedback, written "
        f"{cursor.written_at:%Y-%m-%d %H:%M} UTC"
    )
    for name in ("interactions", "feedback"):
        mine = [day for day in days if day.table == name]
        size, files = sum(day.bytes for day in mine), sum(day.files for day in mine)
        rows = sum(day.rows for day in mine)
        say(f"{name:<14}{rows:>13,} rows {len(mine):>6} days {files:>6} files {_size(size):>10}")
    by_day = [day for day in days if day.table == "interactions"]
    for day in by_day[-_DAYS_SHOWN:]:
        say(f"  {day.day.isoformat()}  {day.rows:>13,} interactions {_size(day.bytes):>10}")
    if len(by_day) > _DAYS_SHOWN:
        say(f"  and {len(by_day) - _DAYS_SHOWN} earlier days; --json lists all")


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:,.1f} TB"
