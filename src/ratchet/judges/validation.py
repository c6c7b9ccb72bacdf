"""Is a judge usable? Its verdicts held against the labels of people.

A judge is *usable* when the one-sided 95 % lower bound of Cohen's kappa with people reaches the
bar, it agrees with them on enough of all labelled items (an item without a verdict counts against
it), and both orders of a pair give the same winner often enough. It is *not usable* when one of
these is shown to be missed, and *not enough labels* says that neither is shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InsufficientDataError, InvalidInputError, RatchetError
from ratchet.judges.effects import effect_figures
from ratchet.judges.label_sets import TIE, LabelledVerdict, LabelRun
from ratchet.judges.places import Placed, are_winners, by_place
from ratchet.records import Figure, Usability
from ratchet.stats.agreement import (
    Agreement,
    cohen_kappa,
    gwet_ac1,
    kappa_lower_bound,
    krippendorff_alpha,
)
from ratchet.stats.agreement.human_ceiling import judge_against_humans
from ratchet.stats.agreement.ratings import chance_corrected_limits, check_categories, undefined
from ratchet.stats.intervals import Interval, wilson

ONE_SIDED = 0.05
Z = NormalDist().inv_cdf(1.0 - ONE_SIDED)
TWO_SIDED_Z = NormalDist().inv_cdf(1.0 - ONE_SIDED / 2.0)
MOST_LABELS = 1_000_000
Weights = Literal["linear", "quadratic"] | None


class Bar(BaseModel):
    """What a judge has to reach.

    Attributes:
        kappa: For the one-sided 95 % lower bound of kappa.
        agreement: For the share of all labelled items on which judge and people agree.
        consistency: For the share of pairs with the same winner in both orders.
        minimum_items: With fewer labelled items nothing is decided, and with fewer of them that
            have a verdict no judge is usable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kappa: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.6
    agreement: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    consistency: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    minimum_items: Annotated[int, Field(ge=2)] = 30


