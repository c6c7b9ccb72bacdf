"""Length bias of a judge of pairs, and the win rate as it would be at equal length.

A judge that likes long answers lets a challenger win by writing more. `length_controlled_win_rate`
asks what the win rate would be if both answers were equally long; `longest_answer_win_rate` how far
the rule "the longer answer wins" goes towards a judge, or towards people.

tanh with scale 1 is AlpacaEval 2's term of length. Its term of the instruction's difficulty and its
regularization are left out: they need many models on the same instructions. There is no ridge:
where verdicts are separated by length (or all equal), no finite coefficients fit best, and an
interval from a ridge would be the ridge's, not the data's.

References:
    Papke, L. E., Wooldridge, J. M. (1996). Econometric methods for fractional response variables.
    Journal of Applied Econometrics 11, 619-632. MacKinnon, J. G., White, H. (1985). Some
    heteroskedasticity-consistent covariance matrix estimators with improved finite sample
    properties. Journal of Econometrics 29, 305-325 (HC3). Albert, A., Anderson, J. A. (1984). On
    the existence of maximum likelihood estimates in logistic regression models. Biometrika 71,
    1-10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import check_one_length, checked_level, require, unit_scores
from ratchet.stats.intervals import Interval
from ratchet.stats.intervals.clustered import cluster_mean_interval
from ratchet.stats.judges.bias import (
    Effect,
    mean_effect,
)

Labels = NDArray[np.generic]
FEWEST_PAIRS = 30
FEWEST_EACH = 8.0
FEWEST_CLUSTERS = 20
ITERATIONS = 100
LONGEST_STEP = 2.0
LEAST_SPREAD = 1e-3  # of tanh: below, the differences are beyond where tanh tells them apart


@dataclass(frozen=True, slots=True)
class RuleAgreement:
    """How often the rule "the longer answer wins" agrees with verdicts.

    Attributes:
        estimate: Share of agreement, a tie counts half.
        interval: Its confidence interval.
        pairs: Pairs with a verdict and two lengths.
        equal_lengths: Pairs left out because neither answer is longer.
        left_out: Pairs left out because a verdict or a length is missing.
    """

    estimate: float
    interval: Interval
    pairs: int
    equal_lengths: int
    left_out: int


@dataclass(frozen=True, slots=True)
class LengthControlledWinRate:
    """Win rate of the challenger as it would be at equal length.

    Attributes:
        estimate: Win rate that the model predicts at equal length.
        interval: Its confidence interval.
        raw: Win rate as observed; a tie counts half.
        coefficient: Change of the log odds of a win for one unit of tanh; above 0 the judge
            prefers the longer answer.
        length_effect: Change of the win rate when the challenger, first equally long, is longer by
            one standard deviation of the length differences.
        length_deviation: That standard deviation, in the unit of the lengths.
        longest_answer_judge: Agreement of "the longer answer wins" with these verdicts.
        longest_answer_human: The same with the labels of people; None without labels.
        extrapolated: Whether no pair has an answer at most as long as, or at least as long as, the
            other one, so that equal length lies outside what was seen.
        pairs: Pairs that the model was fitted to.
        clusters: Independent units: users, or pairs.
        left_out: Pairs without a verdict or a length.
    """

    estimate: float
    interval: Interval
    raw: Effect
    coefficient: Effect
    length_effect: Effect
    length_deviation: float
    longest_answer_judge: RuleAgreement
    longest_answer_human: RuleAgreement | None
    extrapolated: bool
    pairs: int
    clusters: int
    left_out: int


class _Fit(NamedTuple):
    """Coefficients of a logistic model, their robust covariance, and degrees of freedom."""

    coefficients: FloatArray
    covariance: FloatArray
    quantile: float


def length_controlled_win_rate(
    verdicts: ArrayLike,
    length_difference: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    human_verdicts: ArrayLike | None = None,
    scale: float = 1.0,
    level: float = 0.95,
) -> LengthControlledWinRate:
    """Win rate of the challenger against the champion as it would be at equal length.

    Logistic regression of the verdict (ties are 0.5, a fractional response):
    P(win) = expit(a + b tanh(x / (scale s))), x the length difference, s its standard deviation.
    The controlled rate is expit(a), with the interval expit(a +- t se(a)). se is from the sandwich
    of the residuals divided by 1 - leverage (HC3), summed by cluster if there are clusters; t has
    (clusters - 1), or (pairs - 2), degrees of freedom. The effect of length is
    expit(a + b tanh(1 / scale)) - expit(a), its error by the delta method.

    Units: verdicts in [0, 1] in, shares out; lengths in any unit, or log ratios of lengths.
    Assumptions: independent pairs, or clusters; the log odds are linear in that tanh; what the
    judge rewards at a given length is not length itself. se holds for ties and clusters.
    Error rate: approximate. At level 0.95 with 50 to 400 pairs, controlled rates of 0.3 to 0.7,
    length coefficients of 0 to 2, with and without ties, the challenger longer by up to one
    standard deviation on average, all three intervals cover in at least 0.93 of samples. With 20 to
    60 users of 5 or 10 pairs who differ much, the rate's covers in at least 0.93, the other two in
    0.92; without `clusters` it would be 0.83.
    When not to use: where longer answers are better for it (more complete): their gain is taken
    away too; compare `longest_answer_human`. Where the challenger is always longer (`extrapolated`)
    the rate rests on the form of the model alone.

    Args:
        verdicts: Verdict for the challenger in [0, 1], NaN for none, shape (n,).
        length_difference: Challenger's length minus the champion's, NaN for none, shape (n,).
        clusters: Label of each pair's user, shape (n,); None if pairs are independent.
        human_verdicts: Labels of people for the challenger, NaN for none, shape (n,).
        scale: How many standard deviations make one unit of tanh, above 0; smaller saturates
            sooner.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Fewer than 30 pairs, 8 wins or 8 losses (a tie is half of each) or 20
            clusters, equal length differences, or verdicts that length separates.
        InvalidInputError: A value is out of range, lengths of arrays differ, or an argument is
            wrong.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> longer = rng.normal(100.0, 100.0, size=400)
        >>> wins = rng.random(400) < special.expit(1.5 * np.tanh(longer / 100.0))
        >>> result = length_controlled_win_rate(wins, longer)
        >>> round(result.raw.estimate, 2), round(result.estimate, 2)
        (0.7, 0.52)
        >>> 0.5 in result.raw.interval, 0.5 in result.interval
        (False, True)

    References:
        Dubois, Y., Galambosi, B., Liang, P., Hashimoto, T. B. (2024). Length-controlled
        AlpacaEval: a simple way to debias automatic evaluators. COLM. Papke, Wooldridge (1996),
        MacKinnon, White (1985), Albert, Anderson (1984), as above.
    """
    checked_level(level)
    require(
        scale > 0.0 and math.isfinite(scale),
        f"scale must be above 0, got {scale}; pass 1 as AlpacaEval does",
    )
    wins, differences, users = _checked(verdicts, length_difference, clusters)
    human = None
    if (
        human_verdicts is not None
        and not np.isnan(unit_scores("human_verdicts", human_verdicts)).all()
    ):
        human = longest_answer_win_rate(human_verdicts, differences, clusters=users, level=level)
    return _controlled(wins, differences, users, human, scale, level)


def longest_answer_win_rate(
    verdicts: ArrayLike,
    length_difference: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> RuleAgreement:
    """How often the rule "the longer answer wins" agrees with verdicts.

    Mean of the verdict where the challenger is longer and of 1 minus it where it is shorter; a tie
    agrees by half. A judge that the rule predicts much better than it predicts people prefers
    length. `wilson`, or `bounded_mean_interval` if there are ties, or `cluster_mean_interval`.

    Units: verdicts in [0, 1] in, a share out.
    Assumptions: independent pairs, or clusters of them, their number fixed.
    Error rate: that of the interval, near the level.
    When not to use: as a proof of bias: better answers may be longer. Set it beside that of people.

    Args:
        verdicts: Verdict for the challenger in [0, 1], NaN for none, shape (n,).
        length_difference: Challenger's length minus the champion's, NaN for none, shape (n,).
        clusters: Label of each pair's user, shape (n,); None if pairs are independent.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: No pair has a verdict and answers of different length, or too few
            clusters or pairs for the interval.
        InvalidInputError: A value is out of range or lengths of arrays differ.

    Example:
        >>> result = longest_answer_win_rate([1, 1, 0, 0.5, 0, 1], [9, 5, -4, 3, 2, 0])
        >>> result.estimate, result.pairs, result.equal_lengths
        (0.7, 5, 1)

    References:
        Dubois et al. (2024), as `length_controlled_win_rate`.
    """
    wins, differences, users = _checked(verdicts, length_difference, clusters)
    known = ~np.isnan(wins) & ~np.isnan(differences)
    used = known & (differences != 0.0)
    if not used.any():
        raise InsufficientDataError(
            f"the rule of the longer answer needs a verdict on answers of different length, got "
            f"none of {wins.size}; pass pairs that differ"
        )
    agreed = np.where(differences[used] > 0.0, wins[used], 1.0 - wins[used])
    effect = _mean(agreed, None if users is None else users[used], level)
    return RuleAgreement(
        estimate=effect.estimate,
        interval=effect.interval,
        pairs=agreed.size,
        equal_lengths=int((known & ~used).sum()),
        left_out=wins.size - int(known.sum()),
    )


def _controlled(
    wins: FloatArray,
    differences: FloatArray,
    users: Labels | None,
    human: RuleAgreement | None,
    scale: float,
    level: float,
) -> LengthControlledWinRate:
    known = ~np.isnan(wins) & ~np.isnan(differences)
    y, x = wins[known], differences[known]
    labels = None if users is None else users[known]
    groups = np.arange(y.size) if labels is None else _codes(labels)
    deviation = _enough(y, x, groups)
    z = np.tanh(x / (scale * deviation))
    _refuse_separation(y, z)
    fit = _fit(y, z, groups, level)
    rate, effect = _at_equal_length(fit, math.tanh(1.0 / scale), level)
    return LengthControlledWinRate(
        estimate=rate.estimate,
        interval=rate.interval,
        raw=_mean(y, labels, level),
        coefficient=_linear(fit, np.array([0.0, 1.0]), level),
        length_effect=effect,
        length_deviation=deviation,
        longest_answer_judge=longest_answer_win_rate(y, x, clusters=labels, level=level),
        longest_answer_human=human,
        extrapolated=bool(x.min() > 0.0 or x.max() < 0.0),
        pairs=y.size,
        clusters=int(groups.max()) + 1,
        left_out=wins.size - y.size,
    )


def _fit(y: FloatArray, z: FloatArray, groups: NDArray[np.intp], level: float) -> _Fit:
    design = np.column_stack((np.ones_like(z), z))
    theta = np.zeros(2)
    for _ in range(ITERATIONS):
        step = np.linalg.solve(_information(design, theta), design.T @ (y - _rates(design, theta)))
        largest = float(np.abs(step).max())
        theta = theta + step * (LONGEST_STEP / max(largest, LONGEST_STEP))
        if largest < 1e-10:
            break
    else:
        raise InsufficientDataError(
            f"the logistic model must converge, got a step of {largest:.2g} after "
            f"{ITERATIONS}; length separates nearly all verdicts: collect more pairs"
        )
    bread = np.linalg.inv(_information(design, theta))
    rates = _rates(design, theta)
    leverage = rates * (1.0 - rates) * np.einsum("ij,jk,ik->i", design, bread, design)
    scores = design * ((y - rates) / (1.0 - leverage))[:, np.newaxis]
    count = int(groups.max()) + 1
    sums = np.column_stack([np.bincount(groups, column, count) for column in scores.T])
    freedom = count - (2 if count == y.size else 1)
    quantile = float(special.stdtrit(freedom, (1.0 + level) / 2.0))
    return _Fit(theta, bread @ (sums.T @ sums) @ bread, quantile)


def _rates(design: FloatArray, theta: FloatArray) -> FloatArray:
    return np.asarray(special.expit(design @ theta))


def _information(design: FloatArray, theta: FloatArray) -> FloatArray:
    rates = _rates(design, theta)
    return np.asarray(design.T @ (design * (rates * (1.0 - rates))[:, np.newaxis]))


def _at_equal_length(fit: _Fit, one_deviation: float, level: float) -> tuple[Effect, Effect]:
    """The win rate at equal length, and its change at one standard deviation more."""
    log_odds = _linear(fit, np.array([1.0, 0.0]), level)
    ends = (special.expit(log_odds.interval.lower), special.expit(log_odds.interval.upper))
    equal = float(special.expit(fit.coefficients[0]))
    longer = float(special.expit(fit.coefficients @ [1.0, one_deviation]))
    slope = longer * (1.0 - longer)
    gradient = np.array([slope - equal * (1.0 - equal), slope * one_deviation])
    half = fit.quantile * math.sqrt(float(gradient @ fit.covariance @ gradient))
    change = longer - equal
    return (
        Effect(equal, Interval(float(ends[0]), float(ends[1]), level)),
        Effect(change, Interval(max(-1.0, change - half), min(1.0, change + half), level)),
    )


def _linear(fit: _Fit, weights: FloatArray, level: float) -> Effect:
    value = float(weights @ fit.coefficients)
    half = fit.quantile * math.sqrt(float(weights @ fit.covariance @ weights))
    return Effect(value, Interval(value - half, value + half, level))


def _mean(values: FloatArray, clusters: Labels | None, level: float) -> Effect:
    if clusters is None:
        return mean_effect(values, level)
    result = cluster_mean_interval(values, clusters, level=level)
    lower, upper = max(0.0, result.interval.lower), min(1.0, result.interval.upper)
    return Effect(result.estimate, Interval(lower, upper, level))


def _enough(y: FloatArray, x: FloatArray, groups: NDArray[np.intp]) -> float:
    """Return the standard deviation of the length differences, or say what is too little."""
    count = int(groups.max()) + 1 if groups.size else 0
    if y.size < FEWEST_PAIRS or count < FEWEST_CLUSTERS:
        raise InsufficientDataError(
            f"a length-controlled rate needs {FEWEST_PAIRS} pairs of {FEWEST_CLUSTERS} users, got "
            f"{y.size} of {count}; collect more"
        )
    won, lost = float(y.sum()), float((1.0 - y).sum())
    if min(won, lost) < FEWEST_EACH:
        raise InsufficientDataError(
            f"a length-controlled rate needs {FEWEST_EACH:g} wins and {FEWEST_EACH:g} losses, got "
            f"{won:g} and {lost:g}; collect more, or take the interval of the raw rate"
        )
    if float(np.ptp(y)) == 0.0:
        raise InsufficientDataError(
            f"verdicts must differ for an effect of length to be seen, got {y[0]:g} for all "
            f"{y.size} pairs; a judge that decides nothing has no length bias to measure"
        )
    return length_deviation(x)


def length_deviation(differences: FloatArray) -> float:
    """Return the standard deviation of length differences.

    Raises:
        InsufficientDataError: They do not vary.
    """
    deviation = float(differences.std(ddof=1))
    if deviation <= 1e-9 * float(np.abs(differences).max(initial=0.0)) or deviation == 0.0:
        raise InsufficientDataError(
            f"length differences must vary for their effect to be known, got {differences[0]:g} in "
            f"all {differences.size} pairs; take the rate that is not controlled for length"
        )
    return deviation


def _refuse_separation(y: FloatArray, z: FloatArray) -> None:
    """Refuse verdicts for which no finite coefficients fit best (Albert and Anderson)."""
    if np.ptp(z) < LEAST_SPREAD:
        raise InsufficientDataError(
            f"tanh of length differences must vary for their effect to be known, got {z.min():g} "
            f"to {z.max():g}: nearly all differ by many standard deviations; pass a larger scale"
        )
    not_lost, not_won = z[y > 0.0], z[y < 1.0]
    if not_lost.min() >= not_won.max() or not_lost.max() <= not_won.min():
        raise InsufficientDataError(
            "the effect of length must be finite, got verdicts that a threshold of the length "
            f"difference separates without exception in {y.size} pairs; collect more, or report "
            "longest_answer_win_rate"
        )


def _checked(
    verdicts: ArrayLike, length_difference: ArrayLike, clusters: ArrayLike | None
) -> tuple[FloatArray, FloatArray, Labels | None]:
    wins, differences = unit_scores("verdicts", verdicts), _lengths(length_difference)
    users = None if clusters is None else np.asarray(clusters).ravel()
    check_one_length(wins, differences, *([] if users is None else [users]))
    return wins, differences, users


def _codes(labels: Labels) -> NDArray[np.intp]:
    return np.asarray(np.unique(labels, return_inverse=True)[1].ravel(), dtype=np.intp)


def _lengths(values: ArrayLike) -> FloatArray:
    lengths = np.asarray(values, dtype=np.float64).ravel()
    if np.isinf(lengths).any():
        raise InvalidInputError(
            "length differences must be finite or NaN for none, got an infinite one; pass NaN "
            "where a length is unknown or, for log ratios, 0"
        )
    return lengths
