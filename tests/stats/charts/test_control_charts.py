import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts import (
    c_chart,
    laney_p_chart,
    laney_u_chart,
    np_chart,
    p_chart,
    u_chart,
    xmr_chart,
)
from ratchet.stats.charts.chart_results import Baseline
from ratchet.stats.charts.chart_rules import clean_baseline, run_rule_signals
from ratchet.stats.charts.memory_charts import (
    bernoulli_cusum,
    cusum_chart,
    ewma_chart,
    poisson_cusum,
    value_baseline,
)
from ratchet.stats.charts.run_lengths import (
    RunRule,
    bernoulli_cusum_average_run_length,
    cusum_average_run_length,
    ewma_average_run_length,
    poisson_cusum_average_run_length,
    shewhart_average_run_length,
)
from ratchet.stats.charts.subgroup_charts import group_baseline, r_chart, s_chart, xbar_chart

# Montgomery, Introduction to Statistical Quality Control (also the data sets of R's qcc).
# Cans that leak, 50 a sample: before an adjustment (table 7.1) and after it (table 7.3)
ORANGE_JUICE = [12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 5, 6, 17, 12, 22]
ORANGE_JUICE += [8, 10, 5, 13, 11, 20, 18, 24, 15, 9, 12, 7, 13, 9, 6]
ORANGE_JUICE_2 = [9, 6, 12, 5, 6, 4, 6, 3, 7, 6, 2, 4, 3, 6, 5, 4, 8, 5, 6, 7, 5, 6, 3, 5]
# Nonconformities of 26 samples of 100 circuit boards, and of 20 samples of 5 computers
CIRCUIT = [21, 24, 16, 12, 15, 5, 28, 20, 31, 25, 20, 24, 16]
CIRCUIT += [19, 10, 17, 13, 22, 18, 39, 30, 24, 16, 19, 17, 15]
COMPUTERS = [10, 12, 8, 14, 10, 16, 11, 7, 10, 15, 9, 5, 7, 11, 12, 6, 8, 10, 7, 5]
# Viscosity of 35 batches, the first 20 a trial
VISCOSITY = [34.05, 34.40, 33.59, 35.96, 34.70, 33.51, 33.79, 34.04, 34.52, 33.75, 33.27, 33.71]
VISCOSITY += [34.03, 34.58, 34.02, 33.97, 34.05, 34.04, 33.73, 34.05, 34.39, 33.75, 33.40, 33.27]
VISCOSITY += [34.65, 34.80, 34.55, 35.40, 34.75, 34.50, 34.70, 34.29, 34.61, 34.49, 35.03]
# Diameters of 40 samples of 5 piston rings, in thousandths above 74, the first 25 a trial
RINGS = """
30 2 19 -8 8, -5 -8 1 11 4, -12 24 21 5 2, 2 -4 -7 15 9, -8 7 15 -11 14, 9 -6 -3 -15 -7,
-5 6 -6 0 5, -15 3 -7 15 -12, 8 -5 9 5 4, -2 0 -10 7 -5, -6 -2 -6 -5 -10, 4 0 7 0 -4,
-17 2 -2 -3 12, 6 -33 -6 0 -16, 12 14 -2 -1 7, 0 -16 5 -2 -4, -6 12 -14 5 7, 6 10 18 3 0,
-16 2 3 5 -3, 0 10 13 20 3, -12 1 9 5 -4, 4 -1 -10 6 9, 10 -11 -10 9 14, 15 8 -7 0 10,
-18 -16 -5 17 13, 12 15 30 -14 0, -5 10 -10 15 1, -13 -1 -15 0 -10, 8 10 3 -9 6, 3 0 1 -14 -3,
-6 3 15 20 4, 8 2 18 -5 5, 1 4 -10 -4 -2, 15 0 16 25 0, 30 5 0 16 12, 1 -10 -5 10 24,
15 20 24 5 19, 35 10 12 15 26, 17 13 36 25 26, 10 5 29 0 20
"""
RINGS = np.array([[74 + int(x) / 1000 for x in row.split()] for row in RINGS.split(",")])
TRIAL = 25
IN_CONTROL = Baseline("value", 0.0, 1_000, sigma=1.0)
points = st.lists(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    min_size=2,
    max_size=30,
)


