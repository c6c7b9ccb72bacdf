"""How far a long command is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ratchet.cli.saying import say
from ratchet.files.text import counted

_SECONDS_BETWEEN = 10.0


@dataclass(slots=True)
class Progress:
    """Tells how many rows of a file are done, not more often than every ten seconds."""

    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    told: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.told = self.clock()

    def __call__(self, rows: int) -> None:
        """Take note that so many rows are done."""
        now = self.clock()
        if now - self.told >= _SECONDS_BETWEEN:
            self.told = now
            rate = rows / (now - self.began)
            say(f"{counted(rows, 'row')} so far, {rate:,.0f} a second", err=True)
