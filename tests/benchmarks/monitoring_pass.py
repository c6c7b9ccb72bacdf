"""What a pass of monitoring costs; prints a Markdown table.

    python -m tests.benchmarks.monitoring_pass [--hourly 20000]

One pass over a million events that came since the last one, and a five-minute pass at 20,000
interactions an hour on a short and on a ten times longer history. SQLite, in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from ratchet.analyze.monitoring.watch import WatchConfig, watch
from ratchet.store import EventStore
from ratchet.store.tables import FEEDBACK_EVENTS, INTERACTIONS
from tests.benchmarks.provenance import commit

START = datetime(2026, 3, 2, tzinfo=UTC)
AN_HOUR = 20_000
CHUNK = 20_000
CONFIG = WatchConfig(baseline_days=1.0)


def fill(url: str, version: str, start: datetime, hours: int, hourly: int, seed: int) -> None:
    """Write traffic of one version straight into the tables: 1.5 feedback events an answer."""
    rng = np.random.default_rng(seed)
    engine = sa.create_engine(url)
    step, interactions = 3_600_000_000 // hourly, hours * hourly
    first = int((start - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
    with engine.begin() as connection:
        connection.execute(sa.text("PRAGMA synchronous=OFF"))
        for begin in range(0, interactions, CHUNK):
            numbers = np.arange(begin, min(begin + CHUNK, interactions))
            rows, events = _rows(version, numbers, first + numbers * step, rng)
            connection.execute(sa.insert(INTERACTIONS), rows)
            connection.execute(sa.insert(FEEDBACK_EVENTS), events)
    engine.dispose()


def _rows(
    version: str,
    numbers: np.ndarray[Any, Any],
    times: np.ndarray[Any, Any],
    rng: np.random.Generator,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows, events = [], []
    thumbs, down = rng.random(numbers.size) < 0.1, rng.random(numbers.size) < 0.08
    again, done = rng.random(numbers.size) < 0.1, rng.random(numbers.size) < 0.4
    latency = rng.lognormal(0.0, 0.4, numbers.size)
    for place, (number, moment) in enumerate(zip(numbers.tolist(), times.tolist(), strict=True)):
        key = f"{version}-{number}"
        text = "card payments and transfers " * 4
        rows.append(
            {
                "id": key, "digest": "0" * 16, "session_id": key, "user_id": f"u{number % 5000}",
                "created_at": moment, "received_at": moment, "model_version": version,
                "segment": ("web", "app", "phone")[number % 3], "prompt": text,
                "messages": [{"role": "user", "content": text}], "response": text,
                "latency_seconds": float(latency[place]), "error": None, "metadata": {},
            }
        )  # fmt: skip
        given = [("regenerate", float(again[place]))]
        if thumbs[place]:
            given.append(("thumbs", float(not down[place])))
        if done[place]:
            given.append(("task_completed", 1.0))
        for kind, value in given:
            events.append(
                {
                    "id": f"{key}-{kind}", "digest": "0" * 16, "interaction_id": key,
                    "user_id": None, "created_at": moment + 20_000_000,
                    "received_at": moment + 20_000_000, "kind": kind, "number": value, "text": None,
                }
            )  # fmt: skip
    return rows, events


def timed(store: EventStore, now: datetime) -> tuple[float, int, str]:
    """Make one pass; return seconds, interactions read and the verdict."""
    began = time.perf_counter()
    report = watch(store, CONFIG, now=now)
    verdict = ", ".join(item.says for item in report.verdicts)
    return time.perf_counter() - began, report.interactions, verdict


def measure(
    folder: Path, history_hours: int, caught_up: bool, hourly: int = AN_HOUR
) -> tuple[float, int, int, str]:
    """Fill a store and time one pass; return seconds, interactions, events stored, verdict."""
    url = f"sqlite:///{folder / 'store.db'}"
    store = EventStore.open(url)
    fill(url, "router/1", START, 30, hourly, 1)
    change = START + timedelta(hours=30)
    watch(store, CONFIG, now=change)
    fill(url, "router/2", change, history_hours, hourly, 2)
    end = change + timedelta(hours=history_hours)
    if caught_up:
        timed(store, end)
        _five_minutes(url, end, hourly)
        end += timedelta(minutes=5)
    seconds, read, verdict = timed(store, end + timedelta(seconds=CONFIG.lag_seconds))
    counts = store.counts()
    stored = sum(counts.values())
    store.close()
    return seconds, read, stored, verdict


def _five_minutes(url: str, start: datetime, hourly: int) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        rng = np.random.default_rng(5)
        first = int((start - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
        numbers = np.arange(10_000_000, 10_000_000 + hourly // 12)
        times = first + (numbers - numbers[0]) * (3_600_000_000 // hourly)
        rows, events = _rows("router/2", numbers, times, rng)
        connection.execute(sa.insert(INTERACTIONS), rows)
        connection.execute(sa.insert(FEEDBACK_EVENTS), events)
    engine.dispose()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hourly", type=int, default=AN_HOUR, help="interactions an hour")
    hourly = parser.parse_args().hourly
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}.\n"
    )
    print("| pass | events stored | interactions read | seconds |\n|---|---|---|---|")
    cases = [
        (f"{'a million' if hourly == AN_HOUR else 'all'} events that are new", 20, False),
        (f"five minutes at {hourly:,} an hour, short history", 20, True),
        (f"five minutes at {hourly:,} an hour, ten times the history", 200, True),
    ]
    for name, hours, caught_up in cases:
        with tempfile.TemporaryDirectory() as folder:
            seconds, read, stored, _ = measure(Path(folder), hours, caught_up, hourly)
        print(f"| {name} | {stored:,} | {read:,} | {seconds:.2f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nLargest memory of the process: {peak:.0f} MiB.")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
