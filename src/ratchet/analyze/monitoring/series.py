"""What a board's picture shows: the signals that matter, beside what was expected of them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from ratchet.analyze.monitoring.baselines import comparable, expected_rates
from ratchet.analyze.monitoring.batches import Counts, count
from ratchet.analyze.monitoring.observed import observe
from ratchet.analyze.monitoring.watch import BoardVerdict, WatchConfig, cuts_of
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import Baseline, BoardState, Finding
from ratchet.records.signals import words_of
from ratchet.stats.charts.rate_series import RateSeries, rate_series
from ratchet.store import EventStore, Window

SHOWN = timedelta(hours=48)
MOST_PANELS = 5
MOST_POINTS = 96


def baseline_of(store: EventStore, board: BoardState) -> Baseline:
    """Return the baseline that a board compares with.

    Raises:
        InvalidInputError: It is not in the store.
    """
    baseline = store.get(Baseline, board.baseline_id)
    if baseline is None:
        raise InvalidInputError(
            f"a board needs its baseline in the store, got none for {board.baseline_id}; "
            "the journal is damaged: restore it from a copy"
        )
    return baseline


def recent_counts(store: EventStore, config: WatchConfig, board: BoardState) -> Counts:
    """Count the last 48 hours of a board, or what there is of it."""
    baseline = baseline_of(store, board)
    batch = timedelta(seconds=baseline.batch_seconds)
    batches = min((board.charted_until - board.opened_at) // batch, SHOWN // batch)
    start = board.charted_until - batches * batch
    window = Window(start, board.charted_until, board.model_version)
    return count(
        observe(store, window, baseline, lag=config.lag, left_out=config.left_out),
        start=start.timestamp(),
        end=board.charted_until.timestamp(),
        segments=baseline.segments,
        cuts=cuts_of(baseline),
        batch_seconds=baseline.batch_seconds,
    )


def board_series(
    store: EventStore, board: BoardState, counts: Counts, finding: Finding | None
) -> dict[str, RateSeries]:
    """Return a series a signal, what the alarm is about first, five at most."""
    return series_of(baseline_of(store, board), counts, finding)


def series_of(
    baseline: Baseline, counts: Counts, finding: Finding | None = None
) -> dict[str, RateSeries]:
    """Return the series of a baseline's signals, by what they are in words.

    Raises:
        InsufficientDataError: No signal was observed in these batches.
    """
    counts = comparable(baseline, counts)
    names = list(counts.signals)
    first = [finding.signal, *finding.also] if finding else []
    order = [*[name for name in first if name in names], *[n for n in names if n not in first]]
    expected = expected_rates(baseline, counts.starts, caution=0.0)
    group = max(1, -(-len(counts) // MOST_POINTS))
    series_by_words: dict[str, RateSeries] = {}
    for name in order:
        position = names.index(name)
        events, trials = counts.events[:, position], counts.trials[:, position]
        weights = np.maximum(trials.sum(axis=1), 1)
        rates = (expected[:, position] * trials).sum(axis=1) / weights
        try:
            series = rate_series(
                counts.starts, events.sum(axis=1), trials.sum(axis=1), rates, group=group
            )
        except InsufficientDataError:
            continue
        series_by_words[words_of(name)] = series
        if len(series_by_words) == MOST_PANELS:
            break
    if not series_by_words:
        raise InsufficientDataError(
            "a board's picture needs a signal that was observed, got none; collect for longer"
        )
    return series_by_words


def chart_title(verdict: BoardVerdict) -> tuple[str, str, str]:
    """Return title, subtitle and what the board says, for its picture."""
    title = f"{verdict.model_version}: {verdict.says}"
    if verdict.finding is None:
        return title, "dashed: expected; grey: three standard errors around it", verdict.says
    finding = verdict.finding
    share = finding.events / finding.trials if finding.trials else 0.0
    subtitle = f"{finding.says} {share:.1%} where {finding.expected:.1%} is normal"
    return title, subtitle, verdict.says
