"""Checks of the verdicts and labels that corrected rates are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from ratchet.errors import InvalidInputError, UnequalMissingError

FloatArray = NDArray[np.float64]
UNEQUAL_MISSING = 0.001  # p below which shares of missing verdicts count as different


def shares_of(name: str, values: ArrayLike) -> FloatArray:
    """Verdicts or labels as shares in [0, 1], NaN where there is none.

    Raises:
        InvalidInputError: A value is out of range.
    """
    found = np.asarray(values, dtype=np.float64).ravel()
    wrong = ~np.isnan(found) & ~((found >= 0.0) & (found <= 1.0))
    if wrong.any():
        raise InvalidInputError(
            f"{name} must be in [0, 1] or NaN for none, got {found[wrong][0]:g}; pass 0 for a "
            "failure, 1 for a pass, 0.5 for a tie"
        )
    return found


def one_length(*arrays: FloatArray) -> None:
    """Refuse arrays of different lengths.

    Raises:
        InvalidInputError: They differ.
    """
    if len({part.size for part in arrays}) > 1:
        raise InvalidInputError(
            f"arrays must have one value for each example, got lengths "
            f"{[part.size for part in arrays]}; pass NaN for what there is not"
        )


def equal_missing(first: NDArray[np.bool_], second: NDArray[np.bool_], one: str, two: str) -> None:
    """Refuse shares of missing verdicts that differ (two-sided Fisher test).

    Args:
        first: Whether each verdict of one group is missing.
        second: The same of the other group.
        one: What the first group is, for the message.
        two: What the second group is.

    Raises:
        UnequalMissingError: They differ by more than chance, p < 0.001.
    """
    lost = (int(first.sum()), int(second.sum()))
    table = [[lost[0], first.size - lost[0]], [lost[1], second.size - lost[1]]]
    if sum(lost) and stats.fisher_exact(table).pvalue < UNEQUAL_MISSING:
        raise UnequalMissingError(
            f"verdicts must be missing as often on {one} as on {two}, got {lost[0]} of "
            f"{first.size} and {lost[1]} of {second.size}; have the judge rate what is missing"
        )


def quantile(level: float) -> float:
    """Normal quantile of a two-sided level.

    Raises:
        InvalidInputError: The level is out of range.
    """
    if not 0.0 < level < 1.0:
        raise InvalidInputError(f"level must be in (0, 1), got {level}; pass 0.95 for 95 %")
    return float(special.ndtri((1.0 + level) / 2.0))
