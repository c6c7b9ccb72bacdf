import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.experiments.sample_ratio import (
    BOTH_WAYS,
    UPWARD,
    Groups,
    as_groups,
    finds_imbalance,
    one_look_p_value,
    one_look_p_value_of_arms,
    share_log_e,
    sticky_groups,
)


def test_the_e_value_is_the_mean_likelihood_ratio_of_the_alternatives():
    # by scipy: binomial probability under each alternative over that under the agreed share
    ratios = [
        stats.binom.pmf(30, 100, 0.2 * o / (1 + 0.2 * (o - 1))) / stats.binom.pmf(30, 100, 0.2)
        for o in BOTH_WAYS
    ]
    assert share_log_e(as_groups(30, 100, 0.2)) == pytest.approx(math.log(np.mean(ratios)))


@pytest.mark.parametrize("odds_ratios", [BOTH_WAYS, UPWARD])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_its_mean_is_one_under_the_agreed_share_exactly(share, odds_ratios):
    inside = np.arange(41)
    values = np.exp(share_log_e(as_groups(inside, np.full(41, 40), share), odds_ratios=odds_ratios))
    assert stats.binom.pmf(inside, 40, share) @ values == pytest.approx(1.0)


@pytest.mark.parametrize("lower", [0.1, 0.2, 0.249])
def test_upward_its_mean_is_below_one_where_the_arm_has_fewer(lower):
    inside = np.arange(41)
    values = np.exp(share_log_e(as_groups(inside, np.full(41, 40), 0.25), odds_ratios=UPWARD))
    assert stats.binom.pmf(inside, 40, lower) @ values < 1.0


def test_groups_multiply():
    one, two = as_groups(12, 40, 0.2), as_groups(30, 50, 0.4)
    both = Groups(np.array([12, 30]), np.array([40, 50]), np.array([0.2, 0.4]))
    for ratio in (0.5, 3.0):
        single = [share_log_e(item, odds_ratios=(ratio,)) for item in (one, two)]
        assert share_log_e(both, odds_ratios=(ratio,)) == pytest.approx(sum(single))


def test_nobody_is_no_evidence():
    assert share_log_e(as_groups(0, 0, 0.5)) == 0.0


def test_a_few_hits_that_all_lie_in_a_small_arm_are_harm():
    # five users of five at a share of 1 %: chance 1e-10; an alarm at e-value 300 needs few
    assert share_log_e(as_groups(3, 3, 0.01), odds_ratios=UPWARD) > math.log(300)


@given(users=st.integers(1, 500), data=st.data())
def test_swapping_the_arms_changes_nothing(users, data):
    inside = data.draw(st.integers(0, users))
    share = data.draw(st.floats(0.05, 0.95))
    mirrored = share_log_e(as_groups(users - inside, users, 1 - share))
    assert share_log_e(as_groups(inside, users, share)) == pytest.approx(mirrored)


