"""Biases of a judge of answers, measured: position, its own family, and what moves it.

| question | function |
|---|---|
| does it prefer the answer shown first | `position_bias` |
| does it prefer answers of its own model family | `self_preference` |
| does a treatment of the answer raise its score | `uplift` |

Length is in `ratchet.stats.judges.length`, drift in `ratchet.stats.judges.drift`.

A verdict on a pair is 1 where the answer it is about wins, 0 where it loses, 0.5 for a tie. NaN is
a verdict that there is not (an unparsable reply); it is counted and never becomes a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import BoolArray, FloatArray
from ratchet.stats.checks import check_one_length, checked_level, require, unit_scores
from ratchet.stats.intervals import Interval, newcombe_paired, wilson

VERDICTS = (0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Effect:
    """A number with its interval.

    Attributes:
        estimate: The observed value.
        interval: Its confidence interval; it contains the estimate.
    """

    estimate: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class PositionBias:
    """Verdicts on the same pairs of answers, each shown in both orders.

    Attributes:
        estimate: Win rate of the answer shown first, minus 1/2, in [-0.5, 0.5]; above 0 the judge
            prefers the first position.
        interval: Its confidence interval.
        consistency: Share of pairs with the same verdict in both orders.
        first_position: Share of order-dependent pairs that lean to the answer shown first; None
            if no pair depends on the order.
        verdicts: One verdict a pair for the first answer, shape (n,): the common one, 0.5 where
            the orders disagree, NaN where either is missing.
        pairs: Pairs with a verdict in both orders.
        disagreements: Those of them whose verdicts differ; a tie in `verdicts`.
        unparsable_first: Pairs without a verdict in the first order.
        unparsable_second: Pairs without a verdict in the second order.
        left_out: Pairs without a verdict in either or both orders.
    """

    estimate: float
    interval: Interval
    consistency: Effect
    first_position: Effect | None
    verdicts: FloatArray
    pairs: int
    disagreements: int
    unparsable_first: int
    unparsable_second: int
    left_out: int


@dataclass(frozen=True, slots=True)
class SelfPreference:
    """How much more a judge prefers answers of its own family than people do.

    Attributes:
        estimate: Mean of judge minus human verdict for the answer of the judge's family.
        interval: Its confidence interval.
        judge_rate: Win rate of these answers by the judge.
        human_rate: Their win rate by people.
        pairs: Pairs with one answer of the judge's family and both verdicts.
        other_families: The same mean over pairs without one; None for fewer than 2 such pairs.
        other_pairs: Their number.
        difference: `estimate` minus that of `other_families`; None without them.
        left_out: Pairs without one of the verdicts.
    """

    estimate: float
    interval: Interval
    judge_rate: float
    human_rate: float
    pairs: int
    other_families: Effect | None
    other_pairs: int
    difference: Effect | None
    left_out: int


@dataclass(frozen=True, slots=True)
class Uplift:
    """What a treatment of the answers does to the judge.

    Attributes:
        estimate: Mean of treated minus plain score.
        interval: Its confidence interval.
        gained: Share of items where the treated scores higher.
        lost: Share of items where it scores lower.
        tolerance: Largest effect that does no harm.
        harmful: Whether the lower end of the interval is above `tolerance`. False is no proof
            that the treatment does nothing: look at the upper end.
        items: Items with both scores.
        left_out: Items without.
    """

    estimate: float
    interval: Interval
    gained: Effect
    lost: Effect
    tolerance: float
    harmful: bool
    items: int
    left_out: int


def bounded_mean_interval(
    values: ArrayLike, *, low: float = -1.0, high: float = 1.0, level: float = 0.95
) -> Interval:
    """Interval of a mean of bounded values, many of which may be equal.

    z^2 / 2 observations are added at `low` and as many at `high`; then mean +- t(n - 1) standard
    errors of the n + z^2 observations, cut to the range. For values at the two ends only it is
    Agresti and Coull's interval of a share, with t for z. With s = 0 it still reaches about
    z^2 (high - low) / (2 n) to each side: n equal values do not exclude rare others.

    Units: those of the values.
    Assumptions: independent values within [low, high], their number fixed.
    Error rate: approximate, mostly conservative. At level 0.95 for values -1, 0, 1 it covers in at
    least 0.93 of samples whatever their shares, for n = 10 to 100 (exact enumeration over a grid);
    far above the level where few values differ from 0 or all are close together. The lower end is
    above a true mean from 0 on in at most 3 % of samples.
    When not to use: for shares (`wilson`); for values of a narrow band of their range from many
    items, where `mean_interval` is narrower; where few users make most items.

    Args:
        values: At least two numbers in [low, high].
        low: Lowest possible value.
        high: Highest possible value.
        level: Nominal coverage in (0, 1).

    Returns:
        The interval, within [low, high]; it always contains the mean and has a width.

    Raises:
        InsufficientDataError: There are fewer than two values.
        InvalidInputError: A value is out of range or not a number, or the level is.

    Example:
        >>> interval = bounded_mean_interval([0.0] * 100)
        >>> round(interval.lower, 3), round(interval.upper, 3)
        (-0.037, 0.037)

    References:
        Agresti, A., Coull, B. A. (1998). Approximate is better than "exact" for interval
        estimation of binomial proportions. American Statistician 52, 119-126. Agresti, A., Min,
        Y. (2005). Simple improved confidence intervals for comparing matched proportions.
        Statistics in Medicine 24, 729-740 (matched pairs, with 1 observation at each end).
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    require(
        high > low,
        f"high must exceed low, got {high} and {low}; pass the range",
    )
    wrong = ~((sample >= low) & (sample <= high))
    if wrong.any():
        raise InvalidInputError(
            f"values must be in [{low:g}, {high:g}], got {sample[wrong][0]:g}; leave out what was "
            "not observed, or pass the range as low and high"
        )
    tail = (1.0 + checked_level(level)) / 2.0
    if sample.size < 2:
        raise InsufficientDataError(
            f"the interval of a mean needs at least 2 values, got {sample.size}; collect more"
        )
    added = float(special.ndtri(tail)) ** 2
    scaled = (sample - (low + high) / 2.0) / ((high - low) / 2.0)
    size = scaled.size + added
    centre = float(scaled.sum()) / size
    variance = (float(scaled @ scaled) + added) / size - centre**2
    half = float(special.stdtrit(scaled.size - 1, tail)) * math.sqrt(max(0.0, variance) / size)
    ends = np.array([max(-1.0, centre - half), min(1.0, centre + half)])
    lower, upper = (low + high) / 2.0 + ends * (high - low) / 2.0
    return Interval(float(lower), float(upper), level)


