"""How fast an export of Langfuse comes in, with its scores; prints a Markdown table.

    python -m tests.benchmarks.imports [--rows 1000000] [--scores 0.3]

Observations of about 900 bytes in the documented schema of its blob export, as JSON Lines or
Parquet, and scores on traces, into an empty SQLite store by `ratchet import`'s code; then the
signals that are derived. Memory is the largest of this process and of the one that reads; CPU is
that of both, which other work on the machine changes less than the seconds that pass. At a million
rows it fails above 120 seconds or 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ratchet.collect.derived import derive_signals
from ratchet.collect.recognising import Recogniser
from ratchet.doors.importing import prepare, store_import
from ratchet.store import EventStore
from tests.benchmarks.bulk_load import WORDS
from tests.benchmarks.provenance import commit

START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = START + timedelta(days=60)
MOST_SECONDS, MOST_BYTES, WHOLE = 120.0, 1_000_000_000, 1_000_000


def observations(rows: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield generations, each of a trace of its own."""
    rng = random.Random(seed)
    for number in range(rows):
        start = START + timedelta(seconds=number / 10)
        asked, said = (" ".join(rng.choices(WORDS, k=words)) for words in (12, 20))
        turns = [
            {"role": "system", "content": "You help the customers of a bank."},
            {"role": "user", "content": asked},
        ]
        yield {
            "id": f"{rng.getrandbits(64):016x}", "trace_id": f"{rng.getrandbits(128):032x}",
            "project_id": "p-1", "environment": "production", "type": "GENERATION",
            "parent_observation_id": None, "name": "chat", "level": "DEFAULT",
            "status_message": None, "version": None, "release": "1.4", "tags": ["web"],
            "start_time": _written(start), "end_time": _written(start + timedelta(seconds=1.5)),
            "user_id": f"u{number % 5_000}", "session_id": f"s{number // 4}",
            "input": json.dumps(turns), "latency": 1.5,
            "output": json.dumps({"role": "assistant", "content": said}),
            "provided_model_name": "gpt-4o-mini", "usage_details": {"input": 31, "output": 22},
            "total_cost": 0.00012, "metadata": {"channel": "web"},
        }  # fmt: skip


def score(number: int, trace: str) -> dict[str, Any]:
    """Return a thumb on a trace."""
    at = _written(START + timedelta(seconds=number / 10 + 60))
    return {
        "id": f"sc-{number}", "timestamp": at, "project_id": "p-1", "trace_id": trace,
        "observation_id": None, "session_id": None, "name": "user-feedback",
        "value": number % 2, "source": "API", "data_type": "NUMERIC", "string_value": None,
        "comment": None, "created_at": at, "updated_at": at,
    }  # fmt: skip


def write_export(folder: Path, rows: int, share: float, form: str) -> int:
    """Write an export; return the bytes of it."""
    scores = []
    (folder / "observations_v2").mkdir(parents=True)
    (folder / "scores").mkdir()
    source = observations(rows)
    for part in range(0, rows, 100_000):
        some = list(islice(source, 100_000))
        traces = some[: int(len(some) * share)]
        scores += [score(part + at, one["trace_id"]) for at, one in enumerate(traces)]
        _write(folder / "observations_v2" / f"{part:09d}", some, form)
    _write(folder / "scores" / "all", scores, form)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(path: Path, rows: list[dict[str, Any]], form: str) -> None:
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
        return
    with path.with_suffix(".jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def measure(rows: int, share: float, form: str) -> tuple[str, list[str]]:
    """Bring an export in twice; return a row of the table, and what is beyond its limit.

    Raises:
        AssertionError: Something is missing.
    """
    with tempfile.TemporaryDirectory(prefix="ratchet-imports-") as made:
        folder = Path(made, "export")
        size = write_export(folder, rows, share, form)
        store = EventStore.open(f"sqlite:///{made}/store.db", clock=lambda: NOW)
        derive_signals(store, now=NOW, most=0)
        began, used = time.monotonic(), _cpu()
        what = prepare(str(folder), now=NOW)
        report = store_import(what, store, known=Recogniser(store))
        stored, store_used = time.monotonic() - began, _cpu() - used
        derived = derive_signals(store, now=NOW)
        whole, whole_used = time.monotonic() - began, _cpu() - used
        again = store_import(prepare(str(folder), now=NOW), store, known=Recogniser(store))
    scores = sum(int(min(100_000, rows - part) * share) for part in range(0, rows, 100_000))
    assert (report.interactions, report.feedback, report.set_aside) == (rows, scores, 0), report
    assert report.noted == (), report.noted  # every score has found its answer
    assert (again.interactions, again.feedback, again.set_aside) == (0, 0, 0), again
    most = max(
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    beyond = []
    if rows >= WHOLE and stored > MOST_SECONDS:
        beyond.append(f"{form}: {stored:.0f} s, more than {MOST_SECONDS:.0f}")
    if rows >= WHOLE and most > MOST_BYTES:
        beyond.append(f"{form}: {most / 1e6:,.0f} MB, more than {MOST_BYTES / 1e6:,.0f}")
    told = (
        f"| {form} | {rows:,} | {scores:,} | {size / 1e6:,.0f} MB | {stored:.1f} | "
        f"{(rows + scores) / stored:,.0f} | {store_used:.0f} | {whole - stored:.1f} | "
        f"{whole_used - store_used:.0f} | {derived.events:,} | {most / 1e6:,.0f} MB |"
    )
    return told, beyond


def _cpu() -> float:
    """Return CPU seconds of this process and of those that it started and that ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=WHOLE)
    parser.add_argument("--scores", type=float, default=0.3)
    parser.add_argument("--forms", nargs="*", default=["jsonl", "parquet"])
    options = parser.parse_args()
    print(f"Langfuse into SQLite, {commit()}\n")
    print(
        "| form | observations | scores | size | s | rows/s | CPU, s | deriving, s | CPU, s |",
        end="",
    )
    print(" derived | memory |\n|---|---|---|---|---|---|---|---|---|---|---|")
    beyond = []
    for form in options.forms:
        told, more = measure(options.rows, options.scores, form)
        print(told, flush=True)
        beyond += more
    print(f"\nload of the machine in the last 1, 5 and 15 minutes: {os.getloadavg()}")
    if beyond:
        raise SystemExit("; ".join(beyond))


if __name__ == "__main__":
    main()
