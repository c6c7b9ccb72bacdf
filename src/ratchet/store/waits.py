"""What open cycles wait for: kept once, found again by the next run and by `ratchet status`."""

from __future__ import annotations

from datetime import datetime

from ratchet.errors import WaitingError
from ratchet.records import (
    Candidate,
    Cycle,
    CycleWait,
    Decision,
    Release,
    derive_id,
)
from ratchet.store import EventStore
from ratchet.store.cycles import unfinished_cycle


def keep_wait(
    store: EventStore,
    cycle: Cycle,
    error: WaitingError,
    example_set_ids: tuple[str, ...],
    now: datetime,
) -> CycleWait:
    """Keep what a cycle waits for; the same is kept once."""
    wait = CycleWait(
        id=derive_id("wait", cycle.id, str(error), *example_set_ids),
        created_at=now,
        cycle_id=cycle.id,
        missing=error.missing,
        message=str(error),
        judge=error.judge,
        example_set_ids=example_set_ids,
    )
    stored = store.get(CycleWait, wait.id)
    if stored is None:
        store.append(wait)
    return stored or wait


def latest_wait(store: EventStore) -> CycleWait | None:
    """Return what the open cycle waits for; None where it does not, and once it is decided."""
    cycle, wait = unfinished_cycle(store), store.latest(CycleWait)
    decision = store.latest(Decision)
    is_decided = cycle and decision and decision.cycle_id == cycle.id
    return wait if cycle and wait and wait.cycle_id == cycle.id and not is_decided else None


def goes_on(store: EventStore) -> CycleWait | None:
    """Return the wait of a cycle that has all but what it waits for, so that the gate goes on.

    None where the champion that the challenger was held against was replaced by another since: a
    new cycle begins then.
    """
    cycle, wait, candidate = (
        unfinished_cycle(store), store.latest(CycleWait), store.latest(Candidate)
    )  # fmt: skip
    if cycle is None or wait is None or candidate is None:
        return None
    release, own = store.latest(Release), (cycle.champion, candidate.reference)
    is_replaced = release is not None and release.champion not in own
    is_whole = wait.cycle_id == candidate.cycle_id == cycle.id
    return wait if is_whole and not is_replaced else None
