"""Reading in batches: the same rows as the whole table, in memory that a batch bounds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.records import FEEDBACK, Interaction
from ratchet.store import EventStore, Window

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
DAY = Window(NOW, NOW + timedelta(days=1))


def interaction(number: int, **changes: Any) -> Interaction:
    row = {
        "id": f"i-{number}",
        "session_id": "s",
        "user_id": "u",
        # every second one is as old as the one before, so that arrival decides the order
        "created_at": NOW + timedelta(minutes=number // 2 * 7 % 600),
        "model_version": f"router/{number % 2}",
        "messages": [{"role": "user", "content": f"Where is card {number}?"}],
        "response": "card delivery",
        "latency_seconds": number / 7 if number % 3 else None,
        "metadata": {"finish_reason": "length"} if number % 5 == 0 else {},
    }
    return Interaction.model_validate(row | changes)


def thumbs(number: int) -> Any:
    return FEEDBACK.validate_python(
        {
            "id": f"f-{number}",
            "interaction_id": f"i-{number % 41}",
            "created_at": NOW + timedelta(minutes=number * 13 % 700),
            "kind": "thumbs",
            "value": "up",
        }
    )


@pytest.fixture
def filled(open_store: Callable[[], EventStore]) -> EventStore:
    store = open_store()
    store.add_interactions([interaction(number) for number in range(53)])
    store.add_interactions([interaction(99, created_at=NOW + timedelta(days=2))])
    store.add_feedback([thumbs(number) for number in range(47)])
    return store


@pytest.mark.parametrize("size", [1, 7, 53, 10_000])
def test_batches_hold_the_rows_of_the_whole_table_in_its_order(
    filled: EventStore, size: int
) -> None:
    for whole, batches in (
        (filled.interactions(DAY), list(filled.interaction_batches(DAY, size=size))),
        (filled.feedback(DAY), list(filled.feedback_batches(DAY, size=size))),
    ):
        assert pa.Table.from_batches(batches).combine_chunks() == whole.combine_chunks()
        assert max(batch.num_rows for batch in batches) <= size
        assert len(batches) == -(-whole.num_rows // size)


def test_a_window_without_rows_has_no_batch_and_an_empty_table(filled: EventStore) -> None:
    empty = Window(NOW - timedelta(days=9), NOW - timedelta(days=8))
    assert list(filled.interaction_batches(empty)) == list(filled.feedback_batches(empty)) == []
    assert list(filled.iter_interactions(empty)) == []
    assert filled.interactions(empty).num_rows == filled.feedback(empty).num_rows == 0
    assert filled.interactions(empty).schema == filled.interactions(DAY).schema


def test_batches_hold_the_columns_that_are_asked_for(filled: EventStore) -> None:
    names = ["metadata", "position", "id", "messages", "received_at"]
    batch = next(filled.interaction_batches(DAY, names, size=100))
    assert batch.schema.names == names
    first = batch.slice(0, 1).to_pylist()[0]
    assert (first["position"], first["id"]) == (1, "i-0")
    assert first["metadata"] == '{"finish_reason": "length"}'
    assert first["messages"] == '[{"role": "user", "content": "Where is card 0?"}]'


@pytest.mark.parametrize("names", [["id", "answer"], []])
def test_columns_that_are_not_there_are_refused(filled: EventStore, names: list[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"columns must be some of id, .*correct the names"):
        next(filled.interaction_batches(DAY, names))


def test_a_batch_without_rows_is_refused(filled: EventStore) -> None:
    with pytest.raises(InvalidInputError, match="1 row or more, got 0"):
        next(filled.feedback_batches(DAY, size=0))


def test_interactions_come_back_as_records_in_lists_of_bounded_length(filled: EventStore) -> None:
    lists = list(filled.iter_interactions(DAY, size=10))
    assert [len(part) for part in lists] == [10, 10, 10, 10, 10, 3]
    records = [record for part in lists for record in part]
    assert [record.id for record in records] == filled.interactions(DAY)["id"].to_pylist()
    assert records[0] == interaction(0)


def test_what_is_said_of_endings_can_be_read_one_after_the_other(filled: EventStore) -> None:
    cut = dict(filled.iter_endings(DAY))
    assert cut == filled.endings(DAY) == {f"i-{n}": "length" for n in range(0, 53, 5)}


def test_another_store_writes_while_batches_are_read(
    filled: EventStore, open_store: Callable[[], EventStore]
) -> None:
    batches = filled.interaction_batches(DAY, ["id"], size=10)
    read = [next(batches)]
    open_store().add_interactions([interaction(number) for number in range(60, 90)])
    read += batches
    assert sum(batch.num_rows for batch in read) == 53  # as it was when the reading began


def test_postgresql_keeps_the_answer_and_sends_a_batch(
    filled: EventStore, open_store: Callable[[], EventStore]
) -> None:
    other = open_store()
    if other._engine.dialect.name != "postgresql":
        pytest.skip("asks PostgreSQL what it does")
    batches = filled.interaction_batches(DAY, ["id"], size=10)
    assert isinstance(batches, Generator)
    next(batches)
    with closing(batches), other.reading() as connection:
        said = connection.execute(sa.text("SELECT query FROM pg_stat_activity")).scalars().all()
    asked = [str(query).split()[2] for query in said if str(query).startswith("FETCH FORWARD")]
    assert [int(rows) <= 10 for rows in asked] == [True], said


@pytest.mark.slow
def test_memory_follows_the_batch_and_not_the_window(tmp_path: Any) -> None:
    """The whole in bytes is 4 MB of texts; a batch of 100 has 20 kB of them, and the driver's."""
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    for start in range(0, 20_000, 1_000):
        numbers = range(start, start + 1_000)
        store.add_interactions([interaction(n, response=f"{n:0200d}") for n in numbers])

    def peak(batches: Iterator[Any]) -> int:
        tracemalloc.start()
        for batch in batches:
            del batch
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few, many = Window(NOW, NOW + timedelta(minutes=30)), DAY
    for read in (
        lambda window: store.interaction_batches(window, size=100),
        lambda window: store.iter_interactions(window, size=100),
    ):
        small, large = peak(read(few)), peak(read(many))
        assert large < 1.5 * small + 100_000
        assert large < 2_000_000
    store.close()
