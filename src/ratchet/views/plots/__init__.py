"""Plots of what was measured, as matplotlib figures.

The functions take arrays or records and return a figure; nothing is shown and no global state of
matplotlib is touched.
"""

from ratchet.views.plots.failures import failure_bars, failure_map
from ratchet.views.plots.gating import (
    FloatArray,
    gate_figure,
    metric_margins,
    paired_differences,
    wins_by_cluster,
)
from ratchet.views.plots.metrics import (
    agreement_over_time,
    board_chart,
    confusion_matrix,
    effect_forest,
    evidence_chart,
    funnel,
    loss_curve,
    metric_forest,
    signal_chart,
)
from ratchet.views.plots.style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, RED, to_png, to_svg

__all__ = [
    "BLUE",
    "FAINT",
    "GREEN",
    "INK",
    "MUTED",
    "ORANGE",
    "RED",
    "FloatArray",
    "agreement_over_time",
    "board_chart",
    "confusion_matrix",
    "effect_forest",
    "evidence_chart",
    "failure_bars",
    "failure_map",
    "funnel",
    "gate_figure",
    "loss_curve",
    "metric_forest",
    "metric_margins",
    "paired_differences",
    "signal_chart",
    "to_png",
    "to_svg",
    "wins_by_cluster",
]
