"""`ratchet restore`: a home out of a backup."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, current_settings
from ratchet.files.text import counted, printable_path


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `ratchet backup` made.")],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Put aside what the home holds (tables of a PostgreSQL schema are dropped).",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring back what a backup holds, to the home, store and history of the settings."""
    from ratchet.operate.restoring import restore as bring_back

    done = bring_back(current_settings(), folder, replace=replace, now=datetime.now(UTC))
    if as_json:
        aside = None if done.aside is None else str(done.aside)
        content = {"files": len(done.manifest.files), "aside": aside, "notes": done.notes}
        say_json(content | {"began_at": done.manifest.began_at.isoformat()}, indent=2)
        return
    say(f"restored {counted(len(done.manifest.files), 'file')} of {printable_path(folder)}")
    if done.aside is not None:
        say(f"what the home held before lies in {printable_path(done.aside)}")
    for line in done.notes:
        say(f"note: {line}")
    say("next: ratchet verify")
