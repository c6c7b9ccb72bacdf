"""Transactions, several writers at once and the opening of the event store."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records import FEEDBACK, CycleEnd, Feedback, Interaction, SetAside
from ratchet.store import MIGRATIONS, Added, EventStore, Window

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
NOW_MICROSECONDS = 1_767_600_000_000_000  # `date -u -d 2026-01-05T08:00 +%s`
ALWAYS = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@pytest.fixture
def store_url(empty_url: str) -> str:
    return empty_url


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def interaction(key: str = "i-1", **changes: Any) -> Interaction:
    row = {
        "id": key,
        "session_id": "s",
        "user_id": "u",
        "created_at": NOW,
        "model_version": "router/1",
        "messages": [{"role": "user", "content": "Where is my card?"}],
        "response": "card delivery",
    }
    return Interaction.model_validate(row | changes)


def feedback(
    key: str = "f-1", kind: str = "thumbs", value: object = "up", **changes: Any
) -> Feedback:
    row = {"id": key, "interaction_id": "i-1", "created_at": NOW, "kind": kind, "value": value}
    return FEEDBACK.validate_python(row | changes)


def rejected(key: str, reason: str = "bad") -> SetAside:
    return SetAside(
        id=key, created_at=NOW, source="rows.jsonl", position="line 1", reason=reason, raw="{'é"
    )


def ids(table: pa.Table) -> list[str]:
    return table["id"].to_pylist()


def end(key: str, **changes: Any) -> CycleEnd:
    return CycleEnd.model_validate({"id": key, "created_at": NOW, "outcome": "finished"} | changes)


# Transactions -----------------------------------------------------------------------------------


def fill(store: EventStore) -> None:
    store.add_interactions([interaction()])
    store.add_feedback([feedback()])
    store.set_aside([rejected("r")])
    store.append(end("x"))
    store.add_answers("m", "greedy", {"a": "b"})


def filled(store: EventStore) -> list[int]:
    counts = store.counts()
    answers, journal = store.answers("m", "greedy", ["a"]), store.records(CycleEnd)
    stored = [counts[name] for name in ("interactions", "thumbs", "set_aside")]
    return [*stored, len(journal), len(answers)]


def test_a_transaction_is_stored_whole_or_not_at_all(store: EventStore) -> None:
    def stopped() -> None:
        with store.atomic():
            fill(store)
            assert filled(store) == [1] * 5
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert filled(store) == [0] * 5
    with store.atomic():
        fill(store)
    assert filled(store) == [1] * 5


def test_an_inner_transaction_is_part_of_the_outer_one(store: EventStore) -> None:
    def stopped() -> None:
        with store.atomic() as outer:
            with store.atomic() as inner:
                assert inner is outer
                fill(store)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert filled(store) == [0] * 5


def test_other_stores_read_on_and_see_a_transaction_when_it_ends(
    open_store: Callable[[], EventStore],
) -> None:
    writer, reader = open_store(), open_store()
    with writer.atomic():
        fill(writer)
        assert filled(reader) == [0] * 5
    assert filled(reader) == [1] * 5


def meanwhile(first: EventStore, write: Callable[[], object], second: Callable[[], Any]) -> Any:
    """Start `second` while the transaction that holds `write` is open; return its result."""
    with ThreadPoolExecutor(1) as pool:
        with first.atomic():
            write()
            running = pool.submit(second)
            wait([running], timeout=0.4)
        return running.result(timeout=30)


@pytest.mark.mostly_slow("sqlite", "postgresql-other")
@pytest.mark.parametrize(
    ("response", "expected"),
    [("card delivery", Added(0, 1, ())), ("other", Added(0, 0, ("i-1",)))],
)
def test_the_slower_of_two_writers_hears_of_the_faster_one(
    open_store: Callable[[], EventStore], response: str, expected: Added
) -> None:
    first, second = open_store(), open_store()
    late = [interaction(response=response)]
    added = meanwhile(
        first,
        lambda: first.add_interactions([interaction()]),
        lambda: second.add_interactions(late),
    )
    assert first.stored_interactions(["i-1"]) == {"i-1": interaction()}
    assert added == expected


def test_a_record_that_two_write_at_once_is_written_once(
    open_store: Callable[[], EventStore],
) -> None:
    first, second = open_store(), open_store()
    again = meanwhile(first, lambda: first.append(end("x")), lambda: second.append(end("x")))
    assert again is False
    with pytest.raises(ConflictError):
        meanwhile(
            first,
            lambda: first.append(end("y")),
            lambda: second.append(end("y", outcome="abandoned")),
        )
    assert first.records(CycleEnd) == (end("x"), end("y"))


def write_many(store: EventStore, writer: int) -> int:
    new = 0
    for start in range(0, 40, 5):
        with store.atomic():
            batch = [interaction(f"{writer}/{n}") for n in range(start, start + 5)]
            new += store.add_interactions(batch).new
            store.append(end(f"{writer}/{start}"))
    return new


@pytest.mark.mostly_slow("sqlite")
def test_writers_that_open_an_empty_database_at_once_lose_nothing(
    open_store: Callable[[], EventStore],
) -> None:
    together = Barrier(6)

    def work(writer: int) -> int:
        together.wait(timeout=30)
        return write_many(open_store(), writer)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == [40] * 6
    assert open_store().counts()["interactions"] == 240
    assert len(open_store().records(CycleEnd)) == 48


def test_threads_may_share_one_store(store: EventStore) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda writer: write_many(store, writer), range(6))) == [40] * 6
    assert store.counts()["interactions"] == 240


KILLED = """
import os, signal, sys
from ratchet.records import Interaction
from ratchet.store import EventStore
store = EventStore.open(sys.argv[1])
kept, lost = (Interaction.model_validate_json(text) for text in sys.argv[2:])
store.add_interactions([kept])
with store.atomic():
    store.add_interactions([lost])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.mostly_slow("sqlite")
