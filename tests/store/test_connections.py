"""The connections to PostgreSQL: how many, how long they wait, and what happens after a restart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.store import EventStore
from tests.store.test_transactions import end, interaction


def opened(url: str, **options: object) -> EventStore:
    query = {name: str(value) for name, value in options.items()}
    return EventStore.open(sa.make_url(url).update_query_dict(query).render_as_string(False))


def value(store: EventStore, name: str) -> str:
    with store.reading() as connection:
        return str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())


def test_timeouts_have_defaults_and_can_be_set_in_the_url(postgresql_url: str) -> None:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    usual, strict = (
        opened(postgresql_url),
        opened(postgresql_url, lock_timeout=2, statement_timeout=90, idle_timeout=0),
    )
    assert [value(usual, name) for name in names] == ["1min", "0", "15min"]
    assert [value(strict, name) for name in names] == ["2s", "90s", "0"]


def test_a_process_opens_no_more_connections_than_its_limit(postgresql_url: str) -> None:
    store = opened(postgresql_url, pool_size=2, max_overflow=0, application_name="limited")
    together = Barrier(2)

    def read(_: int) -> int:
        with store.reading() as connection:
            together.wait(timeout=30)  # both that there may be are in use
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'limited'"
            return int(connection.exec_driver_sql(query).scalar_one())

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(read, range(6))) == [2] * 6


def test_a_process_that_needs_few_connections_says_so(postgresql_url: str) -> None:
    store = EventStore.open(postgresql_url, connections=1)
    assert store._engine.pool.size() == 1
    assert store._engine.pool._max_overflow == 1


def test_a_connection_that_the_server_ended_is_replaced(postgresql_url: str) -> None:
    store, other = opened(postgresql_url, application_name="ended"), opened(postgresql_url)
    store.add_interactions([interaction("a")])
    with other.reading() as connection:
        ended = connection.exec_driver_sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'ended'"
        )
        assert ended.scalar_one() >= 1
    assert store.add_interactions([interaction("b")]).new == 1


def test_who_waits_too_long_for_the_journal_is_told(postgresql_url: str) -> None:
    holder, hasty = opened(postgresql_url), opened(postgresql_url, lock_timeout=1)
    with holder.atomic(), pytest.raises(sa.exc.OperationalError, match="lock timeout"):
        hasty.append(end("x"))
    assert hasty.append(end("x"))


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("pool_size", "many", 1), ("pool_size", "0", 1), ("lock_timeout", "-1", 0),
     ("idle_timeout", "1.5", 0)],
)  # fmt: skip
def test_an_option_that_is_no_number_is_refused(option: str, value: str, least: int) -> None:
    expected = f"{option} in the store's URL must be a whole number of at least {least}, got"
    with pytest.raises(InvalidInputError, match=expected):
        opened("postgresql+psycopg://ada@/ratchet?host=/nowhere", **{option: value})
