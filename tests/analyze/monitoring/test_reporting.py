"""Boards, thresholds and charts of applications that send `copy` and `regenerate` when they happen.

Planted: 10 % of answers are regenerated, 30 % copied, by `watched_store.traffic` and `reacting`.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from ratchet.analyze.monitoring import check_thresholds, not_checked
from ratchet.analyze.monitoring.alerts import open_alerts
from ratchet.analyze.monitoring.baselines import freeze_baseline
from ratchet.analyze.monitoring.board import Budget, open_board
from ratchet.analyze.monitoring.charts import chart_signal, find_signal, read_window
from ratchet.analyze.monitoring.observed import observe
from ratchet.analyze.monitoring.watch import recent_metrics, watch
from ratchet.errors import InsufficientDataError
from ratchet.records import AlertEvent, Baseline, Copy, Regenerate
from ratchet.store import Window
from ratchet.store.heard import questions
from tests.analyze.monitoring.watched_store import (
    CONFIG,
    DAY,
    HOUR,
    MONDAY,
    READY,
    board_of,
    says,
    traffic,
    window,
)
from tests.store.reported_store import declare

KINDS = ("copy", "regenerate")
CHANGE = MONDAY + 3 * DAY


def reacting(
    store, start, hours, *, application="shop", segment=None, noes=False, copied=0.3, **rates
):
    """Store an application's traffic; without noes it sends what happened alone."""
    answers, feedback = traffic("router/1", start, hours, key=application, **rates)
    rng = np.random.default_rng([7, int(start.timestamp())])
    feedback += [
        Copy(
            id=f"{answer.id}-c", interaction_id=answer.id, value=bool(rng.random() < copied),
            created_at=answer.created_at + timedelta(seconds=20),
        )
        for answer in answers
    ]  # fmt: skip
    sent = [
        item for item in feedback if noes or not isinstance(item, Copy | Regenerate) or item.value
    ]
    names = {"segment": segment or application, "metadata": {"application": application}}
    store.add_interactions([answer.model_copy(update=names) for answer in answers])
    store.add_feedback(sent)


def passes(store, start, end, step=6 * HOUR):
    """Run a pass every few hours; return the reports."""
    reports, moment = [], start
    while moment < end:
        moment += step
        reports.append(watch(store, CONFIG, now=moment + READY))
    return reports


def alerts(store):
    return open_alerts(store.records(AlertEvent))


def signals_of(store):
    latest = store.records(Baseline, latest=1)[0]
    return {item.name: item.events / item.trials for item in latest.signals}


def test_yes_alone_raises_no_alert_and_is_asked_about_once(store):
    reacting(store, MONDAY, 80)
    reports = passes(store, MONDAY + 2 * DAY, CHANGE)
    assert {report.asked != () for report in reports[1:]} == {False}
    assert [item.kind for item in reports[0].asked] == list(KINDS)
    assert alerts(store) == ()
    assert not {"regenerated", "not_copied", "low_quality"} & set(signals_of(store))
    metrics, cut = recent_metrics(store, CONFIG, "router/1", now=CHANGE + READY)
    assert check_thresholds(metrics, model_version="r", cycle_id="c", now=CHANGE) == ()
    reason = dict(not_checked(metrics, latency_baseline=cut))["regenerate_rate"]
    assert reason.startswith("not observed: application shop sends `regenerate` only when it h")


def test_the_threshold_holds_the_true_rate_once_it_is_declared(store):
    reacting(store, MONDAY, 80, regenerated=0.5)
    watch(store, CONFIG, now=CHANGE + READY)
    declare(store, *KINDS, since=CHANGE - 10 * HOUR, at=CHANGE)
    metrics, _ = recent_metrics(store, CONFIG, "router/1", now=CHANGE + READY)
    (alert,) = check_thresholds(metrics, model_version="r", cycle_id="c", now=CHANGE)
    assert (alert.signal, alert.severity) == ("regenerate_rate", "critical")
    assert alert.value == pytest.approx(0.5, abs=0.15)  # planted; 100 answers
    assert questions(store, now=CHANGE) == ()


def test_a_declaration_is_no_alarm_and_the_signals_are_watched_anew(store):
    reacting(store, MONDAY, 72)
    passes(store, MONDAY + 2 * DAY, CHANGE)
    before = board_of(store, "router/1")
    declare(store, *KINDS, since=CHANGE)
    reacting(store, CHANGE, 60)
    reports = passes(store, CHANGE, CHANGE + 60 * HOUR)
    assert {says(report)["router/1"] for report in reports} == {"in control"}
    assert alerts(store) == ()
    rates = signals_of(store)
    assert rates["regenerated"] == pytest.approx(0.10, abs=0.02)
    assert rates["not_copied"] == pytest.approx(0.70, abs=0.02)
    anew = board_of(store, "router/1")
    assert anew.baseline_id != before.baseline_id
    assert anew.opened_at >= CHANGE + 2 * DAY
    assert {report.unwatched for report in reports} == {0}
    worse = CHANGE + 60 * HOUR
    reacting(store, worse, 12, regenerated=0.35)
    passes(store, worse, worse + 12 * HOUR)
    (alert,) = alerts(store)
    assert alert.signal == "regenerated"


