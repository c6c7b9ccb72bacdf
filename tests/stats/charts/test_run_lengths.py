import math

import numpy as np
import pytest
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts import chart_chains
from ratchet.stats.charts.chart_limits import (
    bernoulli_cusum_decision_interval,
    bernoulli_cusum_false_alarm_probability,
    cusum_decision_interval,
    cusum_false_alarm_probability,
    ewma_false_alarm_probability,
    ewma_limit,
    p_chart_false_alarm_probability,
    p_chart_limit,
    shewhart_false_alarm_probability,
    shewhart_limit,
)
from ratchet.stats.charts.run_lengths import (
    WESTERN_ELECTRIC,
    RunRule,
    bernoulli_cusum_average_run_length,
    cusum_average_run_length,
    ewma_average_run_length,
    poisson_cusum_average_run_length,
    shewhart_average_run_length,
)

COLUMNS = {
    "1of1_3s": (),
    "plus_2of3_2s": (RunRule(2, 3, 2.0),),
    "plus_4of5_1s": (RunRule(4, 5, 1.0),),
    "plus_8of8": (RunRule(8, 8, 0.0),),
}
RUNS = 40_000


@pytest.fixture(scope="module")
def published(published_numbers):
    return published_numbers


# Published figures ------------------------------------------------------------------------------


def test_every_figure_of_champ_and_woodall_is_reproduced(published):
    table = published["arl_shewhart_3sigma"]
    for column, rules in COLUMNS.items():
        computed = [shewhart_average_run_length(3.0, mu, rules) for mu in table["mu"]]
        # two decimals throughout; the JSON drops trailing zeros
        assert computed == pytest.approx(table[column], rel=0, abs=0.005 + 1e-9), column


def test_every_figure_of_lucas_and_saccucci_is_reproduced(published):
    table = published["arl_ewma_lucas_saccucci_1990_T3"]
    for weight, limit in ((0.5, 3.071), (0.03, 2.437)):
        for mu, expected in zip(table["mu"], table[f"lambda{weight}_L{limit}"], strict=True):
            computed = ewma_average_run_length(weight, limit, mu)
            assert float(f"{computed:.3g}") == pytest.approx(expected, rel=1e-9), (weight, mu)


@pytest.mark.parametrize(("column", "head_start"), [("plain", 0.0), ("FIR_h/2", 2.0)])
def test_every_figure_of_lucas_and_crosier_is_reproduced(published, column, head_start):
    table = published["arl_cusum_lucas_crosier_1982_T1"]
    for mu, expected in zip(table["mu"], table[column], strict=True):
        computed = cusum_average_run_length(0.5, 4.0, mu, head_start=head_start)
        if (head_start, mu) == (2.0, 3):
            # the paper's Markov chain is less accurate here: printed 1.32, 8 million simulated runs
            # give 1.3253 with a standard error of 0.0002
            assert computed == pytest.approx(1.3253, abs=0.0006)
            continue
        assert float(f"{computed:.3g}") == pytest.approx(expected, rel=1e-9), mu


def test_every_figure_of_montgomerys_cusum_table_is_reproduced(published):
    table = published["arl_cusum_h5"]
    for mu, expected in zip(table["mu"], table["ARL"], strict=True):
        computed = cusum_average_run_length(table["k"], table["h"], mu)
        assert float(f"{computed:.3g}") == pytest.approx(expected, rel=1e-9), mu


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (shewhart_average_run_length(), 370.40),
        (shewhart_average_run_length(shift=1.0), 43.89),
        (shewhart_average_run_length(rules=COLUMNS["plus_2of3_2s"]), 225.44),
        (shewhart_average_run_length(rules=COLUMNS["plus_8of8"]), 152.73),
        (shewhart_average_run_length(rules=WESTERN_ELECTRIC), 91.75),
        (cusum_average_run_length(0.5, 5.0), 465.44),
        (cusum_average_run_length(0.5, 5.0, 1.0), 10.38),
    ],
)
def test_known_run_lengths_to_two_decimals(computed, expected):
    # Champ and Woodall 1987, table 1; Montgomery 2009, table 9.3 with more digits
    assert computed == pytest.approx(expected, abs=0.005)


