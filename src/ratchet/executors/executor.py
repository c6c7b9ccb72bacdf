"""What an executor is, the one in this process, and which one a setting names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from ratchet.errors import SettingsError, WorkerLostError

Shard = TypeVar("Shard")
Result = TypeVar("Result")

TRIES = 3
"""How often a shard is run whose workers are killed."""
_FORMS = re.compile(
    r"inline|processes:(?P<workers>[1-9]\d{0,2})"
    r"|(?P<ray>ray)(:(?P<address>[^,\s]+))?(,gpus=(?P<gpus>\d+(\.\d+)?))?"
)


class Executor(Protocol):
    """Anything that runs shards."""

    def run(
        self, work: Callable[[Shard], Result], shards: Sequence[Shard]
    ) -> Iterator[tuple[int, Result]]:
        """Yield the place and the result of each shard, as they come.

        Args:
            work: A pure function of a shard that can be pickled. What it raises is raised here.
            shards: What it is called with, of seconds to minutes of work each.

        Raises:
            WorkerLostError: The workers of one shard were killed three times.
        """
        ...


class Inline:
    """Runs shards in this process, one after the other."""

    def run(
        self, work: Callable[[Shard], Result], shards: Sequence[Shard]
    ) -> Iterator[tuple[int, Result]]:
        """Yield places and results in order. See `Executor.run`."""
        for place, shard in enumerate(shards):
            yield place, work(shard)


INLINE = Inline()


class Losses:
    """Counts the workers that were lost, shard by shard."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._lost: Counter[int] = Counter()

    def add(self, place: int, why: str) -> None:
        """Count one.

        Raises:
            WorkerLostError: It was the shard's last try.
        """
        self._lost[place] += 1
        if self._lost[place] >= TRIES:
            raise WorkerLostError(
                f"a worker must live until its shard is done, got {TRIES} that were lost at shard "
                f"{place + 1} of {self._total} ({why}); look whether it needs more memory than "
                "there is, then run the same again: what was kept is not done twice",
                shard=place,
            )


def executor_of(text: str) -> Executor:
    """Return the executor that a setting names.

    Args:
        text: `inline`, `processes:N`, `ray` (the cluster that this machine is part of),
            `ray:local` (a cluster of this machine alone, for this process) or `ray:ADDRESS`;
            after `ray` may stand `,gpus=G`, the part of a GPU that a shard is given.

    Raises:
        SettingsError: It is none of these.
    """
    from ratchet.executors.on_ray import OnRay
    from ratchet.executors.several import Processes

    found = _FORMS.fullmatch(text.strip())
    if found is None:
        raise SettingsError(
            "an executor must be inline, processes:N or ray[:ADDRESS][,gpus=G], got "
            f"{text!r}; correct RATCHET_EXECUTOR"
        )
    if found["ray"]:
        return OnRay(found["address"] or "auto", gpus=float(found["gpus"] or 0.0))
    return Processes(int(found["workers"])) if found["workers"] else INLINE
