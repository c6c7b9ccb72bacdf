import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.intervals import (
    clopper_pearson,
    mean_interval,
    newcombe_paired,
    quantile_interval,
    wilson,
    wilson_lower,
)

counts = st.integers(1, 2_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
cells = st.tuples(*[st.integers(0, 60)] * 4).filter(any)
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [
        # Newcombe (1998), Statistics in Medicine 17, 857-872, Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_table(successes, trials, lower, upper):
    interval = wilson(successes, trials)
    assert (round(interval.lower, 4), round(interval.upper, 4)) == (lower, upper)


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [
        # the same table, method 5
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearson_gives_newcombes_table(successes, trials, lower, upper):
    interval = clopper_pearson(successes, trials)
    assert (round(interval.lower, 4), round(interval.upper, 4)) == (lower, upper)


@given(counts, levels)
def test_proportion_intervals_agree_with_scipy(count, level):
    successes, trials = count
    test = stats.binomtest(successes, trials)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(level, method)
        interval = ours(successes, trials, level=level)
        assert interval.lower == pytest.approx(theirs.low, abs=1e-9)
        assert interval.upper == pytest.approx(theirs.high, abs=1e-9)


@given(counts, levels)
def test_proportion_intervals_contain_the_observed_share_and_stay_in_range(count, level):
    successes, trials = count
    for interval in (
        wilson(successes, trials, level=level),
        clopper_pearson(successes, trials, level=level),
    ):
        assert successes / trials in interval
        assert 0.0 <= interval.lower < interval.upper <= 1.0


@given(counts)
def test_proportion_intervals_mirror_when_successes_and_failures_swap(count):
    successes, trials = count
    for interval_of in (wilson, clopper_pearson):
        one, other = interval_of(successes, trials), interval_of(trials - successes, trials)
        assert one.lower == pytest.approx(1.0 - other.upper, abs=1e-12)


@given(counts, st.floats(0.01, 0.99))
def test_wilson_excludes_a_rate_exactly_when_the_score_test_rejects_it(count, rate):
    successes, trials = count
    z = abs(successes / trials - rate) / math.sqrt(rate * (1 - rate) / trials)
    critical = stats.norm.isf(0.025)
    if abs(z - critical) > 1e-6:
        assert (rate not in wilson(successes, trials)) == (z > critical)


@given(counts, st.floats(0.01, 0.99))
def test_clopper_pearson_excludes_a_rate_exactly_when_a_tail_is_below_half_alpha(count, rate):
    successes, trials = count
    tails = (
        stats.binom.cdf(successes, trials, rate),
        stats.binom.sf(successes - 1, trials, rate),
    )
    if abs(min(tails) - 0.025) > 1e-9:
        assert (rate not in clopper_pearson(successes, trials)) == (min(tails) < 0.025)


@given(counts)
def test_the_one_sided_bound_is_the_lower_end_of_the_two_sided_interval_at_twice_alpha(count):
    successes, trials = count
    two_sided = wilson(successes, trials, level=0.90)
    assert wilson_lower(successes, trials, alpha=0.05) == pytest.approx(two_sided.lower, abs=1e-12)


def coverage(interval_of, trials, rates):
    """Exact coverage at each rate, by summing over all possible outcomes."""
    intervals = [interval_of(k, trials) for k in range(trials + 1)]
    lower = np.array([i.lower for i in intervals])[:, np.newaxis]
    upper = np.array([i.upper for i in intervals])[:, np.newaxis]
    chance = stats.binom.pmf(np.arange(trials + 1)[:, np.newaxis], trials, rates)
    return (chance * ((lower <= rates) & (rates <= upper))).sum(axis=0)


@pytest.mark.parametrize("trials", [10, 30, 120])
def test_wilson_covers_at_its_level_on_average_by_exact_enumeration(trials):
    rates = np.linspace(0.0005, 0.9995, 1999)
    covered = coverage(wilson, trials, rates)
    assert covered.mean() == pytest.approx(0.95, abs=0.01)
    assert covered.min() > 0.83  # as documented: it dips near 0 and 1
    assert covered[(rates > 0.1) & (rates < 0.9)].min() > 0.91


@pytest.mark.parametrize("trials", [10, 30, 120])
def test_clopper_pearson_covers_at_least_at_its_level_everywhere(trials):
    rates = np.linspace(0.0005, 0.9995, 1999)
    assert coverage(clopper_pearson, trials, rates).min() >= 0.95


@pytest.mark.parametrize(
    ("rate", "fewest", "worst"),
    [
        (0.15, 30, 0.083),
        (0.25, 30, 0.083),
        (0.20, 50, 0.083),
        (0.35, 50, 0.083),
        (0.001, 1000, 0.11),
    ],
)
def test_the_one_sided_bound_errs_no_more_than_documented_at_the_alert_thresholds(
    rate, fewest, worst
):
    for trials in (*range(fewest, fewest + 60), 2 * fewest, 5 * fewest):
        chance = stats.binom.pmf(np.arange(trials + 1), trials, rate)
        wrong = sum(
            chance[k]
            for k in range(trials + 1)
            if chance[k] > 1e-12 and wilson_lower(k, trials) > rate
        )
        assert wrong <= worst


@pytest.mark.parametrize(
    ("table", "lower", "upper"),
    [
        # Altman et al. (2000), Statistics with Confidence, 2nd ed., p. 52; signs turned
        ((14, 5, 0, 22), -0.226, -0.011),
        # Fagerland, Lydersen, Laake (2014), Statistics in Medicine 33, Bentur's data
        ((1, 1, 7, 12), 0.026, 0.507),
        # R package contingencytables, tests of chapter 8, Cavo's data
        ((59, 6, 16, 80), 0.0046, 0.1186),
    ],
)
def test_newcombe_gives_published_intervals(table, lower, upper):
    digits = len(str(upper).split(".")[1])
    interval = newcombe_paired(*table)
    assert (round(interval.lower, digits), round(interval.upper, digits)) == (lower, upper)


@given(cells, levels)
def test_newcombe_contains_the_observed_difference_and_stays_in_range(table, level):
    _, only_first, only_second, _ = table
    interval = newcombe_paired(*table, level=level)
    assert (only_second - only_first) / sum(table) in interval
    assert -1.0 <= interval.lower <= interval.upper <= 1.0


@given(cells)
def test_newcombe_changes_sign_when_first_and_second_swap(table):
    both, only_first, only_second, neither = table
    one = newcombe_paired(both, only_first, only_second, neither)
    other = newcombe_paired(both, only_second, only_first, neither)
    assert one.lower == pytest.approx(-other.upper, abs=1e-12)
    assert one.upper == pytest.approx(-other.lower, abs=1e-12)


@given(cells)
def test_newcombe_changes_sign_when_success_and_failure_swap(table):
    both, only_first, only_second, neither = table
    one = newcombe_paired(both, only_first, only_second, neither)
    other = newcombe_paired(neither, only_second, only_first, both)
    assert one.lower == pytest.approx(-other.upper, abs=1e-12)
    assert one.upper == pytest.approx(-other.lower, abs=1e-12)


def test_newcombe_of_two_systems_that_never_differ_still_has_width():
    interval = newcombe_paired(60, 0, 0, 60)
    assert interval.lower < 0.0 < interval.upper


@pytest.mark.parametrize(
    "shares", [(0.60, 0.10, 0.20, 0.10), (0.30, 0.10, 0.10, 0.50), (0.85, 0.02, 0.08, 0.05)]
)
def test_newcombe_covers_near_its_level_by_exact_enumeration(shares):
    pairs, covered = 20, 0.0
    truth = shares[2] - shares[1]
    for both in range(pairs + 1):
        for first in range(pairs + 1 - both):
            for second in range(pairs + 1 - both - first):
                table = (both, first, second, pairs - both - first - second)
                if truth in newcombe_paired(*table):
                    covered += stats.multinomial.pmf(table, pairs, shares)
    assert covered > 0.93  # as documented: near the level, wider where few pairs differ


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50), levels)
def test_the_mean_interval_agrees_with_scipy(values, level):
    interval = mean_interval(values, level=level)
    error = stats.sem(values)
    if error > 1e-6:
        low, high = stats.t.interval(level, len(values) - 1, np.mean(values), error)
        assert interval.lower == pytest.approx(low, rel=1e-9, abs=1e-6)
        assert interval.upper == pytest.approx(high, rel=1e-9, abs=1e-6)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_the_mean_interval_does_not_depend_on_the_order(values, random):
    shuffled = random.sample(values, len(values))
    one, other = mean_interval(values), mean_interval(shuffled)
    assert one.lower == pytest.approx(other.lower, abs=1e-9)
    assert one.upper == pytest.approx(other.upper, abs=1e-9)


@pytest.mark.parametrize(("quantile", "enough"), [(0.5, 6), (0.99, 368)])
def test_the_quantile_interval_needs_as_many_values_as_the_closed_form_says(quantile, enough):
    # both ends exist once q^n <= 0.025 (and (1-q)^n, which is smaller for q >= 1/2)
    assert enough == math.ceil(math.log(0.025) / math.log(quantile))
    quantile_interval(list(range(enough)), quantile)
    with pytest.raises(InsufficientDataError, match="too few"):
        quantile_interval(list(range(enough - 1)), quantile)


@pytest.mark.parametrize(("size", "quantile"), [(10, 0.5), (25, 0.5), (60, 0.9), (400, 0.99)])
def test_the_quantile_interval_covers_at_least_at_its_level(size, quantile):
    # of the uniform values 0..n-1 the interval returns the ranks themselves
    interval = quantile_interval(list(range(size)), quantile)
    # P(X_(l) <= x_q <= X_(u)) = P(l <= Bin(n, q) <= u - 1) with 1-based ranks
    covered = stats.binom.cdf(interval.upper, size, quantile) - stats.binom.cdf(
        interval.lower, size, quantile
    )
    assert covered >= 0.95


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: wilson(0, 0), "at least 1 trial"),
        (lambda: wilson_lower(0, 0), "at least 1 trial"),
        (lambda: clopper_pearson(0, 0), "at least 1 trial"),
        (lambda: newcombe_paired(0, 0, 0, 0), "at least 1 trial"),
        (lambda: mean_interval([1.0]), "at least 2 values"),
        (lambda: mean_interval([]), "at least 2 values"),
        (lambda: quantile_interval([], 0.5), "too few"),
    ],
)
def test_too_little_data_is_an_error_and_never_a_number(call, words):
    with pytest.raises(InsufficientDataError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: wilson(3, 2), "must not exceed trials, got 3 of 2"),
        (lambda: wilson(-1, 2), "must not be negative, got -1"),
        (lambda: wilson(0.5, 2), "whole number, got 0.5"),
        (lambda: wilson(1, 2, level=95), r"in \(0, 1\), got 95"),
        (lambda: wilson_lower(1, 2, alpha=5), r"in \(0, 1\), got 5"),
        (lambda: clopper_pearson(1, 2, level=0.0), r"in \(0, 1\), got 0"),
        (lambda: newcombe_paired(1, -2, 1, 1), "must not be negative, got -2"),
        (lambda: mean_interval([1.0, math.nan]), "must be finite, got 1"),
        (lambda: quantile_interval([1.0, 2.0], 99), r"in \(0, 1\), got 99"),
    ],
)
def test_an_argument_out_of_range_is_refused_with_the_value_received(call, words):
    with pytest.raises(InvalidInputError, match=words):
        call()
