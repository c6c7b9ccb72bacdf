"""Simulated and real users: who came is known to the store, and nothing reads both together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
import sqlalchemy as sa

from ratchet.collect.ingest import ingest
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import Cycle, CycleEnd, Interaction, Message, derive_id
from ratchet.records.events import ORIGIN, SIMULATED
from ratchet.store import EventStore, Window
from ratchet.store.arrivals import (
    Position,
    count_answers,
    first_answer,
    last_position,
    versions_between,
    versions_in_use,
)
from ratchet.store.cycles import await_traffic, cycle_window, end_cycle, open_cycle
from ratchet.store.tables import APPLIED, FACTS
from tests.conftest import STORE_CLOCK

HOUR = timedelta(hours=1)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def answer(key: str, at: datetime, version: str = "router/1") -> Interaction:
    return Interaction(
        id=key, session_id=key, user_id="u-1", created_at=at, model_version=version,
        messages=(Message(role="user", content=key),), response="yes",
    )  # fmt: skip


def simulate(store: EventStore, *items: Interaction) -> None:
    with store.simulating():
        store.add_interactions(items)


def ids(store: EventStore, now: datetime, simulated: bool | None = None) -> list[str]:
    window = Window(now - 1000 * HOUR, now + 1000 * HOUR, simulated=simulated)
    return list(map(str, store.interactions(window)["id"].to_pylist()))


def cycle_of(store: EventStore, now: datetime, *, options: str = "o") -> Cycle:
    return open_cycle(
        store, champion="router/1", options_digest=options, seed=1, example_set_id="e", now=now,
    )  # fmt: skip


def test_from_the_first_real_user_on_simulated_ones_are_left_out_of_what_is_read(
    store: EventStore, now: datetime
) -> None:
    simulate(store, answer("s-1", now - HOUR), answer("s-2", now, "router/2"))
    assert ids(store, now) == ["s-1", "s-2"]
    assert store.origins().real_since is None
    store.add_interactions([answer("r-1", now - 2 * HOUR)])
    assert ids(store, now) == ids(store, now, simulated=False) == ["r-1"]
    assert ids(store, now, simulated=True) == ["s-1", "s-2"]
    assert store.origins().real_since == STORE_CLOCK
    assert store.counts()["interactions"] == 3


def test_every_way_of_reading_counts_the_same_users(store: EventStore, now: datetime) -> None:
    simulate(store, answer("s-1", now - HOUR), answer("s-2", now, "router/2"))
    store.add_interactions([answer("r-1", now + HOUR, "router/3")])
    window = Window(now - 9 * HOUR, now + 9 * HOUR)
    assert count_answers(store, window) == 1
    assert first_answer(store, window) == now + HOUR
    assert first_answer(store, Window(now - HOUR, now + HOUR, without=(now, 0))) is None
    assert versions_in_use(store, now - 9 * HOUR, now + 9 * HOUR) == ["router/3"]
    assert versions_between(store, Position(0, 0), last_position(store)) == {"router/3"}
    assert store.signals(window, lag=HOUR)["model_version"].to_pylist() == ["router/3"]
    assert [row.id for part in store.iter_interactions(window) for row in part] == ["r-1"]


def test_simulated_users_are_refused_where_a_real_one_came(
    open_store: Callable[[], EventStore], now: datetime
) -> None:
    open_store().add_interactions([answer("r-1", now)])
    another_home = open_store()
    with pytest.raises(InvalidInputError, match="set RATCHET_HOME to another folder"):
        simulate(another_home, answer("s-1", now))
    assert ids(another_home, now) == ["r-1"]


def test_what_is_simulated_together_is_stored_with_its_mark_or_not_at_all(
    store: EventStore, now: datetime
) -> None:
    def is_killed() -> None:
        with store.simulating():
            store.add_interactions([answer("s-1", now)])
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        is_killed()
    assert ids(store, now) == []
    store.add_interactions([answer("r-1", now)])
    assert store.origins().simulated == ()


def test_a_real_user_who_comes_while_users_are_simulated_comes_after_them(
    open_store: Callable[[], EventStore], now: datetime
) -> None:
    store, gateway, begun = open_store(), open_store(), Event()

    def serve() -> None:
        begun.set()
        gateway.add_interactions([answer("r-1", now)])

    drain = Thread(target=serve)
    with store.simulating():
        store.add_interactions([answer("s-1", now)])
        drain.start()
        begun.wait(10)
        drain.join(0.3)
        store.add_interactions([answer("s-2", now)])
    drain.join(30)
    assert ids(store, now, simulated=True) == ["s-1", "s-2"]
    assert ids(store, now, simulated=False) == ["r-1"]
    with pytest.raises(InvalidInputError):
        simulate(store, answer("s-3", now))


def test_sending_simulated_rows_again_makes_no_real_user_of_them(
    store: EventStore, now: datetime
) -> None:
    simulate(store, answer("s-1", now))
    assert store.add_interactions([answer("s-1", now)]).repeated == 1
    assert store.origins().real_since is None


def test_an_export_of_simulated_users_is_set_aside_and_not_taken_for_real_ones(
    store: EventStore, now: datetime
) -> None:
    exported = answer("s-1", now).model_copy(update={"metadata": {ORIGIN: SIMULATED}})
    odd = exported.model_dump(mode="json") | {"id": "s-2", "created_at": now.timestamp()}
    rows = [exported.model_dump_json(), odd, answer("r-1", now).model_dump_json()]
    report = ingest(rows, store, source="log", now=now)
    assert (report.interactions, report.set_aside) == (1, 2)
    ((reason, count),) = report.reasons
    assert count == 2
    assert reason == "an interaction must be one of a real user"


# Cycles -------------------------------------------------------------------------------------------


def test_a_cycle_is_of_simulated_users_until_a_real_one_comes_and_then_of_real_ones(
    store: EventStore, now: datetime
) -> None:
    simulate(store, answer("s-1", now - HOUR))
    simulated = cycle_of(store, now)
    store.add_interactions([answer("r-old", now - 30 * HOUR), answer("r-1", now - HOUR)])
    end_cycle(store, simulated, "finished", now)
    recorded = cycle_of(store, now + HOUR)
    assert (simulated.source, recorded.source) == ("simulated", "recorded")
    assert store.interactions(cycle_window(simulated))["id"].to_pylist() == ["s-1"]
    # also what is older than the simulated cycle: that had none of it
    assert store.interactions(cycle_window(recorded))["id"].to_pylist() == ["r-old", "r-1"]


def test_a_cycle_that_goes_on_is_not_abandoned_for_nobody(store: EventStore, now: datetime) -> None:
    simulate(store, answer("s-1", now - HOUR))
    simulated = cycle_of(store, now)
    with pytest.raises(InsufficientDataError, match="that was a simulated user's"):
        cycle_of(store, now, options="others")
    assert store.get(CycleEnd, simulated.id) is None
    assert await_traffic(store, now) is None


def test_an_open_cycle_of_simulated_users_keeps_no_real_traffic_waiting(
    store: EventStore, now: datetime
) -> None:
    simulate(store, answer("s-1", now - 2 * HOUR))
    cycle_of(store, now - HOUR)
    store.add_interactions([answer("r-1", now - HOUR)])
    window = await_traffic(store, now)
    assert window is not None
    assert ids_in(store, window) == ["r-1"]


def ids_in(store: EventStore, window: Window) -> list[str]:
    return list(map(str, store.interactions(window)["id"].to_pylist()))


def test_simulated_users_who_come_after_a_cycle_of_before_are_the_next_cycle(
    store: EventStore, now: datetime
) -> None:
    """Before, a cycle was opened first and its users came into the day before it."""
    before = Cycle(
        id="cycle-1", number=1, created_at=now, champion="router/1", options_digest="o", seed=1,
        window_start=now - 24 * HOUR, window_end=now, example_set_id="e", source="simulated",
    )  # fmt: skip
    store.append(before)
    simulate(store, answer("s-1", now - HOUR))
    end_cycle(store, before, "finished", now)
    assert ids_in(store, cycle_window(before)) == ["s-1"]
    simulate(store, answer("s-2", now + HOUR))
    following = cycle_of(store, now + 2 * HOUR)
    assert (following.number, following.source) == (2, "simulated")
    assert ids_in(store, cycle_window(following)) == ["s-2"]


# Stores of before ---------------------------------------------------------------------------------


def test_in_a_store_of_before_simulated_users_are_known_by_the_cycle_that_their_ids_derive_from(
    open_store: Callable[[], EventStore], now: datetime
) -> None:
    store = open_store()
    cycle = Cycle(
        id="cycle-1", number=1, created_at=now, champion="router/1", options_digest="o", seed=1,
        window_start=now - 24 * HOUR, window_end=now, example_set_id="e",
    )  # fmt: skip
    store.append(cycle)
    store.add_interactions([answer(derive_id("cycle-1", 0), now)])
    store.add_interactions([answer("r-1", now)])  # forced among each other, as was possible
    store.add_interactions([answer(derive_id("cycle-1", n), now) for n in (1, 600)])
    store.add_interactions([answer("r-2", now + HOUR)])
    with store.atomic() as connection:  # as it was left by the version before
        connection.execute(sa.delete(FACTS))
        connection.execute(sa.delete(APPLIED).where(APPLIED.c.name == "0018_tell_simulated"))
    migrated = open_store()
    assert ids(migrated, now) == ["r-1", "r-2"]
    assert set(ids(migrated, now, simulated=True)) == {
        derive_id("cycle-1", number) for number in (0, 1, 600)
    }
    assert len(migrated.origins().simulated) == 2
    recorded = cycle_of(migrated, now + 2 * HOUR, options="recorded")
    assert migrated.interactions(cycle_window(recorded))["id"].to_pylist() == ["r-1", "r-2"]


def test_a_store_of_before_with_real_users_alone_has_nothing_to_leave_out(
    open_store: Callable[[], EventStore], now: datetime
) -> None:
    store = open_store()
    store.add_interactions([answer("r-1", now)])
    with store.atomic() as connection:
        connection.execute(sa.delete(FACTS))
        connection.execute(sa.delete(APPLIED).where(APPLIED.c.name == "0018_tell_simulated"))
    origins = open_store().origins()
    assert (origins.simulated, origins.real_since) == ((), STORE_CLOCK)
    assert origins.found_since is None


def test_a_new_store_is_about_nobody_yet(tmp_path: Path) -> None:
    origins = EventStore.open(f"sqlite:///{tmp_path / 'new.db'}").origins()
    assert (origins.simulated, origins.real_since) == ((), None)
