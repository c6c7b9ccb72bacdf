"""How often intervals of corrected rates cover, by simulation. `-s` prints the tables."""

import itertools
from math import sqrt

import numpy as np
import pytest

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.intervals import wilson
from ratchet.stats.judges.corrected_rate import (
    independent_difference,
    labels_needed,
    prediction_powered_difference,
    prediction_powered_rate,
    rogan_gladen,
)

pytestmark = pytest.mark.slow

SAMPLES = 1_000
LEVEL = 0.95
STATED = 0.93  # the smallest coverage that the docstrings state
JUDGES = {
    "near perfect": (0.99, 0.99),
    "good": (0.95, 0.9),
    "lenient": (1.0, 0.8),
    "lax": (1.0, 0.5),
    "poor": (0.8, 0.7),
    "useless": (0.9, 0.1),
}


def tolerance(coverage, samples=SAMPLES):
    """Three standard errors of a simulated coverage."""
    return 3.0 * sqrt(coverage * (1.0 - coverage) / samples)


def judged(truth, judge, rng):
    """Verdicts of a judge with a sensitivity and a specificity."""
    sensitivity, specificity = judge
    chance = np.where(truth == 1.0, sensitivity, 1.0 - specificity)
    return (rng.random(truth.size) < chance).astype(float)


def hide(labels, count):
    """Labels of the first `count` examples only; they come in random order."""
    shown = labels.copy()
    shown[count:] = np.nan
    return shown


def rate_coverage(labelled, others, rate, judge):
    """Share of samples where the corrected, the uncorrected and the human interval cover."""
    rng = np.random.default_rng((labelled, others, round(100 * rate)))
    hits, width, gain = np.zeros(3), 0.0, 0.0
    for _ in range(SAMPLES):
        truth = (rng.random(labelled + others) < rate).astype(float)
        verdicts = judged(truth, judge, rng)
        result = prediction_powered_rate(hide(truth, labelled), verdicts)
        naive = wilson(int(verdicts.sum()), verdicts.size)
        hits += [rate in result.interval, rate in naive, rate in result.human_interval]
        width += (result.interval.upper - result.interval.lower) / SAMPLES
        gain += result.effective_labels / labelled / SAMPLES
    return (*(hits / SAMPLES), width, gain)


@pytest.mark.parametrize("judge", JUDGES)
def test_a_corrected_rate_covers_where_the_uncorrected_one_does_not(judge):
    worst_naive = 1.0
    for labelled, others, rate in itertools.product((20, 50, 200), (500, 3_000), (0.5, 0.8, 0.95)):
        cell = rate_coverage(labelled, others, rate, JUDGES[judge])
        print(f"| {judge} | {labelled} | {others} | {rate} |", *(f"{x:.3f} |" for x in cell))
        corrected, naive, human, _, gain = cell
        assert corrected >= STATED - tolerance(STATED)
        assert human >= STATED - tolerance(STATED)
        assert gain >= 0.95
        worst_naive = min(worst_naive, naive)
    assert worst_naive < 0.9


GRID = (0.6, 0.7, 0.8, 0.9, 0.95)


@pytest.mark.parametrize("sensitivity", GRID)
@pytest.mark.parametrize(("labelled", "rate"), [(100, 0.7), (50, 0.9)])
def test_over_a_grid_of_judges_only_corrected_rates_cover(labelled, rate, sensitivity):
    """Chosen so that errors of no judge cancel: rate (1 - sens) is not (1 - rate) (1 - spec)."""
    others, samples, labels = 10_000, 2 * SAMPLES, np.repeat([1.0, 0.0], 100)
    for specificity in GRID:
        judge = (sensitivity, specificity)
        rng = np.random.default_rng([labelled, *(round(100 * x) for x in (rate, *judge))])
        hits, refused = np.zeros(3), 0
        for _ in range(samples):
            truth = (rng.random(labelled + others) < rate).astype(float)
            verdicts = judged(truth, judge, rng)
            hits[0] += rate in prediction_powered_rate(hide(truth, labelled), verdicts).interval
            hits[1] += rate in wilson(int(verdicts.sum()), verdicts.size)
            try:
                result = rogan_gladen(verdicts, judged(labels, judge, rng), labels)
            except InsufficientDataError:
                refused += 1
            else:
                hits[2] += rate in result.interval
        powered, naive, corrected = hits / [samples, samples, samples - refused]
        row = f"| {labelled} | {rate} | {sensitivity} | {specificity} | {powered:.3f} |"
        print(row, f"{corrected:.3f} | {naive:.3f} | refused {refused / samples:.3f} |")
        assert powered >= STATED - tolerance(STATED, samples)
        assert corrected >= STATED - tolerance(STATED, samples)
        assert naive <= 0.9


