"""Versions watched live: boards, thresholds and alerts."""

from ratchet.analyze.monitoring.thresholds import (
    ALPHA,
    CHARTED,
    DEFAULT_THRESHOLDS,
    LATENCY_SIGNAL,
    MINIMUM_BIN,
    RateChart,
    Severity,
    Threshold,
    check_thresholds,
    not_checked,
    rate_chart,
)

__all__ = [
    "ALPHA",
    "CHARTED",
    "DEFAULT_THRESHOLDS",
    "LATENCY_SIGNAL",
    "MINIMUM_BIN",
    "RateChart",
    "Severity",
    "Threshold",
    "check_thresholds",
    "not_checked",
    "rate_chart",
]
