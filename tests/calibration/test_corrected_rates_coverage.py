"""How often intervals of corrected rates cover, by simulation. `-s` prints the tables."""

import itertools
from math import sqrt

import numpy as np
import pytest

from ratchet.errors import InvalidInputError
from ratchet.stats.intervals import wilson
from ratchet.stats.judges.corrected_rate import (
    labels_needed,
    prediction_powered_rate,
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
    others, samples = 10_000, 2 * SAMPLES
    for specificity in GRID:
        judge = (sensitivity, specificity)
        rng = np.random.default_rng([labelled, *(round(100 * x) for x in (rate, *judge))])
        hits = np.zeros(2)
        for _ in range(samples):
            truth = (rng.random(labelled + others) < rate).astype(float)
            verdicts = judged(truth, judge, rng)
            hits[0] += rate in prediction_powered_rate(hide(truth, labelled), verdicts).interval
            hits[1] += rate in wilson(int(verdicts.sum()), verdicts.size)
        powered, naive = hits / samples
        row = f"| {labelled} | {rate} | {sensitivity} | {specificity} | {powered:.3f} |"
        print(row, f"{naive:.3f} |")
        assert powered >= STATED - tolerance(STATED, samples)
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
