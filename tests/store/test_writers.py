"""Several writers at once on PostgreSQL, and cursors that read behind them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from threading import Event

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ratchet.store import Added, EventStore
from ratchet.store.origins import note_real
from ratchet.store.positions import _distance
from ratchet.store.tables import FACTS, INTERACTIONS, VERDICTS
from tests.store.test_transactions import NOW, end, feedback, interaction, rejected

Open = Callable[[], EventStore]


@pytest.fixture
def store_url(postgresql_url: str) -> str:
    """A store that real users came to before: the first of them alone waits for its turn."""
    store = EventStore.open(postgresql_url)
    with store.atomic() as connection:
        note_real(connection, FACTS, NOW)
    store.close()
    return postgresql_url


def highest(store: EventStore) -> int:
    with store.reading() as connection:
        return connection.execute(sa.select(sa.func.max(INTERACTIONS.c.position))).scalar_one() or 0


def between(store: EventStore, after: int, until: int) -> list[str]:
    position = INTERACTIONS.c.position
    query = sa.select(INTERACTIONS.c.id).where(position > after, position <= until)
    with store.reading() as connection:
        return list(connection.execute(query.order_by(position)).scalars())


def test_a_cursor_stays_before_a_row_that_is_written_but_not_committed(open_store: Open) -> None:
    slow, fast, reader = open_store(), open_store(), open_store()
    fast.add_interactions([interaction("first")])
    with slow.adding():
        slow.add_interactions([interaction("slow")])
        fast.add_interactions([interaction("fast")])
        assert highest(reader) == 3  # where a cursor that asks for the highest would go
        assert between(reader, 0, highest(reader)) == ["first", "fast"]  # and skip the second row
        cursor = reader.settled_position(INTERACTIONS)
        assert between(reader, 0, cursor) == ["first"]
    assert between(reader, cursor, reader.settled_position(INTERACTIONS)) == ["slow", "fast"]


def test_a_cursor_stays_before_the_first_row_of_all(open_store: Open) -> None:
    slow, fast = open_store(), open_store()
    with slow.adding():
        slow.add_interactions([interaction("slow")])
        fast.add_interactions([interaction("fast")])
        assert fast.settled_position(INTERACTIONS) == 0
    assert fast.settled_position(INTERACTIONS) == 2


def test_a_cursor_does_not_wait_for_writers_of_other_tables_or_for_those_that_failed(
    open_store: Open,
) -> None:
    writer, reader = open_store(), open_store()

    def stopped() -> None:
        with writer.adding():
            writer.add_interactions([interaction("lost")])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    reader.add_interactions([interaction("kept")])
    with writer.adding():
        writer.add_feedback([feedback()])
        writer.set_aside([rejected("r")])
        assert between(reader, 0, reader.settled_position(INTERACTIONS)) == ["kept"]
        assert reader.settled_position(VERDICTS) == 0


def test_a_transaction_sees_its_own_rows_as_settled(open_store: Open) -> None:
    store = open_store()
    with store.atomic():
        store.add_interactions([interaction("a"), interaction("b")])
        assert store.settled_position(INTERACTIONS) == 2


def test_cursors_work_where_positions_need_more_than_32_bits(open_store: Open) -> None:
    slow, fast = open_store(), open_store()
    for start in (2**31 - 3, 2**32 - 3, 5 * 2**32 - 3):
        with fast.atomic() as connection:
            connection.execute(sa.text(f"SELECT setval('interactions_position_seq', {start})"))
        fast.add_interactions([interaction(f"before {start}")])
        with slow.adding():
            slow.add_interactions([interaction(f"slow {n} {start}") for n in range(4)])
            fast.add_interactions([interaction(f"after {start}")])
            assert fast.settled_position(INTERACTIONS) == start + 1
        assert fast.settled_position(INTERACTIONS) == start + 6


@given(st.integers(0, 2**62), st.integers(-(2**31), 2**31 - 1))
def test_the_distance_of_a_lock_is_that_of_its_position(highest: int, distance: int) -> None:
    # the number as SQL writes it: the last 32 bits, shifted into a signed integer, read as unsigned
    lock = ((highest + distance) % 2**32 - 2**31) % 2**32
    assert _distance(lock, highest) == distance


def test_a_cursor_behind_four_writers_reads_every_row_once(open_store: Open) -> None:
    stores, reader, done = [open_store() for _ in range(4)], open_store(), Event()

    def write(number: int) -> None:
        store = stores[number]
        for batch in range(30):
            with store.adding():
                store.add_interactions([interaction(f"{number}/{batch}/a")])
                time.sleep(0.001 * ((number + batch) % 4))  # so that they commit out of order
                store.add_interactions([interaction(f"{number}/{batch}/b")])

    def read() -> list[str]:
        cursor, seen = 0, []
        while True:
            last = done.is_set()
            settled = max(cursor, reader.settled_position(INTERACTIONS))
            seen += between(reader, cursor, settled)
            cursor = settled
            if last:
                return seen

    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(read)
        writing = [pool.submit(write, number) for number in range(4)]
        for future in writing:
            future.result(timeout=60)
        done.set()
        seen = reading.result(timeout=60)
    expected = {f"{n}/{b}/{part}" for n in range(4) for b in range(30) for part in "ab"}
    assert len(seen) == len(expected) == 240
    assert set(seen) == expected


def test_events_are_added_while_another_holds_a_transaction(open_store: Open) -> None:
    holder, writer = open_store(), open_store()

    def add() -> Added:
        writer.add_feedback([feedback()])
        writer.set_aside([rejected("r")])
        writer.add_answers("m", "greedy", {"a": "b"})
        return writer.add_interactions([interaction()])

    with ThreadPoolExecutor(1) as pool, holder.atomic():
        holder.append(end("x"))
        assert pool.submit(add).result(timeout=30) == Added(1, 0, ())


def test_events_are_added_while_another_adds_events(open_store: Open) -> None:
    slow, fast = open_store(), open_store()
    with ThreadPoolExecutor(1) as pool, slow.adding():
        slow.add_interactions([interaction("a")])
        adding = pool.submit(fast.add_interactions, [interaction("b")])
        assert adding.result(timeout=30) == Added(1, 0, ())


def test_the_journal_has_one_writer_at_a_time(open_store: Open) -> None:
    first, second = open_store(), open_store()
    with ThreadPoolExecutor(1) as pool:
        with first.adding():
            first.append(end("x"))  # takes the turn from here on
            waiting = pool.submit(second.append, end("y"))
            assert not wait([waiting], timeout=0.4).done
        assert waiting.result(timeout=30) is True
    assert [record.id for record in second.records(type(end("x")))] == ["x", "y"]


def test_two_versions_of_feedback_that_come_at_once_are_both_kept(open_store: Open) -> None:
    first, second = open_store(), open_store()
    for key, at in (("undated", None), ("dated", NOW + timedelta(hours=1))):
        early = feedback(key, value="up", updated_at=at)
        late = feedback(key, value="down", updated_at=NOW + timedelta(hours=2))
        with ThreadPoolExecutor(1) as pool:
            with first.adding():
                first.add_feedback([early])
                adding: Future[Added] = pool.submit(second.add_feedback, [late])
                wait([adding], timeout=0.4)
            assert adding.result(timeout=30) == Added(1, 0, ())
        assert second.stored_feedback([key]) == {key: late}


def test_a_writer_that_the_database_stopped_in_a_deadlock_begins_again(open_store: Open) -> None:
    other, store = open_store(), open_store()
    with ThreadPoolExecutor(1) as pool, other.adding() as connection:
        connection.execute(sa.text("SET LOCAL deadlock_timeout = '1h'"))  # the other one is stopped
        other.add_interactions([interaction("b")])
        adding = pool.submit(
            store.add_interactions, [interaction("a"), interaction("b", response="other")]
        )
        wait([adding], timeout=0.3)
        other.add_interactions([interaction("a")])
        wait([adding], timeout=0.3)
    assert adding.result(timeout=30) == Added(0, 1, ("b",))
