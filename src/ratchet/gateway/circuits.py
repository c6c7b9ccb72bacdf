"""Recent successes and failures of each version, and which versions get no requests for a while.

A version at a backend is left alone once most of its recent attempts failed, for several callers:
what one caller sends cannot take a version from everybody. After some seconds one request tries
it again; an answer brings it back, a failure leaves it alone for as long again.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

RECENT_SECONDS = 30.0
"""Older outcomes say nothing about now."""
MOST_OUTCOMES = 200
"""Outcomes kept of each version, backend and process."""
FEWEST_FAILURES = 3
FEWEST_CALLERS = 3
"""So many different callers must have met a failure."""
FAILED_SHARE = 0.5
OPEN_SECONDS = 5.0
"""So long a version is left alone before one request tries it again."""
_MOST_KEYS = 1_000

Key = tuple[str, str]
"""Name of a backend, and the version that it was asked for."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Recent outcomes: attempts that were answered, and attempts that failed."""

    answered: int = 0
    failed: int = 0

    @property
    def mostly_failed(self) -> bool:
        """Whether more attempts failed than were answered."""
        return self.failed > self.answered


@dataclass(slots=True)
class Circuits:
    """See the module's text.

    Attributes:
        clock: Seconds, monotonic.
    """

    clock: Callable[[], float] = time.monotonic
    _recent: OrderedDict[Key, deque[tuple[float, str, bool]]] = field(default_factory=OrderedDict)
    _until: dict[Key, float] = field(default_factory=dict)
    _requests: deque[tuple[float, str, bool]] = field(
        default_factory=lambda: deque(maxlen=MOST_OUTCOMES)
    )

    def attempt(self, key: Key, caller: str, answered: bool) -> None:
        """Count an attempt at a version."""
        outcomes = self._recent.get(key)
        if outcomes is None:
            outcomes = self._recent[key] = deque(maxlen=MOST_OUTCOMES)
            if len(self._recent) > _MOST_KEYS:
                self._until.pop(self._recent.popitem(last=False)[0], None)
        if answered and key in self._until:
            self.close(key)
            outcomes = self._recent.setdefault(key, deque(maxlen=MOST_OUTCOMES))
        outcomes.append((self.clock(), caller, answered))
        if not answered and self._is_failing(outcomes):
            self._until[key] = self.clock() + OPEN_SECONDS

    def request(self, caller: str, answered: bool) -> None:
        """Count a request, and whether any attempt answered it."""
        self._requests.append((self.clock(), caller, answered))

    def is_open(self, key: Key) -> bool:
        """Tell whether a version is left alone; the first who asks after the time tries it."""
        until = self._until.get(key)
        if until is None:
            return False
        now = self.clock()
        if now < until:
            return True
        self._until[key] = now + OPEN_SECONDS
        return False

    def close(self, key: Key) -> None:
        """Ask a version again: it was repaired."""
        self._until.pop(key, None)
        self._recent.pop(key, None)

    def backends(self) -> dict[str, Counts]:
        """Return recent attempts by backend."""
        return self._by(0)

    def versions(self) -> dict[str, Counts]:
        """Return recent attempts by version."""
        return self._by(1)

    def requests(self) -> Counts:
        """Return recent requests."""
        return self._counts(self._requests)

    def _is_failing(self, outcomes: deque[tuple[float, str, bool]]) -> bool:
        since = self.clock() - RECENT_SECONDS
        recent = [outcome for outcome in outcomes if outcome[0] >= since]
        failed = [caller for _, caller, answered in recent if not answered]
        return (
            len(failed) >= FEWEST_FAILURES
            and len(set(failed)) >= FEWEST_CALLERS
            and len(failed) >= FAILED_SHARE * len(recent)
        )

    def _by(self, place: int) -> dict[str, Counts]:
        found: dict[str, Counts] = {}
        for key, outcomes in self._recent.items():
            more, before = self._counts(outcomes), found.get(key[place], Counts())
            found[key[place]] = Counts(before.answered + more.answered, before.failed + more.failed)
        return found

    def _counts(self, outcomes: deque[tuple[float, str, bool]]) -> Counts:
        since = self.clock() - RECENT_SECONDS
        recent = [answered for at, _, answered in outcomes if at >= since]
        return Counts(sum(recent), len(recent) - sum(recent))
