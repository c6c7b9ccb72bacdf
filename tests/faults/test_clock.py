"""The clock is set back and forward: events, their order and who is served stay as they were.

Log, drain and store take the time from `time.time_ns` and from their clock, which are given here;
the machine's own clock is nobody's to set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.collect.ingest import ingest
from ratchet.deploy.rollout.canary import start_rollout, stop_rollout
from ratchet.deploy.routing import current_routing, running_rollout, switch
from ratchet.gateway.drain import Drain
from ratchet.gateway.log import LogKind, WriteAheadLog, segments
from ratchet.records import Candidate, CycleEnd, Release
from ratchet.store import EventStore
from ratchet.store.cycles import end_cycle, open_cycle, unfinished_cycle
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released
from tests.faults.ledger import Row
from tests.gateway.conftest import ALWAYS
from tests.gateway.killing import drain_all

STEPS = (
    timedelta(0), -timedelta(days=1), timedelta(days=3), -timedelta(hours=5),
    -timedelta(days=400), timedelta(days=400), timedelta(seconds=1),
)  # fmt: skip
ROUND = 12


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 6, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=10)
        return self.now

    def time_ns(self) -> int:
        return int(self().timestamp() * 1e6) * 1_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time_ns", made.time_ns)
    return made


def lines(number: int, at: datetime) -> list[tuple[LogKind, bytes]]:
    key = f"i{number}"
    answer = {
        "id": key, "session_id": key, "user_id": "u", "created_at": at.isoformat(),
        "model_version": OLD, "messages": [{"role": "user", "content": f"question {number}"}],
        "response": f"question {number}", "latency_seconds": 0.1,
    }  # fmt: skip
    thumb = {"id": f"t{number}", "interaction_id": key, "kind": "thumbs", "value": "down"}
    return [
        (LogKind.INTERACTION, json.dumps(answer).encode()),
        (LogKind.UNTIMED_FEEDBACK, json.dumps(thumb).encode()),
    ]


@pytest.mark.parametrize("drains", [True, False], ids=["drained meanwhile", "drained at the end"])
def test_events_of_a_clock_that_jumps_are_stored_once_and_none_is_set_aside(
    tmp_path: Path, store_url: str, clock: Clock, row: Row, drains: bool
) -> None:
    store = EventStore.open(store_url, clock=clock)
    folder, number = tmp_path / "wal", 0
    log = WriteAheadLog(_made(folder), segment_bytes=2_000)
    drain = Drain(folder, store, clock=clock)
    for step in STEPS:
        clock.now += step
        for _ in range(ROUND):
            log.append_all(lines(number, clock()))
            number += 1
        if drains:
            while drain.once():
                pass
    log.close()
    drain.close()
    drain_all(folder, store)
    assert segments(folder) == []
    ids = store.interactions(ALWAYS)["id"].to_pylist()
    assert sorted(ids) == sorted(f"i{n}" for n in range(number))
    rated = store.feedback(ALWAYS)["interaction_id"].to_pylist()
    assert sorted(rated) == sorted(ids)
    assert store.counts()["set_aside"] == 0
    store.close()
    row.name, row.database = "log and drain", store_url.partition(":")[0].partition("+")[0]
    row.faults = "clock set back and forward by up to 400 days, " + (
        "drained meanwhile" if drains else "drained at the end"
    )
    row.acknowledged = row.stored = 2 * number


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_rollout_and_its_stop_hold_after_the_clock_was_set_back(
    open_store: Callable[[], EventStore], row: Row
) -> None:
    store, now = open_store(), datetime(2026, 6, 1, 12, tzinfo=UTC)
    released(store, now)  # with traffic, from which a plan takes its numbers
    first = Release(id="r", created_at=now, action="start", champion=OLD, previous=None)
    switch(store, first, by="test")
    earlier = now - timedelta(hours=2)
    rollout = start_rollout(store, NEW_VARIANT, PLAN, now=earlier)
    assert running_rollout(store) == rollout
    routing = current_routing(store)
    assert routing is not None
    assert {variant.version for variant in routing.variants} == {OLD, NEW}
    stop_rollout(store, by="ann", now=earlier - timedelta(hours=1), note="", person=True)
    assert running_rollout(store) is None
    stopped = current_routing(store)
    assert stopped is not None
    assert [variant.version for variant in stopped.variants] == [OLD]
    row.name, row.faults, row.acknowledged, row.stored = "rollout", "clock set back", 3, 3
    row.database = store._engine.dialect.name


def _answer(store: EventStore, key: str, at: datetime) -> None:
    ingest([body for _, body in lines(int(key), at)[:1]], store, source="gateway", now=at)


def test_a_cycle_that_began_in_the_future_is_gone_on_with_and_ended_once(
    open_store: Callable[[], EventStore],
) -> None:
    store, now = open_store(), datetime(2026, 6, 1, 12, tzinfo=UTC)
    given = {"champion": OLD, "options_digest": "o", "seed": 0, "example_set_id": "e"}
    _answer(store, "1", now - timedelta(hours=1))
    first = open_cycle(store, **given, now=now)
    back = now - timedelta(days=2)
    assert open_cycle(store, **given, now=back) == first
    end_cycle(store, first, "finished", back)
    end_cycle(store, first, "finished", now)
    assert unfinished_cycle(store) is None
    assert len(store.records(CycleEnd)) == 1
    _answer(store, "2", back - timedelta(hours=1))
    second = open_cycle(store, **given, now=back)
    assert (second.number, unfinished_cycle(store)) == (2, second)
    assert store.latest(Candidate) is None
