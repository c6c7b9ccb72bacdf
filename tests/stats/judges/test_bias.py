import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.intervals import newcombe_independent, newcombe_paired, wilson
from ratchet.stats.judges.bias import (
    Effect,
    bounded_mean_interval,
    position_bias,
    self_preference,
    subtract,
    uplift,
)
from ratchet.stats.judges.drift import judge_drift
from ratchet.stats.judges.length import length_controlled_win_rate, longest_answer_win_rate

NAN = math.nan
verdict = st.sampled_from([0.0, 0.5, 1.0])
verdict_or_none = st.sampled_from([0.0, 0.5, 1.0, NAN])
scores = st.floats(0.0, 1.0, allow_nan=False)
Z = stats.norm.ppf(0.975)


def pair_lists(element, least=2, most=40):
    return st.integers(least, most).flatmap(
        lambda n: st.tuples(*(st.lists(element, min_size=n, max_size=n) for _ in range(2)))
    )


def ends(result):
    interval = getattr(result, "interval", result)
    return interval.lower, interval.upper


def mirrored(interval):
    return pytest.approx((-interval.upper, -interval.lower))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("module", ["bias", "length", "drift"])
def test_the_examples_of_the_docstrings_hold(module):
    names = {"math": math, "np": np, "special": special}
    found = importlib.import_module(f"ratchet.stats.judges.{module}")
    assert doctest.testmod(found, extraglobs=names).failed == 0


# The interval of a bounded mean -------------------------------------------------------------------


def test_values_at_the_ends_give_agresti_and_coull_with_t():
    # p~ = (k + z^2/2) / (n + z^2), se = sqrt(p~ (1 - p~) / (n + z^2)), by hand
    k, n = 13, 40
    centre = (k + Z**2 / 2) / (n + Z**2)
    half = stats.t.ppf(0.975, n - 1) * math.sqrt(centre * (1 - centre) / (n + Z**2))
    interval = bounded_mean_interval([1.0] * k + [0.0] * (n - k), low=0.0)
    assert ends(interval) == pytest.approx((centre - half, centre + half))


def test_equal_values_have_a_width_that_shrinks_as_one_over_n():
    # all 0: variance z^2 / N of N = n + z^2, so t z / N
    for n in (10, 1_000):
        t = stats.t.ppf(0.975, n - 1)
        assert bounded_mean_interval([0.0] * n).upper == pytest.approx(t * Z / (n + Z**2))


def test_many_values_give_students_interval(rng):
    values = rng.uniform(-1, 1, size=200_000)
    t = stats.t.interval(0.95, values.size - 1, values.mean(), stats.sem(values))
    assert ends(bounded_mean_interval(values)) == pytest.approx(t, abs=2e-5)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=60), st.floats(0.5, 0.999))
def test_a_bounded_interval_contains_the_mean_within_the_range(values, level):
    interval = bounded_mean_interval(values, level=level)
    assert -1.0 <= interval.lower <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= interval.upper <= 1.0
    assert interval.upper > interval.lower
    flipped = bounded_mean_interval([-value for value in values], level=level)
    assert ends(flipped) == mirrored(interval)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_a_bounded_interval_moves_with_the_scale(values):
    base = np.array(ends(bounded_mean_interval(values, low=0.0)))
    stretched = bounded_mean_interval([5 * v + 1 for v in values], low=1.0, high=6.0)
    assert ends(stretched) == pytest.approx(tuple(5 * base + 1))


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ([0.5], {}, InsufficientDataError, "at least 2 values, got 1"),
        ([0.5, 1.5], {}, InvalidInputError, r"in \[-1, 1\], got 1.5"),
        ([0.5, NAN], {}, InvalidInputError, "got nan"),
        ([0.5, 0.5], {"low": 1.0}, InvalidInputError, "high must exceed low"),
        ([0.5, 0.5], {"level": 95}, InvalidInputError, "level must be in"),
    ],
)
def test_a_bounded_interval_refuses_what_it_cannot_use(values, options, error, message):
    with pytest.raises(error, match=message):
        bounded_mean_interval(values, **options)


def test_square_and_add_of_wilson_limits_is_newcombes_independent_interval():
    first, second = Effect(48 / 80, wilson(48, 80)), Effect(56 / 70, wilson(56, 70))
    published = newcombe_independent(48, 80, 56, 70)
    assert ends(subtract(second, first)) == pytest.approx(ends(published))


