"""Expected values: closed forms, scipy's distributions, and a simulated CUSUM beside the bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts.yardsticks import (
    bernoulli_divergence,
    detection_delays,
    false_alarm_rate,
    lorden_bound,
    mean_run_length,
    summarise_delays,
)


def test_the_divergence_is_the_mean_log_likelihood_ratio():
    rate, baseline = 0.16, 0.08
    mean = stats.binom(1, rate).expect(
        lambda k: stats.binom.logpmf(k, 1, rate) - stats.binom.logpmf(k, 1, baseline)
    )
    assert_allclose(bernoulli_divergence(rate, baseline), mean)
    assert bernoulli_divergence(0.08, 0.08) == 0.0
    assert_allclose(bernoulli_divergence(0.0, 0.3), -math.log(0.7))


def test_the_bound_is_near_what_the_cusum_that_knows_both_rates_needs():
    # Lorden (1971): the CUSUM attains the bound to first order; its run length is at least e^h
    rng = np.random.default_rng(0)
    rate, shifted, run_length = 0.1, 0.2, 20_000.0
    steps = np.array([math.log((1 - shifted) / (1 - rate)), math.log(shifted / rate)])
    delays = []
    for _ in range(400):
        walk, time = 0.0, 0
        for bad in rng.random(5_000) < shifted:
            time += 1
            walk = max(0.0, walk + steps[int(bad)])
            if walk >= math.log(run_length):
                break
        delays.append(time)
    bound = lorden_bound(run_length, bernoulli_divergence(shifted, rate))
    assert 0.9 * bound < np.mean(delays) < 1.25 * bound


def test_a_change_that_was_not_found_has_an_infinite_delay_and_spoils_the_percentile():
    delays = detection_delays([5.0, float("nan"), 9.0], [1.0, 2.0, 3.0])
    assert delays.tolist() == [4.0, math.inf, 6.0]
    summary = summarise_delays(delays, limit=5.0)
    assert (summary.median, summary.percentile_95, summary.changes) == (6.0, math.inf, 3)
    assert_allclose(summary.found_within, 1 / 3)


def test_the_interval_of_a_false_alarm_rate_is_dual_to_the_poisson_tails():
    rate, interval = false_alarm_rate(7, 100.0)
    assert rate == 0.07
    assert_allclose(stats.poisson.sf(6, interval.lower * 100.0), 0.025)
    assert_allclose(stats.poisson.cdf(7, interval.upper * 100.0), 0.025)


def test_no_alarm_leaves_an_upper_limit_and_no_run_length():
    _, interval = false_alarm_rate(0, 10.0)
    assert interval.lower == 0.0
    assert_allclose(interval.upper, -math.log(0.025) / 10.0)
    with pytest.raises(InsufficientDataError, match="got none in 10"):
        mean_run_length(0, 10.0)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: bernoulli_divergence(8, 0.1), "pass shares"),
        (lambda: bernoulli_divergence(0.1, 0.0), "baseline in"),
        (lambda: lorden_bound(1.0, 0.1), "run_length must be above 1"),
        (lambda: lorden_bound(10.0, 0.0), "divergence above 0"),
        (lambda: detection_delays([1.0], [2.0]), "must not come before its change"),
        (lambda: detection_delays([1.0], [2.0, 3.0]), "equally long"),
        (lambda: false_alarm_rate(-1, 1.0), "alarms must be at least 0"),
    ],
)
def test_bad_input_is_one_clear_error(call, rule):
    with pytest.raises(InvalidInputError, match=rule):
        call()


def test_delays_need_a_change():
    with pytest.raises(InsufficientDataError, match="at least 1 change"):
        summarise_delays([], limit=1.0)
