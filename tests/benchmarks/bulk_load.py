"""How fast rows go in, against what the database itself takes; prints a Markdown table.

    python -m tests.benchmarks.bulk_load [--rows 100000] [--postgresql URL]

Ten interactions to three pieces of feedback, by `ratchet ingest`'s code from JSON Lines, CSV and
Parquet (a second process reads, as for large files), and from a gateway's log by its drain; each
into an empty store. The yardstick is the same rows, ready made, by the driver alone into the same
tables with their indexes: `executemany` on SQLite, COPY on PostgreSQL. SQLite lies in a temporary
folder; on PostgreSQL each store has a schema of its own, which is dropped afterwards. What knowing
answers under other ids costs is the difference to the run that takes every id as its own; the same
events under other ids are what it is for.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from ratchet.collect.ingest import CHUNK, ingest_file
from ratchet.collect.recognising import Recogniser
from ratchet.gateway.drain import Drain
from ratchet.gateway.log import LogKind, WriteAheadLog
from ratchet.store import EventStore
from ratchet.store.event_rows import FeedbackRow, InteractionRow
from tests.benchmarks.provenance import commit

START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = START + timedelta(days=365)
WORDS = (
    *("card", "payment", "transfer", "money", "account", "blocked", "pin", "top", "up", "fee"),
    *("refund", "exchange", "rate", "please", "help", "charge"),
)
COLUMNS = {
    "interactions": (*InteractionRow._fields, "received_at"),
    "feedback": (*FeedbackRow._fields, "received_at"),
}
VALUES: tuple[tuple[str, Any], ...] = (("thumbs", "up"), ("copy", True), ("comment", "too long"))


def events(rows: int, seed: int = 1, tool: str = "") -> Iterator[dict[str, Any]]:
    """Yield interactions of about 450 bytes and feedback on them, with random ids.

    Args:
        rows: How many events.
        seed: Of the texts.
        tool: Begins the ids: another tool's export of the same events.
    """
    rng = random.Random(seed)
    key = ""
    for number in range(rows):
        moment = (START + timedelta(seconds=number / 10)).isoformat().replace("+00:00", "Z")
        event = {"id": tool + str(UUID(int=rng.getrandbits(128))), "created_at": moment}
        if key and number % 13 >= 10:
            kind, value = VALUES[number % 3]
            yield event | {"interaction_id": key, "kind": kind, "value": value}
            continue
        key = event["id"]
        asked, said = (" ".join(rng.choices(WORDS, k=words)) for words in (12, 20))
        yield event | {
            "session_id": f"s{number // 4}", "user_id": f"u{number % 5_000}",
            "model_version": "router/1", "segment": ("web", "app", "phone")[number % 3],
            "messages": [
                {"role": "system", "content": "You are a support assistant."},
                {"role": "user", "content": asked},
            ],
            "response": said, "latency_seconds": round(rng.random() * 3, 3),
            "metadata": {"channel": "web", "lang": "en"},
        }  # fmt: skip


def write_files(folder: Path, rows: int) -> dict[str, Path]:
    """Write the events in each form; return the files by form."""
    files = {form: folder / f"events.{form}" for form in ("jsonl", "csv", "parquet")}
    with files["jsonl"].open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events(rows))
    names = sorted({name for event in events(min(rows, 26)) for name in event})
    table = [
        {name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in event.items()}
        for event in events(rows)
    ]
    with files["csv"].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)
    columns = {name: [event.get(name) for event in table] for name in names}
    columns["value"] = [None if v is None else str(v) for v in columns["value"]]
    pq.write_table(pa.table(columns), files["parquet"])
    return files


def _other_ids(folder: Path, rows: int) -> Path:
    """Write the same events as another tool exports them."""
    path = folder / "other.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events(rows, tool="other-"))
    return path


@dataclass(slots=True)
class Transactions:
    """Times transactions that write, of every engine of this process."""

    longest: float = 0.0
    _began: dict[int, float] = field(default_factory=dict)

    def listen(self) -> None:
        sa.event.listen(sa.Engine, "before_cursor_execute", self._begin)
        sa.event.listen(sa.Engine, "commit", self._end)

    def _begin(self, connection: sa.Connection, *_: object) -> None:
        if connection.in_transaction():
            self._began.setdefault(id(connection), time.perf_counter())

    def _end(self, connection: sa.Connection) -> None:
        began = self._began.pop(id(connection), time.perf_counter())
        self.longest = max(self.longest, time.perf_counter() - began)

    def reset(self) -> float:
        longest, self.longest = self.longest, 0.0
        self._began.clear()
        return longest


@contextmanager
def empty_store(folder: Path, server: str | None) -> Iterator[str]:
    """Yield the address of an empty store, which is gone afterwards."""
    name = f"bulk_{uuid4().hex[:12]}"
    if server is None:
        yield f"sqlite:///{folder / name}.db"
        for file in folder.glob(f"{name}.db*"):
            file.unlink()
        return
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(name))
    url = sa.make_url(server).update_query_dict({"options": f"-csearch_path={name}"})
    yield url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema(name, cascade=True))
    engine.dispose()


def by_driver(url: str, source: str) -> float:
    """Bring the rows of another store in by the driver alone; return seconds."""
    EventStore.open(url).close()
    seconds = 0.0
    raw = _executemany(url) if url.startswith("sqlite") else _copy(url)
    origin = sa.create_engine(source)
    with origin.connect() as connection:
        for table, names in COLUMNS.items():
            query = f"SELECT {', '.join(names)} FROM {table} ORDER BY position"
            if not source.startswith("sqlite"):  # JSON comes as text
                query = query.replace("messages", "messages::text")
                query = query.replace("metadata", "metadata::text")
            found = (tuple(row) for row in connection.exec_driver_sql(query))
            while rows := list(islice(found, CHUNK)):
                began = time.perf_counter()
                raw(table, names, rows)
                seconds += time.perf_counter() - began
    origin.dispose()
    return seconds


def _executemany(url: str) -> Callable[..., None]:
    database = sqlite3.connect(sa.make_url(url).database or "", isolation_level=None)
    database.execute("PRAGMA synchronous=NORMAL")

    def raw(table: str, names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
        places = ", ".join("?" * len(names))
        database.execute("BEGIN IMMEDIATE")
        insert = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"
        database.executemany(insert, rows)
        database.execute("COMMIT")

    return raw


def _copy(url: str) -> Callable[..., None]:
    engine = sa.create_engine(url)

    def raw(table: str, names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
        with engine.begin() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor:
                copied = f"COPY {table} ({', '.join(names)}) FROM STDIN"
                with cursor.copy(copied) as copy:
                    for row in rows:
                        copy.write_row(row)

    return raw


def load(url: str, file: Path, *, second: bool = True, recognise: bool = True) -> tuple[float, int]:
    """Bring a file in, with a second process that reads or without; return seconds and rows."""
    store = EventStore.open(url)
    began = time.perf_counter()
    known = Recogniser(store) if recognise else None
    report = ingest_file(file, store, now=NOW, second_process=second, known=known)
    seconds = time.perf_counter() - began
    store.close()
    return seconds, report.interactions + report.feedback


def drain(url: str, folder: Path, rows: int) -> tuple[float, int]:
    """Bring a gateway's log in; return seconds and rows stored."""
    log = WriteAheadLog.create(folder)
    for event in events(rows):
        kind = LogKind.FEEDBACK if "kind" in event else LogKind.INTERACTION
        log.append(kind, json.dumps(event).encode())
    log.close()
    store = EventStore.open(url)
    work = Drain(folder, store, clock=lambda: NOW)
    began = time.perf_counter()
    done = 0
    while found := work.once():
        done += found
    seconds = time.perf_counter() - began
    work.close()
    store.close()
    return seconds, done


