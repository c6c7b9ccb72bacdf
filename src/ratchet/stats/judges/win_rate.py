"""Win rate of a challenger by a judge, corrected by labels of people, at equal length.

`corrected_win_rate` asks how often people would prefer the challenger were both answers equally
long. A judge says so of every pair, people of a random part of them. `ratchet.stats.judges.length`
has the same question for a judge alone, `ratchet.stats.judges.corrected_rate` a rate without
lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import BoolArray, FloatArray
from ratchet.stats.checks import check_one_length, normal_quantile, require, unit_scores
from ratchet.stats.comparisons.means import paired_mean_test
from ratchet.stats.intervals import Interval
from ratchet.stats.judges.length import length_deviation
from ratchet.stats.judges.verdicts import equal_missing

Codes = NDArray[np.intp]
FEWEST_LABELS = 30
FEWEST_USERS = 20  # with a label, where pairs have users
ITERATIONS = 100
LONGEST_STEP = 2.0
GATE_LEVEL = 0.05  # at which the values are as wide as the estimate with its few labels
CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))  # label and verdict


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedWinRate:
    """How often people would prefer the challenger.

    Attributes:
        estimate: Win rate, at equal length where lengths are controlled.
        interval: Its confidence interval.
        standard_error: Of the estimate.
        log_odds_per_unit: Change of the log odds for one unit of tanh; None without lengths.
        tuning: Weight lambda of the judge's verdicts in [0, 1]; 0 means that they are no help.
        labelled: Pairs with a label.
        unlabelled: Pairs without one.
        users: Independent units among the labelled: users, or pairs.
        missing_verdicts: Pairs without a verdict.
        values: What each pair says of the rate, shape (n,), nan without a verdict: their mean is
            the estimate, and a test of their mean (`paired_mean_test`, with the same users) is as
            strict as the interval.
    """

    estimate: float
    interval: Interval
    standard_error: float
    log_odds_per_unit: float | None
    tuning: float
    labelled: int
    unlabelled: int
    users: int
    missing_verdicts: int
    values: FloatArray


def corrected_win_rate(
    labels: ArrayLike,
    verdicts: ArrayLike,
    length_difference: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    scale: float = 1.0,
    level: float = 0.95,
) -> CorrectedWinRate:
    """Win rate of the challenger as people would give it, from many verdicts and few labels.

    Prediction-powered logistic regression: with P(win) = p = expit(a + b tanh(x / (scale s))), x
    the length difference and s its standard deviation, a and b solve
    lambda mean_others[d (p - f)] + mean_labelled[d (p - y) - lambda d (p - f)] = 0, d the design
    (1, tanh), y labels, f verdicts. The rate is expit(a): whatever the judge gives for length is
    taken out by the labels, and what people give for it by the model. lambda is the one that makes
    the variance of a least, cut to [0, 1]. As `prediction_powered_rate`, z^2 / 4 observations
    are added to each corner of the table of label by verdict, at equal length. The interval is
    expit(a +- t se): se from the sandwich of the residuals over 1 - leverage (HC3), summed by user;
    t has 1 / sum h^2 - 1 degrees of freedom (less one with lengths), h each user's share of the
    labels. A missing verdict is given the mean of the others.

    Units: shares in [0, 1]; lengths in any unit, or log ratios.
    Assumptions: labelled pairs are a random part of all, whatever their verdict or length; users
    or pairs are independent; the log odds are linear in that tanh. The judge may err as it likes.
    Error rate: approximate. At level 0.95 with 50 or 200 labels of 1,000 pairs, rates 0.5 and 0.7,
    judges from good to useless, alone or as 60 or 200 users, it covers in 0.93 to 1.0 of samples
    (0.95 with 200 labels), the judge's own interval in 0 to 0.96. A 5 % test of the values against
    a true rate of 0.5 errs in 2.6 % with 50 labels, 4.6 % with 200.
    When not to use: where people chose what to label; where longer answers are better for it; where
    the challenger is always longer, so that equal length is not in the data.

    Args:
        labels: What people say of the challenger in [0, 1], a tie 0.5, NaN for none, shape (n,).
        verdicts: What the judge says, NaN for none, shape (n,).
        length_difference: Challenger's minus champion's, shape (n,); None for a rate as it is.
        clusters: Label of each pair's user, shape (n,); None if pairs are independent.
        scale: How many standard deviations make one unit of tanh, above 0.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Fewer than 30 labels or 20 users with one, no pair without a label,
            no verdict, equal length differences, or labels that length separates.
        InvalidInputError: A value is out of range, lengths of arrays differ, or verdicts are
            missing more often with a label than without.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> longer, liked = rng.normal(0.5, 1.0, 1_000), rng.random(1_000) < 0.5
        >>> judged = np.where(rng.random(1_000) < special.expit(2.0 * longer), 1.0, liked)
        >>> labels = np.where(np.arange(1_000) < 200, liked, np.nan)
        >>> found = corrected_win_rate(labels, judged, longer)
        >>> round(float(judged.mean()), 2), round(found.estimate, 2), 0.5 in found.interval
        (0.84, 0.51, True)

    References:
        Angelopoulos, A. N., Duchi, J. C., Zrnic, T. (2024). PPI++: efficient prediction-powered
        inference. arXiv:2311.01453. Dubois, Y., Galambosi, B., Liang, P., Hashimoto, T. B. (2024).
        Length-controlled AlpacaEval: a simple way to debias automatic evaluators. COLM. MacKinnon,
        J. G., White, H. (1985). Some heteroskedasticity-consistent covariance matrix estimators
        with improved finite sample properties. Journal of Econometrics 29, 305-325 (HC3).
    """
    sample = _Sample.of(labels, verdicts, length_difference, clusters, scale, level)
    theta, tuning = _fit(sample)
    parts, centre = sample.contributions(theta, tuning), float(theta[0])
    error = sample.error(parts)
    half = float(special.stdtrit(sample.freedom(), (1.0 + level) / 2.0)) * error
    low, rate, high = map(float, special.expit([centre - half, centre, centre + half]))
    return CorrectedWinRate(
        estimate=rate,
        interval=Interval(low, high, level),
        standard_error=_slope(centre) * error,
        log_odds_per_unit=float(theta[1]) if theta.size > 1 else None,
        tuning=tuning,
        labelled=int(sample.known.sum()),
        unlabelled=int((~sample.known).sum()),
        users=sample.units(),
        missing_verdicts=int(sample.missing.sum()),
        values=_values(sample, parts, centre, error),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Equations:
    """sum of weight x design x (p - target) = 0 over pairs, and over what is added."""

    weights: FloatArray
    pull: FloatArray  # what the weighted design times p must be in all

    def gap(self, design: FloatArray, rates: FloatArray) -> FloatArray:
        return np.asarray(design.T @ (self.weights * rates) - self.pull)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Pairs, and after them the four corners that are added.

    Attributes:
        design: Shape (n + 4, 1 or 2).
        labels: nan without one, shape (n + 4,).
        verdicts: Shape (n + 4,); the mean of the others where missing.
        known: Which pairs have a label, shape (n,).
        missing: Which pairs have no verdict, shape (n,).
        users: Code of each pair's user, shape (n,).
        counts: How often a row counts: 1, and a corner z^2 / 4 times.
    """

    design: FloatArray
    labels: FloatArray
    verdicts: FloatArray
    known: BoolArray
    missing: BoolArray
    users: Codes
    counts: FloatArray

    @classmethod
    def of(
        cls,
        labels: ArrayLike,
        verdicts: ArrayLike,
        length_difference: ArrayLike | None,
        clusters: ArrayLike | None,
        scale: float,
        level: float,
    ) -> _Sample:
        z = normal_quantile(level)
        y, f = unit_scores("labels", labels), unit_scores("verdicts", verdicts)
        check_one_length(y, f)
        known, missing = ~np.isnan(y), np.isnan(f)
        users = np.arange(y.size)
        if clusters is not None:
            groups = np.asarray(clusters).ravel()
            check_one_length(y, groups)
            users = np.unique(groups, return_inverse=True)[1].ravel()
        _enough(known, missing, users, by_user=clusters is not None)
        equal_missing(missing[known], missing[~known], "labelled pairs", "others")
        columns = [np.ones(y.size + 4)]
        if length_difference is not None:
            columns.append(np.append(_lengths(length_difference, y.size, scale), np.zeros(4)))
        return cls(
            design=np.column_stack(columns),
            labels=np.append(y, [one for one, _ in CORNERS]),
            verdicts=np.append(np.where(missing, f[~missing].mean(), f), [f for _, f in CORNERS]),
            known=known,
            missing=missing,
            users=np.asarray(users, dtype=np.intp),
            counts=np.append(np.ones(y.size), np.full(4, z * z / 4.0)),
        )

    @property
    def labelled(self) -> BoolArray:
        """Rows with a label: pairs, and all corners."""
        return ~np.isnan(self.labels)

    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Weight of each row among the labelled, and among the others."""
        one, two = self.counts * self.labelled, self.counts * ~self.labelled
        return one / one.sum(), two / two.sum()

    def verdicts_alone(self) -> _Equations:
        weights = self.counts / self.counts.sum()
        return _Equations(weights, self.design.T @ (weights * self.verdicts))

    def equations(self, tuning: float) -> _Equations:
        one, two = self.shares()
        target = np.where(self.labelled, self.labels - tuning * self.verdicts, 0.0)
        pull = self.design.T @ (one * target + tuning * two * self.verdicts)
        return _Equations((1.0 - tuning) * one + tuning * two, pull)

    def tuning(self, rates: FloatArray) -> float:
        """The lambda with the least variance of the first coefficient, cut to [0, 1]."""
        one, _ = self.shares()
        first = self.direction(rates, one)
        people = np.where(self.labelled, first * (rates - self.labels), 0.0)
        judge = first * (rates - self.verdicts)
        people, seen = people - one @ people, judge - one @ judge
        variance = float(self.counts @ (judge - np.average(judge, weights=self.counts)) ** 2)
        variance /= float(self.counts.sum())
        ratio = float(self.counts[self.labelled].sum() / self.counts[~self.labelled].sum())
        if variance <= 0.0:
            return 0.0
        return min(1.0, max(0.0, float(one @ (people * seen)) / ((1.0 + ratio) * variance)))

    def direction(self, rates: FloatArray, weights: FloatArray) -> FloatArray:
        """What each row's residual moves the first coefficient by, its weight apart."""
        slopes = weights * rates * (1.0 - rates)
        hessian = self.design.T @ (self.design * slopes[:, np.newaxis])
        return np.asarray(self.design @ np.linalg.inv(hessian)[0])

    def contributions(self, theta: FloatArray, tuning: float) -> FloatArray:
        """What each row moves the first coefficient by; labelled and others each sum to 0."""
        one, two = self.shares()
        rates = special.expit(self.design @ theta)
        weights = self.equations(tuning).weights
        first = self.direction(rates, weights)
        slopes = rates * (1.0 - rates)
        bread = np.linalg.inv(self.design.T @ (self.design * (weights * slopes)[:, np.newaxis]))
        reach = slopes * np.einsum("ij,jk,ik->i", self.design, bread, self.design)
        people = (rates - np.where(self.labelled, self.labels, 0.0)) - tuning * (
            rates - self.verdicts
        )
        judge = tuning * (rates - self.verdicts)
        parts = np.zeros(rates.size)
        for share, residuals in ((one, people), (two, judge)):
            within = share > 0.0
            at_most = 1.0 / float(self.counts[within].sum())
            scores = first * residuals / np.maximum(1.0 - at_most * reach, 0.5)
            scores = np.where(within, scores - share @ scores, 0.0)
            parts -= share * scores
        return parts

    def error(self, parts: FloatArray) -> float:
        """Standard error of the first coefficient, by user."""
        size = self.known.size
        sums = np.bincount(self.users, parts[:size])
        units = self.units()
        corners = parts[size:] ** 2 / self.counts[size:]
        repeated = units < int(self.known.sum())
        few = units / (units - 1.0) if repeated else 1.0
        return math.sqrt(few * float(sums @ sums) + float(corners.sum()))

    def units(self) -> int:
        """Users, or pairs, with a label."""
        return int(np.unique(self.users[self.known]).size)

    def freedom(self) -> float:
        sizes = np.bincount(self.users[self.known]).astype(np.float64)
        return float(sizes.sum() ** 2 / (sizes @ sizes)) - float(self.design.shape[1])