@pytest.mark.parametrize(("share", "odds"), [(0.5, 11 / 9), (0.25, 1.5), (0.05, 2.0), (0.01, 4.0)])
def test_enough_users_are_those_that_show_the_imbalance_in_99_percent(share, odds):
    users = next(
        n
        for n in range(20, 20_000, 20)
        if finds_imbalance(as_groups(0, n, share), odds, alpha=0.01)
    )
    log_e = share_log_e(as_groups(np.arange(users + 1), np.full(users + 1, users), share))
    found = log_e >= math.log(100)
    for ratio in (odds, 1 / odds):
        then = share * ratio / (1 + share * (ratio - 1))
        # exact at this one look; looking before as well only finds more
        power = stats.binom.pmf(np.arange(users + 1), users, then) @ found
        assert power > 0.98
    assert not finds_imbalance(as_groups(0, users // 2, share), odds, alpha=0.01)


def test_who_was_in_the_control_falls_into_a_grown_arm_with_what_is_left():
    rng = np.random.default_rng(4)
    points, shares = rng.random(200_000), [0.05, 0.25, 0.5]
    second = points[:, np.newaxis] < np.array(shares)
    met = rng.random((200_000, 3)) < 0.6  # not everybody comes in every stage
    groups = sticky_groups(~second & met, second & met, shares)
    errors = np.sqrt(groups.trials * groups.shares * (1 - groups.shares))
    assert (np.abs(groups.successes - groups.trials * groups.shares) < 4 * errors).all()
    assert groups.trials.sum() > met.any(axis=1).sum()  # a stage draws anew
    assert share_log_e(groups) < math.log(100)


def test_a_user_of_the_growing_arm_counts_once():
    first, second = np.zeros((1, 3), bool), np.ones((1, 3), bool)
    assert sticky_groups(first, second, [0.1, 0.2, 0.3]).trials.sum() == 1


def test_leading_axes_are_kept():
    rng = np.random.default_rng(0)
    second = rng.random((4, 30, 2)) < 0.3
    whole = sticky_groups(~second, second, [0.3, 0.3])
    single = sticky_groups(~second[2], second[2], [0.3, 0.3])
    assert whole.trials[2].tolist() == single.trials.tolist()
    assert share_log_e(whole)[2] == pytest.approx(float(share_log_e(single)))


@pytest.mark.parametrize("shares", [[0.2, 0.1], [0.0], [1.0]])
def test_an_arm_that_shrinks_is_refused(shares):
    flags = np.zeros((3, len(shares)), bool)
    with pytest.raises(InvalidInputError, match="never fall"):
        sticky_groups(flags, flags, shares)


@pytest.mark.parametrize(
    ("groups", "ratios"),
    [
        (as_groups(5, 4, 0.5), BOTH_WAYS),
        (as_groups(-1, 4, 0.5), BOTH_WAYS),
        (as_groups(1, 4, 1.0), BOTH_WAYS),
        (as_groups(1, 4, 0.5), ()),
        (as_groups(1, 4, 0.5), (0.0,)),
    ],
)
def test_impossible_counts_are_refused(groups, ratios):
    with pytest.raises(InvalidInputError):
        share_log_e(groups, odds_ratios=ratios)


# At one look --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "users", "share"), [(44_700, 90_189, 0.5), (260, 1_000, 0.25), (70, 1_000, 0.05)]
)
def test_the_one_look_test_of_two_arms_is_pearsons(inside, users, share):
    expected = stats.chisquare([inside, users - inside], [users * share, users * (1 - share)])
    assert one_look_p_value(as_groups(inside, users, share)) == pytest.approx(expected.pvalue)
    arms = [inside, users - inside]
    assert one_look_p_value_of_arms(arms, [share, 1 - share]) == pytest.approx(expected.pvalue)


def test_it_finds_what_the_sequence_does_not():
    # 44,700 against 45,489 users where half and half was planned: 49.6 %, p = 0.0086
    groups = as_groups(44_700, 90_189, 0.5)
    assert share_log_e(groups) < math.log(1 / 0.01)
    assert one_look_p_value(groups) == pytest.approx(0.0086, abs=5e-5)


def test_groups_of_a_growing_arm_each_give_a_degree_of_freedom():
    groups = Groups(np.array([60, 210]), np.array([1_000, 950]), np.array([0.05, 0.211]))
    squares = sum(
        (m - n * p) ** 2 / (n * p * (1 - p)) for m, n, p in ((60, 1_000, 0.05), (210, 950, 0.211))
    )
    assert one_look_p_value(groups) == pytest.approx(stats.chi2.sf(squares, 2))


def test_where_few_users_are_expected_nothing_is_found():
    assert one_look_p_value(as_groups(0, 9, 0.5)) == 1.0
    assert one_look_p_value_of_arms([12, 0, 0], [0.4, 0.3, 0.3]) == 1.0


@pytest.mark.parametrize("shares", [(0.5, 0.4), (0.5, 0.5, 0.0), (1.0,)])
def test_shares_that_are_no_shares_of_the_arms_are_refused(shares):
    with pytest.raises(InvalidInputError, match="each arm needs a share above 0"):
        one_look_p_value_of_arms([100, 100], shares)


@pytest.mark.parametrize(
    "shares",
    [
        pytest.param((0.5, 0.5), marks=pytest.mark.slow),
        pytest.param((0.9, 0.1), marks=pytest.mark.slow),
        (0.3, 0.3, 0.4),
    ],
)
def test_a_sound_assignment_is_called_broken_in_about_one_of_a_hundred(shares):
    draws = np.random.default_rng(0).multinomial(5_000, shares, size=4_000).tolist()
    called = sum(one_look_p_value_of_arms(users, shares) < 0.01 for users in draws) / 4_000
    assert called == pytest.approx(0.01, abs=4 * math.sqrt(0.01 * 0.99 / 4_000))