def shown(value, figure, digits=7):
    """Whether a value is the printed figure at its printed number of significant digits."""
    assert float(f"{value:.{digits}g}") == pytest.approx(figure, rel=1e-9)


@pytest.fixture(scope="module")
def published(published_numbers):
    return published_numbers["qcc"]


# Published charts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("orangejuice_p", lambda: p_chart(ORANGE_JUICE, [50] * 30)),
        ("orangejuice_np", lambda: np_chart(ORANGE_JUICE, 50)),
        (
            "orangejuice_p_without_15_23",
            lambda: clean_baseline(p_chart, ORANGE_JUICE, [50] * 30, rounds=1).chart,
        ),
        ("orangejuice2_p", lambda: p_chart(ORANGE_JUICE_2, [50] * 24)),
        ("circuit_c", lambda: c_chart(CIRCUIT)),
        ("circuit_c_without_6_20", lambda: clean_baseline(c_chart, CIRCUIT).chart),
        (
            "circuit_u_without",
            lambda: clean_baseline(u_chart, CIRCUIT, [100.0] * len(CIRCUIT)).chart,
        ),
        ("pcmanufact_u", lambda: u_chart(COMPUTERS, [5.0] * 20)),
        ("viscosity_XmR", lambda: xmr_chart(VISCOSITY[:20])),
        ("viscosity_without_4", lambda: clean_baseline(xmr_chart, VISCOSITY[:20], rounds=1).chart),
        ("pistonrings_xbar", lambda: xbar_chart(RINGS[:TRIAL])),
        ("pistonrings_S", lambda: s_chart(RINGS[:TRIAL])),
    ],
)
def test_the_chart_has_every_published_figure(published, name, make):
    figures, chart = published[name], make()
    shown(chart.center, figures["center"])
    shown(chart.upper[0], figures["UCL"])
    if "LCL" in figures:
        shown(chart.lower[0], figures["LCL"])
    if "sd" in figures:
        shown(chart.baseline.sigma, figures["sd"])
    if "beyond" in figures:
        assert [index + 1 for index in chart.signals] == figures["beyond"]


def test_the_chart_of_ranges_has_the_published_figures(published):
    figures, chart = published["pistonrings_R"], r_chart(RINGS[:TRIAL])
    shown(chart.center, figures["center"])
    # qcc has 0.8640855 for d3, which is 0.8640819 by integration: the sixth digit differs
    assert chart.upper[0] == pytest.approx(figures["UCL"], abs=1.5e-7)
    other = chart.center + 3 * 0.8640855 * chart.baseline.sigma
    shown(other, figures["UCL"])


@pytest.mark.parametrize(
    ("name", "limit"), [("pistonrings_ewma_l.2_3s", 3.0), ("pistonrings_ewma_l.2_2.7s", 2.7)]
)
def test_the_ewma_chart_of_the_rings_has_every_published_limit(published, name, limit):
    figures, chart = published[name], rings_ewma(limit)
    computed = figures.pop("signals_computed", None)
    for point, (lower, upper) in figures.items():
        shown(chart.lower[int(point) - 1], lower)
        shown(chart.upper[int(point) - 1], upper)
    if computed:
        assert [index + 1 for index in chart.signals] == computed


def test_the_cusum_of_the_rings_has_the_published_signals(published):
    chart = rings_cusum()
    assert [i + 1 for i in chart.signals] == published["pistonrings_cusum_k.5_h5_signals_computed"]


def test_the_ewma_chart_of_the_viscosity_has_every_published_limit(published):
    baseline = xmr_chart(VISCOSITY[:20]).baseline
    chart = ewma_chart(VISCOSITY, 0.2, 2.7, time_varying=True, baseline=baseline)
    for point, (lower, upper) in published["viscosity_ewma_l.2_2.7s"].items():
        shown(chart.lower[int(point) - 1], lower)
        shown(chart.upper[int(point) - 1], upper)