def _fit(sample: _Sample) -> tuple[FloatArray, float]:
    """The coefficients, and the lambda that is best at those of the round before."""
    tuning = 0.0
    theta = _solve(sample, sample.verdicts_alone())
    for _ in range(2):
        tuning = sample.tuning(special.expit(sample.design @ theta))
        theta = _solve(sample, sample.equations(tuning))
    return theta, tuning


def _solve(sample: _Sample, equations: _Equations) -> FloatArray:
    theta = np.zeros(sample.design.shape[1])
    for _ in range(ITERATIONS):
        rates = special.expit(sample.design @ theta)
        slopes = equations.weights * rates * (1.0 - rates)
        hessian = sample.design.T @ (sample.design * slopes[:, np.newaxis])
        if not np.linalg.cond(hessian) < 1e12:
            break
        step = np.linalg.solve(hessian, equations.gap(sample.design, rates))
        largest = float(np.abs(step).max())
        theta = theta - step * (LONGEST_STEP / max(largest, LONGEST_STEP))
        if largest < 1e-10:
            return theta
    raise InsufficientDataError(
        f"a corrected win rate must be inside (0, 1) with a finite effect of length, got none from "
        f"{int(sample.known.sum())} labels: length separates them, since the better answers are "
        "always the longer or always the shorter ones, or judge and people say too different "
        "things; add pairs in which they are not, or label more"
    )


