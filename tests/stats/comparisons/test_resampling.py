import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.stats.comparisons.resampling import paired_permutation_test
from tests.parameters import examples

few = st.lists(st.integers(-6, 6).map(float), min_size=2, max_size=9)


@given(few.filter(any))
@settings(max_examples=examples(40))
def test_few_differences_are_counted_out_as_scipy_does(values):
    result = paired_permutation_test(values, rng=np.random.default_rng(0))
    assert result.exact
    for alternative, ours in (("two-sided", result.p_value), ("greater", result.p_above)):
        theirs = stats.permutation_test(
            (values, [0.0] * len(values)),
            lambda one, two, axis: np.mean(one - two, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
            alternative=alternative,
        ).pvalue
        # scipy doubles the smaller tail; the null is symmetric, so both agree
        assert ours == pytest.approx(min(1.0, theirs))


@given(st.integers(0, 10), st.integers(0, 10))
def test_right_or_wrong_is_the_exact_mcnemar_test(losses, wins):
    values = [-1.0] * losses + [1.0] * wins + [0.0] * 5
    result = paired_permutation_test(values, rng=np.random.default_rng(0))
    assert result.exact
    assert result.p_value == pytest.approx(mcnemar_exact(losses, wins).p_value)
    assert result.p_above == pytest.approx(mcnemar_exact(losses, wins).p_value_second_better)


def test_sampled_patterns_come_near_the_exact_p_value_and_never_reach_0():
    values = [-1.0] * 40 + [1.0] * 60
    result = paired_permutation_test(values, rng=np.random.default_rng(1), resamples=20_000)
    exact = mcnemar_exact(40, 60).p_value_second_better
    assert not result.exact
    assert abs(result.p_above - exact) < 4 * np.sqrt(exact / 20_000)
    extreme = paired_permutation_test([1.0] * 100, rng=np.random.default_rng(1), resamples=1_000)
    assert extreme.p_value == pytest.approx(1 / 1_001)


def test_many_different_magnitudes_agree_with_students_test():
    values = np.random.default_rng(5).normal(0.1, 1.0, 2_000)
    result = paired_permutation_test(values, rng=np.random.default_rng(6), resamples=5_000)
    student = stats.ttest_1samp(values, 0.0).pvalue
    assert result.p_value == pytest.approx(student, abs=4 * np.sqrt(student / 5_000) + 2e-3)


def test_a_margin_is_taken_off_every_difference():
    values = np.array([0.3, 0.1, 0.4, 0.2, 0.6])
    rng = np.random.default_rng(0)
    shifted = paired_permutation_test(values + 1.0, rng=rng, margin=1.0)
    assert shifted.p_above == paired_permutation_test(values, rng=rng).p_above
    assert paired_permutation_test(values, rng=rng, margin=-0.5).p_above == 1 / 32


def test_users_change_sign_as_a_whole():
    values, users = [1.0] * 30, np.repeat(np.arange(5), 6)
    result = paired_permutation_test(values, rng=np.random.default_rng(0), clusters=users)
    assert (result.p_above, result.patterns, result.exact) == (1 / 32, 32, True)


@pytest.mark.parametrize(
    ("values", "changes", "error"),
    [
        ([], {}, InsufficientDataError),
        ([float("inf")], {}, InvalidInputError),
        ([1.0, 2.0], {"resamples": 99}, InvalidInputError),
        ([1.0, 2.0], {"clusters": [1]}, InvalidInputError),
    ],
)
def test_what_cannot_be_tested_is_refused(values, changes, error):
    with pytest.raises(error, match="got"):
        paired_permutation_test(values, rng=np.random.default_rng(0), **changes)
