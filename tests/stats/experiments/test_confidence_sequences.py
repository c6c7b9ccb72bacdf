import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.experiments.boundaries import normal_mixture_rho
from ratchet.stats.experiments.confidence_sequences import (
    ConfidenceSequence,
    bernoulli_log_e,
    bernoulli_sequence,
    empirical_bernstein_sequence,
    hedged_sequence,
    proportion_difference_log_e,
    proportion_difference_sequence,
)
from ratchet.stats.intervals import newcombe_independent, wilson

counts = st.integers(1, 3_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
t_opts = st.sampled_from([1.0, 50.0, 1_000.0])
THRESHOLD = math.log(20.0)


def test_every_published_bernoulli_interval_is_reproduced(published_numbers):
    numbers = published_numbers["confseq"]
    assert len(numbers["bernoulli_ci"]) == 5
    for successes, trials, alpha, t_opt, lower, upper in numbers["bernoulli_ci"]:
        last = bernoulli_sequence(successes, trials, t_opt=t_opt, level=1.0 - alpha).last
        assert last.lower == pytest.approx(lower, abs=1e-5)
        assert last.upper == pytest.approx(upper, abs=1e-5)


@pytest.mark.parametrize(
    ("successes", "trials", "t_opt", "lower", "upper"),
    [
        # confseq, bernoulli_confidence_interval at alpha 0.05
        (700, 1000, 100, 0.651629, 0.745949),
        (1, 50, 50, 0.0, 0.13489),
        (100, 200, 1, 0.328923, 0.671076),
    ],
)
def test_the_key_bernoulli_intervals_of_confseq_are_reproduced(
    successes, trials, t_opt, lower, upper
):
    last = bernoulli_sequence(successes, trials, t_opt=t_opt).last
    assert (last.lower, last.upper) == pytest.approx((lower, upper), abs=1e-5)


@given(counts, t_opts, st.floats(0.01, 0.99))
def test_the_bernoulli_e_value_is_the_beta_binomial_mixture(count, t_opt, rate):
    successes, trials = count
    # Howard et al. (2021), proposition 7: the marginal likelihood under a beta distribution with
    # mean `rate`, over the likelihood at `rate`; r is their tuning, in the variance of a trial
    v = rate * (1.0 - rate)
    r = max(normal_mixture_rho(v * t_opt) - v, 1e-3 * v)
    up, down, failures = r / (1.0 - rate), r / rate, trials - successes
    mixture = special.betaln(up + successes, down + failures) - special.betaln(up, down)
    expected = mixture - special.xlogy(successes, rate) - special.xlogy(failures, 1.0 - rate)
    ours = bernoulli_log_e(successes, trials, rate, t_opt=t_opt)
    assert ours[0] == pytest.approx(float(expected), abs=1e-7)


@given(counts, t_opts, st.floats(0.001, 0.999))
def test_a_rate_is_excluded_exactly_when_its_e_value_reaches_the_threshold(count, t_opt, rate):
    log_e = float(bernoulli_log_e(*count, rate, t_opt=t_opt)[0])
    if abs(log_e - THRESHOLD) > 1e-6:
        excluded = rate not in bernoulli_sequence(*count, t_opt=t_opt).last
        assert excluded == (log_e >= THRESHOLD)


@given(counts, t_opts)
def test_the_log_e_value_is_convex_in_the_rate(count, t_opt):
    rates = np.linspace(0.001, 0.999, 101)
    values = [float(bernoulli_log_e(*count, rate, t_opt=t_opt)[0]) for rate in rates]
    assert np.diff(values, 2).min() >= -1e-7


@given(counts, t_opts)
def test_the_bernoulli_interval_contains_the_share_and_mirrors(count, t_opt):
    successes, trials = count
    one = bernoulli_sequence(successes, trials, t_opt=t_opt).last
    other = bernoulli_sequence(trials - successes, trials, t_opt=t_opt).last
    assert successes / trials in one
    assert 0.0 <= one.lower < one.upper <= 1.0
    assert one.lower == pytest.approx(1.0 - other.upper, abs=1e-9)


def test_a_higher_level_is_wider_and_more_trials_are_narrower():
    widths = []
    for level in (0.8, 0.95, 0.999):
        sequence = bernoulli_sequence(
            [30, 300, 3_000], [100, 1_000, 10_000], t_opt=500, level=level
        )
        assert (np.diff(sequence.upper - sequence.lower) < 0.0).all()
        widths.append(sequence.upper - sequence.lower)
    assert (np.diff(widths, axis=0) > 0.0).all()


def test_the_price_of_looking_always_is_half_as_wide_again_at_the_tuned_look():
    fixed, sequence = wilson(400, 1_000), bernoulli_sequence(400, 1_000, t_opt=1_000).last
    ratio = (sequence.upper - sequence.lower) / (fixed.upper - fixed.lower)
    # normal mixture at its v_opt: sqrt((1 + rho) (log(1 + 1 / rho) + 2 log 20)) / 1.96
    assert ratio == pytest.approx(1.55, abs=0.02)


def test_many_looks_at_once_are_each_look_alone():
    done, total = np.array([3, 9, 40]), np.array([10, 30, 100])
    sequence = bernoulli_sequence(done, total, t_opt=50)
    for look in range(3):
        alone = bernoulli_sequence(done[look], total[look], t_opt=50).last
        assert (sequence.lower[look], sequence.upper[look]) == (alone.lower, alone.upper)
    assert len(sequence) == 3


# Difference of two proportions --------------------------------------------------------------------

arms = st.tuples(counts, counts)


@settings(max_examples=25, deadline=None)
@given(arms, st.floats(-0.9, 0.9))
def test_a_difference_is_excluded_exactly_when_its_e_value_reaches_the_threshold(pair, difference):
    first, second = pair
    log_e = proportion_difference_log_e(*first, *second, t_opt=200, difference=difference)
    if abs(float(log_e[0]) - THRESHOLD) > 1e-6:
        last = proportion_difference_sequence(*first, *second, t_opt=200).last
        assert (difference not in last) == (float(log_e[0]) >= THRESHOLD)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(arms)
def test_the_difference_changes_sign_when_the_arms_swap_and_contains_the_observed_one(pair):
    first, second = pair
    one = proportion_difference_sequence(*first, *second, t_opt=200).last
    other = proportion_difference_sequence(*second, *first, t_opt=200).last
    assert second[0] / second[1] - first[0] / first[1] in one
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-9)