# Position -----------------------------------------------------------------------------------------


def test_position_bias_without_ties_is_half_of_newcombes_paired_interval():
    # both 20, only shown first 12, only shown second 3, neither 15
    shown_first = [1.0] * 32 + [0.0] * 18
    shown_second = [1.0] * 20 + [0.0] * 12 + [1.0] * 3 + [0.0] * 15
    result = position_bias(shown_first, shown_second)
    expected = newcombe_paired(20, 3, 12, 15)
    assert result.estimate == pytest.approx(9 / 100)
    assert ends(result) == pytest.approx((expected.lower / 2, expected.upper / 2))
    assert result.consistency == Effect(35 / 50, wilson(35, 50))
    assert result.first_position == Effect(12 / 15, wilson(12, 15))
    assert (result.pairs, result.disagreements, result.left_out) == (50, 15, 0)


def test_the_combined_verdict_is_a_tie_where_orders_disagree_and_missing_where_one_is():
    first = [1.0, 0.0, 0.5, 1.0, 1.0, NAN, 1.0, NAN]
    second = [1.0, 0.0, 0.5, 0.0, 0.5, 1.0, NAN, NAN]
    result = position_bias(first, second)
    np.testing.assert_array_equal(result.verdicts, [1.0, 0.0, 0.5, 0.5, 0.5, NAN, NAN, NAN])
    assert (result.pairs, result.disagreements, result.left_out) == (5, 2, 3)
    assert (result.unparsable_first, result.unparsable_second) == (2, 2)
    # f - s is 1 and 1/2 in two of five pairs
    assert result.estimate == pytest.approx(1.5 / 5 / 2)


def test_a_judge_that_always_takes_the_first_answer_has_half_of_the_win_rate_as_effect():
    result = position_bias([1.0] * 40, [0.0] * 40)
    assert (result.estimate, result.consistency.estimate) == (0.5, 0.0)
    assert result.first_position.estimate == 1.0
    assert result.interval.upper == 0.5
    assert result.interval.lower > 0.4


def test_a_consistent_judge_has_no_leaning_but_an_interval():
    result = position_bias([1.0, 0.0] * 20, [1.0, 0.0] * 20)
    assert result.first_position is None
    assert result.estimate == 0.0
    assert result.interval.lower < 0.0 < result.interval.upper


@given(pair_lists(verdict_or_none))
def test_renaming_the_answers_changes_nothing_and_swapping_the_orders_flips_the_sign(lists):
    first, second = (np.array(part) for part in lists)
    if (~np.isnan(first + second)).sum() < 2:
        return
    base = position_bias(first, second)
    # the other answer as the first one: verdicts mirrored, and its orders exchanged
    renamed = position_bias(1.0 - second, 1.0 - first)
    assert renamed.estimate == pytest.approx(base.estimate)
    assert ends(renamed) == pytest.approx(ends(base))
    np.testing.assert_array_equal(renamed.verdicts, 1.0 - base.verdicts)
    swapped = position_bias(second, first)
    assert swapped.estimate == pytest.approx(-base.estimate)
    assert ends(swapped) == mirrored(base.interval)
    assert swapped.consistency == base.consistency


@given(pair_lists(verdict), st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(lists, random):
    pairs = list(zip(*lists, strict=True))
    base = position_bias(*lists)
    random.shuffle(pairs)
    mixed = position_bias(*zip(*pairs, strict=True))
    assert (mixed.consistency, mixed.disagreements) == (base.consistency, base.disagreements)
    assert ends(mixed) == pytest.approx(ends(base))


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        ([1.0, NAN], [NAN, 0.0], InsufficientDataError, "none of 2"),
        ([], [], InsufficientDataError, "none of 0"),
        ([0.5], [1.0], InsufficientDataError, "at least 2 values"),
        ([0.7], [1.0], InvalidInputError, "first_order must be 0, 0.5, 1 or NaN"),
        ([1.0], [1.0, 0.0], InvalidInputError, r"lengths \[1, 2\]"),
    ],
)
def test_position_bias_refuses_what_it_cannot_use(first, second, error, message):
    with pytest.raises(error, match=message):
        position_bias(first, second)