DEFAULT_BAR = Bar()


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An item that judge and people see differently, for people to read.

    Attributes:
        weight: How much it tells: distance on the menu, people's unanimity, the judge's firmness.
    """

    item_id: str
    human: str
    judge: str
    weight: float


@dataclass(frozen=True, slots=True)
class Validation:
    """What holding a judge against people found.

    Attributes:
        kappa: Of verdict and label, over items with a verdict.
        kappa_bound: One-sided 95 % lower bound of kappa; None where kappa is undefined.
        unscored: Items without a verdict, by reason.
        more_labels: How many more labels would decide it if they come out like those so far; None
            where it is decided, or would not be by a million.
        confusion: Counts, labels of people in rows and verdicts in columns, as `categories`.
        disagreements: The ones most worth reading first.
    """

    decision: Usability
    reasons: tuple[str, ...]
    items: int
    unscored: dict[str, int]
    kappa: Agreement
    kappa_bound: float | None
    figures: tuple[Figure, ...]
    categories: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    more_labels: int | None
    disagreements: tuple[Disagreement, ...]

    def figure(self, name: str) -> Figure | None:
        """Return the figure of this name, or None."""
        return next((figure for figure in self.figures if figure.name == name), None)


def validate_judge(
    rows: Sequence[LabelledVerdict],
    *,
    rng: np.random.Generator,
    bar: Bar = DEFAULT_BAR,
    categories: Sequence[str] | None = None,
    weights: Weights = None,
    judge_family: str | None = None,
) -> Validation:
    """Hold a judge's verdicts against people's labels and decide whether it may count.

    Assumptions: the labelled items are a random part of what the judge will judge, independent, and
    took no part in making the judge; one look at them a judge version.
    Error rate: a judge whose true kappa is the bar is called usable in at most about 5 % of
    validations: 1.9 to 5.4 % in simulations of two and three labels and of pairs in both orders,
    50 to 400 labels (`tests/calibration/test_judge_validation.py`). There a judge of kappa 0.8 is
    found usable with 50, 100, 200 even labels of two kinds in 58, 87, 99 %, with labels of 80 and
    20 % in 34, 66, 89 %.
    When not to use: to try prompts on the same labels until one passes; each try is a look.

    Args:
        rows: One a labelled item.
        rng: For the bootstrap of the human ceiling.
        bar: What the judge has to reach.
        categories: The menu in order; the labels that occur, sorted, where None.
        weights: Weights of kappa, for a menu with an order.
        judge_family: Model family of the judge, to measure whether it prefers its own.

    Raises:
        InsufficientDataError: There are no labelled items.
        InvalidInputError: Judge and people do not use one set of labels.
    """
    if not rows:
        raise InsufficientDataError("a validation needs labelled items, got none; label some")
    scored = [row for row in rows if row.verdict is not None]
    if not scored:
        return _unscored_only(rows, bar)
    paired = any(row.both_orders for row in rows)
    _refuse_foreign(scored, categories)
    human, judge = [row.human for row in scored], [str(row.verdict) for row in scored]
    names = _categories(human, judge, categories, paired=paired)
    check_categories(names, {*human, *judge})
    placed = by_place(scored, names)
    kappa = _kappa(placed.human, placed.judge, placed.names(names), weights, placed.exchangeable)
    figures = [
        *_agreement_figures(rows, scored, kappa, placed, names, weights),
        *_order_figures(rows, names, weights),
        *_human_figures(scored, names, rng),
        *effect_figures(rows, names, judge_family),
    ]
    evidence = _evidence(rows, scored, kappa)
    decision, reasons = _decide(evidence, bar)
    ordered = paired or categories is not None or all(_menu_order(n) < WORDS for n in names)
    return Validation(
        decision=decision,
        reasons=reasons,
        items=len(scored),
        unscored=_unscored(rows),
        kappa=kappa,
        kappa_bound=_bounds(kappa)[0],
        figures=tuple(figures),
        categories=tuple(names),
        confusion=_confusion(human, judge, names),
        more_labels=_more_labels(evidence, bar) if decision == "not enough labels" else None,
        disagreements=_disagreements(scored, names, ordered=ordered),
    )


def validate_runs(
    runs: Sequence[LabelRun],
    *,
    seed: int,
    bar: Bar = DEFAULT_BAR,
    categories: Sequence[str] | None = None,
    weights: Weights = None,
    judge_family: str | None = None,
) -> list[tuple[str, Validation | RatchetError]]:
    """Validate each run by its own; one that is refused has its error in place of a validation.

    Args:
        runs: Rows of one judge each.
        seed: Of the bootstrap, the same for each run.
        bar: As `validate_judge`, as are the others.
        categories: The menu in order.
        weights: Weights of kappa.
        judge_family: Model family of the judge.
    """
    results: list[tuple[str, Validation | RatchetError]] = []
    for run in runs:
        try:
            found: Validation | RatchetError = validate_judge(
                run.rows,
                rng=np.random.default_rng(seed),
                bar=bar,
                categories=categories,
                weights=weights,
                judge_family=judge_family,
            )
        except RatchetError as error:
            found = error
        results.append((run.name, found))
    return results


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What a decision rests on: kappa and both shares, each with how many they are of."""

    kappa: Agreement
    items: int
    agreement: float
    labels: float
    consistency: float
    pairs: float

    def times(self, factor: float) -> _Evidence:
        """Return the same from so many times as many items that come out alike."""
        error = self.kappa.standard_error
        return replace(
            self,
            kappa=replace(
                self.kappa,
                items=round(self.kappa.items * factor),
                standard_error=None if error is None else error / math.sqrt(factor),
            ),
            items=round(self.items * factor),
            labels=self.labels * factor,
            pairs=self.pairs * factor,
        )


def _evidence(
    rows: Sequence[LabelledVerdict], scored: Sequence[LabelledVerdict], kappa: Agreement
) -> _Evidence:
    pairs = [row.judge == row.swapped for row in scored if row.both_orders]
    return _Evidence(
        kappa,
        len(scored),
        sum(row.verdict == row.human for row in scored) / len(rows),
        len(rows),
        sum(pairs) / max(1, len(pairs)),
        len(pairs),
    )


