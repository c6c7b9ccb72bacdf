"""How often intervals of precision, recall and false-positive rate cover. `-s` prints the table."""

import itertools
from math import sqrt

import numpy as np
import pytest

from ratchet.errors import InsufficientDataError
from ratchet.stats.intervals import clopper_pearson
from ratchet.stats.judges.flags import Stratum, false_positive_rate, flag_precision, flag_recall

pytestmark = pytest.mark.slow

SAMPLES = 2_000
LEVEL = 0.95
STATED = 0.93  # the smallest coverage of precision that the docstring states


def tolerance(coverage, samples):
    """Three standard errors of a simulated coverage."""
    return 3.0 * sqrt(coverage * (1.0 - coverage) / samples)


def traffic(rng, size, prevalence, recall, alarms):
    """Violations, and what one source flags of them and of the rest."""
    bad = rng.random(size) < prevalence
    return bad, rng.random(size) < np.where(bad, recall, alarms)


def stratum(rng, bad, inside, share):
    """What is inside, a simple random part of it reviewed."""
    members = np.flatnonzero(inside)
    count = min(members.size, max(1, round(share * members.size))) if members.size else 0
    chosen = rng.choice(members, count, replace=False)
    return Stratum(members.size, count, int(bad[chosen].sum()))


def covered(rate, strata, truth):
    """Whether the interval holds the truth; None where there is no interval."""
    try:
        return truth in rate(*strata, level=LEVEL).interval
    except InsufficientDataError:
        return None


def true_rates(prevalence, recall, alarms):
    hits, false = prevalence * recall, (1.0 - prevalence) * alarms
    return hits / (hits + false), recall, alarms


def coverages(rng, draw, truths):
    """Coverage of the three intervals over those simulations that have one, and how many do."""
    seen = [[], [], []]
    for _ in range(SAMPLES):
        flagged, unflagged = draw()
        for place, (rate, strata) in enumerate(
            (
                (flag_precision, (flagged,)),
                (flag_recall, (flagged, unflagged)),
                (false_positive_rate, (flagged, unflagged)),
            )
        ):
            hit = covered(rate, strata, truths[place])
            if hit is not None:
                seen[place].append(hit)
    return [(np.mean(hits), len(hits)) for hits in seen]


@pytest.mark.parametrize(
    ("size", "prevalence"), itertools.product((2_000, 20_000), (0.003, 0.01, 0.05))
)
def test_rates_from_all_flags_and_a_sample_of_the_rest_cover(size, prevalence):
    rng = np.random.default_rng((size, round(1_000 * prevalence)))
    for recall, alarms, read, share in itertools.product(
        (0.2, 0.6, 0.95), (0.001, 0.01), (0.5, 1.0), (0.02, 0.1)
    ):

        def draw(recall=recall, alarms=alarms, read=read, share=share):
            bad, flag = traffic(rng, size, prevalence, recall, alarms)
            return [stratum(rng, bad, flag, read)], [stratum(rng, bad, ~flag, share)]

        found = coverages(rng, draw, true_rates(prevalence, recall, alarms))
        print(
            f"| {size} | {prevalence} | {recall} | {alarms} | {read} | {share} |",
            *(f"{coverage:.3f} ({count}) |" for coverage, count in found),
        )
        for coverage, count in found[1:]:
            assert coverage >= LEVEL - tolerance(LEVEL, count)
        coverage, count = found[0]
        assert coverage >= STATED - tolerance(STATED, count)


@pytest.mark.parametrize("prevalence", [0.003, 0.01, 0.05])
def test_rates_cover_where_another_source_found_what_this_one_missed(prevalence):
    rng, size = np.random.default_rng(round(1_000 * prevalence)), 10_000
    for recall, other, alarms, share in itertools.product(
        (0.1, 0.6, 0.9), (0.3, 0.9), (0.0005, 0.01), (0.02, 0.1)
    ):

        def draw(recall=recall, other=other, alarms=alarms, share=share):
            bad, flag = traffic(rng, size, prevalence, recall, alarms)
            beside = rng.random(size) < np.where(bad, other, alarms)
            return (
                [stratum(rng, bad, flag & beside, 1.0), stratum(rng, bad, flag & ~beside, 0.5)],
                [stratum(rng, bad, ~flag & beside, 1.0), stratum(rng, bad, ~flag & ~beside, share)],
            )

        found = coverages(rng, draw, true_rates(prevalence, recall, alarms))
        print(
            f"| {prevalence} | {recall} | {other} | {alarms} | {share} |",
            *(f"{coverage:.3f} ({count}) |" for coverage, count in found),
        )
        for coverage, count in found[1:]:
            assert coverage >= LEVEL - tolerance(LEVEL, count)
        coverage, count = found[0]
        assert coverage >= STATED - tolerance(STATED, count)


def test_without_weights_what_was_reviewed_gives_a_recall_that_is_too_high():
    rng, hits = np.random.default_rng(7), 0
    for _ in range(SAMPLES):
        bad, flag = traffic(rng, 20_000, 0.01, 0.6, 0.001)
        flagged, rest = stratum(rng, bad, flag, 1.0), stratum(rng, bad, ~flag, 0.05)
        naive = clopper_pearson(flagged.violations, flagged.violations + rest.violations)
        hits += 0.6 in naive
    print(f"unweighted recall covers in {hits / SAMPLES:.3f}")
    assert hits / SAMPLES < 0.05
