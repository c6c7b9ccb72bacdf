"""Acting on decisions: the registry's aliases move where a decision allows it, once, and back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime

from ratchet.deploy.answering import Answering
from ratchet.deploy.approval import approved_to_promote, standing
from ratchet.deploy.refusals import refused
from ratchet.deploy.routing import REGISTRY_SECONDS, follow, reconcile, switch, waiting_move
from ratchet.errors import TrackingError
from ratchet.records import AliasMove, Decision, Release, Rollout, RolloutLook, Variant, derive_id
from ratchet.store import EventStore
from ratchet.store.leases import RELEASE, hold
from ratchet.tracking import ModelVersion, Tracker

logger = logging.getLogger(__name__)

ROLLBACK_SECONDS = 5.0
"""So long a rollback waits for an answer of the version that it goes back to."""
_EARLIER = 3
"""So many champions before it are asked, where that one does not answer."""


def establish_champion(
    store: EventStore,
    tracker: Tracker,
    base: Callable[[], ModelVersion],
    now: datetime,
    *,
    answering: Answering | None = None,
) -> ModelVersion:
    """Return the registry's champion, which is the base model until there is one.

    The registry's alias is the truth: should somebody have moved it by hand, the journal of
    releases takes note, unless the version does not answer; then the alias is moved back. A
    promotion that was interrupted after the move is completed first.

    Args:
        store: The store.
        tracker: The registry.
        base: Registers the base model, or refuses to; asked only where there is no champion.
        now: The time.
        answering: What a champion has to answer by.
    """
    reconcile(store, tracker, now)
    champion = tracker.champion()
    if champion is None:
        champion = base()
        tracker.move_champion(champion.reference, None)
    latest = store.latest(Release)
    decision = store.latest(Decision)
    if decision is not None and latest is not None and latest.champion == decision.champion:
        promoted = approved_to_promote(store, decision)
        interrupted = promoted and champion.reference == decision.challenger
        if interrupted and apply_decision(store, tracker, decision, now, answering=answering):
            return champion
    return _take_note(store, tracker, champion, now, answering)[0]


def adopt_champion(
    store: EventStore, tracker: Tracker, now: datetime, *, answering: Answering | None = None
) -> Release | None:
    """Follow a champion that somebody chose in the registry by hand: everybody gets it.

    Nothing is done where the registry is down or waits for a switch itself, and where the gate's
    own promotion is under way. A version that does not answer gets nobody: the alias is moved back.

    Returns:
        The release that was recorded; None where the registry says what the journal says.
    """
    latest, decision = store.latest(Release), store.latest(Decision)
    if latest is None or waiting_move(store) is not None:
        return None
    if not tracker.answers(within_seconds=REGISTRY_SECONDS):
        return None
    champion = tracker.champion()
    if champion is None or store.latest(Release) != latest:
        return None
    under_way = (latest.champion, champion.reference)
    decided = (decision.champion, decision.challenger) if decision is not None else None
    if decision is not None and decided == under_way and approved_to_promote(store, decision):
        return None
    return _take_note(store, tracker, champion, now, answering)[1]


def _take_note(
    store: EventStore,
    tracker: Tracker,
    champion: ModelVersion,
    now: datetime,
    answering: Answering | None,
) -> tuple[ModelVersion, Release | None]:
    """Record that the registry has another champion than the journal, and switch to it.

    Whoever moved `champion` alone left `previous` behind: it becomes what users had until now.

    Returns:
        The champion, and the release where one was recorded. A champion that does not answer is
        none: the alias is back at the one before.
    """
    latest, standing_by = store.latest(Release), tracker.previous()
    if latest is not None and latest.champion == champion.reference:
        return champion, None
    if latest is None and answering is not None:
        answering.require(champion.reference)
    if latest is not None and refused(
        store, answering, champion.reference, step="alias",
        about=latest.id, stands=latest.champion, now=now,
    ):  # fmt: skip
        try:
            tracker.move_champion(latest.champion, latest.previous)
            return tracker.version(latest.champion), None
        except TrackingError as error:
            logger.error("the alias cannot be moved back to %s: %s", latest.champion, error)
            return champion, None
    previous = standing_by.reference if standing_by else None
    if latest is not None and previous != latest.champion:
        previous = latest.champion
        tracker.move_champion(champion.reference, previous)
    release = Release(
        id=derive_id("release", champion.reference, now.isoformat()),
        created_at=now,
        action="start" if latest is None else "moved outside Ratchet",
        champion=champion.reference,
        previous=previous,
    )
    switch(store, release, by=release.action, told=True)
    return champion, release


def apply_decision(
    store: EventStore,
    tracker: Tracker,
    decision: Decision,
    now: datetime,
    *,
    answering: Answering | None = None,
) -> Release | None:
    """Act on a stored decision, once: move the aliases on promote, else nothing but a tag.

    Returns:
        The release, also where it was made before; None where nothing was promoted, as when a
        person has not approved it, the challenger was rolled back, the champion replaced since, it
        goes to users by stages (`ratchet.deploy.rollout.canary.begin_decided`), or it does not
        answer; then the decision stands, and is acted on when it does (`deploy.refusals`).
    """
    tags = {"ratchet.verdict": decision.verdict, "ratchet.decision": decision.id}
    if decision.approval is not None:
        tags["ratchet.approval"] = standing(store, decision)
    tracker.tag_version(decision.challenger, tags)
    if decision.rollout is not None or not approved_to_promote(store, decision):
        return None
    with hold(store, RELEASE, wait=None):  # a flow, a command and a page may act at once
        return _promoted(store, tracker, decision, now, answering)


def _promoted(
    store: EventStore,
    tracker: Tracker,
    decision: Decision,
    now: datetime,
    answering: Answering | None,
) -> Release | None:
    key = derive_id("release", decision.id)
    done = store.get(Release, key)
    if done is not None:
        return done
    obstacle = _obstacle(store, tracker, decision)
    if obstacle is not None:
        logger.warning("%s is not promoted: %s", decision.challenger, obstacle)
        return None
    if refused(
        store, answering, decision.challenger, step="promotion", about=decision.id,
        stands=decision.champion, now=now, decision_id=decision.id,
    ):  # fmt: skip
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
    switch(store, release, by="promotion", told=True)
    return release


def _obstacle(store: EventStore, tracker: Tracker, decision: Decision) -> str | None:
    """Say what happened since the decision that takes away its ground, if anything did.

    What came after it is told by the journal and not by times, since clocks are set back.
    """
    for release in store.records(Release, after=decision):
        if release.action == "rollback":
            return "there was a rollback since the decision"
    champion = tracker.champion()
    if champion is None or champion.reference in (decision.champion, decision.challenger):
        return None
    return f"it was compared with {decision.champion}, but the champion is {champion.reference}"


def rollback(
    store: EventStore,
    tracker: Tracker,
    now: datetime,
    *,
    only: str = "",
    by: str | None = None,
    note: str = "",
    answering: Answering | None = None,
    dry_run: bool = False,
) -> Release | None:
    """Make the previous version the champion again, for every gateway at once.

    It is the emergency exit: no check can stop it. Where `previous` does not answer within seconds
    and an earlier champion does, that one is it, which the release's note says.

    The store is switched first and is enough; the aliases follow, later where MLflow is down. The
    version rolled back keeps its tags and can be looked at; there is no `previous` afterwards, so
    that a second call does not bring the bad version back. A prompt that came with the champion
    goes with it.

    Args:
        store: The store.
        tracker: The registry.
        now: The time.
        only: Only this champion; where it is another one, nothing is done and None returned.
        by: Who rolls back.
        note: Why.
        answering: What says whether `previous` answers.
        dry_run: Whether the release that would be made is returned, and nothing changed.

    Raises:
        TrackingError: There is no previous version.
    """
    up = tracker.answers(within_seconds=REGISTRY_SECONDS)
    if up and not dry_run:
        reconcile(store, tracker, now)
    told = up and waiting_move(store) is None
    champion, previous = _standing(tracker) if told else _recorded(store)
    if only and champion != only:
        return None
    if champion is None or previous is None:
        raise TrackingError(
            "a rollback needs a version with the alias 'previous', got none; "
            "nothing was promoted since the start or the last rollback"
        )
    previous, said = _answers_best(store, answering, champion, previous)
    release = Release(
        id=derive_id("rollback", champion, now.isoformat()),
        created_at=now,
        action="rollback",
        champion=previous,
        previous=None,
        by=by,
        note="; ".join(part for part in (note, said) if part),
    )
    if dry_run:
        return release
    move = switch(
        store,
        release,
        variant=_variant_before(store, previous),
        withdrawn=None if champion == previous else champion,
        by="rollback",
    )
    if up:
        follow(store, tracker, move, now)
    else:
        logger.warning("MLflow does not answer; its alias is moved when it does")
    return release


def _answers_best(
    store: EventStore, answering: Answering | None, champion: str, previous: str
) -> tuple[str, str]:
    """Return the version to go back to, and what is to be said where it is not in order."""
    until = time.monotonic() + 2 * ROLLBACK_SECONDS
    problem = None if answering is None else _soon(answering, previous)
    if answering is None or problem is None:
        return previous, ""
    bad = {move.withdrawn for move in store.records(AliasMove)} | {champion, previous}
    others = dict.fromkeys(release.champion for release in reversed(store.records(Release)))
    for other in [version for version in others if version not in bad][:_EARLIER]:
        if time.monotonic() < until and _soon(answering, other) is None:
            said = f"{previous} does not answer ({problem}), {other} does and is the champion"
            logger.error("%s", said)
            return other, said
    said = f"{previous} is the champion and does not answer: {problem}"
    logger.error("%s", said)
    return previous, said


def _soon(answering: Answering, version: str) -> str | None:
    """Say why a version does not answer within seconds, whatever is wrong and however long."""
    found: list[str | None] = [f"it cannot be told within {ROLLBACK_SECONDS:g} s"]

    def ask() -> None:
        try:
            found[0] = answering.problem(version, seconds=ROLLBACK_SECONDS)
        except Exception as error:  # a rollback is stopped by nothing
            found[0] = f"{type(error).__name__}: {error}"

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ROLLBACK_SECONDS)
    return found[0]


def _standing(tracker: Tracker) -> tuple[str | None, str | None]:
    """Return champion and previous as the registry says."""
    champion, previous = tracker.champion(), tracker.previous()
    return (
        champion.reference if champion else None,
        previous.reference if previous else None,
    )


def _recorded(store: EventStore) -> tuple[str | None, str | None]:
    release = store.latest(Release)
    return (None, None) if release is None else (release.champion, release.previous)


def _variant_before(store: EventStore, version: str) -> Variant:
    """Return the previous champion with the prompt that it had, where a rollout replaced it."""
    release = store.latest(Release)
    look = store.get(RolloutLook, release.look_id) if release and release.look_id else None
    rollout = store.get(Rollout, look.rollout_id) if look else None
    if rollout is not None and rollout.champion.version == version:
        return rollout.champion
    return Variant(version=version, share=1.0)
