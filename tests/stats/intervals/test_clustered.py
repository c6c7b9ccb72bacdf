import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.intervals import mean_interval, newcombe_independent, wilson
from ratchet.stats.intervals.clustered import (
    cluster_mean_interval,
    cluster_rate_interval,
)

arms = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def users(rng):
    """Successes and trials of 60 users whose own rates differ."""
    trials = rng.integers(1, 30, size=60)
    return rng.binomial(trials, rng.beta(2.0, 3.0, size=60)), trials


def test_a_rate_is_the_ratio_estimator_by_hand():
    # rates 0, 1, .2, .9, .1, .8 of 10 each: residuals -5, 5, -3, 4, -4, 3 have sum of squares 100
    result = cluster_rate_interval([0, 10, 2, 9, 1, 8], [10] * 6)
    error = math.sqrt(6 / 5 * 100) / 60
    half = stats.t.ppf(0.975, 5) * error
    assert result.standard_error == pytest.approx(error)
    assert result.interval.upper == pytest.approx(0.5 + half)
    assert result.design_effect == pytest.approx(error**2 / (0.25 / 59))
    assert (result.clusters, result.observations) == (6, 60)
    assert result.effective_observations == pytest.approx(60 / result.design_effect)


def test_the_standard_error_is_the_cluster_robust_one_of_least_squares(users):
    # mean as a regression on a constant: (X'X)^-1 sum_g X_g' u_g u_g' X_g (X'X)^-1 m / (m - 1)
    successes, trials = users
    labels = np.repeat(np.arange(60), trials)
    values = np.concatenate([[1.0] * k + [0.0] * (n - k) for k, n in zip(*users, strict=True)])
    scores = np.array([(values[labels == g] - values.mean()).sum() for g in range(60)])
    robust = math.sqrt(60 / 59 * (scores**2).sum()) / values.size
    assert cluster_rate_interval(successes, trials).standard_error == pytest.approx(robust)


def test_counts_and_single_values_give_the_same(users):
    _, trials = users
    labels = np.repeat([f"user {i}" for i in range(60)], trials)
    values = np.concatenate([[1.0] * k + [0.0] * (n - k) for k, n in zip(*users, strict=True)])
    by_counts, by_values = cluster_rate_interval(*users), cluster_mean_interval(values, labels)
    assert by_values.interval.lower == pytest.approx(by_counts.interval.lower)
    assert by_values.design_effect == pytest.approx(by_counts.design_effect)


def test_one_value_in_each_cluster_is_students_interval(rng):
    values = rng.normal(size=25)
    result, student = cluster_mean_interval(values, np.arange(25)), mean_interval(values)
    assert result.interval.lower == pytest.approx(student.lower)
    assert result.interval.upper == pytest.approx(student.upper)
    assert result.design_effect == pytest.approx(1.0)


def test_copies_of_every_value_add_nothing(rng):
    values, clusters = rng.normal(size=40), np.arange(40)
    once = cluster_mean_interval(values, clusters)
    thrice = cluster_mean_interval(np.repeat(values, 3), np.repeat(clusters, 3))
    assert thrice.interval.upper == pytest.approx(once.interval.upper)
    assert thrice.effective_observations == pytest.approx(40, rel=0.03)


def test_order_scale_and_labels_do_not_matter(rng):
    values, clusters = rng.normal(size=90), rng.integers(0, 12, size=90)
    result = cluster_mean_interval(values, clusters)
    order = rng.permutation(90)
    moved = cluster_mean_interval(5.0 - 2.0 * values[order], 100 - clusters[order])
    assert moved.interval.lower == pytest.approx(5.0 - 2.0 * result.interval.upper)
    assert moved.design_effect == pytest.approx(result.design_effect)


def test_a_rate_interval_stays_in_range_and_widens_with_the_level():
    narrow, wide = (
        cluster_rate_interval([0, 0, 0, 2], [5, 5, 5, 5], level=level) for level in (0.9, 0.99)
    )
    assert wide.interval.lower == 0.0
    assert wide.interval.upper > narrow.interval.upper