def test_known_run_lengths_to_three_digits():
    # Lucas and Saccucci 1990, table 3; Lucas and Crosier 1982, table 1
    assert ewma_average_run_length(0.5, 3.071) == pytest.approx(500, abs=0.5)
    assert ewma_average_run_length(0.03, 2.437, 1.0) == pytest.approx(12.6, abs=0.05)
    assert cusum_average_run_length(0.5, 4.0) == pytest.approx(168, abs=0.5)
    assert cusum_average_run_length(0.5, 4.0, 0.5, head_start=2.0) == pytest.approx(20.1, abs=0.05)


# Closed forms and other routes ------------------------------------------------------------------


def test_an_ewma_that_forgets_everything_is_a_shewhart_chart():
    for shift in (0.0, 1.3):
        plain = shewhart_average_run_length(2.7, shift)
        assert ewma_average_run_length(1.0, 2.7, shift) == pytest.approx(plain, rel=1e-9)
        assert ewma_average_run_length(1.0, 2.7, shift, True) == pytest.approx(plain, rel=1e-9)


def test_a_cusum_with_a_narrow_interval_is_a_shewhart_chart():
    # in the limit a point alarms where it is above the reference on either side
    plain = shewhart_average_run_length(2.0 + 1e-6)
    assert cusum_average_run_length(2.0, 1e-6) == pytest.approx(plain, rel=1e-5)


def test_run_rules_that_only_repeat_the_limit_change_nothing():
    plain = shewhart_average_run_length(3.0, 0.7)
    assert shewhart_average_run_length(3.0, 0.7, [RunRule(1, 1, 3.0)]) == pytest.approx(plain)
    assert shewhart_average_run_length(3.0, 0.7, [RunRule(1, 1, 3.5)]) == pytest.approx(plain)


def test_a_run_of_three_above_the_center_has_its_closed_form():
    # heads or tails three times in a row: 2^3 - 1 tosses; the limit of 8 never matters
    found = shewhart_average_run_length(8.0, 0.0, [RunRule(3, 3, 0.0)])
    assert found == pytest.approx(7.0, rel=1e-9)


@pytest.mark.parametrize(
    "run_length",
    [
        lambda shift: shewhart_average_run_length(3.0, shift, WESTERN_ELECTRIC),
        lambda shift: ewma_average_run_length(0.2, 2.9, shift, True),
        lambda shift: cusum_average_run_length(0.5, 5.0, shift, head_start=2.5),
    ],
)
def test_run_lengths_do_not_depend_on_the_direction_and_fall_with_the_shift(run_length):
    shifts = [0.0, 0.5, 1.0, 2.0, 5.0]
    lengths = [run_length(shift) for shift in shifts]
    assert lengths == pytest.approx([run_length(-shift) for shift in shifts], rel=1e-9)
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    "run_length",
    [
        lambda: ewma_average_run_length(0.03, 2.437),
        lambda: ewma_average_run_length(0.001, 2.0),
        lambda: ewma_average_run_length(0.2, 2.9, 1.0, True),
        lambda: cusum_average_run_length(0.5, 5.0),
        lambda: cusum_average_run_length(0.1, 20.0, 0.5),
    ],
)
def test_the_quadrature_error_is_below_the_stated_one(monkeypatch, run_length):
    stated = run_length()
    monkeypatch.setattr(chart_chains, "NODES_PER_DEVIATION", 3.0)
    monkeypatch.setattr(chart_chains, "FEWEST_NODES", 60)
    assert stated == pytest.approx(run_length(), rel=1e-6)


def simulated(step, alarm, start=0.0, longest=4_000):
    """Mean run length and its standard error, of a chart whose statistic follows `step`."""
    state, lengths = np.full(RUNS, start), np.full(RUNS, longest)
    running = np.ones(RUNS, bool)
    for t in range(1, longest + 1):
        state = step(state)
        stopped = running & alarm(state)
        lengths[stopped], running = t, running & ~stopped
        if not running.any():
            return lengths.mean(), lengths.std() / math.sqrt(RUNS)
    raise AssertionError("some runs did not end")