def rings_ewma(limit):
    means, trial = RINGS.mean(axis=1), group_baseline(RINGS[:TRIAL], "range")
    return ewma_chart(means, 0.2, limit, trial.center, trial.sigma / math.sqrt(5), True)


def rings_cusum():
    means, trial = RINGS.mean(axis=1), group_baseline(RINGS[:TRIAL], "range")
    return cusum_chart(means, 0.5, 5.0, trial.center, trial.sigma / math.sqrt(5))


@pytest.mark.parametrize(
    ("chart", "center", "lower", "upper", "beyond"),
    [
        (p_chart(ORANGE_JUICE, [50] * 30), 0.2313333, 0.05242755, 0.4102391, [15, 23]),
        (c_chart(CIRCUIT), 19.84615, 6.481447, 33.21086, [6, 20]),
        (u_chart(COMPUTERS, [5.0] * 20), 1.93, 0.06613305, 3.793867, []),
        (xmr_chart(VISCOSITY[:20]), 34.088, 32.56504, 35.61096, [4]),
        (xbar_chart(RINGS[:TRIAL]), 74.00118, 73.98805, 74.0143, []),
    ],
)
def test_the_figures_that_qcc_prints(chart, center, lower, upper, beyond):
    shown(chart.center, center)
    shown(chart.lower[0], lower)
    shown(chart.upper[0], upper)
    assert [index + 1 for index in chart.signals] == beyond


def test_the_last_rings_signal_a_higher_mean():
    # computed with qcc 3.0 from the same 25 trial samples
    assert [index + 1 for index in rings_ewma(2.7).signals] == [35, 37, 38, 39, 40]
    chart = rings_cusum()
    assert [index + 1 for index in chart.signals] == [37, 38, 39, 40]
    assert chart.change_point == np.flatnonzero(chart.upper[:36] == 0.0)[-1] + 1


# p chart ----------------------------------------------------------------------------------------


def test_limits_follow_the_closed_form_for_unequal_sizes():
    chart = p_chart([10, 40], [100, 400])
    assert chart.center == pytest.approx(0.1)
    assert chart.upper == pytest.approx([0.1 + 3 * 0.03, 0.1 + 3 * 0.015])
    assert chart.lower == pytest.approx([0.1 - 3 * 0.03, 0.1 - 3 * 0.015])
    assert chart.sigma_z is None


@given(points)
def test_limits_stay_in_range_and_signals_are_the_points_outside_them(pairs):
    counts, sizes = zip(*pairs, strict=True)
    chart = p_chart(counts, sizes)
    assert ((chart.lower >= 0) & (chart.lower <= chart.center)).all()
    assert ((chart.upper <= 1) & (chart.upper >= chart.center)).all()
    outside = (chart.values < chart.lower) | (chart.values > chart.upper)
    assert chart.signals.tolist() == np.flatnonzero(outside).tolist()