# Two independent proportions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "lower", "upper"),
    [
        # Newcombe (1998), Statistics in Medicine 17, 873-890, Table II, method 10
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((2, 7), (6, 7), 0.0582, 0.8062),
        ((0, 29), (5, 56), -0.0381, 0.1926),
    ],
)
def test_the_difference_of_independent_proportions_gives_newcombes_table(
    first, second, lower, upper
):
    interval = newcombe_independent(*first, *second)
    assert (round(interval.lower, 4), round(interval.upper, 4)) == (lower, upper)


@given(arms, arms)
def test_the_difference_contains_the_observed_one_and_changes_sign_with_the_order(first, second):
    one, other = newcombe_independent(*first, *second), newcombe_independent(*second, *first)
    assert second[0] / second[1] - first[0] / first[1] in one
    assert -1.0 <= one.lower <= one.upper <= 1.0
    assert one.lower == pytest.approx(-other.upper, abs=1e-12)


def test_against_a_vast_sample_the_difference_is_one_wilson_interval():
    known = newcombe_independent(3 * 10**11, 10**12, 40, 100)
    alone = wilson(40, 100)
    assert known.lower == pytest.approx(alone.lower - 0.3, abs=1e-5)
    assert known.upper == pytest.approx(alone.upper - 0.3, abs=1e-5)


@pytest.mark.parametrize(("first", "second"), [(15, 25), (30, 30), (80, 20)])
def test_the_difference_covers_near_its_level(first, second):
    """Exact coverage on a grid of pairs of rates, by summing over all outcomes."""
    rates = np.array([0.1, 0.3, 0.5, 0.8])
    limits = [
        [newcombe_independent(j, first, k, second) for k in range(second + 1)]
        for j in range(first + 1)
    ]
    lower = np.array([[interval.lower for interval in row] for row in limits])
    upper = np.array([[interval.upper for interval in row] for row in limits])
    for one in rates:
        for other in rates:
            chance = np.outer(
                stats.binom.pmf(np.arange(first + 1), first, one),
                stats.binom.pmf(np.arange(second + 1), second, other),
            )
            covered = chance[(lower <= other - one) & (other - one <= upper)].sum()
            assert 0.92 < covered < 0.99


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cluster_rate_interval([1], [2]), InsufficientDataError, "2 clusters, got 1"),
        (lambda: cluster_rate_interval([0, 0], [2, 3]), InsufficientDataError, "got 0 in all 2"),
        (lambda: cluster_rate_interval([1, 1], [2, 2]), InsufficientDataError, "clopper_pearson"),
        (lambda: cluster_rate_interval([3, 1], [2, 2]), InvalidInputError, "got 3 of 2"),
        (lambda: cluster_rate_interval([1, 0], [2, 0]), InvalidInputError, "got 0 of 0; leave"),
        (lambda: cluster_rate_interval([0.5, 1], [2, 2]), InvalidInputError, "whole numbers"),
        (lambda: cluster_rate_interval([1, 0], [2]), InvalidInputError, "got 2 and 1"),
        (
            lambda: cluster_rate_interval([1, 0], [2, 2], level=95),
            InvalidInputError,
            r"level must be in \(0, 1\), got 95",
        ),
        (lambda: cluster_mean_interval([1, 2], [1, 1]), InsufficientDataError, "got 1; collect"),
        (
            lambda: cluster_mean_interval([1, 2], [1]),
            InvalidInputError,
            "got 2 values and 1 labels",
        ),
        (lambda: cluster_mean_interval([1, np.inf], [1, 2]), InvalidInputError, "finite, got 1"),
        (lambda: newcombe_independent(1, 2, 0, 0), InsufficientDataError, "at least 1 trial"),
        (lambda: newcombe_independent(3, 2, 0, 1), InvalidInputError, "got 3 of 2"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
