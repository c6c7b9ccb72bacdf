import math

import numpy as np
import pytest
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.experiments.boundaries import normal_mixture_bound
from ratchet.stats.experiments.clustered_difference import (
    difference_bounds,
    moments_of,
    stratified_difference,
)

SCALES = {"lower_scale": 0.03, "upper_scale": 0.06}


def users_of(rng, users, cells, rates, *, spread=0.0, trials=5):
    """Each user in one cell, with a rate of its own around that of the cell."""
    done, total = np.zeros((users, cells)), np.zeros((users, cells))
    cell = rng.integers(0, cells, users)
    own = np.clip(np.asarray(rates)[cell] + rng.uniform(-spread, spread, users), 0, 1)
    total[np.arange(users), cell] = rng.integers(1, trials + 1, users)
    done[np.arange(users), cell] = rng.binomial(total[np.arange(users), cell].astype(int), own)
    return done, total


def test_one_stratum_is_the_plain_difference_with_its_sandwich_variance():
    rng = np.random.default_rng(1)
    done, total = users_of(rng, 400, 2, [0.5, 0.3])
    done[:, 1] = np.where(rng.random(400) < 0.3, total[:, 1], 0)  # all or nothing in this arm
    found = stratified_difference(moments_of(done, total), [0], [1])
    rates = done.sum(axis=0) / total.sum(axis=0)
    assert found.difference == pytest.approx(rates[1] - rates[0])
    # by hand: residuals of each user, over the trials of the arm
    residuals = ((done - rates * total) / total.sum(axis=0)).sum(axis=1)
    smallest = (total > 0).sum(axis=0).min()
    assert found.variance == pytest.approx((residuals**2).sum() * smallest / (smallest - 1))


def test_the_strata_are_weighted_as_mantel_and_haenszel_do():
    # Greenland and Robins 1985: sum(a n0 / N - b n1 / N) / sum(n1 n0 / N), one trial a user
    table = [(10, 100, 30, 100), (5, 400, 4, 100), (60, 80, 15, 20)]  # first and second arm
    done, total = [], []
    for stratum, (a, n0, b, n1) in enumerate(table):
        for arm, (events, trials) in enumerate(((a, n0), (b, n1))):
            for number in range(trials):
                row_y, row_n = np.zeros(6), np.zeros(6)
                row_n[2 * stratum + arm] = 1.0
                row_y[2 * stratum + arm] = float(number < events)
                done.append(row_y)
                total.append(row_n)
    found = stratified_difference(moments_of(done, total), [0, 2, 4], [1, 3, 5])
    top = sum((b * n0 - a * n1) / (n0 + n1) for a, n0, b, n1 in table)
    below = sum(n0 * n1 / (n0 + n1) for _, n0, _, n1 in table)
    assert found.difference == pytest.approx(top / below)
    assert found.second - found.first == pytest.approx(float(found.difference))


def test_a_drift_between_the_stages_is_no_difference():
    # 1 % of users at a rate of 5 %, then half of them at 20 %: pooled, the second arm looks worse
    rng = np.random.default_rng(2)
    points = rng.random(40_000)
    done, total = np.zeros((40_000, 4)), np.zeros((40_000, 4))
    for stage, (share, rate) in enumerate([(0.01, 0.05), (0.5, 0.20)]):
        cell = 2 * stage + (points < share)
        total[np.arange(40_000), cell] = 1
        done[np.arange(40_000), cell] = rng.random(40_000) < rate
    found = stratified_difference(moments_of(done, total), [0, 2], [1, 3])
    assert abs(float(found.difference)) < 3 * math.sqrt(float(found.variance))
    pooled = done[:, 1::2].sum() / total[:, 1::2].sum() - done[:, ::2].sum() / total[:, ::2].sum()
    assert pooled > 0.05


def test_the_variance_is_that_of_repeated_sampling_where_users_repeat_and_change_arms():
    rng = np.random.default_rng(3)
    estimates, variances = [], []
    for _ in range(300):
        tendency = rng.beta(2, 8, 400)
        points = rng.random(400)
        done, total = np.zeros((400, 4)), np.zeros((400, 4))
        for stage, share in enumerate([0.2, 0.5]):
            cell = 2 * stage + (points < share)
            size = rng.poisson(4, 400)
            total[np.arange(400), cell] = size
            done[np.arange(400), cell] = rng.binomial(size, tendency)
        found = stratified_difference(moments_of(done, total), [0, 2], [1, 3])
        estimates.append(float(found.difference))
        variances.append(float(found.variance))
    # chi-square of 299 degrees of freedom: the ratio lies in 0.8 to 1.25 with 99 %
    assert 0.8 < np.var(estimates, ddof=1) / np.mean(variances) < 1.25


