"""Checks of arguments that control charts and their run lengths share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray, IntArray
from ratchet.stats.checks import require as require

Counts = Sequence[int] | IntArray
Values = Sequence[float] | FloatArray


def require_positive(name: str, value: float) -> None:
    """Refuse a number that is not finite and above 0."""
    require(
        0.0 < value < math.inf,
        f"{name} must be finite and above 0, got {value}; pass a positive number",
    )


def require_finite(name: str, value: float) -> None:
    """Refuse a number that is infinite or not a number."""
    require(math.isfinite(value), f"{name} must be finite, got {value}; pass 0 for none")


def require_whole(name: str, value: int) -> None:
    """Refuse a number of points that is not a whole one from 1."""
    require(
        value >= 1 and float(value).is_integer(),
        f"{name} must be a whole number from 1, got {value}; pass how many there are",
    )


def require_weight(weight: float) -> None:
    """Refuse a weight of an EWMA chart outside [0.001, 1]."""
    require(
        0.001 <= weight <= 1.0,
        f"weight must be in [0.001, 1], got {weight}; 0.05 to 0.25 is usual",
    )


def require_rate(name: str, rate: float, *, closed: bool = False) -> None:
    """Refuse a rate outside (0, 1), or outside [0, 1] where `closed`."""
    inside = 0.0 <= rate <= 1.0 if closed else 0.0 < rate < 1.0
    interval = "[0, 1]" if closed else "(0, 1)"
    require(inside, f"{name} must be in {interval}, got {rate}; pass a share, 0.05 for 5 %")


def require_cusum(
    reference: float, decision_interval: float, head_start: float, *, two_sided: bool
) -> None:
    """Refuse parameters of a normal CUSUM that make no chart or one without a known run length."""
    require(
        0.0 <= reference < math.inf,
        f"reference must be at least 0, got {reference}; half the shift to be found is usual, "
        "0.5 for one standard deviation",
    )
    require(
        0.0 < decision_interval <= 500.0,
        f"decision_interval must be in (0, 500], got {decision_interval}; 4 or 5 is usual with "
        "reference 0.5, and a larger reference needs a smaller one",
    )
    require_head_start(head_start, decision_interval)
    require(
        not two_sided or head_start <= decision_interval / 2.0 + reference,
        f"a two-sided head_start must be at most decision_interval / 2 + reference, beyond which "
        f"both sides can be up at once, got {head_start}; pass decision_interval / 2",
    )


def require_head_start(head_start: float, decision_interval: float) -> None:
    """Refuse a head start outside [0, decision interval)."""
    require(
        0.0 <= head_start < decision_interval,
        f"head_start must be at least 0 and below decision_interval {decision_interval}, got "
        f"{head_start}; half the interval is usual",
    )


def checked_values(name: str, values: Values | Counts, *, fewest: int) -> FloatArray:
    """Return finite numbers as an array of shape (n,).

    Raises:
        InsufficientDataError: There are fewer than `fewest`.
        InvalidInputError: They are not one-dimensional and finite.
    """
    array = np.asarray(values, dtype=np.float64)
    require(
        array.ndim == 1,
        f"{name} must be one-dimensional, got shape {array.shape}; pass one number a point",
    )
    if array.size < fewest:
        raise InsufficientDataError(
            f"a control chart needs at least {fewest} point{'s' if fewest > 1 else ''}, got "
            f"{array.size}; collect for longer or use shorter spans of time"
        )
    worst = int(np.argmin(np.isfinite(array)))
    require(
        bool(np.isfinite(array).all()),
        f"{name} must be finite, got {array[worst]} at point {worst}; leave out points without a "
        "value",
    )
    return array


def checked_counts(counts: Counts | FloatArray, *, fewest: int) -> FloatArray:
    """Return counts, at least 0, as an array of shape (n,)."""
    events = checked_values("counts", counts, fewest=fewest)
    worst = int(np.argmax(events < 0.0))
    require(
        bool((events >= 0.0).all()),
        f"each count must be at least 0, got {events[worst]:g} at point {worst}; pass counts of "
        "events",
    )
    return events


def checked_shares(
    counts: Counts | FloatArray, sizes: Counts | FloatArray, *, fewest: int
) -> tuple[FloatArray, FloatArray]:
    """Return counts and the sizes that they are at most, arrays of shape (n,)."""
    events, observed = _same_length(counts, sizes, "sizes", "size")
    checked_values("counts", events, fewest=fewest)
    checked_values("sizes", observed, fewest=fewest)
    require(
        bool((observed >= 1.0).all()),
        f"each size must be at least 1, got {observed.min():g}; leave out empty points",
    )
    worst = int(np.argmax((events < 0.0) | (events > observed)))
    require(
        bool(((events >= 0.0) & (events <= observed)).all()),
        f"each count must be from 0 to its size, got {events[worst]:g} of {observed[worst]:g} at "
        f"point {worst}; check the order of the arguments",
    )
    return events, observed


def checked_rates(
    counts: Counts, exposures: Values, *, fewest: int
) -> tuple[FloatArray, FloatArray]:
    """Return counts, at least 0, and exposures, above 0, arrays of shape (n,)."""
    events, exposed = _same_length(counts, exposures, "exposures", "exposure")
    checked_counts(events, fewest=fewest)
    checked_values("exposures", exposed, fewest=fewest)
    require(
        bool((exposed > 0.0).all()),
        f"each exposure must be above 0, got {exposed.min():g}; leave out empty points",
    )
    return events, exposed


def _same_length(
    counts: Counts | FloatArray, others: Values | Counts, name: str, one: str
) -> tuple[FloatArray, FloatArray]:
    events = np.asarray(counts, dtype=np.float64)
    other = np.asarray(others, dtype=np.float64)
    require(
        events.ndim == 1 and events.shape == other.shape,
        f"counts and {name} must be one-dimensional and equally long, got shapes {events.shape} "
        f"and {other.shape}; pass one count and one {one} a point",
    )
    return events, other
