"""`ratchet verify`: whether a home, or a backup, is whole."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, current_settings, open_tracker
from ratchet.files.text import counted, printable


def verify(
    backup: Annotated[
        Path | None, typer.Argument(help="A backup to look at; the home without it.")
    ] = None,
    registry: Annotated[
        bool, typer.Option(help="Also ask MLflow for the versions in use; takes seconds.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Read everything and say what is damaged. Exit code 0: whole; 1: not; 2: bad input."""
    from ratchet.operate.verifying import Verified
    from ratchet.operate.verifying import verify as look

    if backup is not None:
        from ratchet.operate.backup import check_files, read_manifest

        manifest = read_manifest(backup)
        check_files(backup, manifest)
        found = [Verified("backup", f"{counted(len(manifest.files), 'file')} by digest")]
    else:
        settings = current_settings()
        found = list(look(settings, partial(open_tracker, settings) if registry else None))
    whole = not any(part.problems for part in found)
    if as_json:
        say_json({"whole": whole, "parts": [asdict(part) for part in found]}, indent=2)
    else:
        for part in found:
            say(f"{'damaged' if part.problems else 'whole':8} {part.part}: {part.looked_at}")
            for line in part.problems:
                say(f"         {printable(line)}")
        if not whole:
            say("bring back a backup that is whole: ratchet restore FOLDER --replace")
    raise typer.Exit(0 if whole else 1)
