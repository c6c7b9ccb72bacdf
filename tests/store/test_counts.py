"""Kept counts are those of a fresh count, however rows come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from ratchet.records import FEEDBACK, FEEDBACK_KINDS, Interaction, SetAside
from ratchet.store import EventStore

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def interaction(key: str, **changes: Any) -> Interaction:
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


def feedback(key: str, kind: str = "thumbs", value: object = "up", **changes: Any) -> Any:
    row = {"id": key, "interaction_id": "i-1", "created_at": NOW, "kind": kind, "value": value}
    return FEEDBACK.validate_python(row | changes)


def rejected(key: str, reason: str) -> SetAside:
    return SetAside(id=key, created_at=NOW, source="f", position="1", reason=reason, raw="{}")


def fresh(store: EventStore) -> tuple[dict[str, int], dict[str, int]]:
    """Count every row: what `counts` and `set_aside_reasons` have to say."""
    with store.reading() as connection:

        def rows(query: str) -> list[Any]:
            return list(connection.execute(sa.text(query)))

        kinds = "SELECT kind, count(*) FROM feedback WHERE version_of IS NULL GROUP BY kind"
        by_kind: Mapping[str, int] = dict(rows(kinds))
        reasons = rows("SELECT reason, count(*) FROM set_aside GROUP BY reason")
        totals = {
            name: rows(f"SELECT count(*) FROM {name}")[0][0]
            for name in ("interactions", "set_aside")
        }
    counts = totals | {kind: by_kind.get(kind, 0) for kind in FEEDBACK_KINDS}
    return counts, dict(sorted(map(tuple, reasons), key=lambda item: (-item[1], item[0])))


def assert_kept(store: EventStore) -> None:
    counts, reasons = fresh(store)
    assert store.counts() == counts
    assert list(store.set_aside_reasons().items()) == list(reasons.items())


def fill(store: EventStore, name: str) -> None:
    """Add rows of every kind, some of them twice and some that change nothing."""
    store.add_interactions([interaction(f"{name}-{n}") for n in range(7)])
    store.add_interactions([interaction(f"{name}-{n}") for n in range(5, 9)])
    store.add_feedback([feedback(f"{name}-{n}") for n in range(4)])
    store.add_feedback([feedback(f"{name}-s{n}", "stars", n + 1) for n in range(3)])
    later = NOW + timedelta(hours=1)
    edited = feedback(f"{name}-1", value="down", updated_at=later)
    store.add_feedback([edited, feedback(f"{name}-1")])  # a version is no other event
    store.set_aside([rejected(f"{name}-{n}", f"reason {n % 2}") for n in range(5)])
    store.set_aside([rejected(f"{name}-0", "reason 0")])


def test_an_empty_store_has_counts_of_nothing(store: EventStore) -> None:
    assert set(store.counts().values()) == {0}
    assert store.set_aside_reasons() == {}


def test_repeats_and_versions_are_no_more_rows(store: EventStore) -> None:
    fill(store, "a")
    assert_kept(store)
    counts = store.counts()
    assert (counts["interactions"], counts["set_aside"]) == (9, 5)
    assert (counts["thumbs"], counts["stars"]) == (4, 3)
    assert store.set_aside_reasons() == {"reason 0": 3, "reason 1": 2}


def test_what_is_rolled_back_was_never_counted(store: EventStore) -> None:
    fill(store, "a")

    def stopped() -> None:
        with store.atomic():
            fill(store, "b")
            assert_kept(store)  # within the transaction they count
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert store.counts()["interactions"] == 9
    assert_kept(store)


def test_deleted_rows_are_taken_off(store: EventStore) -> None:
    fill(store, "a")
    fill(store, "b")
    with store.atomic() as connection:
        for table in ("interactions", "feedback", "set_aside"):
            delete = f"DELETE FROM {table} WHERE position IN (1, 2, 5, 9)"
            assert connection.execute(sa.text(delete)).rowcount > 0
    assert_kept(store)
    with store.atomic() as connection:
        connection.execute(sa.text("DELETE FROM set_aside WHERE reason = 'reason 1'"))
    assert list(store.set_aside_reasons()) == ["reason 0"]
    assert_kept(store)


def test_interactions_are_counted_wherever_rows_go_and_come_again(store: EventStore) -> None:
    """SQLite gives the position of the last row again when that row is deleted."""
    for first, deleted in (
        (0, "3"),
        (10, "2, 3"),
        (20, "1, 9"),
        (30, "7, 8, 10, 11, 12"),
        (40, "0"),
    ):
        store.add_interactions([interaction(f"{n}") for n in range(first, first + 4)])
        with store.atomic() as connection:
            gone = sa.text(f"DELETE FROM interactions WHERE position IN ({deleted})")
            connection.execute(gone)
            last = "(SELECT max(position) FROM interactions)"
            connection.execute(sa.text(f"DELETE FROM interactions WHERE position >= {last} - 1"))
        assert_kept(store)
    with store.atomic() as connection:
        connection.execute(sa.text("DELETE FROM interactions"))
    assert store.counts()["interactions"] == 0
    store.add_interactions([interaction("last")])
    assert_kept(store)


def test_reasons_of_any_length_are_told_apart(store: EventStore) -> None:
    """PostgreSQL indexes no text above a third of a page."""
    long = "x" * 9_000
    store.set_aside([rejected("a", f"{long}a"), rejected("b", f"{long}b"), rejected("c", "")])
    assert store.set_aside_reasons() == {"": 1, f"{long}a": 1, f"{long}b": 1}


def test_several_writers_at_once_lose_no_row(open_store: Callable[[], EventStore]) -> None:
    stores = [open_store() for _ in range(4)]
    start = Barrier(len(stores))

    def write(store: EventStore, name: str) -> None:
        start.wait(timeout=30)
        for part in range(5):
            fill(store, f"{name}{part}")
            with store.atomic() as connection:
                last = "(SELECT max(position) FROM interactions)"
                connection.execute(sa.text(f"DELETE FROM interactions WHERE position = {last}"))

    with ThreadPoolExecutor(len(stores)) as pool:
        for done in [pool.submit(write, store, f"w{n}") for n, store in enumerate(stores)]:
            done.result(timeout=120)
    # no fewer: a writer may store again what another deleted meanwhile
    assert stores[0].counts()["interactions"] >= 4 * 5 * (9 - 1)
    assert stores[0].counts()["set_aside"] == 4 * 5 * 5
    assert_kept(stores[1])


def test_no_writer_waits_for_the_count_of_another(open_store: Callable[[], EventStore]) -> None:
    store = open_store()
    if store._engine.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    insert = sa.text(
        'INSERT INTO set_aside (id, created_at, source, "where", reason, raw) '
        "VALUES (:id, 0, 's', 'w', 'r', '')"
    )
    with store._engine.connect() as first, store._engine.connect() as second:
        first.execute(insert, {"id": "1"})  # not committed: a plain number would be locked now
        second.execute(sa.text("SET statement_timeout = 5000"))
        second.execute(insert, {"id": "2"})
        second.commit()
        assert store.set_aside_reasons() == {"r": 1}
        first.execute(insert, {"id": "3"})
        first.commit()
    assert store.set_aside_reasons() == {"r": 3}


def test_a_bulk_load_is_counted(open_store: Callable[[], EventStore]) -> None:
    store = open_store()
    copied = "SELECT id || 'c', digest, session_id, user_id, created_at, received_at, "
    copied += "model_version, segment, prompt, messages, response, latency_seconds, error, metadata"
    columns = copied.replace("id || 'c'", "id").removeprefix("SELECT ")
    fill(store, "a")
    with store.atomic() as connection:
        connection.execute(
            sa.text(f"INSERT INTO interactions ({columns}) {copied} FROM interactions")
        )
    assert store.counts()["interactions"] == 18
    if store._engine.dialect.name == "postgresql":
        with store._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor:
                into = 'COPY set_aside (id, created_at, source, "where", reason, raw) FROM STDIN'
                with cursor.copy(into) as copy:
                    copy.write_row(("k", 0, "s", "w", "copied", ""))
            driver.commit()
        assert store.set_aside_reasons()["copied"] == 1
    assert_kept(store)


def test_a_store_without_counts_gets_them_when_it_is_opened(
    open_store: Callable[[], EventStore],
) -> None:
    store = open_store()
    fill(store, "a")
    postgresql = store._engine.dialect.name == "postgresql"
    with store.atomic() as connection:
        for table in ("interactions", "feedback", "set_aside"):
            for event in ("insert", "delete"):
                trigger = f"count_{table}_{event}" + (f" ON {table}" if postgresql else "")
                connection.execute(sa.text(f"DROP TRIGGER IF EXISTS {trigger}"))
        connection.execute(sa.text("DROP TABLE counts"))
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name LIKE '0010%'"))
    fill(store, "b")  # by a process that knows no counts
    store = open_store()
    assert store.counts()["interactions"] == 18
    fill(store, "c")
    assert_kept(store)


def test_counting_anew_changes_nothing(store: EventStore) -> None:
    from ratchet.store.counts import keep_counts

    fill(store, "a")
    with store.atomic() as connection:
        keep_counts(connection)
        keep_counts(connection)
    assert_kept(store)
    fill(store, "b")
    assert_kept(store)
