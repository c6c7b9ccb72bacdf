"""How far reviewers agree on a dimension by now, by the coefficients of `ratchet.stats`.

    report = agreement_on(store, "helpfulness", categories=("bad", "good"))
    report.alpha.value, report.pairs[0].kappa.interval, report.ceiling

Labels that were given without seeing others count, also of items that wait for further people; the
word of who decided between others does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Final

import numpy as np

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.agreement import (
    Agreement,
    Metric,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from ratchet.stats.agreement.ratings import undefined
from ratchet.stats.intervals import Interval, mean_interval, wilson
from ratchet.store import EventStore
from ratchet.store.review_labels import Rating, ratings_on

SEED: Final = 0
"""Of the resamples of alpha: the same labels give the same interval."""
_MOST_PAIRS = 45


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two reviewers on the items that both labelled."""

    first: str
    second: str
    items: int
    percent: Agreement
    kappa: Agreement


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How often two people give the same label to an item: no judge can be held to more.

    Attributes:
        value: Mean over items of the share of pairs of labels that are equal; None without items.
        items: Items that two people or more labelled.
    """

    value: float | None
    interval: Interval | None
    items: int


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """How far reviewers agree on a dimension.

    Attributes:
        labels: Labels given.
        items: Items that two people or more labelled.
        alpha: Krippendorff's, over all items and reviewers.
        fleiss: Fleiss' kappa, over the items that most commonly many people labelled.
        by_label: Alpha of each label against all others.
        pairs: Each two reviewers who labelled items in common.
        ceiling: The human ceiling.
    """

    dimension: str
    labels: int
    items: int
    alpha: Agreement
    fleiss: Agreement
    by_label: dict[str, Agreement]
    pairs: tuple[PairAgreement, ...]
    ceiling: Ceiling


def agreement_on(
    store: EventStore,
    dimension: str,
    *,
    categories: Sequence[str] = (),
    ordered: bool = False,
    most: int | None = None,
) -> AgreementReport:
    """Return how far reviewers agree on a dimension.

    Args:
        store: The store.
        dimension: What they were asked.
        categories: The labels that they may give, in their order; those given are added.
        ordered: Whether labels that stand side by side are closer than others.
        most: So many of the latest labels at most.
    """
    ratings = ratings_on(store, dimension, most)
    given = sorted({one.label for one in ratings} - set(categories))
    return report_of(dimension, ratings, [*categories, *given], ordered=ordered)


def report_of(
    dimension: str, ratings: Sequence[Rating], menu: Sequence[str], *, ordered: bool = False
) -> AgreementReport:
    """Return how far people agree who gave these labels, of this menu."""
    by_item: dict[str, dict[str, str]] = {}
    for one in ratings:
        by_item.setdefault(one.interaction_id, {})[one.reviewer] = one.label
    shared = {key: said for key, said in by_item.items() if len(said) > 1}
    people = sorted({name for said in shared.values() for name in said})
    table = [[said.get(name) for name in people] for said in shared.values()]
    return AgreementReport(
        dimension=dimension,
        labels=len(ratings),
        items=len(shared),
        alpha=_alpha(table, "ordinal" if ordered else "nominal", menu),
        fleiss=_fleiss([list(said.values()) for said in shared.values()], menu),
        by_label={label: _one_label(table, label) for label in menu},
        pairs=_pairs(shared, people, menu),
        ceiling=_ceiling([list(said.values()) for said in shared.values()]),
    )


def coefficient(measure: Callable[[], Agreement]) -> Agreement:
    """Return a coefficient; undefined with the reason where labels do not allow it."""
    try:
        return measure()
    except (InvalidInputError, InsufficientDataError) as error:
        return undefined(str(error), 0)


def _alpha(table: Sequence[Sequence[str | None]], metric: Metric, menu: Sequence[str]) -> Agreement:
    if not table:
        return undefined("agreement needs items that two people labelled, got none", 0)
    return coefficient(
        partial(
            krippendorff_alpha,
            table,
            metric=metric,
            categories=list(menu),
            rng=np.random.default_rng(SEED),
        )
    )


def _one_label(table: Sequence[Sequence[str | None]], label: str) -> Agreement:
    yes_or_no = [
        [None if said is None else "yes" if said == label else "no" for said in row]
        for row in table
    ]
    return _alpha(yes_or_no, "nominal", ("no", "yes"))


def _fleiss(rows: Sequence[Sequence[str]], menu: Sequence[str]) -> Agreement:
    if not rows:
        return undefined("kappa needs items that two people labelled, got none", 0)
    size = Counter(map(len, rows)).most_common(1)[0][0]
    counts = [[row.count(label) for label in menu] for row in rows if len(row) == size]
    return coefficient(partial(fleiss_kappa, counts))


def _pairs(
    shared: dict[str, dict[str, str]], people: Sequence[str], menu: Sequence[str]
) -> tuple[PairAgreement, ...]:
    found = []
    for first, second in combinations(people, 2):
        both = [said for said in shared.values() if first in said and second in said]
        if both:
            ones, others = [said[first] for said in both], [said[second] for said in both]
            found.append(
                PairAgreement(
                    first=first,
                    second=second,
                    items=len(both),
                    percent=coefficient(partial(percent_agreement, ones, others)),
                    kappa=coefficient(partial(cohen_kappa, ones, others, categories=list(menu))),
                )
            )
    return tuple(sorted(found, key=lambda one: -one.items)[:_MOST_PAIRS])


def _ceiling(rows: Sequence[Sequence[str]]) -> Ceiling:
    shares = [
        sum(one == other for one, other in combinations(row, 2)) / (len(row) * (len(row) - 1) / 2)
        for row in rows
    ]
    if not shares:
        return Ceiling(None, None, 0)
    value = sum(shares) / len(shares)
    if all(len(row) == 2 for row in rows):
        return Ceiling(value, wilson(round(sum(shares)), len(shares)), len(shares))
    try:
        return Ceiling(value, mean_interval(np.asarray(shares)), len(shares))
    except (InvalidInputError, InsufficientDataError):
        return Ceiling(value, None, len(shares))