@given(points, st.randoms(use_true_random=False))
def test_the_order_of_the_points_moves_signals_but_makes_none(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one = p_chart(*zip(*pairs, strict=True))
    other = p_chart(*zip(*shuffled, strict=True))
    assert one.center == pytest.approx(other.center)
    assert sorted(pairs[i] for i in one.signals) == sorted(shuffled[i] for i in other.signals)


@pytest.mark.parametrize("count", [0, 50])
def test_a_rate_that_is_always_zero_or_one_signals_nothing(count):
    assert p_chart([count] * 5, [50] * 5).signals.size == 0


def test_false_alarms_of_a_stable_rate_are_as_rare_as_stated():
    rng = np.random.default_rng(20261124)
    charts, length = 2_000, 20
    alarms = sum(
        p_chart(rng.binomial(100, 0.3, size=length), [100] * length).signals.size
        for _ in range(charts)
    )
    stated = 0.0027
    error = math.sqrt(stated * (1 - stated) / (charts * length))
    # below the stated rate, because each point also moves the center line towards itself
    assert alarms / (charts * length) < stated + 4 * error


def test_one_point_is_no_chart():
    with pytest.raises(InsufficientDataError, match="at least 2 points, got 1"):
        p_chart([1], [10])


@pytest.mark.parametrize(
    ("counts", "sizes", "words"),
    [
        ([1, 2], [10], "equally long"),
        ([1, 2], [10, 0], "at least 1, got 0"),
        ([1, 11], [10, 10], "got 11 of 10 at point 1"),
        ([-1, 1], [10, 10], "got -1 of 10 at point 0"),
    ],
)
def test_points_that_make_no_sense_are_refused(counts, sizes, words):
    with pytest.raises(InvalidInputError, match=words):
        p_chart(counts, sizes)


# Other Shewhart charts --------------------------------------------------------------------------


def test_an_np_chart_is_a_p_chart_times_the_size():
    shares, counts = p_chart(ORANGE_JUICE, [50] * 30), np_chart(ORANGE_JUICE, 50)
    for name in ("values", "center", "lower", "upper", "sigma"):
        assert getattr(counts, name) == pytest.approx(50 * getattr(shares, name))
    assert counts.signals.tolist() == shares.signals.tolist()
    assert counts.baseline == shares.baseline


def test_c_and_u_charts_of_one_exposure_are_the_same():
    counts, rates = c_chart(CIRCUIT), u_chart(CIRCUIT, [1.0] * 26)
    assert counts.upper == pytest.approx(rates.upper)


def test_laney_charts_follow_their_closed_form():
    counts, sizes = np.array([30, 55, 80, 20]), np.array([100, 200, 400, 50])
    center = 185 / 750
    error = np.sqrt(center * (1 - center) / sizes)
    scores = (counts / sizes - center) / error
    sigma_z = np.abs(np.diff(scores)).mean() / 1.128
    chart = laney_p_chart(counts, sizes)
    assert chart.sigma_z == pytest.approx(sigma_z)
    assert chart.upper == pytest.approx(np.minimum(1.0, center + 3 * error * sigma_z))
    assert chart.lower == pytest.approx(np.maximum(0.0, center - 3 * error * sigma_z))
    error = np.sqrt(center / sizes)
    sigma_z = np.abs(np.diff((counts / sizes - center) / error)).mean() / 1.128
    chart = laney_u_chart(counts, sizes.astype(float))
    assert chart.sigma_z == pytest.approx(sigma_z)
    assert chart.upper == pytest.approx(center + 3 * error * sigma_z)


def test_sigma_z_is_one_on_average_where_chance_is_all_there_is():
    rng = np.random.default_rng(20261124)
    charts = 2_000
    found = [laney_p_chart(rng.binomial(400, 0.3, 50), [400] * 50).sigma_z for _ in range(charts)]
    # d2 is rounded (1.128 for 1.128379), the center is estimated (a factor of sqrt(1 - 1/50))
    expected = 1.128379 / 1.128
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(charts))


def test_a_laney_chart_is_quiet_where_days_differ_and_a_p_chart_is_not():
    rng = np.random.default_rng(3)
    rates = rng.normal(0.1, 0.01, size=200)
    counts, sizes = rng.binomial(100_000, rates), [100_000] * 200
    assert p_chart(counts, sizes).signals.size > 100
    assert laney_p_chart(counts, sizes).signals.size <= 3


def test_limits_of_values_shift_and_scale_with_them():
    plain = xmr_chart(VISCOSITY)
    moved = xmr_chart([10 - 3 * value for value in VISCOSITY])
    assert moved.upper == pytest.approx(10 - 3 * plain.lower)
    assert moved.signals.tolist() == plain.signals.tolist()


def test_moving_ranges_are_as_precise_as_a_deviation_of_fewer_values():
    rng = np.random.default_rng(4)
    values = rng.standard_normal((4_000, 100))
    ranges = [value_baseline(row).sigma for row in values]
    deviations = [value_baseline(row, "deviation").sigma for row in values]
    assert deviations == pytest.approx(values.std(axis=1, ddof=1))
    # Cryer and Ryan: 0.826 / n against 1 / (2 n) for the squared relative errors
    assert np.var(deviations) / np.var(ranges) == pytest.approx(0.605, abs=0.06)


