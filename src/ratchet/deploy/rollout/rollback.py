"""Rolling back: undo what users got last, whether a rollout, a variant test or a champion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ratchet.deploy.answering import Answering
from ratchet.deploy.elsewhere import refuse_elsewhere
from ratchet.deploy.promotion import rollback
from ratchet.deploy.rollout.canary import stop_rollout
from ratchet.deploy.rollout.variants import end_test
from ratchet.deploy.routing import running_rollout, running_test, serving_champion
from ratchet.store import EventStore
from ratchet.tracking import Tracker


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        did: What ended; `nothing` where no user gets the version named.
        version: What users got until now; None where nothing was done.
        champion: What they get instead.
        note: What was kept with it, also what does not answer.
    """

    did: Literal["rollout stopped", "test ended", "champion replaced", "nothing"]
    version: str | None
    champion: str | None
    note: str = ""


def roll_back(
    store: EventStore,
    tracker: Tracker,
    *,
    now: datetime,
    by: str,
    person: bool,
    version: str = "",
    note: str = "",
    answering: Answering | None = None,
    dry_run: bool = False,
) -> RolledBack:
    """Undo the first that applies: rollout, variant test, champion.

    One transaction of the store, which every gateway follows; MLflow may be down. An event that
    names a version and comes late, or twice, does nothing.

    Args:
        store: The store.
        tracker: The registry.
        now: The time.
        by: Who rolls back.
        person: Whether that is a person; a person's stop is final.
        version: Only this version; whichever it is where empty.
        note: Why.
        answering: What says whether the version before answers; nothing is stopped by it.
        dry_run: Whether what would be undone is returned, and nothing changed.

    Raises:
        TrackingError: The champion is to be replaced and there is no previous version.
        InvalidInputError: Somebody else serves the champion.
    """
    champion = serving_champion(store)
    old = None if champion is None else champion.version
    rollout, test = running_rollout(store), running_test(store)
    if rollout is not None and version in ("", rollout.challenger.version):
        if not dry_run:
            stop_rollout(store, by=by, now=now, note=note, person=person)
        return RolledBack("rollout stopped", rollout.challenger.version, rollout.champion.version)
    if test is not None:
        tried = [variant.version for variant in test.variants[:-1]]
        if version in ("", *tried):
            end_test(store, by=by, now=now, note=note, dry_run=dry_run)
            return RolledBack("test ended", version or ", ".join(tried), old)
    refuse_elsewhere(store, "a rollback")
    release = rollback(
        store, tracker, now, only=version, by=by, note=note, answering=answering, dry_run=dry_run
    )
    if release is None:
        return RolledBack("nothing", None, old)
    return RolledBack("champion replaced", version or old, release.champion, release.note)
