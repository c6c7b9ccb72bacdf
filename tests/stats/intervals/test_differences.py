"""The interval of a difference from two intervals is Newcombe's where they are Wilson's."""

import pytest

from ratchet.errors import InvalidInputError
from ratchet.stats.intervals import Interval, newcombe_independent, wilson
from ratchet.stats.intervals.differences import mover_difference


@pytest.mark.parametrize(("first", "second"), [((56, 70), (48, 80)), ((9, 10), (3, 10))])
def test_from_wilsons_intervals_it_is_newcombes(first, second):
    found = mover_difference(
        first[0] / first[1], wilson(*first), second[0] / second[1], wilson(*second)
    )
    expected = newcombe_independent(*second, *first)  # its difference is second minus first
    assert (found.lower, found.upper) == pytest.approx((expected.lower, expected.upper))


def test_of_means_with_equal_halves_it_is_the_root_of_the_sum_of_squares():
    found = mover_difference(5.0, Interval(2.0, 8.0, 0.9), 1.0, Interval(-3.0, 5.0, 0.9))
    assert (found.lower, found.upper, found.level) == (-1.0, 9.0, 0.9)  # 3, 4 and 5


def test_intervals_of_two_levels_are_refused():
    with pytest.raises(InvalidInputError, match="one level"):
        mover_difference(1.0, Interval(0.0, 2.0, 0.9), 1.0, Interval(0.0, 2.0, 0.95))
