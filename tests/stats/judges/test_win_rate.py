"""Corrected win rates: closed forms, statsmodels, symmetry, and what the gate makes of them."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons.means import paired_mean_test
from ratchet.stats.judges.win_rate import corrected_win_rate

Z = stats.norm.ppf(0.975)


def sample(seed=0, pairs=600, labelled=120, bias=1.5, rate=0.6):
    rng = np.random.default_rng(seed)
    longer = rng.normal(0.4, 1.0, pairs)
    labels = (rng.random(pairs) < rate).astype(float)
    odds = np.where(labels == 1.0, 2.0, -2.0) + bias * np.tanh(longer)
    verdicts = (rng.random(pairs) < special.expit(odds)).astype(float)
    return np.where(np.arange(pairs) < labelled, labels, np.nan), verdicts, longer


def test_without_lengths_it_is_the_prediction_powered_mean():
    # Angelopoulos, Duchi, Zrnic (2024), with z^2 / 4 observations at each corner added to the
    # labelled: mean of labels + lambda (mean verdict of others - mean verdict of labelled)
    labels, verdicts, _ = sample()
    found = corrected_win_rate(labels, verdicts)
    known, added = ~np.isnan(labels), Z * Z
    size = known.sum() + added
    label_mean = (labels[known].sum() + added / 2) / size
    verdict_mean = (verdicts[known].sum() + added / 2) / size
    expected = label_mean + found.tuning * (verdicts[~known].mean() - verdict_mean)
    assert found.estimate == pytest.approx(expected, abs=1e-9)
    assert 0.5 < found.tuning < 1.0


@pytest.mark.parametrize("longer", [False, True])
def test_a_judge_that_decides_nothing_leaves_the_logistic_regression_of_the_labels(longer):
    labels, _, lengths = sample()
    found = corrected_win_rate(labels, np.full(600, 0.5), lengths if longer else None)
    known = ~np.isnan(labels)
    z = np.tanh(lengths / lengths.std(ddof=1))[known]
    design = np.column_stack((np.ones(z.size + 2), np.r_[z, 0.0, 0.0]))
    fitted = sm.GLM(
        np.r_[labels[known], 0.0, 1.0],
        design if longer else design[:, :1],
        family=sm.families.Binomial(),
        freq_weights=np.r_[np.ones(z.size), Z * Z / 2.0, Z * Z / 2.0],
    ).fit()
    assert found.tuning == pytest.approx(0.0, abs=1e-12)
    assert found.estimate == pytest.approx(special.expit(fitted.params[0]), abs=1e-7)
    if longer:
        assert found.log_odds_per_unit == pytest.approx(fitted.params[1], abs=1e-6)


def test_a_taste_for_length_of_the_judge_does_not_move_the_rate():
    labels, verdicts, lengths = sample(pairs=20_000, labelled=4_000, bias=3.0, rate=0.5)
    found = corrected_win_rate(labels, verdicts, lengths)
    assert verdicts.mean() > 0.55
    assert abs(found.estimate - 0.5) < 3.0 * found.standard_error
    assert found.standard_error < 0.01


def test_a_good_judge_makes_the_interval_narrower():
    labels, verdicts, lengths = sample(bias=0.0)
    alone = corrected_win_rate(labels, np.full(600, 0.5), lengths)
    assert corrected_win_rate(labels, verdicts, lengths).standard_error < alone.standard_error


def test_swapping_the_systems_mirrors_the_rate():
    labels, verdicts, lengths = sample()
    one = corrected_win_rate(labels, verdicts, lengths)
    other = corrected_win_rate(1.0 - labels, 1.0 - verdicts, -lengths)
    assert other.estimate == pytest.approx(1.0 - one.estimate)
    assert other.interval.lower == pytest.approx(1.0 - one.interval.upper)
    assert other.values == pytest.approx(1.0 - one.values)


@pytest.mark.parametrize("by_user", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_values_say_of_one_half_what_the_interval_says(seed, by_user):
    labels, verdicts, lengths = sample(seed, rate=0.58)
    users = np.random.default_rng(seed).integers(0, 150, 600) if by_user else None
    found = corrected_win_rate(labels, verdicts, lengths, clusters=users, level=0.9)
    tested = paired_mean_test(found.values, margin=0.5, clusters=users)
    assert found.values.mean() == pytest.approx(found.estimate)
    # one-sided Student's p at 5 % and the ends of the 90 % interval; skewness moves p a little
    log_odds = special.logit([found.estimate, found.interval.lower])
    t = log_odds[0] / ((log_odds[0] - log_odds[1]) / stats.norm.isf(0.05))
    assert tested.p_above == pytest.approx(stats.norm.sf(t), rel=0.25, abs=0.002)


def test_pairs_without_a_verdict_say_nothing_and_the_others_still_mean_the_rate():
    labels, verdicts, lengths = sample()
    verdicts[::20] = np.nan
    found = corrected_win_rate(labels, verdicts, lengths)
    assert found.missing_verdicts == 30
    assert np.isnan(found.values).sum() == 30
    assert np.nanmean(found.values) == pytest.approx(found.estimate)


def test_users_who_repeat_widen_the_interval():
    rng = np.random.default_rng(5)
    users = rng.integers(0, 40, 800)
    liked = rng.random(40) < 0.5
    labels = (rng.random(800) < np.where(liked[users], 0.9, 0.1)).astype(float)
    verdicts = np.where(rng.random(800) < 0.9, labels, 1.0 - labels)
    shown = np.where(np.arange(800) < 300, labels, np.nan)
    alone, by_user = (corrected_win_rate(shown, verdicts, clusters=c) for c in (None, users))
    assert by_user.estimate == alone.estimate
    assert by_user.standard_error > 1.5 * alone.standard_error
    assert by_user.users == np.unique(users[:300]).size


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda y, f, x: (np.where(np.arange(600) < 29, y, np.nan), f, x),
         InsufficientDataError, "29 labelled"),
        (lambda y, f, x: (np.nan_to_num(y), f, x), InsufficientDataError, "labelled of 600"),
        (lambda y, f, x: (y, np.full(600, np.nan), x), InsufficientDataError, "0 verdicts"),
        (lambda y, f, x: (y, f, np.ones(600)), InsufficientDataError, "differences must vary"),
        (lambda y, f, x: (np.where(np.isnan(y), y, x > 0), np.full(600, 0.5), x),
         InsufficientDataError, "length separates"),
        (lambda y, f, x: (y, f, np.where(x > 2, np.nan, x)), InvalidInputError, "finite"),
        (lambda y, f, x: (y, f, x[1:]), InvalidInputError, "each of 600 pairs, got 599"),
        (lambda y, f, x: (y, f * 2, x), InvalidInputError, "verdicts must be in"),
        (lambda y, f, x: (y, np.where(np.isnan(y), f, np.nan), x), InvalidInputError, "as often"),
    ],
)  # fmt: skip
def test_what_cannot_be_corrected_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        corrected_win_rate(*change(*sample()))


def test_labels_of_few_users_are_refused():
    labels, verdicts, lengths = sample()
    users = np.where(np.arange(600) < 120, np.arange(600) % 19, np.arange(600))
    with pytest.raises(InsufficientDataError, match="20 users, got 19"):
        corrected_win_rate(labels, verdicts, lengths, clusters=users)


def test_a_scale_must_be_above_0():
    labels, verdicts, lengths = sample()
    with pytest.raises(InvalidInputError, match="scale"):
        corrected_win_rate(labels, verdicts, lengths, scale=0.0)
