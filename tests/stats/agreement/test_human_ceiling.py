import numpy as np
import pytest

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.agreement import cohen_kappa, fleiss_kappa
from ratchet.stats.agreement.human_ceiling import judge_against_humans
from ratchet.stats.intervals import mean_interval


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def noisy(rng, items, *errors):
    """Labels of raters who flip a fair truth with these chances, shape (items, raters)."""
    truth = rng.integers(0, 2, size=(items, 1))
    return np.where(rng.random((items, len(errors))) < errors, 1 - truth, truth)


@pytest.mark.parametrize(("options", "rule"), [({"resamples": 10}, "100"), ({"level": 2}, "level")])
def test_bootstrap_options_out_of_range_are_refused(rng, options, rule):
    with pytest.raises(InvalidInputError, match=rule):
        judge_against_humans([1, 2], [[1, 1], [2, 2]], rng=rng, **options)


def test_the_same_seed_gives_the_same_interval_in_any_order_of_items(rng):
    labels = noisy(rng, 80, 0.1, 0.2, 0.2)
    one, other, reversed_items = (
        judge_against_humans(part[:, 0], part[:, 1:], rng=np.random.default_rng(1), measure="kappa")
        for part in (labels, labels, labels[::-1])
    )
    assert one == other
    assert reversed_items.interval.lower == pytest.approx(one.interval.lower)
    assert reversed_items.interval.upper == pytest.approx(one.interval.upper)


def test_a_judge_who_speaks_of_other_labels_is_refused(rng):
    with pytest.raises(InvalidInputError, match="one set of labels"):
        judge_against_humans([1, 2, 1], [["1", "1"]] * 3, rng=rng)
    with pytest.raises(InvalidInputError, match="must be among the categories"):
        judge_against_humans([1, 2, 1], [[1, 1]] * 3, rng=rng, categories=[1, 3])
    with pytest.raises(InvalidInputError, match=r"shape \(items, raters\), got \(3,\)"):
        judge_against_humans([1, 2, 1], [1, 2, 1], rng=rng)


def test_the_ceiling_is_the_mean_of_pairs_by_hand(rng):
    # items: judge right with 2/3, 3/3, 1/2, 0/2 of people; pairs of people 1/3, 1, 0, 1
    humans = [["a", "a", "b"], ["b", "b", "b"], ["a", "b", None], ["a", "a", None]]
    result = judge_against_humans(["a", "b", "a", "b"], humans, rng=rng)
    assert result.judge_human == pytest.approx((2 / 3 + 1 + 1 / 2 + 0) / 4)
    assert result.human_human == pytest.approx((1 / 3 + 1 + 0 + 1) / 4)
    assert result.difference == pytest.approx(result.judge_human - result.human_human)


def test_items_without_two_people_or_a_verdict_are_left_out_and_counted(rng):
    humans = [["a", "a"], ["b", "b"], ["a", None], ["b", "b"], ["a", "b"]]
    result = judge_against_humans(["a", "b", "b", None, "b"], humans, rng=rng)
    assert (result.items, result.items_left_out) == (3, 2)


def test_the_ceiling_kappa_of_two_people_is_that_of_fleiss(rng):
    labels = noisy(rng, 200, 0.2, 0.1, 0.1)
    result = judge_against_humans(labels[:, 0], labels[:, 1:], rng=rng, measure="kappa")
    passes = labels[:, 1:].sum(axis=1)
    expected = fleiss_kappa(np.column_stack([2 - passes, passes])).value
    assert result.human_human == pytest.approx(expected)


def test_the_judges_kappa_with_people_who_all_agree_is_cohens(rng):
    labels = noisy(rng, 200, 0.2, 0.1)
    humans = np.repeat(labels[:, 1:], 2, axis=1)
    result = judge_against_humans(labels[:, 0], humans, rng=rng, measure="kappa")
    expected = cohen_kappa(labels[:, 0], labels[:, 1]).value
    assert result.judge_human == pytest.approx(expected)
    assert result.human_human == pytest.approx(1.0)


def test_the_paired_interval_of_shares_is_near_students(rng):
    labels = noisy(rng, 500, 0.3, 0.1, 0.1)
    result = judge_against_humans(labels[:, 0], labels[:, 1:], rng=rng)
    by_item = (labels[:, :1] == labels[:, 1:]).mean(axis=1) - (labels[:, 1] == labels[:, 2])
    student = mean_interval(by_item)
    assert result.interval.lower == pytest.approx(student.lower, abs=0.006)
    assert result.interval.upper == pytest.approx(student.upper, abs=0.006)


def test_a_worse_judge_is_below_the_ceiling_and_an_equal_one_is_not(rng):
    for error, below in ((0.4, True), (0.1, False)):
        labels = noisy(rng, 300, error, 0.1, 0.1, 0.1)
        result = judge_against_humans(labels[:, 0], labels[:, 1:], rng=rng)
        assert (result.interval.upper < 0.0) == below


def test_swapping_the_people_and_renaming_labels_change_nothing(rng):
    labels = noisy(rng, 100, 0.2, 0.1, 0.3)
    names = np.array(["good", "bad"])
    for measure in ("percent", "kappa"):
        one = judge_against_humans(labels[:, 0], labels[:, 1:], rng=rng, measure=measure)
        renamed = names[labels]
        other = judge_against_humans(renamed[:, 0], renamed[:, :0:-1], rng=rng, measure=measure)
        assert other.judge_human == pytest.approx(one.judge_human)
        assert other.human_human == pytest.approx(one.human_human)


def test_a_ceiling_that_is_undefined_is_refused(rng):
    with pytest.raises(InsufficientDataError, match="got one for all items"):
        judge_against_humans(
            ["a", "a"], [["a", "b"], ["a", "a"]], rng=rng, measure="kappa", categories=["a", "b"]
        )
    with pytest.raises(InsufficientDataError, match="second human rating"):
        judge_against_humans(["a", "b"], [["a"], ["b"]], rng=rng)
    with pytest.raises(InsufficientDataError, match="resamples that differ"):
        judge_against_humans(["a", "b", "a"], [["a", "a"], ["b", "b"], ["a", "a"]], rng=rng)
    with pytest.raises(InvalidInputError, match="same items"):
        judge_against_humans(["a"], [["a", "a"], ["b", "b"]], rng=rng)
    with pytest.raises(InvalidInputError, match="measure"):
        judge_against_humans(["a", "b"], [["a", "a"], ["b", "b"]], rng=rng, measure="alpha")
