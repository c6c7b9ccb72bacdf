"""What the benchmark `rows` measures, each part in a process of its own.

A part has a function that prepares it, in another process, and one that is measured.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

import numpy as np
import sqlalchemy as sa

from ratchet.store import EventStore
from tests.benchmarks.rows_store import Place, fill, insert, latest, traffic

ITEMS = 100_000
"""Review items in the queue."""
DRAINED = 50_000
"""Lines of the gateway's log."""
LOADED = 130_000
"""Rows of a file that is brought in: answers, and feedback on them."""
RAW = 100_000
PROCESS = (sys.executable, "-m", "tests.benchmarks.rows", "--process")
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is measured.

    Attributes:
        run: What is measured, in a process of its own.
        prepare: What has to be there before, in another process.
        fresh_home: Whether it works in a home without what earlier runs kept.
        most_rows: Measured up to so many interactions, by database; wherever it is not named, at
            any number.
    """

    run: Callable[[Place], Result]
    prepare: Callable[[Place], object] = lambda _place: None
    fresh_home: bool = False
    most_rows: Mapping[str, int] = field(default_factory=dict)


def _now(place: Place) -> datetime:
    return datetime.fromtimestamp(place.end / 1e6, UTC)


def _command(*words: str) -> float:
    """Run `ratchet` in this process, once to load what it imports; return the second's seconds."""
    from ratchet.cli import app

    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            app(list(words), standalone_mode=False)
        seconds = time.perf_counter() - began
    return seconds


def _status(_place: Place) -> Result:
    return {"seconds": _command("status", "--json")}


def _alerts(_place: Place) -> Result:
    return {"seconds": _command("alerts")}


