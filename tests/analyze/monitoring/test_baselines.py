"""Expected values are the planted rates, closed forms, and error rates of many simulated boards."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ratchet.analyze.monitoring.baselines import (
    MINIMUM_TRIALS,
    alternatives,
    baseline_streams,
    expected_rates,
    freeze_baseline,
    hypotheses,
)
from ratchet.analyze.monitoring.batches import Observations
from ratchet.analyze.monitoring.board import Budget, advance, find, in_alarm, open_board
from ratchet.errors import InsufficientDataError
from ratchet.records import Baseline
from tests.analyze.monitoring.planted import (
    BATCH,
    DAY,
    RATES,
    SEGMENTS,
    START,
    TRIALS,
    draw,
    freeze,
    logit,
    moment,
)

SEEDS = 8


def seconds(batches, first=0):
    return START.timestamp() + BATCH * (first + np.arange(batches))


def wave(times, height=0.5):
    """One wave a day in log odds, shape (batches, 1, 1)."""
    return height * np.sin(2.0 * np.pi * times / 86_400.0)[:, None, None]


def weekend(times):
    days = ((times - START.timestamp()) // 86_400.0) % 7  # START is a Monday
    return (days >= 5)[:, None, None]


def watched(baseline, counts):
    board = open_board(
        baseline, model_version="router/2", start=moment(0) + timedelta(
            seconds=counts.starts[0] - START.timestamp()
        ), now=START, budget=Budget(),
    )  # fmt: skip
    return advance(board, baseline, counts, now=START)


def evidence(baseline, counts):
    return watched(baseline, counts).evidence


def test_rates_of_segments_are_recovered():
    changed = {("regenerated", "app"): 0.25, ("thumbs_down", "web"): 0.05}
    baseline = freeze(draw(np.random.default_rng(0), 14 * DAY, changed=changed))
    rates = expected_rates(baseline, seconds(DAY), caution=0.0).mean(axis=0)
    names = [signal.name for signal in baseline.signals]
    for name, place, rate in [
        ("regenerated", "app", 0.25), ("regenerated", "web", 0.10),
        ("thumbs_down", "web", 0.05), ("thumbs_down", "app", 0.08),
    ]:  # fmt: skip
        share = {"web": 0.6, "app": 0.4}[place]
        error = np.sqrt(rate * (1 - rate) / (14 * DAY * TRIALS[name] * share))
        assert abs(rates[names.index(name), SEGMENTS.index(place)] - rate) < 4 * error, name


def test_a_daily_wave_and_a_weekend_are_recovered():
    times = seconds(28 * DAY)
    planted = wave(times) + 0.4 * weekend(times)
    baseline = freeze(draw(np.random.default_rng(1), times.size, offsets=planted))
    later = seconds(7 * DAY, first=28 * DAY)
    position = [s.name for s in baseline.signals].index("not_copied")
    found = logit(expected_rates(baseline, later, caution=0.0)[:, position, 0])
    truth = logit(RATES["not_copied"]) + (wave(later) + 0.4 * weekend(later))[:, 0, 0]
    # 28 days of 60 trials a batch; 7 coefficients: the largest error stays within 5 of theirs
    worst = np.sqrt(7 / (28 * DAY * 60 * 0.24) * 3.5)
    assert np.abs(found - truth).max() < 5 * worst


def test_caution_lies_above_the_expectation_by_as_much_as_is_not_known():
    short = freeze(draw(np.random.default_rng(2), 7 * DAY))
    long = freeze(draw(np.random.default_rng(2), 28 * DAY))
    gaps = []
    for baseline in (short, long):
        at = seconds(1)
        gap = logit(expected_rates(baseline, at)) - logit(expected_rates(baseline, at, caution=0.0))
        gaps.append(gap[0, :, 0])
    assert (gaps[0] > 0.0).all()
    assert_allclose(gaps[0] / gaps[1], 2.0, rtol=0.35)  # standard errors go with 1 / sqrt(n)


@pytest.mark.parametrize(
    ("days", "daily", "weekly"),
    [(1, False, False), (2, True, False), (6, True, False), (7, True, True)],
)
def test_cycles_are_fitted_where_the_window_can_show_them(days, daily, weekly):
    baseline = freeze(draw(np.random.default_rng(3), days * DAY))
    assert (baseline.daily, baseline.weekly) == (daily, weekly)
    columns = 1 + 4 * daily + weekly + len(SEGMENTS) - 1
    assert {len(s.coefficients) for s in baseline.signals} == {columns}


def test_a_baseline_from_json_expects_the_same():
    baseline = freeze(draw(np.random.default_rng(4), 7 * DAY))
    again = Baseline.model_validate_json(baseline.model_dump_json())
    assert again == baseline
    assert_array_equal(expected_rates(again, seconds(50)), expected_rates(baseline, seconds(50)))


def test_a_baseline_from_interactions_keeps_segments_and_cut_offs():
    rng = np.random.default_rng(5)
    size = 40_000
    latency = rng.exponential(1.0, size)
    seen = Observations(
        START.timestamp() + rng.uniform(0.0, 7 * 86_400.0, size),
        rng.choice(np.array(["web", "app"], dtype=object), size, p=[0.7, 0.3]),
        {"slower_than_median": latency, "slower_than_p99": latency, "failed": np.zeros(size)},
    )
    baseline = freeze_baseline(
        seen, model_version="router/1", start=START, end=moment(7 * DAY), now=moment(7 * DAY)
    )
    assert baseline.segments == ("web", "app", "other")
    cuts = {s.name: s.cut_off for s in baseline.signals}
    # quantiles of an exponential, within 4 standard errors sqrt(q (1 - q) / n) / density
    for name, q in (("slower_than_median", 0.5), ("slower_than_p99", 0.99)):
        error = np.sqrt(q * (1 - q) / size) / (1 - q)
        assert cuts[name] == pytest.approx(-np.log(1 - q), abs=4 * error)
    assert cuts["failed"] is None


def test_a_signal_seen_too_rarely_is_left_out_and_none_at_all_is_an_error():
    few = TRIALS | {"thumbs_down": 0.02}
    baseline = freeze(draw(np.random.default_rng(6), 7 * DAY, trials=few))
    assert "thumbs_down" not in [s.name for s in baseline.signals]
    nothing = draw(np.random.default_rng(6), 7 * DAY, trials=dict.fromkeys(TRIALS, 0.01))
    with pytest.raises(InsufficientDataError, match=f"at least {MINIMUM_TRIALS} observations"):
        freeze(nothing)


def test_weights_sum_to_one_whatever_was_observed():
    for names in (["failed"], ["thumbs_down", "regenerated"], list(RATES)):
        rates = {name: RATES[name] for name in names}
        stated = alternatives(freeze(draw(np.random.default_rng(7), 7 * DAY, rates=rates)))
        assert stated.weights.sum() == pytest.approx(1.0)


def test_one_segment_is_watched_as_the_whole_and_several_also_one_by_one():
    alone = freeze(draw(np.random.default_rng(8), 7 * DAY, segments=("all", "other"), mix=(1, 0)))
    assert {item.segment for item in hypotheses(alone)} == {None}
    several = freeze(draw(np.random.default_rng(8), 7 * DAY))
    assert {item.segment for item in hypotheses(several)} == {None, *SEGMENTS}


# What is not a change ----------------------------------------------------------------------------


def alarms(make):
    """Count boards among SEEDS that alarm in what `make(rng)` returns: baseline and counts."""
    found = 0
    for seed in range(SEEDS):
        baseline, counts = make(np.random.default_rng([9, seed]))
        found += int(evidence(baseline, counts).max() >= Budget().limit(BATCH).log_threshold)
    return found


# A board alarms falsely once in 30 days at most: in 8 times 3 days 0.8 alarms are expected at the
# bound, and more than 4 have a Poisson probability of 0.1 %.
BOUND = 4


@pytest.mark.slow
def test_a_shift_of_traffic_between_segments_is_not_a_change():
    changed = {("regenerated", "app"): 0.30, ("thumbs_down", "app"): 0.20}

    def make(rng):
        baseline = freeze(draw(rng, 7 * DAY, changed=changed))
        return baseline, draw(rng, 3 * DAY, first=7 * DAY, changed=changed, mix=(0.1, 0.9, 0.0))

    assert alarms(make) <= BOUND


def test_a_daily_cycle_and_a_weekend_are_not_a_change():
    def make(rng):
        times = seconds(14 * DAY)
        cycle = wave(times) + 0.4 * weekend(times)
        baseline = freeze(draw(rng, 14 * DAY, offsets=cycle, traffic=np.exp(wave(times))))
        first = 14 * DAY + 4 * DAY  # Friday to Sunday
        later = seconds(3 * DAY, first=first)
        cycle = wave(later) + 0.4 * weekend(later)
        return baseline, draw(rng, 3 * DAY, first=first, offsets=cycle, traffic=np.exp(wave(later)))

    assert alarms(make) <= BOUND


def test_a_change_in_one_segment_is_found_and_named_with_it():
    named = []
    for seed in range(SEEDS):
        rng = np.random.default_rng([10, seed])
        baseline = freeze(draw(rng, 7 * DAY))
        worse = {("regenerated", "app"): 0.25}
        after = draw(rng, DAY // 2, first=7 * DAY, changed=worse)
        state = watched(baseline, after).state
        assert in_alarm(state, baseline)
        finding = find(state, baseline, after)
        named.append((finding.signal, finding.segment))
    assert named.count(("regenerated", "app")) >= SEEDS - 1


def test_a_signal_that_was_not_observed_costs_nothing():
    """Weights are scaled to what there is: the same as if the other signals did not exist."""
    rng = np.random.default_rng(11)
    before, after = draw(rng, 7 * DAY), draw(rng, 50, first=7 * DAY)
    names = ("regenerated", "failed")
    positions = [before.signals.index(name) for name in names]
    reduced = [
        type(c)(c.starts, c.segments, names, c.events[:, positions], c.trials[:, positions])
        for c in (before, after)
    ]
    emptied = before.trials.copy()
    emptied[:, [i for i in range(emptied.shape[1]) if i not in positions]] = 0
    hollow = type(before)(
        before.starts, before.segments, before.signals, np.minimum(before.events, emptied), emptied
    )
    few, same = freeze(reduced[0]), freeze(hollow)
    assert few.signals == same.signals
    assert_array_equal(evidence(few, reduced[1]), evidence(same, after))


def test_a_segment_that_the_baseline_never_saw_hides_nothing():
    rng = np.random.default_rng(12)
    baseline = freeze(draw(rng, 7 * DAY))
    worse = {("regenerated", None): 0.16}
    mixed = draw(rng, 60, first=7 * DAY, changed=worse, mix=(0.48, 0.32, 0.2))
    _, trials = baseline_streams(baseline, mixed)
    by_segment = trials.reshape(60, -1, 3)
    common = [s.name for s in baseline.signals].index("regenerated")
    assert by_segment[:, common, 2].sum() == 0 < mixed.trials[:, :, 2].sum()
    passed = watched(baseline, mixed)
    assert in_alarm(passed.state, baseline)
    finding = find(passed.state, baseline, mixed)
    assert (finding.signal, finding.segment) == ("regenerated", None)
    assert finding.expected == pytest.approx(RATES["regenerated"], rel=0.1)


def test_what_never_happened_in_the_baseline_raises_an_alarm_when_it_does():
    rng = np.random.default_rng(13)
    rates, trials = RATES | {"unsafe": 1e-12}, TRIALS | {"unsafe": 100.0}
    baseline = freeze(draw(rng, 7 * DAY, rates=rates, trials=trials))
    signal = next(s for s in baseline.signals if s.name == "unsafe")
    assert (signal.events, signal.trials > 100_000) == (0, True)
    after = draw(
        rng, 24, first=7 * DAY, rates=rates, trials=trials, changed={("unsafe", None): 0.01}
    )
    passed = watched(baseline, after)
    assert in_alarm(passed.state, baseline)
    assert find(passed.state, baseline, after).signal == "unsafe"


# Tempers -----------------------------------------------------------------------------------------


def test_tempers_are_near_one_for_independent_trials():
    baseline = freeze(draw(np.random.default_rng(14), 28 * DAY))
    tempers = np.array(baseline.tempers)
    # the smaller of two powers, each with a relative error of about sqrt(2 / blocks)
    assert tempers.min() > 1.0 - 5 * np.sqrt(2.0 / (28 * 24))
    assert np.median(tempers) > 0.9


def test_tempers_are_below_one_for_users_who_repeat():
    """Each user gives three answers of the same kind in a batch: three times the variance."""
    rng = np.random.default_rng(15)
    counts = draw(rng, 28 * DAY, trials={name: n / 3 for name, n in TRIALS.items()})
    tripled = type(counts)(
        counts.starts, counts.segments, counts.signals, 3 * counts.events, 3 * counts.trials
    )
    tempers = np.array(freeze(tripled).tempers)
    heard = (alternatives(freeze(tripled)).shifts.reshape(tempers.size, -1, 3)[:, :, :2] > 0).any(
        axis=(1, 2)
    )
    assert_allclose(tempers[heard], 1.0 / 3.0, rtol=5 * np.sqrt(2.0 / (28 * 24)))


def test_a_short_baseline_is_tempered_by_its_dispersion():
    baseline = freeze(draw(np.random.default_rng(16), DAY))
    worst = max(signal.dispersion for signal in baseline.signals)
    assert_allclose(baseline.tempers, 1.0 / worst)
