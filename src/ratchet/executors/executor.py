"""What an executor is, and the one in this process."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from ratchet.errors import WorkerLostError

logger = logging.getLogger(__name__)

Shard = TypeVar("Shard")
Result = TypeVar("Result")

TRIES = 3
"""How often a shard is run whose workers are killed."""


class Executor(Protocol):
    """Anything that runs shards."""

    @property
    def workers(self) -> int:
        """How many shards are worked on at a time."""
        ...

    def run(
        self, work: Callable[[Shard], Result], shards: Iterable[Shard]
    ) -> Iterator[tuple[int, Result]]:
        """Yield the place and the result of each shard, as they come.

        Args:
            work: A pure function of a shard that can be pickled. What it raises is raised here.
            shards: What it is called with, of seconds to minutes of work each; read as they are
                wanted.

        Raises:
            WorkerLostError: The workers of one shard were killed three times.
        """
        ...


class Inline:
    """Runs shards in this process, one after the other."""

    workers = 1

    def run(
        self, work: Callable[[Shard], Result], shards: Iterable[Shard]
    ) -> Iterator[tuple[int, Result]]:
        """Yield places and results in order. See `Executor.run`."""
        for place, shard in enumerate(shards):
            yield place, work(shard)


INLINE = Inline()


class Open(Generic[Shard]):
    """Shards that are not done: read as they are wanted, those that were lost first."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._source = enumerate(shards)
        self._again: deque[tuple[int, Shard]] = deque()
        self._begun: dict[int, Shard] = {}
        self._lost: Counter[int] = Counter()

    def take(self) -> tuple[int, Shard] | None:
        """Return the next shard with its place; None where there is none."""
        taken = self._again.popleft() if self._again else next(self._source, None)
        if taken is not None:
            self._begun[taken[0]] = taken[1]
        return taken

    def done(self, place: int) -> None:
        """Let go of a shard."""
        del self._begun[place]

    def put_back(self, place: int) -> None:
        """Have a shard taken again, before all others."""
        self._again.append((place, self._begun.pop(place)))

    def lost(self, place: int, why: str) -> None:
        """Put back a shard whose worker was killed.

        Raises:
            WorkerLostError: It was its last try.
        """
        logger.warning("a worker was lost at shard %d (%s)", place + 1, why)
        self._lost[place] += 1
        if self._lost[place] >= TRIES:
            raise WorkerLostError(
                f"a worker must live until its shard is done, got {TRIES} that were lost at shard "
                f"{place + 1} ({why}); look whether it needs more memory than there is, then run "
                "the same again: what was kept is not done twice",
                shard=place,
            )
        self.put_back(place)
