"""Drift of a judge told apart from drift of what it judges.

A hosted judge changes under the same name; scores of live traffic then move although the system
does not. Anchors are texts kept as they are and judged again: what moves there is the judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import check_one_length, checked_level, unit_scores
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.stats.judges.bias import (
    Effect,
    mean_effect,
    paired_effect,
    subtract,
)

Cause = Literal["judge", "system", "both", "none shown"]
FEWEST = 2


@dataclass(frozen=True, slots=True)
class JudgeDrift:
    """What moved between two times: the judge, the system that it judges, or both.

    Attributes:
        judge: Change of the mean score on the anchors, at the level of the family of two.
        system: Change of the mean score on traffic minus `judge`, at the same level.
        cause: Which of these two intervals excludes 0.
        family_error: Chance of naming a cause that is not there, at most about this much.
        accuracy: Change of the share of anchors judged right, at the level asked for.
        accuracy_p_value: Exact two-sided McNemar p of "right equally often".
        traffic: Change of the mean score on traffic, judge and system together, at the level
            asked for.
        anchors: Anchors with a label and both scores.
        before: Scores of traffic before.
        after: Scores of traffic after.
        left_out_anchors: Anchors without a label or a score.
        left_out_traffic: Items of traffic without a score.
    """

    judge: Effect
    system: Effect
    cause: Cause
    family_error: float
    accuracy: Effect
    accuracy_p_value: float
    traffic: Effect
    anchors: int
    before: int
    after: int
    left_out_anchors: int
    left_out_traffic: int


class _Samples(NamedTuple):
    """Scores without gaps: anchors (labels, before, after), then traffic."""

    labels: FloatArray
    old: FloatArray
    new: FloatArray
    before: FloatArray
    after: FloatArray


def judge_drift(
    anchor_labels: ArrayLike,
    anchor_before: ArrayLike,
    anchor_after: ArrayLike,
    traffic_before: ArrayLike,
    traffic_after: ArrayLike,
    *,
    level: float = 0.95,
) -> JudgeDrift:
    """Tell the drift of a judge from the drift of the system that it judges.

    On anchors, the same texts judged at two times, the mean of after minus before is the judge's
    drift (`newcombe_paired`, or `bounded_mean_interval` for scores other than 0 and 1). On traffic
    the change of the mean is judge and system together (`newcombe_independent`, or two such
    intervals by square and add). System = traffic minus judge, by square and add, which carries
    both errors. These two intervals have the level 1 - (1 - level) / 2 each (Bonferroni), and
    `cause` names those that exclude 0. An anchor is judged right where its score is less than 0.5
    from its label.

    Units: scores in [0, 1] in, differences in [-1, 1] out.
    Assumptions: independent anchors and items of traffic, their numbers fixed; anchors are a mix
    like that of traffic, so that the judge moves on both alike; anchors, prompt and settings of the
    judge are the same at both times.
    Error rate: without any drift a cause is named in at most about 1 - level of samples: 0.05 at
    level 0.95; with only one of the two, the other is named in about half that. Accuracy, which
    `cause` does not use, has an error of its own.
    When not to use: for anchors chosen for being hard, on which a judge moves more than on
    traffic; after every batch until a cause shows (`experiments.confidence_sequences`); where few
    users make most of traffic. A judge that errs in both directions more than before may leave the
    mean where it was: "none shown" with a small `accuracy_p_value`.

    Args:
        anchor_labels: What the scores ought to be, in [0, 1], NaN for none, shape (n,).
        anchor_before: Scores of the anchors before, NaN for none, shape (n,).
        anchor_after: Scores of the same anchors after, shape (n,).
        traffic_before: Scores of traffic before, NaN for none.
        traffic_after: Scores of other traffic after, NaN for none.
        level: Nominal coverage in (0, 1) of all that `cause` claims.

    Raises:
        InsufficientDataError: Fewer than two anchors have a label and both scores, or fewer than
            two items of traffic have a score before or after.
        InvalidInputError: A value or the level is out of range, or lengths of anchors differ.

    Example:
        >>> labels = [1, 0] * 50
        >>> lenient = [1, 1, 1, 0] * 25
        >>> result = judge_drift(labels, labels, lenient, [1, 0] * 300, [1, 1, 1, 0] * 150)
        >>> result.judge.estimate, result.traffic.estimate, result.system.estimate, result.cause
        (0.25, 0.25, 0.0, 'judge')

    References:
        McNemar (1947), as `mcnemar_exact`. Newcombe (1998), as `newcombe_paired`. Zou and Donner
        (2008), as `self_preference`.
    """
    checked_level(level)
    parts = (
        unit_scores("anchor_labels", anchor_labels),
        unit_scores("anchor_before", anchor_before),
        unit_scores("anchor_after", anchor_after),
    )
    check_one_length(*parts)
    known = ~np.isnan(np.stack(parts)).any(axis=0)
    labels, old, new = (part[known] for part in parts)
    earlier, later = (
        unit_scores("traffic_before", traffic_before),
        unit_scores("traffic_after", traffic_after),
    )
    before, after = earlier[~np.isnan(earlier)], later[~np.isnan(later)]
    if min(labels.size, before.size, after.size) < FEWEST:
        raise InsufficientDataError(
            f"drift needs {FEWEST} anchors with a label and both scores and {FEWEST} items of "
            f"traffic at each time, got {labels.size}, {before.size} and {after.size}; judge more"
        )
    return _drift(
        _Samples(labels, old, new, before, after),
        known.size - labels.size,
        earlier.size + later.size - before.size - after.size,
        level,
    )


def _drift(
    samples: _Samples, left_out_anchors: int, left_out_traffic: int, level: float
) -> JudgeDrift:
    labels, old, new, before, after = samples
    each = 1.0 - (1.0 - level) / 2.0
    right_before = (np.abs(old - labels) < 0.5).astype(np.float64)
    right_after = (np.abs(new - labels) < 0.5).astype(np.float64)
    judge = paired_effect(old, new, each)
    system = subtract(_change(before, after, each), judge)
    return JudgeDrift(
        judge=judge,
        system=system,
        cause=_cause(judge, system),
        family_error=1.0 - level,
        accuracy=paired_effect(right_before, right_after, level),
        accuracy_p_value=mcnemar_exact(
            int((right_before > right_after).sum()), int((right_after > right_before).sum())
        ).p_value,
        traffic=_change(before, after, level),
        anchors=labels.size,
        before=before.size,
        after=after.size,
        left_out_anchors=left_out_anchors,
        left_out_traffic=left_out_traffic,
    )


def _change(before: FloatArray, after: FloatArray, level: float) -> Effect:
    return subtract(mean_effect(after, level), mean_effect(before, level))


def _cause(judge: Effect, system: Effect) -> Cause:
    by_judge, by_system = 0.0 not in judge.interval, 0.0 not in system.interval
    if by_judge and by_system:
        return "both"
    if by_judge:
        return "judge"
    return "system" if by_system else "none shown"
