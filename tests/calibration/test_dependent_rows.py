"""What the gate promotes wrongly where rows depend on each other and nobody says so."""

import numpy as np
import pytest
from scipy import stats

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.policy import GatePolicy, Primary
from ratchet.deploy.gate.scores import GateScores, MetricScores

pytestmark = pytest.mark.slow

LEVEL, GATES, ROWS = 0.05, 1_000, 300
POLICY = GatePolicy(primary=Primary(metric="score"))


def decided(differences, rng, users=None):
    champion = 5.0 + rng.normal(size=differences.size)
    scores = MetricScores("score", champion, champion + differences, users)
    return run_gate(GateScores({"score": scores}), POLICY, plan=False)


def error(share):
    return 4.0 * np.sqrt(share * (1.0 - share) / GATES)


def test_an_autoregression_of_one_half_is_promoted_in_17_percent_and_told():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(GATES, ROWS + 50))
    series = np.zeros_like(noise)
    for row in range(1, noise.shape[1]):
        series[:, row] = 0.5 * series[:, row - 1] + noise[:, row]
    results = [decided(differences, rng) for differences in series[:, 50:]]
    promoted = np.mean([result.verdict == "promote" for result in results])
    told = np.mean([any("resemble each other" in note for note in r.notes) for r in results])
    # the mean's variance is (1 + 0.5) / (1 - 0.5) times that of independent rows
    expected = stats.norm.sf(stats.norm.isf(LEVEL) / np.sqrt(3.0))
    print(f"\npromoted {promoted:.1%}, expected {expected:.1%}, told {told:.1%}")
    assert promoted == pytest.approx(expected, abs=error(expected))
    assert told > 0.999


def test_groups_that_are_given_keep_the_level():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 5)
    liking = rng.normal(size=(GATES, 60))[:, groups]
    results = [decided(one + rng.normal(size=ROWS), rng, groups) for one in liking]
    promoted = np.mean([result.verdict == "promote" for result in results])
    print(f"\n60 groups of five rows: {promoted:.1%}")
    assert promoted <= LEVEL + error(LEVEL)
    assert not any(result.notes for result in results)
