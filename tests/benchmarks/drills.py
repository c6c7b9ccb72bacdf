"""Disasters on purpose: what is lost, and how long until users are answered again.

    make bench PART=drills

Each drill runs a real gateway under load, takes a backup meanwhile, goes on, destroys something,
and brings it back as docs/operations.md says. It counts answers that were acknowledged and are
gone, and how old the oldest of them was, which is the recovery point; and the seconds from the
disaster until a user is answered, the recovery time, of which the restore is a part. A drill fails
where anything acknowledged before the backup began is gone, or `ratchet verify` finds damage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from ratchet.gateway.drain import Drain
from ratchet.records import Interaction, Message
from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.benchmarks.provenance import commit
from tests.gateway.killing import Load
from tests.servers.mock_backend import MockBackend

AT_ONCE = 4


@dataclass(slots=True)
class Timed(Load):
    """Load that remembers when each answer was acknowledged."""

    url: str
    number: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    rated: set[str] = field(default_factory=set)
    at: dict[str, float] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)

    async def one(self, session: aiohttp.ClientSession, number: int) -> None:
        """Ask once; an answer that came with the word that it is recorded is acknowledged."""
        body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            await reply.read()
            self.statuses.append(reply.status)
            if reply.status == 200 and reply.headers.get("x-ratchet-recorded") == "yes":
                key = reply.headers["x-ratchet-interaction"]
                self.answers[key], self.at[key] = body["messages"][0]["content"], time.time()
            else:
                await asyncio.sleep(0.05)


@dataclass(slots=True)
class Home:
    """An installation under test."""

    folder: Path
    backend: str
    port: int
    rows: int
    fallback: str | None = None
    child: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """Its home folder."""
        return self.folder / "home"

    def environment(self) -> dict[str, str]:
        """Return what its commands run with."""
        return {**os.environ, "RATCHET_HOME": str(self.home)}

    def fill(self) -> None:
        """Store rows, so that a backup has something to copy; make MLflow's database."""
        settings = load_settings({"RATCHET_HOME": str(self.home)}, self.folder)
        settings.make_home()
        with closing(EventStore.open(settings.store_url, assistant=settings.model_name)) as store:
            for start in range(0, self.rows, 5_000):
                rows = [_row(number) for number in range(start, min(start + 5_000, self.rows))]
                store.add_interactions(rows)
        uri, artifacts = settings.tracking_uri, settings.artifacts
        Tracker(uri, artifacts=artifacts, model_name=settings.model_name).champion()

    def start(self) -> None:
        """Start the gateway."""
        command = [sys.executable, "-m", "ratchet.cli", "serve", "--port", str(self.port)]
        command += ["--backend", self.backend, "--rate", "0"]
        command += ["--fallback", self.fallback] if self.fallback else []
        with (self.folder / "serve.log").open("ab") as log:
            self.child = subprocess.Popen(
                command,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill all of the gateway's processes at once."""
        if self.child is not None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            self.child = None

    def ratchet(self, *words: object) -> float:
        """Run a command and return its seconds.

        Raises:
            RuntimeError: It fails.
        """
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "ratchet.cli", *map(str, words)],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")
        return time.monotonic() - began

    def stored(self, keys: list[str]) -> set[str]:
        """Return which answers are in the store, after the log was brought there."""
        settings = load_settings({"RATCHET_HOME": str(self.home)}, self.folder)
        with closing(EventStore.open(settings.store_url)) as store:
            drain = Drain(self.home / "gateway" / "wal", store)
            while drain.once():
                pass
            drain.close()
            return set(store.stored_interactions(keys))


@dataclass(frozen=True, slots=True)
class Result:
    """What a drill showed.

    Attributes:
        acknowledged: Answers in all.
        lost: Of these, gone.
        point: Seconds before the disaster at which the oldest lost one was acknowledged.
        backup: Seconds that the backup took.
        restore: Seconds that the restore took.
        time: Seconds from the disaster to the first answer.
    """

    name: str
    acknowledged: int
    lost: int
    point: float
    backup: float
    restore: float
    time: float


def _row(number: int) -> Interaction:
    return Interaction(
        id=f"old-{number}",
        session_id=f"s{number}",
        user_id=f"u{number % 1_000}",
        created_at=datetime(2026, 1, 5, 8, tzinfo=UTC),
        model_version="support-router/1",
        segment="all",
        messages=(Message(role="user", content=f"where is parcel {number}? " * 8),),
        response=f"it is at the depot, number {number}. " * 8,
    )


def lose_store(home: Home) -> None:
    """Delete the store's files under the running gateway, then kill it."""
    for path in home.home.glob("store.db*"):
        path.unlink()
    home.kill()


def lose_mlflow(home: Home) -> None:
    """Delete MLflow's database and artifacts; the gateway goes on."""
    shutil.rmtree(home.home / "mlflow")


def lose_disk(home: Home) -> None:
    """Lose the whole home."""
    home.kill()
    shutil.rmtree(home.home)


