"""Reading by arrival and by use; expected values are counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from ratchet.records import Copy, Interaction, Message, SafetyViolation
from ratchet.store import Window
from ratchet.store.arrivals import (
    BUSY_ANSWERS,
    Position,
    arrived_between,
    count_answers,
    first_answer,
    in_use_from,
    last_answer,
    last_position,
    versions_between,
    versions_in_use,
)

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAG = timedelta(minutes=5)
EVER = Window(datetime.min.replace(tzinfo=UTC), NOON + 400 * DAY)


def answer(key, at=NOON, version="router/1"):
    return Interaction(
        id=key, session_id="s", user_id="u", created_at=at, model_version=version,
        messages=(Message(role="user", content="where?"),), response="here",
    )  # fmt: skip


def test_an_empty_store_has_read_nothing_and_nobody_was_in_use(open_store):
    store = open_store()
    assert last_position(store) == Position(0, 0)
    nothing = arrived_between(store, Position(0, 0), last_position(store), EVER, lag=LAG)
    assert (nothing.rows, nothing.earliest) == (0, None)
    assert versions_in_use(store, EVER.start, EVER.end) == []
    assert (first_answer(store, EVER), last_answer(store, EVER), in_use_from(store, EVER)) == (
        None, None, None
    )  # fmt: skip


def test_what_arrived_is_told_by_its_order_whatever_its_times(open_store):
    store = open_store()
    store.add_interactions([answer("a"), answer("b", NOON + HOUR)])
    store.add_feedback([Copy(id="a-c", interaction_id="a", created_at=NOON, value=True)])
    before = last_position(store)
    store.add_interactions([answer("old", NOON - 50 * DAY), answer("x", NOON - DAY, "router/2")])
    store.add_feedback([Copy(id="b-c", interaction_id="b", created_at=NOON + HOUR, value=True)])
    after = last_position(store)
    one = Window(EVER.start, EVER.end, "router/1")
    arrived = arrived_between(store, before, after, one, lag=LAG)
    assert (arrived.rows, arrived.earliest) == (2, NOON - 50 * DAY)
    recent = Window(NOON - DAY, EVER.end, "router/1")
    arrived = arrived_between(store, before, after, recent, lag=LAG)
    assert (arrived.rows, arrived.earliest) == (1, NOON + HOUR)  # the copied answer of b
    assert versions_between(store, before, after) == {"router/1", "router/2"}
    assert versions_between(store, after, last_position(store)) == set()
    assert arrived_between(store, after, last_position(store), EVER, lag=LAG).rows == 0


def test_feedback_of_users_counts_within_the_lag_and_decisions_of_reviewers_whenever_they_came(
    open_store,
):
    store = open_store()
    store.add_interactions([answer("a"), answer("b"), answer("c")])
    before = last_position(store)
    store.add_feedback(
        [
            Copy(id="1", interaction_id="a", created_at=NOON + LAG, value=True),
            SafetyViolation(
                id="2", interaction_id="b", created_at=NOON + 9 * DAY, value=True, source="review"
            ),
            Copy(id="3", interaction_id="nobody", created_at=NOON, value=True),
        ]
    )
    arrived = arrived_between(store, before, last_position(store), EVER, lag=LAG)
    assert (arrived.rows, arrived.earliest) == (1, NOON)
    table = store.signals(EVER, lag=LAG)
    assert table["copy"].null_count == 3
    assert sorted(table["safety_violation"].drop_null().to_pylist()) == [1.0]


def test_a_version_is_in_use_from_a_day_with_enough_answers_and_not_from_single_rows(open_store):
    store = open_store()
    sparse = [answer(f"s{n}", NOON - 40 * DAY + 2 * n * HOUR) for n in range(BUSY_ANSWERS - 1)]
    busy = [answer(f"b{n}", NOON + n * HOUR) for n in range(BUSY_ANSWERS)]
    store.add_interactions([answer("1970", datetime(1970, 1, 1, tzinfo=UTC)), *sparse])
    assert in_use_from(store, EVER) is None
    store.add_interactions(busy)
    assert in_use_from(store, EVER) == NOON
    assert first_answer(store, EVER) == datetime(1970, 1, 1, tzinfo=UTC)
    assert last_answer(store, EVER) == NOON + (BUSY_ANSWERS - 1) * HOUR
    assert count_answers(store, Window(NOON, NOON + 5 * HOUR)) == 5


def test_versions_in_use_are_those_with_an_answer_in_the_span(open_store):
    store = open_store()
    store.add_interactions(
        [
            answer("1", NOON - 30 * DAY, "router/z"), answer("2", NOON, "router/z"),
            answer("3", NOON + DAY, "router/a"), answer("0", NOON - 40 * DAY, "router/gone"),
            answer("9", NOON + 90 * DAY, "router/future"),
        ]
    )  # fmt: skip
    assert versions_in_use(store, NOON - DAY, NOON + 2 * DAY) == ["router/a", "router/z"]


@pytest.mark.parametrize("arrived", [1, None])
def test_a_window_leaves_out_what_another_took(open_store, arrived):
    store = open_store()
    store.add_interactions([answer("a"), answer("late"), answer("b", NOON + HOUR), answer("c")])
    window = Window(
        NOON - DAY, NOON + DAY, arrived_until=3, without=(NOON + timedelta(minutes=1), arrived)
    )
    ids = store.interactions(window)["id"].to_pylist()
    # by hand: c arrived after this window; the other took a, and all of its time where None
    assert ids == (["late", "b"] if arrived else ["b"])


@pytest.mark.mostly_slow("sqlite")
def test_the_ends_of_a_window_are_those_of_its_rows(open_store):
    store = open_store()
    store.add_interactions(
        [
            answer("a"), answer("late", NOON - DAY), answer("b", NOON + HOUR, "router/2"),
            answer("c", NOON - HOUR), answer("d", NOON - 3 * DAY), answer("e", NOON + DAY),
        ]
    )  # fmt: skip
    places = (None, 0, 2, 3, 4, 5)
    for until, arrived, minutes, version in product(
        places, places, (-60, -1, 0, 30, 90), (None, "router/1")
    ):
        without = (NOON + timedelta(minutes=minutes), arrived)
        window = Window(NOON - 2 * DAY, NOON + DAY, version, until, without)
        times = store.interactions(window)["created_at"].to_pylist()
        assert first_answer(store, window) == (min(times) if times else None), window
        assert last_answer(store, window) == (max(times) if times else None), window
