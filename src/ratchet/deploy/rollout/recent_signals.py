"""What recent traffic shows of a plan's signals: which can be watched, and what is usual.

A number (seconds, tokens, cost) becomes a share by a limit: the plan's, else the champion's 95th
percentile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.evaluation.answer_facts import measure_answers
from ratchet.records import RolloutPlan, WatchedSignal
from ratchet.records.rollout import CUT_SHARES, MEASURED_SHARES
from ratchet.records.signals import SIGNAL_OF
from ratchet.store import EventStore, Window
from ratchet.store.heard import unknown_reasons

if TYPE_CHECKING:
    import pyarrow as pa

OBSERVED = timedelta(days=7)
"""Traffic that says which signals and how many users there are."""
FEWEST_SEEN = 100
SLOW_QUANTILE = 0.95
_USUAL = {"slow": "latency", "many_tokens": "number of tokens", "costly": "cost"}
"""Signals that compare a number with what is usual of the champion, and that number's name."""


@dataclass(frozen=True, slots=True)
class RecentSignals:
    """What a rollout can watch.

    Attributes:
        watched: The plan's signals that recent traffic shows.
        unwatched: The others, with the reason.
        slow_seconds: From when on an answer is slow; None where that is not known.
        limits: From when on a number is bad, by the name of a watched signal.
    """

    watched: tuple[WatchedSignal, ...]
    unwatched: tuple[tuple[str, str], ...]
    slow_seconds: float | None
    limits: Mapping[str, float]


def observed_signals(
    store: EventStore, version: str, plan: RolloutPlan, week: Window
) -> RecentSignals:
    """Return which signals of a plan recent traffic shows.

    Args:
        store: The store.
        version: The champion.
        plan: The plan.
        week: The traffic.

    Raises:
        InsufficientDataError: It does not show the primary one.
    """
    measure = measure_answers if {s.name for s in plan.signals} & set(MEASURED_SHARES) else None
    table = store.signals(week, lag=timedelta(seconds=plan.lag_seconds), measure=measure)
    seen = {name: table.num_rows - table[name].null_count for name in table.column_names}
    limits = {name: _usual(table, version, SIGNAL_OF[name].name) for name in _USUAL}
    limits |= plan.limits
    limits["slow"] = limits["slow"] if plan.slow_seconds is None else plan.slow_seconds
    watched, unwatched, unknown = [], [], unknown_reasons(store, now=week.end)
    soon = f"within {plan.lag_seconds:,} s of"
    for signal in plan.signals:
        kind, name = SIGNAL_OF[signal.name].name, str(signal.name)
        count, why = seen.get(kind, table.num_rows), unknown.get(kind)
        is_seen = count >= FEWEST_SEEN or name == "failed"
        if is_seen and (name not in _USUAL or limits[name] is not None):
            watched.append(signal)
        elif signal.primary and is_seen:
            raise InsufficientDataError(
                f"a rollout needs the champion's usual {_USUAL[name]} for the primary signal "
                f"{name!r}, got it from fewer than {FEWEST_SEEN} answers of {version} in the last "
                f"{OBSERVED.days} days; name a limit in the plan, or wait"
            )
        elif signal.primary:
            raise InsufficientDataError(
                f"a rollout needs the primary signal {name!r} {soon} {FEWEST_SEEN} answers of "
                f"the last {OBSERVED.days} days, got {count}; "
                + (why or "choose one that users give so soon, a longer lag_seconds, or wait")
            )
        elif is_seen:
            unwatched.append((name, f"the champion's usual {_USUAL[name]} is not known"))
        else:
            reason = f"known {soon} {count} answers of the last {OBSERVED.days} days"
            unwatched.append((name, reason + (f": {why}" if why else "")))
    kept = {signal.name for signal in watched} & set(CUT_SHARES)
    return RecentSignals(
        watched=tuple(watched),
        unwatched=tuple(unwatched),
        slow_seconds=limits["slow"],
        limits={name: limit for name in kept if (limit := limits[name]) is not None},
    )


def _usual(table: pa.Table, version: str, column: str) -> float | None:
    """Return the 95th percentile of a version's answers; None of too few."""
    if column not in table.column_names:
        return None
    own = table["model_version"].to_numpy(zero_copy_only=False) == version
    numbers = table[column].to_numpy()
    known = numbers[own & ~np.isnan(numbers)]
    return float(np.quantile(known, SLOW_QUANTILE)) if known.size >= FEWEST_SEEN else None
