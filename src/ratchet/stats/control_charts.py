"""The charts of `ratchet.stats.charts` under their earlier name."""

from ratchet.stats import charts
from ratchet.stats.charts import *  # noqa: F403

__all__ = charts.__all__
