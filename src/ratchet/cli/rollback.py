"""`ratchet rollback`: undo what is newest in front of users."""

from __future__ import annotations

from datetime import UTC, datetime

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


def rollback(by: By = "", note: Note = "") -> None:
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
    )
    if done.did != "champion replaced":
        say(f"{done.did}: {done.version}")
    say(f"champion is now {done.champion}")
    if done.note and done.note != note:
        say(f"careful: {done.note}")
    if waiting_move(store) is not None:
        say("MLflow does not answer; its aliases are moved as soon as it does")