def position_bias(
    first_order: ArrayLike, second_order: ArrayLike, *, level: float = 0.95
) -> PositionBias:
    """Whether a judge prefers the answer shown first.

    With f the verdict for the first answer where it is shown first, s where it is shown second, the
    answer shown first wins f and 1 - s of the two; the effect is the mean of (f - s) / 2. Its
    interval is half `newcombe_paired` of f and s, or half `bounded_mean_interval` of f - s if there
    are ties. Shares have `wilson` intervals.

    Units: verdicts in, differences of shares and shares out.
    Assumptions: independent pairs, their number fixed; both orders judged by one judge and prompt.
    Error rate: that of the intervals. At level 0.95 the effect's covers in at least 0.91 of
    samples of 10 to 30 pairs without ties, whatever their shares (exact enumeration over a grid),
    and in at least 0.93 of 100 pairs or with ties; `wilson` as it states.
    When not to use: for different pairs in the two orders; for verdicts drawn at a high
    temperature, where consistency is low without any preference for a position (the effect is
    still right).

    Args:
        first_order: Verdict for the first answer, shown first: 0, 0.5, 1 or NaN, shape (n,).
        second_order: Verdict for the same answer, shown second, shape (n,).
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: No pair has a verdict in both orders, or only one and with a tie.
        InvalidInputError: A verdict is none of these, lengths differ, or the level is wrong.

    Example:
        >>> shown_first = [1, 1, 1, 1, 0, 1, 0, math.nan]
        >>> shown_second = [1, 1, 0, 0, 0, 1, 0, 1]
        >>> result = position_bias(shown_first, shown_second)
        >>> round(result.estimate, 3), round(result.consistency.estimate, 3)
        (0.143, 0.714)
        >>> result.disagreements, result.first_position.estimate, result.left_out
        (2, 1.0, 1)

    References:
        Wang, P. et al. (2024). Large language models are not fair evaluators. ACL. Zheng, L. et
        al. (2023). Judging LLM-as-a-judge with MT-bench and Chatbot Arena. NeurIPS.
        Newcombe (1998), as `newcombe_paired`.
    """
    first, second = _verdicts("first_order", first_order), _verdicts("second_order", second_order)
    check_one_length(first, second)
    known = ~np.isnan(first) & ~np.isnan(second)
    shown_first, shown_second = first[known], second[known]
    pairs = shown_first.size
    if pairs == 0:
        raise InsufficientDataError(
            f"position bias needs a pair with a verdict in both orders, got none of {first.size}; "
            "judge pairs in both orders"
        )
    effect = paired_effect(shown_second, shown_first, level)
    agree = int(np.count_nonzero(shown_first == shown_second))
    leaning = int(np.count_nonzero(shown_first > shown_second))
    combined = np.where(first == second, first, 0.5)
    combined[~known] = np.nan
    return PositionBias(
        estimate=effect.estimate / 2.0,
        interval=Interval(effect.interval.lower / 2.0, effect.interval.upper / 2.0, level),
        consistency=_share(agree, pairs, level),
        first_position=_share(leaning, pairs - agree, level) if agree < pairs else None,
        verdicts=combined,
        pairs=pairs,
        disagreements=pairs - agree,
        unparsable_first=int(np.isnan(first).sum()),
        unparsable_second=int(np.isnan(second).sum()),
        left_out=first.size - pairs,
    )


