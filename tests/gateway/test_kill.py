"""Killed at random moments under load: what was acknowledged is in the store, once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from ratchet.gateway.drain import Drain
from ratchet.gateway.log import segments
from ratchet.store import EventStore
from tests.gateway.conftest import ALWAYS
from tests.servers.mock_backend import MockBackend

AT_ONCE = 8


@contextmanager
def gateway(home: Path, backend: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `ratchet serve` with two workers, in a group of its own that is killed at the end."""
    command = [sys.executable, "-m", "ratchet.cli", "serve", "--port", str(port), "--workers", "2"]
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*command, "--backend", backend, "--rate", "0"],
            env=os.environ | {"RATCHET_HOME": str(home)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def workers(parent: int) -> list[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in path.read_text().split()]


class Load:
    """Asks and rates, never twice, and keeps what was acknowledged."""

    def __init__(self, url: str) -> None:
        self.url, self.number = url, 0
        self.answers: dict[str, str] = {}
        self.rated: set[str] = set()

    async def until_up(self, session: aiohttp.ClientSession) -> None:
        for _ in range(600):
            try:
                async with session.get(f"{self.url}/healthz") as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        raise AssertionError("the gateway does not answer")

    async def keep_on(self, session: aiohttp.ClientSession) -> None:
        while True:
            self.number += 1
            number = self.number
            try:
                await self.one(session, number)
            except (aiohttp.ClientError, ConnectionError, OSError):
                await asyncio.sleep(0.02)

    async def one(self, session: aiohttp.ClientSession, number: int) -> None:
        text, stream = f"question {number}", number % 3 == 0
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            content = await reply.read()
            key, token = reply.headers["x-ratchet-interaction"], reply.headers["x-ratchet-token"]
        if stream and not content.endswith(b"data: [DONE]\n\n"):
            return
        self.answers[key] = text
        events = [
            {"id": f"{key}-{kind}", "interaction_id": key, "token": token, "kind": kind,
             "value": value}
            for kind, value in (("thumbs", "down"), ("comment", text))
        ]  # fmt: skip
        async with session.post(f"{self.url}/v1/feedback", json={"events": events}) as reply:
            if (await reply.json())["accepted"] == 2:
                self.rated |= {event["id"] for event in events}


async def killed(load: Load, child: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Load the gateway; kill all of it, or one worker first and all of it later."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await load.until_up(session)
        tasks = [asyncio.create_task(load.keep_on(session)) for _ in range(AT_ONCE)]
        enough = len(load.answers) + 21  # also where the machine is busy
        await asyncio.sleep(rng.uniform(0.05, 0.8))
        for _ in range(3_000):
            if len(load.answers) >= enough:
                break
            await asyncio.sleep(0.02)
        if rng.random() < 0.4:
            os.kill(rng.choice(workers(child.pid)), signal.SIGKILL)
            await asyncio.sleep(rng.uniform(0.05, 0.8))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def kill_and_count(tmp_path: Path, times: int) -> None:
    rng, home = random.Random(8), tmp_path / "home"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    load = Load(f"http://127.0.0.1:{port}")
    with MockBackend() as mock:
        for _ in range(times):
            with gateway(home, mock.url, port, tmp_path / "log") as child:
                asyncio.run(killed(load, child, rng))
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    drain = Drain(home / "gateway" / "wal", store, young_seconds=0)
    while drain.once():
        pass
    drain.once()
    assert segments(home / "gateway" / "wal") == []
    ids = store.interactions(ALWAYS)["id"].to_pylist()
    kept = store.stored_interactions(ids)
    assert len(load.answers) > 20 * times
    assert load.answers.keys() - kept.keys() == set()
    assert all(kept[key].response == text for key, text in load.answers.items())
    doubled = Counter(interaction.prompt for interaction in kept.values())
    assert doubled.most_common(1)[0][1] == 1
    found = store.feedback(ALWAYS)["id"].to_pylist()
    assert load.rated - set(found) == set()
    assert len(found) == len(set(found))
    assert store.counts()["set_aside"] == 0
    store.close()
    unacknowledged = len(kept) - len(load.answers)
    print(
        f"{times} kills: {len(load.answers)} answers, {len(load.rated)} events acknowledged, "
        f"0 lost, 0 doubled; {unacknowledged} answers recorded that no client saw the end of"
    )


def test_told_to_stop_it_answers_what_it_began_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    load = Load(f"http://127.0.0.1:{port}")

    async def asked_and_stopped(child: subprocess.Popen[bytes]) -> None:
        async with aiohttp.ClientSession() as session:
            await load.until_up(session)
            waiting = asyncio.create_task(load.one(session, 3))
            await asyncio.sleep(0.1)
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
                asyncio.run(asked_and_stopped(child))
            output, _ = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == 0, output
    assert b"no keys are in place" in output
    assert len(load.answers) == 1
    assert segments(home / "gateway" / "wal") == []
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    assert store.counts()["interactions"] == 1
    store.close()


def test_three_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    kill_and_count(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    kill_and_count(tmp_path, 50)