def test_the_e_value_of_a_difference_is_the_smallest_product_over_a_fine_grid():
    rates = np.linspace(1e-4, 0.8999, 9_000)
    products = [
        float(
            bernoulli_log_e(30, 90, p, t_opt=100)[0]
            + bernoulli_log_e(50, 80, p + 0.1, t_opt=100)[0]
        )
        for p in rates[::9]
    ]
    ours = proportion_difference_log_e(30, 90, 50, 80, t_opt=100, difference=0.1)
    assert ours[0] == pytest.approx(min(products), abs=1e-4)
    assert ours[0] <= min(products)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.7])
def test_the_difference_is_narrower_than_two_sequences_at_half_the_error_each(rate):
    trials = 1_000
    arm = (round(rate * trials), trials)
    joint = proportion_difference_sequence(*arm, *arm, t_opt=trials).last
    alone = bernoulli_sequence(*arm, t_opt=trials, level=0.975).last
    # Pythagoras against the sum of two sides: 1 / sqrt(2), and less for the shared threshold
    ratio = (joint.upper - joint.lower) / (2.0 * (alone.upper - alone.lower))
    assert ratio == pytest.approx(0.76, abs=0.04)


def test_one_arm_may_stand_still_while_the_other_grows():
    sequence = proportion_difference_sequence(
        [20, 20, 20], [50, 50, 50], [5, 50, 500], [10, 100, 1_000], t_opt=100
    )
    assert (np.diff(sequence.upper - sequence.lower) < 0.0).all()


