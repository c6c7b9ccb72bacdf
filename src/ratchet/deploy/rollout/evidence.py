"""What a tally says: is the assignment sound, does a variant do harm, is more harm ruled out?

In this order, for every look:

1. The sample ratio. Users must fall into the arms as their hash says; otherwise nothing that
   follows means anything, and nothing follows. At the final read-out, before a promotion or after
   the end of a test, the chi-square test of one look is added, which finds smaller imbalances.
2. The alarm. Do users to whom something bad happened lie in the variant's arm more often than its
   share? Exact for any number of users, since the hash alone is random in it: it runs from the
   first user on. It can stop a release, never let it pass.
3. Rates, once the sample-ratio check would have found what it is meant to find: the difference
   with a confidence sequence over users.

Each harm error is shared by all signals and variants, half by the alarm and half by the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ratchet.deploy.rollout.exposure_counts import Tally
from ratchet.errors import InvalidInputError
from ratchet.records import Readout, RolloutPlan, SampleRatio, VariantTest, WatchedSignal
from ratchet.stats.arrays import BoolArray, FloatArray, IntArray
from ratchet.stats.experiments.clustered_difference import (
    StratifiedDifference,
    difference_bounds,
    moments_of,
    stratified_difference,
)
from ratchet.stats.experiments.sample_ratio import (
    UPWARD,
    Groups,
    finds_imbalance,
    share_log_e,
    sticky_groups,
)

UNEVEN = 0.2
"""A signal that is known of so many more or fewer answers of a variant is not compared."""
COVERAGE_SCALE = 0.02
HARM = 2.0
"""Harm of so many margins is found soonest."""


@dataclass(frozen=True, slots=True)
class Errors:
    """The error rates of one signal of one variant.

    Attributes:
        alarm: Of the exact alarm.
        lower: Of the sequence's lower end.
        upper: Of its upper end.
    """

    alarm: float
    lower: float
    upper: float

    @classmethod
    def shared(cls, harm: float, upper: float, comparisons: int) -> Errors:
        """Share a harm error between so many comparisons, half for alarm and half for sequence."""
        each = harm / (2.0 * comparisons)
        return cls(alarm=each, lower=each, upper=upper)


def check_ratio(
    tally: Tally, shares: Sequence[Sequence[float]], *, error: float, imbalance: float
) -> SampleRatio:
    """Check that users fell into the arms as they should.

    Args:
        tally: The counts.
        shares: Share of each variant (the control left out) in each stage.
        error: Chance of calling a sound assignment broken, however often one looks.
        imbalance: Factor on the odds that must have been found before rates are read.

    Raises:
        InvalidInputError: Shares of several variants changed from stage to stage.
    """
    groups = arm_groups(tally.seen, shares)
    each = error / len(groups)
    evidence = [float(share_log_e(item)) for item in groups]
    ready = [bool(finds_imbalance(item, imbalance, alpha=each)) for item in groups]
    met: BoolArray = np.asarray(tally.seen.any(axis=1))
    return SampleRatio(
        users={arm: int(met[:, place].sum()) for place, arm in enumerate(tally.arms)},
        log_evidence=max(evidence),
        log_threshold=-math.log(each),
        moved=moved_users(tally.seen),
        ready=all(ready),
    )


def final_ratio(ratio: SampleRatio, p_value: float, rule: RolloutPlan | VariantTest) -> SampleRatio:
    """Return the check with the one-look test of the final read-out, at the rule's ratio error."""
    return ratio.model_copy(update={"final_p_value": p_value, "final_level": rule.ratio_error})


def final_words(ratio: SampleRatio) -> str:
    """Say what the one-look test of the final read-out found."""
    return (
        f"chi-square test p = {ratio.final_p_value:.2g}, below the level of {ratio.final_level:g}"
    )


def arm_groups(seen: BoolArray, shares: Sequence[Sequence[float]]) -> list[Groups]:
    """Group users for the check of each variant.

    Two arms: every stage draws those anew who were in the control before (`sticky_groups`).
    Several variants: every user counts once, and each variant is checked against all others.

    Raises:
        InvalidInputError: Shares of several variants changed from stage to stage.
    """
    if len(shares[0]) == 1:
        grown = [stage[0] for stage in shares]
        return [sticky_groups(seen[..., 0], seen[..., 1], grown)]
    if any(list(stage) != list(shares[0]) for stage in shares):
        raise InvalidInputError(
            "several variants keep their shares for the whole of a test, got "
            f"{[list(stage) for stage in shares]}; start a new test for other shares"
        )
    met: BoolArray = np.asarray(seen.any(axis=-2))
    users = np.asarray(met.any(axis=-1).sum(axis=-1))
    return [
        Groups(
            np.asarray(met[..., place].sum(axis=-1))[..., np.newaxis],
            users[..., np.newaxis],
            np.array([share]),
        )
        for place, share in enumerate(shares[0], start=1)
    ]


def moved_users(seen: BoolArray) -> int:
    """Count users whom no hash explains: in two arms of one stage, or back in the control."""
    two_at_once = (seen.sum(axis=-1) > 1).any(axis=-1)
    varied = seen[..., 1:]
    before = np.cumsum(varied, axis=-2) - varied > 0  # in this variant in an earlier stage
    elsewhere = seen.sum(axis=-1, keepdims=True) - varied > 0
    back = (before & elsewhere).any(axis=(-1, -2))
    return int((two_at_once | back).sum())


