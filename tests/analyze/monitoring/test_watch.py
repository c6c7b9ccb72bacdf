"""Passes over a real store; expected values are what was planted there and counted by hand."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from ratchet.analyze.monitoring.board import MEMORY
from ratchet.analyze.monitoring.watch import WatchConfig, recent_metrics, watch
from ratchet.records import (
    AlertEvent,
    Baseline,
    BoardState,
    Copy,
    Thumbs,
)
from ratchet.store import EventStore
from tests.analyze.monitoring.watched_store import (
    CONFIG,
    DAY,
    HOUR,
    MONDAY,
    PER_HOUR,
    READY,
    RELEASE,
    board_of,
    fill,
    hourly,
    says,
    window,
)


@pytest.fixture(scope="module")
def three_days(tmp_path_factory):
    """A database with three days of router/1, which is copied for each test."""
    path = tmp_path_factory.mktemp("watch") / "store.db"
    store = EventStore.open(f"sqlite:///{path}")
    fill(store, "router/1", MONDAY, 72)
    store.close()
    return path


@pytest.fixture
def filled(three_days, tmp_path):
    names = iter("abcdef")
    opened = []

    def make():
        copy = tmp_path / f"{next(names)}.db"
        shutil.copyfile(three_days, copy)
        opened.append(EventStore.open(f"sqlite:///{copy}"))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def journal(store):
    return {kind: store.records(kind) for kind in (Baseline, BoardState, AlertEvent)}


# Simulated users ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_version_that_simulated_users_met_is_watched_from_nothing_with_real_ones(tmp_path):
    clock = [MONDAY]
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}", clock=lambda: clock[0])
    with store.simulating():
        fill(store, "router/1", MONDAY, 72, down=0.5)
    assert says(watch(store, CONFIG, now=MONDAY + 3 * DAY + READY)) == {"router/1": "in control"}
    (simulated,) = store.records(Baseline)
    clock[0] = start = MONDAY + 4 * DAY
    fill(store, "router/1", start, 72)
    early = watch(store, CONFIG, now=start + 12 * HOUR + READY)
    assert says(early) == {"router/1": "no baseline"}
    assert "0.50 of router/1" in early.verdicts[0].reason
    assert says(watch(store, CONFIG, now=start + 3 * DAY + READY)) == {"router/1": "in control"}
    frozen = store.records(Baseline)[-1]
    assert frozen.window_start >= start
    assert store.records(BoardState)[-1].baseline_id == frozen.id != simulated.id
    store.close()


# Baselines ---------------------------------------------------------------------------------------


def test_a_first_version_gets_a_baseline_after_enough_days_and_says_why_not_before(filled):
    store = filled()
    early = watch(store, CONFIG, now=MONDAY + 1.5 * DAY + READY)
    assert says(early) == {"router/1": "no baseline"}
    assert "a baseline needs 2 days of traffic, got 1.50 of router/1" in early.verdicts[0].reason
    assert (early.interactions, store.records(Baseline)) == (0, ())
    ready = watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    (baseline,) = store.records(Baseline)
    assert says(ready) == {"router/1": "in control"}
    assert (baseline.window_start, baseline.window_end) == (MONDAY, MONDAY + 2 * DAY)
    assert baseline.daily
    board = board_of(store, "router/1")
    assert board.opened_at == board.charted_until == baseline.window_end


def test_a_baseline_of_the_default_week_knows_the_weekend(store):
    fill(store, "router/1", MONDAY + timedelta(minutes=3), 7 * 24 + 2, per_hour=10)
    watch(store, WatchConfig(), now=MONDAY + 7 * DAY + 2 * HOUR)
    (baseline,) = store.records(Baseline)
    assert baseline.window_end - baseline.window_start == 7 * DAY
    assert baseline.weekly


def test_a_successor_is_compared_with_its_predecessor_from_its_first_batch(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    (baseline,) = store.records(Baseline)
    fill(store, "router/2", RELEASE, 3)
    report = watch(store, CONFIG, now=RELEASE + timedelta(minutes=1))
    assert says(report) == {"router/1": "in control", "router/2": "in control"}
    board = board_of(store, "router/2")  # stored before it has seen a whole batch
    assert (board.batches, board.baseline_id) == (0, baseline.id)
    assert board.opened_at == MONDAY + 3 * DAY
    watch(store, CONFIG, now=RELEASE + 2 * HOUR)
    assert board_of(store, "router/2").opened_at == MONDAY + 3 * DAY
    assert len(store.records(Baseline)) == 1


def test_a_successor_that_comes_early_takes_what_traffic_there_is(filled):
    week = CONFIG.model_copy(update={"baseline_days": 7.0})
    store = filled()
    assert says(watch(store, week, now=RELEASE)) == {"router/1": "no baseline"}
    fill(store, "router/2", RELEASE, 3)
    report = watch(store, week, now=RELEASE + HOUR)
    assert says(report)["router/2"] == "in control"
    (baseline,) = store.records(Baseline)
    assert (baseline.model_version, baseline.window_start) == ("router/1", MONDAY)
    assert baseline.window_end == MONDAY + 3 * DAY


def test_a_predecessor_of_a_few_hours_is_no_baseline(store):
    fill(store, "router/1", MONDAY, 20)
    fill(store, "router/2", MONDAY + 20 * HOUR, 5)
    report = watch(store, CONFIG, now=MONDAY + 25 * HOUR)
    assert says(report) == {"router/1": "no baseline", "router/2": "no baseline"}


@pytest.mark.slow
def test_a_predecessor_in_alarm_is_not_what_is_normal_for_its_successor(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    (baseline,) = store.records(Baseline)
    fill(store, "router/2", RELEASE, 30, regenerated=0.30)
    assert says(hourly(store, RELEASE, 30)[-1])["router/2"] == "alarm"
    third = RELEASE + 30 * HOUR
    fill(store, "router/3", third, 3, regenerated=0.30)
    assert says(watch(store, CONFIG, now=third + 3 * HOUR))["router/3"] == "alarm"
    assert board_of(store, "router/3").baseline_id == baseline.id


# Passes ------------------------------------------------------------------------------------------


def test_a_worse_version_is_found_dated_and_told_once_until_it_is_repaired(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    fill(store, "router/2", RELEASE, 12, regenerated=0.30)
    reports = hourly(store, RELEASE, 12)
    told = [event for report in reports for event in report.alerts]
    assert [event.change for event in told].count("opened") == 1
    assert len({event.alert_id for event in told}) == 1
    assert len(told) <= 3
    opened = told[0]
    assert (opened.kind, opened.signal) == ("board", "regenerated")
    assert opened.model_version == "router/2"
    assert opened.created_at <= RELEASE + 4 * HOUR
    assert abs(opened.since - RELEASE) <= timedelta(minutes=30)
    assert "roll back to router/1" in opened.action
    finding = reports[-1].verdicts[1].finding
    assert finding.lower <= 0.30 <= finding.upper
    assert finding.expected == pytest.approx(0.10, abs=0.03)

    repaired = RELEASE + 12 * HOUR
    fill(store, "router/2", repaired, 24)
    later = [event for report in hourly(store, repaired, 24) for event in report.alerts]
    assert [event.change for event in later if event.change != "updated"] == ["resolved"]
    assert {event.alert_id for event in later} == {opened.alert_id}


def test_evidence_that_wavers_about_the_threshold_neither_ends_nor_repeats_an_alarm(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    fill(store, "router/2", RELEASE, 5, regenerated=0.35)
    now = RELEASE + 5 * HOUR
    report = watch(store, CONFIG, now=now)
    board, evidence = board_of(store, "router/2"), report.verdicts[1].evidence

    def after(below, minutes):
        """Run a pass, within the same batch, with the evidence put so far below the threshold."""
        lower = board.log_threshold - below - evidence
        state = {"id": f"{below}", "log_statistics": tuple(x + lower for x in board.log_statistics)}
        store.append(board.model_copy(update=state))
        found = watch(store, CONFIG, now=now + timedelta(minutes=minutes))
        return says(found)["router/2"], [event.change for event in found.alerts]

    assert after(0.5, 1) == ("alarm", [])
    assert after(-0.5, 2) == ("alarm", [])
    assert after(MEMORY + 0.1, 3) == ("in control", ["resolved"])
    assert after(0.6, 4) == ("in control", [])
    assert after(-0.6, 5) == ("alarm", ["opened"])


@pytest.mark.slow
def test_trouble_does_not_enter_a_versions_own_baseline(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    fill(store, "router/2", RELEASE, 12, regenerated=0.40)
    hourly(store, RELEASE, 12)
    repaired = RELEASE + 12 * HOUR
    fill(store, "router/2", repaired, 72)
    assert says(hourly(store, repaired, 72)[-1])["router/2"] == "in control"
    (own,) = store.records(Baseline, subject="router/2")
    (resolved,) = [e for e in store.records(AlertEvent) if e.change == "resolved"]
    assert own.window_start >= resolved.created_at
    assert own.window_end - own.window_start == 2 * DAY


def test_many_passes_give_what_one_pass_gives(filled):
    often, once = filled(), filled()
    for store in (often, once):
        watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
        fill(store, "router/2", RELEASE, 10, regenerated=0.14)
    hourly(often, MONDAY + 2 * DAY, 24 + 10)
    watch(once, CONFIG, now=MONDAY + 3 * DAY + 10 * HOUR + READY)
    for version in ("router/1", "router/2"):
        first, second = board_of(often, version), board_of(once, version)
        assert (first.batches, first.charted_until) == (second.batches, second.charted_until)
        assert first.starts == second.starts
        assert first.log_statistics == pytest.approx(second.log_statistics, abs=1e-4)


def test_a_pass_that_dies_halfway_is_made_up_for(filled):
    killed, spared = filled(), filled()
    for store in (killed, spared):
        watch(store, CONFIG, now=MONDAY + 3 * DAY)
        fill(store, "router/2", RELEASE, 5, regenerated=0.35)
    now = RELEASE + 5 * HOUR

    def die(_version, _since):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(killed, CONFIG, now=now, about=die)
    assert killed.records(AlertEvent) == ()
    reports = [watch(store, CONFIG, now=now) for store in (killed, spared)]
    assert reports[0].alerts == reports[1].alerts != ()
    assert journal(killed) == journal(spared)


def test_the_same_pass_again_adds_nothing(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    fill(store, "router/2", RELEASE, 5, regenerated=0.35)
    first = watch(store, CONFIG, now=RELEASE + 5 * HOUR)
    before = journal(store)
    second = watch(store, CONFIG, now=RELEASE + 5 * HOUR)
    assert journal(store) == before
    assert (len(first.alerts), second.alerts) == (1, ())
    assert second.verdicts == first.verdicts


def test_a_pass_reads_what_is_new_however_long_the_history_is(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    end = MONDAY + 2 * DAY
    short = watch(store, CONFIG, now=end + HOUR + READY)
    new = store.signals(window(end, end + HOUR), lag=CONFIG.lag).num_rows
    assert short.interactions == new
    watch(store, CONFIG, now=end + 23 * HOUR + READY)
    long = watch(store, CONFIG, now=end + 24 * HOUR + READY)
    assert (
        long.interactions
        == store.signals(window(end + 23 * HOUR, end + 24 * HOUR), lag=CONFIG.lag).num_rows
    )
    assert watch(store, CONFIG, now=end + 24 * HOUR + READY).interactions == 0


def test_in_an_alarm_a_pass_reads_again_what_came_since_the_change_alone(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    answers = fill(store, "router/2", RELEASE, 8, regenerated=0.35)
    report = hourly(store, RELEASE, 8)[-1]
    assert says(report)["router/2"] == "alarm"
    assert report.interactions <= answers + PER_HOUR


def test_feedback_that_comes_after_the_pass_changes_nothing_that_was_charted(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    hourly(store, MONDAY + 2 * DAY, 3)
    before = board_of(store, "router/1")
    ids = store.interactions(window(MONDAY + 2 * DAY, MONDAY + 2 * DAY + HOUR))["id"].to_pylist()
    at = MONDAY + 2 * DAY + 4 * HOUR
    store.add_feedback([Copy(id=f"{key}-c", interaction_id=key, created_at=at) for key in ids])
    again = [Thumbs(id=f"{key}-l", interaction_id=key, created_at=at, value="down") for key in ids]
    store.add_feedback(again)
    watch(store, CONFIG, now=MONDAY + 2 * DAY + 3 * HOUR + READY)
    assert board_of(store, "router/1") == before


def test_a_version_without_answers_is_watched_no_more(filled):
    store = filled()
    config = CONFIG.model_copy(update={"active_days": 2.0})
    watch(store, config, now=MONDAY + 3 * DAY)
    assert watch(store, config, now=MONDAY + 6 * DAY).verdicts == ()


@pytest.mark.slow
def test_a_version_that_comes_back_after_two_months_is_not_an_alarm(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    back = MONDAY + 63 * DAY
    fill(store, "router/1", back, 3)
    assert says(watch(store, CONFIG, now=back + 3 * HOUR)) == {"router/1": "in control"}


@pytest.mark.slow
def test_an_acknowledged_alarm_stays_silent_though_other_versions_fill_the_journal(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    fill(store, "router/2", RELEASE, 8, regenerated=0.35)
    reports = hourly(store, RELEASE, 4)
    opened = next(event for report in reports for event in report.alerts)
    with store.atomic():
        for number in range(1_001):
            other = {"id": f"x{number}", "alert_id": f"y{number}", "model_version": "router/0"}
            store.append(opened.model_copy(update=other))
    later = [event for report in hourly(store, RELEASE + 4 * HOUR, 3) for event in report.alerts]
    assert {event.alert_id for event in later} <= {opened.alert_id}


# The last hour -----------------------------------------------------------------------------------


def test_recent_metrics_are_shares_of_the_last_ripe_hour(filled):
    store = filled()
    watch(store, CONFIG, now=MONDAY + 3 * DAY)
    end = MONDAY + 2.5 * DAY
    found, p99 = recent_metrics(store, CONFIG, "router/1", now=end + READY)
    metrics = {metric.name: metric for metric in found}
    table = store.signals(window(end - HOUR, end), lag=CONFIG.lag)
    regenerated = table["regenerate"].to_pylist()
    thumbs = [value for value in table["thumbs"].to_pylist() if value is not None]
    assert metrics["regenerate_rate"].value == sum(regenerated) / len(regenerated)
    assert metrics["thumbs_down_rate"].value == thumbs.count(0.0) / len(thumbs)
    assert metrics["thumbs_down_rate"].observations == len(thumbs)
    assert metrics["safety_violation_rate"].value is None
    assert p99 == pytest.approx(0.98, abs=0.011)  # latencies are 0.00 to 0.99, equally often


def test_a_signal_that_is_left_out_is_no_part_of_baseline_or_board(filled):
    store, names = filled(), ("slower_than_p99", "no_feedback")
    config = CONFIG.model_copy(update={"left_out": names})
    watch(store, config, now=MONDAY + 3 * DAY + READY)
    (baseline,) = store.records(Baseline)
    seen = {signal.name for signal in baseline.signals}
    assert not seen & set(names)
    assert {"slower_than_median", "thumbs_down"} <= seen


def test_a_signal_to_leave_out_must_be_one():
    with pytest.raises(ValueError, match="left_out must name signals, got \\['charm'\\]"):
        WatchConfig(left_out=("charm",))
