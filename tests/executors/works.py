"""Work that workers import: pure, killing its worker, failing."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ratchet.errors import ModelError


def draw(seed: int) -> float:
    return float(np.random.default_rng(seed).normal())


def name_of_process(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def refuse(shard: int) -> int:
    if shard == 2:
        raise ModelError(f"shards below 2 are wanted, got {shard}")
    return shard


def kill_always(shard: int) -> int:
    if shard == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


def kill_once(shard: tuple[str, int]) -> tuple[str, int]:
    """Kill the worker the first time that shard 3 is run; say which shards were begun."""
    folder, number = shard
    with (Path(folder) / f"begun-{number}").open("a") as begun:
        begun.write("x")
    if number == 3 and not (Path(folder) / "killed").exists():
        (Path(folder) / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done", number


def slow_draw(shard: tuple[str, int]) -> float:
    """Say that it began, wait until it may go on, and draw."""
    folder, seed = shard
    with (Path(folder) / f"begun-{seed}").open("a") as begun:
        begun.write("x")
    time.sleep(0.3)
    return draw(seed)


def begin_slowly(work: Any, folder: str, shard: tuple[int, Any]) -> Any:
    """Say that a shard began, give time to kill its worker, and work on it."""
    place, given = shard
    with (Path(folder) / str(place)).open("a") as begun:
        begun.write("x")
    time.sleep(1.0)
    return work(given)


class Killing:
    """An executor whose worker is killed by its second shard, once."""

    def __init__(self, executor: Any, folder: Path) -> None:
        self._executor, self._folder = executor, folder
        self.workers = executor.workers

    def run(self, work: Any, shards: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        killed = self._folder / f"killed-{uuid4().hex}"
        numbered = ((place, shard) for place, shard in enumerate(shards))
        yield from self._executor.run(partial(kill_second, work, str(killed)), numbered)
        assert killed.exists()


def kill_second(work: Any, killed: str, shard: tuple[int, Any]) -> Any:
    place, given = shard
    if place == 1 and not Path(killed).exists():
        Path(killed).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(given)


class Unloadable:
    """What a worker cannot load."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return refuse, (2,)

    def __call__(self, shard: int) -> int:
        return shard
