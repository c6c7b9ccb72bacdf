"""The book-keeping of cycles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from ratchet.errors import BusyError, ConflictError, InsufficientDataError
from ratchet.records import (
    Cycle,
    CycleEnd,
    Decision,
    Example,
    ExampleSet,
    Interaction,
    Message,
    Verdict,
)
from ratchet.store import EventStore
from ratchet.store.cycles import (
    cycle_window,
    end_cycle,
    example_set,
    freeze_examples,
    latest_cycle,
    measured_versions,
    open_cycle,
    open_for,
    sole_loop,
    sole_training,
    training_died,
    unfinished_cycle,
)

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


def opened(
    store: EventStore, now: datetime, *, champion: str = "router/1", options: str = "options"
) -> Cycle:
    """Open a cycle, of one more answer, or go on with the open one."""
    visit(store, now - HOUR / 2)
    return open_cycle(
        store,
        champion=champion,
        options_digest=options,
        seed=7,
        example_set_id="heldout-1",
        now=now,
    )


def decide(store: EventStore, cycle: Cycle, challenger: str, verdict: Verdict) -> None:
    store.append(
        Decision(
            id=f"{cycle.id}-decision",
            cycle_id=cycle.id,
            created_at=cycle.created_at,
            champion=cycle.champion,
            challenger=challenger,
            verdict=verdict,
            reasons=("a reason",),
            primary_metric="accuracy",
            champion_value=0.5,
            challenger_value=0.75,
            difference=0.25,
            interval=(0.125, 0.375),
            p_value=0.001,
            examples=400,
            example_set_id="heldout-1",
            policy={},
            evidence={},
        )
    )


def visit(store: EventStore, at: datetime, name: str | None = None) -> None:
    store.add_interactions(
        [
            Interaction(
                id=name or at.isoformat(),
                session_id="s",
                user_id="u",
                created_at=at,
                model_version="router/1",
                messages=(Message(role="user", content="Where is my card?"),),
                response="card delivery",
            )
        ]
    )


def outcome(store: EventStore, cycle: Cycle) -> str | None:
    found = store.get(CycleEnd, cycle.id)
    return None if found is None else found.outcome


# Opening ----------------------------------------------------------------------------------------


def test_a_cycle_keeps_what_must_not_change_under_it(store: EventStore, now: datetime) -> None:
    cycle = opened(store, now)
    assert (cycle.number, cycle.champion, cycle.options_digest) == (1, "router/1", "options")
    assert (cycle.seed, cycle.example_set_id) == (7, "heldout-1")
    assert (cycle.window_start, cycle.window_end) == (now - HOUR / 2, now)
    assert (cycle.created_at, cycle.source) == (now, "recorded")
    assert latest_cycle(store) == unfinished_cycle(store) == cycle


def test_an_open_cycle_goes_on_with_the_same_options(store: EventStore, now: datetime) -> None:
    first = opened(store, now)
    visit(store, now - HOUR)
    assert opened(store, now + HOUR) == first
    assert store.records(Cycle) == (first,)
    assert store.records(CycleEnd) == ()


@pytest.mark.parametrize("change", [{"options": "other"}, {"champion": "router/2"}])
def test_an_open_cycle_with_anything_else_is_abandoned(
    store: EventStore, now: datetime, change: dict[str, str]
) -> None:
    first = opened(store, now)
    second = opened(store, now + HOUR, **change)
    assert outcome(store, first) == "abandoned"
    assert outcome(store, second) is None
    assert (second.number, second.created_at) == (2, now + HOUR)
    assert second.id != first.id
    assert latest_cycle(store) == second


def test_a_cycle_goes_on_when_its_own_challenger_became_the_champion(
    store: EventStore, now: datetime
) -> None:
    first = opened(store, now)
    decide(store, first, "router/2", "promote")
    assert opened(store, now + HOUR, champion="router/2") == first
    assert opened(store, now + HOUR, champion="router/1") == first
    assert outcome(store, first) is None


@pytest.mark.parametrize("verdict", ["hold", "reject", "inconclusive"])
def test_a_challenger_that_was_not_promoted_is_another_champion(
    store: EventStore, now: datetime, verdict: Verdict
) -> None:
    first = opened(store, now)
    decide(store, first, "router/2", verdict)
    assert opened(store, now + HOUR, champion="router/2").number == 2
    assert outcome(store, first) == "abandoned"


def test_a_promotion_does_not_excuse_other_options_or_a_third_version(
    store: EventStore, now: datetime
) -> None:
    first = opened(store, now)
    decide(store, first, "router/2", "promote")
    second = opened(store, now + HOUR, champion="router/2", options="other")
    assert (second.number, outcome(store, first)) == (2, "abandoned")
    # The promotion belongs to the first cycle and says nothing about the second one.
    third = opened(store, now + 2 * HOUR, champion="router/3", options="other")
    assert (third.number, outcome(store, second)) == (3, "abandoned")


def test_cycles_are_numbered_from_one_whatever_became_of_them(
    store: EventStore, now: datetime
) -> None:
    cycles = []
    for number, way in enumerate(("finished", "abandoned", "finished", None), start=1):
        cycle = opened(store, now + number * HOUR)
        cycles.append(cycle)
        if way == "finished":
            end_cycle(store, cycle, "finished", now + number * HOUR)
        elif way == "abandoned":
            end_cycle(store, cycle, "abandoned", now + number * HOUR)
    assert [cycle.number for cycle in cycles] == [1, 2, 3, 4]
    assert len({cycle.id for cycle in cycles}) == 4
    assert store.records(Cycle) == tuple(cycles)


# Recorded traffic -------------------------------------------------------------------------------


def recorded(store: EventStore, now: datetime) -> tuple[Cycle, list[str]]:
    """Open a cycle of recorded traffic, end it, and return it with the ids it took."""
    cycle = open_cycle(
        store, champion="router/1", options_digest="o", seed=7, example_set_id="e", now=now,
    )  # fmt: skip
    end_cycle(store, cycle, "finished", now)
    return cycle, store.interactions(cycle_window(cycle))["id"].to_pylist()


@pytest.mark.parametrize("age", [timedelta(days=400), timedelta(days=2), MICROSECOND])
def test_the_first_cycle_of_recorded_traffic_takes_all_there_is(
    store: EventStore, now: datetime, age: timedelta
) -> None:
    visit(store, now - age, "a")
    visit(store, now - MICROSECOND, "b")
    cycle, taken = recorded(store, now)
    assert sorted(taken) == ["a", "b"]
    assert (cycle.window_start, cycle.window_end) == (now - age, now)


def test_each_interaction_is_in_one_cycle_however_late_it_came(
    store: EventStore, now: datetime
) -> None:
    visit(store, now - HOUR, "in time")
    assert recorded(store, now)[1] == ["in time"]
    visit(store, now - 2 * HOUR, "late")
    visit(store, now - timedelta(days=40), "very late")
    visit(store, now + HOUR, "new")
    assert recorded(store, now + 2 * HOUR)[1] == ["very late", "late", "new"]
    visit(store, now, "late again")
    assert recorded(store, now + 3 * HOUR)[1] == ["late again"]


def test_what_arrives_while_a_cycle_runs_is_the_next_ones(store: EventStore, now: datetime) -> None:
    visit(store, now - HOUR, "a")
    cycle, _ = recorded(store, now)
    visit(store, now - 2 * HOUR, "b")
    assert store.interactions(cycle_window(cycle))["id"].to_pylist() == ["a"]
    assert store.interactions(cycle_window(cycle, "router/2")).num_rows == 0
    assert recorded(store, now + MICROSECOND)[1] == ["b"]


@pytest.mark.parametrize("ahead", [timedelta(0), HOUR, timedelta(days=4000)])
def test_a_stray_row_of_the_future_opens_no_cycle_until_its_time_has_come(
    store: EventStore, now: datetime, ahead: timedelta
) -> None:
    visit(store, now + ahead, "future")
    with pytest.raises(InsufficientDataError, match="that no cycle had, got the last at"):
        recorded(store, now)
    assert store.records(Cycle) == ()
    visit(store, now - HOUR, "a")
    assert recorded(store, now)[1] == ["a"]
    with pytest.raises(InsufficientDataError, match="needs interactions before"):
        recorded(store, now + ahead)
    assert recorded(store, now + ahead + MICROSECOND)[1] == ["future"]


def test_real_traffic_after_simulated_cycles_has_none_of_theirs(
    store: EventStore, now: datetime
) -> None:
    with store.simulating():
        visit(store, now - HOUR, "simulated")
    first, taken = recorded(store, now)
    assert (first.source, taken) == ("simulated", ["simulated"])
    visit(store, now + MICROSECOND, "real")
    second, taken = recorded(store, now + HOUR)
    assert (second.source, taken) == ("recorded", ["real"])


def test_an_open_cycle_of_simulated_users_does_not_go_on_among_real_ones(
    store: EventStore, now: datetime
) -> None:
    def open_one(at: datetime) -> Cycle:
        return open_cycle(
            store, champion="router/1", options_digest="o", seed=7, example_set_id="e", now=at,
        )  # fmt: skip

    with store.simulating():
        visit(store, now - HOUR, "simulated")
    first = open_one(now)
    assert open_one(now + MICROSECOND) == unfinished_cycle(store) == first
    visit(store, now + MICROSECOND, "real")
    assert unfinished_cycle(store) is None  # though nobody ended it yet
    second = open_one(now + HOUR)
    assert (second.source, unfinished_cycle(store)) == ("recorded", second)
    ended = store.get(CycleEnd, first.id)
    assert ended is not None
    assert ended.outcome == "abandoned"


# Ending -----------------------------------------------------------------------------------------


def test_a_cycle_ends_once_and_the_first_end_stands(store: EventStore, now: datetime) -> None:
    cycle = opened(store, now)
    end_cycle(store, cycle, "finished", now + HOUR)
    end_cycle(store, cycle, "finished", now + 2 * HOUR)
    end_cycle(store, cycle, "abandoned", now + 3 * HOUR)
    ended = CycleEnd(id=cycle.id, created_at=now + HOUR, outcome="finished")
    assert store.records(CycleEnd) == (ended,)
    assert unfinished_cycle(store) is None
    assert latest_cycle(store) == cycle


def test_without_a_cycle_a_stage_says_what_to_run_first(store: EventStore) -> None:
    assert unfinished_cycle(store) is None
    with pytest.raises(InsufficientDataError, match=r"empty store; run the stage collect or"):
        latest_cycle(store)


# Evaluation sets --------------------------------------------------------------------------------


def examples(*targets: str) -> list[Example]:
    message = Message(role="user", content="Where is my card?")
    return [Example(id=f"e-{target}", messages=(message,), target=target) for target in targets]


def test_the_same_examples_are_frozen_once(store: EventStore, now: datetime) -> None:
    first = freeze_examples(store, "heldout", examples("a", "b"), now)
    again = freeze_examples(store, "heldout", examples("a", "b"), now + HOUR)
    assert again == first
    assert first.created_at == now
    assert store.records(ExampleSet) == (first,)
    assert example_set(store, first.id) == first


def test_other_examples_are_another_set_and_both_stay(store: EventStore, now: datetime) -> None:
    first = freeze_examples(store, "heldout", examples("a", "b"), now)
    second = freeze_examples(store, "heldout", examples("b", "a"), now)
    assert first.id != second.id
    assert store.records(ExampleSet) == (first, second)


def test_a_set_that_was_never_frozen_is_named(store: EventStore) -> None:
    with pytest.raises(InsufficientDataError, match=r"got 'heldout-x'; run collect first"):
        example_set(store, "heldout-x")


# One loop at a time -----------------------------------------------------------------------------

TRY = """
import sys
from ratchet.store import EventStore
from ratchet.store.cycles import sole_loop
from ratchet.errors import BusyError
try:
    with sole_loop(EventStore.open(sys.argv[1])):
        print("free")