def _decide(evidence: _Evidence, bar: Bar) -> tuple[Usability, tuple[str, ...]]:
    few = f"{evidence.items} labelled items have a verdict, at least {bar.minimum_items} are needed"
    if evidence.labels < bar.minimum_items:
        return "not enough labels", (few,)
    shown: list[str] = []
    open_: list[str] = []
    kappa, (bound, upper) = evidence.kappa, _bounds(evidence.kappa)
    if evidence.items < bar.minimum_items:
        open_.append(few)
    elif kappa.value is None or bound is None or upper is None:
        open_.append(f"kappa is undefined: {kappa.reason}")
    elif bound < bar.kappa:
        said = f"kappa {kappa.value:.2f}, lower bound {bound:.2f} under {bar.kappa:.2f}"
        (shown if upper < bar.kappa else open_).append(said)
    both_orders = "names the same winner in both orders of"
    for name, share, of, needed in (
        ("agrees with people on", evidence.agreement, evidence.labels, bar.agreement),
        (both_orders, evidence.consistency, evidence.pairs, bar.consistency),
    ):
        if of == 0 or share >= needed:
            continue
        said = f"{name} {100 * share:.1f} % of items, under {100 * needed:.0f} %"
        limit = chance_corrected_limits(share, 0.0, of, TWO_SIDED_Z)[1]  # Wilson's
        (shown if limit < needed else open_).append(said)
    if shown:
        return "not usable", tuple(shown + open_)
    if open_:
        return "not enough labels", tuple(open_)
    said = (
        f"kappa {kappa.value:.2f} with a lower bound of {bound:.2f}, bar {bar.kappa:.2f}; agrees "
        f"with people on {100 * evidence.agreement:.1f} %"
    )
    return "usable", (said,)


def _bounds(kappa: Agreement) -> tuple[float | None, float | None]:
    """One-sided 95 % bounds; the upper one has a width where the standard error is 0 too."""
    if kappa.value is None:
        return None, None
    upper = kappa.value + Z * (kappa.standard_error or 0.0)
    observed, expected = kappa.observed_agreement, kappa.expected_agreement
    if not kappa.standard_error and observed is not None and expected is not None:
        upper = chance_corrected_limits(observed, expected, kappa.items, Z)[1]
    return kappa_lower_bound(kappa, alpha=ONE_SIDED), upper


def _more_labels(evidence: _Evidence, bar: Bar) -> int | None:
    """Return the fewest further labels by which the decision would fall, if they come out alike."""

    def settles(more: int) -> bool:
        return _decide(evidence.times(1.0 + more / evidence.labels), bar)[0] != "not enough labels"

    enough = 1
    while not settles(enough):
        enough *= 2
        if enough > MOST_LABELS:
            return None
    short = enough // 2
    while enough - short > 1:
        middle = (enough + short) // 2
        short, enough = (short, middle) if settles(middle) else (middle, enough)
    return enough


def _kappa(
    first: Sequence[str | None],
    second: Sequence[str | None],
    names: Sequence[str],
    weights: Weights,
    exchangeable: tuple[str, str] | None = None,
) -> Agreement:
    """Kappa; undefined where two raters of one menu never give the same label."""
    apart = _apart(first, second, exchangeable)
    if apart is not None:
        return apart
    unlisted = sorted({str(label) for label in (*first, *second)} - set(names))
    return cohen_kappa(
        first,
        second,
        categories=[*names, *unlisted],
        weights=weights,
        exchangeable=exchangeable,
    )


def _apart(
    first: Sequence[str | None],
    second: Sequence[str | None],
    exchangeable: tuple[str, str] | None = None,
) -> Agreement | None:
    places = set(exchangeable or ())
    meet_in_a_place = not places.isdisjoint(first) and not places.isdisjoint(second)
    if not first or meet_in_a_place or not set(first).isdisjoint(second):
        return None
    return undefined(
        f"a coefficient needs a label that both give, got none in {len(first)} items", len(first)
    )