def test_count_cusums_have_the_simulated_run_lengths():
    rng = np.random.default_rng(20261125)
    design = chart_chains.bernoulli_cusum_design(0.3, 0.5)
    k = float(design.reference)
    mean, error = simulated(
        lambda s: np.maximum(0.0, s + rng.binomial(1, 0.45, RUNS) - k), lambda s: s >= 3.0 - 1e-9
    )
    exact = bernoulli_cusum_average_run_length(0.3, 0.5, 3.0, true_rate=0.45)
    assert abs(mean - exact) < 4 * error
    k = float(chart_chains.poisson_cusum_design(7.0, 4.0).reference)
    mean, error = simulated(
        lambda s: np.maximum(0.0, s + k - rng.poisson(4.5, RUNS)), lambda s: s >= 8.0 - 1e-9, 2.0
    )
    exact = poisson_cusum_average_run_length(7.0, 4.0, 8.0, true_rate=4.5, head_start=2.0)
    assert abs(mean - exact) < 4 * error


def test_a_bernoulli_cusum_for_a_lower_rate_is_one_of_the_failures():
    lower = bernoulli_cusum_average_run_length(0.8, 0.6, 4.0, true_rate=0.65)
    upper = bernoulli_cusum_average_run_length(0.2, 0.4, 4.0, true_rate=0.35)
    assert lower == pytest.approx(upper, rel=1e-9)


def test_a_bernoulli_cusum_that_needs_one_event_waits_geometrically():
    assert bernoulli_cusum_average_run_length(0.1, 0.2, 0.5) == pytest.approx(10.0)


# Limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [20.0, 370.4, 1e6])
def test_limits_give_the_run_length_they_were_asked_for(wanted):
    assert shewhart_average_run_length(shewhart_limit(wanted)) == pytest.approx(wanted, rel=1e-4)
    limit = ewma_limit(0.2, wanted, time_varying=True)
    assert ewma_average_run_length(0.2, limit, 0.0, True) == pytest.approx(wanted, rel=1e-4)
    for two_sided in (True, False):
        interval = cusum_decision_interval(0.5, wanted, two_sided=two_sided)
        found = cusum_average_run_length(0.5, interval, two_sided=two_sided)
        assert found == pytest.approx(wanted, rel=1e-4)


def test_the_limits_of_counts_are_the_smallest_that_do():
    limit = p_chart_limit(0.1, 200, 370.4)
    at, below = (p_chart_false_alarm_probability(0.1, 200, x, 1) for x in (limit, limit - 0.01))
    assert at <= 1 / 370.4 < below
    interval = bernoulli_cusum_decision_interval(0.1, 0.2, 2_000.0)
    step = chart_chains.bernoulli_cusum_design(0.1, 0.2).step
    assert bernoulli_cusum_average_run_length(0.1, 0.2, interval) >= 2_000.0
    assert bernoulli_cusum_average_run_length(0.1, 0.2, interval - step) < 2_000.0


def test_a_false_alarm_within_one_point_of_a_known_baseline_is_the_tail():
    tail = 1 / shewhart_average_run_length(3.0)
    assert shewhart_false_alarm_probability(3.0, 1) == pytest.approx(tail, rel=1e-9)
    assert ewma_false_alarm_probability(1.0, 3.0, 1) == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize("points", [10, 20, 200])
def test_one_point_after_a_baseline_has_the_prediction_interval_of_student(points):
    # (x - mean) / s is sqrt(1 + 1/n) times Student's t with n - 1 degrees of freedom
    expected = 2 * stats.t.sf(3.0 / math.sqrt(1 + 1 / points), points - 1)
    for found in (
        shewhart_false_alarm_probability(3.0, 1, points),
        ewma_false_alarm_probability(1.0, 3.0, 1, points),
    ):
        assert found == pytest.approx(expected, abs=2e-4 if points == 10 else 1e-5)


def test_a_point_of_a_p_chart_alarms_as_often_as_exact_enumeration_says():
    rate, size = 0.1, 200
    shares = np.arange(size + 1) / size
    outside = np.abs(shares - rate) > 3 * math.sqrt(rate * (1 - rate) / size)
    expected = stats.binom.pmf(np.arange(size + 1), size, rate)[outside].sum()
    assert p_chart_false_alarm_probability(rate, size, 3.0, 1) == pytest.approx(expected)


def test_a_long_baseline_is_as_good_as_a_known_one():
    many = 10_000_000
    for known, long in (
        (
            shewhart_false_alarm_probability(3.0, 50),
            shewhart_false_alarm_probability(3.0, 50, many),
        ),
        (
            cusum_false_alarm_probability(0.5, 5.0, 50),
            cusum_false_alarm_probability(0.5, 5.0, 50, many),
        ),
        (
            bernoulli_cusum_false_alarm_probability(0.1, 0.2, 6.0, 300),
            bernoulli_cusum_false_alarm_probability(0.1, 0.2, 6.0, 300, many),
        ),
        (
            p_chart_false_alarm_probability(0.1, 200, 3.0, 50),
            p_chart_false_alarm_probability(0.1, 200, 3.0, 50, many),
        ),
    ):
        assert long == pytest.approx(known, rel=1e-3)


