"""Feedback that its source edits in place: all versions are kept, the latest counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ratchet.collect.ingest import ingest
from ratchet.records import FEEDBACK, Feedback
from ratchet.store import EventStore, Window
from ratchet.store.tables import FEEDBACK_EVENTS
from tests.collect.test_ingest import NOW, interaction

ANSWERED = datetime(2026, 1, 5, 7, tzinfo=UTC)
WINDOW = Window(ANSWERED - timedelta(days=1), ANSWERED + timedelta(days=1))
MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    opened = open_store()
    ingest([interaction()], opened, source="test", now=NOW)
    return opened


def opinion(value: Any, updated: int | None = None, *, kind: str = "thumbs", **fields: Any) -> Any:
    """Feedback given a minute after the answer and changed so many minutes after it."""
    row = {
        "id": "f",
        "interaction_id": "i-1",
        "created_at": ANSWERED + MINUTE,
        "kind": kind,
        "value": value,
    }
    if updated is not None:
        row["updated_at"] = ANSWERED + updated * MINUTE
    return FEEDBACK.validate_python(row | fields)


def in_effect(store: EventStore, kind: str = "thumbs", within: timedelta | None = None) -> Any:
    """What boards and metrics count of the answer."""
    signals = store.signals(WINDOW, lag=within or timedelta(days=400))
    (number,) = signals[kind].to_pylist()
    return number


def kept(store: EventStore) -> list[float]:
    """The values of all versions in the order of their times, as readers of feedback get them."""
    return store.feedback(WINDOW)["number"].to_pylist()


def test_a_later_version_replaces_the_opinion_in_effect_and_both_are_kept(
    store: EventStore,
) -> None:
    assert store.add_feedback([opinion("up")]).new == 1
    added = store.add_feedback([opinion("down", 60)])
    assert (added.new, added.repeated, added.conflicts) == (1, 0, ())
    assert in_effect(store) == 0.0
    assert kept(store) == [1.0, 0.0]
    assert store.stored_feedback(["f", "g"]) == {"f": opinion("down", 60)}
    assert store.counts()["thumbs"] == 1  # one user's one thumb


def test_monitoring_counts_what_was_said_by_then(store: EventStore) -> None:
    """Boards count feedback that came within minutes: an edit a day later is not among it."""
    store.add_feedback([opinion("up"), opinion("down", 24 * 60)])
    assert in_effect(store, within=5 * MINUTE) == 1.0
    assert in_effect(store) == 0.0


VERSIONS = [opinion(2, 1, kind="stars"), opinion(5, 30, kind="stars"), opinion(3, 90, kind="stars")]


@pytest.mark.mostly_slow("order0", "sqlite-True")
@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("together", [True, False])
def test_the_latest_version_counts_in_whatever_order_they_arrive(
    store: EventStore, order: tuple[int, ...], together: bool
) -> None:
    rows = [VERSIONS[place] for place in order]
    for batch in [rows] if together else [[row] for row in rows]:
        store.add_feedback(batch)
    assert in_effect(store, "stars") == 3.0
    assert kept(store) == [2.0, 5.0, 3.0]


def test_sending_every_export_again_changes_nothing(store: EventStore) -> None:
    store.add_feedback(VERSIONS)
    for rows in (VERSIONS, VERSIONS[::-1], VERSIONS[:1]):
        assert store.add_feedback(rows).repeated == len(rows)
    assert kept(store) == [2.0, 5.0, 3.0]


def test_an_opinion_that_is_taken_back_counts_again(store: EventStore) -> None:
    for updated, value in ((None, "up"), (10, "down"), (20, "up")):
        assert store.add_feedback([opinion(value, updated)]).new == 1
    assert in_effect(store) == 1.0
    assert kept(store) == [1.0, 0.0, 1.0]


def test_a_new_time_alone_is_no_new_opinion(store: EventStore) -> None:
    store.add_feedback([opinion("up")])
    added = store.add_feedback([opinion("up", 10), opinion("up", 5_000)])
    assert (added.new, added.repeated) == (0, 2)


@pytest.mark.parametrize(
    "other",
    [
        opinion("down"),  # no time of its own
        opinion("down", 1),  # the time of the stored one
        opinion(True, 60, kind="copy"),  # another signal
        opinion("down", 60, interaction_id="i-2"),  # another answer
    ],
)
def test_what_is_no_version_of_the_same_event_is_a_conflict(
    store: EventStore, other: Feedback
) -> None:
    store.add_feedback([opinion("up")])
    assert store.add_feedback([other]).conflicts == ("f",)
    assert kept(store) == [1.0]


def test_two_contents_with_one_time_are_a_conflict_that_ingest_names(store: EventStore) -> None:
    rows = [opinion("no good", 5, kind="comment"), opinion("fine", 9, kind="comment")]
    odd = opinion("other", 9, kind="comment")
    report = ingest([*rows, odd], store, source="test", now=NOW)
    assert (report.feedback, report.set_aside) == (2, 1)
    assert report.examples[0].position == "row 3"


def test_a_record_without_a_time_of_change_is_stored_as_before() -> None:
    assert "updated_at" not in opinion("up").canonical()


def test_a_version_keeps_both_of_its_times(store: EventStore) -> None:
    sent = opinion("down", 7)
    store.add_feedback([sent])
    assert store.stored_feedback(["f"]) == {"f": sent}


def test_a_store_made_before_versions_opens_with_what_it_held(tmp_path: Path) -> None:
    """Its feedback table as 0.1 made it, without the two columns."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    store = EventStore.open(url, clock=lambda: NOW)
    ingest([interaction()], store, source="test", now=NOW)
    store.add_feedback([opinion("up")])
    store.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP INDEX ix_feedback_version_of"))
        for event in ("insert", "delete"):
            connection.execute(sa.text(f"DROP TRIGGER count_feedback_{event}"))
        for name in ("updated_at", "version_of"):
            connection.execute(sa.text(f"ALTER TABLE feedback DROP COLUMN {name}"))
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name >= '0007'"))
    engine.dispose()
    store = EventStore.open(url, clock=lambda: NOW)
    assert store.add_feedback([opinion("up")]).repeated == 1
    assert store.add_feedback([opinion("down", 3)]).new == 1
    assert in_effect(store) == 0.0
    with store.atomic() as connection:
        names = {column["name"] for column in sa.inspect(connection).get_columns("feedback")}
    assert names == {column.name for column in FEEDBACK_EVENTS.columns}
    store.close()
