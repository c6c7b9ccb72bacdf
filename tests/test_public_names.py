"""Functions that others import: each is there under its name, and gives a known result.

Expected values come from the closed form or from the source beside them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ratchet.analyze.failures import find_failure_clusters
from ratchet.errors import InvalidInputError
from ratchet.evaluation.code_execution import pass_at_k
from ratchet.stats import control_charts, intervals
from ratchet.stats.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.stats.control_charts import (
    COUNTS,
    SHARES,
    WESTERN_ELECTRIC,
    WIDTH,
    Baseline,
    CleanBaseline,
    ControlChart,
    CusumChart,
    DroppedPoint,
    RunRule,
    RunRuleSignal,
    bernoulli_cusum,
    c_chart,
    clean_baseline,
    cusum_average_run_length,
    cusum_chart,
    ewma_average_run_length,
    ewma_chart,
    laney_p_chart,
    laney_u_chart,
    np_chart,
    p_chart,
    poisson_cusum,
    r_chart,
    run_rule_signals,
    s_chart,
    shewhart_average_run_length,
    u_chart,
    value_baseline,
    xbar_chart,
    xmr_chart,
)
from ratchet.stats.intervals import (
    Interval,
    Values,
    checked_level,
    clopper_pearson,
    mean_interval,
    newcombe_independent,
    newcombe_paired,
    quantile_interval,
    wilson,
    wilson_lower,
)
from tests.golden import make, names

RECORDED = make.recorded("public_names")
Z95 = 1.959963984540054  # the normal quantile of 0.975
IN_CONTROL = Baseline("value", 0.0, 1_000, sigma=1.0)


@pytest.mark.parametrize("module", sorted(RECORDED))
def test_every_recorded_name_can_be_imported_from_its_module(module):
    assert names.missing({module: RECORDED[module]}) == []


def test_the_record_holds_every_module_that_becomes_a_package():
    assert sorted(RECORDED) == sorted(names.MODULES)
    assert all(RECORDED.values())


# Agreement ----------------------------------------------------------------------------------------


def test_cohen_kappa_is_that_of_cohens_paper():
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]  # Cohen (1960), shares times 200; .492
    pairs = [
        (one, other)
        for one, cells in enumerate(table)
        for other, count in enumerate(cells)
        for _ in range(count)
    ]
    first, second = zip(*pairs, strict=True)
    assert round(cohen_kappa(first, second).value, 3) == 0.492


def test_fleiss_kappa_is_that_of_wikipedias_table():
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert round(fleiss_kappa(counts).value, 3) == 0.210  # ten items, 14 raters


@pytest.mark.parametrize(
    ("metric", "printed"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)],
)
def test_krippendorff_alpha_is_that_of_krippendorffs_data(metric, printed):
    # Krippendorff (2011), Computing Krippendorff's alpha-reliability, section C; a dot is missing
    coders = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    ratings = [[None if code == "." else int(code) for code in coder] for coder in coders]
    result = krippendorff_alpha(np.array(ratings, dtype=object).T, metric=metric)
    assert round(result.value, 3) == printed


# Comparisons --------------------------------------------------------------------------------------


def test_mcnemar_exact_counts_the_tails_of_a_fair_coin():
    result = mcnemar_exact(1, 5)
    tail = (math.comb(6, 0) + math.comb(6, 1)) / 2**6
    assert (result.only_first, result.only_second) == (1, 5)
    assert result.p_value == pytest.approx(2 * tail, rel=1e-12)
    assert result.p_value_second_better == pytest.approx(tail, rel=1e-12)


# Intervals ----------------------------------------------------------------------------------------


def ends(interval, digits=4):
    return round(interval.lower, digits), round(interval.upper, digits)


def score_ends(successes, trials, z):
    """Wilson (1927): the roots of (k/n - p)^2 = z^2 p (1 - p) / n."""
    centre = (successes + z * z / 2) / (trials + z * z)
    rate = successes / trials
    half = z / (trials + z * z) * math.sqrt(trials * rate * (1 - rate) + z * z / 4)
    return centre - half, centre + half


# Newcombe (1998), Statistics in Medicine 17: pages 857-872, table I, methods 3 and 5; pages
# 873-890, table II, method 10. For pairs the data of Cavo in R's package contingencytables.
INTERVALS = {
    "wilson": (lambda: wilson(81, 263), (0.2553, 0.3662)),
    "clopper_pearson": (lambda: clopper_pearson(81, 263), (0.2527, 0.3676)),
    "newcombe_independent": (lambda: newcombe_independent(48, 80, 56, 70), (0.0524, 0.3339)),
    "newcombe_paired": (lambda: newcombe_paired(59, 6, 16, 80), (0.0046, 0.1186)),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_the_intervals_of_rates_are_those_that_are_printed(name):
    interval, printed = INTERVALS[name]
    assert ends(interval()) == printed


def test_the_one_sided_bound_is_the_root_of_the_score_test():
    lower, _ = score_ends(40, 100, 1.6448536269514722)  # the normal quantile of 0.95
    assert wilson_lower(40, 100) == pytest.approx(lower, rel=1e-12)


def test_the_interval_of_a_mean_is_students():
    half = 4.302652729911275 / math.sqrt(3)  # t of 0.975 with 2 degrees of freedom; s = 1
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.lower == pytest.approx(2 - half, rel=1e-9)
    assert interval.upper == pytest.approx(2 + half, rel=1e-9)


def test_the_interval_of_the_median_of_six_values_is_their_range():
    # P(all six on one side) = 2 / 64 = 3.1 %; without the outermost 14 / 64, more than 5 %
    assert ends(quantile_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0], 0.5)) == (1.0, 6.0)


def test_an_interval_holds_its_ends_and_a_level_is_within_0_and_1():
    values: Values = [0.2, 0.4]
    interval = Interval(*values, level=checked_level(0.95))
    assert all(value in interval for value in values)
    assert 0.41 not in interval
    assert interval.level == 0.95
    with pytest.raises(InvalidInputError, match="got 95"):
        checked_level(95)


# Charts -------------------------------------------------------------------------------------------


def limits(chart):
    return chart.lower[0].item(), chart.center, chart.upper[0].item()


def around(center, sigma):
    return pytest.approx((center - 3 * sigma, center, center + 3 * sigma), rel=1e-9)


# Montgomery, Introduction to Statistical Quality Control, 6th ed., chapters 6 and 7: center +- 3
# standard errors, those of a share sqrt(p (1 - p) / n), of a count its root
SHEWHART = {
    "p_chart": (lambda: p_chart([10, 20, 30, 20], [100] * 4), (0.2, math.sqrt(0.16 / 100))),
    "np_chart": (lambda: np_chart([10, 20, 30, 20], 100), (20.0, math.sqrt(16.0))),
    "c_chart": (lambda: c_chart([14, 15, 16, 19]), (16.0, 4.0)),
    "u_chart": (lambda: u_chart([32, 28, 36, 32], [2.0] * 4), (16.0, math.sqrt(8.0))),
    # ranges of neighbours 1, 1, 1; d2 of two values is 1.128
    "xmr_chart": (lambda: xmr_chart([5.0, 6.0, 5.0, 6.0]), (5.5, 1 / 1.128)),
    # means 2 and 3, ranges 2: sigma 2 / 1.128, of a mean of two sigma / sqrt(2)
    "xbar_chart": (lambda: xbar_chart([[1.0, 3.0], [2.0, 4.0]]), (2.5, math.sqrt(2) / 1.128)),
    "xmr_chart, known": (lambda: xmr_chart([0.1, 0.2], baseline=IN_CONTROL), (0.0, 1.0)),
}


@pytest.mark.parametrize("name", SHEWHART)
def test_a_shewhart_chart_has_limits_at_three_standard_errors(name):
    chart, (center, sigma) = SHEWHART[name][0](), SHEWHART[name][1]
    assert isinstance(chart, ControlChart)
    assert limits(chart) == around(center, sigma)


def test_limits_stay_within_what_is_possible():
    share, count = p_chart([0, 1, 0, 1], [2] * 4), c_chart([1, 0, 1, 0])
    assert WIDTH == 3.0
    assert (share.lower[0], share.upper[0]) == SHARES == (0.0, 1.0)  # 0.25 +- 3 * 0.31, at 0 and 1
    assert (count.lower[0], np.inf) == COUNTS  # 0.5 - 3 * 0.71


def test_charts_of_spread_have_the_limits_of_two_values():
    # Of two values s = range / sqrt(2), so that both charts are one but for the scale. Montgomery,
    # appendix VI, for two values: D3 = B3 = 0, D4 = B4 = 3.267 (from d2 = 1.128, d3 = 0.853).
    groups = [[1.0, 3.0], [2.0, 4.0], [2.0, 4.0]]
    for chart, center in ((r_chart(groups), 2.0), (s_chart(groups), math.sqrt(2))):
        assert limits(chart) == pytest.approx((0.0, center, 3.267 * center), rel=5e-4)


def test_laneys_charts_widen_the_limits_by_the_variation_beyond_chance():
    # Laney (2002): z = (p - center) / s; sigma_z = mean |difference of neighbours| / 1.128
    p = laney_p_chart([400, 600, 400, 600], [1_000] * 4)  # s = sqrt(0.25 / 1000), |z| = 0.1 / s
    u = laney_u_chart([90, 110, 90, 110], [1.0] * 4)  # s = 10, z = -1, 1, -1, 1
    error = math.sqrt(0.25 / 1_000)
    assert p.sigma_z == pytest.approx(0.2 / error / 1.128, rel=1e-9)
    assert limits(p) == pytest.approx((0.0, 0.5, 1.0))  # 3 * 0.2 / 1.128 = 0.53: cut to [0, 1]
    assert u.sigma_z == pytest.approx(2 / 1.128, rel=1e-9)
    assert limits(u) == around(100.0, 10.0 * 2 / 1.128)


def test_the_ewma_is_the_weighted_mean_of_what_came_before():
    chart = ewma_chart([1.0, 0.0, 2.0], weight=0.5, center=0.0, sigma=1.0)
    # z = 0.5 x + 0.5 z; sigma of it in the long run sqrt(0.5 / 1.5): Montgomery, section 9.2
    assert chart.values.tolist() == [0.5, 0.25, 1.125]
    assert chart.smoothed
    assert limits(chart) == around(0.0, math.sqrt(1 / 3))


def test_the_cusum_adds_what_is_beyond_the_reference():
    chart = cusum_chart([0.0, 0.0, 2.0, 2.0, 2.0, 2.0], center=0.0, sigma=1.0)
    assert isinstance(chart, CusumChart)
    assert chart.upper.tolist() == [0.0, 0.0, 1.5, 3.0, 4.5, 6.0]  # + 2 - 0.5 a point
    assert (chart.signals.tolist(), chart.change_point) == ([5], 2)


def test_the_cusums_of_counts_add_what_is_beyond_their_reference():
    # The reference is rounded to the simplest fraction within 2 % of the gap between the rates.
    counts = (7 - 4) / math.log(7 / 4)  # 5.361
    assert counts == pytest.approx(16 / 3, abs=0.02 * 3)
    poisson = poisson_cusum([4, 3, 9, 9, 9], [1.0] * 5, 4.0, 7.0, 10.0)
    up = 9 - 16 / 3
    assert poisson.upper == pytest.approx([0, 0, up, 2 * up, 3 * up])
    assert (poisson.signals.tolist(), poisson.change_point) == ([4], 2)
    trials = math.log(0.5 / 0.2) / math.log(0.8 * 0.5 / (0.5 * 0.2))  # 0.661
    assert trials == pytest.approx(2 / 3, abs=0.02 * 0.3)
    bernoulli = bernoulli_cusum([0, 1, 1, 0, 1], 0.5, 0.8, 0.6)
    assert bernoulli.upper == pytest.approx([0, 1 / 3, 2 / 3, 0, 1 / 3])
    assert (bernoulli.signals.tolist(), bernoulli.change_point) == ([2], 1)


def test_a_baseline_of_values_has_their_mean_and_spread():
    baseline = value_baseline([1.0, 2.0, 3.0])
    assert baseline == Baseline("value", 2.0, 3, sigma=1 / 1.128)
    assert value_baseline([1.0, 2.0, 3.0], "deviation").sigma == pytest.approx(1.0)


def test_a_clean_baseline_leaves_out_the_point_beyond_its_limits():
    clean = clean_baseline(p_chart, [5, 6, 4, 30, 5, 6], [50] * 6)
    assert isinstance(clean, CleanBaseline)
    (dropped,) = clean.dropped
    assert isinstance(dropped, DroppedPoint)
    assert (dropped.index, dropped.value) == (3, 0.6)
    assert clean.baseline.center == pytest.approx(26 / 250)
    assert clean.is_clean


def test_two_of_three_points_beyond_two_sigma_alarm():
    chart = xmr_chart([0.1, 2.2, -0.3, 2.4], baseline=IN_CONTROL)
    rule = RunRule(hits=2, window=3, beyond=2.0)
    assert rule in WESTERN_ELECTRIC  # Western Electric (1956): 1 of 1, 2 of 3, 4 of 5, 8 of 8
    assert run_rule_signals(chart) == (RunRuleSignal(3, rule, above=True),)


def test_run_lengths_are_those_of_the_tables():
    exceeded = math.erfc(3 / math.sqrt(2))  # P(|Z| > 3)
    assert shewhart_average_run_length() == pytest.approx(1 / exceeded, rel=1e-9)
    # Champ and Woodall (1987), Technometrics 29, table 1: all four rules, in control
    assert round(shewhart_average_run_length(rules=WESTERN_ELECTRIC), 2) == 91.75
    # Lucas and Saccucci (1990), Technometrics 32: weight 0.5 and limit 3.071 give 500
    assert round(ewma_average_run_length(0.5, 3.071)) == 500
    # Montgomery, table 9.3: k = 1/2, h = 5 give 465
    assert round(cusum_average_run_length(0.5, 5.0)) == 465


@pytest.mark.parametrize("module", [intervals, control_charts])
def test_every_public_name_of_the_module_is_used_here(module):
    words = Counter(re.findall(r"\w+", Path(__file__).read_text("utf-8")))
    assert [name for name in RECORDED[module.__name__] if words[name] < 2] == []  # import and use


# Answers and failures -----------------------------------------------------------------------------


def test_pass_at_k_is_one_minus_the_share_of_choices_without_a_pass():
    assert pass_at_k(10, 3, 5) == pytest.approx(1 - math.comb(7, 5) / math.comb(10, 5))
    assert pass_at_k(4, 2, 3) == 1.0  # every three of the four hold one


def test_a_planted_cluster_is_found_and_its_rates_are_counts():
    topics = {"card": "my card was stolen", "loan": "loan rates", "pin": "new pin please"}
    texts = [f"{topics[sorted(topics)[n % 3]]} {n % 40}" for n in range(480)]
    failed = np.array([n % 3 == 0 for n in range(480)])  # the cards, all of them
    found = find_failure_clusters(texts, failed, rng=np.random.default_rng(0))
    assert found.reason is None
    rows = np.concatenate([cluster.rows for cluster in found.clusters])
    assert set(rows.tolist()) <= set(range(0, 480, 3))
    for cluster in found.clusters:
        assert "card" in cluster.name
        assert cluster.failure_rate == 1.0
        assert cluster.members.tolist() == cluster.rows.tolist()
        assert cluster.lift == pytest.approx(3.0)  # 1 over a third
