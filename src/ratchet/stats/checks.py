"""Checks of arguments that the functions of this room share.

Each returns what it was given, as the type that the function goes on with, or raises
`InvalidInputError` with the rule, what was received and the way out.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import FloatArray


def require(condition: bool, message: str) -> None:
    """Raise `InvalidInputError` with the message unless the condition holds."""
    if not condition:
        raise InvalidInputError(message)


def checked_level(level: float) -> float:
    """Return a level in (0, 1).

    Raises:
        InvalidInputError: It is not.
    """
    require(0.0 < level < 1.0, f"level must be in (0, 1), got {level}; pass 0.95 for 95 %")
    return level


def normal_quantile(level: float) -> float:
    """Return the normal quantile of a two-sided level in (0, 1): 1.96 for 0.95.

    Raises:
        InvalidInputError: The level is out of range.
    """
    return float(special.ndtri((1.0 + checked_level(level)) / 2.0))


def bound_quantile(alpha: float) -> float:
    """Return the normal quantile of a one-sided bound that errs with chance alpha in (0, 1).

    Raises:
        InvalidInputError: Alpha is out of range.
    """
    require(
        0.0 < alpha < 1.0,
        f"alpha must be in (0, 1), got {alpha}; pass 0.05 for a 95 % one-sided bound",
    )
    return float(special.ndtri(1.0 - alpha))


def checked_count(name: str, value: int) -> int:
    """Return a whole number from 0 on.

    Raises:
        InvalidInputError: It is a share, or negative.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise InvalidInputError(
            f"{name} must be a whole number, got {value!r}; pass a count, not a share"
        ) from None
    require(count >= 0, f"{name} must not be negative, got {count}; pass a count")
    return count


def finite_values(values: ArrayLike, name: str = "values") -> FloatArray:
    """Return finite numbers as an array of shape (n,).

    Raises:
        InvalidInputError: One is infinite or not a number.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(sample).all():
        raise InvalidInputError(
            f"{name} must be finite, got {np.count_nonzero(~np.isfinite(sample))} that are not; "
            "leave out what was not observed"
        )
    return sample


def unit_scores(name: str, values: ArrayLike) -> FloatArray:
    """Return scores, verdicts or labels in [0, 1] as an array of shape (n,), NaN where none is.

    Raises:
        InvalidInputError: A value is out of range.
    """
    scores = np.asarray(values, dtype=np.float64).ravel()
    wrong = ~np.isnan(scores) & ~((scores >= 0.0) & (scores <= 1.0))
    if wrong.any():
        raise InvalidInputError(
            f"{name} must be in [0, 1] or NaN for none, got {scores[wrong][0]:g}; pass 1 for a win "
            "or a pass, 0 for a loss or a failure, 0.5 for a tie, or scores divided by their "
            "maximum"
        )
    return scores


def check_one_length(*arrays: NDArray[np.generic]) -> None:
    """Refuse arrays of different lengths.

    Raises:
        InvalidInputError: They differ.
    """
    if len({part.size for part in arrays}) > 1:
        raise InvalidInputError(
            f"arrays must have one value for each example, got lengths "
            f"{[part.size for part in arrays]}; pass NaN for what there is not"
        )
