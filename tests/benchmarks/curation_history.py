"""What a night's curation costs that looks at all of history; prints one row a kind of set.

    python -m tests.benchmarks.curation_history --size 960000 --day 48000
    python -m tests.benchmarks.curation_history --size 10080000 --day 480000 --folder /mnt/history

History is written as `ratchet history` writes it, a day after another, with 0.3 events of feedback
an interaction. All but the last day is derived before; what is measured is the last night: deriving
its day and curating everything, in a process of its own. `--whole` curates everything in memory
too, as was done before, and compares the digests.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.dataset import (
    build,
    choose,
    choose_among,
    without_leaks,
    write_training_set,
)
from ratchet.improve.curation.derived import Derived
from ratchet.improve.curation.pool import Background
from ratchet.improve.curation.rows import RowKind
from ratchet.improve.curation.selection import Selection
from ratchet.improve.curation.stored import stored_traffic
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.store.history import Cursor, History, HistoryFile
from ratchet.store.history.layout import DAY_OF, HistoryTable, schema_of
from ratchet.store.history.writing import FILE_ROWS, parquet
from tests.benchmarks.curation import DAY, read, tables

ROOT = Path(__file__).parents[2]
START = 20_700 * DAY  # midnight
CHANCES = {"thumbs": (0.15, 0.8), "task_completed": (0.05, 0.8), "regenerate": (0.07, 0.3)}
CORRECTED = 0.03
MEMORY = "600MB"
KINDS: tuple[RowKind, ...] = ("sft", "kto", "dpo")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_days(folder: Path, days: int, day: int) -> None:
    """Write a history of so many days of `day` interactions, behind what there is."""
    history = History.open(folder)
    cursor = history.cursor()
    written, events = (cursor.interactions, cursor.feedback) if cursor else (0, 0)
    for number in range(written // day, days):
        interactions, feedback = tables(
            day, number, first=written, start=START + number * DAY, days=1.0, chances=CHANCES,
            corrected=CORRECTED,
        )  # fmt: skip
        _write(history, "interactions", interactions, written + 1)
        _write(history, "feedback", feedback, events + 1)
        written, events = written + day, events + feedback.num_rows
        history.place.put_cursor(
            Cursor(store="benchmark", interactions=written, feedback=events, written_at=EPOCH)
        )


def _write(history: History, table: HistoryTable, rows: pa.Table, first: int) -> None:
    size = rows.num_rows
    places = pa.array(np.arange(first, first + size))
    conversation = [
        json.dumps([{"role": "user", "content": text}]) for text in rows["prompt"].to_pylist()
    ] if table == "interactions" else []  # fmt: skip
    made: dict[str, Any] = {
        "position": places,
        "digest": pa.array(["0" * 16] * size),
        "received_at": rows["created_at"],
        "messages": pa.array(conversation, pa.string()),
        "metadata": pa.array(["{}"] * size),
    }
    schema = schema_of(table)
    columns = [
        made.get(field.name)
        if field.name in made
        else rows[field.name] if field.name in rows.column_names else pa.nulls(size, field.type)
        for field in schema
    ]  # fmt: skip
    whole = pa.table(columns, schema=schema)
    days = whole[DAY_OF[table]].cast(pa.int64()).to_numpy() // DAY
    for number in np.unique(days):
        part = whole.filter(pa.array(days == number))
        for start in range(0, part.num_rows, FILE_ROWS):
            cut = part.slice(start, FILE_ROWS)
            ends = (cut["position"][0].as_py(), cut["position"][-1].as_py())
            item = HistoryFile(table, (EPOCH + timedelta(days=int(number))).date(), *ends)
            history.place.put(item.path, parquet(cut))


def night(folder: Path, kind: RowKind, end: int, whole: bool) -> dict[str, Any]:
    """Curate in this process; return seconds a step, memory in MB and what came out."""
    protected, config = read("test"), CurationConfig()
    base, began = _memory(), time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = round(time.perf_counter() - began - sum(seconds.values()), 2)

    history = History.open(folder, memory=MEMORY)
    derived = Derived.open(history)
    files = derived.advance()
    lap("derive")
    until = EPOCH + timedelta(microseconds=end)
    traffic = stored_traffic(
        derived, kind, end=until, judges=(), consent=config.consent, context=Context()
    )
    lap("join")
    joined = _memory()
    selection = choose_among(kind, Background(traffic, protected, config, Context()))
    lap("select")
    made = _written(selection, history, protected, config)
    lap("write")
    found = {
        "kind": kind, "interactions": traffic.size, "rows": len(traffic), "files derived": files,
        "seconds": seconds, "total": round(sum(seconds.values()), 1),
        "MB before": round(base), "MB joined": round(joined), "MB peak": round(_memory()),
        "chosen": made.size + made.validation, "digest": made.digest, "funnel": selection.funnel,
    }  # fmt: skip
    if whole:
        found["same in memory"] = _in_memory(folder, kind, history) == made.digest
    return found


def _written(
    selection: Selection, history: History, protected: Sequence[str], config: CurationConfig
) -> Any:
    stored = history.fetch_interactions([row.interaction_id for row in selection.rows])
    rows = without_leaks(build(selection, stored, config, 0), protected, config)
    with tempfile.TemporaryDirectory() as home:
        return write_training_set(
            rows, selection, protected, home=Path(home), cycle_id="c", now=EPOCH, config=config
        )


def _in_memory(folder: Path, kind: RowKind, history: History) -> str:
    protected, config = read("test"), CurationConfig()
    interactions, feedback = (
        pa.concat_tables([pq.read_table(path, partitioning=None) for path in history.files(table)])
        for table in ("interactions", "feedback")
    )
    outcomes = join_feedback(interactions, feedback)
    scores = quality(outcomes, QualityWeights())
    selection = choose(kind, outcomes, scores, protected, config)
    return str(_written(selection, history, protected, config).digest)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Write history, and curate it once a kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=960_000)
    parser.add_argument("--day", type=int, default=48_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--apart", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apart is not None:
        (kind,) = options.kinds
        print(json.dumps(night(options.folder, kind, options.apart, options.whole)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "history"
        days = options.size // options.day
        if not folder.exists():
            write_days(folder, days - 1, options.day)
            Derived.open(History.open(folder)).advance()
            write_days(folder, days, options.day)
        for kind in options.kinds:
            command = [
                sys.executable, "-m", "tests.benchmarks.curation_history", "--folder", str(folder),
                "--kinds", kind, "--apart", str(START + days * DAY),
                *(["--whole"] if options.whole else []),
            ]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            print(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