def restore_all(home: Home, backup: Path) -> float:
    """Bring everything back and start the gateway."""
    took = home.ratchet("restore", backup, "--replace")
    home.start()
    return took


def restore_mlflow(home: Home, backup: Path) -> float:
    """Bring MLflow's files alone back, while users are answered."""
    began = time.monotonic()
    home.ratchet("verify", backup)
    shutil.copytree(backup / "home" / "mlflow", home.home / "mlflow")
    return time.monotonic() - began


async def drill(
    name: str,
    home: Home,
    lose: Callable[[Home], None],
    back: Callable[[Home, Path], float],
    seconds: float,
) -> Result:
    """Run one drill on a home with a gateway."""
    load, backup = Timed(f"http://127.0.0.1:{home.port}"), home.folder / "backup"
    async with aiohttp.ClientSession() as session:
        home.start()
        await load.until_up(session)
        tasks = [asyncio.create_task(load.keep_on(session)) for _ in range(AT_ONCE)]
        await asyncio.sleep(seconds)
        began = time.time()
        took = await asyncio.to_thread(home.ratchet, "backup", backup)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(lose, home)
        lost_at = time.time()
        before = {key: at for key, at in load.at.items() if at <= lost_at}
        restored = await asyncio.to_thread(back, home, backup)
        first = await _first_answer(load, lost_at)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    home.kill()
    there = home.stored(list(before))
    gone = {key: at for key, at in before.items() if key not in there}
    early = [key for key, at in gone.items() if at < began]
    assert not early, f"{len(early)} answers from before the backup are gone"
    home.ratchet("verify")
    point = lost_at - min(gone.values()) if gone else 0.0
    return Result(name, len(before), len(gone), point, took, restored, first - lost_at)


async def _first_answer(load: Timed, after: float) -> float:
    for _ in range(2_400):
        late = [at for at in load.at.values() if at > after]
        if late:
            return min(late)
        await asyncio.sleep(0.05)
    raise AssertionError("nobody was answered for two minutes")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def both_backends_dead(folder: Path, rows: int, seconds: float) -> Result:
    """Kill both backends under load, wait, and start one again."""
    dead = False

    def behaviour(_: dict[str, object]) -> int | str | None:
        return "drop" if dead else None

    with MockBackend(behaviour) as first, MockBackend(behaviour) as second:
        home = Home(folder, first.url, _free_port(), rows, fallback=second.url)
        home.fill()
        load = Timed(f"http://127.0.0.1:{home.port}")
        async with aiohttp.ClientSession() as session:
            home.start()
            await load.until_up(session)
            tasks = [asyncio.create_task(load.keep_on(session)) for _ in range(AT_ONCE)]
            await asyncio.sleep(seconds)
            dead = True
            await asyncio.sleep(seconds)
            refused = sorted({status for status in load.statuses[-20:] if status != 200})
            assert refused, "users are told when nobody answers"
            dead, back = False, time.time()
            first_answer = await _first_answer(load, back)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        home.kill()
        there = home.stored(list(load.at))
        gone = len(load.at) - len(there)
        assert not gone, f"{gone} answers are gone"
        print(f"both backends dead: users were told {refused}")
        home.ratchet("verify")
        return Result("both backends dead", len(load.at), gone, 0.0, 0.0, 0.0, first_answer - back)


DRILLS = {
    "store lost": (lose_store, restore_all),
    "MLflow lost": (lose_mlflow, restore_mlflow),
    "the home's disk lost": (lose_disk, restore_all),
}


def run(rows: int, seconds: float) -> list[Result]:
    """Run every drill, each in a folder of its own."""
    results = []
    for name, (lose, back) in DRILLS.items():
        with tempfile.TemporaryDirectory(prefix="ratchet-drill-") as folder, ExitStack() as stack:
            backend = stack.enter_context(MockBackend())
            home = Home(Path(folder), backend.url, _free_port(), rows)
            stack.callback(home.kill)
            home.fill()
            results.append(asyncio.run(drill(name, home, lose, back, seconds)))
    with tempfile.TemporaryDirectory(prefix="ratchet-drill-") as folder:
        results.append(asyncio.run(both_backends_dead(Path(folder), rows, seconds)))
    return results


def as_markdown(results: list[Result]) -> str:
    """Return the table of docs/reliability.md."""
    lines = [
        "| drill | acknowledged | lost | recovery point | backup | restore | recovery time |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for item in results:
        took = [f"{taken:.1f} s" if item.backup else "" for taken in (item.backup, item.restore)]
        lines.append(
            f"| {item.name} | {item.acknowledged:,} | {item.lost:,} | {item.point:.1f} s | "
            f"{took[0]} | {took[1]} | {item.time:.1f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows that are there before")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load before and after")
    options = parser.parse_args()
    results = run(options.rows, options.seconds)
    print(f"commit {commit()}, {options.rows:,} interactions there before")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
