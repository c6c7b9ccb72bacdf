"""Which interactions failed, which did not, and which nobody can tell.

verdict = which_failed(outcomes, quality(outcomes, weights), weights)
told = outcomes.take(verdict.told)
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ratchet.analyze.failure_rule import FailureRule
from ratchet.outcomes.join import BoolArray, FloatArray, Outcomes
from ratchet.outcomes.quality import Quality, QualityWeights
from ratchet.records.signals import QUALITY_SIGNALS, SIGNALS

FEWEST_MEASURED = 30
WIDEST = 0.5
"""The largest standard deviation that numbers in [0, 1] can have."""
_PARTS = tuple(signal.part.name for signal in QUALITY_SIGNALS if signal.part)
_REASONS = sorted(
    ((signal, signal.reason) for signal in SIGNALS if signal.reason),
    key=lambda pair: pair[1].rank,
)


DEFAULT_RULE = FailureRule()


@dataclass(frozen=True, slots=True)
class Failed:
    """Result of `which_failed`; arrays of shape (n,).

    Attributes:
        failed: Whether it failed.
        told: Whether it can be told; what cannot is not failed.
        stated: Whether an error, a person or a validated source says so, not signals alone.
        noise: Standard deviation of one signal around an interaction's quality.
    """

    failed: BoolArray
    told: BoolArray
    stated: BoolArray
    noise: float

    @property
    def untold(self) -> int:
        """How many nobody can tell."""
        return int(np.count_nonzero(~self.told))


def which_failed(
    outcomes: Outcomes,
    scored: Quality,
    weights: QualityWeights,
    rule: FailureRule = DEFAULT_RULE,
) -> Failed:
    """Tell what failed: by what was said of it, else by signals that leave little doubt.

    An error in place of an answer, an answer found unsafe and an explicit quality (thumbs, stars, a
    correction) below the threshold is a failure; an explicit quality that reaches it is none. Where
    nobody said anything, quality is a weighted mean of a judge's score and implicit signals, each
    taken as one noisy measurement of the same thing: its standard error is s sqrt(sum a_j^2), a_j
    the weights that the mean really used (they sum to one) and s the standard deviation of implicit
    signals around their own interaction's mean, pooled over all interactions with two of them or
    more. It failed where the upper bound is below the threshold, did not where the lower bound
    reaches it, and is left out of both else: a rate that counted the untold as good would be too
    low by as much as feedback is rare.

    Units: quality in [0, 1].
    Assumptions: signals of one interaction err independently and alike; one signal that is low for
    all interactions (few copies) makes s larger and more of them untold.
    Error rate: none is claimed for single interactions; `certainty` is that of a normal bound.
    When not to use: to judge one interaction.

    Args:
        outcomes: Interactions with their feedback.
        scored: Their quality.
        weights: What the quality was made with.
        rule: Threshold and certainty.
    """
    explicit = scored.explicit
    stated_bad = outcomes.failed_with_error | (outcomes.unsafe == 1.0)
    stated_bad |= explicit < rule.quality
    stated_good = ~stated_bad & (explicit >= rule.quality)
    noise = _noise(scored)
    margin = NormalDist().inv_cdf(rule.certainty) * noise * _error_weight(scored, weights)
    silent = ~stated_bad & ~stated_good
    bad = silent & (scored.value + margin < rule.quality)
    good = silent & (scored.value - margin >= rule.quality)
    return Failed(
        failed=stated_bad | bad,
        told=stated_bad | stated_good | bad | good,
        stated=stated_bad | stated_good,
        noise=noise,
    )


def why_failed(outcomes: Outcomes, row: int) -> str:
    """Say in words what tells that a failed interaction failed, the strongest first."""
    row_outcomes = outcomes.take(np.array([row]))
    reasons: list[str] = []
    for signal, reason in _REASONS:
        value = float(row_outcomes.observed(signal)[0])
        if signal.is_bad(value) and not (reasons and reason.weak):
            reasons.append(reason.words.format(value))
    return ", ".join(reasons) or "low quality by its signals together"


def _noise(scored: Quality) -> float:
    """Pool the standard deviation of signals within interactions."""
    signals = np.stack([scored.parts[name] for name in _PARTS])
    seen = ~np.isnan(signals)
    counts = seen.sum(axis=0)
    several = counts >= 2
    if np.count_nonzero(several) < FEWEST_MEASURED:
        return WIDEST
    values = np.where(seen, signals, 0.0)[:, several]
    means = values.sum(axis=0) / counts[several]
    squares = (((values - means) ** 2) * seen[:, several]).sum()
    return float(np.sqrt(squares / (counts[several] - 1).sum()))


def _error_weight(scored: Quality, weights: QualityWeights) -> FloatArray:
    """Return sqrt(sum a_j^2) of the judge and the implicit signals, nan where none was seen."""
    signals = np.stack([scored.parts[name] for name in _PARTS])
    of_signals = np.asarray(weights.signals())[:, None] * ~np.isnan(signals)
    total = of_signals.sum(axis=0)
    within = np.divide(of_signals, total, out=np.zeros_like(of_signals), where=total > 0.0)
    judge = weights.judge * ~np.isnan(scored.judge)
    implicit = weights.implicit * (total > 0.0)
    both = judge + implicit
    squares = judge**2 + implicit**2 * (within**2).sum(axis=0)
    return np.where(both > 0.0, np.sqrt(squares) / np.where(both > 0.0, both, 1.0), np.nan)
