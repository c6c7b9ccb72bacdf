"""How often corrected win rates cover and the gate errs on them, by simulation. `-s` prints."""

from functools import lru_cache
from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy import optimize, special

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.policy import OPEN_ENDED, load_policy, without_clusters
from ratchet.deploy.gate.scores import GateScores, metric_scores
from ratchet.errors import InsufficientDataError
from ratchet.stats.comparisons.means import paired_mean_test
from ratchet.stats.judges.length import length_controlled_win_rate
from ratchet.stats.judges.win_rate import corrected_win_rate

pytestmark = pytest.mark.slow

SAMPLES, LEVEL = 1_000, 0.05
COVERAGE = 0.94  # the least that the docstring states
USER_SPREAD = 1.0  # of the log odds, between users
JUDGES = {  # right about a win, right about a loss, log odds for one unit of tanh of length
    "good": (0.95, 0.9, 0.0),
    "good, likes length": (0.9, 0.9, 1.5),
    "poor, likes length": (0.75, 0.7, 2.0),
    "useless": (0.6, 0.4, 1.0),
}
RIGHT_IN_85 = "right in 85 %"
JUDGES_OF_ANY = {**JUDGES, RIGHT_IN_85: (0.85, 0.85, 0.0)}
NEARLY_ALWAYS = (0.9, 0.95, 0.98)


def draw(rng, pairs, users, rate, people, longer, judge):
    """Labels of all pairs, verdicts, length differences and users."""
    x = rng.normal(longer, 1.0, pairs)
    owner = rng.integers(0, users, pairs) if users else np.arange(pairs)
    liking = USER_SPREAD * rng.normal(size=users)[owner] if users else 0.0
    length = np.tanh(x)
    labels = rng.random(pairs) < special.expit(special.logit(rate) + people * length + liking)
    right, wrong, bias = judge
    likely = np.where(labels, special.logit(right), -special.logit(wrong)) + bias * length
    return labels.astype(float), (rng.random(pairs) < special.expit(likely)) * 1.0, x, owner


@lru_cache
def truth(users, rate, people, longer):
    """What the model's rate at equal length is of very many pairs, by quadrature over users."""
    x = np.linspace(longer - 6.0, longer + 6.0, 2_001)
    weights = np.exp(-0.5 * (x - longer) ** 2)
    nodes, mass = np.polynomial.hermite_e.hermegauss(40)
    spread = USER_SPREAD if users else 0.0
    odds = special.logit(rate) + people * np.tanh(x)[:, np.newaxis] + spread * nodes
    wins = special.expit(odds) @ (mass / mass.sum())
    design = np.column_stack((np.ones_like(x), np.tanh(x)))
    solved = optimize.root(
        lambda theta: design.T @ (weights * (special.expit(design @ theta) - wins)) / weights.sum(),
        [special.logit(rate), people],
    )
    return float(special.expit(solved.x[0]))


def cell(labelled, pairs, users, rate, people, longer, name):
    rng = np.random.default_rng((labelled, pairs, users, round(100 * rate), len(name)))
    known = truth(users, rate, people, longer)
    hits, above, below, naive, refused, width = 0, 0, 0, 0, 0, 0.0
    for _ in range(SAMPLES):
        labels, verdicts, x, owner = draw(
            rng, pairs, users, rate, people, longer, JUDGES_OF_ANY[name]
        )
        shown = np.where(np.arange(pairs) < labelled, labels, np.nan)
        clusters = owner if users else None
        try:
            found = corrected_win_rate(shown, verdicts, x, clusters=clusters)
        except InsufficientDataError:
            refused += 1
            continue
        hits += known in found.interval
        width += found.interval.upper - found.interval.lower
        tested = paired_mean_test(found.values, margin=known, clusters=clusters)
        above, below = above + (tested.p_above <= LEVEL), below + (tested.p_below <= LEVEL)
        judged = length_controlled_win_rate(verdicts, x, clusters=clusters)
        naive += known in judged.interval
    seen = SAMPLES - refused
    return hits / seen, above / seen, below / seen, naive / seen, width / seen, refused / SAMPLES


