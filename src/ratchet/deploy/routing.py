"""Who is served by what: one switch for alias, routing and record, and what runs after it.

Gateways read the latest `Routing` from the store every second or so. A switch writes routing and
release in one transaction of the store, and that is what takes effect; the registry's alias follows
at once where MLflow answers, else later (`reconcile`). So a rollback needs nothing but the store.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeVar

from ratchet.errors import ConflictError, TrackingError
from ratchet.records import (
    AliasMove,
    Record,
    Release,
    Rollout,
    RolloutLook,
    RolloutStop,
    Routing,
    Variant,
    VariantTest,
    VariantTestEnd,
    derive_id,
)
from ratchet.store import EventStore
from ratchet.tracking import Tracker

logger = logging.getLogger(__name__)

Experiment = TypeVar("Experiment", Rollout, VariantTest)
CHAMPION, CHALLENGER = "champion", "challenger"
SERVING = "serving"
"""Experiment of a routing that is none: one arm for everybody."""
REGISTRY_SECONDS = 2.0
"""So long a switch waits for MLflow; it takes effect without it."""
_MOVES = 20


def current_routing(store: EventStore) -> Routing | None:
    """Return who is sent where; None before anything was released.

    A release that was written after the latest routing was made without one: its champion gets all.
    Which came later is told by the journal and not by their times, since clocks are set back.
    """
    released_last = written_after(store, Release, Routing)  # before both: a switch writes the two
    routing, release = store.latest(Routing), store.latest(Release)
    if release is None or not released_last:
        return routing
    return for_all(
        Variant(version=release.champion, share=1.0, name=CHAMPION),
        previous=release.previous,
        reason=release.action,
        key=release.id,
        now=release.created_at,
    )


def written_after(store: EventStore, kind: type[Record], other: type[Record]) -> bool:
    """Tell whether the last record of a kind was written after the last one of another."""
    places = store.last_positions((kind, other))
    return places.get(kind.__name__, 0) > places.get(other.__name__, 0)


def for_all(
    variant: Variant, *, previous: str | None, reason: str, key: str, now: datetime
) -> Routing:
    """Return a routing that sends everybody to one variant."""
    whole = variant.model_copy(update={"share": 1.0, "name": CHAMPION})
    return Routing(
        id=derive_id("routing", key),
        created_at=now,
        experiment=SERVING,
        variants=(whole,),
        previous=previous,
        reason=reason,
    )


def serving_champion(store: EventStore) -> Variant | None:
    """Return the variant that those get who are in no experiment's other arms."""
    routing = current_routing(store)
    return None if routing is None else routing.variants[-1]


def running_rollout(store: EventStore) -> Rollout | None:
    """Return the rollout that the routing is about, if it has not ended."""
    return _running(store, Rollout, RolloutStop)


def running_test(store: EventStore) -> VariantTest | None:
    """Return the test of variants that the routing is about, if it has not ended."""
    return _running(store, VariantTest, VariantTestEnd)


def _running(
    store: EventStore, kind: type[Experiment], end: type[RolloutStop | VariantTestEnd]
) -> Experiment | None:
    routing = current_routing(store)
    experiment = None if routing is None else store.get(kind, routing.experiment)
    if experiment is None or store.get(end, experiment.id) is not None:
        return None
    return experiment


def refuse_another(store: EventStore) -> None:
    """Refuse a second experiment in front of users.

    Raises:
        ConflictError: A rollout or a test of variants runs.
    """
    if running_rollout(store) or running_test(store):
        raise ConflictError(
            "one rollout or test of variants at a time may be in front of users, got another; "
            "wait for its end, or stop it with `ratchet rollout stop`"
        )


def looks_of(store: EventStore, rollout: Rollout) -> tuple[RolloutLook, ...]:
    """Return a rollout's looks in order."""
    about = store.records(RolloutLook, subject=rollout.challenger.version)
    return tuple(look for look in about if look.rollout_id == rollout.id)


def last_look(store: EventStore, rollout: Rollout) -> RolloutLook | None:
    """Return a rollout's last look, without reading the others where it is its version's last."""
    latest = store.records(RolloutLook, subject=rollout.challenger.version, latest=1)
    if not latest or latest[0].rollout_id == rollout.id:
        return next(iter(latest), None)
    return next(iter(reversed(looks_of(store, rollout))), None)


