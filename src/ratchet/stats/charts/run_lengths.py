"""Run lengths of control charts.

The average run length (ARL) is the mean number of points up to and including the first alarm: in
control the mean time between false alarms, after a change the mean delay. It is computed from the
chart's Markov chain or integral equation, not by simulation.

Conventions of every function here. Points are independent and in time order. A shift holds from
the first point on and is in standard deviations of one point. Decision intervals, references and
head starts of a normal CUSUM are in the same unit, those of a Bernoulli or Poisson CUSUM in events.

`ratchet.stats.charts.chart_limits` inverts them: limits for a wanted run length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ratchet.stats.charts.chart_chains import (
    CusumChain,
    EwmaChain,
    LatticeCusum,
    bernoulli_cusum_design,
    pattern_absorption_time,
    poisson_cusum_design,
)
from ratchet.stats.charts.chart_checks import (
    require,
    require_cusum,
    require_finite,
    require_head_start,
    require_positive,
    require_rate,
    require_weight,
)


@dataclass(frozen=True, slots=True)
class RunRule:
    """Alarm when `hits` of the last `window` points lie beyond `beyond` on the same side.

    Attributes:
        hits: Points needed, at least 1.
        window: Points looked at, at least `hits`.
        beyond: Distance from the center line in standard deviations, at least 0.
    """

    hits: int
    window: int
    beyond: float

    def __post_init__(self) -> None:
        require(
            1 <= self.hits <= self.window and self.beyond >= 0.0,
            f"a run rule needs 1 <= hits <= window and beyond >= 0, got {self.hits} of "
            f"{self.window} beyond {self.beyond}; the usual one is RunRule(2, 3, 2.0)",
        )


WESTERN_ELECTRIC = (RunRule(1, 1, 3.0), RunRule(2, 3, 2.0), RunRule(4, 5, 1.0), RunRule(8, 8, 0.0))


# Average run lengths ----------------------------------------------------------------------------


def shewhart_average_run_length(
    limit: float = 3.0, shift: float = 0.0, rules: Sequence[RunRule] = ()
) -> float:
    """Average run length of a two-sided Shewhart chart, with or without run rules.

    1 / (Phi(-limit + shift) + Phi(-limit - shift)); with rules the mean absorption time of the
    Markov chain whose state is the recent points that can still matter.

    Units: `limit` and `shift` in standard deviations in, points out.
    Assumptions: independent normal points, center and standard deviation known.
    Error rate: exact. Each rule costs false alarms: all four of Western Electric 92 points
    instead of 370.
    When not to use: for counts with few expected events, which are lopsided.

    Example:
        >>> round(shewhart_average_run_length(), 1)
        370.4
        >>> round(shewhart_average_run_length(rules=WESTERN_ELECTRIC), 2)
        91.75

    References:
        Champ, C. W., Woodall, W. H. (1987). Exact results for Shewhart control charts with
        supplementary runs rules. Technometrics 29, 393-399.
    """
    require_positive("limit", limit)
    require_finite("shift", shift)
    if not rules:
        beyond = float(special.ndtr(shift - limit) + special.ndtr(-shift - limit))
        return _told(1.0 / beyond if beyond else math.inf)
    tests = [(rule, side) for rule in (RunRule(1, 1, limit), *rules) for side in (1.0, -1.0)]
    cuts = np.unique([side * rule.beyond for rule, side in tests])
    chances = np.diff(special.ndtr(np.concatenate([[-np.inf], cuts, [np.inf]]) - shift))
    inside = np.concatenate([[cuts[0] - 1.0], (cuts[1:] + cuts[:-1]) / 2.0, [cuts[-1] + 1.0]])
    hits = [tuple(side * x > rule.beyond for rule, side in tests) for x in inside]
    needs = [(rule.hits, rule.window) for rule, _ in tests]
    return _told(pattern_absorption_time(needs, hits, chances))


def ewma_average_run_length(
    weight: float, limit: float, shift: float = 0.0, time_varying: bool = False
) -> float:
    """Average run length of a two-sided EWMA chart that starts at the center line.

    z_t = weight x_t + (1 - weight) z_{t-1}; alarm where |z_t| exceeds limit times its standard
    deviation, sqrt(weight / (2 - weight)) or, time-varying, that times
    sqrt(1 - (1 - weight)^(2t)). The integral equation is solved by Gauss-Legendre quadrature.

    Units: `limit` in standard deviations of z, `shift` in those of one point; points out.
    Assumptions: independent normal points, center and standard deviation known.
    Error rate: relative error of the quadrature below 1e-6.
    When not to use: for a weight below about 0.001; for counts with few expected events.

    Example:
        >>> round(ewma_average_run_length(0.5, 3.071), 0)
        500.0

    References:
        Crowder, S. V. (1987). A simple method for studying run-length distributions of
        exponentially weighted moving average charts. Technometrics 29, 401-407.
        Lucas, J. M., Saccucci, M. S. (1990). Technometrics 32, 1-12.
    """
    require_weight(weight)
    require_positive("limit", limit)
    require_finite("shift", shift)
    chain = EwmaChain(weight, limit, time_varying, np.array([shift]), np.ones(1))
    return _told(float(chain.means()[0]))


def cusum_average_run_length(
    reference: float,
    decision_interval: float,
    shift: float = 0.0,
    two_sided: bool = True,
    head_start: float = 0.0,
) -> float:
    """Average run length of a tabular CUSUM of standardised values.

    S_t = max(0, S_{t-1} + x_t - reference), S_0 = head_start, alarm at S_t >= decision_interval,
    and alike for -x. Each side is an integral equation with an atom at 0, solved by
    Gauss-Legendre quadrature; the sides combine exactly as in Lucas and Crosier.

    Units: standard deviations of one point in, points out.
    Assumptions: independent normal points, center and standard deviation known.
    Error rate: relative error of the quadrature below 1e-6.
    When not to use: for counts with few expected events; take the Bernoulli or Poisson CUSUM.

    Raises:
        InvalidInputError: A parameter is out of range; a two-sided head start may be at most
            decision_interval / 2 + reference, beyond which both sides can be up at once.

    Example:
        >>> round(cusum_average_run_length(0.5, 5.0), 0)
        465.0

    References:
        Lucas, J. M., Crosier, R. B. (1982). Fast initial response for CUSUM quality-control
        schemes. Technometrics 24, 199-205.
    """
    require_cusum(reference, decision_interval, head_start, two_sided=two_sided)
    require_finite("shift", shift)
    up, up_from_zero = _one_side(reference, decision_interval, head_start, shift)
    if not two_sided:
        return _told(up)
    down, down_from_zero = _one_side(reference, decision_interval, head_start, -shift)
    # a side that never alarms has an infinite run length, head start or not
    relative = sum(
        head / plain if math.isfinite(plain) else 1.0
        for head, plain in ((up, up_from_zero), (down, down_from_zero))
    )
    alarms = 1.0 / up_from_zero + 1.0 / down_from_zero
    return _told((relative - 1.0) / alarms if alarms else math.inf)


def bernoulli_cusum_average_run_length(
    rate: float,
    shifted_rate: float,
    decision_interval: float,
    true_rate: float | None = None,
    head_start: float = 0.0,
) -> float:
    """Average run length of a Bernoulli CUSUM, trial by trial.

    The chart of `ratchet.stats.control_charts.bernoulli_cusum` moves on a lattice, so that its
    Markov chain is exact.

    Units: rates in [0, 1] and events in, trials out.
    Assumptions: independent trials with the common rate `true_rate` (default `rate`).
    Error rate: exact.
    When not to use: where trials come in groups of one user and are not independent.

    Example:
        >>> round(bernoulli_cusum_average_run_length(0.5, 0.6, 1.0), 1)
        12.0

    References:
        Reynolds, M. R., Stoumbos, Z. G. (1999). A CUSUM chart for monitoring a proportion when
        inspecting continuously. Journal of Quality Technology 31, 87-108.
    """
    design = bernoulli_design(rate, shifted_rate)
    true_rate = rate if true_rate is None else true_rate
    require_rate("true_rate", true_rate, closed=True)
    return _lattice_mean(design, decision_interval, true_rate, head_start)


def poisson_cusum_average_run_length(
    rate: float,
    shifted_rate: float,
    decision_interval: float,
    true_rate: float | None = None,
    head_start: float = 0.0,
) -> float:
    """Average run length of a Poisson CUSUM with equal exposures.

    Units: expected events a point, and events, in; points out.
    Assumptions: independent Poisson counts with mean `true_rate` (default `rate`).
    Error rate: exact.
    When not to use: for counts that vary more than Poisson ones do; exposures that vary.

    Example:
        >>> round(poisson_cusum_average_run_length(4.0, 7.0, 10.0, true_rate=7.0), 1)
        6.7

    References:
        Lucas, J. M. (1985). Counted data CUSUM's. Technometrics 27, 129-144.
    """
    design = poisson_design(rate, shifted_rate)
    true_rate = rate if true_rate is None else true_rate
    require_positive("true_rate", true_rate)
    return _lattice_mean(design, decision_interval, true_rate, head_start)


def bernoulli_design(rate: float, shifted_rate: float) -> LatticeCusum:
    """Reference value and direction of a Bernoulli CUSUM; the reference is rounded to a fraction.

    Raises:
        InvalidInputError: A rate is out of range, or both are equal or too close to tell apart.
    """
    require_rate("rate", rate)
    require_rate("shifted_rate", shifted_rate)
    _require_shift(rate, shifted_rate)
    return bernoulli_cusum_design(rate, shifted_rate)


def poisson_design(rate: float, shifted_rate: float) -> LatticeCusum:
    """Reference value and direction of a Poisson CUSUM, as `bernoulli_design`."""
    require_positive("rate", rate)
    require_positive("shifted_rate", shifted_rate)
    _require_shift(rate, shifted_rate)
    return poisson_cusum_design(rate, shifted_rate)


def _require_shift(rate: float, shifted_rate: float) -> None:
    require(
        rate != shifted_rate,
        f"shifted_rate must differ from rate, got {shifted_rate} for both; pass the rate that "
        "should be found",
    )


def _told(run_length: float) -> float:
    require(
        math.isfinite(run_length),
        "a run length can be told up to about 1e12 points, got a chart that alarms more rarely or "
        "never; pass narrower limits",
    )
    return run_length


def _one_side(
    reference: float, decision_interval: float, head_start: float, shift: float
) -> tuple[float, float]:
    chain = CusumChain(reference, decision_interval, head_start, np.array([shift]), np.ones(1))
    from_head_start, from_zero = chain.means()
    return float(from_head_start[0]), float(from_zero[0])


def _lattice_mean(
    design: LatticeCusum, decision_interval: float, true_rate: float, head_start: float
) -> float:
    require_positive("decision_interval", decision_interval)
    require_head_start(head_start, decision_interval)
    never = 0.0 if design.rising else 1.0
    require(
        true_rate != never,
        f"a chart that never alarms has no run length, got true_rate {true_rate}; pass a rate at "
        "which it can alarm",
    )
    return _told(design.mean(decision_interval, true_rate, head_start))
