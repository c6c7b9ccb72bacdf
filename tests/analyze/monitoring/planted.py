"""Counts of a world whose rates are known, drawn batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from ratchet.analyze.monitoring.baselines import baseline_from_counts
from ratchet.analyze.monitoring.batches import Counts
from ratchet.records import Baseline

BATCH = 300
DAY = 288  # batches
START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
RATES = {
    "thumbs_down": 0.08,
    "regenerated": 0.10,
    "not_copied": 0.60,
    "failed": 0.002,
    "no_feedback": 0.94,
}
TRIALS = dict.fromkeys(RATES, 100.0) | {"thumbs_down": 10.0}
SEGMENTS = ("web", "app", "other")
MIX = (0.6, 0.4, 0.0)


def moment(batch: int) -> datetime:
    return START + timedelta(seconds=BATCH * batch)


def logit(rate):
    return np.log(rate) - np.log1p(-np.asarray(rate))


def expit(log_odds):
    return 1.0 / (1.0 + np.exp(-np.asarray(log_odds)))


def draw(
    rng: np.random.Generator,
    batches: int,
    *,
    first: int = 0,
    changed: Mapping[tuple[str, str | None], float] | None = None,
    rates: Mapping[str, float] = RATES,
    trials: Mapping[str, float] = TRIALS,
    segments: Sequence[str] = SEGMENTS,
    mix: Sequence[float] | np.ndarray = MIX,
    offsets: np.ndarray | float = 0.0,
    traffic: np.ndarray | float = 1.0,
) -> Counts:
    """Draw Poisson trials and binomial events.

    `changed` holds rates by signal and segment (None for all) that take the place of `rates`;
    `offsets` are log odds added, `traffic` multiplies the trials: both broadcast against
    (batches, 1, segments). `mix` is the share of each segment, of shape (..., segments).
    """
    names = tuple(rates)
    shape = (batches, len(names), len(segments))
    log_odds = np.broadcast_to(logit([rates[n] for n in names])[None, :, None], shape).copy()
    for (name, segment), rate in (changed or {}).items():
        places = slice(None) if segment is None else segments.index(segment)
        log_odds[:, names.index(name), places] = logit(rate)
    mean = np.array([trials[n] for n in names])[None, :, None] * np.asarray(traffic)
    shares = np.asarray(mix, dtype=float).reshape(-1, 1, len(segments))
    seen = rng.poisson(np.broadcast_to(mean * shares, shape))
    bad = rng.binomial(seen, expit(log_odds + np.asarray(offsets)))
    starts = START.timestamp() + BATCH * (first + np.arange(batches, dtype=np.float64))
    return Counts(starts, tuple(segments), names, bad, seen)


def freeze(counts: Counts, version: str = "router/1") -> Baseline:
    start = datetime.fromtimestamp(counts.starts[0], UTC)
    end = start + timedelta(seconds=BATCH * len(counts))
    return baseline_from_counts(
        counts, cuts={}, model_version=version, start=start, end=end, now=end
    )
