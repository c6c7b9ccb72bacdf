"""How often intervals of a judge's biases cover, by enumeration and simulation. `-s` prints."""

import itertools
from math import sqrt

import numpy as np
import pytest
from scipy import special, stats

from ratchet.stats.intervals import newcombe_paired, wilson
from ratchet.stats.judges.bias import bounded_mean_interval, position_bias, self_preference, uplift
from ratchet.stats.judges.drift import judge_drift
from ratchet.stats.judges.length import length_controlled_win_rate, longest_answer_win_rate

pytestmark = pytest.mark.slow

SAMPLES = 1_000
EPS = 1e-9
GRID = [0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1]
COARSE = [0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 1]


def at_least(stated, samples=SAMPLES):
    """Smallest simulated coverage that a true one of `stated` explains, at 3 standard errors."""
    return stated - 3.0 * sqrt(stated * (1.0 - stated) / samples)


def at_most(stated, samples=SAMPLES):
    return stated + 3.0 * sqrt(stated * (1.0 - stated) / samples)


# Exact enumeration --------------------------------------------------------------------------------


def enumerated(cells, intervals, chances, difference):
    """Coverage of `difference`, and how often the lower end is above it."""
    weight = stats.multinomial.pmf(cells, int(cells[0].sum()), chances)
    lower, upper = intervals
    above, below = lower > difference + EPS, upper < difference - EPS
    return 1.0 - weight[above | below].sum(), weight[above].sum()


def limits(cells, method):
    found = [method(*row) for row in cells.tolist()]
    return np.array([i.lower for i in found]), np.array([i.upper for i in found])


@pytest.mark.parametrize("items", [10, 20, 50, 100])
def test_a_bounded_interval_covers_whatever_the_share_of_ties(items):
    cells = np.array(
        [(k, m, items - k - m) for k in range(items + 1) for m in range(items + 1 - k)]
    )
    found = limits(cells, lambda *row: bounded_mean_interval(np.repeat([1.0, -1.0, 0.0], row)))
    worst, above = 1.0, 0.0
    for up, down in itertools.product(GRID, GRID):
        if up + down <= 1.0 + EPS:
            chances = [up, down, max(0.0, 1.0 - up - down)]
            coverage, missed = enumerated(cells, found, chances, up - down)
            worst, above = min(worst, coverage), max(above, missed * (up >= down))
    print(f"| bounded | {items} | {worst:.3f} | {above:.4f} |")
    assert worst >= 0.93
    assert above <= 0.03


@pytest.mark.parametrize("items", [10, 20, 30])
def test_newcombes_paired_interval_covers_as_stated_for_few_items(items):
    cells = np.array(
        [
            (a, b, c, items - a - b - c)
            for a in range(items + 1)
            for b in range(items + 1 - a)
            for c in range(items + 1 - a - b)
        ]
    )
    found = limits(cells, newcombe_paired)
    worst, at_zero, above = 1.0, 0.0, 0.0
    for both, down, up in itertools.product(COARSE, repeat=3):
        if both + down + up <= 1.0 + EPS:
            chances = [both, down, up, max(0.0, 1.0 - both - down - up)]
            coverage, missed = enumerated(cells, found, chances, up - down)
            worst, above = min(worst, coverage), max(above, missed * (up >= down))
            at_zero = max(at_zero, missed * (up == down))
    print(f"| paired | {items} | {worst:.3f} | {at_zero:.4f} | {above:.4f} |")
    assert worst >= 0.91
    assert at_zero <= 0.04
    assert above <= 0.045


def test_a_treatment_that_wins_half_is_called_harmful_as_rarely_as_stated():
    worst = 0.0
    for items in range(10, 201):
        wins = np.arange(items + 1)
        harmful = np.array([wilson(int(k), items).lower - 0.5 > 0.0 for k in wins])
        worst = max(worst, stats.binom.pmf(wins, items, 0.5)[harmful].sum())
    print(f"| win rate | {worst:.4f} |")
    assert worst <= 0.04


# Scores, position, self-preference ----------------------------------------------------------------

