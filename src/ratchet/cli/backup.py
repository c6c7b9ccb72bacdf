"""`ratchet backup`: everything of a home in one folder, while users are served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet import __version__
from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, current_settings
from ratchet.files.text import counted, printable_path


def backup(
    folder: Annotated[Path, typer.Argument(help="New folder, best on another disk.")],
    as_json: AsJson = False,
) -> None:
    """Copy store, logs, history, adapters, training sets and MLflow into a new folder."""
    from ratchet.operate.backup import make_backup
    from ratchet.operate.report import size_in_words

    manifest = make_backup(current_settings(), folder.absolute(), version=__version__)
    seconds = (manifest.ended_at - manifest.began_at).total_seconds()
    if as_json:
        content = manifest.canonical() | {"files": len(manifest.files), "bytes": manifest.bytes}
        say_json(content | {"seconds": seconds}, indent=2)
        return
    say(
        f"{counted(len(manifest.files), 'file')}, {size_in_words(manifest.bytes)}, in "
        f"{seconds:.1f} s: "
        f"{printable_path(folder)}"
    )
    say(f"it holds what was acknowledged before {manifest.began_at:%Y-%m-%d %H:%M:%S} UTC")
    for line in manifest.left_out:
        say(f"not in it: {line}")
    say("it holds users' texts and the home's secret; keep it as private as the home")
