"""One verdict a version: is it worse than its baseline, since when, in what, and how sure is that?

A board takes in batches as they become ripe and keeps only its state: the cost of a pass follows
the new events. All signals, segments and sizes of change share one budget of false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.monitoring.baselines import (
    Hypothesis,
    alternatives,
    baseline_streams,
    comparable,
    expected_rates,
    hypotheses,
)
from ratchet.analyze.monitoring.batches import Counts
from ratchet.errors import InvalidInputError
from ratchet.records import Baseline, BoardState, Finding, derive_id
from ratchet.records.signals import words_of
from ratchet.stats.charts.change_detection import (
    Alternatives,
    DetectorState,
    Limit,
    alarm_limit,
    begin,
    log_evidence,
    log_likelihood_ratios,
    posterior,
    update,
)
from ratchet.stats.intervals import wilson

FloatArray = NDArray[np.float64]
FALSE_ALARM_DAYS = 30.0
RELEASE_RISK = 0.01
MEMORY = 3.0
"""How far below the threshold the log evidence must fall for a standing alarm to end."""
CEILING = 9.0
"""Log evidence above the threshold that is kept: after a repair an alarm ends about as fast as it
began, however long the trouble lasted. While it lasts, evidence for the true change falls by
CEILING + MEMORY from there with a chance of e^-12 a dip, so that it does not end by itself."""

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How often a board may raise a false alarm.

    Attributes:
        days: Mean time between false alarms of the whole board, at least.
        release_risk: Greatest chance of a false alarm that a release as such brings.
        versions: Boards that share the budget, such as champion and canary.
    """

    days: float = FALSE_ALARM_DAYS
    release_risk: float = RELEASE_RISK
    versions: int = 1

    def limit(self, batch_seconds: int) -> Limit:
        """Return threshold and head start for batches of this length."""
        batches = self.days * _DAY / batch_seconds * self.versions
        return alarm_limit(batches, release_risk=self.release_risk)


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over new batches gave.

    Attributes:
        state: To be stored; the next pass goes on from it.
        evidence: Log evidence after each batch, shape (batches,).
        alarmed_at: End of the batch at which the evidence first reached the threshold in this
            pass, or None.
    """

    state: BoardState
    evidence: FloatArray
    alarmed_at: datetime | None


def open_board(
    baseline: Baseline,
    *,
    model_version: str,
    start: datetime,
    now: datetime,
    budget: Budget,
    arrived: tuple[int, int] | None = None,
) -> BoardState:
    """Return the board of a version that nothing was seen of yet.

    Args:
        baseline: What is normal: the predecessor's, or the version's own where it has none.
        model_version: The version that is watched.
        start: From when on; the first batch begins here.
        now: When the board is opened.
        budget: How often it may raise a false alarm.
        arrived: See `BoardState`.
    """
    limit = budget.limit(baseline.batch_seconds)
    fresh = begin(alternatives(baseline), limit)
    return _stored(fresh, baseline, model_version, start, now, limit, arrived=arrived)


def advance(
    board: BoardState,
    baseline: Baseline,
    counts: Counts,
    *,
    now: datetime,
    arrived: tuple[int, int] | None = None,
) -> Pass:
    """Take in the batches that follow on those seen.

    Args:
        board: The state so far.
        baseline: The baseline that it was opened with.
        counts: The next batches, without a gap.
        now: When this is done.
        arrived: See `BoardState`.

    Raises:
        InvalidInputError: The baseline is another one, or the batches do not follow.
    """
    _check(board, baseline, counts)
    stated = alternatives(baseline)
    limit = Limit(board.log_threshold, board.log_head_start)
    state = _loaded(board)
    events, trials = baseline_streams(baseline, counts)
    expected = expected_rates(baseline, counts.starts).reshape(events.shape)
    evidence = np.empty(len(counts))
    for batch in range(len(counts)):
        ratios = log_likelihood_ratios(events[batch], trials[batch], expected[batch], stated)
        state = next_state(state, ratios, trials[batch], stated, limit.log_threshold)
        evidence[batch] = float(log_evidence(state, stated))
    end = board.charted_until + timedelta(seconds=baseline.batch_seconds * len(counts))
    over = np.flatnonzero(evidence >= limit.log_threshold)
    alarmed_at = None
    if over.size:
        seconds = baseline.batch_seconds * (int(over[0]) + 1)
        alarmed_at = board.charted_until + timedelta(seconds=seconds)
    stored = _stored(
        state, baseline, board.model_version, board.opened_at, now, limit,
        charted_until=end, arrived=arrived,
    )  # fmt: skip
    return Pass(stored, evidence, alarmed_at)


def next_state(
    state: DetectorState,
    ratios: FloatArray,
    trials: FloatArray,
    stated: Alternatives,
    log_threshold: float,
) -> DetectorState:
    """Take in a batch, of one board or of many side by side.

    Silence is no evidence: a hypothesis about which the batch says nothing stays where it is, else
    a version that stands idle would reach the threshold by the number of its batches.

    Above the ceiling all statistics are scaled down alike, which only makes alarms rarer and
    leaves it plain which hypothesis is the likeliest. Once evidence is below where an alarm ends,
    the CUSUMs are let go of as well, so that new trouble is dated anew.

    Args:
        state: The state so far.
        ratios: Log likelihood ratios of the batch, shape (..., hypotheses).
        trials: Observations of the batch, shape (..., streams).
        stated: The hypotheses.
        log_threshold: Log evidence of an alarm.
    """
    heard = trials @ (stated.shifts > 0.0).T > 0.0
    after = update(state, ratios)
    statistics = np.where(heard, after.log_statistics, state.log_statistics)
    cusums = np.where(heard, after.cusums, state.cusums)
    after = replace(
        after,
        log_statistics=statistics,
        cusums=cusums,
        starts=np.where(heard, after.starts, state.starts),
    )
    above = (log_evidence(after, stated) - log_threshold)[..., np.newaxis]
    return replace(
        after,
        log_statistics=statistics - np.maximum(above - CEILING, 0.0),
        cusums=np.where(above < -MEMORY, np.minimum(cusums, statistics), cusums),
    )


def evidence_of(board: BoardState, baseline: Baseline) -> float:
    """Return a board's log evidence now."""
    return float(log_evidence(_loaded(board), alternatives(baseline)))