STEPS = {
    "one in ten gains a step": lambda rng, n: 0.25 * (rng.random(n) < 0.1),
    "skewed": lambda rng, n: rng.beta(0.2, 2.0, n),
    "rare and large": lambda rng, n: (rng.random(n) < 0.03) * rng.uniform(0.5, 1.0, n),
    "up and down": lambda rng, n: rng.choice([-0.5, 0.0, 0.25, 1.0], n, p=[0.2, 0.5, 0.2, 0.1]),
    "all or nothing": lambda rng, n: rng.choice([-1.0, 0.99], n),
}
MEANS = {
    "one in ten gains a step": 0.025,
    "skewed": 0.2 / 2.2,
    "rare and large": 0.03 * 0.75,
    "up and down": 0.05,
    "all or nothing": -0.005,
}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("items", [10, 30, 200])
def test_uplift_of_scores_covers_its_true_mean(steps, items):
    rng, hits, harmful = np.random.default_rng(items), 0, 0
    for _ in range(SAMPLES):
        change = STEPS[steps](rng, items)
        plain = np.maximum(0.0, -change)
        result = uplift(plain, np.clip(plain + change, 0.0, 1.0), tolerance=max(0.0, MEANS[steps]))
        hits += MEANS[steps] in result.interval
        harmful += result.harmful
    print(f"| {steps} | {items} | {hits / SAMPLES:.3f} | {harmful / SAMPLES:.3f} |")
    assert hits / SAMPLES >= at_least(0.93)
    assert harmful / SAMPLES <= at_most(0.03)


@pytest.mark.parametrize("ties", [0.0, 0.2])
@pytest.mark.parametrize("pairs", [20, 100])
@pytest.mark.parametrize("preference", [0.0, 0.1, 0.4])
def test_position_bias_covers(pairs, ties, preference):
    """With a chance of `preference` the judge takes the first answer without reading."""
    rng, hits = np.random.default_rng((pairs, round(10 * preference))), np.zeros(3)
    first = preference + (1.0 - preference) * 0.6  # both orders of a pair are drawn apart
    second = (1.0 - preference) * 0.6
    lean = first * (1.0 - second)
    truth = (1.0 - ties) * (first - second) / 2.0  # a tie in both orders of a pair at once
    same = ties + (1.0 - ties) * (first * second + (1.0 - first) * (1.0 - second))
    share = lean / (lean + second * (1.0 - first))
    for _ in range(SAMPLES):
        tied = rng.random(pairs) < ties
        one = np.where(tied, 0.5, rng.random(pairs) < first)
        two = np.where(tied, 0.5, rng.random(pairs) < second)
        result = position_bias(one, two)
        leaning = result.first_position
        hits += [
            truth in result.interval,
            same in result.consistency.interval,
            leaning is None or share in leaning.interval,
        ]
    print(f"| {pairs} | {ties} | {preference} |", *(f"{x:.3f} |" for x in hits / SAMPLES))
    stated = 0.93 if ties or pairs == 100 else 0.91
    assert hits[0] / SAMPLES >= at_least(stated)
    assert hits[1] / SAMPLES >= at_least(0.92)
    assert hits[2] / SAMPLES >= at_least(0.92)


@pytest.mark.parametrize("ties", [0.0, 0.2])
@pytest.mark.parametrize(("own", "other"), [(30, 30), (30, 200), (200, 200)])
def test_self_preference_covers_and_so_does_the_difference(own, other, ties):
    rng, hits = np.random.default_rng(own + other), np.zeros(2)
    is_own = np.arange(own + other) < own
    moved = np.where(is_own, 0.3, 0.1)  # chance that the judge is for it whatever people say
    rate = np.where(is_own, 0.7, 0.5)
    truth = moved * (1.0 - rate) * (1.0 - ties) + moved * ties * 0.5
    for _ in range(SAMPLES):
        people = np.where(rng.random(is_own.size) < rate, 1.0, 0.0)
        people = np.where(rng.random(is_own.size) < ties, 0.5, people)
        judge = np.where(rng.random(is_own.size) < moved, 1.0, people)
        result = self_preference(judge, people, is_own)
        hits += [
            truth[0] in result.interval,
            truth[0] - truth[-1] in result.difference.interval,
        ]
    print(f"| {own} | {other} | {ties} |", *(f"{x:.3f} |" for x in hits / SAMPLES))
    assert (hits / SAMPLES >= at_least(0.93)).all()


