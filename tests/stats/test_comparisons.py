import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.stats.intervals import clopper_pearson

discordant = st.tuples(st.integers(0, 300), st.integers(0, 300))


def test_mcnemar_gives_the_published_p_values_at_their_precision(published_numbers):
    figures = published_numbers["mcnemar"]
    assert len(figures["exact_p"]) == 6
    for (first, second), printed in zip(figures["tables_b_c"], figures["exact_p"], strict=True):
        assert round(mcnemar_exact(first, second).p_value, 6) == printed


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
