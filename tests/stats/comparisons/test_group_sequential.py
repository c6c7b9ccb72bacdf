import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.stats.comparisons.group_sequential import (
    exit_probabilities,
    group_sequential_constant,
    group_sequential_design,
    naive_type_one_error,
)


@pytest.fixture(scope="module")
def published(published_numbers):
    return published_numbers["group_sequential"]


def test_every_published_pocock_constant_is_reproduced(published):
    table = published["pocock_alpha.05"]
    assert len(table) == 5
    ours = {looks: round(group_sequential_constant(int(looks)), 3) for looks in table}
    assert ours == table


def test_every_published_obrien_fleming_constant_is_reproduced(published):
    table = published["obrien_fleming_c (z_k=c*sqrt(K/k))"]
    assert len(table) == 5
    ours = {
        looks: round(group_sequential_constant(int(looks), shape="obrien_fleming"), 3)
        for looks in table
    }
    assert ours == table


def test_every_published_error_of_naive_looks_is_reproduced(published):
    table = published["type1_naive_1.96"]
    assert len(table) == 5
    assert {looks: round(naive_type_one_error(int(looks)), 4) for looks in table} == table


def test_the_published_design_is_reproduced(published):
    # SAS prints seven digits; its last one or two depend on the tolerance of its own search: the
    # integration here is stable to 12 digits whatever the number of nodes
    design, table = group_sequential_design(4, alpha=0.05, power=0.9), published["sas_example"]
    ours = (
        design.maximum_information,
        design.expected_information_null,
        design.expected_information_alternative,
    )
    theirs = (table["max_information_pct"], table["null_ASN_pct"], table["alt_ASN_pct"])
    assert [100 * ratio for ratio in ours] == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(
    ("looks", "pocock", "obrien_fleming", "naive"),
    # Jennison and Turnbull (2000), tables 2.1 and 2.3; Armitage, McPherson, Rowe (1969), table 2
    [(2, 2.178, 1.977, 0.0831), (5, 2.413, 2.040, 0.1417), (10, 2.555, 2.087, 0.1934)],
)
def test_the_key_constants_are_reproduced(looks, pocock, obrien_fleming, naive):
    assert round(group_sequential_constant(looks), 3) == pocock
    assert round(group_sequential_constant(looks, shape="obrien_fleming"), 3) == obrien_fleming
    assert round(naive_type_one_error(looks), 4) == naive


def test_the_key_figures_of_the_published_design_are_reproduced():
    design = group_sequential_design(4)
    assert 100 * design.maximum_information == pytest.approx(118.3143, rel=1e-6)
    assert 100 * design.expected_information_null == pytest.approx(115.6074, rel=1e-6)
    assert 100 * design.expected_information_alternative == pytest.approx(69.74805, rel=1e-6)


@pytest.mark.parametrize("drift", [0.0, 1.3])
def test_two_looks_agree_with_the_bivariate_normal(drift):
    first, second, time = 2.2, 2.0, 0.4
    exits = exit_probabilities([first, second], information=[time, 1.0], drift=drift)
    joint = stats.multivariate_normal(
        [drift * time**0.5, drift], [[1.0, time**0.5], [time**0.5, 1.0]], abseps=1e-10
    )
    stays = joint.cdf([first, second], lower_limit=[-first, -second])
    assert exits.rejection == pytest.approx(1.0 - stays, abs=1e-8)


@given(st.floats(-4.0, 4.0), st.floats(0.2, 3.0))
def test_one_look_is_the_normal_tail(drift, critical):
    exits = exit_probabilities([critical], drift=drift)
    assert exits.upper[0] == pytest.approx(stats.norm.sf(critical - drift))
    assert exits.lower[0] == pytest.approx(stats.norm.cdf(-critical - drift))


def test_looks_that_cannot_stop_change_nothing():
    exits = exit_probabilities([np.inf] * 19 + [1.96], drift=2.0)
    assert exits.upper[-1] == pytest.approx(stats.norm.sf(1.96 - 2.0), abs=1e-10)
    assert exits.upper[:-1].sum() == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.floats(-3.0, 3.0))
def test_the_sides_swap_with_the_sign_of_the_drift(looks, drift):
    one = exit_probabilities([2.3] * looks, drift=drift)
    other = exit_probabilities([2.3] * looks, drift=-drift)
    assert one.upper == pytest.approx(other.lower, abs=1e-12)


@pytest.mark.parametrize("shape", ["pocock", "obrien_fleming"])
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_the_constant_spends_alpha_exactly(shape, alpha):
    constants = []
    for looks in (1, 3, 7):
        design = group_sequential_design(looks, alpha=alpha, shape=shape)
        assert exit_probabilities(design.critical_values).rejection == pytest.approx(alpha)
        power = exit_probabilities(design.critical_values, drift=design.drift).upper.sum()
        assert power == pytest.approx(0.9)
        constants.append(design.constant)
    assert constants == sorted(constants)


def test_a_design_of_one_look_is_the_fixed_test():
    design = group_sequential_design(1)
    assert design.constant == pytest.approx(stats.norm.isf(0.025))
    assert design.maximum_information == pytest.approx(1.0)
    assert design.expected_information_null == pytest.approx(1.0)


def test_obrien_fleming_needs_fewer_at_most_and_pocock_fewer_at_the_alternative():
    pocock = group_sequential_design(5)
    fleming = group_sequential_design(5, shape="obrien_fleming")
    assert fleming.maximum_information < pocock.maximum_information
    assert pocock.expected_information_alternative < fleming.expected_information_alternative


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: naive_type_one_error(0), "looks must be 1 to 100, got 0"),
        (lambda: naive_type_one_error(2, alpha=5), r"alpha must be in \(0, 1\), got 5; pass 0.05"),
        (lambda: group_sequential_constant(2, shape="x"), "shape must be one of .* got 'x'"),
        (lambda: group_sequential_design(2, power=0.01), "power must be above alpha.*got 0.01"),
        (lambda: exit_probabilities([-1.0]), "critical values must be above 0"),
        (lambda: exit_probabilities([2.0], drift=np.inf), "drift finite"),
        (lambda: exit_probabilities([2, 2], information=[0.5, 0.9]), "ascend from above 0 to 1"),
        (lambda: exit_probabilities([2, 2], information=[1.0]), "for 2 looks"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
