"""The gateway's database locked, killed and started again; two gateways on one home."""

from __future__ import annotations

import asyncio
import random
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from ratchet.store import EventStore
from tests.faults.ledger import Row
from tests.faults.test_gateway_kills import AT_ONCE, FORKED, SEGMENT_BYTES
from tests.gateway.killing import Load, check_kept, free_port, gateway, kill_group, living, until
from tests.servers.mock_backend import MockBackend
from tests.servers.postgresql import postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def database_of(url: str) -> str:
    return sa.make_url(url).get_backend_name()


@contextmanager
def forked(
    home: Path, url: str, port: int, *more: str, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A mock backend with a gateway of three workers in front of it."""
    given = {"RATCHET_TEST_SEGMENT_BYTES": str(SEGMENT_BYTES), "RATCHET_STORE_URL": url}
    with (
        MockBackend() as mock,
        gateway(
            home, mock.url, port, home.parent / "log", workers=3, program=FORKED, more=more,
            **given | variables,
        ) as child,
    ):  # fmt: skip
        yield child


async def loaded(load: Load, during: Callable[[], Awaitable[None]]) -> None:
    """Do something while clients ask and rate."""
    async with load.session() as session:
        await load.until_up(session)
        tasks = [asyncio.create_task(load.keep_on(session)) for _ in range(AT_ONCE)]
        try:
            await load.until_more(20)
            await during()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until_stored(load: Load, url: str) -> None:
    """Wait until the gateway itself has stored everything that was acknowledged by now."""
    answers = set(load.answers)
    store = EventStore.open(url)

    async def is_stored() -> bool:
        return answers <= store.stored_interactions(list(answers)).keys()

    await until(is_stored, "what was acknowledged is not stored")
    store.close()


def note(row: Row, load: Load, home: Path, url: str, name: str, faults: str) -> None:
    kept = check_kept(load, home, url)
    row.name, row.faults, row.database = name, faults, database_of(url)
    row.acknowledged, row.stored, row.doubled = kept.acknowledged, kept.stored, kept.doubled
    assert row.acknowledged == row.stored > 0


def test_a_locked_store_makes_events_wait_and_nobody_else(
    tmp_path: Path, store_url: str, row: Row
) -> None:
    home, port = tmp_path / "home", free_port()
    load = Load(f"http://127.0.0.1:{port}")

    async def lock() -> None:
        engine = sa.create_engine(store_url)
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.connection.dbapi_connection.isolation_level = None
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("LOCK TABLE interactions IN ACCESS EXCLUSIVE MODE")
            await load.until_more(200)  # they are acknowledged though nothing can be stored
        engine.dispose()
        await until_stored(load, store_url)

    with forked(home, store_url, port):
        asyncio.run(loaded(load, lock))
    note(row, load, home, store_url, "gateway under load", "store locked for 200 events")


def test_postgresql_killed_and_started_again_loses_and_doubles_nothing(
    tmp_path: Path, row: Row
) -> None:
    home, port, rng = tmp_path / "home", free_port(), random.Random(6)
    load = Load(f"http://127.0.0.1:{port}")
    with postgresql(Path(tempfile.mkdtemp(prefix="ratchet-pg-"))) as server:

        async def kill() -> None:
            for _ in range(5):
                await load.until_more(rng.randrange(1, 80))
                server.kill()
                await load.until_more(60)
                await asyncio.to_thread(server.start)
            await until_stored(load, server.url)

        with forked(home, server.url, port):
            asyncio.run(loaded(load, kill))
        note(row, load, home, server.url, "gateway under load", "PostgreSQL killed 5 times")


def test_two_gateways_on_one_home_take_over_from_each_other(
    tmp_path: Path, store_url: str, row: Row
) -> None:
    home, ports = tmp_path / "home", (free_port(), free_port())
    loads = [Load(f"http://127.0.0.1:{port}", first=n * 10**6) for n, port in enumerate(ports)]

    async def replaced(before: subprocess.Popen[bytes], turn: int) -> None:
        """Both serve; then the one that drains dies."""
        load = loads[turn]

        async def dies() -> None:
            await load.until_more(30)
            row.kills += len(living(before.pid))
            kill_group(before)
            await until_stored(load, store_url)

        await loaded(load, dies)

    with ExitStack() as all_of_them:
        last = all_of_them.enter_context(forked(home, store_url, ports[0]))
        for turn in (1, 0, 1, 0):
            child = all_of_them.enter_context(forked(home, store_url, ports[turn]))
            asyncio.run(loaded(loads[1 - turn], partial(replaced, last, turn)))
            last = child
    everything = loads[0].with_that_of(loads[1])
    note(row, everything, home, store_url, "two gateways, one home", "each killed in turn")
