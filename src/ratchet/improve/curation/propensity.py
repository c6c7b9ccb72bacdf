"""What an interaction with feedback stands for: the inverse of the chance that it got any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InvalidInputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

_PRIOR = 20.0


class PropensityConfig(BaseModel):
    """How feedback is weighed against the chance that it is given.

    Attributes:
        enabled: Weigh rows; else each weighs 1.
        largest: No row stands for more than so many average ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    largest: Annotated[float, Field(ge=1.0, le=100.0)] = 5.0


def propensity_weights(
    strata: NDArray[Any],
    observed: BoolArray,
    *,
    largest: float,
    known: FloatArray | None = None,
    sizes: IntArray | None = None,
) -> FloatArray:
    """Return how many average interactions with feedback each one stands for, shape (n,).

    Formula:
        w = min(largest, r / p) with p the chance of feedback: known, or the rate of the stratum,
        shrunken to the overall rate r with the weight of 20 interactions.

    Assumptions:
        Given its stratum, whether an interaction gets feedback does not depend on how good it is.
        Where people report what annoys them, it does, and no weight that is made from what was
        observed alone mends that.

    Error rate:
        A mean over the weighed interactions is that over all of them, but for the cap and the
        shrinkage, which both pull it towards the unweighed mean.

    Args:
        strata: The stratum of each interaction, from 0, shape (n,).
        observed: Whether it got feedback, shape (n,).
        largest: The cap.
        known: Chance of feedback where it is known (a share of users asked), shape (n,); nan
            where it is not.
        sizes: Interactions in each stratum, where the rows here are those with feedback alone; by
            default they are all there are.

    Raises:
        InvalidInputError: A known chance is outside (0, 1].

    References:
        Horvitz, D. G. and Thompson, D. J. (1952). A generalization of sampling without
        replacement from a finite universe. JASA 47, 663-685.
        Schnabel, T. et al. (2016). Recommendations as treatments: debiasing learning and
        evaluation. ICML.
    """
    if not len(strata):
        return np.empty(0)
    sizes = np.bincount(strata) if sizes is None else sizes
    rate = float((observed.sum() + 0.5) / (sizes.sum() + 1.0))
    given = np.bincount(strata, weights=observed, minlength=len(sizes))
    chance = ((given + _PRIOR * rate) / (sizes + _PRIOR))[strata]
    if known is not None:
        told = ~np.isnan(known)
        if ((known[told] <= 0.0) | (known[told] > 1.0)).any():
            raise InvalidInputError(
                f"a chance of feedback must be in (0, 1], got {known[told].min()} to "
                f"{known[told].max()}; pass nan where it is not known"
            )
        chance = np.where(told, known, chance)
    weights: FloatArray = np.minimum(rate / chance, largest)
    return weights


def strata_of(
    segments: NDArray[Any], lengths: Sequence[NDArray[Any]], cuts: Sequence[FloatArray]
) -> NDArray[np.int32]:
    """Return the number of each row's stratum: the segment, and the third of each length."""
    codes = segments.astype(np.int64)
    for length, limits in zip(lengths, cuts, strict=True):
        codes = codes * 3 + np.digitize(length, limits)
    return codes.astype(np.int32)


def length_cuts(lengths: NDArray[Any], counts: IntArray) -> FloatArray:
    """Return where the second and the last third of lengths begin, as `np.quantile` has it.

    Args:
        lengths: Distinct lengths, ascending.
        counts: How often each is there.

    Returns:
        Two lengths; infinity where there are none.
    """
    if not len(lengths):
        return np.full(2, np.inf)
    ends = np.cumsum(counts)
    wanted = np.array([1 / 3, 2 / 3]) * (ends[-1] - 1)
    below = np.floor(wanted)
    left, right = (
        lengths[np.searchsorted(ends, np.minimum(place, ends[-1] - 1), side="right")].astype(
            np.float64
        )
        for place in (below, below + 1)
    )
    part, step = wanted - below, right - left
    cuts: FloatArray = np.where(part >= 0.5, right - step * (1.0 - part), left + step * part)
    return cuts