def test_without_the_added_observations_the_published_interval_does_not_cover():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(SAMPLES):
        truth = (rng.random(5_050) < 0.95).astype(float)
        verdicts = judged(truth, JUDGES["lenient"], rng)
        y, f, rest = truth[:50], verdicts[:50], verdicts[50:]
        weight = np.cov(y, f)[0, 1] / (1.01 * verdicts.var(ddof=1))
        weight = min(1.0, max(0.0, weight))
        centre = y.mean() + weight * (rest.mean() - f.mean())
        error = sqrt(weight**2 * rest.var() / 5_000 + (y - weight * f).var(ddof=1) / 50)
        hits += abs(centre - 0.95) <= 1.96 * error
    print(f"published interval: {hits / SAMPLES:.3f}")
    assert abs(hits / SAMPLES - 0.49) < tolerance(0.49) + 0.02
    assert rate_coverage(50, 5_000, 0.95, JUDGES["lenient"])[0] >= STATED


def test_a_corrected_win_rate_with_ties_and_missing_verdicts_covers():
    rng, chances = np.random.default_rng(2), (0.3, 0.2, 0.5)
    rate = 0.6
    for labelled in (20, 50, 200):
        hits = refused = 0
        for _ in range(SAMPLES):
            truth = rng.choice([0.0, 0.5, 1.0], size=labelled + 1_000, p=chances)
            right = rng.random(truth.size) < 0.7
            verdicts = np.where(right, truth, rng.choice([0.0, 0.5, 1.0], size=truth.size))
            lost = rng.random(truth.size) < np.where(truth == 0.0, 0.4, 0.05)
            verdicts[lost] = np.nan  # the judge mostly fails to rate losses
            try:
                result = prediction_powered_rate(hide(truth, labelled), verdicts)
            except InvalidInputError:
                refused += 1
            else:
                hits += rate in result.interval
        coverage = hits / (SAMPLES - refused)
        print(f"win rate, {labelled} labels, verdicts missing on losses: {coverage:.3f}")
        assert coverage >= STATED - tolerance(STATED)
        assert refused / SAMPLES <= 0.001 + tolerance(0.001)


@pytest.mark.parametrize("judge", ["near perfect", "good", "lax", "poor"])
def test_a_paired_difference_covers(judge):
    for labelled, others, gain in itertools.product((20, 50, 200), (500, 3_000), (0.0, 0.1)):
        rng, hits, naive = np.random.default_rng((labelled, others, round(10 * gain))), 0, 0
        for _ in range(SAMPLES):
            size = labelled + others
            kind = rng.choice(4, size=size, p=[0.65, 0.1, 0.1 + gain, 0.15 - gain])
            old, new = np.isin(kind, (0, 1)).astype(float), np.isin(kind, (0, 2)).astype(float)
            verdicts = [judged(part, JUDGES[judge], rng) for part in (old, new)]
            result = prediction_powered_difference(
                hide(old, labelled), verdicts[0], hide(new, labelled), verdicts[1]
            )
            hits += gain in result.interval
            moved = verdicts[1] - verdicts[0]
            naive += abs(moved.mean() - gain) <= 1.96 * moved.std(ddof=1) / sqrt(size)
        row = f"| {judge} | {labelled} | {others} | {gain} |"
        print(row, f"{hits / SAMPLES:.3f} | {naive / SAMPLES:.3f} |")
        assert hits / SAMPLES >= STATED - tolerance(STATED)


