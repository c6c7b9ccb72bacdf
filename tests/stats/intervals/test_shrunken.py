import numpy as np
import pytest
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.intervals.shrunken import score_lower_bounds, shrunken_mean


def test_the_bound_is_the_quantile_of_the_posterior():
    values, weights = np.array([1.0, 0.75, 0.0, 0.5]), np.array([1.0, 2.5, 3.0, 10.0])
    expected = stats.beta.ppf(
        0.2, 2 * 0.6 + weights * values, 2 * 0.4 + weights * (1 - values)
    )  # scipy
    bounds = score_lower_bounds(values, weights, prior_mean=0.6, prior_strength=2.0)
    assert bounds == pytest.approx(expected, rel=1e-9)


def test_nothing_observed_has_no_bound():
    bounds = score_lower_bounds(np.array([1.0, np.nan]), np.array([0.0, 1.0]), prior_mean=0.5)
    assert np.isnan(bounds).all()


def test_more_evidence_raises_the_bound_of_a_perfect_score_towards_one():
    weights = np.array([0.5, 1.0, 2.0, 10.0, 1e4])
    bounds = score_lower_bounds(np.ones(5), weights, prior_mean=0.3)
    assert (np.diff(bounds) > 0).all()
    assert bounds[-1] > 0.999


def test_the_share_of_rates_above_their_bound_is_the_confidence():
    rng = np.random.default_rng(0)
    rates = rng.beta(0.6, 0.4, 40_000)
    trials = rng.integers(1, 9, 40_000)
    successes = rng.binomial(trials, rates)
    bounds = score_lower_bounds(
        successes / trials, trials.astype(float), prior_mean=0.6, confidence=0.8
    )
    assert (rates > bounds).mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 40_000))


def test_the_mean_of_a_prior_is_never_zero_or_one():
    assert shrunken_mean(np.ones(3), np.ones(3)) == pytest.approx(3.5 / 4)
    assert shrunken_mean(np.zeros(3), np.ones(3)) == pytest.approx(0.5 / 4)
    assert shrunken_mean(np.array([np.nan]), np.zeros(1)) == 0.5


@pytest.mark.parametrize("setting", [{"prior_mean": 0.0}, {"confidence": 1.0}])
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(InvalidInputError, match=r"must be in \(0, 1\)"):
        score_lower_bounds(np.ones(1), np.ones(1), **({"prior_mean": 0.5} | setting))


def test_a_prior_without_weight_is_refused():
    with pytest.raises(InvalidInputError, match="above 0"):
        score_lower_bounds(np.ones(1), np.ones(1), prior_mean=0.5, prior_strength=0.0)
