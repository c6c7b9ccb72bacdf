"""`ratchet history`: copy what is new into Parquet files a day, and show what is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, existing_store, open_history, required_store
from ratchet.files.text import counted, one_line

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
    store = existing_store() if show_only else required_store("history")
    kept = open_history(store)
    copied = None
    if store is not None and not show_only:
        copied = kept.advance(store)
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
        say(
            f"copied {counted(copied.interactions, 'interaction')}, "
            f"{counted(copied.feedback, 'feedback event')}"
        )
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
        say(
            f"{name:<14}{counted(rows, 'row'):>18} {counted(len(mine), 'day'):>11} "
            f"{counted(files, 'file'):>12} {_size(size):>10}"
        )
    by_day = [day for day in days if day.table == "interactions"]
    for day in by_day[-_DAYS_SHOWN:]:
        say(
            f"  {day.day.isoformat()}  {counted(day.rows, 'interaction'):>26} "
            f"{_size(day.bytes):>10}"
        )
    if len(by_day) > _DAYS_SHOWN:
        say(f"  and {counted(len(by_day) - _DAYS_SHOWN, 'earlier day')}; --json lists all")


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:,.1f} TB"
