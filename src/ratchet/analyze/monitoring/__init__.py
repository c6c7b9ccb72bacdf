"""Versions watched live: boards, thresholds and alerts."""

from ratchet.analyze.monitoring.thresholds import (
    ALPHA,
    DEFAULT_THRESHOLDS,
    LATENCY_SIGNAL,
    Severity,
    Threshold,
    check_thresholds,
    not_checked,
)

__all__ = [
    "ALPHA",
    "DEFAULT_THRESHOLDS",
    "LATENCY_SIGNAL",
    "Severity",
    "Threshold",
    "check_thresholds",
    "not_checked",
]