@pytest.mark.parametrize("name", JUDGES)
@pytest.mark.parametrize("users", [0, 60, 200])
def test_a_corrected_win_rate_covers_and_the_gate_keeps_its_level(name, users):
    """The gate's margin is the truth; nothing is wrong if the judge's own rate misses it."""
    for labelled, (rate, people) in product((50, 200), ((0.5, 0.0), (0.5, 1.0), (0.7, 1.0))):
        shares = cell(labelled, 1_000, users, rate, people, 0.5, name)
        print(
            f"| {name} | {users or 'none'} | {labelled} | {rate} | {people} |",
            *(f"{share:.3f} |" for share in shares),
        )
        covered, above, below, _, _, refused = shares
        assert covered >= COVERAGE - 3.0 * sqrt(COVERAGE * (1.0 - COVERAGE) / SAMPLES)
        tolerance = 3.0 * sqrt(LEVEL * (1.0 - LEVEL) / SAMPLES)
        if rate == 0.5:
            assert above <= LEVEL + tolerance
            assert below <= LEVEL + tolerance
        assert refused <= 0.01


@pytest.mark.parametrize("users", [0, 60])
@pytest.mark.parametrize("labelled", [60, 100])
def test_where_the_challenger_nearly_always_wins_the_rate_is_rather_too_low(users, labelled):
    """The added observations pull it towards a half: never to the good of the challenger."""
    for rate in NEARLY_ALWAYS:
        shares = cell(labelled, 3 * labelled, users, rate, 0.0, 0.0, RIGHT_IN_85)
        print(f"| {users or 'none'} | {labelled} | {rate} |", *(f"{x:.3f} |" for x in shares))
        _, above, _, _, _, refused = shares
        assert above <= LEVEL + 3.0 * sqrt(LEVEL * (1.0 - LEVEL) / SAMPLES)
        assert refused <= 0.01


POLICY = without_clusters(load_policy(OPEN_ENDED))
GATES, PAIRS, LABELLED = 1_000, 300, 100


def promoted(rate, *, refusals=(0.02, 0.02), empty=(0.0, 0.0), longer=0.0):
    """Share of gates under the shipped policy that promote a challenger of this truth."""
    rng = np.random.default_rng(
        [round(1_000 * rate), *(round(1_000 * x) for x in refusals + empty)]
    )
    verdicts = 0
    for _ in range(GATES):
        labels, verdict, x, _ = draw(rng, PAIRS, 0, rate, 0.0, 0.0, JUDGES["good"])
        labels[LABELLED:] = np.nan
        scored = corrected_win_rate(labels, verdict, x).values
        words = rng.lognormal(4.0, 0.5, (2, PAIRS))
        pairs = {
            "win_rate": (np.full(PAIRS, 0.5), scored),
            "length": (words[0], words[1] * (1.0 + longer)),
            "refusal_rate": tuple((rng.random(PAIRS) < chance) * 1.0 for chance in refusals),
            "empty_rate": tuple((rng.random(PAIRS) < chance) * 1.0 for chance in empty),
        }
        verdicts += run_gate(GateScores(metric_scores(pairs)[0]), POLICY).verdict == "promote"
    return verdicts / GATES


@pytest.mark.parametrize(
    ("truth_of_it", "most"),
    [
        ({"rate": 0.5}, LEVEL),
        ({"rate": 0.45}, LEVEL),
        ({"rate": 0.8, "refusals": (0.02, 0.07)}, LEVEL),  # worse by just its margin
        ({"rate": 0.8, "empty": (0.0, 0.05)}, LEVEL),
        ({"rate": 0.8, "longer": 0.25}, LEVEL),
    ],
)
def test_the_policy_that_ships_promotes_what_it_must_not_in_at_most_its_level(truth_of_it, most):
    share = promoted(**truth_of_it)
    print(f"| {truth_of_it} | {share:.3f} |")
    assert share <= most + 3.0 * sqrt(most * (1.0 - most) / GATES)


def test_the_policy_that_ships_finds_a_challenger_that_is_preferred_by_two_in_three():
    share = promoted(2 / 3)
    print(f"| preferred by two in three | {share:.3f} |")
    assert share > 0.8


def test_the_policy_that_ships_promotes_a_challenger_that_nearly_always_wins():
    for rate in NEARLY_ALWAYS:
        share = promoted(rate)
        print(f"| preferred in {rate:.0%} | {share:.3f} |")
        assert share > 0.95
