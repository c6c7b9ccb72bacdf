import numpy as np
import pytest
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.comparisons.spending import (
    information_ratio,
    nominal_levels,
    spent,
    stopping_probabilities,
)

# Critical values of Lan's and DeMets' two spending functions at one-sided 2.5 %, equally spaced
# looks, as Reboussin, DeMets, Kim, Lan (2000), Controlled Clinical Trials 21, and R's gsDesign have
# them.
PUBLISHED = [
    ("obrien_fleming", 3, [3.710, 2.511, 1.993]),
    ("obrien_fleming", 5, [4.877, 3.357, 2.680, 2.290, 2.031]),
    ("pocock", 3, [2.279, 2.295, 2.296]),
    ("pocock", 5, [2.438, 2.427, 2.410, 2.397, 2.386]),
]


def equally_spaced(looks):
    return [(look + 1) / looks for look in range(looks)]


@pytest.mark.parametrize(("spending", "looks", "printed"), PUBLISHED)
def test_the_published_boundaries_are_reproduced(spending, looks, printed):
    levels = nominal_levels(equally_spaced(looks), alpha=0.025, spending=spending)
    assert (-stats.norm.ppf(levels)).round(3).tolist() == printed


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("times", [[1.0], [0.5, 1.0], [0.1, 0.15, 0.9, 1.0], equally_spaced(10)])
def test_all_looks_together_spend_the_level(spending, times):
    levels = nominal_levels(times, alpha=0.05, spending=spending)
    stopped = stopping_probabilities(levels, 0.0, information=times)
    assert stopped.sum() == pytest.approx(0.05, abs=1e-6)
    allowed = [spent(time, alpha=0.05, spending=spending) for time in times]
    assert np.cumsum(stopped) == pytest.approx(allowed, abs=1e-6)


@pytest.mark.parametrize("drift", [0.0, 1.5, 3.0])
def test_stopping_probabilities_agree_with_scipys_normal_integral(drift):
    times, critical = np.array([0.4, 0.7, 1.0]), np.array([2.2, 2.0, 1.8])
    means = drift * np.sqrt(times)
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    going_on = [
        stats.multivariate_normal.cdf(
            critical[:k], mean=means[:k], cov=correlation[:k, :k], abseps=1e-9, maxpts=10**6
        )
        for k in (1, 2, 3)
    ]
    levels = stats.norm.sf(critical)
    stopped = stopping_probabilities(levels, drift, information=times.tolist())
    assert stopped == pytest.approx(-np.diff(going_on, prepend=1.0), abs=1e-5)


def test_one_look_needs_no_more_than_a_fixed_test():
    assert nominal_levels([1.0], alpha=0.05).tolist() == pytest.approx([0.05])
    assert information_ratio([1.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
def test_the_information_ratio_gives_the_power_that_was_planned(spending):
    times = [0.3, 0.6, 1.0]
    ratio = information_ratio(times, alpha=0.05, power=0.8, spending=spending)
    drift = np.sqrt(ratio) * (stats.norm.isf(0.05) + stats.norm.ppf(0.8))
    levels = nominal_levels(times, alpha=0.05, spending=spending)
    assert stopping_probabilities(levels, drift, information=times).sum() == pytest.approx(0.8)
    assert ratio > 1.0


def test_a_level_left_over_from_an_early_end_is_not_spent():
    levels = nominal_levels([0.3, 0.6], alpha=0.05)
    stopped = stopping_probabilities(levels, 0.0, information=[0.3, 0.6])
    assert stopped.sum() == pytest.approx(spent(0.6, alpha=0.05, spending="obrien_fleming"))


@pytest.mark.parametrize(
    "times", [[], [0.0, 1.0], [0.5, 0.5], [0.7, 0.3], [0.5, 1.2], [float("nan")], [0.01] * 30]
)
def test_fractions_that_do_not_ascend_to_1_are_refused(times):
    with pytest.raises(InvalidInputError, match="information"):
        nominal_levels(times)


def test_more_looks_than_can_be_planned_are_refused():
    with pytest.raises(InvalidInputError, match="looks must be at most 20"):
        nominal_levels(equally_spaced(21))


def test_other_arguments_out_of_range_are_refused():
    with pytest.raises(InvalidInputError, match="alpha"):
        nominal_levels([1.0], alpha=0.6)
    with pytest.raises(InvalidInputError, match="spending"):
        spent(0.5, spending="linear")
    with pytest.raises(InvalidInputError, match="power"):
        information_ratio([1.0], power=0.01)
    with pytest.raises(InvalidInputError, match="levels"):
        stopping_probabilities([0.05], 0.0, information=[0.5, 1.0])
