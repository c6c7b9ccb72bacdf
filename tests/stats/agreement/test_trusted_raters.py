import numpy as np
import pytest
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.agreement.trusted_raters import excess_p_values, honest_probabilities


def raters(rng, *, users, hostile, checks, honest_rate=0.95, hostile_rate=0.05):
    bad = np.arange(users) < round(hostile * users)
    checked = rng.poisson(checks, users).astype(float)
    rate = np.where(bad, hostile_rate, honest_rate)
    return bad, rng.binomial(checked.astype(int), rate).astype(float), checked


@pytest.mark.parametrize("mean", [0.4, 0.55, 0.7, 0.95])
@pytest.mark.parametrize("checks", [1, 3, 10, 40])
def test_without_hostile_raters_hardly_anybody_is_distrusted(mean, checks):
    rng = np.random.default_rng(1)
    users, distrusted = 0, 0
    for _ in range(20):
        _, agreed, checked = raters(rng, users=500, hostile=0.0, checks=checks, honest_rate=mean)
        found = honest_probabilities(agreed, checked)
        users, distrusted = users + 500, distrusted + int((found < 0.5).sum())
    assert distrusted / users < 0.01


@pytest.mark.parametrize("hostile", [0.1, 0.4])
def test_hostile_raters_are_found_with_ten_checks(hostile):
    bad, agreed, checked = raters(np.random.default_rng(2), users=500, hostile=hostile, checks=10)
    found = honest_probabilities(agreed, checked)
    assert (found[bad] < 0.5).mean() > 0.99
    assert (found[~bad] < 0.5).mean() < 0.01


def test_nothing_is_known_of_a_rater_who_was_not_checked():
    found = honest_probabilities(np.array([0.0, 3.0]), np.array([0.0, 3.0]))
    assert np.isnan(found[0])
    assert found[1] > 0.9
    assert np.isnan(honest_probabilities(np.zeros(3), np.zeros(3))).all()


def test_the_order_of_raters_changes_nothing():
    _, agreed, checked = raters(np.random.default_rng(3), users=60, hostile=0.2, checks=5)
    found = honest_probabilities(agreed, checked)
    order = np.random.default_rng(4).permutation(60)
    again = honest_probabilities(agreed[order], checked[order])
    assert again == pytest.approx(found[order], nan_ok=True, abs=1e-6)


def test_more_agreement_is_more_trust():
    agreed = np.arange(9.0)
    found = honest_probabilities(agreed, np.full(9, 8.0))
    assert (np.diff(found) > 0).all()


def test_an_excess_is_the_exact_binomial_tail():
    found, trials, rates = np.array([0, 3, 7]), np.array([5, 9, 20]), np.array([0.2, 0.1, 0.3])
    expected = [
        stats.binomtest(int(k), int(n), p, alternative="greater").pvalue
        for k, n, p in zip(found, trials, rates, strict=True)
    ]  # scipy
    assert excess_p_values(found, trials, rates) == pytest.approx(expected)


def test_impossible_counts_are_refused():
    with pytest.raises(InvalidInputError, match="agreements"):
        honest_probabilities(np.array([3.0]), np.array([2.0]))
    with pytest.raises(InvalidInputError, match="prior_honest"):
        honest_probabilities(np.array([1.0]), np.array([2.0]), prior_honest=1.0)
