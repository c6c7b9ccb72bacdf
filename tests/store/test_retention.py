"""What retention finds and deletes, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from ratchet.records import (
    BoardState,
    Delivery,
    HumanLabel,
    Interaction,
    Message,
    ReviewItem,
    RolloutLook,
    SafetyPass,
    SampleRatio,
    SetAside,
    Thumbs,
)
from ratchet.store import EventStore, Window
from ratchet.store.arrivals import Position, last_position
from ratchet.store.outbox import SENT, Outgoing, end, latest_of, put, take
from ratchet.store.retention import (
    Expired,
    delete_expired,
    delete_rows,
    labelled,
    old_deliveries,
    old_looks,
    old_messages,
    old_orphans,
    old_passes,
    old_recorded,
    old_rows,
    size_of,
    size_of_expired,
    spare_boards,
)
from ratchet.store.tables import ANSWERS, EMBEDDINGS, SET_ASIDE, SHARDS

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
EVEN = SampleRatio(users={}, log_evidence=0.0, log_threshold=5.0, moved=0, ready=False)
EVERYTHING = Window(NOW - 1_000 * DAY, NOW + DAY)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def rest(_seconds: float) -> None:
    """No test waits for a writer that is not there."""


def interaction(key: str, age: timedelta) -> Interaction:
    return Interaction(
        id=key, session_id=key, user_id="u", created_at=NOW - age, model_version="m/1",
        messages=(Message(role="user", content="where is my parcel"),), response="delivery",
    )  # fmt: skip


def thumb(about: str, age: timedelta, key: str = "") -> Thumbs:
    return Thumbs(
        id=key or f"t-{about}", interaction_id=about, created_at=NOW - age, value="up"
    )  # fmt: skip


def fill(store: EventStore, ages: dict[str, timedelta]) -> None:
    store.add_interactions([interaction(key, age) for key, age in ages.items()])
    store.add_feedback([thumb(key, age) for key, age in ages.items()])


def expired(store: EventStore, **changes: Any) -> Expired:
    values = {"before": NOW - 90 * DAY, "until": last_position(store), "kept": frozenset()}
    return Expired(**(values | changes))


def left(store: EventStore) -> tuple[set[str], set[str]]:
    ids = set(store.interactions(EVERYTHING)["id"].to_pylist())
    feedback = store.stored_feedback([f"t-{name}" for name in "abcdefgh"])
    return ids, {event.interaction_id for event in feedback.values()}


def test_old_interactions_go_with_their_feedback_and_the_counts_follow(store: EventStore) -> None:
    fill(store, {"a": 200 * DAY, "b": 91 * DAY, "c": 90 * DAY, "d": HOUR})
    interactions, feedback = size_of_expired(store, expired(store))
    assert (interactions.rows, interactions.oldest) == (2, NOW - 200 * DAY)
    assert feedback.rows == 2
    # the texts alone are 50 characters and more a row
    assert 2 * 50 < interactions.bytes < 2 * 2_000
    assert delete_expired(store, expired(store), rest=rest) == (2, 2)
    assert left(store) == ({"c", "d"}, {"c", "d"})
    assert (store.counts()["interactions"], store.counts()["thumbs"]) == (2, 2)
    assert delete_expired(store, expired(store), rest=rest) == (0, 0)


def test_what_history_lacks_stays(store: EventStore) -> None:
    fill(store, dict.fromkeys("ab", 200 * DAY))
    until = last_position(store)
    fill(store, {"c": 200 * DAY})
    store.add_feedback([thumb("b", DAY, "late")])  # of an interaction that history has
    fill(store, {"d": HOUR})
    assert size_of_expired(store, expired(store, until=until))[0].rows == 1
    delete_expired(store, expired(store, until=until), rest=rest)
    assert left(store)[0] == {"b", "c", "d"}
    nothing = Position(0, 0)
    assert delete_expired(store, expired(store, until=nothing), rest=rest) == (0, 0)


def test_what_people_reviewed_labelled_or_is_named_stays(store: EventStore) -> None:
    fill(store, dict.fromkeys("abcd", 200 * DAY) | {"h": HOUR})
    store.append(
        ReviewItem(
            id="i", created_at=NOW, interaction_id="a", dimension="safety", priority="safety",
            raised_by="rule", why="because",
        )
    )  # fmt: skip
    store.append(
        HumanLabel(
            id="l", created_at=NOW, item_id="b", dimension="right", label="yes", reviewer="ana"
        )
    )
    kept = labelled(store) | {"c"}
    assert kept == {"b", "c"}
    assert size_of_expired(store, expired(store, kept=frozenset(kept)))[0].rows == 1
    assert delete_expired(store, expired(store, kept=frozenset(kept)), rest=rest) == (1, 1)
    assert left(store)[0] == {"a", "b", "c", "h"}


def test_what_comes_while_rows_are_deleted_is_not_deleted_with_them(store: EventStore) -> None:
    names = [f"a{number:02}" for number in range(50)]
    fill(store, dict.fromkeys(names, 200 * DAY) | {"h": HOUR})
    found = expired(store)

    def come(_seconds: float) -> None:
        """After the first rows went: feedback, and an item, about two of those still to go."""
        if not store.stored_feedback(["late"]):
            store.add_feedback([thumb("a48", DAY, "late"), thumb("a00", DAY, "too late")])
            store.append(
                ReviewItem(
                    id="i", created_at=NOW, interaction_id="a49", dimension="safety",
                    priority="safety", raised_by="rule", why="because",
                )
            )  # fmt: skip

    assert delete_expired(store, found, rest=come) == (48, 48)
    assert left(store)[0] == {"a48", "a49", "h"}
    # history has not seen these: also the one about an interaction that had gone before
    assert set(store.stored_feedback(["late", "too late"])) == {"late", "too late"}
    assert len(store.stored_feedback(["t-a48", "t-a49", "t-a00"])) == 2


def test_no_position_is_given_twice_though_all_rows_are_old(store: EventStore) -> None:
    fill(store, dict.fromkeys("abc", 200 * DAY))
    before = last_position(store)
    delete_expired(store, expired(store), rest=rest)
    assert last_position(store) == before
    fill(store, {"d": 200 * DAY})
    after = last_position(store)
    assert after.interactions > before.interactions
    assert after.feedback > before.feedback


def test_feedback_about_what_is_not_there_goes_when_it_is_old(store: EventStore) -> None:
    fill(store, {"a": 200 * DAY, "h": HOUR})
    store.add_feedback([thumb("gone", 200 * DAY, "orphan"), thumb("h", HOUR, "newest")])
    until = last_position(store)
    # it was received when the store's clock says, which is what counts
    received = store._clock()
    for before, rows in ((received, 0), (received + DAY, 1)):
        found = old_orphans(store, before=before, until=until)
        assert len(found.positions) == rows
    assert delete_rows(store, found, rest=rest) == 1
    assert store.stored_feedback(["orphan"]) == {}
    assert len(store.stored_feedback(["t-a", "t-h", "newest"])) == 3


def test_a_stopped_run_goes_on(store: EventStore) -> None:
    fill(store, {f"a{number}": (300 - number) * DAY for number in range(150)} | {"h": HOUR})

    class StoppedError(Exception):
        pass

    def stop(_seconds: float) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        delete_expired(store, expired(store), rest=stop)
    there = store.counts()["interactions"]
    assert 1 < there < 151
    assert delete_expired(store, expired(store), rest=rest)[0] == there - 1
    assert store.counts()["interactions"] == 1


@pytest.mark.slow
def test_a_writer_waits_less_than_a_second_while_rows_are_deleted(
    open_store: Callable[[], EventStore],
) -> None:
    store, other = open_store(), open_store()
    ages = {f"a{number:05}": (400 - number / 100) * DAY for number in range(6_000)}
    fill(store, ages | {"h": HOUR})
    waits: list[float] = []
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            began = time.perf_counter()
            other.set_aside(
                [
                    SetAside(
                        id=f"s{len(waits)}", created_at=NOW, source="test", position="1",
                        reason="none", raw="",
                    )
                ]
            )  # fmt: skip
            waits.append(time.perf_counter() - began)
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        gone, _ = delete_expired(store, expired(store), rest=time.sleep)
    finally:
        done.set()
        writer.join()
    assert gone == 6_000
    assert len(waits) > 3
    assert max(waits) < 1.0


def test_rows_set_aside_go_by_their_age_but_the_newest(store: EventStore) -> None:
    ages = {"a": 200, "b": 91, "c": 1}
    store.set_aside(
        [
            SetAside(
                id=key, created_at=NOW - age * DAY, source="f", position="1", reason="r", raw="raw"
            )
            for key, age in ages.items()
        ]
    )
    found = old_rows(store, SET_ASIDE, before=NOW - 90 * DAY)
    size = size_of(store, found)
    assert (size.rows, size.oldest) == (2, NOW - 200 * DAY)
    assert size.bytes > 0
    delete_rows(store, found, rest=rest)
    assert [row.id for row in store.set_aside_rows()] == ["c"]
    assert old_rows(store, SET_ASIDE, before=NOW + DAY).positions == []


@pytest.mark.parametrize(
    "table", [ANSWERS, EMBEDDINGS, SHARDS], ids=["answers", "vectors", "shards"]
)
def test_what_was_recorded_goes_by_when_it_was_added(store_url: str, table: sa.Table) -> None:
    def add(day: int) -> None:
        store = EventStore.open(store_url, clock=lambda: NOW - day * DAY)
        store.add_answers("m", "d", {f"x{day}": "delivery"})
        store.add_vectors("m", {f"x{day}": np.ones(3, dtype=np.float32)})
        store.keep_shard("s", f"x{day}", "done", day)
        store.close()

    for day in (400, 30, 1):
        add(day)
    store = EventStore.open(store_url)
    found = old_recorded(store, table, before=NOW - 90 * DAY)
    assert (len(found.positions), found.oldest) == (1, NOW - 400 * DAY)
    assert delete_rows(store, found, rest=rest) == 1
    assert len(old_recorded(store, table, before=NOW + DAY).positions) == 1  # the newest stays
    keys = ["x400", "x30", "x1"]
    there = {
        ANSWERS: {*store.answers("m", "d", keys)},
        EMBEDDINGS: {*store.vectors("m", keys)},
        SHARDS: {*store.shard_results("s")},
    }
    assert there == {one: {*keys[1:]} if one is table else {*keys} for one in there}
    store.close()


def test_what_was_recorded_before_the_column_is_as_old_as_its_migration(empty_url: str) -> None:
    store = EventStore.open(empty_url, clock=lambda: NOW - 100 * DAY)
    store.add_answers("m", "d", {"x": "a", "y": "b"})
    with store.atomic() as connection:
        connection.execute(sa.update(ANSWERS).values(added_at=None))
    assert old_recorded(store, ANSWERS, before=NOW - 101 * DAY).positions == []
    assert len(old_recorded(store, ANSWERS, before=NOW - 99 * DAY).positions) == 1
    store.close()


# Records of the journal ---------------------------------------------------------------------------


def board(key: str, charted: datetime, version: str = "m/2", opened_days: int = 60) -> BoardState:
    return BoardState(
        id=key, created_at=charted, model_version=version, baseline_id="base",
        opened_at=NOW - opened_days * DAY, charted_until=charted, batches=1, log_threshold=9.0,
        log_head_start=4.0, log_statistics=(0.0,), cusums=(0.0,), starts=(0,),
    )  # fmt: skip


@pytest.mark.mostly_slow("sqlite")
def test_of_a_board_the_states_that_something_goes_back_to_stay(store: EventStore) -> None:
    moments = [NOW - 50 * DAY + number * timedelta(minutes=30) for number in range(50 * 48 + 1)]
    with store.atomic():
        for number, moment in enumerate(moments):
            store.append(board(f"s{number}", moment))
        store.append(board("old", NOW - 45 * DAY, version="m/1", opened_days=70))
    found = spare_boards(store, now=NOW, late=35 * DAY)
    delete_rows(store, found, rest=rest)
    states = store.records(BoardState, subject="m/2")
    charted = [state.charted_until for state in states]
    assert charted[-1] == NOW
    # all of the last day, one an hour up to 35 days, and the newest one before that
    assert [moment for moment in charted if moment >= NOW - DAY] == moments[-49:]
    hourly = [moment for moment in charted if NOW - 35 * DAY <= moment < NOW - DAY]
    assert len(hourly) == 34 * 24
    assert len({moment.replace(minute=0) for moment in hourly}) == 34 * 24
    assert len([moment for moment in charted if moment < NOW - 35 * DAY]) == 1
    assert charted[0] > NOW - 35 * DAY - HOUR
    assert [state.id for state in store.records(BoardState, subject="m/1")] == ["old"]
    assert spare_boards(store, now=NOW, late=35 * DAY).positions == []


def test_old_passes_and_deliveries_go_and_the_last_pass_stays(store: EventStore) -> None:
    for days in (300, 20, 10):
        at = NOW - days * DAY
        store.append(
            SafetyPass(id=f"p{days}", created_at=at, screened_until=at, interactions=0, flags=0)
        )
        store.append(
            Delivery(id=f"d{days}", created_at=at, event_id="e", channel="json", delivered=True)
        )
    delete_rows(store, old_passes(store, before=NOW - 7 * DAY), rest=rest)
    assert [item.id for item in store.records(SafetyPass)] == ["p10"]
    delete_rows(store, old_deliveries(store, before=NOW - 90 * DAY), rest=rest)
    assert [item.id for item in store.records(Delivery)] == ["d20", "d10"]


def test_messages_that_ended_long_ago_go_and_those_that_wait_stay(store: EventStore) -> None:
    old = NOW - 200 * DAY
    made = [
        Outgoing(key, "step", "e", "desk", old, old + DAY) for key in ("sent", "waits", "newest")
    ]
    put(store, made)
    taken = take(store, now=old, lease=HOUR)
    assert taken is not None
    end(store, taken, SENT, now=old)
    delete_rows(store, old_messages(store, before=NOW - 90 * DAY), rest=rest)
    left = [take(store, now=NOW, lease=HOUR) for _ in range(3)]
    assert [one and one.id for one in left] == ["waits", "newest", None]
    assert latest_of(store, "desk", SENT) == []


def test_looks_of_ended_rollouts_that_decided_nothing_go(store: EventStore) -> None:
    def look(rollout: str, number: int, decision: str) -> None:
        at = NOW - (200 - number) * DAY
        store.append(
            RolloutLook.model_validate(
                {
                    "id": f"{rollout}{number}", "created_at": at, "rollout_id": rollout,
                    "model_version": "m/2", "number": number, "until": at, "stage": 1,
                    "share": 0.1, "decision": decision, "reasons": ("none",), "readouts": (),
                    "sample_ratio": EVEN, "interactions": 0,
                }
            )
        )  # fmt: skip

    for rollout in ("ended", "runs"):
        for number, decision in enumerate(["wait", "advance", "wait", "wait"], 1):
            look(rollout, number, decision)
    found = old_looks(store, before=NOW - 90 * DAY, running={"runs"})
    delete_rows(store, found, rest=rest)
    ids = [item.id for item in store.records(RolloutLook)]
    assert ids == ["ended2", "ended4", "runs1", "runs2", "runs3", "runs4"]


def test_the_size_of_rows_is_that_of_their_texts(store: EventStore) -> None:
    raw = "x" * 2_000
    store.set_aside(
        [
            SetAside(
                id=f"a{number}", created_at=NOW - 100 * DAY, source="f", position="1", reason="r",
                raw=raw,
            )
            for number in range(10)
        ]
    )  # fmt: skip
    size = size_of(store, old_rows(store, SET_ASIDE, before=NOW))
    assert size.rows == 9
    assert 9 * 2_000 < size.bytes < 9 * 2_100  # id, source, position, reason and two numbers
