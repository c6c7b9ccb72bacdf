"""Failure clusters as alerts: opened when they emerge, resolved when they are gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ratchet.analyze.failures.emerging import cluster_events
from ratchet.analyze.monitoring.alerts import by_hand, open_alerts, standing
from ratchet.records import AlertEvent, EarlierCluster, FailureCluster, Trend

NOW = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def cluster(trend: Trend = "new", **changes: Any) -> FailureCluster:
    values = {
        "id": "seven",
        "name": "cards",
        "size": 40,
        "interactions": 60,
        "failure_rate": 2 / 3,
        "rest_rate": 0.05,
        "lift": 6.0,
        "interval": (0.5, 0.8),
        "p_value": 0.002,
        "users": 31,
        "trend": trend,
        "first_seen": NOW,
        "examples": ("my card",),
    }
    return FailureCluster.model_validate(values | changes)


def events(
    clusters: list[FailureCluster],
    known: tuple[AlertEvent, ...] = (),
    *,
    earlier: tuple[EarlierCluster, ...] = (),
    first_run: bool = False,
    now: datetime = NOW,
) -> tuple[AlertEvent, ...]:
    return cluster_events(
        clusters, earlier, known, model_version="m/1", first_run=first_run, now=now
    )


@pytest.mark.parametrize(
    ("trend", "opens"),
    [("new", True), ("growing", True), ("steady", False), ("shrinking", False), ("split", False)],
)
def test_what_emerges_or_grows_opens_an_alert(trend: Trend, opens: bool) -> None:
    assert bool(events([cluster(trend)])) is opens


def test_an_alert_says_what_where_and_how_sure() -> None:
    (event,) = events([cluster()])
    assert event.message == (
        "m/1: new failure cluster 'cards': 67% (50% to 80%) of 60 interactions fail where 5% of "
        "the rest do, 31 users"
    )
    assert (event.severity, event.cluster, event.since) == ("warning", "cards", NOW)
    assert "at most 2 % of analyses; p = 0.002 among all groups" in event.certainty


def test_in_the_first_run_only_safety_is_news() -> None:
    assert events([cluster()], first_run=True) == ()
    (event,) = events([cluster("steady", safety=6)], first_run=True)
    assert event.severity == "critical"
    assert "6 of them unsafe" in event.message


def test_an_open_alert_is_opened_once_and_follows_its_severity() -> None:
    first = events([cluster()])
    assert events([cluster("growing")], first, now=NOW + DAY) == ()
    (worse,) = events([cluster("steady", safety=9)], first, now=NOW + DAY)
    assert (worse.change, worse.severity) == ("updated", "critical")
    assert worse.alert_id == first[0].alert_id
    seen = by_hand(first, first[0].alert_id, "acknowledged", by="ann", note="mine", now=NOW)
    (after,) = events([cluster("steady", safety=9)], (*first, seen), now=NOW + DAY)
    assert (after.change, after.by, after.note) == ("acknowledged", "ann", "mine")


@pytest.mark.parametrize(("trend", "ends"), [("gone", True), ("merged", True), ("steady", False)])
def test_what_is_gone_resolves_its_alert(trend: Trend, ends: bool) -> None:
    first = events([cluster()])
    lost = EarlierCluster(id="seven", name="cards", trend=trend, first_seen=NOW)
    after = events([], first, earlier=(lost,), now=NOW + DAY)
    assert [event.change for event in after] == (["resolved"] if ends else [])
    assert len(open_alerts((*first, *after))) == (0 if ends else 1)


def test_one_that_comes_back_is_the_same_alert() -> None:
    first = events([cluster()])
    lost = EarlierCluster(id="seven", name="cards", trend="gone", first_seen=NOW)
    gone = events([], first, earlier=(lost,), now=NOW + DAY)
    again = events([cluster("growing")], (*first, *gone), now=NOW + 2 * DAY)
    assert len(standing((*first, *gone, *again))) == 1
    assert [event.change for event in again] == ["opened"]
