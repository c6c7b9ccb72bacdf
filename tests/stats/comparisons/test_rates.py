import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.comparisons import (
    mcnemar_chi_squared,
    mcnemar_exact,
    paired_rate_test,
    tango_statistic,
)
from ratchet.stats.intervals import clopper_pearson

discordant = st.tuples(st.integers(0, 300), st.integers(0, 300))


def test_mcnemar_gives_the_published_p_values_at_their_precision(published_numbers):
    figures = published_numbers["mcnemar"]
    assert len(figures["exact_p"]) == 6
    for (first, second), printed in zip(figures["tables_b_c"], figures["exact_p"], strict=True):
        assert round(mcnemar_exact(first, second).p_value, 6) == printed


@pytest.mark.parametrize(("table", "continuity"), [("chi2_cc", True), ("chi2_nocc", False)])
def test_mcnemars_chi_squared_gives_the_published_figures(published_numbers, table, continuity):
    figures = published_numbers["mcnemar"]
    assert len(figures[table]) == 3
    for (first, second), printed in zip(figures["tables_b_c"][:3], figures[table], strict=True):
        found = mcnemar_chi_squared(first, second, continuity=continuity)
        for ours, theirs in zip(found, printed, strict=True):
            mantissa, _, exponent = repr(theirs).partition("e")
            places = len(mantissa.partition(".")[2]) - int(exponent or 0)
            assert round(ours, places) == theirs


def test_mcnemars_chi_squared_needs_discordant_pairs():
    with pytest.raises(InsufficientDataError, match="discordant"):
        mcnemar_chi_squared(0, 0)
    assert mcnemar_chi_squared(10, 10) == (0.0, 1.0)


def test_mcnemar_of_systems_that_never_differ_has_no_evidence():
    result = mcnemar_exact(0, 0)
    assert (result.p_value, result.p_value_second_better) == (1.0, 1.0)


@given(discordant.filter(any))
def test_mcnemar_agrees_with_scipys_binomial_test(pairs):
    first, second = pairs
    result = mcnemar_exact(first, second)
    two_sided = stats.binomtest(second, first + second, 0.5).pvalue
    one_sided = stats.binomtest(second, first + second, 0.5, alternative="greater").pvalue
    # for p = 1/2 the smallest-probability rule of scipy and doubling the tail agree
    assert result.p_value == pytest.approx(two_sided, rel=1e-9)
    assert result.p_value_second_better == pytest.approx(one_sided, rel=1e-9)


@given(discordant)
def test_swapping_the_systems_keeps_the_two_sided_p_value(pairs):
    first, second = pairs
    one, other = mcnemar_exact(first, second), mcnemar_exact(second, first)
    assert one.p_value == other.p_value
    smaller = min(one.p_value_second_better, other.p_value_second_better)
    assert one.p_value == pytest.approx(min(1.0, 2.0 * smaller))


@given(discordant.filter(any), st.sampled_from([0.01, 0.05, 0.1]))
def test_p_is_below_alpha_exactly_when_the_exact_interval_excludes_one_half(pairs, alpha):
    first, second = pairs
    p_value = mcnemar_exact(first, second).p_value
    interval = clopper_pearson(second, first + second, level=1.0 - alpha)
    if abs(p_value - alpha) > 1e-9:
        assert (p_value < alpha) == (0.5 not in interval)


@pytest.mark.parametrize("differing", [1, 5, 12, 50, 200])
def test_the_false_alarm_rate_never_exceeds_alpha_by_exact_enumeration(differing):
    results = [mcnemar_exact(differing - k, k) for k in range(differing + 1)]
    chances = stats.binom.pmf(range(differing + 1), differing, 0.5)
    for name in ("p_value", "p_value_second_better"):
        rejected = [getattr(result, name) <= 0.05 for result in results]
        assert sum(c for c, r in zip(chances, rejected, strict=True) if r) <= 0.05


@pytest.mark.parametrize(("first", "second"), [(-1, 2), (1, 2.5)])
def test_counts_that_are_not_counts_are_refused(first, second):
    with pytest.raises(InvalidInputError, match=r"got (-1|2\.5)"):
        mcnemar_exact(first, second)


# Against a margin ---------------------------------------------------------------------------------

cells = st.tuples(*[st.integers(0, 80)] * 4).filter(any)
margins = st.sampled_from([-0.2, -0.1, -0.05, -0.01, 0.01, 0.05, 0.1])