def self_preference(
    judge_verdicts: ArrayLike,
    human_verdicts: ArrayLike,
    is_own_family: ArrayLike,
    *,
    level: float = 0.95,
) -> SelfPreference:
    """How much more a judge prefers answers of its own family than people do.

    Mean of judge minus human verdict over pairs where one answer is of the judge's model family,
    verdicts for that answer. That own answers are better is in both verdicts and cancels. The
    difference in differences subtracts the same mean over pairs of other families, and with it
    what the judge does to any answer in that place (shown first, longer, of the challenger). Paired
    means have `newcombe_paired`, or `bounded_mean_interval` if there are ties; the difference joins
    the two intervals by square and add.

    Units: verdicts in [0, 1] in, differences of shares in [-1, 1] out.
    Assumptions: independent pairs, their number fixed; people do not know who wrote which. For the
    difference, verdicts on pairs of other families are for the answer in the place that own
    answers have in theirs.
    Error rate: that of the intervals. At level 0.95 with 30 to 200 pairs the two cover in at least
    0.93 of samples.
    When not to use: without human verdicts (an own answer that wins may be better); where people
    prefer by another criterion than the judge was given.

    Args:
        judge_verdicts: The judge's verdicts in [0, 1], NaN for none, shape (n,).
        human_verdicts: People's verdicts on the same pairs, NaN for none, shape (n,).
        is_own_family: Whether the answer that verdicts are for is of the judge's family, shape (n,)
            of booleans.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Fewer than two pairs of the own family have both verdicts.
        InvalidInputError: A verdict is out of range, a mark is no boolean, lengths differ, or the
            level is wrong.

    Example:
        >>> own = [True] * 40 + [False] * 40
        >>> people = [1, 0] * 40
        >>> judge = [1, 1, 1, 0] * 10 + [1, 0] * 20
        >>> result = self_preference(judge, people, own)
        >>> result.estimate, result.other_families.estimate, result.difference.estimate
        (0.25, 0.0, 0.25)
        >>> result.difference.interval.lower > 0.0
        True

    References:
        Panickssery, A., Bowman, S. R., Feng, S. (2024). LLM evaluators recognize and favor their
        own generations. NeurIPS. Zou, G. Y., Donner, A. (2008). Construction of confidence limits
        about effect measures. Statistics in Medicine 27, 1693-1702.
    """
    judged, human = (
        unit_scores("judge_verdicts", judge_verdicts),
        unit_scores("human_verdicts", human_verdicts),
    )
    own = np.asarray(is_own_family).ravel()
    if own.dtype.kind != "b":
        raise InvalidInputError(
            f"is_own_family must be booleans, got {own.dtype}; pass True where an answer is of the "
            "judge's family"
        )
    check_one_length(judged, human, own)
    return _self_preference(judged, human, own, level)


