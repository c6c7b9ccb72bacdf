"""Intervals given that a rate was high enough to be reported."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.intervals import clopper_pearson
from ratchet.stats.intervals.selected import selected_proportion


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_without_a_threshold_it_is_clopper_and_pearson(counts):
    interval, known = selected_proportion(*counts, threshold=0), clopper_pearson(*counts)
    assert interval.lower == pytest.approx(known.lower, abs=1e-9)
    assert interval.upper == pytest.approx(known.upper, abs=1e-9)


@pytest.mark.parametrize(("trials", "threshold"), [(20, 8), (40, 30), (5, 3)])
def test_given_that_it_is_reported_it_covers_every_rate(trials, threshold):
    counts = np.arange(threshold, trials + 1)
    intervals = [selected_proportion(int(k), trials, threshold=threshold) for k in counts]
    for rate in np.linspace(0.01, 0.99, 99):
        chances = stats.binom.pmf(counts, trials, rate)
        covers = [rate in interval for interval in intervals]
        assert chances[covers].sum() / chances.sum() >= 0.95 - 1e-9


def test_its_ends_are_where_the_conditional_tails_are_half_of_what_is_left():
    interval = selected_proportion(12, 20, threshold=8)
    above = stats.binom(20, interval.lower)
    assert above.sf(11) / above.sf(7) == pytest.approx(0.025)
    below = stats.binom(20, interval.upper)
    assert (below.cdf(12) - below.cdf(7)) / below.sf(7) == pytest.approx(0.025)


def test_right_at_the_threshold_nothing_bounds_the_rate_from_below():
    assert selected_proportion(8, 20, threshold=8).lower == 0.0


@pytest.mark.parametrize(("trials", "threshold"), [(10_000, 5_000), (600_000, 300_000)])
def test_one_over_the_threshold_says_as_little_where_floats_underflow(trials, threshold):
    # Far below the threshold each further success is r times as probable as the one before, with
    # r = (n - c) / (c + 1) p / (1 - p), so P(X > c | X >= c) is nearly r; it is 2.5 % at p = 0.0244
    interval = selected_proportion(threshold + 1, trials, threshold=threshold)
    odds = 0.025 * (threshold + 1) / (trials - threshold)
    assert interval.lower == pytest.approx(odds / (1 + odds), rel=1e-3)


@pytest.mark.parametrize("beyond", [2, 10, 40, 200])
def test_lower_ends_agree_with_sums_of_logarithms(beyond):
    trials, threshold = 2_000, 1_000
    interval = selected_proportion(threshold + beyond, trials, threshold=threshold)
    logs = stats.binom(trials, interval.lower).logpmf(np.arange(threshold, trials + 1))
    terms = np.exp(logs - logs.max())
    assert terms[beyond:].sum() / terms.sum() == pytest.approx(0.025, rel=1e-6)


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.integers(0, n).flatmap(
            lambda k: st.tuples(st.just(k), st.just(n), st.integers(0, k))
        )
    )
)
def test_it_holds_the_observed_rate_and_reaches_lower_than_without_selection(counts):
    successes, trials, threshold = counts
    interval = selected_proportion(successes, trials, threshold=threshold)
    assert successes / trials in interval
    assert interval.lower <= clopper_pearson(successes, trials).lower + 1e-9


@pytest.mark.parametrize("bad", [(3, 10, 4), (11, 10, 4), (3, 10, -1), (0, 0, 0)])
def test_counts_out_of_order_are_refused(bad):
    with pytest.raises(InvalidInputError, match="threshold <= successes"):
        selected_proportion(bad[0], bad[1], threshold=bad[2])
