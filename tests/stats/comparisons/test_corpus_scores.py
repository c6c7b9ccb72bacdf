import numpy as np
import pytest
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons.corpus_scores import paired_bootstrap
from ratchet.stats.intervals import mean_interval


@pytest.fixture
def answers():
    """Right or wrong of two systems on 600 examples."""
    return np.random.default_rng(0).random((600, 2)) < (0.6, 0.66)


def f1(sums):
    """F1 of counts (right, claimed, true)."""
    return 2.0 * sums[:, 0] / (sums[:, 1] + sums[:, 2])


def test_the_interval_of_a_mean_is_students_nearly(answers):
    first, second = answers.T
    result = paired_bootstrap(first, second, rng=np.random.default_rng(1), resamples=20_000)
    student = mean_interval((second.astype(float) - first).tolist())
    assert result.difference == pytest.approx(second.mean() - first.mean())
    assert result.interval.lower == pytest.approx(student.lower, abs=0.003)
    assert result.interval.upper == pytest.approx(student.upper, abs=0.003)


def test_the_p_value_is_that_of_a_normal_test_nearly(answers):
    first, second = answers.T
    differences = second.astype(float) - first
    result = paired_bootstrap(first, second, rng=np.random.default_rng(1), resamples=20_000)
    expected = stats.ttest_1samp(differences, 0.0).pvalue
    assert result.p_value == pytest.approx(expected, abs=0.01)


def test_a_score_of_sums_is_resampled_as_example_by_example_by_hand():
    rng = np.random.default_rng(2)
    one, two = (rng.integers((0, 2, 2), (5, 7, 7), (40, 3)).astype(float) for _ in range(2))
    result = paired_bootstrap(one, two, f1, rng=np.random.default_rng(3), resamples=4_000)
    rng = np.random.default_rng(4)
    by_hand = []
    for _ in range(4_000):
        rows = rng.integers(0, 40, 40)
        by_hand.append(float(f1(two[rows].sum(0)[None])[0] - f1(one[rows].sum(0)[None])[0]))
    spread = np.std(by_hand)
    assert result.first == pytest.approx(float(f1(one.sum(0)[None])[0]))
    ends = np.quantile(by_hand, [0.025, 0.975])
    assert result.interval.lower == pytest.approx(ends[0], abs=0.15 * spread)
    assert result.interval.upper == pytest.approx(ends[1], abs=0.15 * spread)


def test_users_are_drawn_as_a_whole(answers):
    first, second = (np.repeat(column[:60], 10) for column in answers.T)
    users = np.repeat(np.arange(60), 10)
    rng = np.random.default_rng
    alone = paired_bootstrap(first, second, rng=rng(1)).interval
    together = paired_bootstrap(first, second, rng=rng(1), clusters=users).interval
    ratio = (together.upper - together.lower) / (alone.upper - alone.lower)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.1)


def test_the_same_seed_gives_the_same_result(answers):
    results = [paired_bootstrap(*answers.T, rng=np.random.default_rng(7)) for _ in range(2)]
    assert results[0] == results[1]


def test_identical_systems_differ_in_no_resample(answers):
    first = answers[:, 0]
    result = paired_bootstrap(first, first, rng=np.random.default_rng(0))
    assert (result.difference, result.interval.lower, result.interval.upper) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("first", "second", "changes", "error"),
    [
        ([1.0], [0.0], {}, InsufficientDataError),
        ([1.0, 0.0], [1.0], {}, InvalidInputError),
        ([[1.0, 2.0]] * 3, [[1.0, 2.0]] * 3, {}, InvalidInputError),
        ([1.0, np.nan], [1.0, 0.0], {}, InvalidInputError),
        ([1.0, 0.0], [1.0, 0.0], {"resamples": 10}, InvalidInputError),
        ([1.0, 0.0], [1.0, 0.0], {"level": 1.0}, InvalidInputError),
    ],
)
def test_what_cannot_be_resampled_is_refused(first, second, changes, error):
    with pytest.raises(error, match="got"):
        paired_bootstrap(first, second, rng=np.random.default_rng(0), **changes)
