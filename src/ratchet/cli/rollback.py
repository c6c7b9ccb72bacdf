"""`ratchet rollback`: undo what is newest in front of users."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli.saying import say
from ratchet.cli.shared import (
    By,
    Note,
    current_settings,
    open_answering,
    open_tracker,
    person,
    required_store,
)

_WOULD = {"rollout stopped": "rollout would be stopped", "test ended": "test would be ended"}


def rollback(
    by: By = "",
    note: Note = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be undone; undo nothing.")
    ] = False,
) -> None:
    """Undo the first that applies: rollout, variant test, champion."""
    from ratchet.deploy.rollout.rollback import roll_back
    from ratchet.deploy.routing import waiting_move

    store, settings = required_store("a rollback"), current_settings()
    done = roll_back(
        store,
        open_tracker(settings),
        now=datetime.now(UTC),
        by=person(by),
        person=True,
        note=note,
        answering=open_answering(settings, store),
        dry_run=dry_run,
    )
    if done.did != "champion replaced":
        say(f"{_WOULD.get(done.did, done.did) if dry_run else done.did}: {done.version}")
    say(f"champion {'would be' if dry_run else 'is now'} {done.champion}")
    if done.note and done.note != note:
        say(f"careful: {done.note}")
    if dry_run:
        say("nothing was changed; next: ratchet rollback")
        return
    if waiting_move(store) is not None:
        say("MLflow does not answer; its aliases are moved as soon as it does")
