"""What a metric says of each example, so that all comparison is paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.evaluation.directions import direction_of
from ratchet.stats.arrays import BoolArray, FloatArray
from ratchet.stats.comparisons.corpus_scores import BootstrapComparison, paired_bootstrap

Answer = str | None
"""What a model said; None where it gave no answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One metric of one system.

    Attributes:
        name: The metric.
        values: A score for each example, shape (n,); nan where there is none.
        higher_is_better: Its direction, by its name.
        statistics: What the score of the whole is made of, shape (n, statistics): sums over
            examples go into `score`. Rows of examples without a score are nan.
        score: From sums of shape (rows, statistics) to a score a row.
    """

    name: str
    values: FloatArray
    higher_is_better: bool
    statistics: FloatArray
    score: Callable[[FloatArray], FloatArray]

    @property
    def observed(self) -> BoolArray:
        """Which examples have a score."""
        return ~np.isnan(self.values)

    @property
    def whole(self) -> float:
        """The score of all examples that have one: a mean, or what the metric computes from sums.

        Raises:
            InsufficientDataError: None has.
        """
        if not self.observed.any():
            raise InsufficientDataError(
                f"{self.name} needs at least 1 example with a score, got none of "
                f"{self.values.size}; see why answers or targets are missing"
            )
        return float(self.score(self.statistics[self.observed].sum(axis=0, keepdims=True))[0])


def mean_scored(name: str, values: Sequence[float] | FloatArray) -> Scored:
    """Return a metric whose whole is the mean of its examples; nan is no score."""
    numbers = np.asarray(values, dtype=np.float64)
    statistics = np.column_stack([numbers, np.where(np.isnan(numbers), np.nan, 1.0)])
    return summed_scored(name, numbers, statistics, _ratio)


def summed_scored(
    name: str,
    values: FloatArray,
    statistics: FloatArray,
    score: Callable[[FloatArray], FloatArray],
) -> Scored:
    """Return a metric whose whole is a function of sums over its examples."""
    return Scored(name, values, direction_of(name) is not False, statistics, score)


def bootstrap_scored(
    first: Scored, second: Scored, *, rng: np.random.Generator, resamples: int = 1_000
) -> BootstrapComparison:
    """Paired bootstrap of the whole score over the examples that both systems have a score for.

    Raises:
        InsufficientDataError: Fewer than two such examples.
        InvalidInputError: The metrics differ, or the numbers of examples.
    """
    if first.name != second.name or first.values.size != second.values.size:
        raise InvalidInputError(
            f"both systems need the same metric on the same examples, got {first.name} on "
            f"{first.values.size} and {second.name} on {second.values.size}; score one list"
        )
    rows = first.observed & second.observed
    return paired_bootstrap(
        first.statistics[rows],
        second.statistics[rows],
        first.score,
        rng=rng,
        resamples=resamples,
    )


def checked_lengths(answers: Sequence[Answer], targets: Sequence[object]) -> None:
    """Refuse lists of different lengths.

    Raises:
        InvalidInputError: They differ.
    """
    if len(answers) != len(targets):
        raise InvalidInputError(
            f"answers and targets must be equally long, got {len(answers)} and {len(targets)}; "
            "pass None for an example without an answer"
        )


def _ratio(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[:, 0] / sums[:, 1])
