"""What an open cycle waits for is found again, until it is decided or begun anew."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

from ratchet.errors import WaitingError
from ratchet.records import Candidate, Cycle, CycleWait, Decision, Release
from ratchet.store import EventStore
from ratchet.store.cycles import end_cycle
from ratchet.store.waits import goes_on, keep_wait, latest_wait

AT = datetime(2026, 11, 2, tzinfo=UTC)
MISSING = WaitingError("win_rate needs 60 pairs, got 0; label them", missing=60)


def cycle(number: int = 1) -> Cycle:
    return Cycle(
        id=f"cycle-{number}", number=number, created_at=AT, champion="m/1", options_digest="o",
        seed=0, window_start=AT, window_end=AT, example_set_id="e",
    )  # fmt: skip


def candidate(number: int = 1) -> Candidate:
    return Candidate(
        id=f"candidate-{number}", cycle_id=f"cycle-{number}", created_at=AT, model_name="m",
        version="2", adapter_digest="d", path="p", training_set_id="t", run_id="r", losses=(),
        training_seconds=1.0,
    )  # fmt: skip


def decision(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "id": "d", "cycle_id": "cycle-1", "created_at": AT, "champion": "m/1",
        "challenger": "m/2", "verdict": "hold", "reasons": ("equal",),
        "primary_metric": "win_rate", "champion_value": 0.5, "challenger_value": 0.5,
        "difference": 0.0, "interval": (-0.1, 0.1), "p_value": 0.5, "examples": 100,
        "example_set_id": "e", "policy": {}, "evidence": {},
    }  # fmt: skip
    return Decision(**(values | changes))


def release(champion: str) -> Release:
    return Release(
        id=champion, created_at=AT, action="moved outside Ratchet", champion=champion, previous=None
    )


def waiting(store: EventStore) -> CycleWait:
    store.append(cycle())
    store.append(candidate())
    return keep_wait(store, cycle(), MISSING, ("e",), AT)


def test_a_wait_is_kept_once_and_the_latest_counts(store: EventStore) -> None:
    wait = waiting(store)
    assert keep_wait(store, cycle(), MISSING, ("e",), AT) == wait
    assert (wait.missing, wait.example_set_ids) == (60, ("e",))
    fewer = WaitingError("win_rate needs 60 pairs, got 29; label them", missing=31)
    keep_wait(store, cycle(), fewer, ("e",), AT)
    found = latest_wait(store)
    assert found is not None
    assert found.missing == 31
    assert len(store.records(CycleWait)) == 2


def test_the_gate_goes_on_until_it_has_decided_and_the_cycle_has_ended(store: EventStore) -> None:
    wait = waiting(store)
    assert goes_on(store) == latest_wait(store) == wait
    store.append(decision())
    assert latest_wait(store) is None  # nothing is waited for
    assert goes_on(store) == wait  # what was interrupted after the decision ends at the gate too
    end_cycle(store, cycle(), "finished", AT)
    assert goes_on(store) is None


def test_a_cycle_whose_champion_was_replaced_does_not_go_on(store: EventStore) -> None:
    wait = waiting(store)
    store.append(release("m/1"))
    assert goes_on(store) == wait
    store.append(release("m/2"))  # its own challenger: promoted, and interrupted then
    assert goes_on(store) == wait
    store.append(release("m/7"))
    assert goes_on(store) is None


def test_a_wait_of_an_earlier_cycle_is_none_of_the_next(store: EventStore) -> None:
    waiting(store)
    end_cycle(store, cycle(), "abandoned", AT)
    store.append(cycle(2))
    assert latest_wait(store) is None
    assert goes_on(store) is None


def test_what_is_waited_for_survives_the_way_to_another_process() -> None:
    error = WaitingError("judge needs labels", "labels", 7, "careful")
    found = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(found), found.what) == ("judge needs labels", "labels")
    assert (found.missing, found.judge) == (7, "careful")
