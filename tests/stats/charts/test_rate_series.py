"""Expected values are sums by hand and the normal law of three standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts.rate_series import rate_series


def test_batches_are_summed_to_points_and_the_last_one_may_be_short():
    series = rate_series(
        [0, 5, 10, 15, 20], [1, 2, 0, 3, 4], [10, 20, 5, 15, 8], [0.1, 0.2, 0.3, 0.1, 0.5], group=2
    )
    assert_allclose(series.starts, [0, 10, 20])
    assert_allclose(series.trials, [30, 20, 8])
    assert_allclose(series.values, [3 / 30, 3 / 20, 4 / 8])
    center = np.array([(1 + 4) / 30, (1.5 + 1.5) / 20, 0.5])  # weighted by trials
    assert_allclose(series.expected, center)
    half = 3.0 * np.sqrt(center * (1 - center) / [30, 20, 8])
    assert_allclose(series.upper, np.minimum(center + half, 1.0))
    assert_allclose(series.lower, np.maximum(center - half, 0.0))


def test_limits_stay_within_what_a_share_can_be():
    series = rate_series([0, 1], [0, 1], [1, 1], [0.01, 0.99], group=1)
    assert series.lower[0] == 0.0
    assert series.upper[1] == 1.0


def test_points_without_trials_are_left_out():
    series = rate_series([0, 1, 2], [0, 0, 1], [4, 0, 4], [0.5, 0.5, 0.5], group=1)
    assert series.starts.tolist() == [0.0, 2.0]


def test_a_point_outside_its_limits_is_a_signal_on_either_side():
    # 400 trials at 0.5: the limits are 0.5 -+ 0.075, that is 170 and 230 events
    events = [170, 171, 229, 230, 169, 231]
    series = rate_series(range(6), events, [400] * 6, [0.5] * 6, group=1)
    assert series.signals.tolist() == [4, 5]


def test_a_moving_expectation_moves_the_limits():
    expected = 0.2 + 0.1 * np.sin(np.arange(200) / 10.0)
    trials = np.full(200, 10_000)
    events = np.round(trials * expected)
    series = rate_series(np.arange(200), events, trials, expected, group=1)
    assert series.signals.size == 0
    flat = rate_series(np.arange(200), events, trials, np.full(200, 0.2), group=1)
    assert flat.signals.size > 100


def test_in_control_points_lie_outside_as_rarely_as_stated():
    """0.27 % by the normal law; the tolerance is the binomial error of the simulation."""
    rng = np.random.default_rng(0)
    points = 100_000
    trials = np.full(points, 2_000)
    events = rng.binomial(trials, 0.2)
    series = rate_series(np.arange(points), events, trials, np.full(points, 0.2), group=1)
    share = series.signals.size / points
    stated = 2.0 * stats.norm.sf(3.0)
    assert abs(share - stated) < 4.0 * math.sqrt(stated / points)


def test_grouping_a_group_is_grouping_at_once():
    rng = np.random.default_rng(1)
    trials = rng.integers(1, 30, 48)
    events, expected = rng.binomial(trials, 0.3), rng.uniform(0.2, 0.4, 48)
    coarse = rate_series(np.arange(48), events, trials, expected, group=12)
    fine = rate_series(np.arange(48), events, trials, expected, group=4)
    again = rate_series(fine.starts, fine.values * fine.trials, fine.trials, fine.expected, group=3)
    for field in ("starts", "values", "expected", "lower", "upper", "trials"):
        assert_allclose(getattr(again, field), getattr(coarse, field))


def test_unequal_lengths_and_no_trials_are_clear_errors():
    with pytest.raises(InvalidInputError, match="must be equally long"):
        rate_series([0, 1], [1], [1], [0.5])
    with pytest.raises(InsufficientDataError, match="needs a batch with trials"):
        rate_series([0, 1], [0, 0], [0, 0], [0.5, 0.5])
    with pytest.raises(InsufficientDataError, match="needs a batch with trials"):
        rate_series([], [], [], [])
