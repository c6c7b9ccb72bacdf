"""Two systems compared on the same examples, and how many examples that takes."""

from ratchet.stats.comparisons.rates import (
    STEP,
    MarginTest,
    McNemarResult,
    checked_alpha,
    checked_margin,
    mcnemar_chi_squared,
    mcnemar_exact,
    paired_rate_test,
    tango_statistic,
)

__all__ = [
    "STEP",
    "MarginTest",
    "McNemarResult",
    "checked_alpha",
    "checked_margin",
    "mcnemar_chi_squared",
    "mcnemar_exact",
    "paired_rate_test",
    "tango_statistic",
]
