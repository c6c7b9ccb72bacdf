"""Work that workers import: pure, killing its worker, failing."""

import os
import signal
import time
from pathlib import Path

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


class Unloadable:
    """What a worker cannot load."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return refuse, (2,)

    def __call__(self, shard: int) -> int:
        return shard
