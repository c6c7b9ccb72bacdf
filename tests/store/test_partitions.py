"""Interactions and feedback by month on PostgreSQL, how a store gets there, and retention."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ratchet.store import MIGRATIONS, Added, EventStore, Window
from ratchet.store.arrivals import last_position
from ratchet.store.months import month_of, read_partitions, start_of, with_ids
from ratchet.store.tables import FEEDBACK_EVENTS, INTERACTIONS
from tests.store.test_migrating import FIRST, applied, count, fill, live, run, writing
from tests.store.test_transactions import feedback, ids, interaction

__all__ = ["live"]

Open = Callable[[], EventStore]
NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)  # the clock of `open_store`
ALWAYS = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@pytest.fixture
def postgres(postgresql_url: str) -> EventStore:
    return EventStore.open(postgresql_url, clock=lambda: NOW)


def at(year: int, month: int, day: int = 1) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def names(store: EventStore, table: str = "interactions") -> list[str]:
    with store.reading() as connection:
        return [part.name for part in read_partitions(connection, table)]


def rows_in(store: EventStore, table: str) -> int:
    with store.reading() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


# Months -----------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment.year < 9999))
def test_a_time_lies_in_its_calendar_month(moment: datetime) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    month = month_of((moment - epoch) // timedelta(microseconds=1))
    start, end = (epoch + timedelta(microseconds=start_of(n)) for n in (month, month + 1))
    assert (start.year, start.month) == (moment.year, moment.month)
    assert start <= moment < end


def test_a_new_store_makes_the_months_that_its_rows_need_and_the_next(postgres: EventStore) -> None:
    assert names(postgres) == ["interactions_other"]
    postgres.add_interactions(
        [interaction("a", created_at=at(2025, 10, 31)), interaction("b", created_at=NOW)]
    )
    postgres.add_feedback([feedback("f", created_at=at(2025, 12, 1))])
    assert names(postgres) == [
        "interactions_2025_10", "interactions_2026_01", "interactions_2026_02",
        "interactions_other",
    ]  # fmt: skip
    assert names(postgres, "feedback") == ["feedback_2025_12", "feedback_other"]
    assert rows_in(postgres, "interactions_other") == 0


def test_rows_of_odd_times_are_kept_without_a_partition_of_their_own(postgres: EventStore) -> None:
    odd = [datetime(1970, 1, 1, tzinfo=UTC), at(2020, 12), at(2026, 3), at(9999, 12, 31)]
    postgres.add_interactions([interaction(str(n), created_at=t) for n, t in enumerate(odd)])
    assert names(postgres) == ["interactions_other"]
    assert ids(postgres.interactions(ALWAYS)) == ["0", "1", "2", "3"]
    assert sorted(postgres.stored_interactions(["0", "3"])) == ["0", "3"]


def test_an_id_is_stored_once_whatever_its_month(postgres: EventStore) -> None:
    first = interaction("a", created_at=at(2025, 10))
    moved = interaction("a", created_at=at(2025, 11))
    assert postgres.add_interactions([first]) == Added(1, 0, ())
    assert postgres.add_interactions([moved, interaction("b")]) == Added(1, 0, ("a",))
    assert postgres.add_interactions([first]) == Added(0, 1, ())
    assert postgres.stored_interactions(["a"]) == {"a": first}
    with pytest.raises(sa.exc.IntegrityError), postgres.adding() as connection:
        connection.exec_driver_sql(  # by whoever does not look first
            "INSERT INTO feedback (id, digest, interaction_id, created_at, received_at, kind) "
            "VALUES ('x', '', 'a', 1, 0, 'copy'), ('x', '', 'a', 1767600000000000, 0, 'copy')"
        )


def test_an_id_is_free_again_once_its_row_is_deleted(open_store: Open) -> None:
    store = open_store()
    store.add_interactions([interaction("a"), interaction("b")])
    with store.adding() as connection:
        connection.execute(sa.delete(INTERACTIONS).where(INTERACTIONS.c.id == "a"))
    assert sorted(store.stored_interactions(["a", "b"])) == ["b"]
    again = [interaction("a", response="other"), interaction("b")]
    assert store.add_interactions(again) == Added(1, 1, ())


def test_two_writers_of_one_id_in_two_months_store_it_once(open_store: Open) -> None:
    first, second = open_store(), open_store()
    other = interaction("a", created_at=at(2025, 11))
    with ThreadPoolExecutor(1) as pool:
        with first.adding():
            first.add_interactions([interaction("a")])
            adding = pool.submit(second.add_interactions, [other, interaction("b")])
            wait([adding], timeout=0.4)
        assert adding.result(timeout=30) == Added(1, 0, ("a",))
    assert second.stored_interactions(["a", "b"]) == {
        "a": interaction("a"),
        "b": interaction("b"),
    }


def test_rows_are_stored_while_another_holds_the_table_and_move_to_their_month_later(
    open_store: Open,
) -> None:
    holder, writer = open_store(), open_store()
    if writer._engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no partitions")
    with holder.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM interactions").all()
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(writer.add_interactions, [interaction("a")])
            assert adding.result(timeout=30) == Added(1, 0, ())
    assert names(writer) == ["interactions_other"]
    open_store().add_interactions([interaction("b")])
    assert names(writer) == ["interactions_2026_01", "interactions_2026_02", "interactions_other"]
    assert rows_in(writer, "interactions_2026_01") == 2
    assert sorted(writer.stored_interactions(["a", "b"])) == ["a", "b"]
    assert writer.settled_position(INTERACTIONS) == 2


def test_a_row_that_is_stored_while_its_month_is_made_stops_nobody(open_store: Open) -> None:
    """The month's rows were moved before it was seen: PostgreSQL refuses the partition then."""
    one, other = open_store(), open_store()
    if one._engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no partitions")
    row = interaction("a", created_at=at(2025, 3))
    one._months._not_before["interactions"] = float("inf")  # as after it found the table held
    with ThreadPoolExecutor(1) as pool:
        with one.adding():
            one.add_interactions([row])
            second = pool.submit(
                other.add_interactions, [interaction("b", created_at=at(2025, 3, 2))]
            )
            wait([second], timeout=0.12)  # of the fifth of a second that it waits for the table
        assert second.result(timeout=60).new == 1
    assert set(other.stored_interactions(["a", "b"])) == {"a", "b"}
    assert other.add_interactions([row]).repeated == 1


