import pytest

from tests.benchmarks.rows import Row, at_goal, failures, grows, shards, verdict

MILLION = 1_000_000


def test_ten_million_rows_are_on_the_line_through_the_two_largest_stores():
    # 1 s at 1 M and 3 s at 5 M: half a second a million, so 5.5 s at 10 M
    assert at_goal({20_000: 9.0, MILLION: 1.0, 5 * MILLION: 3.0}) == pytest.approx(5.5)


def test_a_gain_is_not_extrapolated():
    assert at_goal({MILLION: 2.0, 5 * MILLION: 1.0}) == 1.0


def test_the_time_of_a_row_is_extrapolated_where_a_rate_is_measured():
    # 1 ms a row at 1 M, 2 ms at 5 M: 3.25 ms at 10 M
    rate = at_goal({MILLION: 1_000.0, 5 * MILLION: 500.0}, rate=True)
    assert rate == pytest.approx(1_000 / 3.25)


@pytest.mark.parametrize(
    ("row", "few", "many", "expected"),
    [
        (Row("pass", "watch"), 1.0, 2.1, False),  # within twice, and 0.2 s
        (Row("pass", "watch"), 1.0, 2.3, True),
        (Row("status", "status"), 0.01, 0.15, False),  # less than 0.2 s is chance
        (Row("first pass", "first_watch", constant=False), 1.0, 5.0, False),
        (Row("drain", "drain", "rows_per_second", "rows/s"), 10_000, 5_100, False),
        (Row("drain", "drain", "rows_per_second", "rows/s"), 10_000, 4_900, True),
    ],
)
def test_growth_beyond_the_factor_is_called_growth(row, few, many, expected):
    assert grows({MILLION: few, 5 * MILLION: many}, row) is expected


def test_small_stores_say_nothing_about_growth():
    assert not grows({4_000: 1.0, 8_000: 9.0}, Row("pass", "watch"))


@pytest.mark.parametrize(
    ("value", "expected"), [(5.0, "met"), (9.9, "half met"), (10.1, "not met")]
)
def test_a_target_is_met_or_half_met_within_twice(value, expected):
    assert verdict(Row("pass", "watch"), value, 5.0) == expected


def found(seconds, digest):
    part = {"seconds": seconds, "memory": 0.5, "longest_wait": 0.1, "digest": digest, "examples": 9}
    names = ("nightly", "screened", "forget", "watch")
    return dict.fromkeys(names, part) | {"day": {"bytes": 2e9 * seconds, "memory": 0.1}}


def test_ten_shards_cost_ten_times_ten_million_rows():
    # 1 s at 1 M, 1.4 s at 5 M: 1.9 s at 10 M, and 19 s for ten passes; 2.8 GB for 5 M rows are 56
    lines = list(shards({"1000000": found(1.0, "a"), "5000000": found(1.4, "a")}))
    assert "| five-minute passes, seconds of 300 | 19 | 1.9 |" in lines
    assert "| disk, GB | 56 | 6 each |" in lines


def test_growth_and_a_night_that_differs_from_a_full_run_fail_the_benchmark():
    large = found(3.0, "a")
    small = found(1.0, "a") | {"full": found(1.0, "b")["nightly"]}
    said = failures({"sqlite": {"1000000": small, "5000000": large}})
    assert any("five-minute pass, watching alone must not grow" in line for line in said)
    assert any("**another** digest" in line for line in said)
    assert failures({"sqlite": {"1000000": found(1.0, "a"), "5000000": found(1.1, "a")}}) == []