def in_alarm(board: BoardState, baseline: Baseline, *, standing: bool = False) -> bool:
    """Tell whether a board is in alarm: its evidence is at the threshold or above.

    Args:
        board: The board.
        baseline: Its baseline.
        standing: Whether it was in alarm already; then it is until its evidence has fallen
            `MEMORY` below the threshold.
    """
    bar = board.log_threshold - MEMORY if standing else board.log_threshold
    return evidence_of(board, baseline) >= bar


def change_point(board: BoardState, baseline: Baseline) -> datetime:
    """Return when the change that a board's evidence is about began: the maximum likelihood start.

    The start that makes the likelihood ratio of the likeliest hypothesis largest.
    """
    best = int(np.argmax(posterior(_loaded(board), alternatives(baseline))))
    return board.opened_at + timedelta(seconds=board.starts[best] * baseline.batch_seconds)


def find(board: BoardState, baseline: Baseline, counts: Counts) -> Finding:
    """Say what is worse, since when and how sure, from the most likely hypotheses.

    Args:
        board: The board's state.
        baseline: Its baseline.
        counts: Recent batches, to state the rates since the change; those before it are left out.
    """
    stated, counts = hypotheses(baseline), comparable(baseline, counts)
    shares = posterior(_loaded(board), alternatives(baseline))
    best = int(np.argmax(shares))
    since = change_point(board, baseline)
    signal, segment = _most_likely(stated, shares)
    position = counts.signals.index(signal)
    recent = counts.starts >= since.timestamp()
    segments = slice(None) if segment is None else counts.segments.index(segment)
    events = int(counts.events[recent, position][:, segments].sum())
    trials = int(counts.trials[recent, position][:, segments].sum())
    expected = _expected_share(baseline, counts, recent, signal, segment)
    interval = wilson(events, trials) if trials else None
    return Finding(
        signal=signal,
        says=words_of(signal),
        segment=segment,
        since=since,
        log_evidence=evidence_of(board, baseline),
        log_threshold=board.log_threshold,
        events=events,
        trials=trials,
        expected=expected,
        lower=interval.lower if interval else 0.0,
        upper=interval.upper if interval else 1.0,
        also=tuple(sorted({n for n in stated[best].signals if n != signal})),
    )


