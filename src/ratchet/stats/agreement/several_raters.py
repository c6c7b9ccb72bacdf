"""Agreement of several raters, with missing ratings: Fleiss, Gwet, Krippendorff.

The independent unit is the item: standard errors and bootstrap intervals are over items. All are
public in `ratchet.stats.agreement`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.agreement.ratings import (
    FEWEST_ITEMS,
    ZERO,
    Agreement,
    Label,
    Ratings,
    chance_corrected_limits,
    check_bootstrap,
    check_categories,
    draw_items,
    is_missing,
    percentile_interval,
    rating_matrix,
    refuse_foreign_labels,
    undefined,
)
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import checked_level, normal_quantile, require
from ratchet.stats.intervals import Interval

Metric = Literal["nominal", "ordinal", "interval", "ratio"]
ALL_EQUAL = (
    "alpha needs ratings that differ, got the same for everything; whether the raters could tell "
    "items apart is unknown: add items of other kinds"
)


def fleiss_kappa(counts: ArrayLike, *, level: float = 0.95) -> Agreement:
    """Fleiss' kappa: agreement of several raters, each item rated equally often.

    (P - Pe) / (1 - Pe), P the share of agreeing pairs within items and Pe = sum p_j^2 over the
    shares p_j of all ratings. The test's standard error is that of Fleiss, Nee and Landis for
    kappa = 0; the interval's is Gwet's, over items, with Student's t (items - 1). Where that is 0
    (agreement on everything) the interval is Wilson's of P over items, corrected for chance.

    Units: counts in, a coefficient of at most 1 out.
    Assumptions: independent items; who rates may differ from item to item.
    Error rate: asymptotic in items. Coverage at level 0.95 (simulation, two labels, two ratings):
    0.91 or more for labels of at least 20 %, with 100 items for kappa from 0 to 0.6 and 300 for
    kappa 0.9; 0.93 to 0.95 there with five ratings. Elsewhere less: at kappa 0.9 and even labels
    0.88 with 100 items; with a label of 5 % at kappa 0.6 0.88 with 100 and 0.93 with 300, at kappa
    0 0.23 and 0.53 (the interval then lies just below 0; `z` does not err so).
    When not to use: where ratings are missing (`krippendorff_alpha`, `gwet_ac1`); for two fixed
    raters with marginals of their own (`cohen_kappa`); for very uneven labels (`gwet_ac1`).

    Args:
        counts: How many ratings of each item name each category, shape (items, categories); each
            row sums to the number of ratings.
        level: Nominal coverage in (0, 1).

    Returns:
        Kappa; undefined with the reason for fewer than two items or ratings of each, or one label
        for everything.

    Raises:
        InvalidInputError: These are not counts, items differ in their number of ratings, or the
            level is out of range.

    Example:
        >>> result = fleiss_kappa([[3, 0], [1, 2], [0, 3]])
        >>> round(result.value, 3), round(result.z, 2)
        (0.55, 1.65)

    References:
        Fleiss, J. L. (1971). Measuring nominal scale agreement among many raters. Psychological
        Bulletin 76, 378-382. Fleiss, J. L., Nee, J. C. M., Landis, J. R. (1979). Large sample
        variance of kappa in the case of different sets of raters. Psychological Bulletin 86,
        974-977. Gwet, K. L. (2014). Handbook of Inter-Rater Reliability, 4th ed., chapter 5.
    """
    checked_level(level)
    table, items, raters = _equal_counts(counts)
    if items < FEWEST_ITEMS or raters < 2:
        return undefined(
            f"kappa needs at least 2 items with two ratings, got {items} with {raters}; collect "
            "more",
            items,
        )
    shares = table.sum(axis=0) / table.sum()
    expected = float(shares @ shares)
    if 1.0 - expected <= ZERO:
        reason = (
            "kappa needs two labels among the ratings, got one for everything; report the share of "
            "agreement, or gwet_ac1 with its categories"
        )
        return undefined(reason, items, 1.0, 1.0)
    both = float(shares @ (1.0 - shares))
    skew = float((shares * (1.0 - shares)) @ (1.0 - 2.0 * shares))
    null_error = math.sqrt(2.0 * (both**2 - skew) / (items * raters * (raters - 1))) / both
    return _over_items(table, expected, table @ shares / raters, level, null_error)


def gwet_ac1(
    ratings: Ratings, *, categories: Sequence[Label] | None = None, level: float = 0.95
) -> Agreement:
    """Gwet's AC1: agreement beyond chance that stays defined when one label dominates.

    (P - Pe) / (1 - Pe) with Pe = sum p_j (1 - p_j) / (q - 1) over q categories, p_j the mean share
    of label j over items; P over items with at least two ratings. The standard error is over
    items, the interval uses Student's t (items - 1); where the error is 0 (agreement on everything)
    it is Wilson's of P over items, corrected for chance.

    Units: labels in, a coefficient of at most 1 out; `items` are those with two ratings.
    Assumptions: independent items; ratings missing at random. Chance is taken to strike only items
    that are hard to rate.
    Error rate: asymptotic in items. Coverage at level 0.95 in the simulation of `fleiss_kappa`:
    0.92 or more for labels of at least 20 %, with 100 items for kappa from 0 to 0.6 and 300 for
    kappa 0.9; with a label of 5 % 0.90 to 0.91 with 100 items and 0.93 to 0.94 with 300. At kappa
    0.9 and even labels 0.87 with 100.
    When not to use: as the only figure: with a rare label it is high for two raters who never agree
    on that label. Report it beside kappa.

    Args:
        ratings: Labels, shape (items, raters), None or NaN where missing.
        categories: All labels that could be given; otherwise those that occur. Their number enters
            the coefficient.
        level: Nominal coverage in (0, 1).

    Returns:
        AC1; undefined with the reason for fewer than two items with two ratings, or one category.

    Raises:
        InvalidInputError: A label is not in `categories`, raters use different labels, the shape
            is another, or the level is out of range.

    Example:
        >>> ratings = [["ok", "ok"]] * 18 + [["ok", "bad"], ["bad", "ok"]]
        >>> round(gwet_ac1(ratings).value, 3)
        0.89

    References:
        Gwet, K. L. (2008). Computing inter-rater reliability and its variance in the presence of
        high agreement. British Journal of Mathematical and Statistical Psychology 61, 29-48.
    """
    checked_level(level)
    rows = rating_matrix(ratings).tolist()
    counts, names = _label_counts(rows, categories)
    each = counts.sum(axis=1)
    pairable = int((each >= 2.0).sum())
    if pairable < FEWEST_ITEMS:
        return undefined(_few_pairs(pairable), pairable)
    _refuse_foreign_raters(rows, declared=categories is not None)
    kinds = len(names)
    if kinds < 2:
        return undefined(
            "AC1 needs at least 2 categories, got 1; pass categories with those nobody chose",
            pairable,
            1.0,
        )
    shares = (counts / each[:, np.newaxis]).mean(axis=0)
    expected = float(shares @ (1.0 - shares)) / (kinds - 1)
    by_item = counts @ (1.0 - shares) / each / (kinds - 1)
    return _over_items(counts, expected, by_item, level)


def krippendorff_alpha(
    ratings: Ratings,
    *,
    metric: Metric,
    categories: Sequence[Label] | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    resamples: int = 2_000,
) -> Agreement:
    """Krippendorff's alpha: reliability of any number of raters, with missing ratings.

    1 - Do / De, the mean squared difference of ratings within units over that of all pairable
    ratings. Differences: 0 or 1 (nominal), of mid-ranks among all ratings (ordinal), of values
    (interval), of values over their sum (ratio). Units with one rating do not count.

    The interval is the percentile bootstrap over units with two ratings, given a generator; a
    resample in which alpha is undefined counts against both ends. There is none without a
    generator, if resamples do not vary, or if so many are undefined that an end is.

    Units: labels or numbers in, a coefficient of at most 1 out; `items` are units with two ratings,
    the observed and expected agreement 1 - Do and 1 - De ("nominal" alone).
    Assumptions: ratings missing at random; for the interval, independent units, about 50 or more.
    Error rate: approximate. Coverage at level 0.95 in the simulation of `fleiss_kappa`: at least
    0.93 for labels of at least 20 %, with 100 units for alpha from 0 to 0.6 and 300 for 0.9. With a
    label of 5 % at alpha 0.6 0.94 with 100 units, a tenth of samples without an interval, and 0.95
    with 300; at alpha 0 0.26 and 0.52 (the interval then lies just below 0).
    When not to use: as proof of reliability where nearly everything has one label: a few ratings
    then decide. To measure by order or distance what has none.

    Args:
        ratings: Labels, shape (units, raters) as for `gwet_ac1`, None or NaN where missing; numbers
            for "interval" and, not negative, for "ratio".
        metric: "nominal", "ordinal", "interval" or "ratio".
        categories: Labels in their order, for "ordinal" labels that are not numbers.
        level: Nominal coverage of the interval in (0, 1).
        rng: Generator of the resamples; without it there is no interval.
        resamples: Number of resamples, at least 100.

    Returns:
        Alpha; undefined with the reason for fewer than two units with two ratings, or if all of
        their ratings are equal.

    Raises:
        InvalidInputError: The metric is unknown or does not fit the labels, a label is not in
            `categories`, raters use different labels ("nominal"), the shape is another, or an
            argument is out of range.

    Example:
        >>> ratings = [[1, 1, None], [2, 2, 3], [3, 3, 3], [2, 2, 2], [None, 4, None]]
        >>> result = krippendorff_alpha(ratings, metric="ordinal")
        >>> round(result.value, 3), result.items
        (0.805, 4)

    References:
        Krippendorff, K. (2011). Computing Krippendorff's alpha-reliability. Krippendorff, K.
        (2004). Content Analysis, 2nd ed., chapter 11. Zapf, A., Castell, S., Morawietz, L., Karch,
        A. (2016). Measuring inter-rater reliability for nominal data: which coefficients and
        confidence intervals are appropriate? BMC Medical Research Methodology 16, 93.
    """
    check_bootstrap(level, resamples)
    _check_metric(metric)
    rows = rating_matrix(ratings).tolist()
    counts, names = _label_counts(rows, categories)
    counts = counts[counts.sum(axis=1) >= 2.0]
    if len(counts) < FEWEST_ITEMS:
        return undefined(_few_pairs(len(counts)), len(counts))
    if metric == "nominal":
        _refuse_foreign_raters(rows, declared=categories is not None)
    values = _values(names, metric, declared=categories is not None)
    order = np.argsort(values)
    counts, values = counts[:, order], values[order]
    observed, expected = _disagreements(counts, values, metric, np.ones(len(counts)))
    shares = (1.0 - observed, 1.0 - expected) if metric == "nominal" else (None, None)
    if expected <= 0.0:
        return undefined(ALL_EQUAL, len(counts), *shares)
    interval = None if rng is None else _bootstrap(counts, values, metric, rng, level, resamples)
    return Agreement(1.0 - observed / expected, None, interval, None, len(counts), *shares)


def _check_metric(metric: str) -> None:
    if metric not in get_args(Metric):
        raise InvalidInputError(
            f'metric must be one of {get_args(Metric)}, got {metric!r}; pass "nominal" for labels '
            "without an order"
        )


def _equal_counts(counts: ArrayLike) -> tuple[FloatArray, int, int]:
    """The table, its number of items and the number of ratings that each has."""
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2:
        raise InvalidInputError(
            f"counts must have shape (items, categories), got {table.shape}; give every item a row "
            "with its number of ratings for each category"
        )
    require(
        bool(np.isfinite(table).all() and (table >= 0.0).all() and (table % 1.0 == 0.0).all()),
        "counts must be whole and not negative, got other numbers; count the ratings of each "
        "category",
    )
    each = table.sum(axis=1)
    if each.size and each.min() != each.max():
        raise InvalidInputError(
            f"each item needs the same number of ratings, got {int(each.min())} to "
            f"{int(each.max())}; take krippendorff_alpha or gwet_ac1"
        )
    return table, len(each), int(each.max(initial=0.0))


def _label_counts(
    rows: list[list[Label]], categories: Sequence[Label] | None
) -> tuple[FloatArray, list[Label]]:
    """Counts of each label of the items that have a rating, and the labels."""
    given = dict.fromkeys(label for row in rows for label in row if not is_missing(label))
    if categories is not None:
        check_categories(categories, set(given))
    names = list(given) if categories is None else list(categories)
    place = {label: index for index, label in enumerate(names)}
    counts = np.zeros((len(rows), len(names)))
    for item, row in enumerate(rows):
        for label in row:
            if not is_missing(label):
                counts[item, place[label]] += 1.0
    return counts[counts.sum(axis=1) > 0.0], names


def _refuse_foreign_raters(rows: list[list[Label]], *, declared: bool) -> None:
    """Two raters as in `refuse_foreign_labels`; of more, one who shares no label with the rest."""
    raters = [
        {label for label in column if not is_missing(label)} for column in zip(*rows, strict=True)
    ]
    if len(raters) == 2:
        refuse_foreign_labels(*raters, declared=declared)
        return
    for place, own in enumerate(raters):
        rest = set().union(*raters[:place], *raters[place + 1 :])
        if len(own) >= 2:  # one label alone may be a rare one
            refuse_foreign_labels(own, rest, declared=True)


def _few_pairs(pairable: int) -> str:
    return f"agreement needs at least 2 items with two ratings, got {pairable}; collect more"


def _over_items(
    counts: FloatArray,
    expected: float,
    expected_by_item: FloatArray,
    level: float,
    null_error: float | None = None,
) -> Agreement:
    """A coefficient with Gwet's linearized standard error.

    Each item's coefficient, less twice (1 - coefficient) times its excess of chance agreement, is
    an independent observation of the coefficient.
    """
    each, items = counts.sum(axis=1), counts.shape[0]
    pairable = each >= 2.0
    pairs = np.maximum(each * (each - 1.0), 1.0)
    agreement = (counts * (counts - 1.0)).sum(axis=1) / pairs
    observed = float(agreement[pairable].mean())
    value = (observed - expected) / (1.0 - expected)
    share = items / int(pairable.sum())
    by_item = share * (agreement - expected) * pairable / (1.0 - expected)
    by_item -= 2.0 * (1.0 - value) * (expected_by_item - expected) / (1.0 - expected)
    error = math.sqrt(float(((by_item - value) ** 2).sum()) / (items * (items - 1)))
    half = float(special.stdtrit(items - 1, (1.0 + level) / 2.0)) * error
    ends = (value - half, min(1.0, value + half))
    if 1.0 - observed <= ZERO or error <= ZERO:
        error = 0.0
        ends = chance_corrected_limits(
            observed, expected, int(pairable.sum()), normal_quantile(level)
        )
    return Agreement(
        value=value,
        standard_error=error,
        interval=Interval(*ends, level),
        reason=None,
        items=int(pairable.sum()),
        observed_agreement=observed,
        expected_agreement=expected,
        null_standard_error=null_error,
        z=None if null_error is None else value / null_error,
    )


def _values(names: list[Label], metric: Metric, *, declared: bool) -> FloatArray:
    """What the metric measures by: the place of a label, or the number that it is."""
    if metric == "nominal" or (metric == "ordinal" and declared):
        return np.arange(len(names), dtype=np.float64)
    return _numbers(names, metric)


def _numbers(names: list[Label], metric: Metric) -> FloatArray:
    if any(isinstance(name, str) for name in names):
        raise InvalidInputError(
            f'metric "{metric}" needs numbers, got labels such as {names[0]!r}; pass categories '
            'in their order with "ordinal", or take "nominal"'
        )
    values = np.asarray(names, dtype=np.float64)
    if not np.isfinite(values).all() or (metric == "ratio" and values.min() < 0.0):
        raise InvalidInputError(
            f'metric "{metric}" needs finite numbers, for "ratio" not negative, got '
            f"{values.min():g} to {values.max():g}; leave out what was not observed"
        )
    return values


def _disagreements(
    counts: FloatArray, values: FloatArray, metric: Metric, weights: FloatArray
) -> tuple[float, float]:
    """Observed and expected disagreement of items that count `weights` times."""
    each = counts.sum(axis=1)
    totals = weights @ counts
    ratings = float(totals.sum())
    shared = counts * (weights / (each - 1.0))[:, np.newaxis]
    coincidences = counts.T @ shared - np.diag(shared.sum(axis=0))
    squares = _squared_differences(values, totals, metric)
    observed = float((coincidences * squares).sum()) / ratings
    expected = float(totals @ squares @ totals) / (ratings * (ratings - 1.0))
    return observed, expected


def _squared_differences(values: FloatArray, totals: FloatArray, metric: Metric) -> FloatArray:
    if metric == "nominal":
        return 1.0 - np.eye(values.size)
    if metric == "ordinal":
        values = np.cumsum(totals) - totals / 2.0
    differences = np.subtract.outer(values, values)
    if metric == "ratio":
        sums = np.add.outer(values, values)
        differences = differences / np.where(sums == 0.0, 1.0, sums)
    return np.asarray(differences**2)


def _bootstrap(
    counts: FloatArray,
    values: FloatArray,
    metric: Metric,
    rng: np.random.Generator,
    level: float,
    resamples: int,
) -> Interval | None:
    distinct, drawn = draw_items(counts, rng=rng, resamples=resamples)
    resampled = np.full(resamples, np.nan)
    for place, weights in enumerate(drawn):
        observed, expected = _disagreements(distinct, values, metric, weights)
        if expected > 0.0:
            resampled[place] = 1.0 - observed / expected
    try:
        return percentile_interval(resampled, level)
    except InsufficientDataError:
        return None
