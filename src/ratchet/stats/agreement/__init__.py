"""How far raters agree beyond chance."""

from ratchet.stats.agreement.ratings import Agreement, Label, Labels, Ratings
from ratchet.stats.agreement.several_raters import (
    Metric,
    fleiss_kappa,
    gwet_ac1,
    krippendorff_alpha,
)
from ratchet.stats.agreement.two_raters import (
    ROUNDING,
    Weighting,
    cohen_kappa,
    cohen_kappa_of_table,
    kappa_lower_bound,
    percent_agreement,
)

__all__ = [
    "ROUNDING",
    "Agreement",
    "Label",
    "Labels",
    "Metric",
    "Ratings",
    "Weighting",
    "cohen_kappa",
    "cohen_kappa_of_table",
    "fleiss_kappa",
    "gwet_ac1",
    "kappa_lower_bound",
    "krippendorff_alpha",
    "percent_agreement",
]
