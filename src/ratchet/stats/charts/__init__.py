"""Control charts and detectors: is a rate or a value stable over time?"""

from ratchet.stats.charts.chart_results import Baseline, ControlChart, CusumChart
from ratchet.stats.charts.chart_rules import (
    CleanBaseline,
    DroppedPoint,
    RunRuleSignal,
    clean_baseline,
    run_rule_signals,
)
from ratchet.stats.charts.control_charts import (
    COUNTS,
    SHARES,
    WIDTH,
    c_chart,
    laney_p_chart,
    laney_u_chart,
    np_chart,
    p_chart,
    u_chart,
    xmr_chart,
)
from ratchet.stats.charts.memory_charts import (
    bernoulli_cusum,
    cusum_chart,
    ewma_chart,
    poisson_cusum,
    value_baseline,
)
from ratchet.stats.charts.run_lengths import (
    WESTERN_ELECTRIC,
    RunRule,
    cusum_average_run_length,
    ewma_average_run_length,
    shewhart_average_run_length,
)
from ratchet.stats.charts.subgroup_charts import r_chart, s_chart, xbar_chart

__all__ = [
    "COUNTS",
    "SHARES",
    "WESTERN_ELECTRIC",
    "WIDTH",
    "Baseline",
    "CleanBaseline",
    "ControlChart",
    "CusumChart",
    "DroppedPoint",
    "RunRule",
    "RunRuleSignal",
    "bernoulli_cusum",
    "c_chart",
    "clean_baseline",
    "cusum_average_run_length",
    "cusum_chart",
    "ewma_average_run_length",
    "ewma_chart",
    "laney_p_chart",
    "laney_u_chart",
    "np_chart",
    "p_chart",
    "poisson_cusum",
    "r_chart",
    "run_rule_signals",
    "s_chart",
    "shewhart_average_run_length",
    "u_chart",
    "value_baseline",
    "xbar_chart",
    "xmr_chart",
]