def likeliest(first, second, pairs, delta):
    """Chance of "only the first" that makes the counts likeliest under a difference, by search."""
    low, high = max(0.0, -delta), (1.0 - delta) / 2.0

    def unlikely(chance):
        rest = max(1e-300, 1.0 - 2.0 * chance - delta)
        parts = ((first, chance), (second, chance + delta), (pairs - first - second, rest))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    found = optimize.minimize_scalar(
        unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    return found.x


@given(cells, margins)
def test_the_statistic_rests_on_the_likeliest_chances_under_the_margin(counts, margin):
    both, first, second, neither = counts
    pairs = both + first + second + neither
    chance = likeliest(first, second, pairs, margin)
    variance = pairs * (2.0 * chance + margin * (1.0 - margin))
    expected = (second - first - pairs * margin - 1.0) / math.sqrt(max(variance, 1e-12))
    if variance > 1e-3:
        assert tango_statistic(first, second, pairs, margin) == pytest.approx(expected, abs=2e-3)


@given(cells)
def test_without_a_margin_it_is_edwards_form_of_mcnemars_statistic(counts):
    both, first, second, neither = counts
    if first + second:
        expected = (second - first - 1.0) / math.sqrt(first + second)
        pairs = both + first + second + neither
        assert tango_statistic(first, second, pairs, 0.0) == pytest.approx(expected)
    result = paired_rate_test(*counts)
    assert result.p_above == mcnemar_exact(first, second).p_value_second_better
    assert result.p_below == mcnemar_exact(second, first).p_value_second_better


@given(cells, margins, st.sampled_from([0.01, 0.05, 0.1]))
def test_p_is_below_alpha_exactly_when_the_interval_is_beyond_the_margin(counts, margin, alpha):
    result = paired_rate_test(*counts, margin=margin, alpha=alpha)
    assert result.interval.lower <= result.difference <= result.interval.upper
    if abs(result.p_above - alpha) > 1e-6:
        assert (result.p_above < alpha) == (result.interval.lower > margin)
    if abs(result.p_below - alpha) > 1e-6:
        assert (result.p_below < alpha) == (result.interval.upper < margin)


@given(cells, margins)
def test_swapping_the_systems_mirrors_difference_interval_and_p_values(counts, margin):
    both, first, second, neither = counts
    one = paired_rate_test(*counts, margin=margin)
    other = paired_rate_test(both, second, first, neither, margin=-margin)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_above == pytest.approx(other.p_below)
    assert one.interval.lower == pytest.approx(-other.interval.upper, abs=1e-8)


@pytest.mark.parametrize("pairs", [50, 150, 300, 1_000])
@pytest.mark.parametrize("margin", [-0.1, -0.05, -0.02, 0.02])
def test_non_inferiority_is_shown_at_the_margin_in_at_most_alpha_by_enumeration(pairs, margin):
    for discordance in (abs(margin), abs(margin) + 0.01, 0.15, 0.3, 0.5):
        chances = ((discordance - margin) / 2, (discordance + margin) / 2)
        first, second = (
            np.arange(
                max(0, int(pairs * p - 9 * math.sqrt(pairs * p) - 9)),
                min(pairs, int(pairs * p + 9 * math.sqrt(pairs * p) + 9)) + 1,
            )
            for p in chances
        )
        one, two = (part.ravel() for part in np.meshgrid(first, second))
        fits = one + two <= pairs
        one, two = one[fits], two[fits]
        weights = stats.binom.pmf(one, pairs, chances[0]) * stats.binom.pmf(
            two, pairs - one, chances[1] / (1.0 - chances[0])
        )
        assert weights.sum() == pytest.approx(1.0, abs=1e-6)
        shown = tango_statistic(one, two, pairs, margin) >= stats.norm.isf(0.05)
        assert weights[shown].sum() <= 0.05


def test_systems_that_never_differ_are_not_shown_to_be_equal_by_few_pairs():
    few, many = paired_rate_test(15, 0, 0, 5), paired_rate_test(300, 0, 0, 100)
    assert few.interval.lower < -0.1 < many.interval.lower < 0.0
    assert few.p_above == 1.0


@pytest.mark.parametrize(
    ("counts", "changes", "error"),
    [
        ((0, 0, 0, 0), {}, InsufficientDataError),
        ((5, -1, 1, 1), {}, InvalidInputError),
        ((5, 1, 1, 1), {"margin": 1.0}, InvalidInputError),
        ((5, 1, 1, 1), {"margin": math.nan}, InvalidInputError),
        ((5, 1, 1, 1), {"alpha": 0.5}, InvalidInputError),
    ],
)
def test_what_cannot_be_compared_is_refused(counts, changes, error):
    with pytest.raises(error, match="got"):
        paired_rate_test(*counts, **changes)