def _queue_items(place: Place) -> None:
    """Put flags on old answers into the review queue."""
    from ratchet.review.queue import queue_flags
    from ratchet.safety.rules import Flag

    store = EventStore.open(place.url)
    wanted = min(ITEMS, place.rows // 4)
    for first in range(0, wanted, 10_000):
        flags = [
            Flag("benchmark@1", f"interaction-{n:09d}", "benchmark", "for the size of the queue")
            for n in range(first, min(first + 10_000, wanted))
        ]
        queue_flags(store, flags, now=_now(place) - timedelta(days=2))
    store.close()


def _review(_place: Place) -> Result:
    return {"seconds": _command("review")}


def _time(place: Place) -> datetime:
    """Return the time of the passes, which moves on by five minutes from one to the next."""
    clock = Path(place.folder) / "clock"
    return datetime.fromisoformat(clock.read_text()) if clock.exists() else datetime.now(UTC)


def _five_minutes(place: Place) -> None:
    """Let five minutes pass, with their traffic."""
    end = max(_time(place), datetime.now(UTC)) + timedelta(minutes=5)
    interactions, feedback = latest(place, 5.0, int(end.timestamp() * 1e6) - 1)
    insert(place, "interactions", interactions)
    insert(place, "feedback", feedback)
    (Path(place.folder) / "clock").write_text(end.isoformat())


def _steady(place: Place) -> None:
    """Make passes until one has only five minutes to look at, and let the next five pass."""
    for _ in range(2):
        _five_minutes(place)
        _screen_and_watch(place)
    _five_minutes(place)


@contextmanager
def _flows_at(place: Place) -> Iterator[None]:
    """Have the flows take the time of the passes for now."""
    from ratchet.flows import _runtime

    with ExitStack() as patches:
        for name, module in list(sys.modules.items()):
            if name.startswith("ratchet.flows") and getattr(module, "now", None) is _runtime.now:
                patches.enter_context(
                    mock.patch.object(module, "now", side_effect=lambda: _time(place))
                )
        yield


def _watch(place: Place) -> Result:
    """Make a pass of monitoring: boards and fixed thresholds."""
    from ratchet.analyze.monitoring.watch import WatchConfig, recent_metrics, watch

    store, config, now = EventStore.open(place.url), WatchConfig(), _time(place)
    began = time.perf_counter()
    report = watch(store, config, now=now)
    for verdict in report.verdicts:
        recent_metrics(store, config, verdict.model_version, now=now)
    return {
        "seconds": time.perf_counter() - began,
        "interactions": report.interactions,
        "verdicts": [verdict.in_words for verdict in report.verdicts],
    }


def _screen_and_watch(place: Place) -> Result:
    from ratchet.flows._safety import screen_new

    began = time.perf_counter()
    with _flows_at(place):
        items = screen_new()
    return _watch(place) | {"seconds": time.perf_counter() - began, "items": items}


def _flow(place: Place) -> Result:
    """Run the flow that the five-minute schedule runs, with Prefect and MLflow."""
    from ratchet.flows.analyze import AnalyzeOptions, analyze

    with _flows_at(place):
        analyze(AnalyzeOptions(cycle=False))
        _five_minutes(place)
        began = time.perf_counter()
        analyze(AnalyzeOptions(cycle=False))
        return {"seconds": time.perf_counter() - began}


def _write(place: Place, until: Path) -> Result:
    """Store one answer after the other until a file is there; return how long each waited."""
    from ratchet.records import Interaction, Message

    store, waits = EventStore.open(place.url), []
    while not until.exists():
        interaction = Interaction(
            id=f"writer-{time.time_ns()}", session_id="writer", user_id="writer",
            created_at=datetime.now(UTC), model_version="support-router/2", segment="web",
            messages=(Message(role="user", content="Where is my parcel?"),), response="There.",
        )  # fmt: skip
        began = time.perf_counter()
        store.add_interactions([interaction])
        waits.append(time.perf_counter() - began)
        time.sleep(0.01)
    return {"longest_wait": max(waits), "median_wait": sorted(waits)[len(waits) // 2]}


def _forget(place: Place) -> Result:
    """Forget a user while another process writes."""
    until = Path(place.folder) / "stop-writing"
    until.unlink(missing_ok=True)
    arguments = [*PROCESS, "write", _as_json(place)]
    writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    user = "user-" + str(place.rows // 41)
    time.sleep(3.0)
    _command("forget", user)
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        from ratchet.cli import app

        app(["forget", user, "--yes"], standalone_mode=False)
    seconds = time.perf_counter() - began
    time.sleep(0.5)
    until.touch()
    waited = json.loads(writer.communicate(timeout=120)[0].splitlines()[-1])
    until.unlink()
    return {"seconds": seconds} | {key: waited[key] for key in ("longest_wait", "median_wait")}


def _events(place: Place, lines: int, prefix: str) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Yield events of the last time as callers send them: whether it is an answer, and its body.

    The ids begin with `prefix`; feedback is a thumb, a completed task or stars.
    """
    minutes = lines / 1.3 * 1_440 / place.a_day
    interactions, feedback = latest(place, minutes, int(time.time() * 1e6))
    kept = ("session_id", "user_id", "model_version", "segment", "response", "latency_seconds")
    for row in interactions.to_pylist():
        yield True, {name: row[name] for name in kept} | {
            "id": f"{prefix}{row['id']}", "created_at": _iso(row["created_at"]),
            "messages": json.loads(row["messages"]),
        }  # fmt: skip
    for row in feedback.to_pylist():
        value = row["number"] if row["text"] is None else row["text"]
        if row["kind"] == "thumbs":
            value = "up" if value else "down"
        elif row["kind"] in ("regenerate", "task_completed"):
            value = bool(value)
        yield False, {
            "id": f"{prefix}{row['id']}", "interaction_id": f"{prefix}{row['interaction_id']}",
            "user_id": row["user_id"], "created_at": _iso(row["created_at"]),
            "kind": row["kind"], "value": int(value) if row["kind"] == "stars" else value,
        }  # fmt: skip


def _iso(stored: int) -> str:
    return datetime.fromtimestamp(stored / 1e6, UTC).isoformat()


def _event_file(place: Place) -> None:
    """Write a log to be brought in."""
    with (Path(place.folder) / "events.jsonl").open("w", encoding="utf-8") as file:
        for _, body in _events(place, min(LOADED, place.rows), f"loaded-{time.time_ns()}-"):
            file.write(json.dumps(body) + "\n")


def _load(place: Place) -> Result:
    """Bring a log in, as `ratchet ingest` does."""
    from ratchet.collect.ingest import ingest_file
    from ratchet.collect.recognising import Recogniser

    store = EventStore.open(place.url)
    began = time.perf_counter()
    report = ingest_file(
        Path(place.folder) / "events.jsonl",
        store,
        now=datetime.now(UTC),
        second_process=True,  # as the command reads a file of this size
        known=Recogniser(store),
    )
    seconds = time.perf_counter() - began
    rows = report.interactions + report.feedback
    if report.set_aside or report.repeated or report.recognised:
        raise RuntimeError(f"every row must be stored, got {report.lines()}")
    return {"seconds": seconds, "rows": rows, "rows_per_second": rows / seconds}


def _log_lines(place: Place) -> None:
    """Write lines as gateways log them."""
    from ratchet.gateway.log import LogKind, WriteAheadLog

    log = WriteAheadLog.create(Path(place.folder) / "log")
    for answer, body in _events(place, min(DRAINED, place.rows // 2), f"drained-{time.time_ns()}-"):
        kind = LogKind.INTERACTION if answer else LogKind.FEEDBACK
        log.append(kind, json.dumps(body).encode())
    log.close()


def _drain(place: Place) -> Result:
    """Bring the gateway's log to the store; time every transaction from its begin to its end."""
    from ratchet.gateway.drain import Drain

    begun: dict[int, float] = {}
    longest = [0.0]

    def begin(connection: sa.Connection) -> None:
        begun[id(connection.connection.dbapi_connection)] = time.perf_counter()

    def end(driver: object, _record: object) -> None:
        if id(driver) in begun:
            longest[0] = max(longest[0], time.perf_counter() - begun.pop(id(driver)))

    sa.event.listen(sa.Engine, "begin", begin)
    sa.event.listen(sa.Pool, "checkin", end)
    store = EventStore.open(place.url)
    drain = Drain(Path(place.folder) / "log", store)
    began, lines = time.perf_counter(), 0
    while done := drain.once():
        lines += done
    drain.run(_stopped())
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds, "lines": lines, "rows_per_second": lines / seconds,
        "longest_transaction": longest[0],
    }  # fmt: skip


def _stopped() -> Event:
    stop = Event()
    stop.set()
    return stop


def _fill(place: Place) -> Result:
    """Fill a store but for its last day."""
    return fill(place, 0, place.rows - place.a_day)


def _day(place: Place) -> Result:
    """Add the last day."""
    return fill(place, place.rows - place.a_day, place.rows)


def _raw(place: Place) -> Result:
    """Store interactions in a table like the store's by what the driver has for many rows."""
    engine = sa.create_engine(place.url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS raw_rows"))
        made = ["CREATE TABLE raw_rows (LIKE interactions INCLUDING ALL)"]
        if place.database == "sqlite":
            query = "SELECT sql FROM sqlite_master WHERE tbl_name = 'interactions' AND sql > ''"
            found = connection.execute(sa.text(query)).scalars()  # the table, then its indexes
            made = [sql.replace("interactions", "raw_rows") for sql in found]
        for statement in made:
            connection.execute(sa.text(statement))
    size = min(RAW, place.rows)
    rows, _ = traffic(10**9, place.end + np.arange(size), 1_000, np.ones(size, dtype=np.int64))
    seconds = insert(place, "raw_rows", rows)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE raw_rows"))
    engine.dispose()
    return {"seconds": seconds, "rows_per_second": size / seconds}


def _cycle(place: Place, number: int, end: datetime) -> Any:
    from ratchet.records import Cycle

    store = EventStore.open(place.url)
    cycle = Cycle(
        id=f"benchmark-{number}", number=number, created_at=end, champion="support-router/1",
        options_digest="benchmark", seed=1, window_start=end - timedelta(days=1), window_end=end,
        example_set_id="none",
    )  # fmt: skip
    store.append(cycle)
    store.close()
    return cycle


def _curate(place: Place, number: int, end: datetime) -> Result:
    from ratchet.flows.improve import ImproveOptions, curate

    cycle = _cycle(place, number, end)
    began = time.perf_counter()
    made = curate.fn(cycle, ImproveOptions())
    return {
        "seconds": time.perf_counter() - began, "digest": made.digest, "examples": made.size,
    }  # fmt: skip


def _catch_up(place: Place) -> Result:
    """Curate everything but the last day: what a first night costs."""
    return _curate(place, 1, _now(place) - timedelta(days=1))


def _nightly(place: Place) -> Result:
    """Curate with what the last day brought."""
    return _curate(place, 2, _now(place) + timedelta(seconds=1))


def _full(place: Place) -> Result:
    """Curate everything, in a home that has kept nothing."""
    return _curate(place, 2, _now(place) + timedelta(seconds=1))


PARTS: dict[str, Part] = {
    "fill": Part(_fill),
    "raw": Part(_raw),
    "catch_up": Part(_catch_up, most_rows={"postgresql": 1_000_000}),
    "day": Part(_day),
    "nightly": Part(_nightly, most_rows={"postgresql": 1_000_000}),
    "full": Part(_full, fresh_home=True, most_rows={"sqlite": 1_000_000, "postgresql": 100_000}),
    "status": Part(_status),
    "alerts": Part(_alerts),
    "first_watch": Part(_watch),
    "review": Part(_review, prepare=_queue_items),
    "first_screening": Part(_screen_and_watch),
    "watch": Part(_watch, prepare=_steady),
    "screened": Part(_screen_and_watch, prepare=_steady),
    "flow": Part(_flow, prepare=_steady),
    "forget": Part(_forget),
    "load": Part(_load, prepare=_event_file),
    "drain": Part(_drain, prepare=_log_lines),
}
"""In this order: what a part leaves in the store, the next one finds."""


def _as_json(place: Place) -> str:
    return json.dumps({name: getattr(place, name) for name in Place.__slots__})


def measured(name: str, place: Place, *, what: str = "run") -> Result:
    """Prepare or run a part in a process of its own; return what it found and its peak of memory.

    Raises:
        RuntimeError: It failed; with the end of what it wrote.
    """
    home = place.home if not PARTS[name].fresh_home else Path(place.folder) / "fresh-home"
    home.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).parents[2]
    environment = place.environment(home)
    paths = [str(root), str(root / "src"), environment.get("PYTHONPATH", "")]
    done = subprocess.run(
        [*PROCESS, f"{what}:{name}", _as_json(place)],
        cwd=place.folder, capture_output=True, text=True,
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def process(asked: str, given: str) -> None:
    """Do what `measured` asks of a process, or write until told to stop; print what was found."""
    place = Place(**json.loads(given))
    if asked == "write":
        found = _write(place, Path(place.folder) / "stop-writing")
    else:
        what, _, name = asked.partition(":")
        found = (PARTS[name].run if what == "run" else PARTS[name].prepare)(place) or {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print("\n" + json.dumps(found | {"memory": peak}))