# Length -------------------------------------------------------------------------------------------


def drawn_pairs(rng, pairs, odds, slope, mean, ties):
    lengths = rng.normal(mean, 1.0, pairs)
    chance = special.expit(odds + slope * np.tanh(lengths))
    return np.where(rng.random(pairs) < ties, 0.5, rng.random(pairs) < chance), lengths


def length_coverage(pairs, odds, slope, mean, ties):
    """Share of samples where the intervals of rate, coefficient, effect and raw 1/2 cover."""
    rate, coefficient = special.expit(odds), slope
    effect = special.expit(odds + slope * np.tanh(1.0)) - rate
    if ties:  # random ties pull odds towards 1, so that the truth is what many pairs would give
        many = drawn_pairs(np.random.default_rng(9), 500_000, odds, slope, mean, ties)
        truth = length_controlled_win_rate(*many)
        rate, coefficient = truth.estimate, truth.coefficient.estimate
        effect = truth.length_effect.estimate
    rng, hits = np.random.default_rng((pairs, round(9 + odds), slope)), np.zeros(4)
    for _ in range(SAMPLES):
        result = length_controlled_win_rate(*drawn_pairs(rng, pairs, odds, slope, mean, ties))
        hits += [
            rate in result.interval,
            coefficient in result.coefficient.interval,
            effect in result.length_effect.interval,
            0.5 in result.raw.interval,
        ]
    return hits / SAMPLES


@pytest.mark.parametrize(
    ("pairs", "odds", "slope", "mean", "ties"),
    [
        (50, 0.0, 0, 0.0, 0.0),
        (50, 0.0, 1, 1.0, 0.0),
        (50, 0.0, 0, 0.5, 0.3),
        (100, 0.85, 1, 0.5, 0.0),
        (100, -0.85, 2, 0.0, 0.0),
        (100, -0.85, 2, 1.0, 0.0),
        (400, 0.0, 2, 1.0, 0.0),
        (100, 0.85, 1, 0.5, 0.3),
        (400, -0.85, 2, 1.0, 0.3),
    ],
)
def test_the_length_controlled_rate_covers(pairs, odds, slope, mean, ties):
    cell = length_coverage(pairs, odds, slope, mean, ties)
    print(f"| {pairs} | {odds} | {slope} | {mean} | {ties} |", *(f"{x:.3f} |" for x in cell))
    assert min(cell[:3]) >= at_least(0.93)


def test_a_raw_rate_from_length_alone_excludes_a_half_and_the_controlled_one_covers_it():
    rate, _, _, raw = length_coverage(400, 0.0, 2, 0.7, 0.0)
    print(f"| length alone | controlled {rate:.3f} | raw {raw:.3f} |")
    assert rate >= at_least(0.94)
    assert raw <= 0.01


def drawn_users(rng, users, pairs, odds):
    """Pairs of users with own leanings and own habits of length, a fifth of them ties."""
    leaning = np.repeat(rng.normal(0.0, 1.0, users), pairs)
    lengths = np.repeat(rng.normal(0.0, 0.7, users), pairs) + rng.normal(0.0, 0.7, users * pairs)
    wins = rng.random(users * pairs) < special.expit(odds + np.tanh(lengths) + leaning)
    verdicts = np.where(rng.random(users * pairs) < 0.2, 0.5, wins)
    return verdicts, lengths, np.repeat(np.arange(users), pairs)