# Self-preference ----------------------------------------------------------------------------------


def test_self_preference_is_the_paired_interval_of_the_own_family_and_its_difference():
    people = [1.0] * 22 + [0.0] * 28
    judge = [1.0] * 20 + [0.0] * 2 + [1.0] * 12 + [0.0] * 16
    others = [1.0] * 10 + [0.0] * 20
    result = self_preference(judge + others, people + others, [True] * 50 + [False] * 30)
    assert result.estimate == pytest.approx(10 / 50)
    assert ends(result) == pytest.approx(ends(newcombe_paired(20, 2, 12, 16)))
    other = newcombe_paired(10, 0, 0, 20)
    assert ends(result.other_families) == pytest.approx(ends(other))
    below = math.hypot(result.estimate - result.interval.lower, other.upper)
    assert result.difference.interval.lower == pytest.approx(0.2 - below)
    assert (result.judge_rate, result.human_rate) == (32 / 50, 22 / 50)
    assert (result.pairs, result.other_pairs, result.left_out) == (50, 30, 0)


def test_a_planted_self_preference_is_recovered_and_a_better_family_is_no_bias(rng):
    own = np.arange(4_000) < 2_000
    people = (rng.random(4_000) < np.where(own, 0.8, 0.5)).astype(float)
    fair = np.where(rng.random(4_000) < 0.1, 1.0 - people, people)
    biased = np.where(own & (rng.random(4_000) < 0.3), 1.0, people)
    # flips move 0.1 (1 - 2 p): -0.06 for p = 0.8; the planted preference 0.3 (1 - p) = 0.06
    assert -0.06 in self_preference(fair, people, own).interval
    result = self_preference(biased, people, own)
    assert 0.06 in result.interval
    assert 0.0 not in result.interval
    assert 0.0 in result.other_families.interval


def test_what_moves_all_pairs_alike_cancels_in_the_difference(rng):
    own = np.arange(4_000) % 2 == 0
    people = (rng.random(4_000) < 0.4).astype(float)
    judge = np.where(rng.random(4_000) < 0.2, 1.0, people)  # prefers whatever stands here
    result = self_preference(judge, people, own)
    assert 0.0 not in result.interval
    assert 0.0 in result.difference.interval


def test_without_pairs_of_other_families_there_is_no_difference():
    result = self_preference([1.0, 0.5, 1.0], [0.5, 0.5, NAN], [True, True, False])
    assert (result.other_families, result.difference) == (None, None)
    assert (result.pairs, result.other_pairs, result.left_out) == (2, 0, 1)
    assert result.estimate == 0.25


@given(pair_lists(verdict, least=4))
def test_swapping_judge_and_people_flips_the_sign(lists):
    judge, people = lists
    own = [True, True, False, False, *[True] * (len(judge) - 4)]
    base, swapped = self_preference(judge, people, own), self_preference(people, judge, own)
    assert swapped.estimate == pytest.approx(-base.estimate)
    assert ends(swapped) == mirrored(base.interval)
    assert ends(swapped.difference) == mirrored(base.difference.interval)


@pytest.mark.parametrize(
    ("judge", "people", "own", "error", "message"),
    [
        ([1.0, 1.0], [1.0, NAN], [True, True], InsufficientDataError, "got 1"),
        ([1.0, 1.0], [1.0, 0.0], [1, 0], InvalidInputError, "must be booleans"),
        ([1.0, 2.0], [1.0, 0.0], [True, True], InvalidInputError, "judge_verdicts must be in"),
        ([1.0], [1.0, 0.0], [True, True], InvalidInputError, "lengths"),
    ],
)
def test_self_preference_refuses_what_it_cannot_use(judge, people, own, error, message):
    with pytest.raises(error, match=message):
        self_preference(judge, people, own)


# Uplift -------------------------------------------------------------------------------------------


def test_uplift_of_binary_scores_is_newcombes_paired_interval():
    plain = [1.0] * 65 + [0.0] * 96
    treated = [1.0] * 59 + [0.0] * 6 + [1.0] * 16 + [0.0] * 80
    result = uplift(plain, treated)
    assert ends(result) == pytest.approx(ends(newcombe_paired(59, 6, 16, 80)))
    assert result.gained == Effect(16 / 161, wilson(16, 161))
    assert result.lost == Effect(6 / 161, wilson(6, 161))
    # the published interval 0.0046 to 0.1186 is above 0, not above 0.01
    assert result.harmful
    assert not uplift(plain, treated, tolerance=0.01).harmful


