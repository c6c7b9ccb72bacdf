"""Gateway processes killed and stopped at random moments under load, hundreds of times."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.ledger import Row
from tests.gateway.killing import (
    Load,
    check_kept,
    free_port,
    gateway,
    kill_group,
    living,
    until,
)
from tests.servers.mock_backend import MockBackend

AT_ONCE = 8
WORKERS = 6
SEGMENT_BYTES = 8_000  # some ten answers: kills meet rotations too
FORKED = ("-m", "tests.faults.forked_gateway")


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def forked_workers(parent: int) -> list[int]:
    """Return the living workers: children of the process that forks them."""
    found = {worker for child in _children(parent) for worker in _children(child)}
    return [pid for pid in living(parent) if pid in found]


def has_recorded(pid: int) -> bool:
    """Tell whether a worker has written to a segment of its own."""
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(link.readlink())
                if (".wal" in target or "/wal/" in target) and link.stat().st_size > 0:
                    return True
    return False


def killed(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@dataclass
class Killer:
    """Does things to the processes of a gateway and counts them."""

    child: subprocess.Popen[bytes]
    rng: random.Random
    load: Load
    kills: int = 0
    in_start: int = 0
    stops: int = 0
    seen: set[int] = field(default_factory=set)

    async def newly_started(self) -> list[int]:
        """Wait for workers that were not there before."""
        found: list[int] = []

        async def is_there() -> bool:
            found[:] = [pid for pid in forked_workers(self.child.pid) if pid not in self.seen]
            return bool(found)

        await until(is_there, "no worker is started again")
        self.seen |= set(found)
        return found

    def kill(self, pid: int) -> None:
        recorded = has_recorded(pid)
        if killed(pid):
            self.kills += 1
            self.in_start += not recorded

    async def kill_some(self) -> None:
        alive = forked_workers(self.child.pid)
        self.seen |= set(alive)
        for pid in self.rng.sample(alive, self.rng.randint(1, len(alive))) if alive else ():
            self.kill(pid)

    async def kill_in_start(self, most_seconds: float) -> None:
        """Kill workers that are being started, each at a moment of its own."""
        await self.kill_some()

        async def one(pid: int) -> None:
            await asyncio.sleep(self.rng.uniform(0.0, most_seconds))
            self.kill(pid)

        found = await self.newly_started()
        await asyncio.gather(*map(one, found))

    async def stop_some(self) -> None:
        """Stop workers, or all of the gateway, for a moment."""
        alive = forked_workers(self.child.pid)
        stopped = [self.child.pid] if self.rng.random() < 0.3 else self.rng.sample(alive, 1)
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(0.05, 0.6))
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stops += len(stopped)

    async def run(self, kills: int) -> None:
        """Keep on until so many were killed; between two faults something is acknowledged."""
        async with self.load.session() as session:
            await self.load.until_up(session)
            self.seen |= set(forked_workers(self.child.pid))
            tasks = [asyncio.create_task(self.load.keep_on(session)) for _ in range(AT_ONCE)]
            while self.kills < kills:
                chosen = self.rng.random()
                if chosen < 0.45:
                    await self.kill_in_start(0.5)
                elif chosen < 0.85:
                    await self.kill_some()
                else:
                    await self.stop_some()
                await self.load.until_more(self.rng.randrange(1, 60))
            kill_group(self.child)  # the parent too
            self.kills += 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def kill_many(
    home: Path, url: str, kills: int, lives: int, *, more: tuple[str, ...] = ()
) -> tuple[Row, Load]:
    """Kill in bulk; the parent dies as often as it has lives."""
    rng, port, row = random.Random(20), free_port(), Row()
    load = Load(f"http://127.0.0.1:{port}")
    stops, began = 0, time.monotonic()
    with MockBackend() as mock:
        for life in range(lives):
            with gateway(
                home, mock.url, port, home.parent / "log", workers=WORKERS, program=FORKED,
                more=more, RATCHET_STORE_URL=url, RATCHET_TEST_SEGMENT_BYTES=str(SEGMENT_BYTES),
            ) as child:  # fmt: skip
                killer = Killer(child, rng, load)
                asyncio.run(killer.run(kills // lives))
            row.kills, row.in_start = row.kills + killer.kills, row.in_start + killer.in_start
            stops += killer.stops
            print(f"life {life}: {row.kills} kills, {time.monotonic() - began:.0f} s", flush=True)
    kept = check_kept(load, home, url)
    row.acknowledged, row.stored, row.doubled = kept.acknowledged, kept.stored, kept.doubled
    row.name = "gateway under load"
    row.faults = f"workers and parent killed, stopped {stops} times, at start and rotation"
    return row, load


@pytest.mark.slow
def test_a_few_kills_in_bulk_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'home' / 'store.db'}"
    row, _ = kill_many(tmp_path / "home", url, 12, 1)
    assert row.kills >= 12
    assert row.acknowledged == row.stored > 0
    assert row.doubled == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sync", [False, True], ids=["kernel", "disk"])
def test_hundreds_of_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, store_url: str, row: Row, sync: bool
) -> None:
    more = ("--sync",) if sync else ()
    done, _ = kill_many(tmp_path / "home", store_url, 140, 4, more=more)
    row.__dict__.update(done.__dict__)
    row.name += ", --sync" if sync else ""
    row.database = store_url.partition(":")[0].partition("+")[0]
    assert row.kills >= 140
    assert row.in_start >= 30
    assert row.acknowledged == row.stored > row.kills
