"""What users made of the answers they got, summed up in metrics."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.outcomes.join import FloatArray, Outcomes
from ratchet.outcomes.quality import Quality, given
from ratchet.records import Metric
from ratchet.stats.intervals import Interval, mean_interval, quantile_interval, wilson

Unit = Literal["share", "seconds", "characters", "score"]


_MINIMUM_FOR_P99 = 100


def experience_metrics(outcomes: Outcomes, quality: Quality) -> tuple[Metric, ...]:
    """Sum up what users made of the answers.

    Shares carry a Wilson interval, means a t interval cut to what the unit allows, latency
    quantiles an order-statistic interval where there are enough values. Rates of thumbs, copies,
    regenerations and completions are among the interactions for which the signal was observed;
    corrections, errors and coverage are among all. A metric without data has the value None and
    says why.
    """
    corrected = given(outcomes.corrections)
    explicit = corrected | given(outcomes.comments)
    explicit |= ~np.isnan(outcomes.thumbs) | ~np.isnan(outcomes.stars)
    none = "no interactions in the window"
    return (
        share_metric("thumbs_down_rate", 1.0 - outcomes.thumbs, "no thumbs in the window"),
        share_metric("copy_rate", outcomes.copied, "no copy signals in the window"),
        share_metric(
            "regenerate_rate", outcomes.regenerated, "no regenerate signals in the window"
        ),
        share_metric(
            "completion_rate", outcomes.completed, "no task_completed signals in the window"
        ),
        share_metric("correction_rate", corrected.astype(np.float64), none),
        share_metric("error_rate", outcomes.failed_with_error.astype(np.float64), none),
        share_metric("feedback_coverage", explicit.astype(np.float64), none),
        share_metric("safety_violation_rate", outcomes.unsafe, "no safety check is connected"),
        _mean("session_seconds", outcomes.session_seconds, "seconds"),
        _quantile("latency_seconds_p50", outcomes.latency_seconds, 0.5, minimum=1),
        _quantile("latency_seconds_p99", outcomes.latency_seconds, 0.99, _MINIMUM_FOR_P99),
        _mean("judge_score", quality.judge, "score"),
        _mean("implicit_quality", quality.implicit, "score"),
        _mean("quality", quality.value, "score"),
    )


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
        return _undefined(name, "share", reason)
    successes = int(observed.sum())
    interval = wilson(successes, observed.size)
    return _measured(name, successes / observed.size, interval, observed.size, "share")


def latency_metric(seconds: FloatArray) -> Metric:
    """Return the p99 latency of what was observed (not nan), with its interval."""
    return _quantile("latency_seconds_p99", seconds, 0.99, _MINIMUM_FOR_P99)


def _observed(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]


def _undefined(name: str, unit: Unit, reason: str, observations: int = 0) -> Metric:
    return Metric(name=name, value=None, observations=observations, unit=unit, reason=reason)


def _mean(name: str, values: FloatArray, unit: Unit) -> Metric:
    observed = _observed(values)
    try:
        interval = mean_interval(observed)
    except InsufficientDataError as error:
        return _undefined(name, unit, str(error), observed.size)
    upper = min(1.0, interval.upper) if unit == "score" else interval.upper
    within = Interval(max(0.0, interval.lower), upper, interval.level)
    return _measured(name, float(observed.mean()), within, observed.size, unit)


def _quantile(name: str, values: FloatArray, quantile: float, minimum: int) -> Metric:
    observed = _observed(values)
    if observed.size < minimum:
        reason = f"{name} needs at least {minimum} values, got {observed.size}; collect more"
        return _undefined(name, "seconds", reason, observed.size)
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
