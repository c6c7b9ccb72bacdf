"""Expected values: the closed form of a saturated logistic model, and planted truths."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts.rate_models import cycle_columns, expected_log_odds, fit_rate_model


def logit(rate):
    return np.log(rate / (1.0 - rate))


def test_a_saturated_model_gives_the_observed_log_odds_and_their_textbook_errors():
    # one parameter a cell: log odds of the cell, variance 1 / (n p q)
    events, trials = np.array([20.0, 90.0]), np.array([100.0, 300.0])
    model = fit_rate_model(events, trials, np.eye(2))
    mean, error = expected_log_odds(model, np.eye(2))
    rates = events / trials
    assert_allclose(mean, logit(rates), atol=1e-3)  # the ridge penalty moves the third decimal
    assert_allclose(error, 1.0 / np.sqrt(trials * rates * (1.0 - rates)), rtol=1e-3)
    assert (model.trials, model.events, model.dispersion) == (400, 110, 1.0)


def test_planted_cycles_and_segments_are_found_within_their_errors():
    rng = np.random.default_rng(0)
    seconds = 3_600.0 * np.arange(24 * 28)
    cycles = np.repeat(cycle_columns(seconds), 2, axis=0)
    segment = np.tile([0.0, 1.0], seconds.size)
    design = np.column_stack([cycles, segment])
    truth = np.array([-2.0, 0.3, 0.1, 0.2, -0.1, 0.25, 0.5])
    trials = rng.poisson(500, size=design.shape[0])
    events = rng.binomial(trials, 1.0 / (1.0 + np.exp(-design @ truth)))
    model = fit_rate_model(events, trials, design)
    errors = np.sqrt(np.diag(model.covariance))
    assert (np.abs(model.coefficients - truth) < 4.0 * errors).all()
    assert model.dispersion < 1.0 + 4.0 * np.sqrt(2.0 / design.shape[0])


def test_counts_that_vary_beyond_chance_widen_the_errors():
    rng = np.random.default_rng(1)
    doubled = 2 * rng.binomial(50, 0.3, size=2_000)  # variance twice the binomial one
    model = fit_rate_model(doubled, np.full(2_000, 100), np.ones((2_000, 1)))
    assert_allclose(model.dispersion, 2.0, rtol=4.0 * np.sqrt(2.0 / 2_000))
    assert_allclose(model.covariance[0, 0], 2.0 / (2_000 * 100 * 0.3 * 0.7), rtol=0.15)


def test_a_signal_that_never_fired_has_a_finite_expectation_that_is_little_known():
    model = fit_rate_model(np.zeros(50), np.full(50, 20), np.ones((50, 1)))
    mean, error = expected_log_odds(model, np.ones((1, 1)))
    assert np.isfinite(mean).all()
    assert mean[0] < logit(1 / 1_000)
    assert error[0] > 0.5


def test_batches_without_trials_change_nothing():
    with_gap = fit_rate_model([5, 0, 7], [50, 0, 60], np.ones((3, 1)))
    without = fit_rate_model([5, 7], [50, 60], np.ones((2, 1)))
    assert_allclose(with_gap.coefficients, without.coefficients)


def test_the_weekend_is_saturday_and_sunday_in_utc():
    monday = datetime(2026, 3, 2, 12, tzinfo=UTC)
    days = [(monday + timedelta(days=day)).timestamp() for day in range(7)]
    assert cycle_columns(days)[:, -1].tolist() == [0.0] * 5 + [1.0, 1.0]
    edges = [datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC)]
    assert cycle_columns([edge.timestamp() for edge in edges])[:, -1].tolist() == [1.0, 0.0]


def test_the_waves_repeat_every_day():
    now = datetime(2026, 3, 2, 7, 35, tzinfo=UTC).timestamp()
    today, tomorrow = cycle_columns([now, now + 86_400.0])
    assert_allclose(today, tomorrow, atol=1e-9)


@pytest.mark.parametrize(
    ("events", "trials", "design", "rule"),
    [
        ([1, 2], [3], np.ones((2, 1)), "must be equally long"),
        ([1, 2], [3, 4], np.ones((3, 1)), "must be equally long"),
        ([4], [3], np.ones((1, 1)), "events must be from 0 to the trials"),
        ([-1], [3], np.ones((1, 1)), "events must be from 0 to the trials"),
    ],
)
def test_bad_input_is_one_clear_error(events, trials, design, rule):
    with pytest.raises(InvalidInputError, match=rule):
        fit_rate_model(events, trials, design)


def test_no_trials_at_all_is_an_error_not_a_rate():
    with pytest.raises(InsufficientDataError, match="at least one trial, got none"):
        fit_rate_model([0, 0], [0, 0], np.ones((2, 1)))
