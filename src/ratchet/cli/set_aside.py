"""`ratchet set-aside`: the rows that could not be used, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, existing_store
from ratchet.files.text import counted, one_line


def set_aside(
    source: Annotated[
        str | None,
        typer.Option(help="Only rows of this file or source, by its name: events.jsonl, gateway."),
    ] = None,
    latest: Annotated[
        int, typer.Option(min=0, help="How many to list, the latest ones; 0 lists all.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """List the rows that were set aside: where each stands, why, and what was received."""
    store = existing_store()
    rows = store.set_aside_rows(source=source) if store else ()
    listed = rows[-latest:] if latest else rows
    if as_json:
        say_json([row.canonical() for row in listed], indent=2)
        return
    for row in listed:
        say(f"{one_line(row.source)}, {one_line(row.position)}: {one_line(row.reason)}")
        say(f"    received: {one_line(row.raw)}")
    if len(listed) < len(rows):
        say(f"and {counted(len(rows) - len(listed), 'earlier row')}; --latest 0 lists all")
    if not rows:
        say(f"no rows of {one_line(source)} were set aside" if source else "no rows were set aside")
