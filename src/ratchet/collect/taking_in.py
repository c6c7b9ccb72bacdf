"""What follows whenever events came in: signals are derived, and corrections go to people."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from ratchet.collect.derived import DerivedReport, derive_signals
from ratchet.review.corrections import QueuedCorrections, queue_corrections
from ratchet.store import EventStore


class TakenIn(NamedTuple):
    """What a pass did."""

    derived: DerivedReport
    queued: QueuedCorrections

    def lines(self) -> list[str]:
        """Return what is worth telling, a line each."""
        told = [self.derived.in_words] if self.derived.interactions else []
        is_told = self.queued.queued or self.queued.left_out
        return told + ([self.queued.in_words] if is_told else [])


def take_in(
    store: EventStore,
    *,
    now: datetime,
    off: Collection[str] = (),
    most: int | None = None,
    people: int = 1,
    unanimous: bool = False,
) -> TakenIn:
    """Derive what arrived since the last pass says; queue corrections in words for people.

    Args:
        store: The store.
        now: The time.
        off: Signals that are not derived, or `all`.
        most: Interactions that one pass takes in. None for all; 0 notes where to begin.
        people: How many people decide each correction.
        unanimous: Whether all of them must agree.

    Raises:
        InvalidInputError: `off` names no signal.
    """
    derived = derive_signals(store, now=now, off=off, most=most)
    queued = queue_corrections(store, now=now, most=most, people=people, unanimous=unanimous)
    return TakenIn(derived, queued)