def test_a_process_killed_in_a_transaction_leaves_nothing_of_it(
    store_url: str, open_store: Callable[[], EventStore]
) -> None:
    kept, lost = interaction("kept"), interaction("lost")
    command: Sequence[str] = [
        *(sys.executable, "-c", KILLED, store_url),
        *(kept.model_dump_json(), lost.model_dump_json()),
    ]
    assert subprocess.run(command, timeout=60, env=dict(os.environ)).returncode == -signal.SIGKILL
    store = open_store()
    assert ids(store.interactions(ALWAYS)) == ["kept"]
    assert store.add_interactions([lost]) == Added(1, 0, ())


# Opening ----------------------------------------------------------------------------------------


def test_migrations_are_recorded_once_and_opening_again_is_harmless(store_url: str) -> None:
    for day in range(2):
        store = EventStore.open(store_url, clock=lambda day=day: NOW + timedelta(days=day))
        store.add_interactions([interaction()])
        assert ids(store.interactions(ALWAYS)) == ["i-1"]
        with store.atomic() as connection:
            rows = connection.execute(
                sa.text("SELECT name, applied_at FROM schema_migrations ORDER BY name")
            ).all()
        assert rows == [(name, NOW_MICROSECONDS) for name in MIGRATIONS]
        store.close()


def test_a_store_from_before_vectors_were_kept_gets_their_table(store_url: str) -> None:
    EventStore.open(store_url).close()
    engine = sa.create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE embeddings"))
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name LIKE '0005%'"))
    engine.dispose()
    store = EventStore.open(store_url)
    store.add_vectors("m", {"k": np.ones(2, dtype=np.float32)})
    assert store.vectors("m", ["k"])["k"].tolist() == [1.0, 1.0]
    store.close()


def test_a_store_from_before_answers_were_timed_gets_their_column(store_url: str) -> None:
    EventStore.open(store_url).close()
    engine = sa.create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE answers DROP COLUMN seconds"))
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name LIKE '0006%'"))
    engine.dispose()
    store = EventStore.open(store_url)
    store.add_answers("m", "greedy", {"a": "x"}, {"a": 0.5})
    assert store.answer_seconds("m", "greedy", ["a"]) == {"a": 0.5}
    store.close()


def test_a_sqlite_store_makes_its_folder_and_writes_ahead(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "deeper" / "store.db"
    EventStore.open(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://ada:secret@host/ratchet",
        "oracle+cx:ada:secret@host",
        "sqlite+nonsense:///:memory:",
        "postgresql+nonsense://ada:secret@host/ratchet",
        "postgresql+psycopg://ada:secret@host:port/ratchet",
        "postgresql+psycopg://ada:secret@/ratchet?host=/there/is/no/such/folder",
        "postgresql+psycopg://ada:secret@/ratchet?nonsense=1",
    ],
)
def test_an_address_that_cannot_be_opened_is_one_error_without_the_password(url: str) -> None:
    with pytest.raises(InvalidInputError, match="the store must") as caught:
        EventStore.open(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("This is no database. " * 100)
    for wrong in (tmp_path, text, text / "store.db"):
        with pytest.raises(InvalidInputError, match="the store must open as a database") as caught:
            EventStore.open(f"sqlite:///{wrong}")
        assert str(wrong) in str(caught.value)
    assert text.read_text() == "This is no database. " * 100


def test_a_store_of_the_version_before_gains_subjects_and_indexes(store_url: str) -> None:
    """The store that 0.1's first migration made: no subject in the journal, no later index."""
    EventStore.open(store_url).close()
    engine = sa.create_engine(store_url)
    with engine.begin() as connection:
        for statement in (
            "DROP INDEX ix_interactions_version_time",
            "DROP INDEX ix_journal_subject",
            "DROP INDEX ix_journal_time",
            "ALTER TABLE journal DROP COLUMN subject",
            "DELETE FROM schema_migrations WHERE name <> '0001_create_events'",
            "INSERT INTO journal (kind, id, created_at, body) VALUES ('CycleEnd', 'old', 0, "
            '\'{"id": "old", "created_at": "2026-01-05T08:00:00Z", "outcome": "finished"}\')',
        ):
            connection.execute(sa.text(statement))
    engine.dispose()
    store = EventStore.open(store_url, clock=lambda: NOW)
    assert store.get(CycleEnd, "old") == end("old")
    store.append(end("new"))
    assert [record.id for record in store.records(CycleEnd)] == ["old", "new"]
    assert store.records(CycleEnd, subject="router/1") == ()
    store.close()
    engine = sa.create_engine(store_url)
    names = {item["name"] for item in sa.inspect(engine).get_indexes("journal")}
    engine.dispose()
    assert {"ix_journal_subject", "ix_journal_time"} <= names
