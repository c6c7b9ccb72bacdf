"""Killed at random moments under load: what was acknowledged is in the store, once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from ratchet.gateway.log import segments
from ratchet.store import EventStore
from tests.gateway.killing import (
    Load,
    check_kept,
    free_port,
    gateway,
    kill_group,
    until,
    workers,
)
from tests.servers.mock_backend import MockBackend

AT_ONCE = 8


async def killed(load: Load, child: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Load the gateway; kill all of it, or one worker first and all of it later."""
    async with load.session() as session:
        await load.until_up(session)
        tasks = [asyncio.create_task(load.keep_on(session)) for _ in range(AT_ONCE)]
        await load.until_more(rng.randrange(20, 200))
        if rng.random() < 0.4:
            os.kill(rng.choice(workers(child.pid)), signal.SIGKILL)
            await load.until_more(rng.randrange(1, 200))
        kill_group(child)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def kill_and_count(tmp_path: Path, times: int) -> None:
    rng, home, port = random.Random(8), tmp_path / "home", free_port()
    load = Load(f"http://127.0.0.1:{port}")
    with MockBackend() as mock:
        for _ in range(times):
            with gateway(home, mock.url, port, tmp_path / "log") as child:
                asyncio.run(killed(load, child, rng))
    kept = check_kept(load, home, f"sqlite:///{home / 'store.db'}")
    assert kept.acknowledged >= 20 * times
    print(f"{times} kills: {kept}")


def test_told_to_stop_it_answers_what_it_began_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    load = Load(f"http://127.0.0.1:{port}")

    async def asked_and_stopped(child: subprocess.Popen[bytes], mock: MockBackend) -> None:
        async def is_asked() -> bool:
            return bool(mock.seen)

        async with load.session() as session:
            await load.until_up(session)
            waiting = asyncio.create_task(load.one(session, 3))
            await until(is_asked, "the backend is not asked")
            child.send_signal(signal.SIGTERM)
            await waiting

    with MockBackend(delay=0.4) as mock:
        command = [sys.executable, "-m", "ratchet.cli", "serve", "--port", str(port)]
        child = subprocess.Popen(
            [*command, "--backend", mock.url],
            env=os.environ | {"RATCHET_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            with contextlib.suppress(aiohttp.ClientError):  # feedback comes when it has stopped
                asyncio.run(asked_and_stopped(child, mock))
            output, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0, output
    assert b"no keys are in place" in output
    assert len(load.answers) == 1
    assert segments(home / "gateway" / "wal") == []
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    assert store.counts()["interactions"] == 1
    store.close()


@pytest.mark.slow
def test_three_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    kill_and_count(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    kill_and_count(tmp_path, 50)
