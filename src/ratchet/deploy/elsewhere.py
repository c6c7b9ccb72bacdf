"""Champions that somebody else serves: a vendor's model, or a server that no gateway stands before.

    adopt_elsewhere(store, tracker, "gpt-4o-2024-08-06", by="ada", now=now)
    follow_elsewhere(store, tracker, now)    # what it is called now, by its answers

Their answers come in as logs. Everything that reads answers works as it does for any champion; what
sends users to versions does not, since nobody asks Ratchet.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from ratchet.deploy.adoption import (
    Adopted,
    begin_adopting,
    champion_now,
    check_names,
    note_adoption,
    recorded_answers,
)
from ratchet.deploy.routing import (
    REGISTRY_SECONDS,
    follow,
    serving_champion,
    switch,
)
from ratchet.deploy.served import adoptions, is_served_elsewhere
from ratchet.errors import InvalidInputError
from ratchet.records import Release, derive_id
from ratchet.store import EVER, EventStore, Window
from ratchet.store.arrivals import (
    BUSY_ANSWERS,
    BUSY_WITHIN,
    count_answers,
    in_use_from,
    last_answer,
    versions_in_use,
)
from ratchet.tracking import Tracker

logger = logging.getLogger(__name__)

_NAMED = 10
_MOMENT = timedelta(microseconds=1)


def adopt_elsewhere(
    store: EventStore,
    tracker: Tracker,
    name: str,
    *,
    also: Collection[str] = (),
    by: str | None,
    now: datetime,
) -> Adopted:
    """Make a model that somebody else serves the champion, under the name in its logs.

    Args:
        store: The store.
        tracker: The registry.
        name: Under which its answers were recorded.
        also: Other names that the same model answered under.
        by: Who adopts it.
        now: The time.

    Raises:
        ConflictError: A rollout or a test of variants runs.
        InvalidInputError: No answers were recorded under the name, or it stands for a version of
            this home.
        TrackingError: MLflow does not answer.
    """
    recorded = [one.name for one in recorded_answers(store, now)]
    if name not in recorded:
        known = ", ".join(recorded[:_NAMED]) or "none at all"
        raise InvalidInputError(
            f"a model that is served elsewhere is known by its answers, got {name!r} and answers "
            f"of {known}; bring its log in with `ratchet import`, or take one of these names"
        )
    begin_adopting(store, tracker, (name, *also), name, now)
    before = champion_now(store, tracker)
    reference = tracker.register_served(name).reference
    replaced = before if before != reference else None
    switched = replaced is not None or store.latest(Release) is None
    release = Release(
        id=derive_id("release", "adopt", reference, now.isoformat()),
        created_at=now,
        action="adopt",
        champion=reference,
        previous=replaced,
        by=by,
    )
    told = True
    with store.atomic():
        note_adoption(store, reference, tuple(also), None, by, now, elsewhere=True)
        if switched:
            move = switch(store, release, by="adoption")
    if switched:
        told = follow(store, tracker, move, now)
    return Adopted(reference, reference, replaced, None, switched=switched, told=told)


def follow_elsewhere(store: EventStore, tracker: Tracker, now: datetime) -> Release | None:
    """Record that a champion served elsewhere is another model now, as its answers show.

    It is where most answers of the last day of traffic, and twenty at least, came under one other
    name. The release bears the time from which on that name is in use.

    Returns:
        The release; None where the champion is not served elsewhere, or answers still.
    """
    latest = store.latest(Release)
    if latest is None or not is_served_elsewhere(store, latest.champion):
        return None
    named = _named_now(store, now)
    if named is None or named in adoptions(store)[latest.champion].names:
        return None
    check_names((named,), named, tracker.model_name)
    if not tracker.answers(within_seconds=REGISTRY_SECONDS):
        logger.warning("%s answers now; the registry is told when MLflow does", named)
        return None
    reference = tracker.register_served(named).reference
    since = in_use_from(store, Window(EVER, now, named)) or now
    release = Release(
        id=derive_id("release", "elsewhere", reference, since.isoformat()),
        created_at=since,
        action="released elsewhere",
        champion=reference,
        previous=latest.champion,
        note="most answers of the last day of traffic came under this name",
    )
    with store.atomic():
        note_adoption(store, reference, (), None, None, now, elsewhere=True)
        move = switch(store, release, by=release.action)
    follow(store, tracker, move, now)
    logger.warning("%s is answered by %s since %s", latest.champion, reference, since)
    return release


def refuse_elsewhere(store: EventStore, what: str) -> None:
    """Refuse what sends users to versions where somebody else serves the champion.

    Args:
        store: The store.
        what: What is asked for, with its article.

    Raises:
        InvalidInputError: The champion is served elsewhere.
    """
    champion = serving_champion(store)
    if champion is not None and is_served_elsewhere(store, champion.version):
        raise InvalidInputError(
            f"{what} sends users to another version, which only the gateway can, got "
            f"{champion.version}, which somebody else serves; change the model in your "
            "application, or put the gateway in front of it (`ratchet adopt --backend URL`)"
        )


def _named_now(store: EventStore, now: datetime) -> str | None:
    """Return the name under which most answers of the last day of traffic came."""
    last = last_answer(store, Window(EVER, now))
    if last is None:
        return None
    start, end = last - BUSY_WITHIN, last + _MOMENT
    counts = {
        name: count_answers(store, Window(start, end, name))
        for name in versions_in_use(store, start, end)
    }
    name = max(sorted(counts), key=lambda one: counts[one])
    is_most = 2 * counts[name] > sum(counts.values())
    return name if is_most and counts[name] >= BUSY_ANSWERS else None
