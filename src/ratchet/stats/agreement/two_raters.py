"""Agreement of raters: percent agreement, Cohen's kappa, and the coefficients of many raters.

Labels are compared as they are: 1 and "1" are two labels. Two raters who speak of different labels
are refused, because a kappa between them is a number that means nothing. Where a coefficient says
nothing whatever the raters do, it has no value and a reason.

| raters | missing ratings | function |
|---|---|---|
| two | none | `percent_agreement`, `cohen_kappa` |
| equally many for each item, not always the same | none | `fleiss_kappa` |
| any number, one label dominates | allowed | `gwet_ac1` |
| any number, also ranks and numbers | allowed | `krippendorff_alpha` |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.agreement.ratings import (
    FEWEST_ITEMS,
    ZERO,
    Agreement,
    Label,
    Labels,
    chance_corrected_limits,
    check_categories,
    is_missing,
    refuse_foreign_labels,
    undefined,
)
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import bound_quantile, checked_level, normal_quantile, require
from ratchet.stats.intervals import Interval, wilson

Weighting = Literal["linear", "quadratic"]
ROUNDING = 1e-14  # what is left of a variance of 0 in shares


def percent_agreement(first: Labels, second: Labels, *, level: float = 0.95) -> Agreement:
    """Share of items on which two raters give the same label, with Wilson's interval.

    Units: labels in, a share in [0, 1] out; `standard_error` is sqrt(p (1 - p) / items).
    Assumptions: independent items, their number fixed in advance.
    Error rate: as `ratchet.stats.intervals.wilson`.
    When not to use: to compare tasks with different marginals; two raters who both say "good" to
    95 % of items agree on 90 % of them by chance alone (`cohen_kappa`, `gwet_ac1`).

    Args:
        first: Labels of the first rater, shape (items,).
        second: Labels of the second rater for the same items, shape (items,).
        level: Nominal coverage in (0, 1).

    Returns:
        The share; without items it is undefined, with the reason.

    Raises:
        InvalidInputError: Lengths differ, a label is missing, the raters use different labels, or
            the level is out of range.

    Example:
        >>> result = percent_agreement(["a", "b", "a", "a"], ["a", "b", "b", "a"])
        >>> result.value, round(result.interval.lower, 4)
        (0.75, 0.3006)

    References:
        Wilson (1927), as `ratchet.stats.intervals.wilson`.
    """
    checked_level(level)
    ones, others = _checked_pair(first, second, None)
    items = len(ones)
    if not items:
        return undefined("agreement needs at least 1 item, got 0; collect ratings first", 0)
    agreements = sum(one == other for one, other in zip(ones, others, strict=True))
    share = agreements / items
    error = math.sqrt(share * (1.0 - share) / items)
    interval = wilson(agreements, items, level=level)
    return Agreement(share, error, interval, None, items, observed_agreement=share)


def cohen_kappa(
    first: Labels,
    second: Labels,
    *,
    weights: Weighting | ArrayLike | None = None,
    categories: Sequence[Label] | None = None,
    exchangeable: tuple[Label, Label] | None = None,
    level: float = 0.95,
) -> Agreement:
    """Cohen's kappa from the labels of two raters.

    (po - pe) / (1 - pe), po the observed and pe the expected weighted agreement; see
    `cohen_kappa_of_table` for weights, standard errors, error rate and when not to use it.

    Args:
        first: Labels of the first rater, shape (items,).
        second: Labels of the second rater for the same items, shape (items,).
        weights: As `cohen_kappa_of_table`. They act on the rank of a label in `categories`; without
            those on its rank among the labels that are used, sorted (words by the alphabet).
        categories: All labels in their order. Needed where each rater uses a label that the other
            never does; otherwise the labels that occur.
        exchangeable: As `cohen_kappa_of_table`, by name; both are labels, whether they occur or
            not.
        level: Nominal coverage in (0, 1).

    Returns:
        Kappa, undefined with the reason as in `cohen_kappa_of_table`.

    Raises:
        InvalidInputError: Lengths differ, a label is missing or not in `categories`, the raters
            use different labels, labels to be weighted cannot be sorted, or an argument is out of
            range.

    Example:
        >>> ones, others = ["a"] * 6 + ["b"] * 4, ["a"] * 5 + ["b"] * 5
        >>> round(cohen_kappa(ones, others).value, 2)
        0.8

    References:
        Cohen, J. (1960). A coefficient of agreement for nominal scales. Educational and
        Psychological Measurement 20, 37-46.
    """
    ones, others = _checked_pair(first, second, categories, foreign_too=exchangeable is not None)
    names = list(dict.fromkeys([*ones, *others]) if categories is None else categories)
    names += [label for label in exchangeable or () if label not in names]
    if categories is None and weights is not None:
        names = _ranked(names)
    place = {label: index for index, label in enumerate(names)}
    table = np.zeros((len(place), len(place)))
    np.add.at(table, ([place[label] for label in ones], [place[label] for label in others]), 1.0)
    both = None if exchangeable is None else (place[exchangeable[0]], place[exchangeable[1]])
    return cohen_kappa_of_table(table, weights=weights, exchangeable=both, level=level)


def cohen_kappa_of_table(
    table: ArrayLike,
    *,
    weights: Weighting | ArrayLike | None = None,
    exchangeable: tuple[int, int] | None = None,
    level: float = 0.95,
) -> Agreement:
    """Cohen's kappa from a table of counts, the first rater in rows.

    kappa = (po - pe) / (1 - pe) with po = sum w p, pe = sum w p_row p_column; w is 1 on the
    diagonal and 0 elsewhere, 1 - |i - j| / (k - 1) (linear), 1 - (i - j)^2 / (k - 1)^2
    (quadratic), or 1 - v / max v for disagreement weights v. Interval kappa +- z ASE, the
    asymptotic standard error of Fleiss, Cohen and Everitt; if that is 0 (agreement on everything,
    or a rater with one label) the Wilson limits of po corrected for chance, which have a width.
    Where the marginals alone decide po, as with one label for everything from one of the raters,
    kappa is exactly 0 and has no test.

    Units: counts in, a coefficient of at most 1 out.
    Assumptions: independent items, their number fixed, each rated once by both raters.
    Error rate: asymptotic. Coverage at level 0.95 (simulation, two labels, like marginals): 0.92 or
    more for labels of at least 20 %, with 100 items for kappa from 0 to 0.6 and 300 for kappa 0.9.
    Elsewhere less: at kappa 0.9 and even labels 0.88 with 100 items; with a label of 5 % at kappa
    0.6 0.89 with 50 or 100 and 0.93 with 300, at kappa 0 0.38 with 100 and 0.52 with 300 (the
    interval then lies just below 0; `z` does not err so). At kappa 0.9 and even labels 0.997 with
    30 or 50. Most other misses are intervals too high. Weighted, three labels with uneven
    marginals: 0.92 to 0.94 with 100 items, 0.95 with 300.
    When not to use: for very uneven marginals, where kappa is low at high agreement (`gwet_ac1`
    beside it); for missing ratings (`krippendorff_alpha`) or more raters; as a gate (take
    `kappa_lower_bound`). `z` tests kappa = 0 with the other standard error, so that near the
    boundary it may disagree with the interval.

    Args:
        table: Counts, shape (k, k), categories in their order.
        weights: None, "linear", "quadratic", or disagreement weights of shape (k, k): 0 on the
            diagonal, not negative, as in Cohen 1968.
        exchangeable: Two categories, by their place, that chance names (`_exchanged`).
        level: Nominal coverage in (0, 1).

    Returns:
        Kappa; undefined with the reason for fewer than two items, one and the same label from both
        raters, or weights by which no answer counts as disagreement.

    Raises:
        InvalidInputError: The table, the weights or the level are out of range, or the raters use
            different categories.

    Example:
        >>> result = cohen_kappa_of_table([[0, 4, 1], [0, 8, 0], [0, 1, 5]])
        >>> round(result.value, 4), round(result.standard_error, 4), round(result.z, 3)
        (0.4842, 0.138, 3.263)
        >>> round(cohen_kappa_of_table([[81, 14], [1, 4]], exchangeable=(0, 1)).value, 2)
        0.7

    References:
        Cohen (1960). Cohen, J. (1968). Weighted kappa. Psychological Bulletin 70, 213-220. Fleiss,
        J. L., Cohen, J., Everitt, B. S. (1969). Large sample standard errors of kappa and weighted
        kappa. Psychological Bulletin 72, 323-327.
    """
    checked_level(level)
    _check_named(weights)
    counts = _exchanged(_counts(table), exchangeable)
    items = round(float(counts.sum()))
    if items < FEWEST_ITEMS:
        return undefined(f"kappa needs at least 2 items, got {items}; collect more", items)
    agreement = _agreement_weights(weights, counts.shape[0])
    used = [np.flatnonzero(counts.sum(axis=axis)).tolist() for axis in (1, 0)]
    refuse_foreign_labels(*used, declared=True)
    if used[0] == used[1] and len(used[0]) == 1:
        reason = (
            "kappa needs two labels, got one and the same from both raters for everything; report "
            "percent_agreement, or gwet_ac1 with its categories"
        )
        return undefined(reason, items, 1.0, 1.0)
    shares = counts / items
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, expected = float((agreement * shares).sum()), float(rows @ agreement @ columns)
    if 1.0 - expected <= ZERO:
        reason = "kappa needs weights with a disagreement, got none for the labels used; raise one"
        return undefined(reason, items, observed, expected)
    return _kappa(shares, agreement, (observed, expected), items, level)


def kappa_lower_bound(kappa: Agreement, *, alpha: float = 0.05) -> float:
    """One-sided lower bound of Cohen's kappa, for a gate on agreement.

    (L - pe) / (1 - pe), L the lower score limit of the observed agreement po for as many
    independent items as would give the standard error of kappa, po (1 - po) / ((1 - pe) ASE)^2,
    and no more than there are. Unlike kappa - z ASE it has a width where the raters agree on
    everything: 30 items without a disagreement bound kappa by 0.83 at pe = 0.5, not by 1.

    Units: a coefficient of at most 1.
    Assumptions: as `cohen_kappa_of_table`, one look.
    Error rate: above the true kappa in at most `alpha` of samples in simulations of two labels with
    shares from 0.05 to 0.5, kappa from 0 to 0.9 and 30 to 300 items (alpha 0.05); with a rare label
    in far fewer, with weights in 1 % or fewer. kappa - z ASE is above it in 10 % with 30 items at
    kappa 0.6 and even labels, and in 23 % with a label of 5 %.
    When not to use: for several looks at a growing sample; for another coefficient than Cohen's
    kappa.

    Args:
        kappa: Result of `cohen_kappa` or `cohen_kappa_of_table`.
        alpha: One-sided error rate in (0, 1).

    Raises:
        InsufficientDataError: Kappa is undefined.
        InvalidInputError: `alpha` is out of range, or the result has no expected agreement.

    Example:
        >>> result = cohen_kappa_of_table([[15, 0], [0, 15]])
        >>> round(kappa_lower_bound(result), 3)
        0.835

    References:
        Wilson (1927), as `ratchet.stats.intervals.wilson`; the effective number of items as in
        Korn, E. L., Graubard, B. I. (1998). Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data. Survey Methodology 24,
        193-201.
    """
    z = bound_quantile(alpha)
    if kappa.reason is not None:
        raise InsufficientDataError(f"a bound needs a kappa, got none: {kappa.reason}")
    observed, expected, error = (
        kappa.observed_agreement,
        kappa.expected_agreement,
        kappa.standard_error,
    )
    if observed is None or expected is None or error is None:
        raise InvalidInputError(
            "a bound needs an observed and an expected agreement and a standard error, got "
            f"{observed}, {expected} and {error}; pass the result of cohen_kappa"
        )
    effective = float(kappa.items)
    binomial = observed * (1.0 - observed)
    if error > 0.0 and binomial > ZERO:
        effective = min(effective, binomial / ((1.0 - expected) * error) ** 2)
    return chance_corrected_limits(observed, expected, effective, z)[0]


def _kappa(
    shares: FloatArray,
    agreement: FloatArray,
    both: tuple[float, float],
    items: int,
    level: float,
) -> Agreement:
    """Kappa of a table of shares whose observed and expected agreement are known."""
    z = normal_quantile(level)
    observed, expected = both
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    means = (agreement @ columns)[:, np.newaxis] + rows @ agreement
    scale = items * (1.0 - expected) ** 2
    null_spread = (np.outer(rows, columns) * (agreement - means) ** 2).sum()
    null_error = _root(null_spread - expected**2, scale)
    one_label = min(np.count_nonzero(rows), np.count_nonzero(columns)) == 1
    if one_label or null_error == 0.0:  # po = pe in every table with these marginals
        ends = chance_corrected_limits(expected, expected, items, z)
        return Agreement(0.0, 0.0, Interval(*ends, level), None, items, expected, expected)
    value = (observed - expected) / (1.0 - expected)
    spread = (shares * (agreement - means * (1.0 - value)) ** 2).sum()
    error = _root(spread - (value - expected * (1.0 - value)) ** 2, scale)
    ends = (value - z * error, min(1.0, value + z * error))
    if error == 0.0:
        ends = chance_corrected_limits(observed, expected, items, z)
    return Agreement(
        value=value,
        standard_error=error,
        interval=Interval(*ends, level),
        reason=None,
        items=items,
        observed_agreement=observed,
        expected_agreement=expected,
        null_standard_error=null_error,
        z=value / null_error,
    )


def _checked_pair(
    first: Labels,
    second: Labels,
    categories: Sequence[Label] | None,
    *,
    foreign_too: bool = False,
) -> tuple[list[Label], list[Label]]:
    ones, others = _as_list(first), _as_list(second)
    if len(ones) != len(others):
        raise InvalidInputError(
            f"both raters must rate the same items, got {len(ones)} and {len(others)} labels; pass "
            "arrays of one length"
        )
    missing = sum(map(is_missing, [*ones, *others]))
    if missing:
        raise InvalidInputError(
            f"each item needs a label of both raters, got {missing} missing; leave those items out "
            "or take krippendorff_alpha"
        )
    if categories is not None:
        check_categories(categories, {*ones, *others})
    if len(ones) >= FEWEST_ITEMS and not foreign_too:
        refuse_foreign_labels(ones, others, declared=categories is not None)
    return ones, others


def _ranked(labels: list[Label]) -> list[Label]:
    ranked: list[Any] = list(labels)
    try:
        ranked.sort()
    except TypeError as error:
        raise InvalidInputError(
            f"weights need labels that have an order, got {error}; pass categories in their order"
        ) from error
    return ranked


def _as_list(labels: Labels) -> list[Label]:
    array = np.asarray(labels, dtype=object)
    if array.ndim != 1:
        raise InvalidInputError(
            f"labels of a rater must have shape (items,), got {array.shape}; pass one rater at a "
            "time"
        )
    return list(array.tolist())


def _counts(table: ArrayLike) -> FloatArray:
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise InvalidInputError(
            f"a table of two raters must be square, got shape {counts.shape}; give every category "
            "a row and a column"
        )
    require(
        bool(np.isfinite(counts).all() and (counts >= 0.0).all() and (counts % 1.0 == 0.0).all()),
        "a table of two raters must hold counts, got other numbers; multiply shares by the "
        "number of items",
    )
    return counts


def _exchanged(counts: FloatArray, both: tuple[int, int] | None) -> FloatArray:
    """Average a table with the one in which two categories are exchanged.

    Of two exchangeable categories each item might as well have had the other one, as the answers
    of a pair might have been shown in the other order; what is shown must not tell a rater which is
    which. Chance is then even between the two, however often one of them is right: without ties
    kappa is 2 po - 1. The standard error is that of items placed by chance, which is exact without
    ties and otherwise too large rather than too small.
    """
    if both is None:
        return counts
    one, other = both
    size = counts.shape[0]
    require(
        one != other and min(both) >= 0 and max(both) < size,
        f"exchangeable categories must be two of 0 to {size - 1}, got {one} and {other}; pass "
        "their places in the table",
    )
    order = np.arange(size)
    order[[one, other]] = other, one
    return np.asarray((counts + counts[np.ix_(order, order)]) / 2.0)


def _check_named(weights: object) -> None:
    if isinstance(weights, str) and weights not in get_args(Weighting):
        raise InvalidInputError(
            f"weights must be None, one of {get_args(Weighting)} or an array, got {weights!r}; "
            "pass None for labels without an order"
        )


def _agreement_weights(weights: Weighting | ArrayLike | None, count: int) -> FloatArray:
    """Agreement weights, 1 on the diagonal."""
    distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count))) / max(1, count - 1)
    if weights is None:
        return np.eye(count)
    if isinstance(weights, str):
        return np.asarray(1.0 - (distance if weights == "linear" else distance**2))
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.shape != (count, count):
        raise InvalidInputError(
            f"weights must have shape ({count}, {count}), got {matrix.shape}; give every pair of "
            "categories one"
        )
    in_range = np.isfinite(matrix).all() and (matrix >= 0.0).all() and matrix.max() > 0.0
    if not in_range or np.diagonal(matrix).any():
        raise InvalidInputError(
            "weights must be disagreements: 0 on the diagonal, not negative, not all 0, got "
            f"{matrix.tolist()}; pass 1 - w for agreement weights w"
        )
    return np.asarray(1.0 - matrix / matrix.max())


def _root(spread: float, scale: float) -> float:
    """Standard error; what is left of 0 by rounding is 0."""
    return math.sqrt(spread / scale) if spread > ROUNDING else 0.0
