"""`ratchet rollback`: undo what is newest in front of users."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli.shared import current_settings, nothing_stored, open_tracker
from ratchet.errors import InvalidInputError


def rollback(
    by: Annotated[str, typer.Option(help="Who you are.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Undo the newest release: the running rollout, else the variant test, else the champion."""
    from ratchet.deploy.rollout.rollback import roll_back
    from ratchet.deploy.routing import waiting_move
    from ratchet.store import EventStore

    settings = current_settings()
    if nothing_stored(settings):
        raise InvalidInputError(
            f"a rollback needs a home folder with a store, got none in {settings.home.name!r}; "
            "run it where `ratchet demo` ran, or set RATCHET_HOME"
        )
    store = EventStore.open(settings.store_url)
    done = roll_back(
        store,
        open_tracker(settings),
        now=datetime.now(UTC),
        by=by or os.environ.get("USER", "somebody"),
        person=True,
        note=note,
    )
    if done.did != "champion replaced":
        print(f"{done.did}: {done.version}")
    print(f"champion is now {done.champion}")
    if waiting_move(store) is not None:
        print("MLflow does not answer; its alias is moved when it does")