def uplift(
    plain: ArrayLike, treated: ArrayLike, *, tolerance: float = 0.0, level: float = 0.95
) -> Uplift:
    """What a treatment adds to the score of the same content.

    Mean of treated minus plain score. Treatments that ought to add nothing: a rewrite in a
    confident tone (authority), an instruction to the judge inside the answer (injection), padding.
    `newcombe_paired` if all scores are 0 or 1, else `bounded_mean_interval` of the differences;
    shares of items have `wilson` intervals.

    Units: scores in [0, 1] in, a difference in [-1, 1] out.
    Assumptions: independent items, their number fixed; the treatment leaves the content as it was.
    Error rate: that of the intervals, whatever the share of ties. At level 0.95 a treatment that
    does nothing is called harmful in at most 3 % of samples of scores and 4 % of 10 to 30 items
    scored 0 or 1; one that does exactly `tolerance`, in at most 4.5 % (exact enumeration over a
    grid; 2.5 % is nominal).
    When not to use: where the treatment may improve the answer itself; for two sets of items.

    Args:
        plain: Scores without the treatment, NaN for none, shape (n,).
        treated: Scores of the same items with it, shape (n,).
        tolerance: Largest mean difference that does no harm, in [0, 1).
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: No item has both scores, or only one and it is not 0 or 1.
        InvalidInputError: A score is out of range, lengths differ, or an argument is wrong.

    Example:
        >>> result = uplift([0.5] * 100, [0.5] * 80 + [1.0] * 20)
        >>> result.estimate, result.gained.estimate, result.harmful
        (0.1, 0.2, True)
        >>> uplift([0.0] * 50, [0.0] * 50).harmful
        False

    References:
        Chen, G. H. et al. (2024). Humans or LLMs as the judge? A study on judgement biases. EMNLP.
        Newcombe (1998), as `newcombe_paired`; Agresti, Coull (1998), as `bounded_mean_interval`.
    """
    before, after = unit_scores("plain", plain), unit_scores("treated", treated)
    check_one_length(before, after)
    known = ~np.isnan(before) & ~np.isnan(after)
    before, after = before[known], after[known]
    _some_items(before.size, known.size)
    effect = paired_effect(before, after, level)
    return _uplift(effect, after - before, tolerance, known.size, level)


def mean_effect(values: FloatArray, level: float) -> Effect:
    """Mean of values in [0, 1] without gaps: `wilson` if all are 0 or 1, else bounded."""
    if _is_binary(values):
        return _share(int(values.sum()), values.size, level)
    return Effect(float(values.mean()), bounded_mean_interval(values, low=0.0, level=level))


