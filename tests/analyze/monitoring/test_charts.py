from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from ratchet.analyze.monitoring.charts import (
    MOST_PANELS,
    Readings,
    chart_every_signal,
    chart_signal,
    charted_signals,
    find_signal,
    read_window,
)
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import JudgeScore
from ratchet.store import EventStore, Window
from tests.analyze.monitoring import charted_store
from tests.analyze.monitoring.charted_store import A_DAY, DAYS, NEW, OLD, RELEASED, START, WINDOW


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("charts")
    store = charted_store.fill(EventStore.open(f"sqlite:///{folder / 'store.db'}"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def readings(filled):
    return read_window(filled, WINDOW)


def chart(readings, name, **options):
    return chart_signal(readings, find_signal(name), **options)


# Signals ------------------------------------------------------------------------------------------


def test_every_metric_of_the_analysis_can_be_charted_and_has_the_same_value(filled, readings):
    weights = QualityWeights()
    outcomes = join_feedback(filled.interactions(WINDOW), filled.feedback(WINDOW))
    metrics = experience_metrics(outcomes, quality(outcomes, weights))
    signals = {signal.name: signal for signal in charted_signals()}
    assert {metric.name for metric in metrics} <= set(signals)
    observed = [metric for metric in metrics if metric.value is not None]
    assert len(observed) >= 9
    for metric in observed:
        signal = signals[metric.name]
        values = signal.values(readings.columns)
        seen = values[~np.isnan(values)]
        assert seen.size == metric.observations
        quantile = signal.quantile if metric.name.startswith("latency") else None
        summed = seen.mean() if quantile is None else np.quantile(seen, quantile)
        assert summed == pytest.approx(metric.value), metric.name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("thumbs_down_rate", "thumbs_down_rate"),
        ("thumbs-down", "thumbs_down_rate"),
        (" Judge Score", "judge_score"),
        ("quality", "quality"),
        ("implicit", "implicit_quality"),
        ("session-sec", "session_seconds"),
    ],
)
def test_a_signal_is_found_by_its_name_or_the_start_of_it(written, name):
    assert find_signal(written).name == name


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("regenrate", "regenerate_rate"),
        ("laten", "latency_seconds_p50 or latency_seconds_p99"),
        ("co", "correction_rate or copy_rate or completion_rate or conversation_turns or cost"),
        ("qualty", "quality"),
    ],
)
def test_an_unknown_signal_names_the_nearest_and_lists_all(written, near):
    with pytest.raises(InvalidInputError) as refused:
        find_signal(written)
    assert f"did you mean {near}?" in str(refused.value)
    assert all(signal.name in str(refused.value) for signal in charted_signals())


def test_an_empty_name_is_no_start_of_any_signal():
    with pytest.raises(InvalidInputError, match="got ''"):
        find_signal("")


# Points -------------------------------------------------------------------------------------------


def test_a_point_a_day_holds_the_days_counts(readings):
    report = chart(readings, "thumbs-down", by="day")
    (item,) = report.charts
    assert (report.span, item.value, item.left_out) == ("day", "all", 0)
    assert item.sizes.tolist() == [A_DAY] * DAYS
    days = [START.replace(tzinfo=None) + timedelta(days=day) for day in range(DAYS)]
    assert item.starts.astype(datetime).tolist() == days
    shares = [charted_store.thumbs_down(day) / A_DAY for day in range(DAYS)]
    assert item.design.values == pytest.approx(shares)


def test_hours_with_too_few_observations_are_left_out_and_counted(readings):
    with pytest.raises(InsufficientDataError) as refused:
        chart(readings, "copy", by="hour")  # two answers an hour
    assert "at least 8 hours of 20 observations or more, got 0" in str(refused.value)
    assert f"{DAYS * A_DAY} observations" in str(refused.value)


def test_a_day_that_is_not_over_is_left_out_where_it_holds_too_little(filled):
    end = START + timedelta(days=9, hours=5)
    (item,) = chart(read_window(filled, Window(START, end)), "copy", by="day").charts
    assert (item.sizes.size, item.left_out) == (9, 1)  # the tenth day holds ten


def test_points_of_equal_size_share_out_all_observations(readings):
    (item,) = chart(readings, "copy", span="equal").charts
    assert item.sizes.sum() == DAYS * A_DAY
    assert np.ptp(item.sizes) <= 1
    assert item.sizes.size == 20


@pytest.mark.parametrize(("days", "span"), [(6, "hour"), (7, "hour"), (8, "day"), (300, "day")])
def test_points_are_hours_up_to_a_week_and_days_above(days, span):
    times = np.datetime64("2026-01-01", "us") + np.linspace(0, days * 86_400e6, 20_000).astype("m8")
    rng = np.random.default_rng(0)
    yes = rng.integers(0, 2, times.size).astype(float)
    everywhere = np.full(times.size, "a", dtype=object)
    groups = {"version": everywhere, "segment": everywhere}
    readings = Readings(times.astype("M8[us]"), groups, {"copy": yes}, ())
    assert chart(readings, "copy").span == span


