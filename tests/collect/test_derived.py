"""Signals derived from the traffic: what the next requests say about an answer."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.collect import derived
from ratchet.collect.derived import derive_signals
from ratchet.collect.ingest import ingest_file
from ratchet.errors import InvalidInputError
from ratchet.records import FEEDBACK, TRAFFIC_KINDS, Interaction
from ratchet.records.events import REACTIONS
from ratchet.store import EventStore, Window, following
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT
from tests.collect.conversations import START, asked

SOON, LATER = START + timedelta(minutes=5), START + timedelta(hours=30)
ALL = Window(START - timedelta(days=1), START + timedelta(days=2))
Seen = dict[tuple[str, str], float]


@pytest.fixture
def fresh(tmp_path: Path, made_store: Path) -> Iterator[Callable[[], EventStore]]:
    """Opens a store in which nothing is yet, as often as it is called."""
    opened: list[EventStore] = []

    def open_fresh() -> EventStore:
        path = tmp_path / f"store-{len(opened)}.db"
        shutil.copyfile(made_store, path)
        opened.append(EventStore.open(f"sqlite:///{path}", clock=lambda: LATER))
        return opened[-1]

    yield open_fresh
    for one in opened:
        one.close()


@pytest.fixture
def store(fresh: Callable[[], EventStore]) -> EventStore:
    return fresh()


def seen(store: EventStore) -> Seen:
    """Return what holds of each answer by kind; what was taken back (no, 0) is left out.

    A length of a visit holds where the visit ends, as `Reporting.read_all` has it.
    """
    event = FEEDBACK_EVENTS.c
    with store.reading() as connection:
        query = sa.select(event.interaction_id, event.kind, event.number)
        rows = connection.execute(query.where(event.kind.in_(TRAFFIC_KINDS)).order_by(GIVEN_AT))
        found = {(row[0], row[1]): row[2] for row in rows}
    return {
        key: number
        for key, number in found.items()
        if number and (key[1] != "visit_seconds" or found.get((key[0], "left")))
    }


def derive(store: EventStore, *interactions: Interaction) -> Seen:
    store.add_interactions(interactions)
    derive_signals(store, now=LATER)
    return seen(store)


def kinds(found: Seen, key: str) -> set[str]:
    return {kind for about, kind in found if about == key}


# What is told -------------------------------------------------------------------------------------


def test_an_answer_after_which_the_user_writes_on_was_continued(store: EventStore) -> None:
    first = asked("a", "Where is my card?", answer="On its way.")
    then = asked("b", "Where is my card?", "On its way.", "How long does it take?", at=2)
    found = derive(store, first, then)
    assert kinds(found, "a") == {"continued", "next_turn"}
    assert found["a", "next_turn"] == REACTIONS.index("moved on") + 1
    assert kinds(found, "b") == {"left", "visit_seconds"}
    assert found["b", "left"] == 2  # two turns of the user
    assert found["b", "visit_seconds"] == 121.0  # two minutes, and the second that b took


def test_the_same_turns_once_more_ask_for_another_answer(store: EventStore) -> None:
    found = derive(store, asked("a", "Hello?"), asked("b", " Hello? ", answer="another", at=1))
    assert kinds(found, "a") == {"asked_again"}
    assert kinds(found, "b") == {"left", "visit_seconds"}


def test_another_last_turn_after_the_same_conversation_is_an_edit(store: EventStore) -> None:
    history = ("Hello?", "Hi.")
    found = derive(
        store,
        asked("a", *history, "Block my card"),
        asked("b", *history, "I lost it, what now", at=1),
    )
    assert kinds(found, "a") == {"edited"}


def test_another_opening_is_an_edit_only_where_the_questions_are_alike(store: EventStore) -> None:
    found = derive(
        store,
        asked("a", "Where is my credit card?"),
        asked("b", "Where is my debit card?", at=1),
        asked("c", "Tell me a joke", at=2),
    )
    assert kinds(found, "a") == {"edited"}
    assert kinds(found, "b") == set()


def test_an_answer_that_nothing_followed_for_half_an_hour_was_left(store: EventStore) -> None:
    store.add_interactions([asked("a", "Hello?")])
    derive_signals(store, now=START + timedelta(minutes=29))
    assert seen(store) == {}
    derive_signals(store, now=START + timedelta(minutes=30))
    assert seen(store) == {("a", "left"): 1}


def test_what_comes_after_the_gap_is_another_visit(store: EventStore) -> None:
    later = asked("b", "Hello?", "an answer", "And now?", at=31)
    found = derive(store, asked("a", "Hello?"), later)
    assert kinds(found, "a") == kinds(found, "b") == {"left"}


def test_sessions_of_others_are_not_continued(store: EventStore) -> None:
    found = derive(
        store, asked("a", "Hello?"), asked("b", "Hello?", user="ben", at=1),
        asked("c", "Hello?", session="t", at=2),
    )  # fmt: skip
    assert {kind for _, kind in found} == {"left"}


def test_a_request_sent_before_the_answer_was_there_is_no_reaction(store: EventStore) -> None:
    slow = asked("a", "Hello?", latency_seconds=90.0)
    assert kinds(derive(store, slow, asked("b", "Hello?", at=1)), "a") == set()


def test_a_request_that_is_sent_again_after_an_error_says_nothing(store: EventStore) -> None:
    failed = asked("a", "Hello?", answer="", error="timeout")
    assert kinds(derive(store, failed, asked("b", "Hello?", at=1)), "a") == set()


def test_the_next_request_of_an_agent_is_part_of_the_same_task(store: EventStore) -> None:
    """Three requests: a call of a tool, the answer that rests on its result, the user's next."""
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    question = {"role": "user", "content": "Where is my card?"}
    calls = {"role": "assistant", "content": "Let me see.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "in the post"}
    answer = {"role": "assistant", "content": "It is in the post."}
    thanks = {"role": "user", "content": "Thank you!"}
    steps = [
        asked("a", at=0, messages=[question], answer="Let me see."),
        asked("b", at=1, messages=[question, calls, result], answer="It is in the post."),
        asked("c", at=2, messages=[question, calls, result, answer, thanks]),
    ]
    found = derive(store, *steps)
    assert kinds(found, "a") == set()
    assert kinds(found, "b") == {"continued", "next_turn"}
    assert found["b", "next_turn"] == REACTIONS.index("thanked") + 1


def test_asking_an_agent_again_is_about_its_last_answer(store: EventStore) -> None:
    question = {"role": "user", "content": "Where is my card?"}
    calls = {"role": "assistant", "content": "Let me see."}
    result = {"role": "tool", "tool_call_id": "c1", "content": "in the post"}
    found = derive(
        store,
        asked("a", messages=[question], answer="Let me see."),
        asked("b", at=1, messages=[question, calls, result], answer="It is in the post."),
        asked("c", at=2, messages=[question], answer="Let me look."),
    )
    assert kinds(found, "a") == set()
    assert kinds(found, "b") == {"asked_again"}


# When it is told ----------------------------------------------------------------------------------


def test_what_arrives_late_takes_back_that_the_user_left(store: EventStore) -> None:
    assert kinds(derive(store, asked("a", "Hello?")), "a") == {"left"}
    late = asked("b", "Hello?", "an answer", "And then?", at=10)
    found = derive(store, late)
    assert kinds(found, "a") == {"continued", "next_turn"}
    assert store.signals(ALL, lag=timedelta(days=1))["left"].to_pylist() == [None, 2.0]


def test_a_pass_takes_in_what_is_new_and_no_more(store: EventStore) -> None:
    store.add_interactions([asked(f"a{n}", "Hello?", session=f"s{n}") for n in range(10)])
    first = derive_signals(store, now=LATER)
    assert (first.interactions, first.events, first.finished) == (10, 10, True)
    assert derive_signals(store, now=LATER).interactions == 0
    store.add_interactions([asked("b", "Hello?", session="s3", at=1)])
    assert derive_signals(store, now=LATER).interactions == 1


def test_a_pass_that_is_bounded_says_that_it_goes_on(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "STEP", 3)
    store.add_interactions([asked(f"a{n}", "Hello?", session=f"s{n}") for n in range(10)])
    assert not derive_signals(store, now=LATER, most=4).finished
    assert derive_signals(store, now=LATER).finished
    assert len(seen(store)) == 10


def test_where_many_wait_a_second_process_reads_them_and_the_same_is_derived(
    fresh: Callable[[], EventStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, numbers = random.Random(3), count()
    rows = [row for n in range(400) for row in conversation(rng, f"s{n}", numbers)]
    assert len(rows) > derived.STEP  # several steps
    expected, two = derive(fresh(), *rows), fresh()
    monkeypatch.setattr(derived, "MANY", 1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert derive(two, *rows) == expected
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > before
    late = asked("late", "Hello?", session="s0", at=-120)
    assert derive(two, late)["late", "left"] == 1
    assert derive_signals(two, now=LATER).interactions == 0


def conversation(rng: random.Random, session: str, numbers: Iterator[int]) -> list[Interaction]:
    """Return a conversation with turns asked again, edited, left and of an agent."""
    said: list[str] = []
    rows, at = [], float(rng.randrange(0, 60))
    for turn in range(rng.randrange(1, 5)):
        words = rng.choice(["How so?", "No, I meant the other card", "Thanks", f"And {turn}?"])
        for _ in range(rng.choice([1, 1, 2])):
            key = f"i{next(numbers)}"
            answer = f"answer {rng.randrange(2)}"
            rows.append(asked(key, *said, words, answer=answer, at=at, session=session))
            at += rng.choice([0.5, 2.0, 20.0, 45.0])
        said += [words, answer]
    return rows


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_any_order_of_arrival_and_repeated_passes_derive_the_same(
    fresh: Callable[[], EventStore], seed: int
) -> None:
    rng, numbers = random.Random(seed), count()
    rows = [row for n in range(3) for row in conversation(rng, f"s{n}", numbers)]
    expected, in_parts = derive(fresh(), *rows), fresh()
    rng.shuffle(rows)
    while rows:
        size = rng.randrange(1, 5)
        in_parts.add_interactions(rows[:size])
        rows = rows[size:]
        for _ in range(rng.choice([1, 2])):
            derive_signals(in_parts, now=LATER)
    assert seen(in_parts) == expected


def test_a_store_on_postgresql_derives_the_same(store: EventStore, postgresql_url: str) -> None:
    rng, numbers = random.Random(3), count()
    rows = [row for n in range(6) for row in conversation(rng, f"s{n}", numbers)]
    expected = derive(store, *rows)
    other = EventStore.open(postgresql_url, clock=lambda: LATER)
    try:
        derive(other, *rows[::2])
        assert derive(other, *rows[1::2]) == expected
    finally:
        other.close()


def test_a_pass_that_is_killed_goes_on_as_if_nothing_had_happened(
    fresh: Callable[[], EventStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, numbers = random.Random(1), count()
    rows = [row for n in range(8) for row in conversation(rng, f"s{n}", numbers)]
    expected, store = derive(fresh(), *rows), fresh()
    store.add_interactions(rows)
    monkeypatch.setattr(derived, "STEP", 4)
    keep = following.keep
    for steps in (0, 1, 2):
        left = iter(range(steps))

        def dying(*args: Any, left: Iterator[int] = left, **more: Any) -> int | None:
            next(left)  # raises StopIteration once they are used up
            return keep(*args, **more)

        monkeypatch.setattr(derived, "keep", dying)
        with pytest.raises(StopIteration):
            derive_signals(store, now=LATER)
    monkeypatch.setattr(derived, "keep", keep)
    assert derive_signals(store, now=LATER).interactions > 0
    assert seen(store) == expected


# Switched off, and whose --------------------------------------------------------------------------


def test_a_kind_that_is_switched_off_is_not_derived(store: EventStore) -> None:
    store.add_interactions([asked("a", "Hello?"), asked("b", "Hello?", at=1)])
    derive_signals(store, now=LATER, off=["left", "visit_seconds"])
    assert {kind for _, kind in seen(store)} == {"asked_again"}


def test_all_kinds_can_be_switched_off(store: EventStore) -> None:
    store.add_interactions([asked("a", "Hello?"), asked("b", "Hello?", at=1)])
    derive_signals(store, now=LATER, off=["all"])
    assert seen(store) == {}


def test_a_kind_that_is_none_is_refused_with_the_way_out(store: EventStore) -> None:
    with pytest.raises(InvalidInputError, match="got charm; correct RATCHET_NOT_DERIVED"):
        derive_signals(store, now=LATER, off=["charm"])


def test_nothing_is_derived_from_simulated_users(store: EventStore) -> None:
    with store.simulating():
        store.add_interactions([asked("a", "Hello?"), asked("b", "Hello?", at=1)])
    derive_signals(store, now=LATER)
    assert seen(store) == {}


def test_a_session_that_holds_everything_is_no_conversation(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.store.following.MOST_OF_A_SESSION", 3)
    assert derive(store, *[asked(f"a{n}", "Hello?", at=n) for n in range(4)]) == {}


# How it is read -----------------------------------------------------------------------------------


def read(store: EventStore, kind: str, minutes: float = 60.0) -> Sequence[float | None]:
    column: list[float | None] = store.signals(ALL, lag=timedelta(minutes=minutes))[
        kind
    ].to_pylist()
    return column


def test_what_is_derived_counts_as_the_reported_kind_and_absence_as_no(store: EventStore) -> None:
    derive(
        store,
        asked("a", "Hello?"),
        asked("b", "Hello?", at=1),
        asked("c", "Bye", session="t", at=2),
    )
    assert read(store, "regenerate") == [1.0, 0.0, 0.0]
    told = store.told_feedback(ALL).to_pylist()
    numbers = {row["interaction_id"]: row["number"] for row in told if row["kind"] == "regenerate"}
    assert numbers == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_a_report_goes_before_what_was_derived(store: EventStore) -> None:
    reported = {
        "id": "f", "interaction_id": "a", "kind": "regenerate", "value": False,
        "created_at": START + timedelta(seconds=10),
    }  # fmt: skip
    store.add_feedback([FEEDBACK.validate_python(reported)])
    derive(store, asked("a", "Hello?"), asked("b", "Hello?", at=1))
    assert read(store, "asked_again") == [1.0, 0.0]
    assert read(store, "regenerate") == [0.0, 0.0]
    told = store.told_feedback(ALL).to_pylist()
    numbers = {row["interaction_id"]: row["number"] for row in told if row["kind"] == "regenerate"}
    assert numbers == {"a": 0.0, "b": 0.0}


def test_absence_says_nothing_where_no_conversation_was_ever_followed(store: EventStore) -> None:
    derive(store, asked("a", "Hello?"), asked("b", "Bye", session="t", at=1))
    assert read(store, "regenerate") == [None, None]


@pytest.mark.parametrize("by_person", [False, True], ids=["setting", "person"])
def test_absence_says_nothing_from_when_on_a_kind_is_switched_off(
    store: EventStore, by_person: bool
) -> None:
    derive(store, asked("a", "Hello?"), asked("b", "Hello?", at=1))
    moment = START + timedelta(hours=1)
    if by_person:
        following.switch(store, "asked_again", off=True, by="eve", note="robots", now=moment)
    off = [] if by_person else ["asked_again"]
    derive_signals(store, now=moment, off=off)
    store.add_interactions([asked("c", "Hello?", at=90.0)])
    derive_signals(store, now=LATER, off=off)
    assert read(store, "regenerate") == [1.0, 0.0, None]


def test_a_kind_that_a_person_switches_on_again_is_derived_from_then_on(store: EventStore) -> None:
    following.switch(store, "edited", off=True, by="eve", note="", now=START)
    store.add_interactions([asked("a", "Hello?"), asked("b", "Hello?", at=1)])
    derive_signals(store, now=SOON)
    assert {kind for _, kind in seen(store)} == {"asked_again"}
    assert following.switch(store, "edited", off=True, by="eve", note="", now=SOON) is None
    following.switch(store, "edited", off=False, by="eve", note="", now=SOON)
    again = [asked("c", "What is a good tree?", session="t", at=60.0),
             asked("d", "What is a good bush?", session="t", at=61.0)]  # fmt: skip
    store.add_interactions(again)
    derive_signals(store, now=LATER)
    assert seen(store)["c", "edited"] == 1.0


def test_what_a_setting_leaves_out_no_person_switches_on(store: EventStore) -> None:
    for setting in (["edited"], ["all"]):
        with pytest.raises(InvalidInputError, match="take it out of the setting"):
            following.switch(
                store, "edited", off=False, by="eve", note="", now=SOON, by_setting=setting
            )
    with pytest.raises(InvalidInputError, match="must be one of"):
        following.switch(store, "charm", off=True, by="eve", note="", now=SOON)


def test_a_board_that_was_frozen_before_goes_on_with_what_it_knew(store: EventStore) -> None:
    derive(store, asked("a", "Hello?"), asked("b", "Hello?", at=1))
    before = store.signals(ALL, lag=timedelta(hours=1), known_at=LATER - timedelta(minutes=1))
    assert before["regenerate"].to_pylist() == [None, None]
    assert store.reporting().begins_anew(LATER - timedelta(minutes=1)) is not None


# A log ------------------------------------------------------------------------------------------


def test_a_log_that_is_imported_again_derives_nothing_new(
    store: EventStore, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    rows = [asked("a", "Hello?"), asked("b", "Hello?", at=1), asked("c", "Bye", session="t")]
    log.write_text("".join(row.model_dump_json() + "\n" for row in rows), "utf-8")
    for _ in range(2):
        ingest_file(log, store, now=LATER)
        derive_signals(store, now=LATER)
    assert seen(store) == {
        ("a", "asked_again"): 1, ("b", "left"): 1, ("b", "visit_seconds"): 61, ("c", "left"): 1,
    }  # fmt: skip
    with store.reading() as connection:
        rows_there = connection.execute(sa.select(sa.func.count()).select_from(FEEDBACK_EVENTS))
        assert rows_there.scalar_one() == 4
