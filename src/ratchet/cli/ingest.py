"""`ratchet ingest`: bring in what users did, from a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.saying import say
from ratchet.cli.shared import created_store, current_settings, open_history
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted, printable

_SECONDS_BETWEEN = 10.0
_LARGE = 20_000_000
"""Bytes of a file from which on a second process to read it pays."""


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

    A run that was stopped goes on where it was when it is started again. A long one says every ten
    seconds how far it is.

    Exit codes: 0 where something was stored or was there before, 2 where nothing can be used.
    """
    from ratchet.collect.derived import check_kinds, derive_signals
    from ratchet.collect.dialogues import harvest_dialogues
    from ratchet.collect.ingest import ingest_file
    from ratchet.collect.recognising import Recogniser
    from ratchet.review.corrections import queue_corrections

    off = check_kinds(current_settings().not_derived)
    store, now, progress = created_store(), datetime.now(UTC), Progress()
    derive_signals(store, now=now, off=off, most=0)  # all of this file is new to it
    queue_corrections(store, now=now, most=0)
    known = Recogniser(store, open_history(store))
    if dialogues:
        report = harvest_dialogues(file, store, now=now, progress=progress, known=known)
    else:
        is_large = file.is_file() and file.stat().st_size > _LARGE
        report = ingest_file(
            file, store, now=now, progress=progress, second_process=is_large, known=known
        )
    say(
        f"{counted(report.interactions, 'interaction')} and "
        f"{counted(report.feedback, 'piece')} of feedback stored"
    )
    say(f"{report.repeated} were there before, {counted(report.set_aside, 'row')} set aside")
    if report.recognised:
        say(f"{counted(report.recognised, 'row')} stored already under other ids")
    for line in report.lines():
        say(line)
    derived = derive_signals(store, now=now, off=off)
    if derived.interactions:
        say(derived.in_words)
    candidates = queue_corrections(store, now=now)
    if candidates.queued or candidates.left_out:
        say(candidates.in_words)
    if report.set_aside:
        say("`ratchet set-aside` lists every row that was set aside")
    if not report.interactions + report.feedback + report.repeated + report.recognised:
        way_out = (
            "check that it is a log of whole dialogues, or leave --dialogues out"
            if dialogues
            else "a row needs `messages` (an answer) or `kind` (feedback), see docs/files.md; a "
            "log of whole dialogues needs --dialogues"
        )
        raise InvalidInputError(
            f"a file must hold at least one usable row, got {counted(report.set_aside, 'row')} in "
            f"{printable(file.name)!r} and none can be used; {way_out}"
        )


@dataclass(slots=True)
class Progress:
    """Tells how many rows of a file are done, not more often than every ten seconds."""

    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    told: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.told = self.clock()

    def __call__(self, rows: int) -> None:
        """Take note that so many rows are done."""
        now = self.clock()
        if now - self.told >= _SECONDS_BETWEEN:
            self.told = now
            rate = rows / (now - self.began)
            say(f"{counted(rows, 'row')} so far, {rate:,.0f} a second", err=True)