def test_the_shorter_the_baseline_the_wider_the_limit():
    for function in (
        lambda **x: shewhart_limit(370.4, **x),
        lambda **x: ewma_limit(0.2, 370.4, **x),
        lambda **x: cusum_decision_interval(0.5, 370.4, **x),
    ):
        limits = [function(baseline_points=n, horizon=100) for n in (15, 50, 1_000)]
        assert limits == sorted(limits, reverse=True)
    sizes = [400, 4_000, 400_000]
    limits = [p_chart_limit(0.3, 100, 100.0, baseline_trials=n, horizon=50) for n in sizes]
    assert limits == sorted(limits, reverse=True)


def test_opening_limits_may_count_as_constant_when_nearly_so():
    exact = chart_chains.EwmaChain(0.1, 2.8, True, np.zeros(1), np.ones(1))
    assert ewma_false_alarm_probability(0.1, 2.8, 100, time_varying=True) == pytest.approx(
        1.0 - exact.survivals(100)[0], rel=1e-3
    )


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shewhart_average_run_length(0.0), "limit must be finite and above 0, got 0"),
        (lambda: shewhart_average_run_length(math.nan), "got nan"),
        (lambda: shewhart_average_run_length(50.0), "alarms more rarely or never"),
        (lambda: shewhart_average_run_length(3.0, math.nan), "shift must be finite, got nan"),
        (lambda: shewhart_average_run_length(rules=[RunRule(25, 50, 1.0)]), "shorter windows"),
        (lambda: shewhart_false_alarm_probability(3.0, math.inf), "whole number from 1, got inf"),
        (lambda: RunRule(3, 2, 1.0), "got 3 of 2 beyond 1.0"),
        (lambda: ewma_average_run_length(0.0, 3.0), r"weight must be in \[0.001, 1\], got 0"),
        (lambda: ewma_average_run_length(0.2, 12.0), "alarms more rarely or never"),
        (lambda: cusum_average_run_length(-0.5, 5.0), "reference must be at least 0, got -0.5"),
        (lambda: cusum_average_run_length(0.5, 0.0), r"must be in \(0, 500\], got 0"),
        (lambda: cusum_average_run_length(0.5, 5.0, head_start=5.0), "below decision_interval"),
        (lambda: cusum_average_run_length(0.5, 5.0, head_start=4.0), "both sides can be up"),
        (lambda: bernoulli_cusum_average_run_length(0.0, 0.2, 5.0), r"rate must be in \(0, 1\)"),
        (lambda: bernoulli_cusum_average_run_length(0.2, 0.2, 5.0), "must differ from rate"),
        (lambda: bernoulli_cusum_average_run_length(0.1, 0.2, 5.0, 0.0), "never alarms"),
        (lambda: bernoulli_cusum_average_run_length(0.1, 0.1 + 1e-9, 5.0), "told apart"),
        (lambda: poisson_cusum_average_run_length(1.0, 2.0, 5.0, -1.0), "true_rate must be"),
        (lambda: shewhart_false_alarm_probability(3.0, 0), "horizon must be a whole number"),
        (lambda: p_chart_false_alarm_probability(0.1, 0, 3.0, 5), "size must be a whole number"),
        (lambda: shewhart_limit(1.0), r"must be in \(1, 1e\+09\], got 1.0"),
        (lambda: shewhart_limit(370.0, baseline_points=30), "come together"),
        (lambda: shewhart_limit(370.0, horizon=30), "come together"),
        (lambda: cusum_decision_interval(3.0, 2.0), "out of reach"),
    ],
)
def test_what_has_no_run_length_is_refused(call, words):
    with pytest.raises(InvalidInputError, match=words):
        call()


def test_too_short_a_baseline_is_refused():
    with pytest.raises(InsufficientDataError, match="of size 10 at least, got 9"):
        shewhart_limit(370.0, baseline_points=9, horizon=50)
    with pytest.raises(InsufficientDataError, match="got 0"):
        p_chart_limit(0.1, 50, 370.0, baseline_trials=0, horizon=50)
