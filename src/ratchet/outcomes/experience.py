"""What users made of the answers they got, summed up in metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.outcomes.join import FloatArray, Outcomes
from ratchet.outcomes.quality import Quality
from ratchet.records import Metric
from ratchet.records.signal import Signal
from ratchet.records.signals import SIGNALS, USER_RATES
from ratchet.stats.intervals import Interval, mean_interval, quantile_interval, wilson

Unit = Literal[
    "share", "seconds", "characters", "score", "turns", "tokens", "calls", "cost"
]  # fmt: skip


_MINIMUM_FOR_P99 = 100
_NONE = "no interactions in the window"


def experience_metrics(
    outcomes: Outcomes, quality: Quality, *, unknown: Mapping[str, str] | None = None
) -> tuple[Metric, ...]:
    """Sum up what users made of the answers.

    Shares carry a Wilson interval, means a t interval cut to what the unit allows, latency
    quantiles an order-statistic interval where there are enough values. A signal's rate is among
    the interactions for which the signal was observed; corrections, errors and coverage are among
    all. A metric without data has the value None and says why.

    Args:
        outcomes: Interactions with their feedback.
        quality: Their quality.
        unknown: Why nothing is known of a kind of feedback, where more can be said than that.
    """
    why = unknown or {}
    rated = np.zeros(len(outcomes), dtype=np.bool_)
    for signal in SIGNALS:
        if signal.source == "explicit" and signal.column is not None:
            values = outcomes.observed(signal)
            rated |= values == 1.0 if signal.value == "text" else ~np.isnan(values)
    told = [item for item in SIGNALS if item.rate and item.column and item not in USER_RATES]
    return (
        *(_rate(outcomes, item, why.get(item.name)) for item in USER_RATES),
        *(_rate(outcomes, item, _NONE) for item in told if item.source != "assessed"),
        share_metric("feedback_coverage", rated.astype(np.float64), _NONE),
        *(_rate(outcomes, item, why.get(item.name)) for item in told if item.source == "assessed"),
        mean_metric("session_seconds", outcomes.session_seconds, "seconds"),
        _quantile("latency_seconds_p50", outcomes.latency_seconds, 0.5, minimum=1),
        latency_metric(outcomes.latency_seconds),
        mean_metric("judge_score", quality.judge, "score"),
        mean_metric("implicit_quality", quality.implicit, "score"),
        mean_metric("quality", quality.value, "score"),
    )


def _rate(outcomes: Outcomes, signal: Signal, reason: str | None = None) -> Metric:
    """Return a signal's share of bad (or good) answers among those for which it is known."""
    assert signal.rate is not None
    turned = signal.bad_answers if signal.rate.of == "bad" else signal.good_answers
    reason = reason or signal.rate.unobserved or f"no {signal.many} in the window"
    return share_metric(signal.rate.metric, turned(outcomes.observed(signal)), reason)


def share_metric(name: str, indicators: FloatArray, reason: str | None = None) -> Metric:
    """Return the share of ones among what was observed (not nan), with its Wilson interval.

    Args:
        name: The metric's name.
        indicators: 1, 0 or nan, shape (n,).
        reason: Why there is no value where nothing was observed.
    """
    observed = _observed(indicators)
    if observed.size == 0:
        reason = reason or f"no {name.replace('_', ' ')} was observed"
        return undefined_metric(name, "share", reason)
    successes = int(observed.sum())
    interval = wilson(successes, observed.size)
    return _measured(name, successes / observed.size, interval, observed.size, "share")


def latency_metric(seconds: FloatArray) -> Metric:
    """Return the p99 latency of what was observed (not nan), with its interval."""
    return _quantile("latency_seconds_p99", seconds, 0.99, _MINIMUM_FOR_P99)


def _observed(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]


def undefined_metric(name: str, unit: Unit, reason: str, observations: int = 0) -> Metric:
    """Return a metric without a value, which says why."""
    return Metric(name=name, value=None, observations=observations, unit=unit, reason=reason)


def mean_metric(name: str, values: FloatArray, unit: Unit) -> Metric:
    """Return the mean of what was observed (not nan), with its interval; it is 0 or more."""
    observed = _observed(values)
    try:
        interval = mean_interval(observed)
    except InsufficientDataError as error:
        return undefined_metric(name, unit, str(error), observed.size)
    upper = min(1.0, interval.upper) if unit == "score" else interval.upper
    within = Interval(max(0.0, interval.lower), upper, interval.level)
    return _measured(name, float(observed.mean()), within, observed.size, unit)


def _quantile(name: str, values: FloatArray, quantile: float, minimum: int) -> Metric:
    observed = _observed(values)
    if observed.size < minimum:
        reason = f"{name} needs at least {minimum} values, got {observed.size}; collect more"
        return undefined_metric(name, "seconds", reason, observed.size)
    value = float(np.quantile(observed, quantile))
    try:
        interval = quantile_interval(observed, quantile)
    except InsufficientDataError as error:
        return Metric(
            name=name, value=value, observations=observed.size, unit="seconds", reason=str(error)
        )
    return _measured(name, value, interval, observed.size, "seconds")


def _measured(name: str, value: float, interval: Interval, observations: int, unit: Unit) -> Metric:
    return Metric(
        name=name,
        value=value,
        lower=interval.lower,
        upper=interval.upper,
        level=interval.level,
        observations=observations,
        unit=unit,
    )