def _values(sample: _Sample, parts: FloatArray, centre: float, error: float) -> FloatArray:
    """What each pair says of the rate, as wide as the estimate with its few labels."""
    scored = ~sample.missing
    values = np.full(scored.size, np.nan)
    own = parts[: scored.size][scored] * scored.size
    own = own - own.mean()
    estimate = float(special.expit(centre))
    if not np.ptp(own):
        values[scored] = estimate
        return values
    users = sample.users[scored]
    sizes = np.bincount(users).astype(np.float64)
    there = float(sizes.sum() ** 2 / (sizes @ sizes)) - 1.0
    few, many = special.stdtrit([sample.freedom(), there], 1.0 - GATE_LEVEL)
    wanted = _slope(centre) * error * float(few / many)
    values[scored] = estimate + own * wanted / paired_mean_test(own, clusters=users).standard_error
    return values


def _slope(centre: float) -> float:
    """Rate over log odds, both from 0.5 and 0 on, so that a test against 0.5 is that of a."""
    if abs(centre) < 1e-6:
        return 0.25
    return float(special.expit(centre) - 0.5) / centre


def _enough(known: BoolArray, missing: BoolArray, users: Codes, *, by_user: bool) -> None:
    count, units = int(known.sum()), int(np.unique(users[known]).size)
    if count < FEWEST_LABELS or count == known.size or missing.all():
        raise InsufficientDataError(
            f"a corrected win rate needs {FEWEST_LABELS} labelled pairs, others and a verdict, got "
            f"{count} labelled of {known.size} and {int((~missing).sum())} verdicts; label more, "
            "or take length_controlled_win_rate of the labels if all have one"
        )
    if by_user and units < FEWEST_USERS:
        raise InsufficientDataError(
            f"a corrected win rate needs labels on pairs of {FEWEST_USERS} users, got {units}; "
            "label pairs of more users"
        )


def _lengths(values: ArrayLike, size: int, scale: float) -> FloatArray:
    lengths = np.asarray(values, dtype=np.float64).ravel()
    if lengths.size != size or not np.isfinite(lengths).all():
        raise InvalidInputError(
            f"length differences must be finite, one for each of {size} pairs, got {lengths.size} "
            f"and {int((~np.isfinite(lengths)).sum())} that are not; leave out pairs without "
            "answers"
        )
    require(
        scale > 0.0 and math.isfinite(scale),
        f"scale must be above 0, got {scale}; pass 1 as AlpacaEval does",
    )
    return np.asarray(np.tanh(lengths / (scale * length_deviation(lengths))))
