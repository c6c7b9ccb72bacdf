import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError, UnequalMissingError
from ratchet.stats.intervals import wilson
from ratchet.stats.judges.corrected_rate import (
    labels_needed,
    prediction_powered_rate,
)

NAN = math.nan
TWO_SIGMA = 2.0 * stats.norm.cdf(2.0) - 1.0  # z = 2: one observation is added to each corner


@pytest.fixture
def rng():
    return np.random.default_rng(23)


def sample(rng, *, labelled=60, others=400, rate=0.7, sensitivity=0.9, specificity=0.8):
    """Truth of all examples, labels of the first ones, and verdicts."""
    truth = (rng.random(labelled + others) < rate).astype(float)
    chance = np.where(truth == 1.0, sensitivity, 1.0 - specificity)
    verdicts = (rng.random(truth.size) < chance).astype(float)
    labels = truth.copy()
    labels[labelled:] = NAN
    return truth, labels, verdicts


def checked(passes=(45, 50), failures=(10, 50)):
    """Verdicts and labels: how many labelled passes and failures the judge passes."""
    verdicts = [1] * passes[0] + [0] * (passes[1] - passes[0])
    verdicts += [1] * failures[0] + [0] * (failures[1] - failures[0])
    return verdicts, [1] * passes[1] + [0] * failures[1]


def test_the_estimate_is_the_formula_of_ppi_plus_plus(rng):
    _, labels, verdicts = sample(rng)
    y, f, rest = labels[:60], verdicts[:60], verdicts[60:]
    weight = np.cov(y, f)[0, 1] / ((1 + 60 / 400) * np.var(verdicts, ddof=1))
    result = prediction_powered_rate(labels, verdicts)
    assert result.tuning == pytest.approx(weight)
    assert result.estimate == pytest.approx(weight * rest.mean() + np.mean(y - weight * f))
    assert result.human_estimate == y.mean()
    assert result.judge_estimate == pytest.approx(verdicts.mean())
    assert (result.labelled, result.unlabelled) == (60, 400)


def test_the_interval_is_that_of_a_sample_with_one_more_example_at_each_corner(rng):
    _, labels, verdicts = sample(rng)
    y = np.append(labels[:60], [0, 0, 1, 1])
    f, rest = np.append(verdicts[:60], [0, 1, 0, 1]), verdicts[60:]
    pooled = np.var(np.append(f, rest), ddof=1)
    weight = np.cov(y, f)[0, 1] / ((1 + 64 / 400) * pooled)
    error = math.sqrt(weight**2 * pooled / 400 + np.var(y - weight * f, ddof=1) / 64)
    centre = weight * rest.mean() + np.mean(y - weight * f)
    result = prediction_powered_rate(labels, verdicts, level=TWO_SIGMA)
    t = stats.t.ppf((1 + TWO_SIGMA) / 2, 59)
    assert result.standard_error == pytest.approx(error)
    assert result.interval.lower == pytest.approx(centre - t * error)
    assert result.interval.upper == pytest.approx(centre + t * error)
    assert result.correlation == pytest.approx(np.corrcoef(y, f)[0, 1])
    assert result.label_variance == pytest.approx(np.var(y, ddof=1))
    human = stats.sem(y)
    assert result.human_interval.upper == pytest.approx(y.mean() + t * human)
    assert result.effective_labels == pytest.approx(60 * (human / error) ** 2)


def test_a_judge_that_says_the_same_of_everything_leaves_the_labels_alone(rng):
    _, labels, _ = sample(rng)
    result = prediction_powered_rate(labels, np.ones(labels.size))
    assert result.tuning == 0.0
    assert result.estimate == result.human_estimate


def test_a_judge_that_contradicts_people_gets_no_weight(rng):
    _, labels, verdicts = sample(rng)
    assert prediction_powered_rate(labels, 1.0 - verdicts).tuning == 0.0


def test_a_perfect_judge_makes_labels_worth_more_but_never_more_than_all_examples(rng):
    truth, labels, _ = sample(rng, labelled=500, others=4_500)
    result = prediction_powered_rate(labels, truth)
    assert 3_000 < result.effective_labels < 5_000
    assert result.estimate == pytest.approx(truth.mean(), abs=3e-3)


def test_labels_that_all_agree_with_the_judge_still_leave_doubt():
    labels, verdicts = [1.0] * 20 + [NAN] * 2_000, [1.0] * 2_020
    interval = prediction_powered_rate(labels, verdicts).interval
    assert interval.upper == 1.0
    assert interval.lower < 0.9


def test_planted_truth_lies_in_the_corrected_interval_and_not_in_the_uncorrected(rng):
    _, labels, verdicts = sample(rng, labelled=300, others=5_000, rate=0.6, specificity=0.5)
    assert 0.6 in prediction_powered_rate(labels, verdicts).interval
    assert 0.6 not in wilson(int(verdicts.sum()), verdicts.size)


def test_the_order_of_examples_does_not_matter(rng):
    _, labels, verdicts = sample(rng)
    order = rng.permutation(labels.size)
    first = prediction_powered_rate(labels, verdicts)
    second = prediction_powered_rate(labels[order], verdicts[order])
    assert second.estimate == pytest.approx(first.estimate)
    assert second.interval.lower == pytest.approx(first.interval.lower)


