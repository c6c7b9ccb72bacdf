"""Coverage of intervals for agreement, by simulation. `-s` prints the figures.

Each tolerance is three standard errors of the simulation itself. An asymptotic interval is held to
its rate in the region that its docstring claims, and to the figure that the docstring admits
outside. Samples in which a coefficient is undefined (one label for everything) or has no interval
are counted and left out.
"""

import math

import numpy as np
import pytest

from ratchet.stats.agreement import (
    cohen_kappa_of_table,
    fleiss_kappa,
    gwet_ac1,
    kappa_lower_bound,
    krippendorff_alpha,
    percent_agreement,
)
from ratchet.stats.agreement.human_ceiling import judge_against_humans

pytestmark = pytest.mark.slow

RUNS, BOOTSTRAP_RUNS = 4_000, 400
ALPHA = 0.05


def two_labels(share, kappa):
    """Joint distribution of two raters who both give the first label with this chance."""
    apart = share * (1.0 - share) * (1.0 - kappa)
    return np.array([[share - apart, apart], [apart, 1.0 - share - apart]])


def near(claimed, hits, runs):
    """Whether a rate explains these hits; claims are rounded to two digits."""
    return abs(hits / runs - claimed) <= 0.005 + 3.0 * math.sqrt(claimed * (1 - claimed) / runs)


def at_most(rate, hits, runs):
    return hits / runs <= rate + 3.0 * math.sqrt(rate * (1.0 - rate) / runs)


def at_least(rate, hits, runs):
    return hits / runs >= rate - 3.0 * math.sqrt(rate * (1.0 - rate) / runs)


def true_kappa(joint, weights):
    places = np.arange(len(joint))
    distance = np.abs(np.subtract.outer(places, places)).astype(float)
    apart = {None: np.sign(distance), "linear": distance, "quadratic": distance**2}[weights]
    return 1.0 - (apart * joint).sum() / (joint.sum(axis=1) @ apart @ joint.sum(axis=0))


def samples(chances, items, seed):
    """Simulated counts of cells, each repeated as often as it was drawn."""
    drawn = np.random.default_rng(seed).multinomial(items, np.ravel(chances), size=RUNS)
    return zip(*np.unique(drawn, axis=0, return_counts=True), strict=True)


def kappas(joint, items, weights=None, seed=0):
    for table, times in samples(joint, items, seed):
        result = cohen_kappa_of_table(table.reshape(joint.shape), weights=weights)
        if result.value is not None:
            yield from [result] * times


REGION = [  # where the docstrings claim coverage near the level
    (share, kappa, items)
    for kappa, items in ((0.0, 100), (0.3, 100), (0.6, 100), (0.6, 300), (0.9, 300))
    for share in (0.5, 0.2)
]


@pytest.mark.parametrize(("share", "kappa", "items"), REGION)
def test_the_kappa_interval_covers_in_the_region_that_it_claims(share, kappa, items):
    found = list(kappas(two_labels(share, kappa), items, seed=5))
    covered = sum(kappa in one.interval for one in found)
    print(f"share {share}, kappa {kappa}, {items} items: {covered / len(found):.3f}")
    assert len(found) == RUNS
    assert at_least(0.92, covered, len(found))


COHEN = [
    (0.5, 0.9, 30, 0.997),
    (0.5, 0.9, 50, 0.997),
    (0.5, 0.9, 100, 0.88),
    (0.05, 0.6, 50, 0.89),
    (0.05, 0.6, 100, 0.89),
    (0.05, 0.6, 300, 0.93),
    (0.05, 0.0, 100, 0.38),
    (0.05, 0.0, 300, 0.52),
]


