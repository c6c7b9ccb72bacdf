"""What watching costs in a year: seconds a pass, and the size of Prefect's and MLflow's databases.

    python -m tests.benchmarks.upkeep [--passes 300]

A temporary home is served as `ratchet up` does: Prefect and MLflow on SQLite, and a worker. The
deployment `analyze` runs so many times, `rollout` half as often. Then what `prune` deletes goes as
if the time that passes are kept were over, and the events as Prefect's own service deletes them
after a week. What is in the databases between these steps is the base of the arithmetic.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from ratchet.operate.flow_runs import EndedRuns
from ratchet.operate.retention import RetentionConfig
from ratchet.operate.sqlite_files import space_of
from ratchet.records import Interaction, Message, Thumbs
from ratchet.servers import Servers
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from tests.benchmarks.provenance import ROOT, commit

PASSES_A_DAY, LOOKS_A_DAY, DAYS = 288, 144, 365
EVENT_DAYS = 7
"""Prefect's own retention of events, PREFECT_SERVER_EVENTS_RETENTION_PERIOD."""
SETTLE_SECONDS = 12.0
LIMIT = 2e9
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
EVENTS = ("events", "event_resources")


@dataclass(frozen=True)
class Run:
    """One run of a deployment: seconds of its process, and of the flow in it."""

    process: float
    flow: float


class Home:
    """A served home whose deployments run when they are told to."""

    def __init__(self, folder: Path) -> None:
        ours = ("PREFECT_", "MLFLOW_", "RATCHET_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environ["RATCHET_HOME"] = str(folder / "home")
        self.settings: Settings = load_settings(environ, ROOT)
        self.servers = Servers(settings=self.settings, say=lambda _text: None)
        _fill(self.settings, datetime.now(UTC))
        self.servers.start(prefect_port=4_900, mlflow_port=5_900, environ=environ)
        self.api = self.servers.prefect_api
        for name in ("analyze", "rollout", "loop", "prune"):
            self.request("PATCH", f"deployments/{self.deployment(name)}", {"paused": True})

    @property
    def databases(self) -> dict[str, Path]:
        return {
            "Prefect": self.settings.prefect_home / "prefect.db",
            "MLflow": self.settings.home / "mlflow" / "mlflow.db",
        }

    def request(self, method: str, path: str, body: Any = None) -> Any:
        while True:
            answer = httpx.request(method, f"{self.api}/{path}", json=body, timeout=60.0)
            if answer.status_code != 503:  # its database is busy
                break
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> str:
        return str(self.request("GET", f"deployments/name/{name}/{name}")["id"])

    def run(self, deployment: str, options: dict[str, Any]) -> Run:
        body = {"parameters": {"options": options}, "state": {"type": "SCHEDULED"}}
        key = self.request("POST", f"deployments/{deployment}/create_flow_run", body)["id"]
        while (found := self.request("GET", f"flow_runs/{key}"))["state"]["type"] not in ENDED:
            time.sleep(0.2)
        assert found["state"]["type"] == "COMPLETED", found["state"]
        states = self.request("GET", f"flow_run_states/?flow_run_id={key}")
        at = {state["name"]: datetime.fromisoformat(state["timestamp"]) for state in states}
        ended = at["Completed"]
        return Run(
            (ended - at["Submitting"]).total_seconds(), (ended - at["Running"]).total_seconds()
        )


def _fill(settings: Settings, now: datetime) -> None:
    """Two and a half days of one version, one answer in four minutes, as good at the end."""
    rng = np.random.default_rng(5)
    store = EventStore.open(settings.store_url)
    interactions, feedback = [], []
    for number in range(900):
        moment = now - timedelta(minutes=4 * (900 - number))
        key = f"a{number}"
        interactions.append(
            Interaction(
                id=key, session_id=key, user_id="u", created_at=moment, model_version="router/1",
                messages=(Message(role="user", content="where is it"),), response="delivery",
            )
        )  # fmt: skip
        value = "down" if rng.random() < 0.1 else "up"
        feedback.append(Thumbs(id=f"t{key}", interaction_id=key, created_at=moment, value=value))
    store.add_interactions(interactions)
    store.add_feedback(feedback)
    store.close()


def used(path: Path) -> int:
    """Return the bytes that something is in."""
    space = space_of(path)
    return space.bytes - space.free


def delete_events(path: Path) -> None:
    """Delete all events, as `vacuum_old_events` of Prefect's server does a week later."""
    with closing(sqlite3.connect(path, timeout=60.0)) as connection, connection:
        for table in EVENTS:
            connection.execute(f"DELETE FROM {table}")


@contextmanager
def served() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="ratchet-upkeep-"))
    home = None
    try:
        home = Home(folder)
        yield home
    finally:
        if home is not None:
            home.servers.stop()
        shutil.rmtree(folder)


