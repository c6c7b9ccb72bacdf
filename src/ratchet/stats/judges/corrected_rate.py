"""Rates from many verdicts of a judge, corrected by few labels of people.

A judge that passes too much has a narrow interval around a wrong rate; more verdicts make it
narrower, not less wrong. Labels of people on a random part of the examples say how wrong it is;
they count as the truth.

`prediction_powered_rate` corrects a rate by labels of a random part of the rated examples,
whatever the judge errs by; `labels_needed` plans more labels.

A verdict or label is a number in [0, 1]: 1 a pass or win, 0 a failure or loss, 0.5 a tie. NaN is a
verdict or label that there is not; it is counted and never becomes 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import check_one_length, normal_quantile, require, unit_scores
from ratchet.stats.intervals import Interval
from ratchet.stats.judges.verdicts import equal_missing

FEWEST_LABELS = 10
RATE_CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


@dataclass(frozen=True, slots=True)
class CorrectedEstimate:
    """A rate from labels and verdicts.

    Attributes:
        estimate: Prediction-powered estimate.
        interval: Its confidence interval.
        human_estimate: Mean of the labels alone.
        human_interval: Interval from the labels alone, by the same formula without verdicts.
        judge_estimate: Mean of all verdicts, uncorrected; for comparison only.
        tuning: Weight lambda of the verdicts in [0, 1]; 0 means that they are no help.
        standard_error: Standard error that the interval rests on.
        label_variance: Variance of labels that the interval rests on.
        correlation: Correlation of label and verdict that the interval rests on.
        effective_labels: Labels that would give as narrow an interval without verdicts.
        labelled: Examples with a label.
        unlabelled: Examples with none.
        missing_verdicts: Examples without a verdict, labelled or not.
        left_out_labels: Labels not used because the other system's example has none.
    """

    estimate: float
    interval: Interval
    human_estimate: float
    human_interval: Interval
    judge_estimate: float
    tuning: float
    standard_error: float
    label_variance: float
    correlation: float
    effective_labels: float
    labelled: int
    unlabelled: int
    missing_verdicts: int
    left_out_labels: int


@dataclass(frozen=True, slots=True)
class LabelsNeeded:
    """How many more labels would show on which side of a threshold an estimate lies.

    Attributes:
        more_labels: Labels to add; 0 if that is shown, None if labels alone cannot show it.
        reason: Why, in words.
    """

    more_labels: int | None
    reason: str


class _Sample(NamedTuple):
    """Labels and verdicts of the labelled examples, verdicts of the others; none missing."""

    labels: FloatArray
    verdicts: FloatArray
    others: FloatArray
    missing_verdicts: int
    left_out_labels: int


class _Moments(NamedTuple):
    label_mean: float
    label_variance: float
    covariance: float
    verdict_mean: float
    verdict_variance: float
    pooled_variance: float
    size: float


def prediction_powered_rate(
    labels: ArrayLike, verdicts: ArrayLike, *, level: float = 0.95
) -> CorrectedEstimate:
    """Pass or win rate from verdicts on all examples and labels on a random part of them.

    Mean of the labels plus lambda times (mean verdict without a label minus mean verdict with one),
    lambda = cov(label, verdict) / ((1 + n / N) var(verdict)) cut to [0, 1], for n labelled and N
    other examples. A useless judge gets lambda 0 and costs nothing; a perfect one makes n labels
    worth up to n + N. The interval is the estimate +- t(n - 1) standard errors after z^2 / 4
    observations have been added to each corner of the table of label by verdict, cut to [0, 1], as
    Agresti and Coull do for one share: without them, labels that the judge happens to match give
    an interval of next to no width.

    A missing verdict is given the mean of the others. Whatever made it missing, this biases
    nothing, as the labelled examples miss as many; the interval is wider.

    Units: shares in [0, 1].
    Assumptions: the labelled examples are a random part of all, whatever their verdict or
    difficulty; independent examples, their number fixed. The judge may err as it likes.
    Error rate: approximate. At level 0.95 with 10 to 200 labels, 500 to 20,000 others, rates 0.3 to
    0.95 and judges from useless to nearly perfect, it covers in 0.93 to 1.0 of samples: below 0.94
    only for judges that never fail a pass and pass 30 to 70 % of failures, far above the level for
    few labels and a good judge. Wilson's interval of the verdicts covers in 0 to 0.8 over a grid of
    judges with sensitivity and specificity from 0.6 to 0.95 (10,000 verdicts). The published
    interval, without the corners, covers in 0.49 with 50 labels, 5,000 others, a rate of 0.95 and a
    judge that passes all passes and 20 % of failures.
    When not to use: where people chose what to label (doubtful or reported cases): take
    label a random part; for several looks; where few users make most examples.

    Args:
        labels: Label of each example in [0, 1], NaN for none, shape (n + N,).
        verdicts: Verdict of the judge on each in [0, 1], NaN for none, shape (n + N,).
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Fewer than 10 labels, no example without a label, or no verdict.
        InvalidInputError: A value is out of range, lengths differ, or verdicts are missing more
            often with a label than without (Fisher's exact test, p < 0.001), which a random choice
            of labelled examples does in one case of 1,000.

    Example:
        >>> labels = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0] + [math.nan] * 90
        >>> verdicts = [1, 1, 1, 1, 1, 1, 1, 0, 0, 0] + [1] * 72 + [0] * 18
        >>> result = prediction_powered_rate(labels, verdicts)
        >>> round(result.judge_estimate, 2), result.human_estimate, round(result.estimate, 2)
        (0.79, 0.6, 0.7)

    References:
        Angelopoulos, A. N., Bates, S., Fannjiang, C., Jordan, M. I., Zrnic, T. (2023). Prediction-
        powered inference. Science 382, 669-674. Angelopoulos, A. N., Duchi, J. C., Zrnic, T.
        (2024). PPI++: efficient prediction-powered inference. arXiv:2311.01453. Agresti, A.,
        Coull, B. A. (1998). Approximate is better than "exact". Am. Statistician 52, 119-126.
    """
    z = normal_quantile(level)
    known, rated = unit_scores("labels", labels), unit_scores("verdicts", verdicts)
    check_one_length(known, rated)
    return _estimate(_split(known, rated, 0), RATE_CORNERS, z, level)


def labels_needed(
    result: CorrectedEstimate, threshold: float, *, power: float = 0.8
) -> LabelsNeeded:
    """How many more labels would show on which side of a threshold the rate lies.

    The smallest number m of labels among all T examples with
    (z_level + z_power)^2 s^2 ((1 - r^2) / m + r^2 / T) <= (estimate - threshold)^2, s^2 the
    variance of labels and r their correlation with verdicts; minus the labels there are. At m = T
    all examples are labelled and verdicts no longer count.

    Units: labels.
    Assumptions: the true rate is the estimate, s and r stay as they are, new labels go to a random
    part of the examples without one, and the next look is planned as the only one.
    Error rate: the next interval excludes the threshold with probability about `power`, if the
    assumptions hold; the estimate is itself uncertain, so that few labels give a rough number.
    When not to use: to label on until the interval excludes the threshold; each look at the data
    spends error (`ratchet.stats.experiments.confidence_sequences`).

    Args:
        result: Rate or paired difference so far.
        threshold: Rate, or difference, to decide about.
        power: Chance in (0, 1) that the next interval shows it.

    Raises:
        InvalidInputError: `power` or `threshold` is out of range.

    Example:
        >>> labels = [1] * 12 + [0] * 8 + [math.nan] * 980
        >>> verdicts = [1] * 10 + [0] * 10 + [1] * 500 + [0] * 480
        >>> labels_needed(prediction_powered_rate(labels, verdicts), 0.5).more_labels
        79

    References:
        Angelopoulos, Duchi and Zrnic (2024), for the variance at the best lambda.
    """
    require(
        0.0 < power < 1.0,
        f"power must be in (0, 1), got {power}; pass 0.8 for 80 %",
    )
    require(
        -1.0 <= threshold <= 1.0,
        f"threshold must be in [-1, 1], got {threshold}; pass a share",
    )
    if threshold not in result.interval:
        return LabelsNeeded(0, "the interval excludes the threshold already")
    gap, total = abs(result.estimate - threshold), result.labelled + result.unlabelled
    reach = normal_quantile(result.interval.level) + float(special.ndtri(power))
    if gap == 0.0 or reach <= 0.0:
        return LabelsNeeded(
            None,
            "the estimate is at the threshold; no number of labels shows on which side it lies",
        )
    shared = result.correlation**2
    left = (gap / reach) ** 2 / result.label_variance - shared / total
    if left * total < 1.0 - shared:
        return LabelsNeeded(
            None, f"labels on all {total} examples would not show it; collect more examples"
        )
    needed = math.ceil((1.0 - shared) / left)
    more = min(max(1, needed - result.labelled), result.unlabelled)
    return LabelsNeeded(more, f"{result.labelled + more} labels in all, of {total} examples")


def _estimate(sample: _Sample, corners: FloatArray, z: float, level: float) -> CorrectedEstimate:
    """Prediction-powered estimate; `corners` are the label and verdict of added observations."""
    plain = _moments(sample, corners, 0.0)
    padded = _moments(sample, corners, z * z)
    tuning, used = _tuning(plain, sample.others.size), _tuning(padded, sample.others.size)
    low, high = float(corners.min()), float(corners.max())
    mean = float(sample.others.mean())
    error, human_error = _error(padded, used, sample.others.size), _error(padded, 0.0, 1)
    t = float(special.stdtrit(sample.labels.size - 1, (1.0 + level) / 2.0))
    centre = padded.label_mean + used * (mean - padded.verdict_mean)
    estimate = plain.label_mean + tuning * (mean - plain.verdict_mean)
    spreads = math.sqrt(padded.label_variance * padded.verdict_variance)
    return CorrectedEstimate(
        estimate=min(high, max(low, estimate)),
        interval=_cut(centre, t * error, low, high, level),
        human_estimate=plain.label_mean,
        human_interval=_cut(padded.label_mean, t * human_error, low, high, level),
        judge_estimate=float(np.concatenate((sample.verdicts, sample.others)).mean()),
        tuning=tuning,
        standard_error=error,
        label_variance=padded.label_variance,
        correlation=padded.covariance / spreads,
        effective_labels=sample.labels.size * (human_error / error) ** 2,
        labelled=sample.labels.size,
        unlabelled=sample.others.size,
        missing_verdicts=sample.missing_verdicts,
        left_out_labels=sample.left_out_labels,
    )


def _moments(sample: _Sample, corners: FloatArray, added: float) -> _Moments:
    """Moments of labels and verdicts with `added` observations spread over the corners."""
    y = np.concatenate((sample.labels, corners[:, 0]))
    f = np.concatenate((sample.verdicts, corners[:, 1]))
    extra = np.full(len(corners), added / len(corners))
    weight = np.concatenate((np.ones(sample.labels.size), extra))
    size = float(weight.sum())
    y_mean, f_mean = float(weight @ y) / size, float(weight @ f) / size
    others, count = sample.others, size + sample.others.size
    middle = (float(weight @ f) + float(others.sum())) / count
    squares = float(weight @ (f - middle) ** 2) + float(((others - middle) ** 2).sum())
    return _Moments(
        label_mean=y_mean,
        label_variance=float(weight @ (y - y_mean) ** 2) / (size - 1.0),
        covariance=float(weight @ ((y - y_mean) * (f - f_mean))) / (size - 1.0),
        verdict_mean=f_mean,
        verdict_variance=float(weight @ (f - f_mean) ** 2) / (size - 1.0),
        pooled_variance=squares / (count - 1.0),
        size=size,
    )


def _tuning(moments: _Moments, others: int) -> float:
    if moments.pooled_variance <= 0.0:
        return 0.0
    best = moments.covariance / ((1.0 + moments.size / others) * moments.pooled_variance)
    return min(1.0, max(0.0, best))


def _error(moments: _Moments, tuning: float, others: int) -> float:
    residual = moments.label_variance - 2.0 * tuning * moments.covariance
    residual += tuning**2 * moments.verdict_variance
    return math.sqrt(tuning**2 * moments.pooled_variance / others + residual / moments.size)


def _cut(centre: float, half: float, low: float, high: float, level: float) -> Interval:
    return Interval(min(high, max(low, centre - half)), max(low, min(high, centre + half)), level)


def _split(labels: FloatArray, verdicts: FloatArray, alone: int) -> _Sample:
    """Labelled and other examples, each missing verdict replaced by the mean of the others."""
    known, missing = ~np.isnan(labels), np.isnan(verdicts)
    count, rated = int(known.sum()), int((~missing).sum())
    if count < FEWEST_LABELS or count == labels.size or rated == 0:
        raise InsufficientDataError(
            f"a corrected rate needs {FEWEST_LABELS} labelled examples, others and a verdict, got "
            f"{count} labelled of {labels.size} and {rated} verdicts; label more, or take the "
            "interval of a mean if all have a label"
        )
    equal_missing(missing[known], missing[~known], "labelled examples", "others")
    filled = np.where(missing, verdicts[~missing].mean(), verdicts)
    return _Sample(labels[known], filled[known], filled[~known], labels.size - rated, alone)