@pytest.mark.parametrize(("share", "kappa", "items", "admitted"), COHEN)
def test_elsewhere_the_kappa_interval_covers_as_the_docstring_admits(share, kappa, items, admitted):
    found = list(kappas(two_labels(share, kappa), items))
    covered = sum(kappa in one.interval for one in found)
    print(f"share {share}, kappa {kappa}, {items} items: {covered / len(found):.3f}", end=", ")
    print(f"undefined {1 - len(found) / RUNS:.3f}")
    assert near(admitted, covered, len(found))


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
@pytest.mark.parametrize("kappa", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("items", [30, 100, 300])
def test_the_lower_bound_is_above_kappa_in_at_most_alpha_of_samples(share, kappa, items):
    found = list(kappas(two_labels(share, kappa), items, seed=1))
    above = sum(kappa_lower_bound(one, alpha=ALPHA) > kappa for one in found)
    wald = sum(one.value - 1.6449 * one.standard_error > kappa for one in found)
    print(f"share {share}, kappa {kappa}, {items} items: {above / len(found):.3f}", end=", ")
    print(f"kappa - z ASE {wald / len(found):.3f}")
    assert at_most(ALPHA, above, len(found))


UNEVEN = np.array([[0.40, 0.08, 0.02], [0.03, 0.20, 0.07], [0.00, 0.05, 0.15]])


@pytest.mark.parametrize(
    ("weights", "items", "claimed"),
    [
        (None, 100, 0.94),
        ("linear", 100, 0.94),
        ("quadratic", 100, 0.92),
        (None, 300, 0.95),
        ("linear", 300, 0.95),
        ("quadratic", 300, 0.95),
    ],
)
def test_three_ordered_labels_with_uneven_marginals_are_covered(weights, items, claimed):
    truth = true_kappa(UNEVEN, weights)
    found = list(kappas(UNEVEN, items, weights))
    covered = sum(truth in one.interval for one in found)
    above = sum(kappa_lower_bound(one, alpha=ALPHA) > truth for one in found)
    print(f"{weights}, {items} items: {covered / len(found):.3f}, bound {above / len(found):.3f}")
    assert near(claimed, covered, len(found))
    assert at_most(ALPHA, above, len(found))


@pytest.mark.parametrize("share", [0.4, 0.05])
def test_the_test_of_no_agreement_keeps_its_level(share):
    found = [one for one in kappas(two_labels(share, 0.0), 300, seed=2) if one.z is not None]
    rejected = sum(one.p_value <= ALPHA for one in found)
    print(f"share {share}, rejected at kappa 0: {rejected / len(found):.3f}")
    assert at_most(ALPHA + 0.005, rejected, len(found))


@pytest.mark.parametrize(("agreement", "items"), [(0.7, 30), (0.85, 50), (0.95, 200)])
def test_percent_agreement_covers(agreement, items):
    covered = 0
    for (same, _), times in samples([agreement, 1.0 - agreement], items, 8):
        others = np.arange(items) >= same  # the first rater says False of each
        covered += times * (agreement in percent_agreement(np.zeros(items, bool), others).interval)
    print(f"percent agreement {agreement}, {items} items: {covered / RUNS:.3f}")
    assert at_least(0.93, covered, RUNS)


def ones_of(share, kappa, raters):
    """Chance of each number of first labels: all copy one draw with chance kappa, else none."""
    own = [math.comb(raters, n) * share**n * (1 - share) ** (raters - n) for n in range(raters + 1)]
    chances = (1.0 - kappa) * np.array(own)
    chances[0] += kappa * (1.0 - share)
    chances[raters] += kappa * share
    return chances


def many_raters(share, kappa, items, raters=2):
    """How often the intervals of Fleiss' kappa and of AC1 cover, and of how many."""
    by_chance = 2.0 * share * (1.0 - share)
    ac1 = 1.0 - by_chance * (1.0 - kappa) / (1.0 - by_chance)
    hits, runs = np.zeros(2), np.zeros(2)
    for cells, times in samples(ones_of(share, kappa, raters), items, 3):
        ones = np.repeat(np.arange(raters + 1), cells)
        fleiss = fleiss_kappa(np.column_stack([ones, raters - ones]))
        gwet = gwet_ac1((np.arange(raters) < ones[:, np.newaxis]).astype(int), categories=[0, 1])
        if fleiss.value is not None:
            hits[0] += times * (kappa in fleiss.interval)
            runs[0] += times
        hits[1] += times * (ac1 in gwet.interval)
        runs[1] += times
    print(f"share {share}, kappa {kappa}, {items} items, {raters} raters:", hits / runs, runs)
    return hits, runs


@pytest.mark.parametrize(("share", "kappa", "items"), REGION)
def test_intervals_over_items_cover_in_the_region_that_they_claim(share, kappa, items):
    hits, runs = many_raters(share, kappa, items)
    assert at_least(0.91, hits[0], runs[0])
    assert at_least(0.92, hits[1], runs[1])


@pytest.mark.parametrize(
    ("share", "kappa"), [(0.5, 0.0), (0.2, 0.0), (0.5, 0.6), (0.2, 0.6), (0.5, 0.9)]
)
def test_intervals_over_items_of_five_raters_cover(share, kappa):
    hits, runs = many_raters(share, kappa, 300 if kappa == 0.9 else 100, raters=5)
    assert at_least(0.93, hits[0], runs[0])
    assert at_least(0.92, hits[1], runs[1])


@pytest.mark.parametrize(
    ("share", "kappa", "items", "fleiss", "gwet"),
    [
        (0.5, 0.9, 100, 0.88, 0.87),
        (0.05, 0.6, 100, 0.88, 0.90),
        (0.05, 0.6, 300, 0.93, 0.93),
        (0.05, 0.0, 100, 0.23, 0.91),
        (0.05, 0.0, 300, 0.53, 0.94),
    ],
)
def test_elsewhere_they_cover_as_the_docstrings_admit(share, kappa, items, fleiss, gwet):
    hits, runs = many_raters(share, kappa, items)
    assert near(fleiss, hits[0], runs[0])
    assert near(gwet, hits[1], runs[1])


def alphas(share, alpha, items, seed):
    """Bootstrap intervals of alpha of two raters, None where there is none."""
    rng = np.random.default_rng(seed)
    for cells in rng.multinomial(items, ones_of(share, alpha, 2), size=BOOTSTRAP_RUNS):
        ones = np.repeat(np.arange(3), cells)
        ratings = (np.arange(2) < ones[:, np.newaxis]).astype(int)
        yield krippendorff_alpha(
            ratings, metric="nominal", categories=[0, 1], rng=rng, resamples=400
        ).interval


@pytest.mark.parametrize(("share", "alpha", "items"), REGION)
def test_the_bootstrap_of_alpha_covers_in_the_region_that_it_claims(share, alpha, items):
    covered = sum(alpha in interval for interval in alphas(share, alpha, items, 6))
    print(f"share {share}, alpha {alpha}, {items} units: {covered / BOOTSTRAP_RUNS:.3f}")
    assert at_least(0.93, covered, BOOTSTRAP_RUNS)


@pytest.mark.parametrize(
    ("alpha", "items", "admitted", "none"),
    [(0.6, 100, 0.94, 0.1), (0.6, 300, 0.95, 0.0), (0.0, 100, 0.26, 0.02), (0.0, 300, 0.52, 0.0)],
)
def test_with_a_rare_label_it_covers_as_the_docstring_admits(alpha, items, admitted, none):
    found = list(alphas(0.05, alpha, items, 7))
    known = [interval for interval in found if interval is not None]
    covered = sum(alpha in interval for interval in known)
    print(f"alpha {alpha}, {items} units: {covered / len(known):.3f}, {len(known)} intervals")
    assert near(admitted, covered, len(known))
    assert near(none, len(found) - len(known), len(found))


@pytest.mark.parametrize("measure", ["percent", "kappa"])
@pytest.mark.parametrize(("items", "claimed"), [(50, 0.93), (200, 0.95)])
def test_the_difference_from_the_human_ceiling_is_covered(measure, items, claimed):
    # a judge as good as each of three people: all flip a fair truth with chance 0.15
    rng, covered, runs = np.random.default_rng(4), 0, 2 * BOOTSTRAP_RUNS
    for _ in range(runs):
        truth = rng.integers(0, 2, size=(items, 1))
        labels = np.where(rng.random((items, 4)) < 0.15, 1 - truth, truth)
        result = judge_against_humans(
            labels[:, 0], labels[:, 1:], rng=rng, measure=measure, resamples=1_000
        )
        covered += 0.0 in result.interval
    print(f"{measure}, {items} items: {covered / runs:.3f}")
    assert near(claimed, covered, runs)
