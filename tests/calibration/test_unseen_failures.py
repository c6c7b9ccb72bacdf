"""What the gate promotes wrongly where failures are not seen: unscored ones, and rare total ones.

`-s` prints the rates of docs/gate.md.
"""

import numpy as np
import pytest

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.policy import GatePolicy, Primary
from ratchet.deploy.gate.scores import GateScores, MetricScores
from tests.benchmarks.gate_truths import alone, graded, lost_pairs, right

pytestmark = pytest.mark.slow

LEVEL, GATES = 0.05, 1_000
NOISE = 3.0 * np.sqrt(LEVEL * (1.0 - LEVEL) / GATES)
POLICY = GatePolicy(primary=Primary(metric="quality", higher_is_better=True))


def decided(scores, *, plan=False):
    return run_gate(GateScores({"quality": scores}), POLICY, plan=plan)


@pytest.mark.parametrize(
    ("draw", "size"),
    [(right(0.127, 0.0), 1_000), (right(0.3, 0.0), 300), (right(0.06, 0.0), 500),
     (graded("normal"), 300), (graded("steps"), 600)],
)  # fmt: skip
@pytest.mark.parametrize("lost", [0.01, 0.045])
def test_an_equal_challenger_whose_losses_lack_scores_is_promoted_at_most_at_the_level(
    draw, size, lost
):
    rng = np.random.default_rng(size)
    sample = lost_pairs(alone(draw), lost)
    results = [decided(sample(rng, size)[0]) for _ in range(GATES)]
    promoted = np.mean([result.verdict == "promote" for result in results])
    as_seen = np.mean([result.primary.p_shown <= LEVEL for result in results])
    print(f"\n{size} examples, {lost:.1%} lost: {promoted:.2%}; without the check {as_seen:.1%}")
    assert promoted <= LEVEL + NOISE


def at_a_ceiling(rng, size, failures):
    """Scores near 1; the challenger gains on each what it loses in rare total failures."""
    champion = np.full(size, 0.95) + rng.uniform(-0.01, 0.01, size)
    fails = rng.random(size) < failures
    gain = champion * failures / (1.0 - failures) + rng.normal(0.0, 0.002, size)
    return MetricScores("quality", champion, np.where(fails, 0.0, champion + gain))


@pytest.mark.parametrize(("size", "failures"), [(100, 0.01), (200, 0.01), (300, 0.005)])
def test_wrong_promotions_for_rare_total_failures_say_how_few_would_overturn_them(size, failures):
    rng = np.random.default_rng(size)
    results = [decided(at_a_ceiling(rng, size, failures), plan=True) for _ in range(GATES)]
    promoted = [result for result in results if result.verdict == "promote"]
    print(f"\n{size} examples, {failures:.1%} fail: {len(promoted) / GATES:.1%} promoted wrongly")
    unseen = (1.0 - failures) ** size  # none of them is in the sample
    assert len(promoted) / GATES <= unseen + 3.0 * np.sqrt(unseen * (1.0 - unseen) / GATES) + LEVEL
    assert promoted
    assert max(result.losses_to_overturn for result in promoted) <= 2
