"""Figures that take longer than a page may: made in the background, shown with their age.

    found = refreshed.get("chart thumbs_down_rate", make)
    found.value, found.made_at, found.problem        # all None while it is made for the first time

What is made of records alone is quick, and made while the page waits: `Kept`.

    decisions = kept.get("decisions", (Decision,), lambda: store.records(Decision, latest=50))

One thread makes one figure at a time. A figure is made anew when it is asked for and older than
`REFRESHED_AFTER`, or where what it is made of is known to be another; until then, and meanwhile,
the one of before is shown.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, TypeVar

from ratchet.errors import RatchetError
from ratchet.records import Erasure, Record
from ratchet.store import EventStore

T = TypeVar("T")
R = TypeVar("R", bound=Record)
logger = logging.getLogger(__name__)

REFRESHED_AFTER = timedelta(minutes=5)
_MOST = 200


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as it was made last.

    Attributes:
        value: None while there is none.
        made_at: When it was made.
        problem: Why there is none.
        being_made: Whether another one is being made.
        of: What it was made of, where that is told.
    """

    value: Any = None
    made_at: datetime | None = None
    problem: str | None = None
    being_made: bool = False
    of: object = None


@dataclass(slots=True)
class Refreshed:
    """Figures by name.

    Attributes:
        clock: Tells the time.
    """

    clock: Callable[[], datetime]
    _figures: OrderedDict[str, Figure] = field(default_factory=OrderedDict)
    _making: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)
    _worker: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="figures")
    )

    def get(self, name: str, make: Callable[[], Any], *, of: object = None) -> Figure:
        """Return a figure as it is, and have it made anew where it is old or missing.

        Args:
            name: Names all that the figure depends on, but for the store.
            make: Makes it; called in another thread, perhaps later.
            of: What it is made of, e.g. the last label's place: the figure is old as soon as that
                is another, and not before. None: where it is `REFRESHED_AFTER` old.
        """
        with self._lock:
            known = self._figures.get(name, Figure())
            is_old = known.made_at is None or known.of != of
            if known.made_at is not None and of is None:
                is_old = self.clock() - known.made_at >= REFRESHED_AFTER
            if is_old and name not in self._making:
                self._making.add(name)
                self._worker.submit(self._make, name, make, of)
            making = name in self._making
        return replace(known, being_made=making)

    def made(self, name: str, make: Callable[[], Any]) -> Figure:
        """Return a figure once it is made, waiting half a minute at most; see `get`."""
        for _ in range(300):
            found = self.get(name, make)
            if found.made_at is not None:
                break
            time.sleep(0.1)
        return found

    def close(self) -> None:
        """Make no further figure."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _make(self, name: str, make: Callable[[], Any], of: object) -> None:
        value, problem = None, None
        try:
            value = make()
        except RatchetError as error:
            problem = str(error)
        except Exception:
            logger.exception("a figure could not be made: %r", name)
            problem = "it could not be made; the log of the pages says why"
        with self._lock:
            self._figures[name] = Figure(value, self.clock(), problem, of=of)
            self._figures.move_to_end(name)
            self._making.discard(name)
            while len(self._figures) > _MOST:
                self._figures.popitem(last=False)


@dataclass(slots=True)
class Kept:
    """What is made of records: kept until one of their kinds is written.

    An erasure changes records where they stand, so it counts as another record of any kind, and
    nothing is kept for longer than `REFRESHED_AFTER`.

    Attributes:
        store: Holds the records.
        clock: Tells the time.
    """

    store: EventStore
    clock: Callable[[], datetime]
    _made: dict[str, tuple[object, datetime, Any]] = field(default_factory=dict)

    def get(
        self,
        name: str,
        kinds: Sequence[type[Record]],
        make: Callable[[], T],
        written: Mapping[str, int] | None = None,
    ) -> T:
        """Return what is made of records of some kinds.

        Args:
            name: Names it; it depends on nothing else.
            kinds: Of the records.
            make: Makes it.
            written: Where the last record of each kind stands, as `written` said; None to ask.
        """
        told, now = self.written(kinds) if written is None else written, self.clock()
        every: tuple[type[Record], ...] = (*kinds, Erasure)
        state = [told.get(kind.__name__) for kind in every]
        made = self._made.get(name)
        if made is None or made[0] != state or now - made[1] >= REFRESHED_AFTER:
            made = state, now, make()
            self._made[name] = made
        found: T = made[2]
        return found

    def written(self, kinds: Sequence[type[Record]]) -> Mapping[str, int]:
        """Return where the last record of each kind stands, for several things at once."""
        return self.store.last_positions((*kinds, Erasure))

    def records(self, kind: type[R], latest: int) -> tuple[R, ...]:
        """Return the latest records of a kind, in the order in which they were written."""
        name = f"{latest} {kind.__name__}"
        return self.get(name, (kind,), lambda: self.store.records(kind, latest=latest))