def test_a_sequence_is_wider_than_the_interval_of_one_look():
    fixed = newcombe_independent(40, 100, 50, 100)
    sequence = proportion_difference_sequence(40, 100, 50, 100, t_opt=100).last
    assert sequence.lower < fixed.lower < fixed.upper < sequence.upper


# Bounded means ------------------------------------------------------------------------------------

BOUNDED = [empirical_bernstein_sequence, hedged_sequence]


@pytest.fixture
def scores():
    return np.random.default_rng(7).beta(6.0, 2.0, size=600)


def test_the_empirical_bernstein_interval_of_two_values_is_the_formula_by_hand():
    # theorem 2 with x = (1, 0): means before 0.5, 0.75; variances before 0.25, (0.25 + 0.0625) / 2
    wager = math.log(2.0 / 0.05)
    bets = [
        min(0.5, math.sqrt(2.0 * wager / (0.25 * math.log(2.0)))),
        min(0.5, math.sqrt(2.0 * wager / (0.15625 * 2.0 * math.log(3.0)))),
    ]
    spread = sum(d * (-math.log(1.0 - b) - b) for b, d in zip(bets, (0.25, 0.5625), strict=True))
    center, half = bets[0] / sum(bets), (wager + spread) / sum(bets)
    last = empirical_bernstein_sequence([1.0, 0.0]).last
    assert half > 1.0
    assert (last.lower, last.upper) == (max(0.0, center - half), min(1.0, center + half))
    # narrow enough not to be cut, from a long run of halves: the center is exactly one half
    long = empirical_bernstein_sequence(np.full(500, 0.5)).last
    assert 0.0 < long.lower < 0.5 < long.upper < 1.0
    assert long.lower + long.upper == pytest.approx(1.0)


def test_a_mean_is_excluded_exactly_when_a_gambler_has_the_capital(scores):
    level, resolution = 0.95, 100
    sequence = hedged_sequence(scores[:80], level=level, resolution=resolution)
    number = np.arange(1, 81)
    mean = (0.5 + np.cumsum(scores[:80])) / (number + 1)
    variance = (0.25 + np.cumsum((scores[:80] - mean) ** 2)) / (number + 1)
    before = np.concatenate(([0.25], variance[:-1]))
    bets = np.sqrt(2.0 * math.log(40.0) / (before * number * np.log(1.0 + number)))
    kept = np.ones((resolution - 1, 80), dtype=bool)
    for row, m in enumerate(np.arange(1, resolution) / resolution):
        up = np.cumprod(1.0 + np.minimum(bets, 0.5 / m) * (scores[:80] - m))
        down = np.cumprod(1.0 - np.minimum(bets, 0.5 / (1.0 - m)) * (scores[:80] - m))
        kept[row] = np.maximum(up, down) / 2.0 < 1.0 / (1.0 - level)
    for look in range(80):
        inside = (np.flatnonzero(kept[:, look]) + 1) / resolution
        assert sequence.lower[look] == pytest.approx(inside[0] - 1 / resolution)
        assert sequence.upper[look] == pytest.approx(inside[-1] + 1 / resolution)


@pytest.mark.parametrize("sequence_of", BOUNDED)
def test_a_bounded_mean_mirrors_and_scales_with_its_support(sequence_of, scores):
    plain = sequence_of(scores)
    mirrored = sequence_of(1.0 - scores)
    scaled = sequence_of(4.0 * scores - 2.0, support=(-2.0, 2.0))
    assert mirrored.lower == pytest.approx(1.0 - plain.upper)
    assert scaled.lower == pytest.approx(4.0 * plain.lower - 2.0)
    assert scaled.upper == pytest.approx(4.0 * plain.upper - 2.0)


@pytest.mark.parametrize("sequence_of", BOUNDED)
def test_a_bounded_mean_at_a_look_does_not_depend_on_later_values(sequence_of, scores):
    whole, part = sequence_of(scores), sequence_of(scores[:100])
    assert whole.lower[:100] == pytest.approx(part.lower)
    assert whole.upper[:100] == pytest.approx(part.upper)


