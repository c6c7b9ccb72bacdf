"""Percent agreement and Cohen's kappa. Figures of other coefficients: test_reliability.py."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from sklearn.metrics import cohen_kappa_score

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.agreement import (
    cohen_kappa,
    cohen_kappa_of_table,
    gwet_ac1,
    kappa_lower_bound,
    percent_agreement,
)
from ratchet.stats.agreement.ratings import chance_corrected_limits
from ratchet.stats.intervals import wilson

SAS = [[0, 4, 1], [0, 8, 0], [0, 1, 5]]
COHEN_1960 = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]  # the shares times n = 200
COHEN_1968_WEIGHTS = [[0, 1, 3], [1, 0, 6], [3, 6, 0]]
ABSTRACTORS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]  # irrCAC's data set cont3x3abstractors
WEIGHTS = [None, "linear", "quadratic"]

tables = st.integers(2, 4).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 12), min_size=k, max_size=k), min_size=k, max_size=k)
)


def labels_of(table):
    """Labels of both raters that give this table."""
    pairs = [
        (row, column)
        for row, cells in enumerate(table)
        for column, count in enumerate(cells)
        for _ in range(count)
    ]
    return [one for one, _ in pairs], [other for _, other in pairs]


def defined_kappa(*arguments, **options):
    """Kappa, or None where the raters use other labels or it is undefined."""
    try:
        result = cohen_kappa_of_table(*arguments, **options)
    except InvalidInputError:
        return None
    return None if result.value is None else result


def assert_sas(result, printed):
    assert round(result.value, 4) == printed["kappa"]
    assert round(result.standard_error, 4) == printed["ASE"]
    ends = (result.interval.lower, result.interval.upper)
    assert [round(end, 4) for end in ends] == printed["CI"]
    assert round(result.null_standard_error, 4) == printed["ASE_H0"]
    assert round(result.z, 4) == printed["Z"]


@pytest.fixture(scope="module")
def published(published_numbers):
    return published_numbers


# Published figures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "printed"),
    [
        (
            None,
            {
                "kappa": 0.4842,
                "ASE": 0.1380,
                "CI": [0.2137, 0.7547],
                "ASE_H0": 0.1484,
                "Z": 3.2626,
            },
        ),
        (
            "linear",
            {
                "kappa": 0.4701,
                "ASE": 0.1457,
                "CI": [0.1845, 0.7558],
                "ASE_H0": 0.1426,
                "Z": 3.2971,
            },
        ),
    ],
)
def test_kappa_is_what_sas_prints(weights, printed):
    assert_sas(cohen_kappa_of_table(SAS, weights=weights), printed)


def test_the_p_value_is_what_sas_prints():
    assert round(cohen_kappa_of_table(SAS).p_value, 4) == 0.0011
    assert round(cohen_kappa_of_table(SAS, weights="linear").p_value, 4) == 0.0010


@pytest.mark.parametrize(("block", "weights"), [("simple", None), ("linear_weighted", "linear")])
def test_kappa_is_the_collected_output_of_sas(published, block, weights):
    source = published["kappa_sas"]
    assert_sas(cohen_kappa_of_table(source["table"], weights=weights), source[block])


def test_kappa_is_that_of_cohens_papers():
    # Cohen 1960 prints .492, Cohen 1968 .348
    assert round(cohen_kappa_of_table(COHEN_1960).value, 3) == 0.492
    weighted = cohen_kappa_of_table(COHEN_1960, weights=COHEN_1968_WEIGHTS)
    assert round(weighted.value, 3) == 0.348


def test_kappa_is_that_of_cohens_papers_as_collected(published):
    source = published["kappa_cohen_1960_1968"]
    table = np.rint(np.array(source["proportions"]) * source["n"])
    assert round(cohen_kappa_of_table(table).value, 3) == source["kappa"]
    weighted = cohen_kappa_of_table(table, weights=COHEN_1968_WEIGHTS)
    assert round(weighted.value, 3) == source["weighted_kappa_weights_013_106_360"]


def test_kappa_and_its_error_are_those_of_irrcac():
    # irrCAC's vignette: 0.7964094, 0.05891072
    result = cohen_kappa_of_table(ABSTRACTORS)
    assert result.value == pytest.approx(0.7964094, abs=5e-8)
    assert result.standard_error == pytest.approx(0.05891072, abs=5e-9)


@pytest.mark.parametrize("strategy", ["Vanilla", "Swap"])
def test_the_orders_of_a_judge_agree_as_published(shared_data, published, strategy):
    block = published["llmbar_natural_gpt4"][strategy]
    runs = (shared_data / "llmbar" / "judge_verdicts.jsonl").read_text("utf-8").splitlines()
    wanted = {"subset": "Natural", "judge": "GPT-4", "strategy": strategy}
    (run,) = [run for run in map(json.loads, runs) if wanted.items() <= run.items()]
    kappa = cohen_kappa(run["orig"], run["swapped"])
    assert kappa.value == pytest.approx(block["kappa_agreement"], abs=1e-12)
    gold = [str(label) for label in run["label"]]
    items = len(gold)
    right = [percent_agreement(run[order], gold).value * items for order in ("orig", "swapped")]
    assert right == pytest.approx(block["correct"])
    same = percent_agreement(run["orig"], run["swapped"])
    assert same.value * items == pytest.approx(block["equal"])


def test_labels_one_two_against_zero_one_are_refused(shared_data):
    # upstream printed 0.264 for this comparison, where the kappa is 0.878
    runs = (shared_data / "llmbar" / "judge_verdicts.jsonl").read_text("utf-8").splitlines()
    wanted = {"subset": "Natural", "judge": "GPT-4", "strategy": "Swap"}
    (run,) = [run for run in map(json.loads, runs) if wanted.items() <= run.items()]
    verdicts = [int(winner) % 2 for winner in run["orig"]]  # their "2" becomes 0
    with pytest.raises(InvalidInputError, match=r"got \[0, 1\] and \[1, 2\]"):
        cohen_kappa(verdicts, run["label"])
    recoded = [label % 2 for label in run["label"]]
    assert round(cohen_kappa(verdicts, recoded).value, 3) == 0.878
    wrong = cohen_kappa(verdicts, run["label"], categories=[0, 1, 2])
    assert round(wrong.value, 3) == 0.264


# Other sources ----------------------------------------------------------------------------------


@given(tables, st.sampled_from(WEIGHTS))
def test_kappa_is_that_of_scikit_learn(table, weights):
    result = defined_kappa(table, weights=weights)
    if result is not None:
        ones, others = labels_of(table)
        by_sklearn = cohen_kappa_score(ones, others, weights=weights, labels=range(len(table)))
        assert result.value == pytest.approx(by_sklearn, abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30),
    st.sampled_from(WEIGHTS),
)
def test_weights_without_categories_rank_the_labels_that_are_used_as_scikit_learn_does(
    pairs, weights
):
    ones, others = ([10 * pair[side] for pair in pairs] for side in (0, 1))
    try:
        result = cohen_kappa(ones, others, weights=weights)
    except InvalidInputError:
        return
    if result.value is None:
        assert set(ones) == set(others)
        assert len(set(ones)) == 1
    else:
        by_sklearn = cohen_kappa_score(ones, others, weights=weights)
        assert result.value == pytest.approx(by_sklearn, abs=1e-9)


@given(table=tables, weights=st.sampled_from(WEIGHTS))
def test_kappa_its_errors_and_its_test_are_those_of_statsmodels(inter_rater, table, weights):
    result = defined_kappa(table, weights=weights)
    if result is None or not result.standard_error:
        return
    other = inter_rater.cohens_kappa(np.array(table), wt=weights)
    assert result.value == pytest.approx(other.kappa, abs=1e-9)
    assert result.standard_error == pytest.approx(other.std_kappa, abs=1e-6)
    assert result.null_standard_error == pytest.approx(other.std_kappa0, abs=1e-6)
    assert result.p_value == pytest.approx(other.pvalue_two_sided, abs=1e-6)
    assert result.interval.lower == pytest.approx(other.kappa_low, abs=1e-5)
    assert result.interval.upper == pytest.approx(min(1.0, other.kappa_upp), abs=1e-5)


def test_percent_agreement_is_wilsons_share():
    result = percent_agreement(list("aabb") * 5, list("aabc") * 5)
    assert (result.value, result.observed_agreement, result.items) == (0.75, 0.75, 20)
    assert result.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 20))
    assert result.interval == wilson(15, 20)
    assert (result.expected_agreement, result.z, result.p_value) == (None, None, None)


def test_ac1_stays_high_where_kappa_falls_with_uneven_marginals():
    # 90 of 100 agree in both tables; kappa by hand (0.90 - 0.5) / 0.5 and (0.9 - 0.905) / 0.095
    even, uneven = [[45, 5], [5, 45]], [[90, 5], [5, 0]]
    assert cohen_kappa_of_table(even).value == pytest.approx(0.8)
    assert cohen_kappa_of_table(uneven).value == pytest.approx(-0.005 / 0.095)
    assert gwet_ac1(np.transpose(labels_of(uneven))).value == pytest.approx(0.805 / 0.905)


# Invariance -------------------------------------------------------------------------------------


@given(tables, st.sampled_from(WEIGHTS))
def test_swapping_the_raters_changes_nothing(table, weights):
    result = defined_kappa(table, weights=weights)
    if result is not None:
        swapped = cohen_kappa_of_table(np.transpose(table), weights=weights)
        assert swapped.value == pytest.approx(result.value, abs=1e-9)
        assert swapped.standard_error == pytest.approx(result.standard_error, abs=1e-6)
        assert swapped.null_standard_error == pytest.approx(result.null_standard_error, abs=1e-6)


@given(tables, st.randoms())
def test_unweighted_kappa_does_not_depend_on_the_order_of_categories(table, random):
    result = defined_kappa(table)
    if result is not None:
        order = list(range(len(table)))
        random.shuffle(order)
        permuted = cohen_kappa_of_table(np.array(table)[np.ix_(order, order)])
        assert permuted.value == pytest.approx(result.value, abs=1e-9)
        assert permuted.standard_error == pytest.approx(result.standard_error, abs=1e-6)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=20),
    st.permutations("xyz"),
    st.randoms(),
)
def test_the_order_of_items_and_the_names_of_labels_change_nothing(pairs, names, random):
    renamed = dict(zip("abc", names, strict=True))
    shuffled = [(renamed[one], renamed[other]) for one, other in pairs]
    random.shuffle(shuffled)
    for function in (percent_agreement, cohen_kappa):
        try:
            before = function(*zip(*pairs, strict=True))
        except InvalidInputError:
            continue
        after = function(*zip(*shuffled, strict=True))
        assert (after.reason, after.items) == (before.reason, before.items)
        if before.value is not None:
            assert after.value == pytest.approx(before.value, abs=1e-9)
            assert after.standard_error == pytest.approx(before.standard_error, abs=1e-6)
            assert after.interval.lower == pytest.approx(before.interval.lower, abs=1e-5)


def test_weighted_kappa_depends_on_the_order_of_categories():
    ones, others = labels_of(SAS)
    in_order = cohen_kappa(ones, others, weights="linear", categories=[0, 1, 2])
    assert in_order.value == pytest.approx(0.4701, abs=5e-5)
    assert cohen_kappa(ones, others, weights="linear") == in_order
    other_order = cohen_kappa(ones, others, weights="linear", categories=[1, 0, 2])
    assert other_order.value != pytest.approx(in_order.value, abs=1e-3)


def test_words_are_ranked_by_the_alphabet_unless_categories_are_given():
    ones, others = (np.array(["poor", "fair", "good"])[part] for part in labels_of(SAS))
    plain = cohen_kappa(ones, others, weights="linear")
    by_alphabet = cohen_kappa(ones, others, weights="linear", categories=["fair", "good", "poor"])
    assert plain == by_alphabet
    in_order = cohen_kappa(ones, others, weights="linear", categories=["poor", "fair", "good"])
    assert round(in_order.value, 4) == 0.4701


def test_weights_of_labels_that_cannot_be_sorted_ask_for_categories():
    ones, others = ["low", 2, "low", 2], ["low", 2, 2, "low"]
    with pytest.raises(InvalidInputError, match="pass categories in their order"):
        cohen_kappa(ones, others, weights="linear")
    assert cohen_kappa(ones, others).value == pytest.approx(0.0)
    ranked = cohen_kappa(ones, others, weights="linear", categories=["low", 2])
    assert ranked.value == pytest.approx(0.0)


def test_renaming_the_labels_and_reversing_their_order_change_nothing():
    ones, others = labels_of(SAS)
    names = ["poor", "fair", "good"]
    renamed = cohen_kappa(
        [names[x] for x in ones],
        [names[x] for x in others],
        weights="quadratic",
        categories=names[::-1],
    )
    by_number = cohen_kappa(ones, others, weights="quadratic", categories=[0, 1, 2])
    assert renamed.value == pytest.approx(by_number.value)
    assert renamed.standard_error == pytest.approx(by_number.standard_error)


def test_categories_that_nobody_uses_do_not_change_kappa():
    ones, others = labels_of(SAS)
    more = cohen_kappa(ones, others, weights="linear", categories=[0, 1, 2, 3, 4])
    assert more.value == pytest.approx(cohen_kappa_of_table(SAS, weights="linear").value)


def test_of_two_labels_all_weights_agree():
    results = [cohen_kappa_of_table([[20, 5], [3, 12]], weights=name) for name in WEIGHTS]
    assert len({(round(one.value, 12), round(one.z, 9)) for one in results}) == 1


@given(tables)
def test_kappa_lies_within_its_interval_and_above_its_bound(table):
    result = defined_kappa(table)
    if result is not None:
        assert -1.0 - 1e-9 <= result.value <= 1.0 + 1e-9
        assert result.interval.lower - 1e-9 <= result.value <= result.interval.upper + 1e-9
        assert result.interval.lower < result.interval.upper
        assert kappa_lower_bound(result) < result.value or result.observed_agreement == 0.0


# Duality ----------------------------------------------------------------------------------------


@given(tables, st.floats(-0.9, 0.95))
def test_the_interval_excludes_a_kappa_exactly_when_its_wald_test_rejects(table, kappa):
    result = defined_kappa(table)
    if result is None or result.standard_error == 0.0:
        return
    p = 2.0 * special.ndtr(-abs(result.value - kappa) / result.standard_error)
    if abs(p - 0.05) > 1e-9:
        assert (kappa not in result.interval) == (p < 0.05)


@given(tables, st.floats(-0.9, 0.95))
def test_the_bound_exceeds_a_kappa_exactly_when_its_score_test_rejects(table, kappa):
    result = defined_kappa(table)
    if result is None:
        return
    observed, expected = result.observed_agreement, result.expected_agreement
    null = kappa * (1.0 - expected) + expected
    if not 0.01 < null < 0.99 or not 0.0 < observed < 1.0 or result.standard_error == 0.0:
        return
    error = result.standard_error * (1.0 - expected)
    effective = min(result.items, observed * (1.0 - observed) / error**2)
    z = (observed - null) / math.sqrt(null * (1.0 - null) / effective)
    if abs(special.ndtr(-z) - 0.05) > 1e-6:
        assert (kappa_lower_bound(result) > kappa) == (special.ndtr(-z) < 0.05)


# Degenerate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
def test_one_and_the_same_label_from_both_raters_leaves_kappa_undefined_with_a_reason(weights):
    for result in (
        cohen_kappa_of_table([[9, 0], [0, 0]], weights=weights),
        cohen_kappa(["a"] * 9, ["a"] * 9, weights=weights),
    ):
        assert (result.value, result.standard_error, result.interval) == (None, None, None)
        assert (result.z, result.p_value) == (None, None)
        assert (result.observed_agreement, result.expected_agreement) == (1.0, 1.0)
        assert result.items == 9
        assert "one and the same from both raters" in result.reason
        with pytest.raises(InsufficientDataError, match="one and the same from both raters"):
            kappa_lower_bound(result)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    "table",
    [
        [[9, 1], [0, 0]],
        [[9, 0], [1, 0]],
        [[7, 2, 1], [0, 0, 0], [0, 0, 0]],
        [[99_999, 1], [0, 0]],
        [[0, 7, 0], [0, 11, 0], [0, 13, 0]],
    ],
)
def test_one_constant_rater_beside_one_that_varies_gives_0_and_an_interval_with_a_width(
    table, weights
):
    result = cohen_kappa_of_table(table, weights=weights)
    ones, others = labels_of(table)
    by_sklearn = cohen_kappa_score(ones, others, weights=weights, labels=range(len(table)))
    assert by_sklearn == pytest.approx(0.0, abs=1e-9)
    assert (result.value, result.reason) == (0.0, None)
    assert (result.z, result.null_standard_error, result.p_value) == (None, None, None)
    assert result.interval.lower < 0.0 < result.interval.upper
    limits = chance_corrected_limits(
        result.expected_agreement, result.expected_agreement, result.items, special.ndtri(0.975)
    )
    assert (result.interval.lower, result.interval.upper) == limits
    assert kappa_lower_bound(result) < 0.0


def test_weights_by_which_the_marginals_decide_give_0():
    # |i - j| = j - i for each pair here, whoever is paired with whom
    table = [[0, 0, 3, 3], [0, 0, 1, 3], [0, 0, 2, 2], [0, 0, 0, 0]]
    result = cohen_kappa_of_table(table, weights="linear")
    assert (result.value, result.z) == (0.0, None)
    assert result.interval.lower < 0.0 < result.interval.upper


def test_weights_without_disagreement_leave_kappa_undefined():
    weights = [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    result = cohen_kappa_of_table([[3, 2, 0], [1, 4, 0], [0, 0, 0]], weights=weights)
    assert result.value is None
    assert "weights with a disagreement" in result.reason


def test_no_items_and_one_item_are_too_little():
    assert "at least 1 item, got 0" in percent_agreement([], []).reason
    one = percent_agreement(["a"], ["b"])
    assert (one.value, one.items, one.interval) == (0.0, 1, wilson(0, 1))
    for result, items in (
        (cohen_kappa([], []), 0),
        (cohen_kappa(["a"], ["b"]), 1),
        (cohen_kappa(["a"], ["a"], weights="linear"), 1),
        (cohen_kappa_of_table([[1, 0], [0, 0]]), 1),
        (cohen_kappa_of_table([[0, 0], [0, 0]], weights=[[0, 1], [1, 0]]), 0),
    ):
        assert (result.value, result.interval) == (None, None)
        assert result.items == items
        assert f"at least 2 items, got {items}" in result.reason


@pytest.mark.parametrize("function", [percent_agreement, cohen_kappa])
def test_raters_with_disjoint_labels_are_refused_by_name(function):
    with pytest.raises(InvalidInputError, match=r"got \['1', '2'\] and \[1, 2\]"):
        function(["1", "2", "1"], [1, 2, 1])


def test_disjoint_labels_are_refused_even_as_declared_categories():
    with pytest.raises(InvalidInputError, match="one set of labels"):
        cohen_kappa(["a", "b"], ["c", "d"], categories=["a", "b", "c", "d"])
    with pytest.raises(InvalidInputError, match="one set of labels"):
        cohen_kappa_of_table([[0, 0, 2, 1], [0, 0, 1, 1], [0] * 4, [0] * 4])


def test_perfect_agreement_has_an_interval_with_a_width():
    result = cohen_kappa_of_table([[15, 0], [0, 15]])
    lower = wilson(30, 30).lower
    assert result.value == 1.0
    assert result.standard_error == 0.0
    assert result.interval.lower == pytest.approx((lower - 0.5) / 0.5)
    assert result.interval.upper == 1.0


def test_perfect_agreement_with_one_rare_item_among_many_has_an_interval_with_a_width():
    result = cohen_kappa_of_table([[99_999, 0], [0, 1]])
    assert (result.value, result.standard_error) == (1.0, 0.0)
    assert result.interval.lower < 0.0


def test_perfect_disagreement_has_an_interval_with_a_width():
    result = cohen_kappa_of_table([[0, 15], [15, 0]])
    assert result.value == pytest.approx(-1.0)
    assert result.interval.lower == pytest.approx(-1.0)
    assert result.interval.upper == pytest.approx((wilson(0, 30).upper - 0.5) / 0.5)


def test_limits_corrected_for_chance_are_wilsons():
    lower, upper = chance_corrected_limits(0.8, 0.4, 50, special.ndtri(0.975))
    interval = wilson(40, 50)
    assert lower == pytest.approx((interval.lower - 0.4) / 0.6)
    assert upper == pytest.approx((interval.upper - 0.4) / 0.6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cohen_kappa([1, 2], [1]), "2 and 1 labels"),
        (lambda: cohen_kappa([1, None], [1, float("nan")]), "got 2 missing"),
        (lambda: cohen_kappa([[1, 2]], [[1, 2]]), "shape"),
        (lambda: cohen_kappa([1, 2], [1, 2], categories=[1, 3]), r"got \[2\]"),
        (lambda: cohen_kappa([1, 2], [1, 2], categories=[1, 1, 2]), "named once"),
        (lambda: cohen_kappa([1, 2], [1, 2], weights="cubic"), "got 'cubic'"),
        (lambda: cohen_kappa([1, 2], [0, 1]), r"got \[1, 2\] and \[0, 1\]"),
        (lambda: percent_agreement([1, 2], [1, 2], level=95), "level"),
        (lambda: cohen_kappa_of_table([[1, 2]]), "square"),
        (lambda: cohen_kappa_of_table([[0.5, 0.1], [0.1, 0.3]]), "must hold counts"),
        (lambda: cohen_kappa_of_table(SAS, weights="unweighted"), "None, one of"),
        (lambda: cohen_kappa_of_table(SAS, weights=[[0, 1], [1, 0]]), "shape"),
        (lambda: cohen_kappa_of_table(SAS, weights=np.eye(3)), "0 on the diagonal"),
        (lambda: cohen_kappa_of_table(SAS, level=95), "level"),
        (lambda: kappa_lower_bound(cohen_kappa_of_table(SAS), alpha=5), "alpha"),
        (lambda: kappa_lower_bound(percent_agreement([1, 2], [1, 2])), "result of cohen_kappa"),
    ],
)
def test_what_breaks_a_rule_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
