import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.control_charts import p_chart

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published_numbers.json"
# Montgomery, Introduction to Statistical Quality Control, Table 7.1: cans that leak, 50 a sample
ORANGE_JUICE = [12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 5, 6, 17, 12, 22]
ORANGE_JUICE += [8, 10, 5, 13, 11, 20, 18, 24, 15, 9, 12, 7, 13, 9, 6]
points = st.lists(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    min_size=2,
    max_size=30,
)


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no published figures at {PUBLISHED}")
def test_the_orange_juice_chart_has_the_published_limits_and_signals():
    figures = json.loads(PUBLISHED.read_text())["qcc"]["orangejuice_p"]
    chart = p_chart(ORANGE_JUICE, [50] * 30)
    assert chart.center == pytest.approx(figures["center"], abs=5e-8)
    assert chart.lower[0] == pytest.approx(figures["LCL"], abs=5e-8)
    assert chart.upper[0] == pytest.approx(figures["UCL"], abs=5e-8)
    assert [index + 1 for index in chart.signals] == figures["beyond"]


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no published figures at {PUBLISHED}")
def test_the_chart_without_its_two_outliers_has_the_published_limits():
    figures = json.loads(PUBLISHED.read_text())["qcc"]["orangejuice_p_without_15_23"]
    kept = [count for i, count in enumerate(ORANGE_JUICE, 1) if i not in (15, 23)]
    chart = p_chart(kept, [50] * 28)
    assert chart.center == pytest.approx(figures["center"], abs=5e-8)
    assert chart.lower[0] == pytest.approx(figures["LCL"], abs=5e-8)
    assert chart.upper[0] == pytest.approx(figures["UCL"], abs=5e-8)


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
