"""False alarms within a horizon of charts whose baseline was estimated, by simulation.

Every run draws a baseline, estimates mean and standard deviation (or the rate), and watches
`HORIZON` more points of the same process. Limits for a known baseline alarm too often, corrected
ones as often as asked for, within the binomial error of the simulation.
"""

from functools import cache
from math import sqrt

import numpy as np
import pytest

from ratchet.stats.charts.chart_chains import bernoulli_cusum_design
from ratchet.stats.charts.chart_limits import (
    bernoulli_cusum_decision_interval,
    cusum_decision_interval,
    ewma_limit,
    p_chart_limit,
    shewhart_limit,
)
from ratchet.stats.charts.designed_charts import design_count_chart, design_value_chart

pytestmark = pytest.mark.slow

RUNS, HORIZON, WANTED = 60_000, 100, 370.4
BUDGET = 1 - (1 - 1 / WANTED) ** HORIZON
ERROR = sqrt(BUDGET * (1 - BUDGET) / RUNS)
BASELINES = [20, 50, 200]
# Two sides are taken as independent, which is off by less than 1 % of the probability.
TWO_SIDED = 0.01 * BUDGET


def standardised(points, seed):
    """Points in estimated units, shape (horizon, runs)."""
    rng = np.random.default_rng(seed)
    mean = rng.standard_normal(RUNS) / sqrt(points)
    deviation = np.sqrt(rng.chisquare(points - 1, RUNS) / (points - 1))
    return (rng.standard_normal((HORIZON, RUNS)) - mean) / deviation


def shewhart_alarms(points, limit):
    return (np.abs(points) > limit).any(axis=0).mean()


def ewma_alarms(points, limit, weight=0.2):
    level, alarmed = np.zeros(RUNS), np.zeros(RUNS, bool)
    for point in points:
        level = weight * point + (1 - weight) * level
        alarmed |= np.abs(level) > limit * sqrt(weight / (2 - weight))
    return alarmed.mean()


def cusum_alarms(points, interval, reference=0.5):
    upper, lower, alarmed = np.zeros(RUNS), np.zeros(RUNS), np.zeros(RUNS, bool)
    for point in points:
        upper = np.maximum(0.0, upper + point - reference)
        lower = np.maximum(0.0, lower - point - reference)
        alarmed |= (upper >= interval) | (lower >= interval)
    return alarmed.mean()


CHARTS = {
    "Shewhart": (shewhart_limit, shewhart_alarms, 0.0),
    "EWMA": (lambda *a, **k: ewma_limit(0.2, *a, **k), ewma_alarms, 0.0),
    "CUSUM": (lambda *a, **k: cusum_decision_interval(0.5, *a, **k), cusum_alarms, TWO_SIDED),
}


@pytest.mark.parametrize("points", BASELINES)
@pytest.mark.parametrize("name", CHARTS)
def test_the_corrected_limit_keeps_the_false_alarms_and_the_uncorrected_does_not(name, points):
    limit_for, alarms, slack = CHARTS[name]
    seen = standardised(points, seed=points)
    corrected = alarms(seen, limit_for(WANTED, baseline_points=points, horizon=HORIZON))
    uncorrected = alarms(seen, limit_for(WANTED))
    print(f"{name} {points}: corrected {corrected:.4f}, not {uncorrected:.4f}, asked {BUDGET:.4f}")
    assert abs(corrected - BUDGET) < 4 * ERROR + slack
    assert uncorrected > BUDGET + 4 * ERROR


RATE, SIZE, P_RUNS = 0.3, 400, 4 * RUNS
P_ERROR = ERROR / 2


@cache
def limit_for_share(events, points):
    trials = points * SIZE
    return p_chart_limit(events / trials, SIZE, WANTED, baseline_trials=trials, horizon=HORIZON)


def p_chart_alarms(points, limits_for, seed=7):
    """Share of runs with an alarm; runs with the same estimate share their limits."""
    rng = np.random.default_rng(seed)
    baselines, runs = np.unique(rng.binomial(points * SIZE, RATE, P_RUNS), return_counts=True)
    alarms = 0
    for events, repeats in zip(baselines.tolist(), runs.tolist(), strict=True):
        center = events / (points * SIZE)
        half = limits_for(events) * sqrt(center * (1 - center) / SIZE)
        shares = rng.binomial(SIZE, RATE, (repeats, HORIZON)) / SIZE
        alarms += (np.abs(shares - center) > half).any(axis=1).sum()
    return alarms / P_RUNS


