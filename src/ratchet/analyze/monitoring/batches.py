"""What is watched: each signal turned into bad events among trials, in batches of equal time.

Everything is a share. A latency, a length or a score becomes one by a cut-off that is frozen with
the baseline: the share of answers slower than the baseline's median, longer than its 95th
percentile, of lower quality than its 10th. One kind of statistic then serves all signals.

Feedback of users counts where it was given within the lag of five minutes, later feedback counts in
the metrics alone. So all interactions are compared at the same age, and a thumb that takes a day
neither delays the chart nor makes yesterday look better than today. Scores of judges and decisions
of reviewers count whenever they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records.signals import BOARD_SHARES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BATCH_SECONDS = 300
OTHER = "other"
MOST_SEGMENTS = 8
SMALLEST_SEGMENT = 0.05

NAMES: tuple[str, ...] = tuple(share.name for share in BOARD_SHARES)


@dataclass(frozen=True, slots=True)
class Observations:
    """Ripe interactions of one model version with what was seen of them: arrays of shape (n,).

    Attributes:
        seconds: When the answer was given, in seconds since 1970, UTC.
        segments: Where it came from.
        values: For each signal its number or yes (1) and no (0); nan where not observed.
    """

    seconds: FloatArray
    segments: NDArray[np.object_]
    values: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return int(self.seconds.size)


@dataclass(frozen=True, slots=True)
class Counts:
    """Bad events among trials.

    Attributes:
        starts: When each batch began, in seconds since 1970, shape (batches,).
        segments: Names of the segments.
        signals: Names of the signals.
        events: Bad events, shape (batches, signals, segments).
        trials: Trials, same shape.
    """

    starts: FloatArray
    segments: tuple[str, ...]
    signals: tuple[str, ...]
    events: IntArray
    trials: IntArray

    def __len__(self) -> int:
        return int(self.starts.size)


def cut_offs(observations: Observations) -> dict[str, float]:
    """Return the baseline's cut-off of each signal that is a number and was observed."""
    cuts = {}
    for signal in BOARD_SHARES:
        values = observations.values.get(signal.name)
        if signal.cut is None or values is None:
            continue
        seen = values[~np.isnan(values)]
        if seen.size:
            cuts[signal.name] = float(np.quantile(seen, signal.cut[0]))
    return cuts


def main_segments(observations: Observations) -> tuple[str, ...]:
    """Return the segments with at least 5 % of the traffic, largest first, 8 at most, and `other`.

    What the baseline did not see counts as `other` later.
    """
    names, sizes = np.unique(observations.segments.astype(str), return_counts=True)
    order = np.lexsort((names, -sizes))
    large = [
        str(names[i])
        for i in order
        if sizes[i] >= SMALLEST_SEGMENT * len(observations) and names[i] != OTHER
    ]
    return (*large[:MOST_SEGMENTS], OTHER)


def count(
    observations: Observations,
    *,
    start: float,
    end: float,
    segments: Sequence[str],
    cuts: Mapping[str, float],
    signals: Sequence[str] = NAMES,
    batch_seconds: int = BATCH_SECONDS,
) -> Counts:
    """Count bad events and trials in batches of equal time from `start` up to `end`.

    Args:
        observations: What was seen; interactions outside the span are left out.
        start: Start of the first batch, in seconds since 1970.
        end: End of the last batch; a last batch that is not whole is left out.
        segments: Segments to tell apart; the last one takes all others.
        cuts: Cut-offs of the baseline.
        signals: What to count.
        batch_seconds: Length of a batch.

    Raises:
        InvalidInputError: The batches are shorter than a second, or the span is negative.
    """
    if batch_seconds < 1 or end < start:
        raise InvalidInputError(
            f"batches must last a second or more and end after they start, got {batch_seconds} s "
            f"from {start:g} to {end:g}; {BATCH_SECONDS} s is the default"
        )
    batches = int((end - start) // batch_seconds)
    batch_of_row = np.floor((observations.seconds - start) / batch_seconds)
    inside = (batch_of_row >= 0) & (batch_of_row < batches)
    codes = _codes(observations.segments[inside], segments)
    cell = batch_of_row[inside].astype(np.int64) * len(segments) + codes
    grid, size = (batches, len(segments)), batches * len(segments)
    shape = (batches, len(signals), len(segments))
    events, trials = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for position, name in enumerate(signals):
        bad = bad_events(name, observations.values.get(name), cuts)
        if bad is None:
            continue
        bad = bad[inside]
        seen = ~np.isnan(bad)
        trials[:, position, :] = np.bincount(cell[seen], minlength=size).reshape(grid)
        worse = cell[seen & (bad > 0.0)]
        events[:, position, :] = np.bincount(worse, minlength=size).reshape(grid)
    starts = start + batch_seconds * np.arange(batches, dtype=np.float64)
    return Counts(starts, tuple(segments), tuple(signals), events, trials)


def bad_events(
    name: str, values: FloatArray | None, cuts: Mapping[str, float]
) -> FloatArray | None:
    """Return 1 for bad, 0 for not, nan for not observed; None where the signal cannot be judged."""
    share = BOARD_SHARES[NAMES.index(name)]
    if values is None:
        return None
    if share.cut is None:
        return values
    if name not in cuts:
        return None
    cut = cuts[name]
    bad = values > cut if share.cut[1] == "above" else values < cut
    return np.where(np.isnan(values), np.nan, bad.astype(np.float64))


def observed_signals(counts: Counts, minimum: int) -> tuple[str, ...]:
    """Return the signals with at least `minimum` trials.

    Raises:
        InsufficientDataError: There is none.
    """
    totals = counts.trials.sum(axis=(0, 2))
    names = tuple(
        name for name, total in zip(counts.signals, totals, strict=True) if total >= minimum
    )
    if not names:
        raise InsufficientDataError(
            f"monitoring needs a signal with at least {minimum} observations, got at most "
            f"{int(totals.max(initial=0))}; collect for longer"
        )
    return names


def _codes(segments: NDArray[np.object_], known: Sequence[str]) -> IntArray:
    codes = np.full(segments.size, len(known) - 1, dtype=np.int64)
    for code, name in enumerate(known[:-1]):
        codes[segments == name] = code
    return codes