@pytest.mark.parametrize("sequence_of", BOUNDED)
def test_a_bounded_mean_is_wider_at_a_higher_level_and_narrows_to_the_mean(sequence_of, scores):
    narrow, wide = sequence_of(scores, level=0.9), sequence_of(scores, level=0.999)
    assert (wide.lower <= narrow.lower).all()
    assert (wide.upper >= narrow.upper).all()
    assert narrow.lower[-1] < scores.mean() < narrow.upper[-1]
    assert narrow.upper[-1] - narrow.lower[-1] < 0.15


def test_betting_is_narrower_than_empirical_bernstein_with_few_values(scores):
    hedged, bernstein = hedged_sequence(scores), empirical_bernstein_sequence(scores)
    for look in (30, 100, 300):
        assert (
            hedged.upper[look] - hedged.lower[look] < bernstein.upper[look] - bernstein.lower[look]
        )


def test_what_was_excluded_stays_excluded_in_the_intersection(scores):
    sequence = hedged_sequence(scores)
    running = sequence.intersected()
    assert (np.diff(running.lower) >= 0.0).all()
    assert (np.diff(running.upper) <= 0.0).all()
    assert (running.lower >= sequence.lower).all()
    assert running.level == sequence.level


def test_looks_that_contradict_each_other_are_an_error():
    sequence = ConfidenceSequence(np.array([0.1, 0.5]), np.array([0.3, 0.7]), 0.95)
    with pytest.raises(InvalidInputError, match="got none left at look 2"):
        sequence.intersected()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bernoulli_sequence(0, 0, t_opt=1), InsufficientDataError, "at least 1 trial"),
        (lambda: bernoulli_sequence(3, 2, t_opt=1), InvalidInputError, "got 3 of 2"),
        (lambda: bernoulli_sequence(0.5, 2, t_opt=1), InvalidInputError, "whole numbers"),
        (lambda: bernoulli_sequence([], [], t_opt=1), InsufficientDataError, "at least 1 look"),
        (lambda: bernoulli_sequence([1], [2, 4], t_opt=1), InvalidInputError, "got 1 and 2; pass"),
        (
            lambda: bernoulli_sequence([5, 3], [10, 10], t_opt=1),
            InvalidInputError,
            r"cumulative, got 5 of 10 and then 3 of 10; pass np\.cumsum",
        ),
        (lambda: bernoulli_sequence([5, 9], [10, 11], t_opt=1), InvalidInputError, "cumulative"),
        (lambda: bernoulli_sequence(1, 2, t_opt=0), InvalidInputError, "v_opt must be above 0"),
        (lambda: bernoulli_sequence(1, 2, t_opt=1, level=95), InvalidInputError, "level must be"),
        (lambda: bernoulli_log_e(1, 2, 0.0, t_opt=1), InvalidInputError, "rate must be in"),
        (
            lambda: proportion_difference_sequence([1], [2], [1, 2], [2, 4], t_opt=1),
            InvalidInputError,
            "same looks, got 1 and 2; repeat",
        ),
        (
            lambda: proportion_difference_log_e(1, 2, 1, 2, t_opt=1, difference=2.0),
            InvalidInputError,
            "difference must be in",
        ),
        (lambda: hedged_sequence([]), InsufficientDataError, "at least 1 value"),
        (lambda: hedged_sequence([0.5, 1.5]), InvalidInputError, r"in \[0, 1\], got 1.5; pass"),
        (lambda: hedged_sequence([0.5], resolution=1), InvalidInputError, "at least 2, got 1"),
        (lambda: empirical_bernstein_sequence([np.nan]), InvalidInputError, "got nan"),
        (
            lambda: empirical_bernstein_sequence([0.5], support=(1.0, 0.0)),
            InvalidInputError,
            "ascending order",
        ),
        (
            lambda: empirical_bernstein_sequence([0.5], largest_bet=1.0),
            InvalidInputError,
            r"largest_bet must be in \(0, 1\), got 1",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