# The switch ---------------------------------------------------------------------------------------


def switch(
    store: EventStore,
    release: Release,
    *,
    variant: Variant | None = None,
    withdrawn: str | None = None,
    by: str,
    told: bool = False,
    ends: bool = True,
) -> AliasMove:
    """Send everybody to a release's champion: routing, record and wish for the alias at once.

    What is running in front of users ends. Nothing but the store is needed; done twice it changes
    nothing.

    Args:
        store: The store.
        release: The release; its id says whether it was made before.
        variant: The champion with its system prompt; by default the version alone, with the
            prompt that is in use where it is the same version.
        withdrawn: A version that is rolled back with it.
        by: What ends that which is running.
        told: Whether the registry says so already.
        ends: Whether what is running is cut short by it, rather than brought to its end.

    Returns:
        What the registry is to be told; `follow` tells it.
    """
    move = AliasMove(
        id=derive_id("alias", release.id, "wanted"),
        created_at=release.created_at,
        release_id=release.id,
        champion=release.champion,
        previous=release.previous,
        done=False,
        withdrawn=withdrawn,
    )
    with store.atomic():
        if store.get(Release, release.id) is None:
            chosen = variant or _same_prompt(store, release.champion)
            if ends:
                end_running(store, by=by, note=release.action, now=release.created_at)
            store.append(release)
            store.append(
                for_all(
                    chosen,
                    previous=release.previous,
                    reason=release.action,
                    key=release.id,
                    now=release.created_at,
                )
            )
            if not told:
                store.append(move)
    return move


def end_running(store: EventStore, *, by: str, note: str, now: datetime) -> None:
    """Record that a rollout or test ends, if one runs; the routing is the caller's to write."""
    rollout, test = running_rollout(store), running_test(store)
    if rollout is not None:
        store.append(RolloutStop(id=rollout.id, created_at=now, by=by, person=False, note=note))
    if test is not None:
        store.append(VariantTestEnd(id=test.id, created_at=now, by=by, note=note))


def _same_prompt(store: EventStore, version: str) -> Variant:
    champion = serving_champion(store)
    if champion is not None and champion.version == version:
        return champion
    return Variant(version=version, share=1.0)


# The registry -------------------------------------------------------------------------------------


def follow(store: EventStore, tracker: Tracker, move: AliasMove, now: datetime) -> bool:
    """Move the registry's aliases to where a release wants them; False where MLflow is down."""
    done = derive_id("alias", move.release_id, "done")
    if move.done or store.get(AliasMove, done) is not None:
        return True
    if not tracker.answers(within_seconds=REGISTRY_SECONDS):
        logger.warning(
            "MLflow does not answer; %s is served, and the alias is moved when it does",
            move.champion,
        )
        return False
    try:
        tracker.move_champion(move.champion, move.previous)
        if move.withdrawn is not None:
            stamp = {"ratchet.rolled_back_at": move.created_at.isoformat()}
            tracker.tag_version(move.withdrawn, stamp)
    except TrackingError as error:
        logger.warning("the alias is not moved yet: %s", error)
        return False
    store.append(move.model_copy(update={"id": done, "created_at": now, "done": True}))
    return True


def waiting_move(store: EventStore) -> AliasMove | None:
    """Return what the registry was to be told last, where it was not told yet.

    An older wish that a newer release has overtaken is not waited for.
    """
    moves: Sequence[AliasMove] = store.records(AliasMove, latest=_MOVES)
    wanted = next((move for move in reversed(moves) if not move.done), None)
    release = store.latest(Release)
    if wanted is None or release is None or release.id != wanted.release_id:
        return None
    done = store.get(AliasMove, derive_id("alias", wanted.release_id, "done"))
    return None if done is not None else wanted


def reconcile(
    store: EventStore, tracker: Tracker, now: datetime
) -> Literal["nothing to do", "moved", "waiting"]:
    """Let the registry catch up with what is served, if it has to."""
    move = waiting_move(store)
    if move is None:
        return "nothing to do"
    return "moved" if follow(store, tracker, move, now) else "waiting"
