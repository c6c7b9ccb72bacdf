"""Ratings of several raters: their result, and the checks and limits that all coefficients share.

Labels are compared as they are: 1 and "1" are two labels. Two raters who speak of different labels
are refused, because a coefficient between them is a number that means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.intervals import Interval, checked_level

Label = Hashable
Labels = Sequence[Label] | NDArray[Any]
Ratings = Sequence[Sequence[Label]] | NDArray[Any]
FEWEST_ITEMS = 2
FEWEST_RESAMPLES = 100
RATERS_PER_ITEM = 2
"""From this many raters an item on, the rows are taken for raters."""
LABELS_IN_A_MESSAGE = 10
ZERO = 1e-12


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient of agreement; undefined is no value and a reason, never a number.

    Attributes:
        value: The coefficient, at most 1, or None where it is undefined.
        standard_error: Its asymptotic standard error, None where there is none. It is 0 where the
            ratings leave no room for one (agreement on everything); the interval is not.
        interval: Confidence interval, not above 1; None where it is unknown.
        reason: Why the coefficient is undefined, else None.
        items: Items that the observed agreement rests on.
        observed_agreement: Observed share of agreement, weighted where the coefficient is.
        expected_agreement: The same by chance, as the coefficient understands chance.
        null_standard_error: Standard error if the coefficient were 0, for the test.
        z: The coefficient over `null_standard_error`.
    """

    value: float | None
    standard_error: float | None
    interval: Interval | None
    reason: str | None
    items: int
    observed_agreement: float | None = None
    expected_agreement: float | None = None
    null_standard_error: float | None = None
    z: float | None = None

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of no agreement beyond chance; None where there is no test of it."""
        return None if self.z is None else float(2.0 * special.ndtr(-abs(self.z)))


def undefined(
    reason: str, items: int, observed: float | None = None, expected: float | None = None
) -> Agreement:
    """A coefficient that is not defined, and why.

    Args:
        reason: The rule, what was received and the way out.
        items: Items with ratings that can be compared.
        observed: Observed share of agreement, where there is one.
        expected: Expected share of agreement, where there is one.
    """
    return Agreement(None, None, None, reason, items, observed, expected)


def chance_corrected_limits(
    observed: float, expected: float, items: float, z: float
) -> tuple[float, float]:
    """Score limits of an agreement, each corrected for chance.

    (L - pe) / (1 - pe) for the Wilson limits L of the observed agreement, pe taken as known.

    Args:
        observed: Observed agreement in [0, 1].
        expected: Expected agreement pe, below 1.
        items: Number of independent items, not necessarily whole.
        z: Normal quantile of the limits.

    Example:
        >>> lower, upper = chance_corrected_limits(1.0, 0.5, 30, 1.96)
        >>> round(lower, 3), upper
        (0.773, 1.0)
    """
    if min(abs(observed), abs(1.0 - observed)) <= ZERO:
        observed = float(round(observed))
    centre = (observed + z * z / (2.0 * items)) / (1.0 + z * z / items)
    root = math.sqrt(observed * (1.0 - observed) / items + (z / (2.0 * items)) ** 2)
    half = z * root / (1.0 + z * z / items)
    # at both ends of the scale one limit is the end itself, free of rounding
    lower = centre - half if observed > 0.0 else 0.0
    upper = centre + half if observed < 1.0 else 1.0
    return (lower - expected) / (1.0 - expected), (upper - expected) / (1.0 - expected)


def is_missing(label: object) -> bool:
    """Whether a label stands for no rating: None or NaN."""
    return label is None or label != label


def refuse_foreign_labels(
    first: Iterable[Label], second: Iterable[Label], *, declared: bool
) -> None:
    """Refuse two raters whose labels are not of one set.

    Disjoint sets always; sets of which neither holds the other unless a list of categories
    declares them to be one scale. The second is what labels 1 and 2 against 0 and 1 look like.

    Args:
        first: Labels of the first rater.
        second: Labels of the second rater.
        declared: Whether the caller named all categories.

    Raises:
        InvalidInputError: The sets do not match.
    """
    ones, others = set(first), set(second)
    one_holds_the_other = ones <= others or others <= ones
    if ones and others and (ones.isdisjoint(others) or not (declared or one_holds_the_other)):
        way_out = "recode one of them"
        if not ones.isdisjoint(others):
            way_out += ", or pass categories if all of these belong to one scale"
        raise InvalidInputError(
            f"raters must use one set of labels, got {_named(ones)} and {_named(others)}; {way_out}"
        )


def check_categories(categories: Sequence[Label], labels: set[Label]) -> None:
    """Refuse categories that repeat or leave out a label.

    Raises:
        InvalidInputError: A category occurs twice, or a label is not among them.
    """
    if len(set(categories)) != len(categories):
        raise InvalidInputError(
            f"each category must be named once, got {list(categories)}; leave out the repeats"
        )
    unknown = labels - set(categories)
    if unknown:
        raise InvalidInputError(
            f"labels must be among the categories {list(categories)}, got {_named(unknown)}; add "
            "them or recode"
        )


def _named(labels: set[Label]) -> str:
    names = sorted(map(repr, labels))
    more = len(names) - LABELS_IN_A_MESSAGE
    names = names[:LABELS_IN_A_MESSAGE] + ([f"and {more} more"] if more > 0 else [])
    return f"[{', '.join(names)}]"


def rating_matrix(ratings: Ratings) -> NDArray[np.object_]:
    """Ratings as an array of shape (items, raters).

    Args:
        ratings: Labels; None or NaN is no rating.

    Raises:
        InvalidInputError: They have another shape, or so many more columns than rows that they have
            a row for each rater.
    """
    matrix = np.asarray(ratings, dtype=object)
    if matrix.ndim != 2:
        raise InvalidInputError(
            f"ratings must have shape (items, raters), got {matrix.shape}; pass None where a "
            "rating is missing, so that all rows are equally long"
        )
    items, raters = matrix.shape
    if items >= FEWEST_ITEMS and raters >= RATERS_PER_ITEM * items:
        raise InvalidInputError(
            f"ratings must have shape (items, raters), a row for each item, got {items} rows of "
            f"{raters}, as if raters were rows; pass list(zip(*ratings)), or ratings.T of an array"
        )
    return matrix


def draw_items(
    items: FloatArray, *, rng: np.random.Generator, resamples: int
) -> tuple[FloatArray, FloatArray]:
    """Draw items with replacement, as many as there are.

    Equal items are one row of the result, so that the draws cost little where labels are few and
    do not depend on the order of the items.

    Args:
        items: One row an item, shape (items, columns).
        rng: Generator of the draws.
        resamples: Number of resamples.

    Returns:
        The distinct rows, and how often each is drawn, shape (resamples, distinct rows).
    """
    distinct, times = np.unique(items, axis=0, return_counts=True)
    drawn = rng.multinomial(items.shape[0], times / items.shape[0], size=resamples)
    return distinct, drawn.astype(np.float64)


def percentile_interval(resampled: FloatArray, level: float) -> Interval:
    """Quantiles of a statistic over resamples; an undefined one counts against both ends.

    Args:
        resampled: The statistic of each resample, shape (resamples,), NaN where undefined.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: The resamples do not vary, or an end is undefined.
    """
    defined = resampled[np.isfinite(resampled)]
    if defined.size == 0 or np.ptp(defined) <= ZERO:
        raise InsufficientDataError(
            f"a bootstrap needs resamples that differ, got {defined.size} defined ones that are "
            "equal; collect more items, or others"
        )
    tail = (1.0 - level) / 2.0
    low, high = (np.where(np.isfinite(resampled), resampled, end) for end in (-np.inf, np.inf))
    lower = float(np.quantile(low, tail, method="inverted_cdf"))
    upper = float(np.quantile(high, 1.0 - tail, method="inverted_cdf"))
    if not (math.isfinite(lower) and math.isfinite(upper)):
        raise InsufficientDataError(
            f"a bootstrap needs resamples with two labels, got {resampled.size - defined.size} of "
            f"{resampled.size} without; collect more items of the rarer label"
        )
    return Interval(lower, upper, level)


def check_bootstrap(level: float, resamples: int) -> None:
    """Refuse a level outside (0, 1) and too few resamples.

    Raises:
        InvalidInputError: One of them is out of range.
    """
    checked_level(level)
    if resamples < FEWEST_RESAMPLES:
        raise InvalidInputError(
            f"resamples must be at least {FEWEST_RESAMPLES}, got {resamples}; pass 5000"
        )
