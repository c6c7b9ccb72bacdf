"""`ratchet ingest`: bring in what users did, from a file of events or a log of dialogues."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.import_ import derive, is_any_usable, run_import, tell_report
from ratchet.cli.progress import Progress
from ratchet.cli.shared import created_store, open_history
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted, printable


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
    """Store events from a file; rows that cannot be used are set aside with their reasons.

    The same as `ratchet import FILE --as ratchet`. A run that was stopped goes on where it was when
    it is started again. A long one says every ten seconds how far it is.

    Exit codes: 0 where something was stored or was there before, 2 where nothing can be used.
    """
    from ratchet.doors.importing import prepare

    now = datetime.now(UTC)
    if dialogues:
        _harvest(file, now)
    else:
        run_import(prepare(str(file), now=now, as_format="ratchet"))


def _harvest(file: Path, now: datetime) -> None:
    from ratchet.collect.dialogues import harvest_dialogues
    from ratchet.collect.recognising import Recogniser

    derive(now, most=0)  # all of this file is new to it
    store = created_store()
    known = Recogniser(store, open_history(store))
    report = harvest_dialogues(file, store, now=now, progress=Progress(), known=known)
    tell_report(report, now)
    if not is_any_usable(report):
        raise InvalidInputError(
            f"a file must hold at least one usable row, got {counted(report.set_aside, 'row')} in "
            f"{printable(file.name)!r} and none can be used; check that it is a log of whole "
            "dialogues, or leave --dialogues out"
        )
