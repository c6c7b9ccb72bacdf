"""Figures that take longer than a page may: made in the background, shown with their age.

    found = refreshed.get("chart thumbs_down_rate", make)
    found.value, found.made_at, found.problem        # all None while it is made for the first time

One thread makes one figure at a time. A figure is made anew when it is asked for and older than
`REFRESHED_AFTER`; until then, and meanwhile, the one of before is shown.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from ratchet.errors import RatchetError

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
    """

    value: Any = None
    made_at: datetime | None = None
    problem: str | None = None
    being_made: bool = False


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

    def get(self, name: str, make: Callable[[], Any]) -> Figure:
        """Return a figure as it is, and have it made anew where it is old or missing.

        Args:
            name: Names all that the figure depends on.
            make: Makes it; called in another thread, perhaps later.
        """
        with self._lock:
            known = self._figures.get(name, Figure())
            is_old = known.made_at is None or self.clock() - known.made_at >= REFRESHED_AFTER
            if is_old and name not in self._making:
                self._making.add(name)
                self._worker.submit(self._make, name, make)
            making = name in self._making
        return Figure(known.value, known.made_at, known.problem, making)

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

    def _make(self, name: str, make: Callable[[], Any]) -> None:
        value, problem = None, None
        try:
            value = make()
        except RatchetError as error:
            problem = str(error)
        except Exception:
            logger.exception("a figure could not be made: %r", name)
            problem = "it could not be made; the log of the pages says why"
        with self._lock:
            self._figures[name] = Figure(value, self.clock(), problem)
            self._figures.move_to_end(name)
            self._making.discard(name)
            while len(self._figures) > _MOST:
                self._figures.popitem(last=False)
