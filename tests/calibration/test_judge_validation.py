"""How often a judge at the bar is called usable, and how often a good one is. `-s` prints both.

The sharpest case of the claim is a judge whose true kappa is the bar, held against kappa alone; the
further conditions only refuse more. Tolerances are three standard errors of the simulation.
"""

import math

import numpy as np
import pytest

from ratchet.judges.label_sets import LabelledVerdict
from ratchet.judges.validation import Bar, validate_judge

pytestmark = pytest.mark.slow

RUNS, FEWER_RUNS = 2_000, 500
KAPPA_ALONE = Bar(agreement=0.01, consistency=0.01)
ITEMS = (50, 100, 400)


def single(shares, kappa):
    """Joint distribution of label and verdict with like marginals: agree, or draw by chance."""
    shares = np.asarray(shares)
    joint = kappa * np.diag(shares) + (1.0 - kappa) * np.outer(shares, shares)
    names = "123"
    return {
        LabelledVerdict("i", names[i], names[j]): float(chance)
        for (i, j), chance in np.ndenumerate(joint)
    }


def pairs(first, kappa, tied=0.1):
    """Pairs of which a share is a tie between the orders; the rest is right as often as fits."""
    low, high = 0.0, 1.0
    for _ in range(60):
        right = (low + high) / 2.0
        if true_kappa(made := _pairs(first, right, tied)) < kappa:
            low = right
        else:
            high = right
    assert true_kappa(made) == pytest.approx(kappa)
    return made


def _pairs(first, right, tied):
    made = {}
    for human, other, share in (("1", "2", first), ("2", "1", 1.0 - first)):
        for one, two, chance in (
            (human, human, (1.0 - tied) * right),
            (other, other, (1.0 - tied) * (1.0 - right)),
            ("1", "2", 0.7 * tied),  # the answer shown first wins more often
            ("2", "1", 0.3 * tied),
        ):
            made[LabelledVerdict("i", human, one, two, both_orders=True)] = share * chance
    return made


def true_kappa(joint):
    humans, verdicts = {}, {}
    for row, chance in joint.items():
        humans[row.human] = humans.get(row.human, 0.0) + chance
        verdicts[row.verdict] = verdicts.get(row.verdict, 0.0) + chance
    observed = sum(chance for row, chance in joint.items() if row.human == row.verdict)
    if any(row.both_orders for row in joint):  # either place is as likely: chance is even there
        for shares in (humans, verdicts):
            shares["1"] = shares["2"] = (shares.get("1", 0.0) + shares.get("2", 0.0)) / 2.0
    expected = sum(share * verdicts.get(name, 0.0) for name, share in humans.items())
    return (observed - expected) / (1.0 - expected)


def usable(joint, items, bar, runs=RUNS, seed=0):
    """Share of simulated validations that say usable."""
    drawn = np.random.default_rng(seed).multinomial(items, list(joint.values()), size=runs)
    tables, times = np.unique(drawn, axis=0, return_counts=True)
    hits = 0
    for counts, count in zip(tables, times, strict=True):
        rows = [row for row, n in zip(joint, counts, strict=True) for _ in range(n)]
        found = validate_judge(rows, rng=np.random.default_rng(0), bar=bar, categories=menu(joint))
        hits += int(count) * (found.decision == "usable")
    return hits / runs


def menu(joint):
    return sorted({row.human for row in joint} | {str(row.judge) for row in joint})


AT_THE_BAR = {
    **{f"two labels, {p:.0%}": single([p, 1 - p], 0.6) for p in (0.5, 0.7, 0.8, 0.9)},
    "three labels, even": single([1 / 3] * 3, 0.6),
    "three labels, 80 %": single([0.8, 0.15, 0.05], 0.6),
    "three labels, 50 %": single([0.5, 0.4, 0.1], 0.6),
    **{f"pairs, first right {p:.0%}": pairs(p, 0.6) for p in (0.5, 0.7, 0.9, 0.95, 1.0)},
}


@pytest.mark.parametrize("items", ITEMS)
@pytest.mark.parametrize("name", AT_THE_BAR)
def test_a_judge_at_the_bar_is_called_usable_in_at_most_one_of_twenty_validations(name, items):
    joint = AT_THE_BAR[name]
    assert true_kappa(joint) == pytest.approx(0.6)
    found = usable(joint, items, KAPPA_ALONE)
    print(f"\n{name}, kappa 0.6, {items} labels: usable in {found:.1%}")
    assert found <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize("name", ["two labels, 50%", "pairs, first right 50%"])
def test_with_even_labels_the_error_is_used_and_not_far_below_its_rate(name):
    """A rule that calls nobody usable would pass the test above."""
    assert usable(AT_THE_BAR[name], 400, KAPPA_ALONE) >= 0.015


@pytest.mark.parametrize("kappa", [0.3, 0.5])
def test_a_judge_below_the_bar_is_called_usable_more_rarely_still(kappa):
    for joint in (single([0.5, 0.5], kappa), pairs(0.7, kappa)):
        at_the_bar = usable(single([0.5, 0.5], 0.6), 50, KAPPA_ALONE, FEWER_RUNS)
        assert usable(joint, 50, KAPPA_ALONE, FEWER_RUNS) < at_the_bar


def test_a_good_judge_is_found_usable_more_often_with_more_labels():
    """Power of the rule as it is by default at a true kappa of 0.8."""
    for name, joint in {
        "two labels, 50 %": single([0.5, 0.5], 0.8),
        "two labels, 80 %": single([0.8, 0.2], 0.8),
        "three labels, even": single([1 / 3] * 3, 0.8),
        "pairs, first right 50 %": pairs(0.5, 0.8),
        "pairs, first right 95 %": pairs(0.95, 0.8),
    }.items():
        power = [usable(joint, items, Bar(), FEWER_RUNS) for items in (50, 100, 200)]
        shown = ", ".join(f"{n}: {p:.0%}" for n, p in zip((50, 100, 200), power, strict=True))
        print(f"\n{name}, kappa 0.8, usable with labels {shown}")
        assert power[0] < power[1] < power[2]
        assert power[2] > 0.85, name


@pytest.mark.parametrize("first", [0.5, 0.95, 1.0])
def test_a_judge_right_in_85_percent_is_found_usable_however_often_one_side_wins(first):
    """Its kappa by place is 0.7; by winner it would be 0.29 at 95 % and 0 at 100 %."""
    joint = _pairs(first, 0.85, 0.0)
    assert true_kappa(joint) == pytest.approx(0.7)
    shares = [usable(joint, items, Bar(), FEWER_RUNS) for items in (100, 200, 400)]
    print(f"\nright in 85 %, first right {first:.0%}, usable with 100, 200, 400 labels: {shares}")
    assert shares[2] > 0.75


@pytest.mark.parametrize("first", [0.95, 1.0])
def test_a_judge_that_does_not_look_is_never_called_usable_however_often_one_side_wins(first):
    """A coin, and a judge that always names a place."""
    assert usable(_pairs(first, 0.5, 0.0), 100, Bar(), FEWER_RUNS) == 0.0
    assert usable(_pairs(first, 1.0, 1.0), 100, Bar(), FEWER_RUNS) == 0.0