@pytest.mark.slow
def test_a_declaration_backwards_in_time_is_no_alarm_either(store):
    reacting(store, MONDAY, 100)
    passes(store, MONDAY + 2 * DAY, CHANGE)
    declare(store, *KINDS, since=MONDAY, at=CHANGE)
    reports = passes(store, CHANGE, CHANGE + DAY)
    assert {says(report)["router/1"] for report in reports} == {"in control"}
    assert signals_of(store)["regenerated"] == pytest.approx(0.10, abs=0.02)


@pytest.mark.slow
def test_a_baseline_that_took_presence_alone_for_a_rate_does_not_alarm(store):
    """As a version before this one froze it: every answer with an event was copied."""
    reacting(store, MONDAY, 100)
    span = Window(MONDAY, MONDAY + 2 * DAY, "router/1")
    spoiled = freeze_baseline(
        observe(store, span, None, lag=CONFIG.lag), model_version="router/1", start=span.start,
        end=span.end, now=span.end, batch_seconds=CONFIG.batch_seconds,
    )  # fmt: skip
    assert {item.name: item.events for item in spoiled.signals}["not_copied"] == 0
    board = open_board(
        spoiled, model_version="router/1", start=span.end, now=span.end, budget=Budget()
    )
    store.append(spoiled)
    store.append(board)
    declare(store, *KINDS, since=MONDAY + 2 * DAY)
    reports = passes(store, MONDAY + 2 * DAY, MONDAY + 4 * DAY)
    assert {says(report)["router/1"] for report in reports} == {"in control"}
    assert alerts(store) == ()


@pytest.mark.slow
def test_an_application_that_sends_both_goes_on_being_watched_beside_one_that_does_not(store):
    reacting(store, MONDAY, 72, application="page", noes=True)
    reacting(store, MONDAY, 72, application="shop")
    passes(store, MONDAY + 2 * DAY, CHANGE)
    assert signals_of(store)["regenerated"] == pytest.approx(0.10, abs=0.02)
    declare(store, *KINDS, since=CHANGE)
    reacting(store, CHANGE, 12, application="page", noes=True, regenerated=0.35)
    reacting(store, CHANGE, 12, application="shop")
    passes(store, CHANGE, CHANGE + 12 * HOUR, step=HOUR)
    (alert,) = alerts(store)
    assert (alert.signal, alert.segment) in (("regenerated", "page"), ("regenerated", None))
    assert 0.3 < alert.value < 0.45  # of the page alone; with shop's answers it would be 22 %


@pytest.mark.slow
def test_what_a_declaration_brings_is_not_compared_with_what_was_known_without_it(store):
    """In one segment shop's users regenerate far more than those of the page that was known."""
    reacting(store, MONDAY, 72, application="page", segment="all", noes=True)
    reacting(store, MONDAY, 72, segment="all", regenerated=0.4, copied=0.05)
    passes(store, MONDAY + 2 * DAY, CHANGE)
    declare(store, *KINDS, since=CHANGE)
    reacting(store, CHANGE, 12, application="page", segment="all", noes=True)
    reacting(store, CHANGE, 12, segment="all", regenerated=0.4, copied=0.05)
    passes(store, CHANGE, CHANGE + 12 * HOUR)
    assert alerts(store) == ()


@pytest.mark.slow
def test_saying_what_was_so_already_leaves_a_board_as_it_is(store):
    reacting(store, MONDAY, 100, noes=True)
    passes(store, MONDAY + 2 * DAY, CHANGE)
    board = board_of(store, "router/1")
    declare(store, *KINDS, reported="both", since=CHANGE)
    (report,) = passes(store, CHANGE, CHANGE + 6 * HOUR)
    after = board_of(store, "router/1")
    assert (after.opened_at, after.baseline_id) == (board.opened_at, board.baseline_id)
    seen = observe(
        store, window(CHANGE, CHANGE + HOUR), store.records(Baseline)[0], lag=CONFIG.lag
    ).values
    assert not np.isnan(seen["regenerated"]).any()
    assert report.alerts == ()


def test_a_chart_begins_at_the_declaration_and_says_why_there_is_none_before(store):
    reacting(store, MONDAY, 60)
    watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    signal = find_signal("regenerate_rate")
    with pytest.raises(InsufficientDataError, match="ratchet signals declare regenerate"):
        chart_signal(read_window(store, window(MONDAY, MONDAY + 3 * DAY)), signal)
    declare(store, *KINDS, since=MONDAY + 30 * HOUR)
    readings = read_window(store, window(MONDAY, MONDAY + 3 * DAY))
    (item,) = chart_signal(readings, signal, by="hour").charts
    assert item.starts[0] == np.datetime64((MONDAY + 30 * HOUR).replace(tzinfo=None))
    assert item.sizes.sum() == pytest.approx(3_000, abs=200)  # 30 hours of 100 answers
    known = ~np.isnan(readings.columns["implicit_quality"])
    assert readings.times[known].min() >= item.starts[0]
