"""Exact tests of groups: scipy, brute force."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons.many_groups import (
    bernoulli_excess,
    fisher_excess,
)


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