def test_medians_are_charted_for_lengths_of_time(readings):
    (item,) = chart(readings, "latency_seconds_p50", by="day").charts
    # seconds of day 0: 1.000, 1.001, ..., 1.047
    assert item.design.values[0] == pytest.approx(1.0235)
    assert item.design.kind == "xmr"


def test_a_percentile_needs_a_hundred_observations_a_point(readings):
    with pytest.raises(InsufficientDataError, match="days of 100 observations"):
        chart(readings, "latency_seconds_p99", by="day")


# Limits and what is signalled ---------------------------------------------------------------------


def test_the_baseline_ends_where_a_release_begins_and_the_release_is_signalled(readings):
    (item,) = chart(readings, "thumbs-down", by="day").charts
    assert item.design.kind == "laney-p"
    assert item.design.baseline_points == RELEASED
    assert [alarm.index for alarm in item.design.alarms] == [20, 21, 22, 23, 24]
    assert {alarm.since for alarm in item.design.alarms} == {RELEASED}
    assert item.design.baseline.center == pytest.approx(
        np.mean([charted_store.thumbs_down(day) for day in range(RELEASED)]) / A_DAY
    )


def test_releases_within_the_time_are_told(readings, filled):
    told = [(name, (at - START).days) for at, name in chart(readings, "copy").releases]
    assert told == [(OLD, 0), (NEW, 20), (f"back to {OLD}", 25)]
    early = read_window(filled, Window(START, START + timedelta(days=20)))
    assert [name for _, name in early.releases] == [OLD]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("thumbs-down", "laney-p"), ("correction", "p"), ("latency_seconds_p50", "xmr"),
     ("implicit", "ewma"), ("quality", "ewma"), ("answer_characters", "xmr")],
)  # fmt: skip
def test_each_signal_gets_the_chart_that_suits_it(readings, name, kind):
    assert chart(readings, name, by="day").charts[0].design.kind == kind


def test_the_wanted_chart_run_length_and_baseline_are_taken(readings):
    (item,) = chart(
        readings, "thumbs-down", by="day", kind="cusum", run_length=90.0, baseline=18
    ).charts
    made = item.design
    assert (made.kind, made.run_length, made.baseline_points) == ("cusum", 90.0, 18)
    (longer,) = chart(readings, "thumbs-down", by="day", kind="cusum", baseline=18).charts
    assert longer.design.limit > made.limit


@pytest.mark.parametrize("kind", ["p", "laney-p", "u"])
def test_a_chart_of_counts_is_refused_for_a_value(readings, kind):
    with pytest.raises(InvalidInputError, match=f"are for shares, got {kind} for quality in score"):
        chart(readings, "quality", by="day", kind=kind)


# By version and by segment ------------------------------------------------------------------------


def test_each_segment_has_its_own_chart(readings):
    report = chart(readings, "copy", by="segment")
    assert [item.value for item in report.charts] == ["app", "web"]
    assert {item.sizes.sum() for item in report.charts} == {DAYS * A_DAY // 2}
    assert report.by == "segment"


def test_a_version_with_too_few_days_is_named_with_what_is_missing(readings):
    report = chart(readings, "copy", by="version")
    (item,) = report.charts
    assert item.value == OLD
    assert item.design.baseline_points == 25  # all of its days: 12 would be too few
    assert f"of {NEW} needs at least 8 days" in report.not_charted[NEW]


def test_to_one_version_alone_a_release_is_no_change(filled):
    window = Window(START, START + timedelta(days=DAYS), OLD)
    (item,) = chart(read_window(filled, window), "copy", by="day").charts
    assert item.design.baseline_points == 25


def test_no_more_than_eight_are_drawn_and_the_others_are_named(readings):
    many = np.array([f"s{n % 10}" for n in range(readings.times.size)], dtype=object)
    wider = replace(readings, groups={**readings.groups, "segment": many})
    report = chart_signal(wider, replace(find_signal("copy"), fewest=4), by="segment")
    assert len(report.charts) == MOST_PANELS
    assert sorted(report.not_charted) == ["s8", "s9"]


# All of them --------------------------------------------------------------------------------------


def test_every_signal_with_enough_data_is_charted_and_the_others_say_why(readings):
    reports, reasons = chart_every_signal(readings)
    charted = [report.signal.name for report in reports]
    assert {"thumbs_down_rate", "copy_rate", "latency_seconds_p99", "quality"} <= set(charted)
    assert set(charted) | set(reasons) == {signal.name for signal in charted_signals()}
    assert set(charted) & set(reasons) == set()
    assert "judge_score needs at least 8 groups" in reasons["judge_score"]
    assert "neither 0 nor 1" in reasons["error_rate"]


def test_an_empty_window_charts_nothing_and_says_so(store):
    reports, reasons = chart_every_signal(read_window(store, WINDOW))
    assert reports == ()
    assert len(reasons) == len(charted_signals())


def test_scores_of_a_judge_that_was_never_validated_are_not_charted(filled):
    about = {"interaction_id": "0-0", "created_at": START}
    score = JudgeScore(id="j1", value=0.5, judge_version="never@1", **about)
    assert filled.add_feedback([score]).new == 1
    assert np.isnan(read_window(filled, WINDOW).columns["judge_score"]).all()
