from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons.several_metrics import all_must_hold, holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(p_values)
def test_holm_agrees_with_statsmodels(values):
    with mock.patch("gc.collect"):  # `multipletests` collects all garbage at each call
        expected = multipletests(values, method="holm")[1]
    assert holm(values) == pytest.approx(expected)


@given(p_values, st.floats(0.001, 0.5))
def test_all_hold_exactly_when_each_does(values, alpha):
    assert (all_must_hold(values) <= alpha) == all(p <= alpha for p in values)


def test_any_false_claim_is_rare_however_many_are_false():
    rng, gates = np.random.default_rng(0), 4_000
    for metrics in (1, 4, 10):
        shared = rng.normal(size=(gates, 1))
        scores = 0.7 * shared + np.sqrt(1 - 0.49) * rng.normal(size=(gates, metrics))
        false = norm.sf(scores)
        limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / gates)
        assert np.mean([(holm(row) <= 0.05).any() for row in false]) <= limit


def test_no_claims_are_no_error_but_no_requirements_are():
    assert holm([]).size == 0
    with pytest.raises(InsufficientDataError):
        all_must_hold([])


@pytest.mark.parametrize("procedure", [holm, all_must_hold])
@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(procedure, wrong):
    with pytest.raises(InvalidInputError, match="p-values"):
        procedure([0.5, wrong])