@pytest.mark.parametrize("table", [INTERACTIONS, FEEDBACK_EVENTS])
def test_a_row_is_found_by_its_id_in_one_partition(postgres: EventStore, table: sa.Table) -> None:
    months = [at(2025, month) for month in range(1, 13)]
    postgres.add_interactions([interaction(f"i{n}", created_at=t) for n, t in enumerate(months)])
    postgres.add_feedback([feedback(f"i{n}", created_at=t) for n, t in enumerate(months)])
    with postgres.reading() as connection:
        query = sa.select(table.c.position).where(with_ids(connection, table, ["i3", "i4"]))
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        connection.exec_driver_sql("SET LOCAL enable_hashjoin = off")  # as with many rows
        connection.exec_driver_sql("SET LOCAL enable_mergejoin = off")
        plan = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN (ANALYZE) {text}")]
        assert connection.execute(query).scalars().all() == [4, 5]
    scans = [line for line in plan if "Scan" in line and f" {table.name}_2025" in line]
    assert len(scans) == 12
    assert sum("never executed" not in line for line in scans) == 2


# Getting there ----------------------------------------------------------------------------------


def test_a_store_in_use_is_divided_by_month_while_others_write(live: sa.Engine) -> None:
    fill(live, 50_000)
    ahead = int(at(2150, 1).timestamp() * 1e6)
    with live.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE interactions SET created_at = {ahead} WHERE position IN (7, 40000)"
        )
    before = _rows(live)
    with writing(live) as waits:
        store = EventStore.open(live.url.render_as_string(False))
    assert max(waits) < 1
    assert applied(live) == list(MIGRATIONS)
    assert names(store) == ["interactions_first", "interactions_other"]
    after = _rows(live)
    assert {key: after[key] for key in before} == before
    assert len(after) == 50_000 + len(waits) == count(live, "interaction_ids")
    assert store.counts()["interactions"] == len(after)
    assert count(live, "interactions_other") == 2
    assert store.add_interactions([interaction("old-7"), interaction("new")]) == Added(
        1, 0, ("old-7",)
    )
    assert last_position(store).interactions == max(after.values())[0] + 1
    store.close()


def _rows(engine: sa.Engine) -> dict[str, tuple[object, ...]]:
    query = "SELECT id, position, created_at, digest, CAST(messages AS text) FROM interactions"
    with engine.connect() as connection:
        return {row[0]: tuple(row[1:]) for row in connection.exec_driver_sql(query)}