def test_uplift_of_scores_is_the_bounded_interval_of_differences(rng):
    plain = np.round(rng.random(80) * 4) / 4
    treated = np.minimum(1.0, plain + np.where(rng.random(80) < 0.3, 0.25, 0.0))
    result = uplift(plain, treated)
    assert ends(result) == pytest.approx(ends(bounded_mean_interval(treated - plain)))
    assert result.estimate == pytest.approx(np.mean(treated - plain))


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_a_treatment_that_changes_nothing_has_an_interval_with_a_width(score):
    result = uplift([score] * 30, [score] * 30)
    assert result.estimate == 0.0
    assert 0.05 < result.interval.upper < 0.2
    assert not result.harmful


@given(pair_lists(scores))
def test_swapping_plain_and_treated_flips_the_sign(lists):
    plain, treated = lists
    base, swapped = uplift(plain, treated), uplift(treated, plain)
    assert ends(swapped) == mirrored(base.interval)
    assert (swapped.gained, swapped.lost) == (base.lost, base.gained)
    assert base.harmful == (base.interval.lower > 0.0)


def test_missing_scores_are_left_out_and_counted():
    result = uplift([0.2, NAN, 0.4, 0.5], [0.2, 0.3, NAN, 0.7])
    assert (result.items, result.left_out) == (2, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: uplift([NAN], [1.0]), InsufficientDataError, "none of 1"),
        (lambda: uplift([0.3], [0.4]), InsufficientDataError, "at least 2 values"),
        (lambda: uplift([], []), InsufficientDataError, "none of 0"),
        (lambda: uplift([1.0], [1.2]), InvalidInputError, "treated must be in"),
        (lambda: uplift([1.0], [1.0], tolerance=-0.1), InvalidInputError, "tolerance must be in"),
        (lambda: uplift([1.0], [1.0], level=0.0), InvalidInputError, "level must be in"),
    ],
)
def test_uplift_refuses_what_it_cannot_use(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Length -------------------------------------------------------------------------------------------


def simulated(rng, pairs=400, *, quality=0.0, slope=1.5, mean=1.0, ties=0.0):
    """Verdicts of a judge that likes length, and length differences of deviation 1."""
    lengths = rng.normal(mean, 1.0, pairs)
    wins = (rng.random(pairs) < special.expit(quality + slope * np.tanh(lengths))).astype(float)
    return np.where(rng.random(pairs) < ties, 0.5, wins), lengths


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_fit_is_the_maximum_of_the_fractional_likelihood_by_scipy(rng, scale):
    y, x = simulated(rng, ties=0.2)
    z = np.tanh(x / (scale * x.std(ddof=1)))

    def loss(theta):
        odds = theta[0] + theta[1] * z
        return np.sum(np.logaddexp(0.0, odds) - y * odds)

    best = optimize.minimize(loss, [0.0, 0.0], method="BFGS").x
    result = length_controlled_win_rate(y, x, scale=scale)
    assert result.estimate == pytest.approx(special.expit(best[0]), abs=1e-5)
    assert result.coefficient.estimate == pytest.approx(best[1], abs=1e-4)
    effect = special.expit(best[0] + best[1] * np.tanh(1.0 / scale)) - special.expit(best[0])
    assert result.length_effect.estimate == pytest.approx(effect, abs=1e-5)


def test_two_lengths_of_one_size_have_a_closed_form():
    # tanh takes two values -c and c, so the model is saturated: logit of the share in each group
    longer, shorter, c = 30 / 40, 12 / 40, math.tanh(1.0 / math.sqrt(80 / 79))
    y = [1.0] * 30 + [0.0] * 10 + [1.0] * 12 + [0.0] * 28
    result = length_controlled_win_rate(y, [5.0] * 40 + [-5.0] * 40)
    middle = (special.logit(longer) + special.logit(shorter)) / 2
    slope = (special.logit(longer) - special.logit(shorter)) / (2 * c)
    assert result.estimate == pytest.approx(special.expit(middle))
    assert result.coefficient.estimate == pytest.approx(slope)
    # HC3: each group's logit has variance (n / (n - 1))^2 / (n p (1 - p)); leverage is 1 / n
    variance = sum((40 / 39) ** 2 / (40 * p * (1 - p)) for p in (longer, shorter)) / 4
    half = stats.t.ppf(0.975, 78) * math.sqrt(variance)
    expected = (special.expit(middle - half), special.expit(middle + half))
    assert ends(result) == pytest.approx(expected)


def test_a_raw_win_rate_from_length_alone_is_brought_back_to_a_half(rng):
    result = length_controlled_win_rate(*simulated(rng))
    assert 0.5 not in result.raw.interval
    assert 0.5 in result.interval
    assert result.length_effect.interval.lower > 0.0
    assert 1.5 in result.coefficient.interval


def test_a_better_challenger_that_writes_less_is_found_better(rng):
    y, x = simulated(rng, 2_000, quality=0.8, mean=-0.8)
    result = length_controlled_win_rate(y, x)
    assert special.expit(0.8) in result.interval
    assert result.interval.lower > result.raw.interval.upper


def test_swapping_the_systems_mirrors_the_rate_and_keeps_the_coefficient(rng):
    y, x = simulated(rng, 120, quality=0.4, ties=0.2)
    base, swapped = length_controlled_win_rate(y, x), length_controlled_win_rate(1.0 - y, -x)
    assert swapped.estimate == pytest.approx(1.0 - base.estimate)
    mirrored_ends = (1.0 - base.interval.upper, 1.0 - base.interval.lower)
    assert ends(swapped) == pytest.approx(mirrored_ends)
    assert ends(swapped.coefficient) == pytest.approx(ends(base.coefficient))


@given(st.floats(1e-3, 1e4), st.integers(0, 2**32))
def test_the_unit_of_length_and_the_order_of_pairs_do_not_matter(factor, seed):
    y, x = simulated(np.random.default_rng(3), 100)
    mixed = np.random.default_rng(seed).permutation(100)
    base = length_controlled_win_rate(y, x)
    other = length_controlled_win_rate(y[mixed], factor * x[mixed])
    assert ends(other) == pytest.approx(ends(base))
    assert other.length_deviation == pytest.approx(factor * base.length_deviation)


def test_pairs_of_one_user_each_are_independent_and_repeated_pairs_are_not(rng):
    y, x = simulated(rng, 60)
    alone = length_controlled_win_rate(y, x)
    labelled = length_controlled_win_rate(y, x, clusters=[f"user {i}" for i in range(60)])
    assert ends(labelled) == pytest.approx(ends(alone))
    many = {"verdicts": np.tile(y, 20), "length_difference": np.tile(x, 20)}
    grouped = length_controlled_win_rate(**many, clusters=np.tile(np.arange(60), 20))
    naive = length_controlled_win_rate(**many)
    assert grouped.clusters == 60
    assert np.ptp(ends(grouped)) == pytest.approx(np.ptp(ends(alone)), rel=0.1)
    assert np.ptp(ends(naive)) < 0.3 * np.ptp(ends(grouped))
    assert np.ptp(ends(grouped.raw)) == pytest.approx(np.ptp(ends(alone.raw)), rel=0.1)


def test_the_rule_of_the_longer_answer_is_set_beside_judge_and_people(rng):
    y, x = simulated(rng, 300)
    people = (rng.random(300) < 0.5).astype(float)
    people[:50] = NAN
    result = length_controlled_win_rate(y, x, human_verdicts=people)
    agreed = int(np.sum((y == 1.0) == (x > 0.0)))
    expected = wilson(agreed, 300)
    assert ends(result.longest_answer_judge) == pytest.approx(ends(expected))
    assert result.longest_answer_human.pairs == 250
    assert result.longest_answer_human.left_out == 50
    assert 0.5 in result.longest_answer_human.interval
    assert length_controlled_win_rate(y, x).longest_answer_human is None


def test_what_is_missing_is_left_out_and_extrapolation_is_said(rng):
    y, x = simulated(rng, 100, slope=0.5)
    y[:3], x[3:5] = NAN, NAN
    result = length_controlled_win_rate(y, x)
    assert (result.pairs, result.left_out, result.clusters) == (95, 5, 95)
    assert not result.extrapolated
    assert length_controlled_win_rate(y, x - np.nanmin(x) + 0.1).extrapolated


def refused(y, x, **options):
    return lambda: length_controlled_win_rate(y, x, **options)


HALF = np.array([1.0, 0.0] * 50)
LINE = np.linspace(-1.0, 1.0, 100)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (refused(HALF[:20], LINE[:20]), InsufficientDataError, "30 pairs of 20 users, got 20"),
        (refused(HALF, LINE, clusters=[1] * 100), InsufficientDataError, "got 100 of 1"),
        (refused([1.0] * 100, LINE), InsufficientDataError, "8 losses, got 100 and 0"),
        (refused(HALF, [7.0] * 100), InsufficientDataError, "got 7 in all 100 pairs"),
        (refused(HALF, [0.0] * 100), InsufficientDataError, "got 0 in all 100 pairs"),
        (refused(LINE > 0.0, LINE), InsufficientDataError, "separates without exception"),
        (refused(LINE < 0.0, LINE), InsufficientDataError, "separates without exception"),
        (refused(HALF, LINE + 100.0), InsufficientDataError, "must vary"),
        (refused([NAN] * 100, LINE), InsufficientDataError, "got 0 of 0"),
        (refused(HALF, LINE, scale=0.0), InvalidInputError, "scale must be above 0"),
        (refused(HALF, LINE, level=2.0), InvalidInputError, "level must be in"),
        (refused(HALF, LINE[:99]), InvalidInputError, r"lengths \[100, 99\]"),
        (refused(HALF, LINE, human_verdicts=[2.0] * 100), InvalidInputError, "human_verdicts"),
        (refused(HALF, np.where(LINE > 0, np.inf, 0.0)), InvalidInputError, "must be finite"),
    ],
)
def test_a_length_controlled_rate_refuses_with_its_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_ties_at_the_threshold_are_still_separated_and_one_exception_is_enough():
    y = np.where(LINE > 0.0, 1.0, 0.0)
    with pytest.raises(InsufficientDataError, match="separates"):
        length_controlled_win_rate(np.append(y, 0.5), np.append(LINE, 0.0))
    y[[20, 80]] = 1.0, 0.0
    assert length_controlled_win_rate(y, LINE).coefficient.interval.lower > 0.0


