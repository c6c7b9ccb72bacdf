"""What users met in each arm and stage of an experiment, counted from the store.

A user is the unit: arms are drawn by user, and users, not answers, are independent. An answer
counts once it is as old as the lag, with the feedback that came within it, so that both arms are
read at the same age and an answer without feedback yet does not count as a good one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from ratchet.evaluation.answer_facts import measure_answers
from ratchet.records import SIGNAL_NAMES, SignalName
from ratchet.records.rollout import CUT_SHARES, MEASURED_SHARES
from ratchet.records.signals import SIGNAL_OF
from ratchet.stats.arrays import BoolArray, FloatArray, IntArray
from ratchet.store import EventStore, Window, read_exposures

if TYPE_CHECKING:
    import pyarrow as pa

_SLICE = timedelta(days=1)
_CUT = ("slow", *CUT_SHARES)
"""Signals of numbers, which are bad above a limit."""


@dataclass(frozen=True, slots=True)
class Period:
    """A span of constant shares; answers given before `start` or from `end` on are left out."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Counts by user, stage, arm and signal.

    Attributes:
        arms: Labels, the control first.
        events: Bad answers, shape (users, stages, arms, signals); signals as `SIGNAL_NAMES`.
        trials: Answers of which it is known, same shape.
        seen: Whether a user met an arm in a stage, shape (users, stages, arms).
        interactions: Answers counted.
        latest: When each arm answered last, None where it did not.
    """

    arms: tuple[str, ...]
    events: IntArray
    trials: IntArray
    seen: BoolArray
    interactions: int
    latest: tuple[datetime | None, ...]

    def of(self, signal: SignalName) -> tuple[IntArray, IntArray]:
        """Return events and trials of a signal, shape (users, stages, arms)."""
        place = SIGNAL_NAMES.index(signal)
        return self.events[..., place], self.trials[..., place]


def read_tally(
    store: EventStore,
    periods: Sequence[Period],
    *,
    experiment: str,
    arms: Sequence[str],
    versions: Sequence[str],
    lag: timedelta,
    slow_seconds: float | None = None,
    limits: Mapping[str, float] | None = None,
    signals: Collection[str] = SIGNAL_NAMES,
    judges: Collection[str] = (),
) -> Tally:
    """Count an experiment's answers, a day at a time.

    An answer that another version gave in an arm's place has failed, and nothing else is said of
    it: a variant that always falls over is no good variant.

    Args:
        store: The store.
        periods: The stages so far, in order.
        experiment: Whose answers.
        arms: Labels of the arms, the control first; others are left out.
        versions: The version of each arm.
        lag: Age at which an answer is read.
        slow_seconds: From when on an answer is slow; without it none is known to be.
        limits: The same of tokens and cost, by signal.
        signals: Those that are asked for: what answers carry themselves is read for these alone.
        judges: Versions of judges whose verdicts count.
    """
    cuts: dict[str, float | None] = {**(limits or {}), "slow": slow_seconds}
    counter = _Counter(tuple(arms), tuple(versions), len(periods), cuts)
    measure = measure_answers if set(signals) & set(MEASURED_SHARES) else None
    for stage, period in enumerate(periods):
        start = period.start
        while start < period.end:
            end = min(period.end, start + _SLICE)
            table = read_exposures(
                store, Window(start, end), experiment=experiment, lag=lag, judges=judges,
                measure=measure,
            )  # fmt: skip
            counter.add(stage, table)
            start = end
    return counter.tally()


class _Counter:
    """Adds up tables of answers; users are numbered as they come."""

    def __init__(
        self,
        arms: tuple[str, ...],
        versions: tuple[str, ...],
        stages: int,
        cuts: Mapping[str, float | None],
    ) -> None:
        self.arms, self.versions, self.cuts = arms, versions, cuts
        self.numbers: dict[str, int] = {}
        self.shape = (stages, len(arms), len(SIGNAL_NAMES))
        self.events = np.zeros((0, *self.shape), np.int64)
        self.trials = np.zeros((0, *self.shape), np.int64)
        self.seen = np.zeros((0, *self.shape[:2]), np.bool_)
        self.interactions = 0
        self.latest: list[datetime | None] = [None] * len(arms)

    def add(self, stage: int, table: pa.Table) -> None:
        places = {label: number for number, label in enumerate(self.arms)}
        arm = np.array([places.get(label, -1) for label in table["arm"].to_pylist()], np.int64)
        known = arm >= 0
        if not known.any():
            return
        users = self._numbered(list(compress(table["user_id"].to_pylist(), known)))
        arm = arm[known]
        right = np.array([self.versions[place] for place in arm], dtype=object)
        answered = table["model_version"].to_numpy(zero_copy_only=False)[known]
        bad = _bad(table, known, answered == right, self.cuts)
        self.seen[users, stage, arm] = True
        for signal, values in enumerate(bad):
            told = ~np.isnan(values)
            at = (users[told], stage, arm[told], signal)
            np.add.at(self.trials, at, 1)
            np.add.at(self.events, at, (values[told] > 0.0).astype(np.int64))
        self.interactions += int(known.sum())
        seconds = table["created_at"].to_numpy().astype("datetime64[us]").astype(np.int64)[known]
        for place in np.unique(arm):
            last = datetime.fromtimestamp(float(seconds[arm == place].max()) / 1e6, UTC)
            before = self.latest[place]
            self.latest[place] = last if before is None else max(before, last)

    def _numbered(self, names: list[str]) -> IntArray:
        for name in names:
            self.numbers.setdefault(name, len(self.numbers))
        missing = len(self.numbers) - len(self.seen)
        if missing:
            empty = np.zeros((missing, *self.shape), np.int64)
            self.events = np.concatenate([self.events, empty])
            self.trials = np.concatenate([self.trials, empty])
            more = np.zeros((missing, *self.shape[:2]), np.bool_)
            self.seen = np.concatenate([self.seen, more])
        return np.array([self.numbers[name] for name in names], dtype=np.int64)

    def tally(self) -> Tally:
        return Tally(
            self.arms, self.events, self.trials, self.seen, self.interactions, tuple(self.latest)
        )


def _bad(
    table: pa.Table, known: BoolArray, own: BoolArray, cuts: Mapping[str, float | None]
) -> FloatArray:
    """Return 1 for bad, 0 for not, nan for not known, shape (signals, answers)."""

    def number(name: str) -> FloatArray:
        return np.asarray(table[name].to_numpy(zero_copy_only=False)[known], dtype=np.float64)

    failed = table["failed"].to_numpy(zero_copy_only=False)[known].astype(bool) | ~own
    rows = []
    for name in SIGNAL_NAMES:
        signal = SIGNAL_OF[name]
        if signal.name == "error":
            rows.append(failed.astype(np.float64))
            continue
        if signal.name not in table.column_names:  # it was not asked for
            bad = np.full(failed.shape, np.nan)
        elif name in _CUT:
            bad = _above(number(signal.name), cuts.get(name))
        else:
            bad = signal.bad_answers(number(signal.name))
        rows.append(np.where(failed, np.nan, bad))  # of a failure nothing else is said
    return np.stack(rows)


def _above(numbers: FloatArray, limit: float | None) -> FloatArray:
    if limit is None:
        return np.full(numbers.shape, np.nan)
    return np.where(np.isnan(numbers), np.nan, (numbers > limit).astype(np.float64))
