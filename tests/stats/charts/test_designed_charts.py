import doctest

import numpy as np
import pytest

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts import designed_charts
from ratchet.stats.charts.chart_limits import (
    cusum_decision_interval,
    ewma_limit,
    p_chart_limit,
    shewhart_limit,
)
from ratchet.stats.charts.designed_charts import (
    COUNT_KINDS,
    KINDS,
    baseline_points,
    design_count_chart,
    design_value_chart,
    suiting_count_kind,
)
from ratchet.stats.charts.run_lengths import WESTERN_ELECTRIC, shewhart_average_run_length

CALM = np.tile([9.0, 11.0, 10.0, 8.0, 12.0], 8)  # mean 10; 40 points
TRIALS = np.full(40, 400)
EVENTS = np.tile([36, 44, 40, 32, 48], 8)  # a tenth of the trials


def jumped(up=60.0):
    return np.concatenate([CALM, np.full(10, up)])


# Baselines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "changes", "expected"),
    [
        (40, (), 20),
        (34, (), 17),
        (33, (), 33),  # half would be 16
        (50, (30,), 30),
        (50, (4, 17, 30), 17),  # the first that has 17 points before it
        (50, (4, 49), 49),
        (50, (4, 50), 25),
        (20, (18,), 18),
        (20, (-1, 3), 20),
    ],
)
def test_the_baseline_ends_at_a_known_change_or_is_half_or_all(points, changes, expected):
    assert baseline_points(points, changes) == expected


def test_limits_come_from_the_baseline_alone():
    made = design_value_chart(jumped(), "xmr", baseline=40)
    assert made.baseline.center == pytest.approx(10.0)
    # moving ranges of CALM: 2, 1, 2, 4 and 3 between repeats, by d2 = 1.128
    ranges = np.abs(np.diff(CALM))
    assert made.baseline.sigma == pytest.approx(ranges.mean() / 1.128)
    assert [alarm.index for alarm in made.alarms] == list(range(40, 50))
    assert {alarm.since for alarm in made.alarms} == {40}
    assert all(alarm.above for alarm in made.alarms)


@pytest.mark.parametrize("size", [16, 51, 0])
def test_a_baseline_that_is_too_short_or_too_long_is_refused(size):
    with pytest.raises(InvalidInputError, match=f"17 points or more.*got {size} of 50"):
        design_value_chart(jumped(), baseline=size)


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_length", [100.0, 370.4, 5_000.0])
def test_points_that_are_all_the_baseline_get_the_limit_of_a_known_one(run_length):
    made = design_value_chart(CALM[:20], "xmr", run_length=run_length)
    assert made.baseline_points == 20
    # Shewhart: 1 / P(|Z| > limit)
    assert shewhart_average_run_length(made.limit) == pytest.approx(run_length, rel=1e-4)
    assert made.patterns_run_length is None


def test_a_short_baseline_widens_the_limits_as_much_as_its_ranges_tell():
    # Moving ranges are as precise as a standard deviation of 0.6 times the points: Cryer, Ryan
    # (1990); 0.6 * 40 = 24
    corrected = {"baseline_points": 24, "horizon": 10}
    expected = {
        "xmr": shewhart_limit(370.0, **corrected),
        "ewma": ewma_limit(0.2, 370.0, **corrected),
        "cusum": cusum_decision_interval(0.5, 370.0, **corrected),
    }
    for kind, limit in expected.items():
        assert design_value_chart(jumped(), kind, baseline=40).limit == limit


def test_a_p_chart_takes_the_limit_that_is_exact_for_its_counts():
    made = design_count_chart(EVENTS, TRIALS, "p", baseline=20)
    wanted = p_chart_limit(0.1, 400, 370.0, baseline_trials=8_000, horizon=20)
    assert made.limit == wanted
    upper = 0.1 + wanted * np.sqrt(0.1 * 0.9 / 400)
    assert made.chart.upper == pytest.approx(np.full(40, upper))


def test_laneys_chart_allows_for_variation_beyond_chance_and_the_p_chart_does_not():
    rng = np.random.default_rng(3)
    rates = np.clip(rng.normal(0.3, 0.05, 80), 0.0, 1.0)
    sizes = rng.poisson(3_000, 80) + 1
    events = rng.binomial(sizes, rates)
    plain, laney = (design_count_chart(events, sizes, kind) for kind in ("p", "laney-p"))
    assert laney.baseline.sigma_z > 3.0  # 0.05 against sqrt(0.21 / 3000) = 0.0084
    assert len(plain.alarms) > 20
    assert len(laney.alarms) <= 1


def test_the_limits_of_the_u_chart_are_wider_than_those_of_the_p_chart():
    p, u = (design_count_chart(EVENTS, TRIALS, kind) for kind in ("p", "u"))
    assert p.limit == u.limit
    # Poisson: sqrt(0.1 / n), binomial: sqrt(0.1 * 0.9 / n)
    assert u.chart.sigma / p.chart.sigma == pytest.approx(np.full(40, 1 / np.sqrt(0.9)))


