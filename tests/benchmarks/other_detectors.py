"""What else people use, on the same batches: fixed thresholds, p charts, ADWIN, Page-Hinkley.

ADWIN and Page-Hinkley are river's. They watch two streams, the rates of thumbs down and of
regenerations in batches of five minutes, and alarm when either does; each is tuned on in-control
batches until it raises as many false alarms as the board. The p chart is Montgomery's with three
standard errors and the true rates as center, a point an hour; the thresholds are Ratchet's own.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.release_simulation import BATCH, SIGNALS, Rates, World

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
WATCHED = ("thumbs_down", "regenerated")
HOUR = 12
WARM_UP = 7 * 288
Alarms = FloatArray
"""The batch of each board's first alarm, nan for none, shape (boards,)."""


@dataclass
class Streams:
    """Events and trials of the two streams, shape (batches, boards, 2)."""

    events: IntArray
    trials: IntArray
    moments: FloatArray | None = None
    lag: float = 0.0

    @classmethod
    def empty(cls, batches: int, boards: int) -> Streams:
        """Room for so many batches."""
        return cls(
            np.zeros((batches, boards, 2), np.int32), np.zeros((batches, boards, 2), np.int32)
        )

    def put(self, batch: int, events: NDArray[Any], trials: NDArray[Any]) -> None:
        """Keep the two streams of a batch."""
        places = [SIGNALS.index(name) for name in WATCHED]
        self.events[batch], self.trials[batch] = events[:, places], trials[:, places]

    def first(self, batches: int) -> Streams:
        """The first batches."""
        return Streams(self.events[:batches], self.trials[:batches])

    def beginning(self, moments: FloatArray, lag: float) -> Streams:
        """Say when the release was, within the first batch."""
        self.moments, self.lag = moments, lag
        return self

    def minutes(self, alarms: Alarms) -> FloatArray:
        """Turn alarms into delays in minutes since the release."""
        assert self.moments is not None
        first = np.floor(self.moments / BATCH) * BATCH
        ended = first + (alarms + 1.0) * BATCH + self.lag
        return np.where(np.isnan(alarms), np.inf, (ended - self.moments) / 60.0)


def other_detectors(released: Streams, calm: Streams, wanted: float, world: World) -> list[str]:
    """Compare on the headline's batches; return a Markdown section.

    Args:
        released: Batches from the release on.
        calm: In-control batches.
        wanted: The board's false alarms in 30 days.
        world: Traffic.
    """
    rows = [
        _row("fixed thresholds (15 %, 20 %), last hour", released, calm, _thresholds, "as set"),
        _row("p charts, three standard errors, hourly", released, calm, _p_charts, "as set"),
    ]
    for name, make, settings in _river():
        setting, tuned = _tuned(make, settings, calm, wanted)
        rows.append(
            _row(f"river's {name}", released, calm, tuned, f"{setting:g}, tuned", warm=calm)
        )
    return [
        "## Beside what else is used",
        "",
        f"At {world.hourly:,.0f} interactions an hour with thumbs on {world.thumbs:.0%}, thumbs "
        "down 8 → 16 % and regenerated 10 → 15 %, on the same batches as the board.",
        "",
        "| detector | setting | median | 95th percentile | within 60 min "
        "| false alarms in 30 days |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _row(
    name: str,
    released: Streams,
    calm: Streams,
    detect: Callable[[Streams], Alarms],
    setting: str,
    warm: Streams | None = None,
) -> str:
    delays = released.minutes(_after_warm_up(detect, released, warm))
    rate = _false_alarms(detect(calm), calm.events.shape[0])
    median, late = (float(np.quantile(delays, q, method="higher")) for q in (0.5, 0.95))
    return (
        f"| {name} | {setting} | {_minutes(median)} | {_minutes(late)} "
        f"| {np.mean(delays <= 60.0):.1%} | {rate:.2f} |"
    )


def _minutes(value: float) -> str:
    return f"{value:.0f} min" if np.isfinite(value) else "not within 48 h"


def _after_warm_up(
    detect: Callable[[Streams], Alarms], released: Streams, warm: Streams | None
) -> Alarms:
    """Let detectors that learn as they go see a week in control before the release."""
    if warm is None:
        return detect(released)
    joined = Streams(
        np.concatenate([warm.events[:WARM_UP], released.events]),
        np.concatenate([warm.trials[:WARM_UP], released.trials]),
    )
    learnt = min(WARM_UP, warm.events.shape[0])
    return detect_from(detect, joined, learnt)