def measure(folder: Path, files: dict[str, Path], rows: int, server: str | None) -> None:
    """Measure one database and print the rows of its table."""
    database = "SQLite" if server is None else "PostgreSQL"
    transactions = Transactions()
    transactions.listen()
    measured: dict[str, tuple[float, float]] = {}
    with empty_store(folder, server) as first:
        for form, file in files.items():
            with empty_store(folder, server) as url:
                seconds, stored = load(first if form == "jsonl" else url, file)
            assert stored == rows, f"{stored} of {rows} rows of {form}"
            measured[f"`ratchet ingest`, {form}"] = (seconds, transactions.reset())
        with empty_store(folder, server) as url:
            alone, _ = load(url, files["jsonl"], second=False)
        measured["the same by one process"] = (alone, transactions.reset())
        with empty_store(folder, server) as url:
            blind, _ = load(url, files["jsonl"], second=False, recognise=False)
        measured["the same, every id its own"] = (blind, transactions.reset())
        again, _ = load(first, files["jsonl"])
        measured["the same file again"] = (again, transactions.reset())
        other, stored = load(first, _other_ids(folder, rows))
        assert stored == 0, f"{stored} events were stored again under other ids"
        measured["the same events under other ids"] = (other, transactions.reset())
        with empty_store(folder, server) as url, tempfile.TemporaryDirectory() as log:
            seconds, done = drain(url, Path(log), rows)
            assert done == rows
            measured["drain"] = (seconds, transactions.reset())
        with empty_store(folder, server) as url:
            raw = by_driver(url, first)
    name = "executemany" if server is None else "COPY"
    print(f"| {database} | {name} alone | {rows / raw:,.0f} | 1.00 | |", flush=True)
    for what, (seconds, longest) in measured.items():
        rate = f"{rows / seconds:,.0f} | {raw / seconds:.2f} | {longest:.2f}"
        print(f"| {database} | {what} | {rate} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="in each file")
    parser.add_argument("--postgresql", help="URL of a server on which schemas may be made")
    given = parser.parse_args()
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}; {given.rows:,} rows.\n"
    )
    print("| database | what | rows a second | of the driver alone | longest transaction, s |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = write_files(folder, given.rows)
        measure(folder, files, given.rows, None)
        if given.postgresql:
            measure(folder, files, given.rows, given.postgresql)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nLargest memory of the process: {peak:.0f} MiB.")


if __name__ == "__main__":
    main()