@given(pair_lists(verdict, least=3))
def test_the_rule_of_the_longer_answer_mirrors(lists):
    y, x = np.array(lists[0]), np.array(lists[1]) - 0.5
    if np.count_nonzero(x) < 2:
        return
    base, swapped = longest_answer_win_rate(y, x), longest_answer_win_rate(1.0 - y, -x)
    opposite = longest_answer_win_rate(y, -x)
    assert ends(swapped) == pytest.approx(ends(base))
    assert opposite.estimate == pytest.approx(1.0 - base.estimate)
    assert base.pairs + base.equal_lengths == y.size


def test_the_rule_needs_answers_that_differ():
    with pytest.raises(InsufficientDataError, match="none of 2"):
        longest_answer_win_rate([1.0, 0.0], [0.0, NAN])


# Drift --------------------------------------------------------------------------------------------


def test_the_parts_of_drift_are_the_published_intervals_at_bonferroni_level():
    labels = [1.0] * 100
    before = [1.0] * 85 + [0.0] * 15
    after = [1.0] * 80 + [0.0] * 5 + [1.0] * 3 + [0.0] * 12
    traffic = ([1.0] * 300 + [0.0] * 100, [1.0] * 200 + [0.0] * 150)
    result = judge_drift(labels, before, after, *traffic)
    assert ends(result.judge) == pytest.approx(ends(newcombe_paired(80, 5, 3, 12, level=0.975)))
    assert result.accuracy == Effect(-0.02, newcombe_paired(80, 5, 3, 12))
    assert result.accuracy_p_value == pytest.approx(stats.binomtest(3, 8).pvalue)
    assert ends(result.traffic) == pytest.approx(ends(newcombe_independent(300, 400, 200, 350)))
    whole = newcombe_independent(300, 400, 200, 350, level=0.975)
    change = 200 / 350 - 300 / 400
    below = math.hypot(change - whole.lower, result.judge.interval.upper + 0.02)
    assert result.system.estimate == pytest.approx(change + 0.02)
    assert result.system.interval.lower == pytest.approx(change + 0.02 - below)
    assert (result.judge.interval.level, result.family_error) == (0.975, pytest.approx(0.05))
    assert (result.anchors, result.before, result.after) == (100, 400, 350)


