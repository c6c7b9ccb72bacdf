"""What boards watch of a window's interactions, read from the store's signals."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa

from ratchet.analyze.monitoring.batches import Observations
from ratchet.evaluation.answer_facts import measure_answers
from ratchet.judges.usable import usable_versions
from ratchet.outcomes.quality import QualityWeights, implicit_score
from ratchet.records import EXPLICIT_KINDS, FEEDBACK_KINDS, Baseline
from ratchet.records.answer_signals import MEASURED
from ratchet.records.signals import BOARD_SHARES, BY_NAME, SIGNAL_OF
from ratchet.store import EventStore, Window

_RATINGS = tuple(kind for kind in EXPLICIT_KINDS if BY_NAME[kind].column)


def observe(
    store: EventStore,
    window: Window,
    baseline: Baseline | None,
    *,
    lag: timedelta,
    left_out: Collection[str] = (),
) -> Observations:
    """Read what a board watches of a window, or what a baseline is frozen from.

    Args:
        store: The store.
        window: The interactions.
        baseline: What they are compared with: what became known since of how applications report
            is not observed, nor is a signal of which it holds presence alone.
        lag: How late feedback may be.
        left_out: Signals that are not watched.
    """
    known_at = baseline.created_at if baseline else None
    judges = usable_versions(store)
    table = store.signals(
        window, lag=lag, judges=judges, known_at=known_at, measure=measure_answers
    )
    observations = observations_of(table)
    unwatched = set(left_out)
    if baseline is not None:
        kinds = store.reporting().spoiled(baseline.created_at, baseline.window_end)
        unwatched |= shares_of(kinds)
    unseen = np.full(len(observations), np.nan)
    return replace(
        observations, values=dict(observations.values) | dict.fromkeys(unwatched, unseen)
    )


def shares_of(kinds: Collection[str]) -> set[str]:
    """Return the watched shares that rest on kinds of feedback, by themselves or in quality."""
    names = {share.name for kind in kinds for share in BY_NAME[kind].shares if share.board}
    if any(BY_NAME[kind].part for kind in kinds):
        names |= {share.name for share in BY_NAME["implicit_quality"].shares}
    return names


def observations_of(table: pa.Table, weights: QualityWeights | None = None) -> Observations:
    """Turn the store's signals into what is watched.

    Args:
        table: As `EventStore.signals` returns it; what answers carry themselves only where it
            was measured.
        weights: What the implicit quality is made of, by default the documented ones.
    """
    weights = weights or QualityWeights()
    number = {
        name: table[name].to_numpy().astype(np.float64)
        for name in table.column_names
        if name in ("latency_seconds", "characters", *MEASURED, *FEEDBACK_KINDS)
    }
    failed = table["failed"].to_numpy().astype(np.float64)
    answered = failed == 0.0
    length = np.where(answered, number["characters"], np.nan)
    implicit = implicit_score(number, weights)
    silent = ~table["signalled"].to_numpy().astype(np.bool_)  # what was sent: an absence is no sign
    ratings = np.stack([number[name] for name in _RATINGS])
    known = number | {
        "implicit_quality": np.where(table["steady"].to_numpy(), implicit, np.nan),
        "error": failed,
        "characters": length,
        "no_feedback": np.isnan(ratings).all(axis=0).astype(np.float64),
        "no_signals": silent.astype(np.float64),
    }
    return Observations(
        seconds=table["created_at"].cast(pa.int64()).to_numpy() / 1e6,
        segments=np.asarray(table["segment"].to_numpy(zero_copy_only=False), dtype=np.object_),
        values={
            share.name: known[signal.name] if share.cut else signal.bad_answers(known[signal.name])
            for share in BOARD_SHARES
            for signal in (SIGNAL_OF[share.name],)
            if signal.name in known
        },
    )
