"""A gateway in processes of its own, load that keeps what was acknowledged, and who is alive."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from ratchet.gateway.drain import Drain
from ratchet.gateway.log import segments
from ratchet.store import EventStore
from tests.gateway.conftest import ALWAYS

PATIENCE_SECONDS = 120.0  # nothing takes that long, however busy the machine
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
SERVE = ("-m", "ratchet.cli", "serve")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def gateway(
    home: Path,
    backend: str,
    port: int,
    log: Path,
    *,
    workers: int = 2,
    program: Sequence[str] = SERVE,
    more: Sequence[str] = (),
    **variables: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `ratchet serve` in a group of its own, all of which is killed at the end."""
    words = ["--port", str(port), "--workers", str(workers), "--backend", backend, "--rate", "0"]
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *program, *words, *more],
            env=os.environ | {"RATCHET_HOME": str(home)} | variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            yield child
        finally:
            kill_group(child)


def _end_with_parent() -> None:
    """Have the kernel end a gateway whose tests were killed themselves."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a gateway with its workers, and wait until none of them holds anything any more."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while living(child.pid):
        assert time.monotonic() < deadline, f"{living(child.pid)} outlive a SIGKILL"
        time.sleep(0.01)


def living(group: int) -> list[int]:
    """Return the processes of a group that are alive; what nobody waited for yet is not."""
    return [pid for pid, state, its in _processes() if its == group and state not in "ZX"]


def _processes() -> Iterator[tuple[int, str, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _parent, group = path.read_text().rpartition(")")[2].split()[:3]
            yield int(path.parent.name), state, int(group)


def workers(parent: int) -> list[int]:
    """Return the living children of a gateway."""
    path = Path(f"/proc/{parent}/task/{parent}/children")
    found = [int(pid) for pid in path.read_text().split()]
    return [pid for pid in found if pid in living(parent)]


class Load:
    """Asks and rates, never twice, and keeps what was acknowledged.

    Attributes:
        answers: What each answer that came with a token was asked, by its id.
        rated: Ids of the feedback that was taken.
        unrecorded: How many answers came without a record, and said so.
    """

    def __init__(self, url: str, *, first: int = 0, seconds: float = 10.0) -> None:
        self.url, self.number = url, first
        self.answers: dict[str, str] = {}
        self.rated: set[str] = set()
        self.unrecorded = 0
        self._limit = aiohttp.ClientTimeout(total=seconds)  # a stopped process says nothing

    @property
    def acknowledged(self) -> int:
        return len(self.answers) + len(self.rated)

    def with_that_of(self, other: Load) -> Load:
        """Return what both were told together."""
        both = Load(self.url)
        both.answers = self.answers | other.answers
        both.rated = self.rated | other.rated
        return both

    def session(self) -> aiohttp.ClientSession:
        # a connection for each request: the kernel hands it to any worker that is alive
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        return aiohttp.ClientSession(connector=connector, timeout=self._limit)

    async def until_up(self, session: aiohttp.ClientSession) -> None:
        async def is_up() -> bool:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{self.url}/healthz") as reply:
                    return reply.status == 200
            return False

        await until(is_up, "the gateway does not answer")

    async def until_more(self, wanted: int) -> None:
        """Wait until so many more events were acknowledged."""
        goal = self.acknowledged + wanted

        async def is_there() -> bool:
            return self.acknowledged >= goal

        await until(is_there, f"{goal} events acknowledged, got {self.acknowledged}")

    async def keep_on(self, session: aiohttp.ClientSession) -> None:
        while True:
            self.number += 1
            number = self.number
            try:
                await self.one(session, number)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.02)

    async def one(self, session: aiohttp.ClientSession, number: int) -> None:
        text, stream = f"question {number}", number % 3 == 0
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            content = await reply.read()
            if reply.status != 200 or reply.headers.get("x-ratchet-recorded") != "yes":
                self.unrecorded += 1
                await asyncio.sleep(0.02)
                return
            key, token = reply.headers["x-ratchet-interaction"], reply.headers["x-ratchet-token"]
        if stream and not content.endswith(b"data: [DONE]\n\n"):
            self.unrecorded += 1
            return
        self.answers[key] = text
        events = [
            {"id": f"{key}-{kind}", "interaction_id": key, "token": token, "kind": kind,
             "value": value}
            for kind, value in (("thumbs", "down"), ("comment", text))
        ]  # fmt: skip
        async with session.post(f"{self.url}/v1/feedback", json={"events": events}) as reply:
            if reply.status == 200 and (await reply.json())["accepted"] == 2:
                self.rated |= {event["id"] for event in events}


async def until(
    says: Callable[[], Awaitable[bool]], what: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + seconds
    while not await says():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Kept:
    """What was acknowledged, and what the store has of it."""

    acknowledged: int
    stored: int
    doubled: int
    unseen: int  # answers that are stored and whose end no client saw

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} events acknowledged, {self.stored} of them stored, "
            f"{self.doubled} doubled; {self.unseen} answers recorded that no client saw the end of"
        )


def drain_all(log: Path, store: EventStore) -> None:
    """Bring what is left of a log to the store; every segment goes, young ones a moment later."""
    drain, deadline = Drain(log, store), time.monotonic() + PATIENCE_SECONDS
    while drain.once() or segments(log):
        assert time.monotonic() < deadline, f"{segments(log)} are never deleted"
        time.sleep(0.01)
    drain.close()


def check_kept(load: Load, home: Path, url: str) -> Kept:
    """Drain what is left, and see that each acknowledged event is stored, once and as it was."""
    store = EventStore.open(url)
    drain_all(home / "gateway" / "wal", store)
    ids = store.interactions(ALWAYS)["id"].to_pylist()
    kept = store.stored_interactions(ids)
    assert load.answers.keys() - kept.keys() == set()
    assert all(kept[key].response == text for key, text in load.answers.items())
    asked = Counter(interaction.prompt for interaction in kept.values())
    doubled = sum(count - 1 for count in asked.values()) + len(ids) - len(set(ids))
    assert doubled == 0
    found = store.feedback(ALWAYS)["id"].to_pylist()
    assert load.rated - set(found) == set()
    assert len(found) == len(set(found))
    assert store.counts()["set_aside"] == 0
    store.close()
    stored = len(load.answers.keys() & kept.keys()) + len(load.rated & set(found))
    return Kept(load.acknowledged, stored, doubled, len(kept) - len(load.answers))
