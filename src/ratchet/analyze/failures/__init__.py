"""Failure clusters: where failures pile up, and what becomes of them."""

from ratchet.analyze.failures.clusters import (
    MINIMUM_FAILED,
    STABLE,
    Cluster,
    FailureClusters,
    IntArray,
    as_flags,
    counted_rows,
    find_failure_clusters,
    scan_rows,
)

__all__ = [
    "MINIMUM_FAILED",
    "STABLE",
    "Cluster",
    "FailureClusters",
    "IntArray",
    "as_flags",
    "counted_rows",
    "find_failure_clusters",
    "scan_rows",
]
