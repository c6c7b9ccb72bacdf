"""How often the gate promotes, by simulation. `-s` prints the table of docs/methods.md."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.policy import loop_policy
from ratchet.deploy.gate.scores import REGRESSION, GateScores, metric_scores

pytestmark = pytest.mark.slow

GATES = 4_000
POLICY = loop_policy()


def promotion_rate(**model):
    return verdict_rate("promote", **model)


def verdict_rate(verdict, *, examples, discordance, gain, accuracy=0.7, constant=0.125, seed=0):
    """Return the share of simulated gates that end in a verdict.

    Each example is one multinomial draw: only the champion right, only the challenger right, both,
    neither; `discordance` is the chance of the first two together, `gain` their difference.
    """
    losses, wins = (discordance - gain) / 2, (discordance + gain) / 2
    both = accuracy - losses
    chances = [losses, wins, both, 1.0 - losses - wins - both]
    draws = np.random.default_rng(seed).multinomial(examples, chances, size=GATES)
    return sum(decided(cells, constant) == verdict for cells in draws.tolist()) / GATES


def decided(cells, constant):
    kinds = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    pairs = np.repeat(np.array(kinds), cells, axis=0)
    metrics, _ = metric_scores({"exact_match": (pairs[:, 0], pairs[:, 1])})
    scores = GateScores(metrics, sets={REGRESSION: {}}, constant_answer_rate=constant)
    return run_gate(scores, POLICY, plan=False).verdict


def exact_promotion_rate(examples, discordance, gain):
    """Sum the chance of promotion over all outcomes, by scipy: the yardstick of the simulation.

    Given `k` discordant examples the wins are Bin(k, q); promoted is an exact one-sided p of at
    most the level. The floor of the constant answer does not bind here.
    """
    share = (1.0 + gain / discordance) / 2
    total = 0.0
    for differing in range(1, examples + 1):
        weight = stats.binom.pmf(differing, examples, discordance)
        wins = np.arange(differing // 2 + 1, differing + 1)
        p_values = stats.binom.sf(wins - 1, differing, 0.5)
        promoted = wins[p_values <= POLICY.error_level]
        total += weight * stats.binom.pmf(promoted, differing, share).sum()
    return total


def standard_errors(rate, count=3.0):
    return count * sqrt(rate * (1.0 - rate) / GATES)


@pytest.mark.parametrize("examples", [100, 300, 1_000])
@pytest.mark.parametrize("discordance", [0.1, 0.3])
def test_an_equal_challenger_is_promoted_at_most_at_the_level(examples, discordance):
    rate = promotion_rate(examples=examples, discordance=discordance, gain=0.0, seed=examples)
    exact = exact_promotion_rate(examples, discordance, 0.0)
    print(f"\nequal, n {examples}, differ {discordance:.0%}: {rate:.2%} (exact {exact:.2%})")
    limit = POLICY.error_level
    assert exact <= limit
    assert rate <= limit + standard_errors(limit)
    assert abs(rate - exact) <= standard_errors(max(exact, 1 / GATES), 4.0)


@pytest.mark.parametrize("examples", [100, 300])
@pytest.mark.parametrize(("discordance", "gain"), [(0.1, -0.03), (0.3, -0.03), (0.3, -0.10)])
def test_a_worse_challenger_is_promoted_at_most_at_the_level(examples, discordance, gain):
    rate = promotion_rate(examples=examples, discordance=discordance, gain=gain, seed=examples)
    print(f"\nworse by {-gain:.0%}, n {examples}, differ {discordance:.0%}: {rate:.2%}")
    limit = POLICY.error_level
    assert rate <= limit + standard_errors(limit)


def test_a_guesser_over_a_champion_that_is_never_right_is_promoted_at_most_at_the_level():
    # one of eight balanced queues: the guess and the constant answer are both right on 12.5 %
    rate = promotion_rate(examples=300, discordance=0.125, gain=0.125, accuracy=0.0)
    print(f"\nguesser over a champion that is never right: {rate:.2%}")
    limit = POLICY.error_level
    assert rate <= limit + standard_errors(limit)


@pytest.mark.parametrize("discordance", [0.15, 0.3])
def test_a_gain_of_ten_points_is_found_as_often_as_the_exact_calculation_says(discordance):
    rate = promotion_rate(examples=300, discordance=discordance, gain=0.10)
    exact = exact_promotion_rate(300, discordance, 0.10)
    print(f"\nbetter by 10 points, n 300, differ {discordance:.0%}: {rate:.1%} ({exact:.1%})")
    assert abs(rate - exact) <= standard_errors(exact, 4.0)
    assert rate > 0.8


@pytest.mark.parametrize("examples", [300, 1_000])
@pytest.mark.parametrize("discordance", [0.1, 0.3])
def test_a_challenger_worse_by_the_margin_is_held_in_at_most_the_level(examples, discordance):
    rate = verdict_rate(
        "hold",
        examples=examples,
        discordance=discordance,
        gain=-POLICY.primary.hold_margin,
        seed=examples,
    )
    print(f"\nworse by the margin, n {examples}, differ {discordance:.0%}: held {rate:.2%}")
    limit = POLICY.error_level
    assert rate <= limit + standard_errors(limit)
