"""Migrations of a store that others use meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from threading import Barrier, BrokenBarrierError, Event

import pytest
import sqlalchemy as sa

from ratchet.store import MIGRATIONS, EventStore
from ratchet.store.connections import configure_sqlite
from ratchet.store.indexes import build_index
from ratchet.store.migrating import migrate

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
FIRST = "0001_create_events"
Migration = Callable[[sa.Connection], None]


@pytest.fixture
def engine(empty_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(empty_url)
    if made.dialect.name == "sqlite":
        configure_sqlite(made)
    yield made
    made.dispose()


@pytest.fixture
def live(postgresql_url: str) -> Iterator[sa.Engine]:
    """A PostgreSQL store as the first migration made it, with writers' tables alone."""
    made = sa.create_engine(postgresql_url)
    run(made, FIRST)
    yield made
    made.dispose()


def run(engine: sa.Engine, *names: str, **more: Migration) -> None:
    migrate(engine, {name: MIGRATIONS[name] for name in names} | more, lambda: NOW)


def applied(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        query = sa.text("SELECT name FROM schema_migrations ORDER BY name")
        return list(connection.execute(query).scalars())


def fill(engine: sa.Engine, rows: int) -> None:
    """Add interactions one second apart, as version 0.1 of the store has them."""
    messages = json.dumps([{"role": "user", "content": "Where is my card?"}])
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO interactions (id, digest, session_id, user_id, created_at, "
                "received_at, model_version, segment, prompt, messages, response, metadata) "
                "SELECT 'old-' || n, 'd', 's', 'u', :start + n * CAST(1000000 AS bigint), 0, "
                "'router/1', '', 'Where is my card?', CAST(:messages AS json), 'card', '{}' "
                "FROM generate_series(1, :rows) AS n"
            ),
            {
                "rows": rows,
                "messages": messages,
                "start": int((NOW - timedelta(days=60)).timestamp() * 1e6),
            },
        )


INSERT = (
    "INSERT INTO interactions (id, digest, session_id, user_id, created_at, received_at, "
    "model_version, segment, prompt, messages, response, metadata) VALUES (%(id)s, 'd', 's', 'u', "
    "%(at)s, 0, 'router/1', '', 'Hello', '[]', 'Hi', '{}') ON CONFLICT DO NOTHING"
)
"""As the version before writes: it knows nothing of what a migration makes."""


@contextmanager
def writing(engine: sa.Engine) -> Iterator[list[float]]:
    """Write rows one after the other until the block ends; yield how long each took, in seconds."""
    waits: list[float] = []
    stop = Event()

    def write() -> None:
        at = int(NOW.timestamp() * 1e6)
        while not stop.is_set():
            began = time.monotonic()
            with engine.begin() as connection:
                row = {"id": f"live-{len(waits)}", "at": at + len(waits)}
                connection.exec_driver_sql(INSERT, row)
            waits.append(time.monotonic() - began)
            time.sleep(0.002)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(write)
        try:
            yield waits
        finally:
            stop.set()
            future.result(timeout=60)


def count(engine: sa.Engine, table: str = "interactions") -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def valid_indexes(engine: sa.Engine) -> set[str]:
    query = (
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indisvalid AND relnamespace = current_schema()::regnamespace"
    )
    with engine.connect() as connection:
        return set(connection.exec_driver_sql(query).scalars())


def test_a_migration_that_fails_leaves_those_before_it_and_nothing_of_itself(
    engine: sa.Engine,
) -> None:
    def good(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE good (n INTEGER)")

    def bad(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE bad (n INTEGER)")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run(engine, good=good, worse=bad)
    assert applied(engine) == ["good"]
    assert sa.inspect(engine).has_table("good")
    assert not sa.inspect(engine).has_table("bad")
    run(engine, good=good, worse=lambda connection: None)  # the good one would fail a second time
    assert applied(engine) == ["good", "worse"]


class LookedUpTogether(dict[str, Migration]):
    """Migrations that nobody begins with before all have seen what is missing, where that can be.

    On PostgreSQL one process looks at a time: the others wait for their turn.
    """

    def __init__(self, processes: int, **migrations: Migration) -> None:
        super().__init__(migrations)
        self._together = Barrier(processes)

    def __iter__(self) -> Iterator[str]:
        with suppress(BrokenBarrierError):
            self._together.wait(timeout=2)
        return super().__iter__()


def test_processes_that_open_a_store_at_once_migrate_it_once(engine: sa.Engine) -> None:
    def once(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE once (n INTEGER)")  # would fail a second time

    together = LookedUpTogether(3, once=once)
    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(migrate, engine, together, lambda: NOW) for _ in range(3)]:
            future.result(timeout=60)
    assert applied(engine) == ["once"]


def test_the_index_of_a_large_table_is_made_while_others_write(live: sa.Engine) -> None:
    fill(live, 50_000)
    with writing(live) as waits:
        EventStore.open(live.url.render_as_string(False), clock=lambda: NOW).close()
    assert max(waits) < 1
    assert applied(live) == list(MIGRATIONS)
    assert {"ix_interactions_version_time", "ix_journal_subject"} <= valid_indexes(live)
    assert count(live) == 50_000 + len(waits)


def test_a_migration_that_gets_no_lock_lets_writers_through_and_tries_again(
    live: sa.Engine,
) -> None:
    def add(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE interactions ADD COLUMN extra INTEGER")

    with ThreadPoolExecutor(1) as pool, writing(live) as waits:
        with live.connect() as reader:
            reader.exec_driver_sql("SELECT count(*) FROM interactions")  # holds it from altering
            adding = pool.submit(run, live, extra=add)
            assert not wait([adding], timeout=2).done
        adding.result(timeout=60)
    assert max(waits) < 1
    assert applied(live) == [FIRST, "extra"]
    assert count(live) == len(waits)


def test_an_index_that_a_killed_process_left_unfinished_is_made_again(live: sa.Engine) -> None:
    fill(live, 10_001)
    with live.begin() as connection:
        connection.exec_driver_sql(
            "CREATE INDEX ix_interactions_version_time ON interactions (model_version, created_at)"
        )
        connection.exec_driver_sql(
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'ix_interactions_version_time'::regclass"
        )
    assert "ix_interactions_version_time" not in valid_indexes(live)
    run(live, FIRST, "0002_index_versions")
    assert "ix_interactions_version_time" in valid_indexes(live)
    assert applied(live) == [FIRST, "0002_index_versions"]


def test_an_index_is_made_in_every_partition_and_in_those_to_come(live: sa.Engine) -> None:
    with live.begin() as connection:
        for statement in (
            "CREATE TABLE parts (month INTEGER, n INTEGER) PARTITION BY RANGE (month)",
            "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (2)",
            "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (2) TO (3)",
            "INSERT INTO parts SELECT 1 + mod(n, 2), n FROM generate_series(1, 100) AS n",
        ):
            connection.exec_driver_sql(statement)
    for _ in range(2):
        build_index(live, "ix_parts_n", "parts (n)")
    with live.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE parts_3 PARTITION OF parts DEFAULT")
        found = connection.exec_driver_sql(
            "SELECT tablename FROM pg_indexes WHERE indexdef LIKE '%%(n)' "
            "AND schemaname = current_schema() ORDER BY 1"
        )
        assert list(found.scalars()) == ["parts", "parts_1", "parts_2", "parts_3"]
    assert "ix_parts_n" in valid_indexes(live)