def _most_likely(stated: tuple[Hypothesis, ...], shares: FloatArray) -> tuple[str, str | None]:
    """Return the signal and segment that most of the evidence is about."""
    totals: dict[tuple[str, str | None], float] = {}
    for item, share in zip(stated, shares, strict=True):
        whole = sum(item.shifts)
        for name, shift in zip(item.signals, item.shifts, strict=True):
            key = (name, item.segment)
            totals[key] = totals.get(key, 0.0) + float(share) * shift / whole
    return max(totals, key=lambda key: totals[key])


def _expected_share(
    baseline: Baseline,
    counts: Counts,
    recent: NDArray[np.bool_],
    signal: str,
    segment: str | None,
) -> float:
    """Return the baseline's rate over the same hours and segments, without caution."""
    names = [item.name for item in baseline.signals]
    rates = expected_rates(baseline, counts.starts[recent], caution=0.0)[:, names.index(signal)]
    trials = counts.trials[recent, counts.signals.index(signal)].astype(np.float64)
    if segment is not None:
        column = counts.segments.index(segment)
        rates, trials = rates[:, [column]], trials[:, [column]]
    whole = trials.sum()
    return float((rates * trials).sum() / whole) if whole else float(rates.mean())


def _check(board: BoardState, baseline: Baseline, counts: Counts) -> None:
    if board.baseline_id != baseline.id:
        raise InvalidInputError(
            f"a board keeps its baseline, got {baseline.id} for one of {board.baseline_id}; "
            "open a new board to compare with another"
        )
    if len(counts) and abs(counts.starts[0] - board.charted_until.timestamp()) > 1e-3:
        begins = datetime.fromtimestamp(counts.starts[0], UTC).isoformat()
        raise InvalidInputError(
            f"batches must follow on {board.charted_until.isoformat()}, got one from {begins}; "
            "count from where the board ended"
        )


def _loaded(board: BoardState) -> DetectorState:
    return DetectorState(
        log_statistics=np.array(board.log_statistics),
        cusums=np.array(board.cusums),
        starts=np.array(board.starts, dtype=np.int64),
        batches=board.batches,
    )


def _stored(
    state: DetectorState,
    baseline: Baseline,
    model_version: str,
    opened_at: datetime,
    now: datetime,
    limit: Limit,
    *,
    charted_until: datetime | None = None,
    arrived: tuple[int, int] | None = None,
) -> BoardState:
    until = charted_until or opened_at
    return BoardState(
        id=derive_id("board", model_version, baseline.id, opened_at, until, *(arrived or ())),
        created_at=now,
        model_version=model_version,
        baseline_id=baseline.id,
        opened_at=opened_at,
        charted_until=until,
        batches=state.batches,
        log_threshold=limit.log_threshold,
        log_head_start=limit.log_head_start,
        log_statistics=_rounded(state.log_statistics),
        cusums=_rounded(state.cusums),
        starts=tuple(int(start) for start in state.starts),
        arrived=arrived,
    )


def _rounded(values: FloatArray) -> tuple[float, ...]:
    """Six decimals of a nat are plenty, and keep the journal small."""
    return tuple(np.maximum(values, -1e9).round(6).tolist())