def _agreement_figures(
    rows: Sequence[LabelledVerdict],
    scored: Sequence[LabelledVerdict],
    kappa: Agreement,
    placed: Placed,
    names: Sequence[str],
    weights: Weights,
) -> list[Figure]:
    agreeing = sum(row.verdict == row.human for row in scored)
    figures = [
        _share("agreement", agreeing, len(scored)),
        _share("agreement_of_all", agreeing, len(rows)),
        _share("scored", len(scored), len(rows)),
        _coefficient("kappa", kappa, len(scored)),
    ]
    pairs = [[row.human, row.verdict] for row in scored]
    if placed.places is not None:
        by_winner = _kappa(
            [row.human for row in scored], [row.verdict for row in scored], names, weights
        )
        figures.append(_coefficient("kappa_by_winner", by_winner, len(scored)))
    apart = _apart([row.human for row in scored], [row.verdict for row in scored])
    metric: Literal["nominal", "ordinal"] = "nominal" if weights is None else "ordinal"
    for name, result in (
        ("ac1", apart or gwet_ac1(pairs, categories=names)),
        (
            "krippendorff_alpha",
            _apart(placed.human, placed.judge, placed.exchangeable)
            or krippendorff_alpha(placed.ratings(), metric=metric, categories=placed.names(names)),
        ),
    ):
        figures.append(_coefficient(name, result, len(scored)))
    return figures


def _order_figures(
    rows: Sequence[LabelledVerdict], names: Sequence[str], weights: Weights
) -> list[Figure]:
    both = [row for row in rows if row.both_orders]
    if not both:
        return []
    first = [row for row in both if row.judge is not None]
    second = [row for row in both if row.swapped is not None]
    known = [row for row in first if row.swapped is not None]
    figures = []
    for name, found, hits in (
        ("accuracy_first_order", first, sum(row.judge == row.human for row in first)),
        ("accuracy_second_order", second, sum(row.swapped == row.human for row in second)),
        ("consistency", known, sum(row.judge == row.swapped for row in known)),
        ("right_in_both_orders", known, sum(row.verdict == row.human for row in known)),
    ):
        figures.append(_share(name, hits, len(found)))
    for name, one, other, items in (
        ("kappa_first_order", [r.human for r in first], [r.judge for r in first], len(first)),
        ("kappa_second_order", [r.human for r in second], [r.swapped for r in second], len(second)),
        ("kappa_of_orders", [r.judge for r in known], [r.swapped for r in known], len(known)),
    ):
        figures.append(_coefficient(name, _kappa(one, other, names, weights), items))
    return figures


def _human_figures(
    scored: Sequence[LabelledVerdict], names: Sequence[str], rng: np.random.Generator
) -> list[Figure]:
    """The judge beside the human ceiling, where several people labelled the same items."""
    if not any(other is not None for row in scored for other in row.others):
        return []
    said = [row.others if row.adjudicated else (row.human, *row.others) for row in scored]
    people = max(map(len, said))
    humans = [[*given, *[None] * (people - len(given))] for given in said]
    given = {str(other) for row in scored for other in row.others if other is not None}
    menu = [*names, *sorted(given - set(names))]
    verdicts = [row.verdict for row in scored]
    try:
        found = judge_against_humans(verdicts, humans, categories=menu, rng=rng)
    except (InsufficientDataError, InvalidInputError) as error:  # too few, or no label in common
        return [Figure(name="over_human_ceiling", value=None, observations=0, reason=str(error))]
    return [
        Figure(name="judge_human", value=found.judge_human, observations=found.items),
        Figure(name="human_human", value=found.human_human, observations=found.items),
        _with_interval("over_human_ceiling", found.difference, found.interval, found.items),
    ]


def _refuse_foreign(scored: Sequence[LabelledVerdict], categories: Sequence[str] | None) -> None:
    """Refuse labels of two sets before a tie between orders makes them overlap."""
    people = {row.human for row in scored}
    judge = {str(row.judge) for row in scored}
    swapped = {str(row.swapped) for row in scored if row.both_orders}
    places = range(max(len(row.others) for row in scored))
    others = [
        {str(row.others[i]) for row in scored if i < len(row.others) and row.others[i] is not None}
        for i in places
    ]
    if categories is not None:
        unknown = people.union(judge, swapped, *others) - set(categories) - {TIE}
        if unknown:
            raise InvalidInputError(
                f"labels must be among {', '.join(categories)}, got {', '.join(sorted(unknown))}; "
                "recode them or name all categories"
            )
        return
    if are_winners(people.union(judge, swapped, *others)):
        return
    compared = [("judge", judge), ("judge (other order)", swapped)]
    for who, found in [*compared, *(("further people", labels) for labels in others)]:
        labels = found - {TIE}
        one_holds_the_other = people <= labels | {TIE} or labels <= people
        if labels and (people.isdisjoint(labels) or not one_holds_the_other):
            raise InvalidInputError(
                f"{who} and people must use one set of labels, got {', '.join(sorted(labels))} and "
                f"{', '.join(sorted(people))}; recode one of them, or name the categories if they "
                "belong to one scale"
            )