@pytest.mark.parametrize("kind", ["xmr", "ewma", "cusum"])
def test_a_share_can_be_charted_as_a_value(kind):
    of_counts = design_count_chart(EVENTS, TRIALS, kind)
    of_values = design_value_chart(EVENTS / TRIALS, kind)
    assert of_counts.limit == of_values.limit
    assert of_counts.values.tolist() == of_values.values.tolist()


# What is signalled --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_a_lasting_rise_and_says_since_when(kind):
    events, trials = np.concatenate([EVENTS, np.full(10, 120)]), np.full(50, 400)
    made = design_count_chart(events, trials, kind, baseline=40)
    assert made.kind == kind
    first = made.alarms[0]
    assert 40 <= first.index <= 42
    assert first.above
    assert 38 <= first.since <= 41


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_a_lasting_fall(kind):
    events, trials = np.concatenate([EVENTS, np.full(10, 2)]), np.full(50, 400)
    made = design_count_chart(events, trials, kind, baseline=40)
    assert not made.alarms[0].above
    assert made.alarms[-1].index == 49


@pytest.mark.parametrize("kind", KINDS)
def test_what_repeats_itself_is_in_control(kind):
    assert design_count_chart(EVENTS, TRIALS, kind).alarms == ()


def test_two_jumps_have_two_beginnings():
    values = np.concatenate([CALM, [60.0, 60.0, 10.0, -40.0, -40.0]])
    made = design_value_chart(values, "xmr", baseline=40)
    assert [(a.index, a.above, a.since) for a in made.alarms] == [
        (40, True, 40), (41, True, 40), (43, False, 43), (44, False, 43),
    ]  # fmt: skip


def test_a_small_lasting_rise_is_a_pattern_before_it_is_an_alarm():
    values = np.concatenate([CALM, np.full(9, 11.0)])  # sigma is 2.2
    made = design_value_chart(values, "xmr", baseline=40)
    assert made.alarms == ()
    found = [p for p in made.patterns if p.reason.startswith("8 points")]
    assert {p.reason for p in found} == {"8 points in a row on one side of the center"}
    # the last point of CALM is above the center too: the eighth above is 46
    assert [(p.index, p.since, p.above) for p in found] == [(i, 39, True) for i in (46, 47, 48)]
    assert made.patterns_run_length == pytest.approx(
        shewhart_average_run_length(made.limit, rules=WESTERN_ELECTRIC[1:])
    )


def test_charts_with_a_memory_and_rare_events_have_no_run_rules():
    rare = np.tile([0, 0, 1, 0, 2], 8)
    for made in (
        design_value_chart(jumped(), "ewma"),
        design_value_chart(jumped(), "cusum"),
        design_count_chart(rare, TRIALS, "p"),
    ):
        assert made.patterns == ()
        assert made.patterns_run_length is None


# What suits and what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "trials", "kind"),
    [
        ([50] * 10, [100] * 10, "laney-p"),
        ([5] * 10, [100] * 10, "laney-p"),
        ([4] * 10, [100] * 10, "p"),
        ([97] * 10, [100] * 10, "p"),  # 3 without the event
        ([0] * 10, [100] * 10, "p"),
    ],
)
def test_rare_events_get_the_p_chart(events, trials, kind):
    assert suiting_count_kind(events, trials) == kind


@pytest.mark.parametrize("kind", COUNT_KINDS)
def test_a_value_needs_a_chart_of_values(kind):
    with pytest.raises(InvalidInputError, match="xmr, ewma and cusum"):
        design_value_chart(CALM, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_points_say_how_many_are_needed(kind):
    with pytest.raises(InsufficientDataError, match="at least 8 points, got 7"):
        design_count_chart([3] * 7, [10] * 7, kind)


@pytest.mark.parametrize(("kind", "share"), [("p", 0), ("laney-p", 0), ("u", 0), ("p", 400)])
def test_a_baseline_without_any_event_has_no_limits(kind, share):
    with pytest.raises(InsufficientDataError, match=r"neither 0 nor 1|points that vary"):
        design_count_chart([share] * 20 + [3] * 20, [400] * 40, kind)


@pytest.mark.parametrize("kind", ["xmr", "ewma", "cusum"])
def test_a_baseline_that_never_varies_has_no_limits(kind):
    with pytest.raises(InsufficientDataError, match="points that vary in the baseline"):
        design_value_chart([5.0] * 20 + [6.0] * 20, kind)


def test_a_run_length_of_one_point_is_refused():
    with pytest.raises(InvalidInputError, match="average_run_length must be in"):
        design_value_chart(CALM, run_length=1.0)


def test_the_examples_of_the_docstrings_hold():
    ran = doctest.testmod(designed_charts)
    assert (ran.failed, ran.attempted) == (0, 4)
