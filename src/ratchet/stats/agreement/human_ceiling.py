"""A judge beside the human ceiling: how well people agree with each other on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.agreement.ratings import (
    ZERO,
    Label,
    Labels,
    Ratings,
    check_bootstrap,
    check_categories,
    draw_items,
    is_missing,
    percentile_interval,
    rating_matrix,
    refuse_foreign_labels,
)
from ratchet.stats.arrays import FloatArray
from ratchet.stats.intervals import Interval

CeilingMeasure = Literal["percent", "kappa"]


@dataclass(frozen=True, slots=True)
class HumanCeiling:
    """Agreement of a judge with people beside that of people with each other.

    Attributes:
        judge_human: Agreement of the judge with people.
        human_human: Agreement of people with each other on the same items, the ceiling.
        difference: `judge_human` minus `human_human`.
        interval: Paired confidence interval of the difference.
        measure: "percent" or "kappa".
        items: Items compared: a verdict of the judge and at least two human ratings.
        items_left_out: Items that lack them.
    """

    judge_human: float
    human_human: float
    difference: float
    interval: Interval
    measure: CeilingMeasure
    items: int
    items_left_out: int


def judge_against_humans(
    judge: Labels,
    humans: Ratings,
    *,
    rng: np.random.Generator,
    measure: CeilingMeasure = "percent",
    categories: Sequence[Label] | None = None,
    level: float = 0.95,
    resamples: int = 5_000,
) -> HumanCeiling:
    """Agreement of a judge with people, relative to that of people with each other.

    "percent": the mean over items of the share of human ratings that equal the judge's, beside the
    mean share of pairs of human ratings that are equal. "kappa": both corrected for chance, the
    first by sum p_judge p_human, the second by sum p_human^2. Both are of the same items; the
    interval of their difference is the percentile bootstrap over items, which keeps them paired.

    Units: labels in; shares or coefficients of at most 1 out.
    Assumptions: independent items; human ratings of an item are exchangeable and made
    independently of the judge's.
    Error rate: approximate. Coverage at level 0.95 (simulation) of a judge as good as three people,
    all right in 85 %: 0.93 to 0.94 with 50 items, 0.95 with 200.
    When not to use: to claim that a judge is right: people may share a bias with it. A judge may
    exceed the ceiling, since people disagree with each other at random and it need not.

    Args:
        judge: Labels of the judge, shape (items,), None or NaN where it gave none.
        humans: Labels of people, shape (items, people), None or NaN where missing.
        rng: Generator of the resamples.
        measure: "percent" or "kappa".
        categories: All labels; otherwise those that occur.
        level: Nominal coverage in (0, 1).
        resamples: Number of resamples, at least 100.

    Raises:
        InsufficientDataError: Fewer than two items to compare, kappa is undefined, or resamples
            that do not vary.
        InvalidInputError: Shapes do not fit, judge and people use different labels, or an argument
            is out of range.

    Example:
        >>> humans = [["a", "a"], ["a", "b"], ["b", "b"], ["b", "b"], ["a", "a"], ["b", "a"]]
        >>> rng = np.random.default_rng(0)
        >>> result = judge_against_humans(["a", "a", "b", "a", "a", "b"], humans, rng=rng)
        >>> round(result.judge_human, 3), round(result.human_human, 3)
        (0.667, 0.667)

    References:
        Vanbelle, S., Albert, A. (2009). Agreement between an isolated rater and a group of raters.
        Statistica Neerlandica 63, 82-100.
    """
    check_bootstrap(level, resamples)
    if measure not in get_args(CeilingMeasure):
        raise InvalidInputError(
            f"measure must be one of {get_args(CeilingMeasure)}, got {measure!r}; pass "
            '"percent" for shares'
        )
    features, left_out = _judge_features(judge, humans, categories)
    items = features.shape[0]
    both = _ceiling(features.mean(axis=0, keepdims=True), measure)[:, 0]
    if not np.isfinite(both).all():
        raise InsufficientDataError(
            "kappa needs two labels from the judge and from people, got one for all items; take "
            'measure="percent"'
        )
    distinct, drawn = draw_items(features, rng=rng, resamples=resamples)
    resampled = _ceiling(drawn @ distinct / items, measure)
    return HumanCeiling(
        judge_human=float(both[0]),
        human_human=float(both[1]),
        difference=float(both[0] - both[1]),
        interval=percentile_interval(resampled[0] - resampled[1], level),
        measure=measure,
        items=items,
        items_left_out=left_out,
    )


def _judge_features(
    judge: Labels, humans: Ratings, categories: Sequence[Label] | None
) -> tuple[FloatArray, int]:
    """Means of these columns tell all: both agreements, the judge's labels, people's labels."""
    verdicts, people = np.asarray(judge, dtype=object), rating_matrix(humans)
    if verdicts.shape != people.shape[:1]:
        raise InvalidInputError(
            f"judge and people must rate the same items, got shapes {verdicts.shape} and "
            f"{people.shape}; pass (items,) and (items, people)"
        )
    kept = [
        (verdict, given)
        for verdict, row in zip(verdicts.tolist(), people.tolist(), strict=True)
        if len(given := [label for label in row if not is_missing(label)]) >= 2
        and not is_missing(verdict)
    ]
    if len(kept) < 2:
        raise InsufficientDataError(
            "a ceiling needs at least 2 items with a verdict and two human ratings, got "
            f"{len(kept)}; collect a second human rating of the same items"
        )
    by_judge = dict.fromkeys(verdict for verdict, _ in kept)  # in order: a set's order varies
    by_people = dict.fromkeys(label for _, given in kept for label in given)
    names = list(by_people | by_judge)
    if categories is not None:
        check_categories(categories, set(names))
    refuse_foreign_labels(by_judge, by_people, declared=categories is not None)
    chosen = np.array([[verdict == name for name in names] for verdict, _ in kept], dtype=float)
    counts = np.array([[given.count(name) for name in names] for _, given in kept], dtype=float)
    each = counts.sum(axis=1)
    with_judge = (chosen * counts).sum(axis=1) / each
    each_other = (counts * (counts - 1.0)).sum(axis=1) / (each * (each - 1.0))
    shares = counts / each[:, np.newaxis]
    return np.column_stack([with_judge, each_other, chosen, shares]), len(verdicts) - len(kept)


def _ceiling(means: FloatArray, measure: CeilingMeasure) -> FloatArray:
    """Agreement of judge and people and of people, shape (2, samples); NaN where undefined."""
    observed = means[:, :2].T
    if measure == "percent":
        return observed
    labels = (means.shape[1] - 2) // 2
    judge, people = means[:, 2 : 2 + labels], means[:, 2 + labels :]
    expected = np.stack([(judge * people).sum(axis=1), (people * people).sum(axis=1)])
    one_label = np.maximum(judge.max(axis=1), people.max(axis=1)) >= 1.0 - ZERO
    room = np.where(one_label, np.nan, 1.0 - expected)
    return np.asarray((observed - expected) / room)
