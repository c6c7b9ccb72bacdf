"""`ratchet prune`: take away what is older than retention says, or show what that is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.saying import say, say_json, say_text
from ratchet.cli.shared import (
    AsJson,
    current_settings,
    open_history,
    open_tracker,
    required_store,
    show_progress,
)
from ratchet.errors import BusyError

if TYPE_CHECKING:
    from ratchet.operate.pruning import Pruning
    from ratchet.settings import Settings


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go, by which rule.")
    ] = False,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Also write the database files anew without free space, once `ratchet up` is "
            "stopped; takes as much disk again and time.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what is older than the file of RATCHET_RETENTION says; `prune` does it every night."""
    from ratchet.operate.pruning import database_files
    from ratchet.operate.report import as_json as fields
    from ratchet.operate.report import as_text, size_in_words
    from ratchet.operate.sqlite_files import compact as write_anew

    settings = current_settings()
    if compact:
        _refuse_while_served(settings)
    lines = list(_pruning(settings, dry_run=dry_run).run())
    given_back = 0
    if compact and not dry_run:
        given_back = sum(write_anew(path) for path in database_files(settings))
    if as_json:
        content = {"dry_run": dry_run, "lines": [fields(line) for line in lines]}
        say_json(content | {"given_back": given_back}, indent=2)
    else:
        say_text(as_text(lines))
        if given_back:
            say(f"the database files are {size_in_words(given_back)} smaller")
        if dry_run:
            say("nothing was changed; leave out --dry-run to delete it")
    if any(line.failed for line in lines):
        raise typer.Exit(1)


def _pruning(settings: Settings, *, dry_run: bool) -> Pruning:
    from ratchet.operate.pruning import Pruning, advance_history
    from ratchet.operate.retention import load_retention
    from ratchet.servers import answering_prefect

    config = load_retention(settings.retention)
    store, history = required_store("pruning"), open_history()
    if not dry_run:
        show_progress()
        advance_history(history, store)
    tracker = open_tracker(settings)
    return Pruning(
        store,
        settings,
        config,
        now=datetime.now(UTC),
        history=history,
        prefect=answering_prefect(settings),
        tracker=tracker if tracker.answers(within_seconds=20.0) else None,
        preview=dry_run,
    )


def _refuse_while_served(settings: Settings) -> None:
    """Refuse to write files anew that servers write to.

    Raises:
        BusyError: `ratchet up` serves this home.
    """
    from ratchet.servers import running_prefect

    address = running_prefect(settings)
    if address:
        raise BusyError(
            "--compact needs database files that nobody writes to, got a home that is served at "
            f"{address}; stop `ratchet up` and `ratchet serve` first, or leave out --compact"
        )
