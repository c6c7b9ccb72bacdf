"""The life of an alert, step by step; what it must say is written out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.analyze.monitoring.alerts import (
    board_events,
    by_hand,
    is_fresh,
    open_alerts,
    seeks_cluster,
    standing,
    threshold_events,
)
from ratchet.analyze.monitoring.board import Budget
from ratchet.errors import InvalidInputError
from ratchet.records import Alert, AlertEvent, BoardState, Finding
from ratchet.records.signals import words_of

OPENED = datetime(2026, 1, 12, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
BOARD = BoardState(
    id="b", created_at=OPENED, model_version="router/2", baseline_id="base", opened_at=OPENED,
    charted_until=OPENED + HOUR, batches=12, log_threshold=9.0, log_head_start=4.4,
    log_statistics=(0.0,), cusums=(0.0,), starts=(0,),
)  # fmt: skip


def finding(signal="regenerated", **changes):
    values = {
        "signal": signal, "says": words_of(signal), "segment": None, "since": OPENED,
        "log_evidence": 11.0, "log_threshold": 9.0, "events": 40, "trials": 200,
        "expected": 0.10, "lower": 0.13, "upper": 0.26, "also": (),
    }  # fmt: skip
    return Finding.model_validate(values | changes)


def step(known, found, *, hours=1.0, previous="router/1", cluster=None):
    """Add what a pass finds to the events known, and return the new ones."""
    new = board_events(
        BOARD, found, known, previous=previous, budget=Budget(), now=OPENED + hours * HOUR,
        cluster=cluster,
    )  # fmt: skip
    known.extend(new)
    return new


def threshold(severity="warning", signal="thumbs_down_rate", version="router/2"):
    return Alert(
        id="a", created_at=OPENED, signal=signal, severity=severity, model_version=version,
        value=0.20, lower=0.17, threshold=0.15, observations=300, message="20 % over 15 %",
        action="read the top failure clusters",
    )  # fmt: skip


def check(known, alerts, hours=1.0):
    new = threshold_events(alerts, known, model_version="router/2", now=OPENED + hours * HOUR)
    known.extend(new)
    return new


def changes(events):
    return [event.change for event in events]


# A board's alert ---------------------------------------------------------------------------------


def test_an_alert_is_opened_once_and_resolved_once():
    known: list[AlertEvent] = []
    for hours in (1, 2, 3):
        step(known, finding(events=40 * hours, trials=200 * hours), hours=hours)
    for hours in (4, 5):
        step(known, None, hours=hours)
    assert changes(known) == ["opened", "resolved"]
    assert len({event.alert_id for event in known}) == 1
    assert len({event.id for event in known}) == 2
    assert known[1].note == "back to normal"
    assert known[0].action != ""
    assert known[1].action == ""
    assert open_alerts(known) == ()
    step(known, finding(), hours=9)
    assert changes(known)[2:] == ["opened"]
    assert known[2].alert_id != known[0].alert_id


@pytest.mark.parametrize(
    "changed",
    [
        {"segment": "app"},
        {"lower": 0.16},  # from 1.5 times the expected 0.10 on it is critical
        {"signal": "thumbs_down", "says": words_of("thumbs_down")},
        {"since": OPENED + 2 * HOUR},
    ],
)
def test_it_is_updated_where_it_says_something_else(changed):
    known: list[AlertEvent] = []
    step(known, finding())
    (event,) = step(known, finding(**changed), hours=2)
    assert event.change == "updated"
    assert event.alert_id == known[0].alert_id
    assert step(known, finding(**changed), hours=3) == ()


def test_it_is_updated_where_the_cluster_becomes_known():
    known: list[AlertEvent] = []
    step(known, finding())
    (event,) = step(known, finding(), hours=2, cluster="refunds")
    assert "mostly about refunds" in event.message


def test_small_moves_of_rate_evidence_and_time_are_not_told():
    known: list[AlertEvent] = []
    step(known, finding())
    moved = finding(events=45, log_evidence=14.0, since=OPENED + HOUR / 2, upper=0.29)
    assert step(known, moved, hours=2) == ()


def test_what_a_person_acknowledged_stays_acknowledged_by_that_person_until_it_is_resolved():
    known: list[AlertEvent] = []
    step(known, finding())
    known.append(
        by_hand(known, known[0].alert_id[:6], "acknowledged", by="ana", note="looking", now=OPENED)
    )
    assert step(known, finding(), hours=2) == ()
    (event,) = step(known, finding(lower=0.2), hours=3)
    assert (event.change, event.severity) == ("acknowledged", "critical")
    assert (event.by, event.note) == ("ana", "looking")
    (event,) = step(known, None, hours=4)
    assert (event.change, event.by) == ("resolved", None)


def test_alerts_of_other_versions_and_thresholds_are_left_alone():
    known: list[AlertEvent] = []
    check(known, [threshold()])
    other = known[0].model_copy(
        update={"id": "o", "alert_id": "other", "model_version": "router/1", "kind": "board"}
    )
    known.append(other)
    assert changes(step(known, finding(), hours=2)) == ["opened"]
    assert changes(step(known, None, hours=3)) == ["resolved"]
    assert {event.alert_id for event in open_alerts(known)} == {"other", known[0].alert_id}


# Words -------------------------------------------------------------------------------------------


def test_the_message_has_rate_interval_expectation_time_version_and_sample():
    known: list[AlertEvent] = []
    step(known, finding(segment="app", also=("thumbs_down",)))
    assert known[0].message == (
        "router/2 in segment app: regenerated answers 20.0% (13.0% to 26.0%) where 10.0% is "
        "normal, since about 2026-01-12 09:00 UTC, 200 observations; also worse: thumbs down"
    )
    assert "at most once in 30 days" in known[0].certainty
    assert "7.39 times the threshold" in known[0].certainty  # e^2
    assert (known[0].value, known[0].expected, known[0].observations) == (0.2, 0.1, 200)


def test_rolling_back_is_named_for_a_fresh_release_with_a_predecessor_alone():
    def action(found, **options):
        known: list[AlertEvent] = []
        return step(known, found, **options)[0].action

    assert action(finding()).startswith("roll back to router/1")
    assert "roll back" not in action(finding(), previous=None)
    assert "roll back" not in action(finding(), hours=25)  # not fresh any more
    assert "roll back" not in action(finding(since=OPENED + 2 * HOUR), hours=3)
    critical, warning = action(finding(lower=0.2), hours=30), action(finding(), hours=30)
    assert "start an improvement cycle" in critical
    assert "queue their interactions for review" in warning
    assert "server's log" in action(finding("failed"), hours=30)


def test_a_dropped_pipeline_is_a_warning_of_its_own_kind_and_never_a_rollback():
    known: list[AlertEvent] = []
    (event,) = step(known, finding("no_feedback", lower=0.99, upper=1.0, events=200))
    assert (event.kind, event.severity) == ("pipeline", "warning")
    assert "still sends feedback" in event.action


def test_unsafe_answers_are_critical_whatever_the_size():
    known: list[AlertEvent] = []
    assert step(known, finding("unsafe", lower=0.101))[0].severity == "critical"


def test_a_version_is_fresh_for_a_day():
    assert is_fresh(BOARD, OPENED + 23.9 * HOUR)
    assert not is_fresh(BOARD, OPENED + 24 * HOUR)


def test_a_cluster_is_looked_for_while_the_alert_is_new_and_then_once_an_hour():
    known: list[AlertEvent] = []
    step(known, finding(), hours=1.0 / 3.0)
    passes = [OPENED + timedelta(minutes=minutes) for minutes in range(20, 320, 5)]
    looked = [moment for moment in passes if seeks_cluster(known, moment)]
    assert looked[:12] == passes[:12]
    assert [moment.minute for moment in looked[12:]] == [0] * 4
    at_half_past = passes[26]
    assert not seeks_cluster(known, at_half_past)
    # nothing stands about the board: this pass may be the one that opens it
    assert seeks_cluster([], at_half_past)
    only_of_threshold = check([], [threshold()])
    assert seeks_cluster(only_of_threshold, at_half_past)


# Thresholds --------------------------------------------------------------------------------------


def test_a_threshold_alert_has_the_same_life():
    known: list[AlertEvent] = []
    for hours, alerts in enumerate(
        ([threshold()], [threshold()], [threshold("critical")], [threshold("critical")], [], [])
    ):
        check(known, alerts, hours)
    assert changes(known) == ["opened", "updated", "resolved"]
    assert [event.severity for event in known] == ["warning", "critical", "critical"]
    assert len({event.alert_id for event in known}) == 1
    assert (known[0].kind, known[0].expected) == ("threshold", 0.15)


def test_each_signal_over_its_threshold_is_an_alert_of_its_own():
    known: list[AlertEvent] = []
    check(known, [threshold(), threshold(signal="regenerate_rate")])
    check(known, [threshold(signal="regenerate_rate")], hours=2)
    assert [(event.signal, event.change) for event in known] == [
        ("thumbs_down_rate", "opened"),
        ("regenerate_rate", "opened"),
        ("thumbs_down_rate", "resolved"),
    ]


def test_an_acknowledged_threshold_alert_stays_acknowledged():
    known: list[AlertEvent] = []
    check(known, [threshold()])
    known.append(by_hand(known, known[0].alert_id, "acknowledged", by="ana", note=None, now=OPENED))
    assert check(known, [threshold()], hours=2) == ()
    (event,) = check(known, [threshold("critical")], hours=3)
    assert (event.change, event.by, event.severity) == ("acknowledged", "ana", "critical")


# By hand -----------------------------------------------------------------------------------------


def test_a_person_resolves_an_alert_with_a_name_and_a_note():
    known: list[AlertEvent] = []
    step(known, finding())
    event = by_hand(known, known[0].alert_id, "resolved", by="ana", note="a test", now=OPENED)
    assert (event.change, event.by, event.note) == ("resolved", "ana", "a test")
    assert (event.message, event.action) == (known[0].message, "")
    assert open_alerts([*known, event]) == ()
    assert standing([*known, event]) == {event.alert_id: event}


def test_an_id_must_name_exactly_one_open_alert():
    known: list[AlertEvent] = []
    check(known, [threshold(), threshold(signal="regenerate_rate")])
    with pytest.raises(InvalidInputError, match="which names 0; `ratchet alerts` lists them"):
        by_hand(known, "zzz", "resolved", by="ana", note=None, now=OPENED)
    with pytest.raises(InvalidInputError, match="got '', which names 0"):
        by_hand(known, "", "resolved", by="ana", note=None, now=OPENED)
    check(known, [], hours=2)
    with pytest.raises(InvalidInputError, match="which names 0"):
        by_hand(known, known[0].alert_id, "resolved", by="ana", note=None, now=OPENED)