def alarm_groups(events: IntArray, place: int, shares: Sequence[Sequence[float]]) -> Groups:
    """Group users to whom something bad happened in the control or in one variant.

    Args:
        events: Bad answers, shape (..., users, stages, arms).
        place: Number of the variant's arm.
        shares: As of `check_ratio`.
    """
    hit = events > 0
    if len(shares[0]) == 1:
        return sticky_groups(hit[..., 0], hit[..., 1], [stage[0] for stage in shares])
    mine, total = shares[0][place - 1], 1.0 - sum(shares[0])
    once: BoolArray = np.asarray(hit.any(axis=-2))
    inside, beside = once[..., place].sum(axis=-1), once[..., 0].sum(axis=-1)
    return Groups(
        np.asarray(inside)[..., np.newaxis],
        np.asarray(inside + beside)[..., np.newaxis],
        np.array([mine / (mine + total)]),
    )


def compare(events: IntArray, trials: IntArray, place: int) -> StratifiedDifference:
    """Difference of a variant's rate to the control's, shape (..., users, stages, arms) in."""
    stages = events.shape[-2]
    pair = [0, place]
    shape = (*events.shape[:-2], 2 * stages)
    cells = events[..., pair].reshape(shape), trials[..., pair].reshape(shape)
    first, second = range(0, 2 * stages, 2), range(1, 2 * stages, 2)
    return stratified_difference(moments_of(*cells), list(first), list(second))


def bounds(
    difference: StratifiedDifference,
    signal: WatchedSignal,
    errors: Errors,
    *,
    slack: float | FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return both ends of the sequence of a signal's difference.

    The lower end is tightest for harm of twice the margin, at all stages alike; the upper end for
    what its stage asks for.
    """
    if np.ndim(slack) == 0:
        return difference_bounds(
            difference,
            lower_error=errors.lower,
            upper_error=errors.upper,
            lower_scale=HARM * signal.margin,
            upper_scale=float(slack) * signal.margin,
        )
    ends = [bounds(difference, signal, errors, slack=float(one)) for one in np.unique(slack)]
    upper = np.select([slack == one for one in np.unique(slack)], [end[1] for end in ends])
    return ends[0][0], upper


def read_signal(
    tally: Tally,
    place: int,
    signal: WatchedSignal,
    shares: Sequence[Sequence[float]],
    errors: Errors,
    *,
    slack: float = 1.0,
    ready: bool,
    minimum_users: int,
) -> Readout:
    """Read one signal of one variant beside the control.

    Args:
        tally: The counts.
        place: Number of the variant's arm.
        signal: The signal.
        shares: As of `check_ratio`.
        errors: Of this signal.
        slack: How many times the margin must be excluded.
        ready: Whether rates may be read.
        minimum_users: Users with a trial that each arm needs for that.
    """
    events, trials = tally.of(signal.name)
    log_alarm = float(share_log_e(alarm_groups(events, place, shares), odds_ratios=UPWARD))
    threshold = -math.log(errors.alarm)
    users = (trials.sum(axis=1) > 0).sum(axis=0)
    counts = [
        (int(events[..., arm].sum()), int(trials[..., arm].sum()), int(users[arm]))
        for arm in (0, place)
    ]
    known: dict[str, object] = {}
    says: Literal["harm", "passes", "open", "uneven", "no data"] = "open"
    enough = min(counts[0][2], counts[1][2]) >= minimum_users
    if counts[1][1] == 0:
        says = "no data"
    elif ready and enough:
        difference = compare(events, trials, place)
        lower, upper = bounds(difference, signal, errors, slack=slack)
        known = {
            "rates": (float(difference.first), float(difference.second)),
            "difference": float(difference.difference),
            "lower": float(lower),
            "upper": float(upper),
            "design_effect": float(difference.design_effect),
        }
        if lower > 0.0:
            says = "harm"
        elif upper < slack * signal.margin:
            says = "uneven" if _is_uneven(tally, trials, place, errors.alarm) else "passes"
    if log_alarm >= threshold:
        says = "harm"
    return Readout.model_validate(
        {
            "signal": signal.name,
            "arm": tally.arms[place],
            "control": counts[0],
            "variant": counts[1],
            "log_alarm": log_alarm,
            "alarm_threshold": threshold,
            "margin": slack * signal.margin,
            "says": says,
        }
        | known
    )


def _is_uneven(tally: Tally, trials: IntArray, place: int, error: float) -> bool:
    """Whether a signal is shown to be known of another share of answers, and by how much.

    A variant under which users do not get to rate, or clients do not report, would look good.
    """
    _, answers = tally.of("failed")
    difference = compare(trials, answers, place)
    lower, upper = difference_bounds(
        difference, lower_error=error, upper_error=error,
        lower_scale=COVERAGE_SCALE, upper_scale=COVERAGE_SCALE,
    )  # fmt: skip
    shown = bool(lower > 0.0 or upper < 0.0)
    return shown and bool(abs(difference.difference) > UNEVEN * difference.first)
