"""The biases of a judge as figures of its validation report.

| figure | what it is | no bias |
|---|---|---|
| `position_effect` | win rate of the answer shown first, minus a half | 0 |
| `raw_win_rate` | win rate of the first answer of the pairs, both orders combined | |
| `length_controlled_win_rate` | the same at equal length | near the raw one |
| `length_effect` | gain in win rate of an answer longer by one standard deviation | 0 |
| `longest_answer_judge`, `longest_answer_human` | how often "the longer wins" agrees | alike |
| `self_preference` | judge minus people for answers of the judge's own family | 0 |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InsufficientDataError
from ratchet.judges.label_sets import LabelledVerdict
from ratchet.records import Figure
from ratchet.stats.intervals import Interval
from ratchet.stats.judges.bias import position_bias, self_preference
from ratchet.stats.judges.length import length_controlled_win_rate

FloatArray = NDArray[np.float64]
FIRST = frozenset({"1", "a", "first", "model_a"})
SECOND = frozenset({"2", "b", "second", "model_b"})


def figure(name: str, value: float, interval: Interval, observations: int) -> Figure:
    """Return an estimate with its interval as a figure."""
    lower, upper = interval.lower, interval.upper
    return Figure(name=name, value=value, lower=lower, upper=upper, observations=observations)


def undefined(name: str, error: Exception, observations: int = 0) -> Figure:
    """Return a figure without a value, and why."""
    return Figure(name=name, value=None, observations=observations, reason=str(error))


def worth(label: str | None) -> float:
    """Return a winner as a verdict on the first answer: 1, 0, a tie 0.5, none NaN."""
    name = (label or "").casefold()
    return 1.0 if name in FIRST else 0.0 if name in SECOND else 0.5 if name == "tie" else math.nan


def effect_figures(
    rows: Sequence[LabelledVerdict], names: Sequence[str], judge_family: str | None
) -> list[Figure]:
    """Measure the biases that the rows allow; none where labels are not winners of pairs."""
    if not all(name.casefold() in FIRST | SECOND | {"tie"} for name in names):
        return []
    found = []
    both = [row for row in rows if row.both_orders]
    if both:
        found += _defined("position_effect", _position, both)
    sized = [row for row in rows if row.lengths is not None]
    if sized:
        found += _defined("length_controlled_win_rate", _length, sized)
    kin = [row for row in rows if row.families is not None and judge_family is not None]
    if kin and judge_family is not None:
        found += _defined("self_preference", partial(_family, own=judge_family), kin)
    return found


def _defined(
    name: str,
    measure: Callable[[Sequence[LabelledVerdict]], list[Figure]],
    rows: Sequence[LabelledVerdict],
) -> list[Figure]:
    try:
        return measure(rows)
    except InsufficientDataError as error:
        return [undefined(name, error, len(rows))]


def _position(rows: Sequence[LabelledVerdict]) -> list[Figure]:
    found = position_bias(_worths(row.judge for row in rows), _worths(row.swapped for row in rows))
    first = found.first_position
    figures = [figure("position_effect", found.estimate, found.interval, found.pairs)]
    if first is not None:
        disagreeing = found.disagreements
        figures.append(
            figure("first_shown_among_disagreements", first.estimate, first.interval, disagreeing)
        )
    return figures


def _length(rows: Sequence[LabelledVerdict]) -> list[Figure]:
    """Of lengths a and b the difference is that of their logarithms."""
    differences = [math.log(a + 1.0) - math.log(b + 1.0) for a, b in (_sizes(r) for r in rows)]
    found = length_controlled_win_rate(
        _worths(row.verdict for row in rows),
        differences,
        human_verdicts=_worths(row.human for row in rows),
    )
    pairs, raw, longest = found.pairs, found.raw, found.longest_answer_judge
    figures = [
        figure("raw_win_rate", raw.estimate, raw.interval, pairs),
        figure("length_controlled_win_rate", found.estimate, found.interval, pairs),
        figure("length_effect", found.length_effect.estimate, found.length_effect.interval, pairs),
        figure("longest_answer_judge", longest.estimate, longest.interval, longest.pairs),
    ]
    people = found.longest_answer_human
    if people is not None:
        figures.append(
            figure("longest_answer_human", people.estimate, people.interval, people.pairs)
        )
    return figures


def _family(rows: Sequence[LabelledVerdict], own: str) -> list[Figure]:
    """Verdicts turned so that they are about the answer of the judge's own family."""
    judge, human, kin = [], [], []
    for row in rows:
        first, second = row.families or ("", "")
        one, other = worth(row.verdict), worth(row.human)
        turned = second == own and first != own
        judge.append(1.0 - one if turned else one)
        human.append(1.0 - other if turned else other)
        kin.append((first == own) != (second == own))
    found = self_preference(judge, human, kin)
    figures = [figure("self_preference", found.estimate, found.interval, found.pairs)]
    if found.difference is not None:
        effect, pairs = found.difference, found.pairs + found.other_pairs
        figures.append(
            figure("self_preference_over_others", effect.estimate, effect.interval, pairs)
        )
    return figures


def _sizes(row: LabelledVerdict) -> tuple[float, float]:
    return row.lengths or (0.0, 0.0)


def _worths(labels: Iterable[str | None]) -> FloatArray:
    return np.array([worth(label) for label in labels])
