import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import optimize, stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.agreement.dawid_skene import MISSING, TIE, dawid_skene, majority_vote

panels = arrays.arrays(
    np.int64, st.tuples(st.integers(4, 12), st.just(3)), elements=st.integers(-1, 2)
)


def planted(rng, *, items=2_000, accuracies=(0.9, 0.8, 0.7, 0.65), prevalence=(0.5, 0.3, 0.2)):
    """Truth and votes of judges that err evenly over the other classes."""
    classes = len(prevalence)
    truth = rng.choice(classes, size=items, p=prevalence)
    wrong = (truth[:, None] + rng.integers(1, classes, (items, len(accuracies)))) % classes
    right = rng.random((items, len(accuracies))) < np.array(accuracies)
    return truth, np.where(right, truth[:, None], wrong)


def exact_panel():
    """2,000 items with exactly the expected counts of three judges of accuracy .9, .8 and .7."""
    rows = []
    for votes in itertools.product((0, 1), repeat=3):
        for truth in (0, 1):
            chances = [
                a if v == truth else 1 - a for a, v in zip((0.9, 0.8, 0.7), votes, strict=True)
            ]
            rows += [votes] * round(1_000 * math.prod(chances))
    return np.array(rows)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_a_majority_is_the_class_with_most_votes_and_a_tie_is_a_tie():
    votes = [[0, 0, 1], [2, 1, 0], [1, 1, MISSING], [0, 1, MISSING], [MISSING] * 3]
    result = majority_vote(votes, classes=3)
    assert result.winners.tolist() == [0, TIE, 1, TIE, MISSING]
    assert result.counts.tolist() == [[2, 1, 0], [1, 1, 1], [0, 2, 0], [1, 1, 0], [0, 0, 0]]
    assert (result.ties, result.unvoted, result.missing_votes) == (2, 1, 5)


def test_a_majority_of_independent_judges_errs_as_the_binomial_says(rng):
    truth, votes = planted(rng, items=20_000, accuracies=(0.9,) * 3, prevalence=(0.5, 0.5))
    wrong = np.mean(majority_vote(votes, classes=2).winners != truth)
    expected = stats.binom.cdf(1, 3, 0.9)
    assert expected == pytest.approx(0.028)
    assert abs(wrong - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)


def test_three_judges_with_expected_counts_give_back_their_accuracies():
    # three judges and two classes: 7 parameters for 7 free shares, so the fit is exact
    result = dawid_skene(exact_panel(), classes=2, tolerance=1e-15, max_iterations=5_000)
    assert len(exact_panel()) == 2_000
    assert result.accuracies == pytest.approx([0.9, 0.8, 0.7], abs=1e-4)
    assert result.prevalence == pytest.approx([0.5, 0.5], abs=1e-4)
    assert result.confusion[0] == pytest.approx(np.array([[0.9, 0.1], [0.1, 0.9]]), abs=1e-4)


def test_probabilities_are_those_of_bayes():
    result = dawid_skene(exact_panel(), classes=2, tolerance=1e-15, max_iterations=5_000)
    place = np.flatnonzero((exact_panel() == [1, 0, 0]).all(axis=1))[0]
    one, zero = 0.9 * 0.2 * 0.3, 0.1 * 0.8 * 0.7
    assert result.probabilities[place, 1] == pytest.approx(one / (one + zero), abs=1e-3)


def test_em_reaches_the_maximum_that_a_general_optimizer_finds():
    rng = np.random.default_rng(3)
    _, votes = planted(rng, items=150, accuracies=(0.85, 0.8, 0.75, 0.7), prevalence=(0.6, 0.4))

    def loss(x):
        share = 1 / (1 + np.exp(-x))
        up = np.prod(np.where(votes == 1, share[1:5], 1 - share[1:5]), axis=1)
        down = np.prod(np.where(votes == 0, share[5:], 1 - share[5:]), axis=1)
        return -np.log(share[0] * up + (1 - share[0]) * down).sum()

    best = optimize.minimize(loss, np.r_[0.0, np.ones(8)], method="BFGS")
    result = dawid_skene(votes, classes=2, tolerance=1e-13, max_iterations=20_000)
    assert result.log_likelihoods[-1] == pytest.approx(-best.fun, abs=1e-4)


def test_planted_judges_and_prevalence_are_recovered_also_with_missing_votes(rng):
    _, votes = planted(rng, items=4_000, accuracies=(0.9, 0.8, 0.75, 0.7, 0.7))
    votes[rng.random(votes.shape) < 0.2] = MISSING
    result = dawid_skene(votes, classes=3)
    assert result.converged
    assert not result.relabelled
    assert result.accuracies == pytest.approx([0.9, 0.8, 0.75, 0.7, 0.7], abs=0.03)
    assert result.prevalence == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert result.missing_votes == np.count_nonzero(votes == MISSING)


def test_one_good_judge_among_poor_ones_is_heard_where_the_majority_is_not(rng):
    accuracies = (0.95, 0.6, 0.6, 0.6, 0.6)
    truth, votes = planted(rng, items=3_000, accuracies=accuracies, prevalence=(0.5, 0.5))
    modelled = dawid_skene(votes, classes=2).probabilities.argmax(axis=1)
    assert (
        np.mean(modelled == truth) > np.mean(majority_vote(votes, classes=2).winners == truth) + 0.1
    )


