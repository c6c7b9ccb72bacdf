"""What `collect` and `analyze` call to derive feedback from recorded requests."""

from __future__ import annotations

from ratchet.collect.derived import DerivedReport, derive_signals
from ratchet.flows._runtime import logger, now, workspace

MOST_A_PASS = 20_000
"""Interactions that one pass takes in; after a long pause the next ones go on."""


def derive_new(most: int | None = MOST_A_PASS) -> DerivedReport:
    """Derive what the requests since the last pass say about the answers before them."""
    work = workspace()
    report = derive_signals(work.store, now=now(), off=work.settings.not_derived, most=most)
    if report.interactions:
        logger.info("%s", report.in_words)
    return report