def _categories(
    human: Sequence[str],
    judge: Sequence[str],
    categories: Sequence[str] | None,
    *,
    paired: bool,
) -> list[str]:
    if categories is None:
        names = sorted({*human, *judge}, key=_menu_order)
        if TIE in names:
            names.remove(TIE)
    else:
        names = list(categories)
    tied = TIE in judge or TIE in human
    if tied and TIE not in names and (paired or categories is None):
        names.insert(1 if len(names) == 2 else len(names), TIE)  # between the winners of a pair
    return names


WORDS = (True, 0.0, "")


def _menu_order(name: str) -> tuple[bool, float, str]:
    """Numbers by size, then words."""
    try:
        number = float(name)
    except ValueError:
        return True, 0.0, name
    return (False, number, name) if math.isfinite(number) else (True, 0.0, name)


def _confusion(
    human: Sequence[str], judge: Sequence[str], names: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    counts = Counter(zip(human, judge, strict=True))
    return tuple(tuple(counts[one, other] for other in names) for one in names)


def _disagreements(
    scored: Sequence[LabelledVerdict], names: Sequence[str], *, ordered: bool
) -> tuple[Disagreement, ...]:
    """All of them, the most telling first: far apart, people unanimous, the judge firm.

    Names without an order, such as queues, are all equally far apart.
    """
    place = {name: rank for rank, name in enumerate(names)}
    found = []
    for row in scored:
        verdict = str(row.verdict)
        if verdict == row.human:
            continue
        given = [row.human, *(other for other in row.others if other is not None)]
        unanimity = given.count(row.human) / len(given)
        firmness = 0.5 if verdict == TIE else 1.0
        apart = abs(place[verdict] - place[row.human]) if ordered else len(names) - 1
        distance = apart / (len(names) - 1)
        weight = distance * unanimity * firmness
        found.append(Disagreement(row.item_id, row.human, verdict, weight))
    return tuple(sorted(found, key=lambda item: (-item.weight, item.item_id)))


def _unscored(rows: Sequence[LabelledVerdict]) -> dict[str, int]:
    kinds = (row.reason or "no verdict" for row in rows if row.verdict is None)
    reasons = Counter(kind.partition(":")[0] for kind in kinds)
    return dict(reasons.most_common())


def _unscored_only(rows: Sequence[LabelledVerdict], bar: Bar) -> Validation:
    missing = f"none of {len(rows)} labelled items has a verdict"
    enough = len(rows) >= bar.minimum_items
    return Validation(
        decision="not usable" if enough else "not enough labels",
        reasons=(missing,),
        items=0,
        unscored=_unscored(rows),
        kappa=cohen_kappa([], []),
        kappa_bound=None,
        figures=(_share("agreement_of_all", 0, len(rows)), _share("scored", 0, len(rows))),
        categories=(),
        confusion=(),
        more_labels=None,
        disagreements=(),
    )


def _share(name: str, events: int, trials: int) -> Figure:
    if trials == 0:
        return Figure(name=name, value=None, observations=0, reason="nothing to compare")
    return _with_interval(name, events / trials, wilson(events, trials), trials)


def _coefficient(name: str, result: Agreement, items: int) -> Figure:
    if result.value is None:
        return Figure(name=name, value=None, observations=items, reason=result.reason)
    if result.interval is None:
        return Figure(name=name, value=result.value, observations=items)
    return _with_interval(name, result.value, result.interval, items)


def _with_interval(name: str, value: float, interval: Interval, observations: int) -> Figure:
    lower, upper = interval.lower, interval.upper
    return Figure(name=name, value=value, lower=lower, upper=upper, observations=observations)
