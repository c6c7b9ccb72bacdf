"""Several metrics at once: which claims hold together at one level.

A gate that promotes only where every requirement holds needs no correction: were one requirement
false, its own test would have to err (`all_must_hold`). Claims each of which may be made alone need
Holm's procedure (`holm`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray


def holm(p_values: Sequence[float] | FloatArray) -> FloatArray:
    """Holm's adjusted p-values: claim each whose adjusted p is at most the level.

    With p sorted upwards, the adjusted p of rank j is max over i <= j of min(1, (m - i + 1) p_(i)).

    Units: probabilities.
    Assumptions: valid p-values, which may depend on each other in any way.
    Error rate: the chance of any false claim is at most the level.
    When not to use: where all must hold anyway (`all_must_hold`); for many hypotheses of which some
    false ones may be claimed.

    Args:
        p_values: Shape (m,).

    Returns:
        Adjusted p-values in the order given, shape (m,).

    Raises:
        InvalidInputError: A p-value is outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]

    References:
        Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian
        Journal of Statistics 6, 65-70.
    """
    values = _probabilities(p_values)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1.0, values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps) if values.size else steps
    return adjusted


def all_must_hold(p_values: Sequence[float] | FloatArray) -> float:
    """P-value of "not every requirement holds": the largest of all (intersection-union test).

    Units: a probability.
    Assumptions: valid p-values, which may depend on each other in any way.
    Error rate: if any requirement is false, the chance to say that all hold is at most the level,
    however many there are; the more of them, the further below it.
    When not to use: where one of them is enough (`holm`).

    Args:
        p_values: Of each requirement, at least one.

    Raises:
        InsufficientDataError: There are none.
        InvalidInputError: A p-value is outside [0, 1].

    Example:
        >>> all_must_hold([0.001, 0.04, 0.02])
        0.04

    References:
        Berger, R. L. (1982). Multiparameter hypothesis testing and acceptance sampling.
        Technometrics 24, 295-300.
    """
    values = _probabilities(p_values)
    if values.size == 0:
        raise InsufficientDataError("requirements must be at least 1, got none; name one")
    return float(values.max())


def _probabilities(p_values: Sequence[float] | FloatArray) -> FloatArray:
    values = np.asarray(p_values, dtype=np.float64).ravel()
    if not np.all((values >= 0.0) & (values <= 1.0)):
        raise InvalidInputError(f"p-values must be in [0, 1], got {values.tolist()}; test again")
    return values