@pytest.mark.parametrize("odds", [0.0, -0.85])
@pytest.mark.parametrize(("users", "pairs"), [(20, 10), (30, 10), (60, 5)])
def test_with_users_the_length_controlled_rate_covers_the_value_of_all_users(users, pairs, odds):
    verdicts, lengths, labels = drawn_users(np.random.default_rng(9), 40_000, 10, odds)
    truth = length_controlled_win_rate(verdicts, lengths, clusters=labels)
    rule = longest_answer_win_rate(verdicts, lengths).estimate
    rng, hits = np.random.default_rng(1), np.zeros(5)
    for _ in range(SAMPLES):
        y, x, who = drawn_users(rng, users, pairs, odds)
        result = length_controlled_win_rate(y, x, clusters=who)
        hits += [
            truth.estimate in result.interval,
            truth.coefficient.estimate in result.coefficient.interval,
            truth.length_effect.estimate in result.length_effect.interval,
            rule in result.longest_answer_judge.interval,
            truth.estimate in length_controlled_win_rate(y, x).interval,
        ]
    print(f"| {users} | {pairs} | {odds} |", *(f"{x:.3f} |" for x in hits / SAMPLES))
    assert hits[0] / SAMPLES >= at_least(0.93)
    assert (hits[1:3] / SAMPLES >= at_least(0.92)).all()
    assert hits[3] / SAMPLES >= at_least(0.93)
    assert hits[4] / SAMPLES < 0.9


# Drift --------------------------------------------------------------------------------------------


def drift_rates(anchors, traffic, *, judge, system, scored):
    """Named causes, and coverage of the judge's and the system's interval, over simulations.

    `judge` is the chance that the later judge passes what it failed, `system` the fall of the
    share of good answers. Anchors are drawn anew in each, as traffic before.
    """
    rng, causes, hits = np.random.default_rng((anchors, traffic)), [], np.zeros(2)

    def judged(good, moved):
        passed = np.where(rng.random(good.size) < 0.1, ~good, good)
        passed = passed | (rng.random(good.size) < moved)
        return 0.25 + 0.5 * passed + 0.25 * rng.random(good.size) if scored else passed * 1.0

    failed = 0.1 * 0.7 + 0.9 * 0.3
    size = 0.5 if scored else 1.0
    moved_by_judge = size * judge * failed
    both = size * ((1.0 - judge) * (1.0 - (0.3 + system) * 0.9 - (0.7 - system) * 0.1) + judge)
    moved_by_system = both - size * (1.0 - failed) - moved_by_judge
    for _ in range(SAMPLES):
        good = rng.random(anchors) < 0.7
        before = judged(good, 0.0)
        steady = rng.random(anchors) < 0.95  # texts whose score the same judge repeats
        fresh = judged(good, 0.0)
        raised = rng.random(anchors) < judge
        top = 0.75 + 0.25 * rng.random(anchors) if scored else np.ones(anchors)
        after = np.where(steady, before, fresh)
        passed_already = after >= 0.75
        after = np.where(raised & ~passed_already, top, after)
        result = judge_drift(
            good * 1.0,
            before,
            after,
            judged(rng.random(traffic) < 0.7, 0.0),
            judged(rng.random(traffic) < 0.7 - system, judge),
        )
        causes.append(result.cause)
        hits += [moved_by_judge in result.judge.interval, moved_by_system in result.system.interval]
    named = {cause: causes.count(cause) / SAMPLES for cause in set(causes)}
    print(f"| {anchors} | {traffic} | {judge} | {system} | {scored} |", named, hits / SAMPLES)
    return named, hits / SAMPLES


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize(("anchors", "traffic"), [(50, 200), (100, 1_000), (300, 300)])
def test_without_drift_a_cause_is_named_as_rarely_as_stated(anchors, traffic, scored):
    named, hits = drift_rates(anchors, traffic, judge=0.0, system=0.0, scored=scored)
    assert 1.0 - named["none shown"] <= at_most(0.05)
    assert (hits >= at_least(0.965)).all()


@pytest.mark.parametrize("scored", [False, True])
def test_drift_of_one_is_not_laid_to_the_other(scored):
    named, hits = drift_rates(200, 1_000, judge=0.5, system=0.0, scored=scored)
    assert named.get("both", 0.0) + named.get("system", 0.0) <= at_most(0.03)
    assert named["judge"] >= 0.9
    assert (hits >= at_least(0.965)).all()
    named, hits = drift_rates(200, 1_000, judge=0.0, system=0.2, scored=scored)
    assert named.get("both", 0.0) + named.get("judge", 0.0) <= at_most(0.03)
    assert named["system"] >= 0.9
    assert (hits >= at_least(0.965)).all()
    named, hits = drift_rates(300, 2_000, judge=0.5, system=0.4, scored=scored)
    assert named["both"] >= 0.9
    assert (hits >= at_least(0.965)).all()
