"""`ratchet rollback`: undo what is newest in front of users."""

from __future__ import annotations

from datetime import UTC, datetime

from ratchet.cli.shared import By, Note, current_settings, open_tracker, person, required_store


def rollback(by: By = "", note: Note = "") -> None:
    """Undo the first that applies: rollout, variant test, champion."""
    from ratchet.deploy.rollout.rollback import roll_back
    from ratchet.deploy.routing import waiting_move

    store = required_store("a rollback")
    done = roll_back(
        store,
        open_tracker(current_settings()),
        now=datetime.now(UTC),
        by=person(by),
        person=True,
        note=note,
    )
    if done.did != "champion replaced":
        print(f"{done.did}: {done.version}")
    print(f"champion is now {done.champion}")
    if waiting_move(store) is not None:
        print("MLflow does not answer; its aliases are moved as soon as it does")