def test_swapping_pass_and_failure_mirrors_the_interval(rng):
    _, labels, verdicts = sample(rng)
    first = prediction_powered_rate(labels, verdicts)
    second = prediction_powered_rate(1.0 - labels, 1.0 - verdicts)
    assert second.estimate == pytest.approx(1.0 - first.estimate)
    assert second.interval.lower == pytest.approx(1.0 - first.interval.upper)


def test_a_missing_verdict_is_counted_and_never_a_failure(rng):
    _, labels, verdicts = sample(rng)
    verdicts[::10] = NAN
    filled = np.where(np.isnan(verdicts), np.nanmean(verdicts), verdicts)
    result = prediction_powered_rate(labels, verdicts)
    assert result.missing_verdicts == 46
    assert result.estimate == prediction_powered_rate(labels, filled).estimate
    assert result.judge_estimate == pytest.approx(np.nanmean(verdicts))


def test_verdicts_missing_mostly_where_people_labelled_are_refused(rng):
    _, labels, verdicts = sample(rng)
    verdicts[:20] = NAN
    with pytest.raises(UnequalMissingError, match="as often on labelled examples as on others"):
        prediction_powered_rate(labels, verdicts)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0, NAN])),
        min_size=12,
        max_size=40,
    )
)
def test_a_win_rate_with_ties_stays_within_its_range(pairs):
    labels = [label for label, _ in pairs] + [NAN] * len(pairs)
    verdicts = [verdict for _, verdict in pairs] * 2
    if all(math.isnan(verdict) for verdict in verdicts):
        return
    result = prediction_powered_rate(labels, verdicts)
    assert 0.0 <= result.interval.lower < result.interval.upper <= 1.0
    assert 0.0 <= result.estimate <= 1.0
    assert result.human_estimate == pytest.approx(np.mean(labels[: len(pairs)]))
    assert 0.0 <= result.tuning <= 1.0


@pytest.mark.parametrize(
    ("labels", "verdicts", "level", "error", "message"),
    [
        ([1.0] * 9 + [NAN], [1.0] * 10, 0.95, InsufficientDataError, "got 9 labelled of 10"),
        ([1.0] * 20, [1.0] * 20, 0.95, InsufficientDataError, "got 20 labelled of 20"),
        ([1.0] * 10 + [NAN], [NAN] * 11, 0.95, InsufficientDataError, "0 verdicts"),
        ([], [], 0.95, InsufficientDataError, "got 0 labelled of 0"),
        ([2.0] * 20, [1.0] * 20, 0.95, InvalidInputError, r"labels must be in \[0, 1\].*got 2"),
        ([1.0] * 20, [-1.0] * 20, 0.95, InvalidInputError, "verdicts must be in.*got -1"),
        ([1.0] * 20, [math.inf] * 20, 0.95, InvalidInputError, "got inf"),
        ([1.0] * 20, [1.0] * 21, 0.95, InvalidInputError, r"lengths \[20, 21\]"),
        ([1.0] * 10 + [NAN], [1.0] * 11, 1.0, InvalidInputError, r"level must be in \(0, 1\)"),
    ],
)
def test_what_gives_no_rate_is_one_clear_error(labels, verdicts, level, error, message):
    with pytest.raises(error, match=message):
        prediction_powered_rate(labels, verdicts, level=level)


def test_the_labels_needed_are_the_fewest_that_reach(rng):
    _, labels, verdicts = sample(rng, others=4_000)
    rate = prediction_powered_rate(labels, verdicts)
    threshold = rate.estimate - 0.04
    more = labels_needed(rate, threshold).more_labels
    reach = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2

    def reaches(count):
        shared = rate.correlation**2
        variance = rate.label_variance * ((1 - shared) / count + shared / 4_060)
        return reach * variance <= 0.04**2

    assert reaches(60 + more)
    assert not reaches(59 + more)


def test_with_a_useless_judge_the_labels_needed_are_those_of_a_plain_mean(rng):
    _, labels, verdicts = sample(rng, others=20_000)
    rate = replace(prediction_powered_rate(labels, verdicts), correlation=0.0)
    reach = stats.norm.ppf(0.975) + stats.norm.ppf(0.9)
    expected = math.ceil(reach**2 * rate.label_variance / 0.05**2) - 60
    assert labels_needed(rate, rate.estimate - 0.05, power=0.9).more_labels == expected


@given(st.floats(0.0, 1.0))
def test_nothing_more_is_needed_exactly_when_the_interval_excludes_the_threshold(threshold):
    _, labels, verdicts = sample(np.random.default_rng(1))
    rate = prediction_powered_rate(labels, verdicts)
    plan = labels_needed(rate, threshold)
    assert (plan.more_labels == 0) == (threshold not in rate.interval)


def test_what_no_number_of_labels_settles_has_a_reason(rng):
    _, labels, verdicts = sample(rng)
    rate = prediction_powered_rate(labels, verdicts)
    at = labels_needed(rate, rate.estimate)
    near = labels_needed(rate, rate.estimate - 1e-4)
    assert at.more_labels is None
    assert "at the threshold" in at.reason
    assert near.more_labels is None
    assert "collect more examples" in near.reason


@pytest.mark.parametrize(
    ("threshold", "power", "message"),
    [(0.5, 1.0, r"power must be in \(0, 1\)"), (1.5, 0.8, r"threshold must be in \[-1, 1\]")],
)
def test_a_plan_out_of_range_is_refused(rng, threshold, power, message):
    _, labels, verdicts = sample(rng)
    with pytest.raises(InvalidInputError, match=message):
        labels_needed(prediction_powered_rate(labels, verdicts), threshold, power=power)