def test_a_row_of_times_to_come_is_kept_though_it_arrives_during_the_division(
    live: sa.Engine,
) -> None:
    fill(live, 10)
    ahead = int(at(2150, 1).timestamp() * 1e6)
    insert = (
        "INSERT INTO interactions (id, digest, session_id, user_id, created_at, received_at, "
        "model_version, segment, prompt, messages, response, metadata) SELECT 'ahead', 'd', 's', "
        f"'u', {ahead}, 0, 'r/1', '', '', '[]', '', '{{}}' ON CONFLICT DO NOTHING"
    )
    with live.connect() as reader:
        reader.exec_driver_sql("SELECT 1 FROM interactions")  # the switch waits for it
        with ThreadPoolExecutor(1) as pool:
            # a reader does not keep a trigger from being made, but a constraint
            dividing = pool.submit(run, live, FIRST, "0013_partition_by_month")
            wait([dividing], timeout=1)
            with live.begin() as writer:
                writer.exec_driver_sql(insert)
                writer.exec_driver_sql(insert)
            reader.rollback()
            dividing.result(timeout=60)
    assert count(live) == 11
    assert count(live, "interaction_ids") == 11
    assert count(live, "interactions_other") == 1


def test_a_division_that_was_killed_half_way_goes_on(live: sa.Engine) -> None:
    fill(live, 100)
    with live.begin() as connection:
        from ratchet.store.partitioning import _divert, _keep_ids

        _keep_ids(connection, "interactions")
        _divert(connection, "interactions", start_of(month_of(0) + 12 * 200))
    run(live, FIRST, "0013_partition_by_month")
    with live.connect() as connection:
        first, other = read_partitions(connection, "interactions")
    assert (first.start, first.end) == (None, start_of(2170 * 12))
    assert other.other
    assert count(live, "interaction_ids") == count(live) == 100


# Months that were emptied -----------------------------------------------------------------------


def delete(store: EventStore, *keys: str) -> None:
    with store.adding() as connection:
        connection.execute(sa.delete(INTERACTIONS).where(INTERACTIONS.c.id.in_(keys)))


def test_a_month_whose_rows_were_deleted_is_dropped_when_a_later_one_begins(
    postgresql_url: str,
) -> None:
    today = [at(2025, 10, 5)]
    store = EventStore.open(postgresql_url, clock=lambda: today[0])
    times = {"old": at(2025, 8), "kept": at(2025, 9), "last": at(2025, 10)}
    store.add_interactions([interaction(key, created_at=time) for key, time in times.items()])
    delete(store, "old", "last")
    assert "interactions_2025_08" in names(store)
    today[0] = at(2025, 12, 5)
    store.add_interactions([interaction("new", created_at=at(2025, 12, 5))])
    assert names(store) == [
        "interactions_2025_09", "interactions_2025_11", "interactions_2025_12",
        "interactions_2026_01", "interactions_other",
    ]  # fmt: skip
    assert store.counts()["interactions"] == 2
    late = [interaction("late", created_at=times["old"])]
    assert store.add_interactions(late) == Added(1, 0, ())
    assert sorted(store.stored_interactions(["kept", "late", "new"])) == ["kept", "late", "new"]


@pytest.mark.slow
def test_a_few_rows_left_in_a_large_month_move_and_its_space_is_given_back(
    postgres: EventStore,
) -> None:
    keys = [f"i{n}" for n in range(720)]
    rng = np.random.default_rng(0)
    texts = [rng.bytes(49_500).hex() for _ in keys]  # PostgreSQL does not compress these
    postgres.add_interactions(
        [
            interaction(k, created_at=at(2025, 8), response=t)
            for k, t in zip(keys, texts, strict=True)
        ]
    )
    delete(postgres, *keys[1:])
    postgres.add_interactions([interaction("new", created_at=at(2025, 7))])
    assert "interactions_2025_08" not in names(postgres)
    assert "interactions_2025_07" in names(postgres)
    assert rows_in(postgres, "interactions_other") == 1
    assert postgres.counts()["interactions"] == 2
    assert sorted(postgres.stored_interactions(["i0", "new"])) == ["i0", "new"]
    assert postgres.add_interactions([interaction("i0")]) == Added(0, 0, ("i0",))