@pytest.mark.parametrize("trials", [30, 300])
def test_no_event_at_all_is_no_proof(trials):
    done = np.zeros((2 * trials, 2))
    total = np.zeros((2 * trials, 2))
    total[:trials, 0] = total[trials:, 1] = 1
    found = stratified_difference(moments_of(done, total), [0], [1])
    rate = 1 / (trials + 2)
    assert found.variance == pytest.approx(2 * rate * (1 - rate) / trials)


def test_an_arm_that_is_empty_says_nothing():
    done, total = np.zeros((10, 2)), np.zeros((10, 2))
    total[:, 0] = 1
    found = stratified_difference(moments_of(done, total), [0], [1])
    assert np.isnan(found.difference)
    assert np.isinf(found.variance)
    ends = difference_bounds(found, lower_error=0.05, upper_error=0.05, **SCALES)
    assert [float(end) for end in ends] == [-1.0, 1.0]


def test_renaming_the_arms_turns_the_sign():
    done, total = users_of(np.random.default_rng(5), 300, 4, [0.1, 0.2, 0.3, 0.1], spread=0.1)
    moments = moments_of(done, total)
    one = stratified_difference(moments, [0, 2], [1, 3])
    other = stratified_difference(moments, [1, 3], [0, 2])
    assert one.difference == pytest.approx(-float(other.difference))


def test_users_in_another_order_or_split_into_batches_give_the_same():
    done, total = users_of(np.random.default_rng(6), 200, 2, [0.2, 0.4], spread=0.1)
    order = np.random.default_rng(7).permutation(200)
    one = stratified_difference(moments_of(done, total), [0], [1])
    other = stratified_difference(moments_of(done[order], total[order]), [0], [1])
    assert one.variance == pytest.approx(float(other.variance))
    stacked = moments_of(np.stack([done, done[order]]), np.stack([total, total[order]]))
    both = stratified_difference(stacked, [0], [1])
    assert both.variance.tolist() == pytest.approx([float(one.variance)] * 2)


def test_the_bounds_are_the_boundary_over_the_information():
    done, total = users_of(np.random.default_rng(8), 2_000, 2, [0.2, 0.25])
    found = stratified_difference(moments_of(done, total), [0], [1])
    lower, upper = difference_bounds(found, lower_error=0.01, upper_error=0.05, **SCALES)
    information = 1 / float(found.variance)
    for end, error, sign, tuned in ((lower, 0.01, -1, 10_000.0), (upper, 0.05, 1, 2_500.0)):
        bound = normal_mixture_bound(information, alpha=error, v_opt=tuned, one_sided=True)
        assert end == pytest.approx(float(found.difference + sign * bound / information))


def test_where_it_is_tightest_the_sequence_is_about_three_standard_errors_wide():
    # the constant in the tuning: at information (3 / scale)^2 the half width is about the scale
    bound = normal_mixture_bound(10_000.0, alpha=0.025, v_opt=10_000.0, one_sided=True)
    assert float(bound) / 10_000 == pytest.approx(0.03, rel=0.1)
    assert float(bound) / 100 > stats.norm.ppf(0.975)


@pytest.mark.parametrize("cells", [([], []), ([0], [1, 2])])
def test_arms_without_one_cell_a_stratum_are_refused(cells):
    moments = moments_of(np.zeros((3, 3)), np.ones((3, 3)))
    with pytest.raises(InvalidInputError, match="one cell a stratum"):
        stratified_difference(moments, *cells)


@pytest.mark.parametrize(
    ("done", "total"),
    [([[2.0]], [[1.0]]), ([[-1.0]], [[1.0]]), ([1.0], [1.0]), ([[1.0]], [[1.0, 1]])],
)
def test_impossible_counts_are_refused(done, total):
    with pytest.raises(InvalidInputError, match="each user needs"):
        moments_of(done, total)