def test_spread_charts_agree_with_simulated_normal_groups():
    rng = np.random.default_rng(8)
    groups = 20_000
    for size in (2, 5, 10):
        values = rng.normal(3.0, 2.0, (groups, size))
        known = Baseline("value", 3.0, 1_000, sigma=2.0)
        for chart in (r_chart(values, baseline=known), s_chart(values, baseline=known)):
            error = chart.sigma[0] / math.sqrt(groups)
            # d2 is rounded to three decimals
            assert chart.values.mean() == pytest.approx(chart.center, abs=4 * error + 0.002)
            assert chart.values.std() == pytest.approx(chart.sigma[0], rel=0.03)


# EWMA and CUSUM ---------------------------------------------------------------------------------


def test_an_ewma_of_weight_one_is_the_chart_of_values():
    plain, ewma = xmr_chart(VISCOSITY), ewma_chart(VISCOSITY, 1.0, time_varying=True)
    assert ewma.upper == pytest.approx(plain.upper)
    assert ewma.signals.tolist() == plain.signals.tolist()


def test_a_cusum_goes_on_after_an_alarm_and_tells_where_the_change_began():
    values = [0.2, -0.4, 0.1, 0.4, 2.0, 2.0, 2.0, 2.0, 2.0]
    chart = cusum_chart(values, center=0.0, sigma=1.0)
    assert chart.upper == pytest.approx([0, 0, 0, 0, 1.5, 3, 4.5, 6, 7.5])
    assert chart.signals.tolist() == [7, 8]
    assert chart.change_point == 4
    turned = cusum_chart([-value for value in values], center=0.0, sigma=1.0)
    assert turned.lower == pytest.approx(chart.upper)
    assert turned.change_point == 4
    from_head_start = cusum_chart([2.0, 2.0], center=0.0, sigma=1.0, head_start=2.5)
    assert (from_head_start.signals.tolist(), from_head_start.change_point) == ([1], 0)
    assert cusum_chart([0.0, 1.0, 0.0], center=0.0, sigma=1.0).change_point is None


def test_a_sum_that_reaches_the_interval_exactly_alarms():
    # reference 2/5: three steps of 3/5 make 1.8, in doubles a little less
    chart = bernoulli_cusum([1, 1, 1], 0.3, 0.5, 1.8)
    assert chart.upper[2] < 1.8
    assert chart.signals.tolist() == [2]


def test_a_cusum_for_a_lower_rate_grows_where_events_are_missing():
    chart = bernoulli_cusum([0, 0, 0, 0, 1], 0.5, 0.3, 1.0)
    assert chart.upper is None
    reference = float(chart.reference[0])
    assert chart.lower == pytest.approx([k * reference for k in (1, 2, 3, 4)] + [5 * reference - 1])


def test_a_poisson_cusum_takes_off_what_each_exposure_expects():
    chart = poisson_cusum([8, 16, 4], [1.0, 2.0, 0.5], 4.0, 7.0, 10.0)
    # (7 - 4) / log(7 / 4) = 5.361 per unit, within 2 % of the gap
    assert chart.reference == pytest.approx([5.361, 10.722, 2.681], abs=0.12)
    assert chart.upper == pytest.approx(np.cumsum(chart.values - chart.reference))


def simulated_run_length(chart, draw, runs=400, longest=600):
    first = []
    for _ in range(runs):
        signals = chart(draw(longest)).signals
        assert signals.size, "a run did not end"
        first.append(signals[0] + 1)
    return np.mean(first), np.std(first) / math.sqrt(runs)


