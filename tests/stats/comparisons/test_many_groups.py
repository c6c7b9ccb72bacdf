"""Exact tests of groups and false discoveries: scipy, printed examples, brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons.many_groups import (
    bernoulli_excess,
    false_discovery_cutoff,
    fisher_excess,
)

# Benjamini and Hochberg (1995), section 4.1: 15 p-values of a study, four rejected at 0.05 where
# Bonferroni's rule rejects three.
PRINTED = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
    0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
]  # fmt: skip

P_VALUES = st.lists(st.floats(0.0, 1.0), max_size=12)


@pytest.mark.parametrize("table", [(3, 4, 4, 8), (0, 5, 3, 20), (12, 20, 40, 300), (5, 5, 9, 30)])
def test_one_sided_fisher_is_that_of_scipy(table):
    inside, size, successes, total = table
    (p_value,) = fisher_excess([inside], [size], all_successes=successes, all_trials=total)
    square = [
        [inside, size - inside],
        [successes - inside, total - size - (successes - inside)],
    ]
    assert p_value == pytest.approx(stats.fisher_exact(square, alternative="greater").pvalue)


def test_one_sided_fisher_is_the_share_of_all_deals():
    deals = list(combinations(range(8), 3))  # where the 3 successes among 8 trials lie
    as_many = sum(sum(place < 4 for place in deal) >= 2 for deal in deals) / len(deals)
    (p_value,) = fisher_excess([2], [4], all_successes=3, all_trials=8)
    assert p_value == pytest.approx(as_many)


@pytest.mark.parametrize("bad", [([-1], [4]), ([5], [4]), ([3], [4, 4]), ([9], [9]), ([0], [9])])
def test_counts_that_do_not_fit_together_are_refused(bad):
    with pytest.raises(InvalidInputError, match="count again"):
        fisher_excess(*bad, all_successes=4, all_trials=8)


def test_the_example_of_benjamini_and_hochberg():
    assert false_discovery_cutoff(PRINTED, rate=0.05).tolist() == [True] * 4 + [False] * 11


@given(P_VALUES, st.sampled_from([0.01, 0.05, 0.2]), st.booleans())
def test_it_rejects_what_scipy_adjusts_to_less_than_the_rate(p_values, rate, dependent):
    rejected = false_discovery_cutoff(p_values, rate=rate, dependent=dependent)
    assert rejected.shape == (len(p_values),)
    if p_values:
        adjusted = stats.false_discovery_control(p_values, method="by" if dependent else "bh")
        clear = np.abs(adjusted - rate) > 1e-9
        assert (rejected == (adjusted <= rate))[clear].all()


@given(P_VALUES, st.randoms())
def test_the_order_of_the_hypotheses_does_not_matter(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    one = false_discovery_cutoff(p_values)
    other = false_discovery_cutoff([p_values[i] for i in order])
    assert other.tolist() == [bool(one[i]) for i in order]


def test_p_values_and_rates_outside_their_range_are_refused():
    with pytest.raises(InvalidInputError, match="p-values must be"):
        false_discovery_cutoff([0.2, float("nan")])
    with pytest.raises(InvalidInputError, match="rate must be"):
        false_discovery_cutoff([0.2], rate=5)


def test_the_excess_is_the_log_likelihood_ratio_of_two_rates():
    def likelihood(k, n, p):
        return stats.binom.logpmf(k, n, p) - stats.binom.logpmf(k, n, 0.5) + n * np.log(0.5)

    (excess,) = bernoulli_excess(
        np.array([12.0]), np.array([20.0]), all_successes=30, all_trials=100
    )
    by_hand = likelihood(12, 20, 12 / 20) + likelihood(18, 80, 18 / 80) - likelihood(30, 100, 0.3)
    assert excess == pytest.approx(by_hand)


def test_a_lower_rate_inside_is_no_excess_and_no_trials_are_refused():
    low = bernoulli_excess(np.array([1.0]), np.array([20.0]), all_successes=30, all_trials=100)
    assert low.tolist() == [0.0]
    with pytest.raises(InsufficientDataError):
        bernoulli_excess(np.array([0.0]), np.array([0.0]), all_successes=0, all_trials=0)