@pytest.mark.parametrize("points", BASELINES)
def test_the_corrected_limit_of_a_p_chart_keeps_the_false_alarms(points):
    corrected = p_chart_alarms(points, lambda events: limit_for_share(events, points))
    uncorrected = p_chart_alarms(points, lambda events: 3.0)
    print(f"p {points}: corrected {corrected:.4f}, not {uncorrected:.4f}, asked {BUDGET:.4f}")
    # counts are discrete, so that the budget is kept from below
    assert corrected < BUDGET + 4 * P_ERROR
    assert uncorrected > BUDGET + 4 * P_ERROR


def bernoulli_alarms(estimates, intervals, horizon, seed=11):
    rng = np.random.default_rng(seed)
    alarms = 0
    for (rate, repeats), interval in zip(estimates, intervals, strict=True):
        reference = float(bernoulli_cusum_design(rate, 2 * rate).reference)
        level, alarmed = np.zeros(repeats), np.zeros(repeats, bool)
        for _ in range(horizon):
            level = np.maximum(0.0, level + (rng.random(repeats) < 0.1) - reference)
            alarmed |= level >= interval - 1e-9
        alarms += alarmed.sum()
    return alarms


def test_the_corrected_interval_of_a_bernoulli_cusum_keeps_the_false_alarms():
    trials, horizon, wanted, runs = 1_000, 500, 4_000.0, 20_000
    budget = 1 - (1 - 1 / wanted) ** horizon
    rng = np.random.default_rng(5)
    events, repeats = np.unique(rng.binomial(trials, 0.1, runs), return_counts=True)
    estimates = list(zip(events / trials, repeats.tolist(), strict=True))
    corrected, plain = (
        [bernoulli_cusum_decision_interval(rate, 2 * rate, wanted, **k) for rate, _ in estimates]
        for k in ({"baseline_trials": trials, "horizon": horizon}, {})
    )
    error = sqrt(budget * (1 - budget) / runs)
    kept = bernoulli_alarms(estimates, corrected, horizon) / runs
    lost = bernoulli_alarms(estimates, plain, horizon) / runs
    print(f"Bernoulli: corrected {kept:.4f}, not {lost:.4f}, asked {budget:.4f}")
    assert kept < budget + 4 * error + budget / (0.1 * trials)
    assert lost > budget + 4 * error


def designed_alarms(draw, first, after, runs=2_000, seed=13):
    """Share of runs whose points after the baseline raise an alarm."""
    rng = np.random.default_rng(seed)
    made = (draw(rng, first + after, first) for _ in range(runs))
    return sum(any(alarm.index >= first for alarm in one.alarms) for one in made) / runs


def drawn_values(rng, points, first):
    return design_value_chart(rng.standard_normal(points), baseline=first, run_length=WANTED)


def drawn_shares(rng, points, first, kind="p", spread=0.0):
    sizes = rng.poisson(400, points)
    rates = np.clip(rng.normal(0.3, spread, points), 0.0, 1.0)
    events = rng.binomial(sizes, rates)
    return design_count_chart(events, sizes, kind, baseline=first, run_length=WANTED)


DESIGNED = {
    "XmR": drawn_values,
    "p": drawn_shares,
    "Laney": lambda *a: drawn_shares(*a, "laney-p", 0.03),
}


@pytest.mark.parametrize(("first", "after"), [(17, 17), (30, 100), (100, 100)])
@pytest.mark.parametrize("name", DESIGNED)
def test_a_designed_chart_raises_no_more_false_alarms_than_asked_for(name, first, after):
    """Moving ranges count as fewer points, so that short baselines are on the safe side."""
    budget = 1 - (1 - 1 / WANTED) ** after
    error = sqrt(budget * (1 - budget) / 2_000)
    found = designed_alarms(DESIGNED[name], first, after)
    print(f"{name} {first} + {after}: {found:.4f}, asked {budget:.4f}")
    assert found < budget + 4 * error
    assert found > budget / 3 - 4 * error