def test_panels_of_five_give_accuracies_to_within_0_02_on_average_and_beat_the_majority():
    rng, off, ahead = np.random.default_rng(8), [], 0
    for _ in range(200):
        accuracies = rng.uniform(0.6, 0.9, size=5)
        truth, votes = planted(rng, items=400, accuracies=accuracies, prevalence=(0.5, 0.5))
        result = dawid_skene(votes, classes=2, tolerance=1e-6)
        off.append(np.abs(result.accuracies - accuracies).mean())
        model = np.mean(result.probabilities.argmax(axis=1) == truth)
        ahead += model - np.mean(majority_vote(votes, classes=2).winners == truth)
    assert np.mean(off) < 0.03
    assert ahead > 0


@given(panels)
def test_the_log_likelihood_never_falls_and_probabilities_are_probabilities(votes):
    try:
        result = dawid_skene(votes, classes=3, max_iterations=200)
    except InsufficientDataError:
        return
    gains = np.diff(result.log_likelihoods)
    assert np.all(gains >= -1e-9)
    voted = (votes != MISSING).any(axis=1)
    assert result.probabilities[voted].sum(axis=1) == pytest.approx(np.ones(voted.sum()))
    assert np.isnan(result.probabilities[~voted]).all()
    assert result.unvoted == np.count_nonzero(~voted)
    assert result.prevalence.sum() == pytest.approx(1.0)
    rows = result.confusion.sum(axis=2)
    assert np.all(np.isnan(rows) | (np.abs(rows - 1.0) < 1e-9))


def test_the_order_of_items_and_of_judges_does_not_matter(rng):
    _, votes = planted(rng, items=300)
    first = dawid_skene(votes, classes=3)
    items, judges = rng.permutation(300), [2, 0, 3, 1]
    second = dawid_skene(votes[items][:, judges], classes=3)
    assert second.probabilities == pytest.approx(first.probabilities[items], abs=1e-6)
    assert second.confusion == pytest.approx(first.confusion[judges], abs=1e-6)


def test_renaming_the_classes_renames_the_result(rng):
    _, votes = planted(rng, items=300)
    names = np.array([2, 0, 1])
    first, second = dawid_skene(votes, classes=3), dawid_skene(names[votes], classes=3)
    assert second.prevalence[names] == pytest.approx(first.prevalence, abs=1e-6)
    assert second.probabilities[:, names] == pytest.approx(first.probabilities, abs=1e-6)


def test_the_same_votes_give_the_same_result(rng):
    _, votes = planted(rng, items=100)
    runs = [dawid_skene(votes, classes=3) for _ in range(2)]
    assert np.array_equal(runs[0].probabilities, runs[1].probabilities)


def test_judges_that_all_agree_are_taken_to_be_right():
    result = dawid_skene(np.repeat([[0] * 3, [1] * 3], [6, 4], axis=0), classes=2)
    assert result.accuracies.tolist() == [1.0, 1.0, 1.0]
    assert result.prevalence == pytest.approx([0.6, 0.4])
    assert result.log_likelihoods[-1] == pytest.approx(6 * math.log(0.6) + 4 * math.log(0.4))


def test_a_class_that_no_item_has_has_no_confusion():
    result = dawid_skene(np.zeros((5, 3), dtype=int), classes=2)
    assert result.prevalence.tolist() == [1.0, 0.0]
    assert np.isnan(result.confusion[:, 1]).all()
    assert result.accuracies.tolist() == [1.0, 1.0, 1.0]


def test_too_few_iterations_are_reported(rng):
    _, votes = planted(rng, items=200)
    result = dawid_skene(votes, classes=3, max_iterations=2)
    assert not result.converged
    assert len(result.log_likelihoods) == 2


@pytest.mark.parametrize(
    ("votes", "classes", "error", "message"),
    [
        ([[0, 1, 2]], 2, InvalidInputError, r"0 to 1 or MISSING \(-1\), got 2"),
        ([[0, 1, -2]], 2, InvalidInputError, "got -2"),
        ([[0.0, 1.0, 1.0]], 2, InvalidInputError, "integers of shape"),
        ([0, 1, 1], 2, InvalidInputError, r"shape \(3,\)"),
        ([[0, 0, 0]], 1, InvalidInputError, "classes must be at least 2, got 1"),
        ([], 2, InsufficientDataError, "got none"),
        ([[-1, -1, -1]], 2, InsufficientDataError, "needs verdicts"),
    ],
)
def test_what_is_no_vote_is_one_clear_error(votes, classes, error, message):
    for method in (majority_vote, dawid_skene):
        with pytest.raises(error, match=message):
            method(votes, classes=classes)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ([[0, 1], [1, 1]], "got 2 of 2 judges"),
        ([[0, 1, -1], [1, 1, -1]], "got 2 of 3 judges"),
        ([[0, -1, -1], [-1, 1, -1], [-1, -1, 1]], "0 shared items"),
    ],
)
def test_a_panel_that_leaves_the_model_undetermined_is_refused(votes, message):
    with pytest.raises(InsufficientDataError, match=message):
        dawid_skene(votes, classes=2)


@pytest.mark.parametrize("argument", [{"tolerance": 0.0}, {"max_iterations": 0}])
def test_a_fit_needs_a_positive_tolerance_and_iterations(argument):
    with pytest.raises(InvalidInputError, match="must be positive"):
        dawid_skene([[0, 1, 1]], classes=2, **argument)
