"""A degraded adapter is put in front of live users by hand, and everything after that is automatic.

The real model, two gateway processes, a Prefect server with its worker and automation: see
tests/benchmarks/degraded_release.py. About twelve minutes on two cores, most of them training.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ratchet.records import AlertEvent, Release, Routing, RoutingFollowed
from ratchet.store import EventStore, Window
from tests.benchmarks.degraded_release import LONGEST_SECONDS, SHOP, Drill, drill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
QUALITY = {"thumbs_down", "regenerated", "not_copied", "not_completed", "low_quality"}
SOON = timedelta(seconds=5)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Drill, EventStore, str]:
    """The drill after its end."""
    home: Path = tmp_path_factory.mktemp("drill") / "home"
    made, told = drill(home)
    return made, EventStore.open(made.settings.store_url), told


def test_it_is_noticed_explained_and_rolled_back_with_nobody_touching_it(done) -> None:
    drilled, store, _ = done
    start, by_hand, back = store.records(Release)
    assert [item.action for item in (start, by_hand, back)] == [
        "start", "moved outside Ratchet", "rollback",
    ]  # fmt: skip
    assert (back.champion, back.by) == (start.champion, "an automation")
    assert "where" in back.note  # the alert's own words
    assert back.created_at - by_hand.created_at < timedelta(seconds=LONGEST_SECONDS)
    events = store.records(AlertEvent, subject=by_hand.champion)
    boards = [event for event in events if event.kind == "board"]
    assert boards[0].created_at < back.created_at
    assert "critical" in {event.severity for event in boards}
    assert {event.signal for event in boards} <= QUALITY
    assert {event.segment for event in boards} <= {SHOP, None}
    champion = drilled.tracker.champion()
    assert champion is not None
    assert champion.reference == start.champion


def test_the_rollback_holds_in_every_gateway_process_within_five_seconds(done) -> None:
    _, store, _ = done
    _, by_hand, back = store.records(Release)
    routing = store.records(Routing)[-1]
    followed = [item for item in store.records(RoutingFollowed) if item.routing_id == routing.id]
    assert len({item.process for item in followed}) == 2
    assert all(item.created_at - back.created_at <= SOON for item in followed)
    late = Window(back.created_at + SOON, back.created_at + timedelta(hours=1), by_hand.champion)
    assert store.signals(late, lag=timedelta(0)).num_rows == 0


def test_the_time_line_is_told_by_one_command(done) -> None:
    told = done[2]
    wanted = (
        "was made the champion by hand", "first answer of", "first bad feedback on",
        "critical alert", "to do: roll back to", "is the champion again by an automation",
        "all 2 gateway processes follow",
    )  # fmt: skip
    assert [part for part in wanted if part not in told] == []
