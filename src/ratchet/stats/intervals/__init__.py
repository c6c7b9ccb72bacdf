"""Intervals of shares, means and quantiles."""

from ratchet.stats.checks import checked_level
from ratchet.stats.intervals.fixed import (
    Interval,
    Values,
    clopper_pearson,
    mean_interval,
    newcombe_independent,
    newcombe_paired,
    quantile_interval,
    wilson,
    wilson_lower,
)

__all__ = [
    "Interval",
    "Values",
    "checked_level",
    "clopper_pearson",
    "mean_interval",
    "newcombe_independent",
    "newcombe_paired",
    "quantile_interval",
    "wilson",
    "wilson_lower",
]
