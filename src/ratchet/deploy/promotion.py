"""Acting on decisions: the registry's aliases move where a decision allows it, once, and back."""

from __future__ import annotations

import logging
from datetime import datetime

from ratchet.deploy.approval import approved_to_promote, standing
from ratchet.errors import TrackingError
from ratchet.records import Decision, Release, derive_id
from ratchet.store import EventStore
from ratchet.tracking import ModelVersion, Tracker

logger = logging.getLogger(__name__)


def establish_champion(
    store: EventStore, tracker: Tracker, base: ModelVersion, now: datetime
) -> ModelVersion:
    """Return the registry's champion, which is the base model until there is one.

    The registry's alias is the truth: should somebody have moved it by hand, the journal of
    releases takes note. A promotion that was interrupted after the move is completed first.
    """
    champion = tracker.champion()
    if champion is None:
        tracker.move_champion(base.reference, None)
        champion = base
    latest = store.latest(Release)
    decision = store.latest(Decision)
    if decision is not None and latest is not None and latest.champion == decision.champion:
        promoted = approved_to_promote(store, decision)
        interrupted = promoted and champion.reference == decision.challenger
        if interrupted and apply_decision(store, tracker, decision, now) is not None:
            return champion
    if latest is None or latest.champion != champion.reference:
        previous = tracker.previous()
        action = "start" if latest is None else "moved outside Ratchet"
        store.append(
            Release.model_validate(
                {
                    "id": derive_id("release", champion.reference, now.isoformat()),
                    "created_at": now,
                    "action": action,
                    "champion": champion.reference,
                    "previous": previous.reference if previous else None,
                }
            )
        )
    return champion


def apply_decision(
    store: EventStore, tracker: Tracker, decision: Decision, now: datetime
) -> Release | None:
    """Act on a stored decision, once: move the aliases on promote, else nothing but a tag.

    Returns:
        The release, also where it was made before; None where nothing was promoted, as when a
        person has not approved it, the challenger was rolled back or the champion replaced since.
    """
    tags = {"ratchet.verdict": decision.verdict, "ratchet.decision": decision.id}
    if decision.approval is not None:
        tags["ratchet.approval"] = standing(store, decision)
    tracker.tag_version(decision.challenger, tags)
    if not approved_to_promote(store, decision):
        return None
    key = derive_id("release", decision.id)
    done = store.get(Release, key)
    if done is not None:
        return done
    obstacle = _obstacle(store, tracker, decision)
    if obstacle is not None:
        logger.warning("%s is not promoted: %s", decision.challenger, obstacle)
        return None
    tracker.move_champion(decision.challenger, decision.champion)
    release = Release(
        id=key,
        created_at=now,
        action="promote",
        champion=decision.challenger,
        previous=decision.champion,
        decision_id=decision.id,
    )
    store.append(release)
    return release


def _obstacle(store: EventStore, tracker: Tracker, decision: Decision) -> str | None:
    """Say what happened since the decision that takes away its ground, if anything did."""
    for release in store.records(Release):
        if release.action == "rollback" and release.created_at >= decision.created_at:
            return "there was a rollback since the decision"
    champion = tracker.champion()
    if champion is None or champion.reference in (decision.champion, decision.challenger):
        return None
    return f"it was compared with {decision.champion}, but the champion is {champion.reference}"


def rollback(store: EventStore, tracker: Tracker, now: datetime) -> Release:
    """Make the previous version the champion again.

    The version rolled back keeps its tags and can be looked at; the alias `previous` is cleared,
    so that a second call does not bring the bad version back.

    Raises:
        TrackingError: There is no previous version.
    """
    champion, previous = tracker.champion(), tracker.previous()
    if champion is None or previous is None:
        raise TrackingError(
            "a rollback needs a version with the alias 'previous', got none; "
            "nothing was promoted since the start or the last rollback"
        )
    tracker.move_champion(previous.reference, None)
    tracker.tag_version(champion.reference, {"ratchet.rolled_back_at": now.isoformat()})
    release = Release(
        id=derive_id("rollback", champion.reference, now.isoformat()),
        created_at=now,
        action="rollback",
        champion=previous.reference,
        previous=None,
    )
    store.append(release)
    return release
