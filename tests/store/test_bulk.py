"""Rows into the tables at the speed of the driver."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from ratchet.records import Interaction
from ratchet.store import Added, EventStore
from ratchet.store.bulk import ROWS_IN_STATEMENT, insert_new
from ratchet.store.event_rows import InteractionRow, feedback_record, feedback_row, interaction_row
from ratchet.store.tables import INTERACTIONS
from tests.store.test_transactions import feedback, interaction

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
MANY = [1, 2, ROWS_IN_STATEMENT - 1, ROWS_IN_STATEMENT, 2 * ROWS_IN_STATEMENT + 77]
HOSTILE = ["", "\\N", "\\.", "a\tb\nc\rd\\", "'\"--", "NULL", "{}", "é😀\u2028\x01\x7f", "%s :x ?"]


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def rows(*keys: str, digest: str = "0" * 16) -> list[InteractionRow]:
    plain = interaction_row(interaction())
    return [plain._replace(id=key, digest=digest) for key in keys]


def inserted(store: EventStore, given: list[InteractionRow], received_at: int = 5) -> Any:
    with store.atomic() as connection:
        return insert_new(connection, INTERACTIONS, given, received_at=received_at)


def kept(store: EventStore) -> list[tuple[Any, ...]]:
    columns = INTERACTIONS.c
    query = sa.select(columns.id, columns.digest, columns.received_at).order_by(columns.position)
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(query)]


@pytest.mark.parametrize("count", MANY)
def test_any_number_of_rows_is_stored_in_its_order(store: EventStore, count: int) -> None:
    keys = [f"{number * 7919 % 10007}" for number in range(count)]  # in no order of theirs
    assert inserted(store, rows(*keys)) == {}
    assert kept(store) == [(key, "0" * 16, 5) for key in keys]


@pytest.mark.parametrize("count", MANY)
def test_rows_that_are_there_are_named_with_their_digests_and_left(
    store: EventStore, count: int
) -> None:
    old = [f"old-{number}" for number in range(0, count, 2)]
    assert inserted(store, rows(*old, digest="a")) == {}
    mixed = [f"{'old' if number % 2 == 0 else 'new'}-{number}" for number in range(count)]
    there = inserted(store, rows(*mixed, digest="b"), received_at=6)
    assert there == dict.fromkeys(old, "a")
    new = [key for key in mixed if key.startswith("new")]
    assert kept(store) == [(key, "a", 5) for key in old] + [(key, "b", 6) for key in new]


def test_no_rows_are_nothing(store: EventStore) -> None:
    assert inserted(store, []) == {}


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_comes_back_as_it_went_in(store: EventStore, text: str) -> None:
    """COPY has marks of its own for nulls, ends and borders."""
    answer = interaction(
        response=text, error=text, segment=text or "all", metadata={text: text},
        messages=[{"role": "user", "content": text}],
    )  # fmt: skip
    opinions = [
        feedback("c", "correction", text or "-", user_id=text or None),
        feedback("d", "dimension", 3, name=text or "-"),
    ]
    assert store.add_interactions([answer]).new == 1
    assert store.add_feedback(opinions).new == 2
    assert store.stored_interactions(["i-1"]) == {"i-1": answer}
    assert store.stored_feedback(["c", "d"]) == {item.id: item for item in opinions}


def test_one_call_may_hold_an_id_several_times(store: EventStore) -> None:
    twice = [interaction("a"), interaction("a", response="other"), interaction("a")]
    assert store.add_interactions([*twice, interaction("b")]) == Added(2, 1, ("a",))
    assert store.stored_interactions(["a"])["a"].response == "card delivery"


def test_a_row_is_the_record_in_other_words() -> None:
    event = feedback(value="down", updated_at=NOW, user_id="u")
    assert feedback_record(feedback_row(event)._asdict()) == event
    row = interaction_row(interaction())
    assert set(row._asdict()) - {"digest", "prompt"} == set(Interaction.model_fields)
    assert row.prompt == "Where is my card?"