LABELS = np.array([1.0, 0.0] * 200)
LENIENT = np.where(np.arange(400) % 8 == 1, 1.0, LABELS)
GOOD, WORSE = [1.0, 1.0, 1.0, 0.0] * 200, [1.0, 0.0] * 400


@pytest.mark.parametrize(
    ("anchors", "traffic", "cause"),
    [
        (LABELS, (GOOD, GOOD), "none shown"),
        (LABELS, (GOOD, WORSE), "system"),
        (LENIENT, (WORSE, [1.0] * 5 + [0.0] * 3), "judge"),
        (LENIENT, (GOOD, GOOD), "both"),  # the lenient judge hides that the system got worse
    ],
)
def test_the_cause_is_told(anchors, traffic, cause):
    after = np.tile(traffic[1], 800 // len(traffic[1]))
    assert judge_drift(LABELS, LABELS, anchors, traffic[0], after).cause == cause


@given(pair_lists(scores), pair_lists(scores))
def test_exchanging_before_and_after_flips_every_change(anchors, traffic):
    labels = [round(score) for score in anchors[0]]
    base = judge_drift(labels, *anchors, *traffic)
    back = judge_drift(labels, *anchors[::-1], *traffic[::-1])
    for name in ("judge", "system", "accuracy", "traffic"):
        assert ends(getattr(back, name)) == mirrored(getattr(base, name).interval)
    assert back.accuracy_p_value == base.accuracy_p_value
    assert back.cause == base.cause


def test_flipping_all_labels_and_scores_flips_the_scores_and_keeps_the_accuracy(rng):
    labels = (rng.random(60) < 0.5).astype(float)
    before, after = rng.random(60), rng.random(60)
    base = judge_drift(labels, before, after, before, after)
    flipped = judge_drift(1 - labels, 1 - before, 1 - after, 1 - before, 1 - after)
    assert ends(flipped.accuracy) == pytest.approx(ends(base.accuracy))
    assert ends(flipped.judge) == mirrored(base.judge.interval)
    assert ends(flipped.system) == mirrored(base.system.interval)


def test_a_judge_that_errs_more_both_ways_shows_in_accuracy_alone():
    noisy = np.where(np.arange(400) % 20 < 2, 1.0 - LABELS, LABELS)
    result = judge_drift(LABELS, LABELS, noisy, WORSE, WORSE)
    assert result.cause == "none shown"
    assert result.accuracy.estimate == pytest.approx(-0.1)
    assert result.accuracy_p_value < 0.001


def test_anchors_and_traffic_without_a_score_are_left_out():
    result = judge_drift(
        [1.0, 0.0, NAN, 1.0], [1.0, 0.0, 1.0, NAN], [1.0, 0.0, 1.0, 1.0], [1.0, NAN, 0.5], [0.3] * 2
    )
    assert (result.anchors, result.left_out_anchors) == (2, 2)
    assert (result.before, result.after, result.left_out_traffic) == (2, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], [1.0], [1.0], [1.0] * 2, [1.0] * 2), InsufficientDataError, "got 1, 2 and 2"),
        (([1.0] * 2,) * 4 + ([NAN],), InsufficientDataError, "got 2, 2 and 0"),
        (([1.0] * 2, [1.0], [1.0], [1.0], [1.0]), InvalidInputError, "lengths"),
        (([1.0], [5.0], [1.0], [1.0], [1.0]), InvalidInputError, "anchor_before must be in"),
    ],
)
def test_drift_refuses_what_it_cannot_use(arguments, error, message):
    with pytest.raises(error, match=message):
        judge_drift(*arguments)
    with pytest.raises(InvalidInputError, match="level must be in"):
        judge_drift(*arguments, level=1.0)


def test_a_judge_that_ties_everything_has_no_effect_of_length_rather_than_a_certain_zero():
    lengths = np.linspace(-2.0, 2.0, 60)
    with pytest.raises(InsufficientDataError, match=r"got 0\.5 for all 60 pairs"):
        length_controlled_win_rate(np.full(60, 0.5), lengths)
