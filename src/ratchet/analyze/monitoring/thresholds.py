"""Is the model in service doing worse than it may? Fixed thresholds and control charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from ratchet.records import Alert, Metric, Record, derive_id
from ratchet.records.signals import BY_NAME, SIGNALS
from ratchet.stats.intervals import wilson_lower

ALPHA = 0.05
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
        first_action: The same of a version that replaced none.
        relative: Whether both limits are multiples of a baseline.
    """

    signal: str
    warning: float = Field(gt=0.0, allow_inf_nan=False)
    critical: float = Field(gt=0.0, allow_inf_nan=False)
    minimum_sample: int = Field(ge=1)
    warning_action: str = Field(min_length=1)
    critical_action: str = Field(min_length=1)
    first_action: str | None = None
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
        first_action=signal.limits.first_action,
        relative=signal.limits.relative,
    )
    for signal in SIGNALS
    if signal.limits
)


def check_thresholds(
    metrics: Iterable[Metric],
    *,
    model_version: str,
    cycle_id: str,
    now: datetime,
    thresholds: Sequence[Threshold] = DEFAULT_THRESHOLDS,
    latency_baseline: float | None = None,
    is_first: bool = False,
) -> tuple[Alert, ...]:
    """Return an alert for each metric that is over a threshold for more than chance.

    A share is over a threshold when its one-sided 95 % lower score bound is; a metric relative to
    a baseline when the lower end of its own interval is (97.5 % one-sided for a 95 % interval).

    Error rate: a model whose true rate is exactly at the threshold raises an alert in about 5 % of
    checks, at the worst sample size in 8 % (thumbs down, regenerate) or 11 % (safety), because
    the bound is approximate; one below it more rarely. Repeated checks raise more: each one may,
    as when the same growing window is checked every hour.

    Args:
        metrics: What was measured; metrics without a threshold are passed over.
        model_version: The version that the metrics are of.
        cycle_id: The cycle in which they were measured.
        now: When the check is made, with a time zone.
        thresholds: The limits.
        latency_baseline: p99 latency in seconds that counts as normal; without it latency is not
            checked.
        is_first: Whether the version replaced none, so that the advice names none to go back to.

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
        given = threshold
        if is_first and threshold.first_action is not None:
            given = threshold.model_copy(update={"critical_action": threshold.first_action})
        alert = _alert(metric, given, scale, model_version, cycle_id, now)
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
            f"{threshold.signal} of {model_version} is {_written(value, metric)} (at least "
            f"{_written(lower, metric)} allowing for chance; {metric.observations} observations), "
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
