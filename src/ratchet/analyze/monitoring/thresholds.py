"""Is the model in service doing worse than it may? Fixed thresholds and control charts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.outcomes.join import FloatArray, Outcomes
from ratchet.records import Alert, Metric, Record, derive_id
from ratchet.records.signals import BY_NAME, SIGNALS, Signal
from ratchet.stats.charts import p_chart
from ratchet.stats.charts.chart_results import ControlChart
from ratchet.stats.intervals import wilson_lower

ALPHA = 0.05
MINIMUM_BIN = 20
Severity = Literal["warning", "critical"]
LATENCY_SIGNAL = BY_NAME["latency_seconds"].limited_metric


class Threshold(Record):
    """From where on a metric is an alert, and what to do then.

    Attributes:
        signal: Name of the metric.
        warning: Above this for more than chance is a warning: a share, or a multiple of the
            baseline where `relative` is set.
        critical: Above this for more than chance is critical.
        minimum_sample: Below this many observations nothing is said.
        warning_action: What to do about a warning.
        critical_action: What to do when critical.
        relative: Whether both limits are multiples of a baseline.
    """

    signal: str
    warning: float = Field(gt=0.0, allow_inf_nan=False)
    critical: float = Field(gt=0.0, allow_inf_nan=False)
    minimum_sample: int = Field(ge=1)
    warning_action: str = Field(min_length=1)
    critical_action: str = Field(min_length=1)
    relative: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warning >= self.critical:
            raise ValueError(
                f"warning must be below critical, got {self.warning} and {self.critical} for "
                f"{self.signal}"
            )
        return self


DEFAULT_THRESHOLDS = tuple(
    Threshold(
        signal=signal.limited_metric,
        warning=signal.limits.warning,
        critical=signal.limits.critical,
        minimum_sample=signal.limits.minimum_sample,
        warning_action=signal.limits.warning_action,
        critical_action=signal.limits.critical_action,
        relative=signal.limits.relative,
    )
    for signal in SIGNALS
    if signal.limits
)
CHARTED: Mapping[str, Signal] = {
    signal.rate.metric: signal for signal in SIGNALS if signal.rate and signal.rate.charted
}
"""The signals with a control chart of their rate, by the name of the rate."""


def check_thresholds(
    metrics: Iterable[Metric],
    *,
    model_version: str,
    cycle_id: str,
    now: datetime,
    thresholds: Sequence[Threshold] = DEFAULT_THRESHOLDS,
    latency_baseline: float | None = None,
) -> tuple[Alert, ...]:
    """Return an alert for each metric that is over a threshold for more than chance.

    A share is over a threshold when its one-sided 95 % lower score bound is; a metric relative to
    a baseline when the lower end of its own interval is (97.5 % one-sided for a 95 % interval).

    Error rate: a model whose true rate is exactly at the threshold raises an alert in about 5 % of
    checks, at the worst sample size in 8 % (thumbs down, regenerate) or 11 % (safety), because
    the bound is approximate; one below it more rarely. Each check counts: looking every hour at
    the same growing window raises more.

    Args:
        metrics: What was measured; metrics without a threshold are passed over.
        model_version: The version that the metrics are of.
        cycle_id: The cycle in which they were measured.
        now: When the check is made, with a time zone.
        thresholds: The limits.
        latency_baseline: p99 latency in seconds that counts as normal; without it latency is not
            checked.

    Returns:
        At most one alert a signal, the most severe, in the order of the thresholds.
    """
    measured = {metric.name: metric for metric in metrics}
    alerts = []
    for threshold in thresholds:
        metric = measured.get(threshold.signal)
        if _why_not_checked(metric, threshold, latency_baseline) is not None or metric is None:
            continue
        scale = latency_baseline if threshold.relative and latency_baseline else 1.0
        alert = _alert(metric, threshold, scale, model_version, cycle_id, now)
        if alert is not None:
            alerts.append(alert)
    return tuple(alerts)


def not_checked(
    metrics: Iterable[Metric],
    *,
    thresholds: Sequence[Threshold] = DEFAULT_THRESHOLDS,
    latency_baseline: float | None = None,
) -> tuple[tuple[str, str], ...]:
    """Return the signals that `check_thresholds` could not check, each with the reason.

    No alert on these signals is no good news.
    """
    measured = {metric.name: metric for metric in metrics}
    reasons = (
        (item.signal, _why_not_checked(measured.get(item.signal), item, latency_baseline))
        for item in thresholds
    )
    return tuple((signal, reason) for signal, reason in reasons if reason is not None)


def _why_not_checked(
    metric: Metric | None, threshold: Threshold, baseline: float | None
) -> str | None:
    if metric is None or metric.value is None:
        reason = metric.reason if metric is not None else None
        return f"not observed: {reason or 'no such metric'}"
    if metric.observations < threshold.minimum_sample:
        return f"{metric.observations} observations, {threshold.minimum_sample} are needed"
    if threshold.relative and baseline is None:
        return "no baseline to compare with"
    if threshold.relative and metric.lower is None:
        return f"no interval: {metric.reason or 'too few observations'}"
    return None


def _alert(
    metric: Metric,
    threshold: Threshold,
    scale: float,
    model_version: str,
    cycle_id: str,
    now: datetime,
) -> Alert | None:
    lower = _lower_bound(metric, threshold)
    severity: Severity
    if lower > threshold.critical * scale:
        severity, limit, action = "critical", threshold.critical, threshold.critical_action
    elif lower > threshold.warning * scale:
        severity, limit, action = "warning", threshold.warning, threshold.warning_action
    else:
        return None
    value = metric.value if metric.value is not None else lower
    return Alert(
        id=derive_id(cycle_id, model_version, threshold.signal),
        created_at=now,
        signal=threshold.signal,
        severity=severity,
        model_version=model_version,
        value=value,
        lower=lower,
        threshold=limit * scale,
        observations=metric.observations,
        message=(
            f"{threshold.signal} of {model_version} is {_written(value, metric)}, at least "
            f"{_written(lower, metric)} beyond chance, from {metric.observations} observations: "
            f"above the {severity} threshold of {_written(limit * scale, metric)}"
        ),
        action=action,
    )


def _lower_bound(metric: Metric, threshold: Threshold) -> float:
    if threshold.relative:
        return metric.lower if metric.lower is not None else 0.0
    successes = round((metric.value or 0.0) * metric.observations)
    return wilson_lower(successes, metric.observations, alpha=ALPHA)


def _written(value: float, metric: Metric) -> str:
    if metric.unit == "share":
        return f"{100.0 * value:.3g} %"
    return f"{value:.3g} s" if metric.unit == "seconds" else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class RateChart:
    """A rate over time.

    Attributes:
        signal: Name of the rate.
        chart: Its p chart, one point a bin.
        starts: When the first observation of each bin was made, in UTC, shape (bins,).
        sizes: Observations of each bin, shape (bins,).
    """

    signal: str
    chart: ControlChart
    starts: NDArray[np.datetime64]
    sizes: NDArray[np.int64]


def rate_chart(outcomes: Outcomes, signal: str, *, bins: int = 20) -> RateChart:
    """Chart a rate over bins of (nearly) equally many observations in time order.

    The center line is the rate of the whole window: the chart says whether the window agrees with
    itself, not whether it is good.

    Args:
        outcomes: Interactions of one model version, oldest first.
        signal: One of `CHARTED`, such as "thumbs_down_rate".
        bins: How many bins at most; fewer are made where a bin would hold fewer than 20
            observations.

    Raises:
        InvalidInputError: The signal cannot be charted or `bins` is below 2.
        InsufficientDataError: There are fewer than 2 bins of 20 observations.
    """
    if bins < 2:
        raise InvalidInputError(f"bins must be at least 2, got {bins}; 20 is the default")
    indicators = _indicators(outcomes, signal)
    rows = np.flatnonzero(~np.isnan(indicators))
    made = min(bins, rows.size // MINIMUM_BIN)
    if made < 2:
        raise InsufficientDataError(
            f"a chart of {signal} needs at least 2 bins of {MINIMUM_BIN} observations, got "
            f"{rows.size} observations; collect for longer"
        )
    groups = np.array_split(rows, made)
    counts = np.array([int(indicators[group].sum()) for group in groups], dtype=np.int64)
    sizes = np.array([group.size for group in groups], dtype=np.int64)
    starts = outcomes.created_at[[group[0] for group in groups]]
    return RateChart(signal=signal, chart=p_chart(counts, sizes), starts=starts, sizes=sizes)


def _indicators(outcomes: Outcomes, metric: str) -> FloatArray:
    if metric not in CHARTED:
        raise InvalidInputError(
            f"signal must be {' or '.join(CHARTED)}, got {metric!r}; other signals have no chart "
            "yet"
        )
    signal = CHARTED[metric]
    return signal.bad_answers(outcomes.observed(signal))
