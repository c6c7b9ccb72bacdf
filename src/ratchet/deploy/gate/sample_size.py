"""How many examples would decide what is open, and how many a gate needs from the start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ratchet.deploy.gate.evidence import MetricEvidence
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons.sample_size import (
    SamplePlan,
    paired_mean_sample_size,
    paired_rate_sample_size,
    shared_power,
)

POWER = 0.8
RESERVE = 0.01  # of power, so that a plan does not just miss it where an assumption is a little off


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a plan assumes of a metric. Either of `discordance` and `spread`.

    Attributes:
        gain: How much better the challenger is, in the direction that is better.
        discordance: Share of examples on which one alone is right, for right or wrong.
        spread: Standard deviation of the paired differences, for other scores and repeated users.
        cluster_size: Examples of one user.
        design_effect: Variance with users over that without.
    """

    gain: float = 0.0
    discordance: float | None = None
    spread: float | None = None
    cluster_size: float = 1.0
    design_effect: float = 1.0

    def plan(self, margin: float, *, alpha: float, power: float, policy: GatePolicy) -> SamplePlan:
        """Return how many examples show a gain above the margin."""
        looks = _fractions(policy)
        spending = policy.looks.spending if policy.looks else "obrien_fleming"
        repeated = self.cluster_size > 1.0 or self.design_effect != 1.0
        if self.discordance is not None and not repeated:
            return paired_rate_sample_size(
                discordance=self.discordance,
                difference=self.gain,
                margin=margin,
                alpha=alpha,
                power=power,
                looks=looks,
                spending=spending,
            )
        spread = self.spread
        if spread is None and self.discordance is not None:
            spread = math.sqrt(self.discordance - self.gain**2)
        if spread is None:
            raise InvalidInputError(
                "a plan needs the discordance or the spread of a metric, got neither; take them "
                "from an earlier comparison"
            )
        return paired_mean_sample_size(
            spread=spread,
            difference=self.gain,
            margin=margin,
            alpha=alpha,
            power=power,
            cluster_size=self.cluster_size,
            design_effect=self.design_effect,
            looks=looks,
            spending=spending,
        )


def plan_gate(
    policy: GatePolicy, expected: Mapping[str, Expectation], *, power: float = POWER
) -> int:
    """Examples with which a challenger that is as good as expected is promoted.

    The primary metric and each guardrail that must be shown get the power with which all of them
    hold together (`shared_power`), and a point in reserve; the largest number counts. With looks
    it is the number at the last one. For guardrails per cluster, take the number that this gives in
    each cluster.

    Args:
        policy: What must be shown; relative margins are taken as they are, so state the champion's
            mean as 1.
        expected: What is assumed of the primary metric and of each guardrail's.
        power: Chance of a promotion.

    Raises:
        InvalidInputError: A metric is missing from what is expected, or is not above its margin.
        InsufficientDataError: More than ten million examples would be needed.
    """
    shown = [rule for rule in policy.guardrails if rule.requires == "shown"]
    margins = [(policy.primary.metric, policy.primary.margin)]
    margins += [(rule.metric, -rule.margin) for rule in shown]
    missing = [metric for metric, _ in margins if metric not in expected]
    if missing:
        raise InvalidInputError(
            f"a plan needs what is expected of {', '.join(missing)}, got {', '.join(expected)}"
        )
    each = shared_power(min(power + RESERVE, (1.0 + power) / 2.0), len(margins))
    plans = [
        expected[metric].plan(margin, alpha=policy.error_level, power=each, policy=policy)
        for metric, margin in margins
    ]
    return max(policy.minimum_examples, *(plan.examples for plan in plans))


def examples_to_decide(
    evidence: MetricEvidence, policy: GatePolicy, hold_margin: float
) -> int | None:
    """How many examples would decide what is open if the observed difference is the true one.

    For the primary metric the smallest number that shows it better, no worse by the hold margin, or
    worse; for a guardrail the number that shows it no worse by its margin. None where no number
    would, as where it looks worse than allowed.
    """
    question = evidence.question
    if evidence.spread is None or evidence.champion is None:
        return question.minimum_examples
    expected = _as_seen(evidence)
    if question.role == "primary":
        margins = [question.margin, -hold_margin]
        plans = [_plan(expected, margin, policy) for margin in margins]
        plans.append(_plan(replace(expected, gain=-expected.gain), 0.0, policy))
        needed = min((examples for examples in plans if examples is not None), default=None)
    else:
        scale = abs(evidence.champion) if question.relative else 1.0
        needed = _plan(expected, -question.margin * scale, policy)
    return None if needed is None else max(needed, question.minimum_examples, evidence.examples + 1)


def _as_seen(evidence: MetricEvidence) -> Expectation:
    """The truth as it was seen; what never differed may still, once in all examples."""
    rarest = 1.0 / max(1, evidence.examples)
    discordance = evidence.discordance
    return Expectation(
        gain=evidence.gain,
        discordance=None if discordance is None else max(discordance, rarest),
        spread=evidence.spread or None,
        cluster_size=max(1.0, evidence.examples / max(1, evidence.units)),
        design_effect=max(evidence.design_effect, 1e-3),
    )


def _plan(expected: Expectation, margin: float, policy: GatePolicy) -> int | None:
    if expected.gain <= margin:
        return None
    try:
        alpha = policy.error_level
        return expected.plan(margin, alpha=alpha, power=POWER, policy=policy).examples
    except (InsufficientDataError, InvalidInputError):
        return None


def _fractions(policy: GatePolicy) -> tuple[float, ...]:
    looks = policy.looks.maximum if policy.looks else 1
    return tuple((look + 1) / looks for look in range(looks))