@pytest.mark.parametrize(
    ("name", "chart", "draw", "expected"),
    [
        (
            "Shewhart",
            lambda x: xmr_chart(x, baseline=IN_CONTROL),
            lambda rng, n: rng.normal(1.5, 1.0, n),
            shewhart_average_run_length(3.0, 1.5),
        ),
        (
            "EWMA",
            lambda x: ewma_chart(x, 0.2, 2.8, baseline=IN_CONTROL, time_varying=True),
            lambda rng, n: rng.normal(0.5, 1.0, n),
            ewma_average_run_length(0.2, 2.8, 0.5, True),
        ),
        (
            "CUSUM",
            lambda x: cusum_chart(x, 0.5, 4.0, baseline=IN_CONTROL, head_start=2.0),
            lambda rng, n: rng.normal(0.5, 1.0, n),
            cusum_average_run_length(0.5, 4.0, 0.5, head_start=2.0),
        ),
        (
            "Bernoulli",
            lambda x: bernoulli_cusum(x, 0.1, 0.2, 3.0, 1.0),
            lambda rng, n: rng.binomial(1, 0.25, n),
            bernoulli_cusum_average_run_length(0.1, 0.2, 3.0, 0.25, 1.0),
        ),
        (
            "Poisson",
            lambda x: poisson_cusum(x, [2.0] * len(x), 2.0, 3.5, 10.0),
            lambda rng, n: rng.poisson(6.0, n),
            poisson_cusum_average_run_length(4.0, 7.0, 10.0, 6.0),
        ),
    ],
)
def test_charts_run_as_long_as_their_run_length_says(name, chart, draw, expected):
    rng = np.random.default_rng(20261126)
    mean, error = simulated_run_length(chart, lambda n: draw(rng, n))
    assert abs(mean - expected) < 4 * error


# Two phases -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chart", "data", "later"),
    [
        (p_chart, ([5, 6, 4, 7], [50] * 4), ([30] * 6, [50] * 6)),
        (np_chart, ([5, 6, 4, 7], 50), ([30] * 6, 50)),
        (c_chart, ([5, 6, 4, 7],), ([30] * 6,)),
        (u_chart, ([5, 6, 4, 7], [2.0] * 4), ([60] * 6, [2.0] * 6)),
        (laney_p_chart, ([5, 6, 4, 7], [50] * 4), ([30] * 6, [50] * 6)),
        (laney_u_chart, ([5, 6, 4, 7], [2.0] * 4), ([60] * 6, [2.0] * 6)),
        (xmr_chart, ([5.0, 6.0, 4.0, 7.0],), ([60.0] * 6,)),
        (xbar_chart, ([[5.0, 6.0], [4.0, 7.0]],), ([[60.0, 61.0]] * 6,)),
    ],
)
def test_a_lasting_change_keeps_signalling_against_a_frozen_baseline(chart, data, later):
    baseline = chart(*data).baseline
    assert chart(*later, baseline=baseline).signals.tolist() == [0, 1, 2, 3, 4, 5]
    # without it the same points agree with each other, or do not vary at all
    if chart in (p_chart, np_chart, c_chart, u_chart):
        assert chart(*later).signals.size == 0


def test_limits_from_a_baseline_do_not_depend_on_the_points():
    baseline = xmr_chart(VISCOSITY[:20]).baseline
    short = xmr_chart(VISCOSITY[20:21], baseline=baseline)
    long = xmr_chart(VISCOSITY[20:], baseline=baseline)
    assert short.upper[0] == long.upper[0]
    assert ewma_chart(VISCOSITY[20:], baseline=baseline).center == baseline.center


def test_a_count_cusum_takes_its_rate_from_a_baseline():
    shares, rates = p_chart([5, 6], [50, 50]).baseline, u_chart([8, 8], [2.0, 2.0]).baseline
    given = bernoulli_cusum([1, 0, 1], shares, 0.3, 3.0)
    assert given.upper == pytest.approx(bernoulli_cusum([1, 0, 1], 0.11, 0.3, 3.0).upper)
    given = poisson_cusum([6, 7], [1.0, 1.0], rates, 7.0, 10.0)
    assert given.upper == pytest.approx(poisson_cusum([6, 7], [1.0, 1.0], 4.0, 7.0, 10.0).upper)


def test_cleaning_says_what_was_dropped_and_why():
    clean = clean_baseline(p_chart, ORANGE_JUICE, [50] * 30)
    # round 2: sample 21 with 20 of 50 is above the limit of the 28 samples left, 0.389 (Montgomery)
    assert [point.index + 1 for point in clean.dropped] == [15, 23, 21]
    assert [point.round for point in clean.dropped] == [1, 1, 2]
    assert clean.dropped[2].reason == "value 0.4 is above its upper limit 0.389 in round 2"
    assert clean.is_clean
    assert clean.baseline.size == 27 * 50
    assert clean.baseline.center == pytest.approx((sum(ORANGE_JUICE) - 22 - 24 - 20) / 1350)


