"""`ratchet ingest`: bring in what users did, from a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.shared import current_settings


def ingest(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV, JSON Lines, JSON or Parquet; a row is an interaction or feedback."
        ),
    ],
    dialogues: Annotated[
        bool, typer.Option("--dialogues", help="The file is a log of whole dialogues.")
    ] = False,
) -> None:
    """Store events from a file; bad rows are set aside with their reasons, the others go on."""
    from ratchet.collect.dialogues import harvest_dialogues
    from ratchet.collect.ingest import ingest_file
    from ratchet.store import EventStore

    settings = current_settings()
    settings.make_home()
    store, now = EventStore.open(settings.store_url), datetime.now(UTC)
    read = harvest_dialogues if dialogues else ingest_file
    report = read(file, store, now=now)
    print(f"{report.interactions} interactions and {report.feedback} pieces of feedback stored")
    print(f"{report.repeated} were there before, {report.set_aside} rows set aside")
    for line in report.lines():
        print(line)
