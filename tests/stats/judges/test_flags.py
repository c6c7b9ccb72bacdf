"""Rates of a source of flags: closed forms, published intervals, invariances."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.intervals import clopper_pearson, wilson
from ratchet.stats.judges.flags import Stratum, false_positive_rate, flag_precision, flag_recall


def limits(rate):
    return rate.interval.lower, rate.interval.upper


@st.composite
def strata(draw):
    reviewed = draw(st.integers(1, 200))
    violations = draw(st.integers(0, reviewed))
    return Stratum(reviewed * draw(st.integers(1, 50)), reviewed, violations)


def test_precision_of_one_stratum_has_wilsons_interval():
    rate = flag_precision([Stratum(120, 40, 36)])
    assert rate.value == 0.9
    assert rate.interval == wilson(36, 40)
    assert rate.reviewed == 40


def test_precision_of_flags_that_are_all_reviewed_forgets_the_strata():
    rate = flag_precision([Stratum(30, 30, 30), Stratum(70, 70, 35)])
    assert rate.value == pytest.approx(0.65)
    assert limits(rate) == pytest.approx(limits(flag_precision([Stratum(100, 100, 65)])))


def test_precision_weighs_each_stratum_by_its_size_and_not_by_its_reviews():
    # 10 of 100 flags were found by another source too and are all reviewed; of the rest one tenth.
    rate = flag_precision([Stratum(10, 10, 10), Stratum(90, 9, 3)])
    assert rate.value == pytest.approx(0.1 + 0.9 / 3)  # 13 of 19 reviewed would be 0.68
    shares, weights = (1.0, 1 / 3), (0.1, 0.9)
    between = sum(w * (p - 0.4) ** 2 for w, p in zip(weights, shares, strict=True)) / 100
    wilsons = wilson(10, 10), wilson(3, 9)
    below = sum((w * (p - x.lower)) ** 2 for w, p, x in zip(weights, shares, wilsons, strict=True))
    assert rate.interval.lower == pytest.approx(0.4 - (between * 1.959964**2 + below) ** 0.5)


def test_recall_where_everything_is_reviewed_is_clopper_and_pearsons():
    rate = flag_recall([Stratum(50, 50, 12)], [Stratum(950, 950, 8)])
    assert rate.value == 0.6
    exact = clopper_pearson(12, 20)
    assert limits(rate) == pytest.approx((exact.lower, exact.upper))


def test_recall_from_a_sample_is_the_exact_interval_moved_by_the_sampling_rates():
    rate = flag_recall([Stratum(60, 30, 24)], [Stratum(5_000, 100, 2)])
    assert rate.value == pytest.approx(24 * 2 / (24 * 2 + 2 * 50))
    shares = stats.beta.ppf(0.025, 24, 3), stats.beta.ppf(0.975, 25, 2)
    for share, limit in zip(shares, limits(rate), strict=True):
        odds = share / (1 - share) * 2 / 50
        assert limit == pytest.approx(odds / (1 + odds))


def test_no_violation_in_the_sample_still_leaves_room_for_some():
    rate = flag_recall([Stratum(20, 20, 20)], [Stratum(1_000, 100, 0)])
    assert (rate.value, rate.interval.upper) == (1.0, 1.0)
    share = 0.025 ** (1 / 20)  # the lower limit of 20 of 20
    odds = share / (1 - share) / 10
    assert rate.interval.lower == pytest.approx(odds / (1 + odds))


def test_a_source_that_finds_nothing_has_recall_zero_with_an_upper_limit():
    rate = flag_recall([Stratum(0, 0, 0)], [Stratum(100, 100, 10)])
    assert (rate.value, rate.interval.lower) == (0.0, 0.0)
    assert rate.interval.upper == pytest.approx(1 - 0.025 ** (1 / 10))


def test_a_miss_known_from_another_source_weighs_less_than_one_found_in_the_sample():
    by_another = flag_recall([Stratum(20, 20, 10)], [Stratum(10, 10, 5), Stratum(970, 97, 0)])
    in_sample = flag_recall([Stratum(20, 20, 10)], [Stratum(10, 10, 0), Stratum(970, 97, 5)])
    assert by_another.value == pytest.approx(10 / 15)
    assert in_sample.value == pytest.approx(10 / 60)


def test_false_positives_are_recall_with_the_labels_swapped():
    flagged, unflagged = Stratum(40, 20, 15), Stratum(960, 96, 1)
    rate = false_positive_rate([flagged], [unflagged])
    assert rate.value == pytest.approx(10 / (10 + 950))
    swapped = flag_recall([Stratum(40, 20, 5)], [Stratum(960, 96, 95)])
    assert limits(rate) == pytest.approx(limits(swapped))


@given(flagged=strata(), unflagged=strata(), level=st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_intervals_hold_their_estimate_and_stay_within_zero_and_one(flagged, unflagged, level):
    for rate in (flag_recall, false_positive_rate):
        try:
            found = rate([flagged], [unflagged], level=level)
        except InsufficientDataError:
            continue
        assert 0.0 <= found.interval.lower <= found.value <= found.interval.upper <= 1.0
    found = flag_precision([flagged, unflagged], level=level)
    assert 0.0 <= found.interval.lower <= found.value <= found.interval.upper <= 1.0


@given(first=strata(), second=strata(), other=strata())
def test_the_order_of_strata_does_not_matter_and_empty_ones_count_for_nothing(first, second, other):
    if not first.violations + second.violations + other.violations:
        return
    one = flag_recall([first, second], [other])
    two = flag_recall([second, Stratum(0, 0, 0), first], [other])
    assert limits(one) == pytest.approx(limits(two))
    assert limits(flag_precision([first, second])) == pytest.approx(
        limits(flag_precision([second, first]))
    )


def test_splitting_a_stratum_that_is_reviewed_at_one_rate_changes_no_recall():
    whole = flag_recall([Stratum(40, 20, 10)], [Stratum(900, 90, 3)])
    split = flag_recall(
        [Stratum(10, 5, 4), Stratum(30, 15, 6)], [Stratum(300, 30, 1), Stratum(600, 60, 2)]
    )
    assert split.value == pytest.approx(whole.value)
    assert limits(split) == pytest.approx(limits(whole))


@pytest.mark.parametrize("counts", [(5, 6, 1), (5, 3, 4), (5, 3, -1)])
def test_a_stratum_that_does_not_add_up_is_refused(counts):
    with pytest.raises(InvalidInputError, match="violations <= reviewed <= size"):
        Stratum(*counts)


def test_what_nobody_reviewed_says_nothing():
    with pytest.raises(InsufficientDataError, match="none of 7 unflagged"):
        flag_recall([Stratum(5, 5, 5)], [Stratum(7, 0, 0)])
    with pytest.raises(InsufficientDataError, match="none of 3 flagged"):
        flag_precision([Stratum(5, 5, 5), Stratum(3, 0, 0)])
    with pytest.raises(InsufficientDataError, match="a flagged interaction, got none"):
        flag_precision([Stratum(0, 0, 0)])
    with pytest.raises(InsufficientDataError, match="recall needs a violation among the 55"):
        flag_recall([Stratum(5, 5, 0)], [Stratum(500, 50, 0)])
    with pytest.raises(InsufficientDataError, match=r"fine among the \d+ reviewed .* got none"):
        false_positive_rate([Stratum(5, 5, 5)], [])


def test_a_level_out_of_range_is_refused():
    with pytest.raises(InvalidInputError, match="level must be in"):
        flag_recall([Stratum(5, 5, 5)], [Stratum(50, 50, 1)], level=95)
