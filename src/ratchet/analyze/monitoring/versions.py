"""Which versions are watched, from when on, and which version each of them replaced.

A version's first answer ever says neither: one row with a wrong time would move it by decades.
Releases say what was replaced; where there are none, traffic does, and single rows are no traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ratchet.records import BoardState, Release, Rollout
from ratchet.store import EventStore, Window
from ratchet.store.arrivals import (
    BUSY_ANSWERS,
    BUSY_WITHIN,
    Position,
    count_answers,
    first_answer,
    in_use_from,
    last_answer,
    versions_between,
    versions_in_use,
)

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class WatchedVersion:
    """A version and the time from which on it is in use."""

    name: str
    start: datetime


def versions_to_watch(
    store: EventStore,
    *,
    since: datetime,
    active_since: datetime,
    now: datetime,
    arrived: Position,
) -> tuple[WatchedVersion, ...]:
    """Return the versions that answered lately, or answers of which arrived since the last pass.

    Args:
        store: The store.
        since: Answers before this are not watched.
        active_since: A version that answered after this is watched in any case.
        now: The time; answers dated later do not count yet.
        arrived: What has arrived by now.

    Returns:
        In the order in which they came into use.
    """
    before = store.latest(BoardState)
    names = set(versions_in_use(store, active_since if before else since, now))
    if before and before.arrived:
        names |= versions_between(store, Position(*before.arrived), arrived)
    watched = []
    for name in sorted(names):
        whole = Window(since, now, name)
        start = (
            in_use_from(store, whole)
            or first_answer(store, Window(active_since, now, name))
            or first_answer(store, whole)
        )
        if start is not None:
            watched.append(WatchedVersion(name, start))
    return tuple(sorted(watched, key=lambda version: version.start))


def predecessors(
    store: EventStore, version: WatchedVersion, *, since: datetime
) -> tuple[WatchedVersion, ...]:
    """Return what a version replaced: by the latest release or rollout of it, then by traffic.

    Args:
        store: The store.
        version: The version.
        since: Answers before this do not count.
    """
    names = [replaced_version(store, version.name), _busiest_before(store, version, since)]
    replaced = []
    for name in dict.fromkeys(name for name in names if name is not None):
        start = in_use_from(store, Window(since, version.start, name))
        replaced.append(WatchedVersion(name, start or version.start))
    return tuple(replaced)


def replaced_version(store: EventStore, version: str) -> str | None:
    """Return what the latest release or rollout of a version put it in the place of."""
    replaced = [
        (release.created_at, release.previous)
        for release in store.records(Release)
        if release.champion == version and release.action != "rollback" and release.previous
    ] + [
        (rollout.created_at, rollout.champion.version)
        for rollout in store.records(Rollout)
        if rollout.challenger.version == version
    ]
    names = [name for _, name in sorted(replaced) if name != version]
    return names[-1] if names else None


def _busiest_before(store: EventStore, version: WatchedVersion, since: datetime) -> str | None:
    """Return the version with most answers in the last day of traffic before another came."""
    end = version.start
    while True:
        others = [name for name in versions_in_use(store, since, end) if name != version.name]
        times = [last_answer(store, Window(since, end, name)) for name in others]
        latest = max((moment for moment in times if moment is not None), default=None)
        if latest is None:
            return None
        day = latest - BUSY_WITHIN
        counts = {
            name: count_answers(store, Window(day, latest + _MOMENT, name)) for name in others
        }
        busiest = max(sorted(counts), key=lambda name: counts[name])
        if counts[busiest] >= BUSY_ANSWERS:
            return busiest
        end = day  # single rows with a wrong time; the traffic may lie before them


__all__ = ["WatchedVersion", "predecessors", "versions_to_watch"]