def test_cleaning_stops_after_its_rounds_and_says_that_points_are_left():
    clean = clean_baseline(p_chart, ORANGE_JUICE, [50] * 30, rounds=1)
    assert (clean.is_clean, len(clean.dropped)) == (False, 2)


def test_nothing_is_dropped_where_nothing_signals():
    clean = clean_baseline(np_chart, ORANGE_JUICE_2[3:], 50)
    assert (clean.dropped, clean.baseline.size) == ((), 21 * 50)


# Run rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (RunRule(1, 1, 3.0), [0.0, 3.1, -3.1, 2.9], [(1, True), (2, False)]),
        (RunRule(2, 3, 2.0), [2.1, 0.0, 2.1, 0.0, 0.0, 2.1], [(2, True)]),
        (RunRule(2, 3, 2.0), [2.1, -2.1, 0.0, -2.1], [(3, False)]),
        (RunRule(2, 3, 2.0), [2.1, 2.1, 0.0], [(1, True)]),
        (RunRule(4, 5, 1.0), [1.1, 1.1, 0.0, 1.1, 1.1, 1.1], [(4, True), (5, True)]),
        (RunRule(8, 8, 0.0), [-0.1] * 9, [(7, False), (8, False)]),
        (RunRule(8, 8, 0.0), [0.1] * 7 + [-0.1, 0.1], []),
    ],
)
def test_a_rule_alarms_at_the_point_that_completes_it(rule, values, expected):
    chart = xmr_chart(values, baseline=IN_CONTROL)
    found = run_rule_signals(chart, [rule])
    assert [(signal.index, signal.above) for signal in found] == expected


def test_all_rules_together_alarm_as_often_as_champ_and_woodall_say():
    # 91.75 points; runs are cut at 1,500, which 1 in 10^7 reaches
    rng = np.random.default_rng(20261127)
    first = [
        run_rule_signals(xmr_chart(rng.standard_normal(1_500), baseline=IN_CONTROL))[0].index + 1
        for _ in range(1_000)
    ]
    assert abs(np.mean(first) - 91.75) < 4 * np.std(first) / math.sqrt(1_000)


def test_rules_allow_for_the_size_of_each_point():
    baseline = Baseline("share", 0.5, 1_000)
    chart = p_chart([60, 240], [100, 400], baseline=baseline)  # 2 and 4 standard errors
    found = run_rule_signals(chart, [RunRule(1, 1, 3.0)])
    assert [signal.index for signal in found] == [1]


# Refusals ---------------------------------------------------------------------------------------