except BusyError as error:
    print(error)
"""
TRAIN = """
import sys
from ratchet.store import EventStore
from ratchet.store.cycles import sole_training
with sole_training(EventStore.open(sys.argv[1]), "run-1"):
    print("held", flush=True)
    sys.stdin.read()
"""


def tried(url: str) -> str:
    """What another process hears when it would be a loop."""
    command = [sys.executable, "-c", TRY, url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return run.stdout.strip()


@contextmanager
def training(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains until it is killed."""
    command = [sys.executable, "-c", TRAIN, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_loop_over_the_store_is_told_whatever_its_home(
    store_url: str, open_store: Callable[[], EventStore]
) -> None:
    store = open_store()
    with sole_loop(store):
        with sole_loop(store), sole_loop(store):  # its own stages
            pass
        said = tried(store_url)
        assert said.startswith("one loop at a time may run over a store, got another (process")
        assert "RATCHET_STORE_URL" in said
    assert tried(store_url) == "free"


def test_a_training_that_was_handed_over_goes_on_beside_the_loop_and_alone(
    store_url: str, open_store: Callable[[], EventStore]
) -> None:
    store = open_store()
    assert not training_died(store, "run-1")  # nobody ever trained
    with sole_loop(store), training(store_url) as process:
        with pytest.raises(BusyError, match=rf"one training at a time.*process {process.pid}\)"):
            sole_training(store, "run-2").__enter__()
        assert not training_died(store, "run-1")
        process.kill()
        process.wait(timeout=30)
        assert training_died(store, "run-1")
        assert not training_died(store, "run-2")
        with sole_training(store, "run-2"):
            assert not training_died(store, "run-1")


def test_what_was_handed_over_is_of_use_while_its_cycle_is_the_open_one(
    store: EventStore, now: datetime
) -> None:
    cycle = opened(store, now)
    assert open_for(store, cycle.id) == open_for(store, None) == cycle
    end_cycle(store, cycle, "abandoned", now)
    with pytest.raises(ConflictError, match=r"got cycle 1 \(abandoned\)"):
        open_for(store, cycle.id)
    another = opened(store, now + HOUR)
    assert open_for(store, another.id) == another
    assert open_for(store, None) == another


def test_a_cycle_without_answers_of_its_champion_is_about_those_of_another_version(
    store: EventStore, now: datetime
) -> None:
    def answered(version: str, number: int) -> None:
        store.add_interactions(
            [
                Interaction(
                    id=f"{version}-{place}", session_id="s", user_id=f"u{place}",
                    created_at=now - HOUR, model_version=version, response="yes",
                    messages=(Message(role="user", content="May I?"),),
                )
                for place in range(number)
            ]
        )  # fmt: skip

    answered("gpt-4o", 30)
    answered("mistral", 25)
    cycle = open_cycle(
        store, champion="router/1", options_digest="o", seed=0, example_set_id="e", now=now,
    )  # fmt: skip
    assert measured_versions(store, cycle) == ("gpt-4o",)
    end_cycle(store, cycle, "finished", now)
    answered("router/1", 1)
    later = open_cycle(
        store, champion="router/1", options_digest="o", seed=0, example_set_id="e",
        now=now + HOUR,
    )  # fmt: skip
    assert measured_versions(store, later) == ("router/1",)
