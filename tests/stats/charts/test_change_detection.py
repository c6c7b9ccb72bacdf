"""Expected values are closed forms: likelihood ratios by hand, sums over starts by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts.change_detection import (
    Alternatives,
    Limit,
    alarm_limit,
    begin,
    fit_tempers,
    log_evidence,
    log_likelihood_ratios,
    posterior,
    update,
)


def alternatives(shifts, weights=None, tempers=None):
    moves = np.array(shifts, dtype=float)
    size = moves.shape[0]
    return Alternatives(
        moves,
        np.full(size, 1.0 / size) if weights is None else np.array(weights),
        np.ones(size) if tempers is None else np.array(tempers),
    )


def odds(rate, shift):
    """Rate after adding `shift` to the log odds."""
    return 1.0 / (1.0 + (1.0 - rate) / rate * math.exp(-shift))


def test_the_ratio_is_that_of_two_binomial_likelihoods():
    # scipy's binomial probabilities under the shifted and the expected rate
    events, trials, expected = np.array([3, 7]), np.array([20, 50]), np.array([0.1, 0.2])
    ratios = log_likelihood_ratios(events, trials, expected, alternatives([[0.5, 0.0], [1.0, 0.3]]))
    for ratio, shifts in zip(ratios, [(0.5, 0.0), (1.0, 0.3)], strict=True):
        by_hand = sum(
            stats.binom.logpmf(k, n, odds(p, shift)) - stats.binom.logpmf(k, n, p)
            for k, n, p, shift in zip(events, trials, expected, shifts, strict=True)
        )
        assert_allclose(ratio, by_hand, rtol=1e-10)


def test_a_ratio_has_mean_one_while_in_control():
    # sum over all outcomes of one batch: the definition of an e-value, with equality
    expected, trials = np.array([0.2]), 30
    stated = alternatives([[0.25], [2.0]])
    counts = np.arange(trials + 1)
    ratios = log_likelihood_ratios(counts[:, None], np.full((31, 1), trials), expected, stated)
    chances = stats.binom.pmf(counts, trials, 0.2)
    assert_allclose(chances @ np.exp(ratios), [1.0, 1.0], rtol=1e-12)


def test_a_temper_makes_the_mean_smaller_never_larger():
    expected, trials = np.array([0.2]), 30
    stated = alternatives([[1.0]], tempers=[0.5])
    counts = np.arange(trials + 1)
    ratios = log_likelihood_ratios(counts[:, None], np.full((31, 1), trials), expected, stated)
    assert stats.binom.pmf(counts, trials, 0.2) @ np.exp(ratios) < 1.0


def test_the_statistic_is_the_sum_over_all_starts_and_the_head_start():
    rng = np.random.default_rng(0)
    ratios = rng.normal(size=(9, 2))
    stated, limit = alternatives([[1.0], [2.0]], weights=[0.3, 0.7]), Limit(5.0, math.log(3.0))
    state = begin(stated, limit)
    for row in ratios:
        state = update(state, row)
    sums = np.cumsum(ratios[::-1], axis=0)  # from each start to the end
    by_hand = np.exp(sums).sum(axis=0) + 3.0 * np.exp(ratios.sum(axis=0))
    assert_allclose(np.exp(state.log_statistics), by_hand)
    assert_allclose(log_evidence(state, stated), math.log(by_hand @ [0.3, 0.7]))
    assert_allclose(posterior(state, stated), by_hand * [0.3, 0.7] / (by_hand @ [0.3, 0.7]))


def test_the_change_is_dated_by_the_start_that_makes_the_ratio_largest():
    ratios = np.array([0.4, -1.0, -0.2, 0.3, 0.5, -0.1, 0.6])
    stated = alternatives([[1.0]])
    state = begin(stated, Limit(5.0, -np.inf))
    for ratio in ratios:
        state = update(state, np.array([ratio]))
    from_each_start = [ratios[start:].sum() for start in range(ratios.size)]
    assert int(state.starts[0]) == int(np.argmax(from_each_start)) == 3
    assert_allclose(state.cusums[0], max(from_each_start))
    assert state.batches == 7


def test_nothing_seen_is_the_head_start_and_no_head_start_is_nothing():
    stated = alternatives([[1.0], [2.0]])
    assert_allclose(log_evidence(begin(stated, Limit(9.0, 1.5)), stated), 1.5)
    assert log_evidence(begin(stated, Limit(9.0, -np.inf)), stated) == -np.inf


def test_boards_side_by_side_are_the_boards_one_by_one():
    rng = np.random.default_rng(1)
    stated, limit = alternatives([[0.5, 0.0], [0.5, 1.0]]), alarm_limit(1_000)
    trials = rng.integers(1, 40, size=(6, 3, 2))
    events = rng.binomial(trials, 0.2)
    expected = rng.uniform(0.1, 0.3, size=(3, 2))
    together = begin(stated, limit, (3,))
    for batch in range(6):
        together = update(
            together, log_likelihood_ratios(events[batch], trials[batch], expected, stated)
        )
    for board in range(3):
        alone = begin(stated, limit)
        for batch in range(6):
            ratios = log_likelihood_ratios(
                events[batch, board], trials[batch, board], expected[board], stated
            )
            alone = update(alone, ratios)
        assert_allclose(together.log_statistics[board], alone.log_statistics)
        assert_allclose(log_evidence(together, stated)[board], log_evidence(alone, stated))


def test_a_stream_without_trials_says_nothing():
    stated = alternatives([[1.0]])
    assert log_likelihood_ratios([0], [0], [0.1], stated).tolist() == [0.0]


def test_the_threshold_leaves_the_wanted_run_length_after_the_head_start():
    # E[R_n] <= n + r gives a run length of at least A - r
    for run_length, risk in itertools.product((10.0, 8_640.0, 1e6), (0.0, 0.01, 0.5)):
        limit = alarm_limit(run_length, release_risk=risk)
        threshold, head_start = math.exp(limit.log_threshold), math.exp(limit.log_head_start)
        assert_allclose(threshold - head_start, run_length)
        assert_allclose(head_start / threshold, risk)


def test_tempers_are_one_over_the_dispersion_of_the_score():
    # each event counted three times: variance 9 n p q for trials of 3 n, that is 3 times binomial
    rng = np.random.default_rng(2)
    trials = np.full((24_000, 1), 90)
    events = 3 * rng.binomial(30, 0.2, size=(24_000, 1))
    tempers = fit_tempers(events, trials, np.full(trials.shape, 0.2), [[0.5], [2.0]])
    assert_allclose(tempers, 1.0 / 3.0, rtol=4 * math.sqrt(2 / 2_000))


def test_signals_that_move_together_are_trusted_less_together_than_alone():
    rng = np.random.default_rng(3)
    events = rng.binomial(50, 0.2, size=(12_000, 1))
    twice = np.hstack([events, events])
    trials, expected = np.full(twice.shape, 50), np.full(twice.shape, 0.2)
    alone, both = fit_tempers(twice, trials, expected, [[1.0, 0.0], [1.0, 1.0]])
    tolerance = 4 * math.sqrt(2 / 1_000)
    assert_allclose([alone, both], [1.0, 0.5], rtol=tolerance)


def test_a_change_of_traffic_alone_does_not_lower_tempers():
    rng = np.random.default_rng(4)
    trials = rng.poisson(100 * (1.5 + np.sin(np.arange(12_000) / 45.8)))[:, None]
    events = rng.binomial(trials, 0.2)
    (temper,) = fit_tempers(events, trials, np.full(trials.shape, 0.2), [[2.0]])
    assert temper > 1.0 - 4 * math.sqrt(2 / 1_000)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: alternatives([[1.0]], weights=[0.5]), "weights must be above 0 and sum to 1"),
        (lambda: alternatives([[1.0]], tempers=[0.0]), "tempers must be in"),
        (lambda: alternatives([[1.0]], weights=[0.5, 0.5]), "shifts must have shape"),
        (lambda: alarm_limit(1.0), "run_length must be above 1 batch, got 1.0"),
        (lambda: alarm_limit(100, release_risk=1.0), "release_risk must be in"),
    ],
)
def test_bad_input_is_one_clear_error(call, rule):
    with pytest.raises(InvalidInputError, match=rule):
        call()


def test_tempers_need_enough_blocks():
    with pytest.raises(InsufficientDataError, match="at least 30 blocks of 12 batches, got 12"):
        fit_tempers(np.ones((12, 1)), np.ones((12, 1)), np.ones((12, 1)), [[1.0]])