SHARE, VALUE = Baseline("share", 0.1, 100), IN_CONTROL
INVALID = [
    (lambda: p_chart([1, 2], [9, 9], limit=0.0), "limit must be finite and above 0, got 0"),
    (
        lambda: p_chart([1, 2], [9, 9], baseline=VALUE),
        "needs a baseline of a share, got one",
    ),
    (lambda: laney_p_chart([1, 2], [9, 9], baseline=SHARE), "needs a baseline with sigma_z"),
    (lambda: p_chart([1, math.nan], [9, 9]), "counts must be finite, got nan at point 1"),
    (lambda: np_chart([1, 60], 50), "got 60 of 50 at point 1"),
    (lambda: np_chart([1, 2], 0), "size must be a whole number from 1, got 0"),
    (lambda: c_chart([1, -2]), "at least 0, got -2 at point 1"),
    (lambda: u_chart([1, 2], [1.0]), "counts and exposures must be one-dimensional"),
    (lambda: u_chart([1, 2], [1.0, 0.0]), "each exposure must be above 0, got 0"),
    (lambda: xmr_chart([1.0, math.inf]), "values must be finite, got inf at point 1"),
    (lambda: xmr_chart([[1.0, 2.0]]), "one-dimensional, got shape"),
    (lambda: xmr_chart([2.0, 2.0, 2.0]), "sigma must be finite and above 0, got 0"),
    (lambda: xbar_chart([[1.0, 2.0]] * 2, spread="s"), "'range' or 'deviation', got 's'"),
    (lambda: xbar_chart([[1.0], [2.0]]), "with 2 values or more each"),
    (lambda: xbar_chart([[1.0, 2.0], [2.0]]), "equally large"),
    (lambda: xbar_chart([[1.0, 2.0], [2.0, math.nan]]), "must be finite"),
    (lambda: r_chart(np.zeros((3, 11))), "groups of 2 to 10 values, got 11"),
    (lambda: ewma_chart([1.0, 2.0], 1.5), r"weight must be in \[0.001, 1\], got 1.5"),
    (lambda: ewma_chart([1.0, 2.0], center=0.0), "center and sigma together"),
    (lambda: ewma_chart([1.0], center=0.0, sigma=1.0, baseline=VALUE), "or a baseline"),
    (lambda: ewma_chart([1.0], center=0.0, sigma=-1.0), "sigma must be finite and above 0"),
    (lambda: cusum_chart([1.0, 2.0], head_start=9.0), "below decision_interval 5.0, got 9.0"),
    (lambda: bernoulli_cusum([0, 2], 0.1, 0.2, 3.0), "must be 0 or 1, got 2 at point 1"),
    (lambda: bernoulli_cusum([0, 1], 0.1, 0.1, 3.0), "must differ from rate"),
    (lambda: bernoulli_cusum([0, 1], VALUE, 0.1, 3.0), "needs a baseline of a share"),
    (lambda: poisson_cusum([0], [1.0], -1.0, 0.1, 3.0), "rate must be finite and above 0, got -1"),
    (lambda: poisson_cusum([0], [1.0], 1.0, 2.0, 0.0), "decision_interval must be finite and abo"),
    (lambda: Baseline("share", 1.5, 10), "must be a possible one, got 1.5"),
    (lambda: Baseline("value", 1.5, 10), "of values has a sigma"),
    (lambda: Baseline("share", 0.5, 10, sigma_z=0.0), "sigma_z must be finite and above 0, got 0"),
    (lambda: run_rule_signals(xmr_chart([1.0, 2.0]), []), "rules are needed, got none"),
    (lambda: run_rule_signals(ewma_chart([1.0, 2.0])), "got a smoothed chart"),
    (lambda: run_rule_signals(p_chart([0, 0], [9, 9])), "points that can vary"),
    (lambda: clean_baseline(xmr_chart, [1.0, 2.0], rounds=0), "rounds must be a whole number"),
    (lambda: clean_baseline(xmr_chart, [1.0], baseline=VALUE), "estimates a baseline, got one"),
    (lambda: clean_baseline(ewma_chart, [1.0, 2.0]), "got a smoothed chart"),
]


@pytest.mark.parametrize(("call", "words"), INVALID)
def test_what_makes_no_chart_is_refused(call, words):
    with pytest.raises(InvalidInputError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: c_chart([3]), "at least 2 points, got 1"),
        (lambda: u_chart([], [], baseline=Baseline("rate", 1.0, 5)), "at least 1 point, got 0"),
        (lambda: xmr_chart([3.0]), "at least 2 points, got 1"),
        (lambda: ewma_chart([3.0]), "at least 2 points, got 1"),
        (lambda: cusum_chart([], center=0.0, sigma=1.0), "at least 1 point, got 0"),
        (lambda: bernoulli_cusum([], 0.1, 0.2, 3.0), "at least 1 point, got 0"),
        (lambda: xbar_chart([[1.0, 2.0]]), "at least 2 groups, got 1"),
        (lambda: laney_p_chart([0, 0], [9, 9]), "sigma_z needs points that vary"),
        (lambda: laney_u_chart([4, 4], [2.0, 2.0]), "sigma_z needs points that vary"),
        (lambda: clean_baseline(c_chart, [0, 100]), "at least 2 points within their limits, got 0"),
    ],
)
def test_too_few_points_are_refused(call, words):
    with pytest.raises(InsufficientDataError, match=words):
        call()
