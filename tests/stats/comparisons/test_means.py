import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.stats.comparisons.means import equal_differences_bound, paired_mean_test

samples = st.lists(st.floats(-5, 5).map(lambda v: round(v, 3)), min_size=3, max_size=40).filter(
    lambda values: np.ptp(values) > 1e-3
)


@given(samples, st.floats(-2, 2))
def test_the_p_value_is_students_or_larger(values, margin):
    result = paired_mean_test(values, margin=margin)
    student = stats.ttest_1samp(values, margin, alternative="greater").pvalue
    assert result.p_above >= student * (1 - 1e-9)
    assert result.difference == pytest.approx(np.mean(values))


@given(samples, st.floats(-2, 2))
def test_differences_without_skewness_give_students_p_value(values, margin):
    centre = np.mean(values)
    mirrored = [*values, *(2 * centre - value for value in values)]
    result = paired_mean_test(mirrored, margin=margin)
    greater = stats.ttest_1samp(mirrored, margin, alternative="greater").pvalue
    less = stats.ttest_1samp(mirrored, margin, alternative="less").pvalue
    assert result.p_above == pytest.approx(greater, rel=1e-5)
    assert result.p_below == pytest.approx(less, rel=1e-5)


@given(samples, st.floats(-2, 2), st.sampled_from([0.01, 0.05, 0.2]))
def test_p_is_below_alpha_exactly_when_the_interval_is_beyond_the_margin(values, margin, alpha):
    result = paired_mean_test(values, margin=margin, alpha=alpha)
    if abs(result.p_above - alpha) > 1e-6:
        assert (result.p_above < alpha) == (result.interval.lower > margin)
    if abs(result.p_below - alpha) > 1e-6:
        assert (result.p_below < alpha) == (result.interval.upper < margin)


@given(samples, st.floats(-2, 2))
def test_swapping_the_systems_mirrors_the_result(values, margin):
    one = paired_mean_test(values, margin=margin)
    other = paired_mean_test([-value for value in values], margin=-margin)
    assert one.p_above == pytest.approx(other.p_below, abs=1e-9)
    assert one.interval.lower == pytest.approx(-other.interval.upper)


def test_the_standard_error_with_equally_many_examples_a_user_is_that_of_statsmodels():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(40), 8)
    values = rng.normal(size=40)[users] + rng.normal(size=320)
    # statsmodels' correction G / (G - 1) (n - 1) / (n - k) is G / (G - 1) for a mean alone
    fitted = sm.OLS(values, np.ones(320)).fit(cov_type="cluster", cov_kwds={"groups": users})
    result = paired_mean_test(values, clusters=users)
    assert result.standard_error == pytest.approx(fitted.bse[0], rel=1e-9)
    assert result.units == 40
    assert result.pairs == 320


@pytest.mark.parametrize(("alike", "least", "most"), [(1.0, 0.99, 1.03), (0.0, 0.99, 1.04)])
def test_the_variance_with_unequal_users_is_not_too_small(alike, least, most):
    rng = np.random.default_rng(4)
    sizes = np.ceil(40.0 / np.sqrt(np.arange(1, 61))).astype(int)
    users = np.repeat(np.arange(60), sizes)
    truth = alike * float(sizes @ sizes) / sizes.sum() ** 2 + (1.0 - alike) / sizes.sum()
    found = []
    for _ in range(3_000):
        values = np.sqrt(alike) * rng.normal(size=60)[users]
        values += np.sqrt(1.0 - alike) * rng.normal(size=users.size)
        found.append(paired_mean_test(values, clusters=users).standard_error ** 2)
    assert least <= np.mean(found) / truth <= most


def test_users_with_one_example_each_change_nothing():
    values = np.random.default_rng(0).exponential(size=50)
    assert paired_mean_test(values, clusters=np.arange(50)) == paired_mean_test(values)


def test_a_user_with_most_examples_costs_degrees_of_freedom():
    rng = np.random.default_rng(1)
    values = rng.normal(0.3, 1.0, 400)
    equal, lopsided = np.repeat(np.arange(40), 10), np.r_[np.zeros(361), np.arange(1, 40)]
    alike = paired_mean_test(values, clusters=equal).interval
    few = paired_mean_test(values, clusters=lopsided).interval
    assert few.upper - few.lower > alike.upper - alike.lower


def test_right_or_wrong_of_many_examples_gives_mcnemars_p_value_nearly():
    values = np.r_[np.full(60, -1.0), np.full(95, 1.0), np.zeros(845)]
    exact = mcnemar_exact(60, 95).p_value_second_better
    assert paired_mean_test(values).p_above == pytest.approx(exact, rel=0.35)


def test_no_difference_seen_is_no_difference_up_to_three_in_n():
    # Hanley and Lippman-Hand: the rule of three
    assert equal_differences_bound(1_000, 1.0) == pytest.approx(3.0 / 1_000, rel=0.01)
    assert equal_differences_bound(1_000, 5.0) == 5.0 * equal_differences_bound(1_000, 1.0)


@pytest.mark.parametrize(
    ("values", "changes", "error"),
    [
        ([], {}, InsufficientDataError),
        ([1.0], {}, InsufficientDataError),
        ([0.5, 0.5, 0.5], {}, InsufficientDataError),
        ([1.0, 2.0, 3.0], {"clusters": ["a", "a", "a"]}, InsufficientDataError),
        ([1.0, float("nan")], {}, InvalidInputError),
        ([1.0, 2.0], {"clusters": ["a"]}, InvalidInputError),
        ([1.0, 2.0], {"alpha": 0.0}, InvalidInputError),
        ([1.0, 2.0], {"margin": float("inf")}, InvalidInputError),
    ],
)
def test_what_cannot_be_compared_is_refused(values, changes, error):
    with pytest.raises(error, match="got"):
        paired_mean_test(values, **changes)


def test_a_bound_needs_units_and_a_range():
    with pytest.raises(InsufficientDataError):
        equal_differences_bound(0, 1.0)
    with pytest.raises(InvalidInputError):
        equal_differences_bound(10, -1.0)