@pytest.mark.parametrize("judge", ["near perfect", "good", "lax", "poor"])
def test_rogan_gladen_covers_with_labels_of_another_mix(judge):
    for each, others, rate in itertools.product((30, 100), (500, 3_000), (0.5, 0.8, 0.95)):
        rng = np.random.default_rng((each, others, round(100 * rate)))
        hits = naive = refused = 0
        labels = np.repeat([1.0, 0.0], each)
        for _ in range(SAMPLES):
            truth = (rng.random(others) < rate).astype(float)
            verdicts = judged(truth, JUDGES[judge], rng)
            naive += rate in wilson(int(verdicts.sum()), others)
            try:
                result = rogan_gladen(verdicts, judged(labels, JUDGES[judge], rng), labels)
            except InsufficientDataError:
                refused += 1
            else:
                hits += rate in result.interval
        coverage = hits / (SAMPLES - refused)
        row = f"| {judge} | 2 x {each} | {others} | {rate} |"
        print(row, f"{coverage:.3f} | {naive / SAMPLES:.3f} | refused {refused / SAMPLES:.3f} |")
        assert coverage >= STATED - tolerance(STATED)


@pytest.mark.parametrize(("each", "rate", "stated"), [(30, 0.5, 0.90), (100, 0.7, 0.925)])
def test_rogan_gladen_covers_less_with_a_judge_that_fails_few(each, rate, stated):
    rng, hits, refused, judge = np.random.default_rng(8), 0, 0, (1.0, 0.3)
    labels = np.repeat([1.0, 0.0], each)
    for _ in range(2 * SAMPLES):
        verdicts = judged((rng.random(3_000) < rate).astype(float), judge, rng)
        try:
            result = rogan_gladen(verdicts, judged(labels, judge, rng), labels)
        except InsufficientDataError:
            refused += 1
        else:
            hits += rate in result.interval
    coverage = hits / (2 * SAMPLES - refused)
    print(f"fails 30 %, 2 x {each} labels, rate {rate}: {coverage:.3f}, refused {refused}")
    assert abs(coverage - stated) <= tolerance(stated, 2 * SAMPLES)


def test_a_judge_that_guesses_is_refused():
    rng, refused = np.random.default_rng(5), 0
    labels = np.repeat([1.0, 0.0], 50)
    for _ in range(SAMPLES):
        verdicts, checked = (rng.random(size) < 0.7 for size in (500, 100))
        try:
            rogan_gladen(verdicts, checked, labels)
        except InsufficientDataError:
            refused += 1
    print(f"guessing judge refused: {refused / SAMPLES:.3f}")
    assert refused / SAMPLES >= 0.97 - tolerance(0.97)


@pytest.mark.parametrize("labelled", [20, 50, 200])
def test_an_independent_difference_covers(labelled):
    for rates in ((0.5, 0.6), (0.9, 0.95)):
        rng, hits = np.random.default_rng(6), 0
        for _ in range(SAMPLES):
            arms = []
            for rate in rates:
                truth = (rng.random(labelled + 500) < rate).astype(float)
                verdicts = judged(truth, JUDGES["good"], rng)
                arms.append(prediction_powered_rate(hide(truth, labelled), verdicts))
            hits += rates[1] - rates[0] in independent_difference(*arms).interval
        print(f"independent, {labelled} labels each, {rates}: {hits / SAMPLES:.3f}")
        assert hits / SAMPLES >= STATED - tolerance(STATED)


def test_the_labels_needed_settle_a_rate_about_as_often_as_planned():
    """The plan starts from a large pilot, so that its variance and correlation are near true."""
    rng, total, rate, threshold = np.random.default_rng(7), 4_000, 0.75, 0.7
    truth = np.repeat([1.0, 0.0], [3_000, 1_000])
    verdicts = np.concatenate([np.repeat([1.0, 0.0], [2_700, 300]), np.repeat([1.0, 0.0], 500)])
    pilot_order = np.concatenate(
        [np.arange(0, total, 20), np.delete(np.arange(total), np.s_[::20])]
    )
    plan = prediction_powered_rate(hide(truth[pilot_order], 200), verdicts[pilot_order])
    needed = 200 + labels_needed(plan, threshold, power=0.8).more_labels
    settled = 0
    for _ in range(SAMPLES):
        truth = (rng.random(total) < rate).astype(float)
        marks = judged(truth, (0.9, 0.5), rng)
        settled += prediction_powered_rate(hide(truth, needed), marks).interval.lower > threshold
    print(f"{needed} labels settle it in {settled / SAMPLES:.3f}, planned 0.8")
    assert abs(settled / SAMPLES - 0.8) < tolerance(0.8) + 0.05