def detect_from(detect: Callable[..., Alarms], streams: Streams, start: int) -> Alarms:
    """Alarms from batch `start` on, counted from there."""
    return np.asarray(detect(streams, start) - start)


def _false_alarms(alarms: Alarms, batches: int) -> float:
    """First alarms in 30 days of watching up to them."""
    watched = np.where(np.isnan(alarms), batches, alarms + 1.0).sum() / 288.0
    return float(np.isfinite(alarms).sum() / watched * 30.0)


def _thresholds(streams: Streams, start: int = 0) -> Alarms:
    events, trials = _trailing(streams.events), _trailing(streams.trials)
    over = np.zeros(events.shape[:2], bool)
    for place, (limit, least) in enumerate(((0.15, 30), (0.20, 50))):
        seen = np.maximum(trials[:, :, place], 1)
        rate, z = events[:, :, place] / seen, 1.6449
        centre = (rate + z * z / (2 * seen)) / (1 + z * z / seen)
        half = z / (1 + z * z / seen) * np.sqrt(rate * (1 - rate) / seen + z * z / (4 * seen**2))
        over |= (centre - half > limit) & (trials[:, :, place] >= least)
    return _first(over, start)


def _p_charts(streams: Streams, start: int = 0) -> Alarms:
    hours = streams.events.shape[0] // HOUR
    shape = (hours, HOUR, *streams.events.shape[1:])
    events = streams.events[: hours * HOUR].reshape(shape).sum(axis=1)
    trials = np.maximum(streams.trials[: hours * HOUR].reshape(shape).sum(axis=1), 1)
    rates = np.array([Rates().thumbs_down, Rates().regenerated])
    half = 3.0 * np.sqrt(rates * (1.0 - rates) / trials)
    over = (np.abs(events / trials - rates) > half).any(axis=2)
    return _first(over, start) * HOUR + (HOUR - 1)


def _trailing(values: IntArray) -> NDArray[Any]:
    total = np.cumsum(values, axis=0, dtype=np.int64)
    return total - np.concatenate([np.zeros_like(total[:HOUR]), total[:-HOUR]])[: total.shape[0]]


def _first(over: NDArray[np.bool_], start: int) -> Alarms:
    later = over[start:]
    return np.where(later.any(axis=0), later.argmax(axis=0) + start, np.nan)


def _river() -> list[tuple[str, Callable[[float], Any], list[float]]]:
    if importlib.util.find_spec("river") is None:
        sys.stderr.write("river is not installed: its detectors are left out\n")
        return []
    from river import drift

    def page_hinkley(threshold: float) -> Any:
        return drift.PageHinkley(min_instances=288, delta=0.25, threshold=threshold, mode="up")

    def adwin(exponent: float) -> Any:
        return drift.ADWIN(delta=10.0**-exponent)

    return [
        ("Page-Hinkley (threshold)", page_hinkley, [4, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50]),
        ("ADWIN (delta = 10^-x)", adwin, [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40]),
    ]


def _tuned(
    make: Callable[[float], Any], settings: list[float], calm: Streams, wanted: float
) -> tuple[float, Callable[..., Alarms]]:
    """Return the most sensitive setting that raises no more false alarms than wanted."""
    few = Streams(calm.events[:, :60], calm.trials[:, :60])
    for setting in settings:
        detect = _detecting(make, setting)
        if _false_alarms(detect(few), few.events.shape[0]) <= wanted:
            return setting, detect
    return settings[-1], _detecting(make, settings[-1])


def _detecting(make: Callable[[float], Any], setting: float) -> Callable[..., Alarms]:
    rates = np.array([Rates().thumbs_down, Rates().regenerated])

    def detect(streams: Streams, start: int = 0) -> Alarms:
        trials = np.maximum(streams.trials, 1)
        scores = (streams.events / trials - rates) / np.sqrt(rates * (1 - rates) / trials)
        alarms = np.full(streams.events.shape[1], np.nan)
        for board in range(alarms.size):
            detectors = [make(setting), make(setting)]
            for batch, pair in enumerate(scores[:, board].tolist()):
                for detector, score in zip(detectors, pair, strict=True):
                    detector.update(score)
                if batch >= start and any(detector.drift_detected for detector in detectors):
                    alarms[board] = batch
                    break
        return alarms

    return detect
