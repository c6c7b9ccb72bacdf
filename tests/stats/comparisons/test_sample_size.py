import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons import paired_rate_test, power
from ratchet.stats.comparisons.power import paired_mean_power, paired_rate_power
from ratchet.stats.comparisons.sample_size import (
    FOR_SKEWNESS,
    paired_mean_sample_size,
    paired_rate_sample_size,
    shared_power,
)
from ratchet.stats.comparisons.spending import information_ratio


@pytest.mark.parametrize("margin", [-0.1, 0.0, 0.05])
@pytest.mark.parametrize("difference", [-0.05, 0.0, 0.2])
def test_power_is_the_sum_over_all_outcomes(margin, difference):
    pairs, discordance = 25, 0.4
    chances = [(discordance - difference) / 2, (discordance + difference) / 2, 1 - discordance]
    total = 0.0
    for first in range(pairs + 1):
        for second in range(pairs + 1 - first):
            rest = pairs - first - second
            if paired_rate_test(rest, first, second, 0, margin=margin).p_above <= 0.05:
                total += stats.multinomial.pmf([first, second, rest], pairs, chances)
    found = paired_rate_power(pairs, discordance=discordance, difference=difference, margin=margin)
    assert found == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(
    ("discordance", "difference", "margin"),
    [(0.1, 0.005, 0.0), (0.3, 0.01, 0.0), (0.02, 0.0015, 0.0), (0.2, 0.0, -0.01)],
)
def test_the_normal_power_of_many_pairs_goes_on_where_the_exact_one_ends(
    discordance, difference, margin
):
    pairs = int(power.EXACT_UP_TO / discordance)
    truth = {"discordance": discordance, "difference": difference, "margin": margin}
    exact = paired_rate_power(pairs, **truth)
    normal = power._normal_rate_power(pairs, discordance, difference, margin, 0.05)
    assert normal == pytest.approx(exact, abs=0.002)
    assert paired_rate_power(pairs + 10, **truth) == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
@pytest.mark.parametrize(
    ("discordance", "difference", "margin"),
    [(0.1, 0.03, 0.0), (0.3, 0.1, 0.0), (0.05, 0.04, 0.0), (0.1, 0.0, -0.05), (0.3, 0.02, -0.03)],
)
def test_the_planned_number_is_the_smallest_with_the_power(discordance, difference, margin, alpha):
    truth = {"discordance": discordance, "difference": difference, "margin": margin}
    plan = paired_rate_sample_size(**truth, alpha=alpha, power=0.8)
    assert plan.power >= 0.8
    assert paired_rate_power(plan.examples, **truth, alpha=alpha) == plan.power
    assert paired_rate_power(plan.examples - 1, **truth, alpha=alpha) < 0.8
    # the number itself is a plan for a few more examples too
    assert paired_rate_power(plan.examples + 5, **truth, alpha=alpha) >= 0.795


def test_the_planned_number_is_near_connors():
    # Connor (1987): n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2, without a correction for
    # continuity, which adds about 1 / d
    psi, d = 0.2, 0.05
    z_a, z_b = stats.norm.isf(0.05), stats.norm.ppf(0.8)
    connor = (z_a * math.sqrt(psi) + z_b * math.sqrt(psi - d * d)) ** 2 / d**2
    plan = paired_rate_sample_size(discordance=psi, difference=d)
    assert connor < plan.examples < connor + 2.5 / d


@pytest.mark.parametrize("effect", [0.1, 0.25, 0.8])
def test_means_are_planned_as_statsmodels_does(effect):
    theirs = TTestPower().solve_power(effect, alpha=0.05, power=0.8, alternative="larger")
    plan = paired_mean_sample_size(spread=2.0, difference=2.0 * effect)
    assert plan.examples == math.ceil(theirs) + FOR_SKEWNESS
    assert paired_mean_power(60, effect=effect) == pytest.approx(
        TTestPower().power(effect, 60, 0.05, alternative="larger")
    )


def test_users_that_repeat_need_more_examples():
    alone = paired_mean_sample_size(spread=0.5, difference=0.05)
    users = paired_mean_sample_size(
        spread=0.5, difference=0.05, cluster_size=10, design_effect=1 + 9 * 0.3
    )
    assert users.examples == pytest.approx(alone.examples * 3.7, rel=0.05)
    assert users.units == math.ceil(users.examples / 10)


def test_a_margin_moves_the_difference():
    shown = paired_mean_sample_size(spread=1.0, difference=0.0, margin=-0.1)
    assert shown == paired_mean_sample_size(spread=1.0, difference=0.1)


def test_looks_multiply_the_number():
    looks = [1 / 3, 2 / 3, 1.0]
    once = paired_rate_sample_size(discordance=0.2, difference=0.05, power=0.805)
    thrice = paired_rate_sample_size(discordance=0.2, difference=0.05, looks=looks)
    assert thrice.examples == math.ceil(once.examples * information_ratio(looks))


def test_requirements_that_each_have_the_shared_power_hold_together():
    # independent ones are the worst case that is simple: prod >= 1 - sum of failures
    assert shared_power(0.8, 4) ** 4 >= 0.8
    assert shared_power(0.8, 1) == pytest.approx(0.8)
    assert np.isclose(1 - 4 * (1 - shared_power(0.8, 4)), 0.8)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"discordance": 0.2, "difference": 0.0}, InvalidInputError),
        ({"discordance": 0.2, "difference": 0.3}, InvalidInputError),
        ({"discordance": 0.0, "difference": 0.0, "margin": -0.1}, InvalidInputError),
        ({"discordance": 0.2, "difference": 0.1, "power": 0.01}, InvalidInputError),
        ({"discordance": 0.2, "difference": 0.1, "alpha": 0.7}, InvalidInputError),
        ({"discordance": 1.0, "difference": 1e-5}, InsufficientDataError),
    ],
)
def test_plans_for_rates_that_cannot_be_are_refused(arguments, error):
    with pytest.raises(error, match="got"):
        paired_rate_sample_size(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"spread": 0.0}, {"cluster_size": 0.5}, {"design_effect": 0.0}, {"difference": -0.1}],
)
def test_plans_for_means_that_cannot_be_are_refused(arguments):
    with pytest.raises(InvalidInputError, match="got"):
        paired_mean_sample_size(**({"spread": 1.0, "difference": 0.1} | arguments))