def measure(home: Home, passes: int) -> tuple[list[Run], list[Run], dict[str, list[int]], int]:
    """Run the passes and prune them.

    Returns:
        The passes, the looks, bytes by database (before, after the runs, after pruning, without
        events), and how many flow runs were deleted.
    """
    analyze, rollout = home.deployment("analyze"), home.deployment("rollout")
    options = {"cycle": False, "watch": {"baseline_days": 2.0}}
    home.run(analyze, options)  # freezes the baseline and opens the board
    home.run(rollout, {})
    time.sleep(SETTLE_SECONDS)
    delete_events(home.databases["Prefect"])
    sizes: dict[str, list[int]] = {name: [] for name in home.databases}

    def note() -> None:
        time.sleep(SETTLE_SECONDS)
        for name, path in home.databases.items():
            sizes[name].append(used(path))

    note()
    watched, looked = [], []
    for number in range(passes):
        watched.append(home.run(analyze, options))
        if number % 2:
            looked.append(home.run(rollout, {}))
    note()
    soon = datetime.now(UTC) + timedelta(minutes=1)
    deleted = EndedRuns(home.api, soon, passes=True, own_server=True).delete()
    note()
    delete_events(home.databases["Prefect"])
    note()
    return watched, looked, sizes, deleted


def report(watched: list[Run], looked: list[Run], sizes: dict[str, list[int]]) -> str:
    """Return the figures, with the arithmetic that leads from a pass to a year."""
    passes = len(watched) + len(looked)
    days = RetentionConfig().passes_days or 0
    a_day = PASSES_A_DAY + LOOKS_A_DAY
    lines = [
        "| a run | runs | seconds of its process, median | of which the flow, median |",
        "|---|---|---|---|",
    ]
    for name, runs in (("analyze, five-minute pass", watched), ("rollout, look", looked)):
        process, flow = (median(getattr(r, part) for r in runs) for part in ("process", "flow"))
        lines.append(f"| {name} | {len(runs)} | {process:.2f} | {flow:.2f} |")
    lines += ["", "| database | bytes a run | runs and logs | events | the rest | a year, MB |"]
    lines.append("|---|---|---|---|---|---|")
    steps = []
    for name, (first, last, pruned, bare) in sizes.items():
        parts = [last - first, last - pruned, pruned - bare, max(0, bare - first)]
        a_run, runs_, events, rest = (part / passes for part in parts)
        year = first + a_day * (days * runs_ + EVENT_DAYS * events + DAYS * rest)
        cells = " | ".join(f"{part:,.0f}" for part in (a_run, runs_, events, rest, year / 1e6))
        lines.append(f"| {name} | {cells} |")
        steps.append(
            f"- {name}: {first / 1e6:.1f} MB at first + {a_day} runs a day x ({days} days x "
            f"{runs_:,.0f} bytes of runs and logs + {EVENT_DAYS} days x {events:,.0f} bytes of "
            f"events + {DAYS} days x {rest:,.0f} bytes that nothing deletes) = "
            f"{year / 1e6:,.0f} MB. If nothing were deleted: "
            f"{(first + a_day * DAYS * a_run) / 1e6:,.0f} MB. "
            f"{'Under' if year < LIMIT else 'OVER'} 2 GB."
        )
    return "\n".join([*lines, "", *steps])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=300, help="five-minute passes to run")
    passes = parser.parse_args().passes
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}.\n",
        flush=True,
    )
    with served() as home:
        watched, looked, sizes, deleted = measure(home, passes)
    print(report(watched, looked, sizes))
    print(f"\n{deleted} flow runs deleted.")


if __name__ == "__main__":
    main()