def paired_effect(first: FloatArray, second: FloatArray, level: float) -> Effect:
    """Mean of second minus first in [0, 1]: `newcombe_paired` if all are 0 or 1, else bounded."""
    if not (_is_binary(first) and _is_binary(second)):
        gained = second - first
        return Effect(float(gained.mean()), bounded_mean_interval(gained, level=level))
    one, two = first == 1.0, second == 1.0
    cells = (one & two, one & ~two, ~one & two, ~one & ~two)
    ends = newcombe_paired(*(int(cell.sum()) for cell in cells), level=level)
    gain = (int(cells[2].sum()) - int(cells[1].sum())) / first.size
    return Effect(gain, ends)


def subtract(effect: Effect, other: Effect) -> Effect:
    """`effect` minus an independent `other` of the same level, intervals joined by square and add.

    With limits (l1, u1) and (l2, u2): lower = d - sqrt((e1 - l1)^2 + (u2 - e2)^2), upper =
    d + sqrt((u1 - e1)^2 + (e2 - l2)^2) (Zou and Donner 2008).
    """
    one, two = effect.interval, other.interval
    change = effect.estimate - other.estimate
    below = math.hypot(effect.estimate - one.lower, two.upper - other.estimate)
    above = math.hypot(one.upper - effect.estimate, other.estimate - two.lower)
    return Effect(change, Interval(change - below, change + above, one.level))


def _self_preference(
    judged: FloatArray, human: FloatArray, own: BoolArray, level: float
) -> SelfPreference:
    known = ~np.isnan(judged) & ~np.isnan(human)
    ours, others = known & own, known & ~own
    pairs, other_pairs = int(ours.sum()), int(others.sum())
    if pairs < 2:
        raise InsufficientDataError(
            f"self-preference needs 2 pairs with an answer of the judge's family and both "
            f"verdicts, got {pairs}; label more of them"
        )
    effect = paired_effect(human[ours], judged[ours], level)
    other = paired_effect(human[others], judged[others], level) if other_pairs > 1 else None
    return SelfPreference(
        estimate=effect.estimate,
        interval=effect.interval,
        judge_rate=float(judged[ours].mean()),
        human_rate=float(human[ours].mean()),
        pairs=pairs,
        other_families=other,
        other_pairs=other_pairs,
        difference=None if other is None else subtract(effect, other),
        left_out=judged.size - pairs - other_pairs,
    )


def _uplift(
    effect: Effect, gained: FloatArray, tolerance: float, asked: int, level: float
) -> Uplift:
    require(
        0.0 <= tolerance < 1.0,
        f"tolerance must be in [0, 1), got {tolerance}; pass 0 to accept no uplift at all",
    )
    return Uplift(
        estimate=effect.estimate,
        interval=effect.interval,
        gained=_share(int((gained > 0.0).sum()), gained.size, level),
        lost=_share(int((gained < 0.0).sum()), gained.size, level),
        tolerance=tolerance,
        harmful=effect.interval.lower > tolerance,
        items=gained.size,
        left_out=asked - gained.size,
    )


def _some_items(judged: int, asked: int) -> None:
    if judged == 0:
        raise InsufficientDataError(
            f"an uplift needs an item that was judged, got none of {asked}; have more judged"
        )


def _share(count: int, total: int, level: float) -> Effect:
    return Effect(count / total, wilson(count, total, level=level))


def _is_binary(values: FloatArray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _verdicts(name: str, values: ArrayLike) -> FloatArray:
    verdicts = np.asarray(values, dtype=np.float64).ravel()
    wrong = ~np.isnan(verdicts) & ~np.isin(verdicts, VERDICTS)
    if wrong.any():
        raise InvalidInputError(
            f"{name} must be 0, 0.5, 1 or NaN for none, got {verdicts[wrong][0]:g}; pass 1 where "
            "the first answer wins"
        )
    return verdicts
