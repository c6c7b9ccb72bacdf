"""Fleiss' kappa, Gwet's AC1 and Krippendorff's alpha: agreement of several raters.

Ratings have a row for each item here; sources that print a row for each rater are transposed.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.stats.agreement import fleiss_kappa, gwet_ac1, krippendorff_alpha
from ratchet.stats.intervals import wilson

METRICS = ["nominal", "ordinal", "interval", "ratio"]
ABSTRACTORS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]  # irrCAC's data set cont3x3abstractors

# Krippendorff's data C, four observers of twelve units; irrCAC's cac.raw4raters
DATA_C = [
    [1, 1, None, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [None, 5, 5, 5],
    [None, None, 1, 1],
    [None, None, 3, None],
]
# the example of the package krippendorff: three coders, 15 units, * missing
CODER_A = "*****34121133*3"
CODER_B = "1*213343*******"
CODER_C = "**21344*21133*4"
UNITS = [
    [None if code == "*" else int(code) for code in unit]
    for unit in zip(CODER_A, CODER_B, CODER_C, strict=True)
]
# Fleiss 1971: 30 patients, six psychiatrists, five diagnoses (as in R's irr::diagnoses)
# fmt: off
DIAGNOSES = [
    "444444", "222555", "233335", "555555", "222444", "113333", "333355", "113334",
    "114444", "555555", "144444", "124444", "222333", "144444", "224445", "333335",
    "111455", "111112", "224444", "133555", "555555", "244444", "224555", "114444",
    "144445", "222224", "111155", "224444", "133333", "555555",
]
# fmt: on
# the counts of Wikipedia's article on Fleiss' kappa: ten items, 14 raters
WIKIPEDIA = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
SIX_RATERS = [  # irrCAC's distrib.6raters
    [0, 0, 0, 6, 0],
    [0, 3, 0, 0, 3],
    [0, 1, 4, 0, 1],
    [0, 0, 0, 0, 6],
    [0, 3, 0, 3, 0],
    [2, 0, 4, 0, 0],
    [0, 0, 4, 0, 2],
    [2, 0, 3, 1, 0],
    [2, 0, 0, 4, 0],
    [0, 0, 0, 0, 6],
    [1, 0, 0, 5, 0],
    [1, 1, 0, 4, 0],
    [0, 3, 3, 0, 0],
    [1, 0, 0, 5, 0],
    [0, 2, 0, 3, 1],
]

matrices = st.lists(
    st.lists(st.sampled_from([0, 1, 2, None]), min_size=3, max_size=3), min_size=4, max_size=12
)
count_tables = st.lists(
    st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=2, max_size=10
).map(lambda rows: [[row.count(label) for label in range(3)] for row in rows])


def alpha(ratings, metric="nominal", **options):
    """Krippendorff's alpha of ratings with a row for each item."""
    return krippendorff_alpha(np.array(ratings, dtype=object), metric=metric, **options)


def ratings_of(counts):
    return [[label for label, n in enumerate(row) for _ in range(n)] for row in counts]


def counts_of(ratings):
    return np.stack([(np.asarray(ratings) == label).sum(axis=1) for label in (0, 1)], axis=1)


def noisy(rng, items, *errors):
    """Labels of raters who flip a fair truth with these chances, shape (items, raters)."""
    truth = rng.integers(0, 2, size=(items, 1))
    return np.where(rng.random((items, len(errors))) < errors, 1 - truth, truth)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def published(published_numbers):
    return published_numbers


# Published figures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "printed", "digits"),
    [
        ("nominal", 0.743421, 6),
        ("ordinal", 0.815388, 6),
        ("interval", 0.849107, 6),
        ("ratio", 0.797, 3),
    ],
)
def test_alpha_is_that_of_krippendorffs_data(metric, printed, digits):
    assert round(alpha(DATA_C, metric).value, digits) == printed


@pytest.mark.parametrize(("metric", "printed"), [("nominal", 0.691358), ("interval", 0.810845)])
def test_alpha_of_fifteen_units_is_the_packages(metric, printed):
    assert round(alpha(UNITS, metric).value, 6) == printed


@pytest.mark.parametrize(
    ("block", "ratings"), [("textbook_C_data", DATA_C), ("fast_krippendorff_15units", UNITS)]
)
def test_alpha_is_every_collected_figure(published, block, ratings):
    figures = published["krippendorff"][block]
    assert len(figures) >= 2
    for metric, printed in figures.items():
        digits = len(str(printed).partition(".")[2])
        assert round(alpha(ratings, metric).value, digits) == printed


def test_fleiss_kappa_and_its_test_are_those_of_r():
    # irr::kappam.fleiss(diagnoses): kappa 0.4302445, z 17.65183
    result = fleiss_kappa([[row.count(label) for label in "12345"] for row in DIAGNOSES])
    assert result.value == pytest.approx(0.4302445, abs=5e-8)
    assert result.z == pytest.approx(17.65183, abs=5e-6)
    assert result.items == 30


def test_fleiss_kappa_is_that_of_wikipedia():
    assert round(fleiss_kappa(WIKIPEDIA).value, 3) == 0.210


def test_fleiss_kappa_and_ac1_of_six_raters_are_those_of_irrcac():
    # irrCAC's vignette: Fleiss 0.4139265 (0.08119291), (0.24, 0.588); AC1 0.4448007 (0.08418757)
    kappa, ac1 = fleiss_kappa(SIX_RATERS), gwet_ac1(ratings_of(SIX_RATERS))
    assert kappa.value == pytest.approx(0.4139265, abs=5e-8)
    assert kappa.standard_error == pytest.approx(0.08119291, abs=5e-9)
    assert round(kappa.interval.lower, 3) == 0.24
    assert round(kappa.interval.upper, 3) == 0.588
    assert ac1.value == pytest.approx(0.4448007, abs=5e-8)
    assert ac1.standard_error == pytest.approx(0.08418757, abs=5e-9)
    assert ac1.expected_agreement == pytest.approx(0.1914815, abs=5e-8)


def test_ac1_with_missing_ratings_is_that_of_irrcac():
    # irrCAC's vignette: 0.77544, standard error 0.14295, interval (0.461, 1)
    result = gwet_ac1(DATA_C)
    assert round(result.value, 5) == 0.77544
    assert round(result.standard_error, 5) == 0.14295
    assert round(result.interval.lower, 3) == 0.461
    assert result.interval.upper == 1.0
    assert result.items == 11  # a twelfth has one rating


def test_ac1_of_two_raters_is_that_of_irrcac():
    # irrCAC prints 0.8493305 and, with n in place of n - 1, a standard error of 0.04321747
    pairs = [
        (one, other)
        for one, cells in enumerate(ABSTRACTORS)
        for other, count in enumerate(cells)
        for _ in range(count)
    ]
    result = gwet_ac1(pairs)
    assert result.value == pytest.approx(0.8493305, abs=5e-8)
    assert result.standard_error * math.sqrt(99 / 100) == pytest.approx(0.04321747, abs=5e-9)


# Other sources ----------------------------------------------------------------------------------


@given(counts=count_tables)
def test_fleiss_kappa_is_that_of_statsmodels(inter_rater, counts):
    result = fleiss_kappa(counts)
    if result.value is not None:
        assert result.value == pytest.approx(inter_rater.fleiss_kappa(np.array(counts)), abs=1e-9)


@given(counts=count_tables)
def test_fleiss_kappa_is_nominal_alpha_but_for_a_correction_of_small_samples(counts):
    # both take their chance agreement from all ratings, alpha without replacement
    kappa = fleiss_kappa(counts)
    if kappa.value is not None:
        try:
            other = alpha(ratings_of(counts), categories=[0, 1, 2])
        except InvalidInputError:
            return  # a column of sorted rows may look like a rater with labels of its own
        ratings = 4 * len(counts)
        expected = kappa.value + (1.0 - kappa.value) / ratings
        assert other.value == pytest.approx(expected, abs=1e-9)


@given(matrices, st.sampled_from(METRICS))
def test_alpha_is_the_mean_difference_of_pairs_within_over_that_of_all(ratings, metric):
    try:
        result = alpha(ratings, metric)
    except InvalidInputError:
        return
    if result.value is None:
        return
    units = [[x for x in row if x is not None] for row in ratings]
    units = [unit for unit in units if len(unit) >= 2]
    everything = sorted(itertools.chain(*units))

    def apart(one, other):
        low, high = sorted((one, other))
        between = sum(low <= x <= high for x in everything)
        ends = (everything.count(low) + everything.count(high)) / 2
        return {
            "nominal": float(low != high),
            "ordinal": (between - ends) ** 2,
            "interval": (low - high) ** 2,
            "ratio": ((low - high) / max(1, low + high)) ** 2,
        }[metric]

    within = sum(
        apart(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    )
    total = len(everything)
    overall = sum(apart(a, b) for a, b in itertools.permutations(everything, 2)) / (total - 1)
    assert result.value == pytest.approx(1.0 - within / overall)
    if metric == "nominal":
        assert result.observed_agreement == pytest.approx(1.0 - within / total)
        assert result.expected_agreement == pytest.approx(1.0 - overall / total)


def test_fleiss_error_of_two_labels_is_the_closed_form():
    # with two labels the null standard error is sqrt(2 / (items raters (raters - 1)))
    result = fleiss_kappa([[2, 1], [1, 2], [0, 3], [3, 0]])
    assert result.null_standard_error == pytest.approx(math.sqrt(2 / (4 * 3 * 2)))


# Invariance -------------------------------------------------------------------------------------


def agrees_as_much(ratings, other_ratings):
    """Check that both have the same coefficients; what has none is refused before."""
    try:
        before = alpha(ratings), gwet_ac1(ratings)
    except InvalidInputError:
        return
    after = alpha(other_ratings), gwet_ac1(other_ratings)
    for one, other in zip(before, after, strict=True):
        assert (other.reason, other.items) == (one.reason, one.items)
        assert other.value == (None if one.value is None else pytest.approx(one.value))


@given(matrices, st.permutations(range(3)), st.randoms())
def test_the_order_of_items_and_raters_changes_nothing(ratings, columns, random):
    shuffled = [[row[column] for column in columns] for row in ratings]
    random.shuffle(shuffled)
    agrees_as_much(ratings, shuffled)


def test_interval_alpha_ignores_scale_and_ratio_alpha_the_unit_alone():
    shifted = [[x if x is None else 10 + 3 * x for x in row] for row in DATA_C]
    scaled = [[x if x is None else 3 * x for x in row] for row in DATA_C]
    for metric, same in (("interval", shifted), ("ordinal", shifted), ("ratio", scaled)):
        expected = alpha(DATA_C, metric).value
        assert alpha(same, metric).value == pytest.approx(expected)


def test_ordinal_alpha_takes_words_in_their_order():
    words = ["none", "low", "medium", "high", "top"]
    named = [[x if x is None else words[x - 1] for x in row] for row in DATA_C]
    result = alpha(named, "ordinal", categories=words)
    assert round(result.value, 6) == 0.815388


@given(count_tables, st.permutations(range(3)), st.randoms())
def test_the_order_of_items_and_categories_does_not_change_fleiss_kappa(counts, columns, random):
    shuffled = [[row[column] for column in columns] for row in counts]
    random.shuffle(shuffled)
    one, other = fleiss_kappa(counts), fleiss_kappa(shuffled)
    assert other.reason == one.reason
    if one.value is not None:
        assert other.value == pytest.approx(one.value, abs=1e-9)
        assert other.z == pytest.approx(one.z, abs=1e-9)
        assert other.interval.lower == pytest.approx(one.interval.lower, abs=1e-6)


@given(matrices, st.permutations("xyz"))
def test_the_names_of_labels_change_nothing(ratings, names):
    renamed = [[x if x is None else names[x] for x in row] for row in ratings]
    agrees_as_much(ratings, renamed)


def test_none_and_nan_are_both_a_missing_rating():
    numbers = np.array([[np.nan if x is None else x for x in row] for row in DATA_C])
    for metric in METRICS:
        one = krippendorff_alpha(numbers, metric=metric)
        assert one == alpha(DATA_C, metric)
    assert gwet_ac1(numbers) == gwet_ac1(DATA_C)


# Degenerate -------------------------------------------------------------------------------------


def assert_undefined(result, reason, items):
    assert (result.value, result.standard_error, result.interval) == (None, None, None)
    assert (result.z, result.p_value) == (None, None)
    assert result.items == items
    assert reason in result.reason


def test_one_label_for_everything_leaves_the_coefficients_undefined(rng):
    same = [["a", "a", "a"]] * 5
    assert_undefined(fleiss_kappa([[3, 0]] * 5), "one for everything", 5)
    assert_undefined(gwet_ac1(same), "at least 2 categories", 5)
    assert gwet_ac1(same, categories=["a", "b"]).value == 1.0
    assert_undefined(alpha(same, rng=rng), "ratings that differ", 5)
    for metric in METRICS:
        assert_undefined(alpha([[2, 2]] * 5, metric), "ratings that differ", 5)


def test_items_without_two_ratings_are_too_little():
    for function in (gwet_ac1, alpha):
        assert_undefined(function([[1], [2], [1]]), "at least 2 items with two ratings, got 0", 0)
        assert_undefined(function([[None, None], [None, None]]), "got 0", 0)
        assert_undefined(function([[1, 2], [1, None]]), "got 1", 1)
    assert_undefined(fleiss_kappa([[1, 0], [0, 1]]), "two ratings, got 2 with 1", 2)
    assert_undefined(fleiss_kappa([[2, 1]]), "got 1 with 3", 1)
    assert_undefined(fleiss_kappa(np.zeros((0, 3))), "got 0 with 0", 0)


def test_perfect_agreement_has_an_interval_with_a_width():
    lower = wilson(30, 30).lower
    for result in (
        fleiss_kappa([[2, 0], [0, 2]] * 15),
        gwet_ac1([["a"] * 2, ["b"] * 2] * 15),
    ):
        assert (result.value, result.standard_error) == (1.0, 0.0)
        assert result.interval.lower == pytest.approx((lower - 0.5) / 0.5)
        assert result.interval.upper == 1.0


def test_raters_of_a_matrix_with_foreign_labels_are_refused():
    with pytest.raises(InvalidInputError, match="one set of labels"):
        alpha([[0, 1], [1, 2], [0, 1]])
    with pytest.raises(InvalidInputError, match="one set of labels"):
        gwet_ac1([[0, 0, "0"], [1, 1, "1"], [1, 0, "0"]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fleiss_kappa([[2, 0], [2, 1]]), "same number of ratings, got 2 to 3"),
        (lambda: fleiss_kappa([[2, 0], [1.5, 0.5]]), "must be whole"),
        (lambda: fleiss_kappa([[3, -1], [2, 0]]), "must be whole and not negative"),
        (lambda: fleiss_kappa([2, 0]), r"shape \(items, categories\), got \(2,\)"),
        (lambda: fleiss_kappa([[2, 0], [1, 1]], level=95), "level"),
        (lambda: gwet_ac1([[1, 2], [2, 1]], level=0.0), "level"),
        (lambda: gwet_ac1([1, 2, 1]), r"shape \(items, raters\)"),
        (lambda: gwet_ac1([[1, 2], [2, 1]], categories=[1, 3]), r"got \[2\]"),
        (lambda: krippendorff_alpha([1, 2], metric="nominal"), r"shape \(items, raters\)"),
        (lambda: alpha(DATA_C, "cosine"), "metric"),
        (lambda: alpha([["a", "b"], ["b", "a"]], "interval"), "needs numbers"),
        (lambda: alpha([[1, -1], [-1, 1]], "ratio"), "not negative"),
        (lambda: alpha(DATA_C, level=2), "level"),
        (lambda: alpha(DATA_C, resamples=10), "resamples must be at least 100"),
    ],
)
def test_what_breaks_a_rule_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


# Bootstrap --------------------------------------------------------------------------------------


def test_alpha_has_an_interval_only_with_a_generator(rng):
    ratings = noisy(rng, 80, 0.1, 0.2)
    without, given_one = alpha(ratings), alpha(ratings, rng=rng, level=0.9)
    assert (without.interval, without.reason) == (None, None)
    assert given_one.value == without.value
    assert given_one.interval.level == 0.9
    assert given_one.value in given_one.interval


def test_the_same_seed_gives_the_same_interval_in_any_order_of_units(rng):
    ratings = noisy(rng, 80, 0.1, 0.2)
    one, other, reversed_units = (
        alpha(part, rng=np.random.default_rng(1)) for part in (ratings, ratings, ratings[::-1])
    )
    assert one == other
    for end in ("lower", "upper"):
        # the first unit decides which label comes first, which may cost the last digit
        assert getattr(reversed_units.interval, end) == pytest.approx(getattr(one.interval, end))


def test_the_bootstrap_interval_of_alpha_is_near_that_of_fleiss_kappa(rng):
    # alpha is Fleiss' kappa but for a correction of order 1 / items
    ratings = noisy(rng, 400, 0.1, 0.1, 0.2)
    interval, kappa = alpha(ratings, rng=rng).interval, fleiss_kappa(counts_of(ratings))
    assert interval.lower == pytest.approx(kappa.interval.lower, abs=0.015)
    assert interval.upper == pytest.approx(kappa.interval.upper, abs=0.015)


def test_resamples_that_cannot_vary_give_a_value_without_an_interval(rng):
    result = alpha([[0, 0], [1, 1]] * 10, rng=rng)
    assert (result.value, result.interval, result.reason) == (1.0, None, None)


def test_a_label_so_rare_that_resamples_miss_it_gives_a_value_without_an_interval(rng):
    result = alpha([[0, 0]] * 40 + [[0, 1], [1, 1]], rng=rng)
    assert 0.0 < result.value < 1.0
    assert (result.interval, result.reason) == (None, None)


# Rows are items -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [gwet_ac1, alpha])
@pytest.mark.parametrize("raters", [2, 4, 6])
def test_both_take_a_row_for_each_item_and_refuse_a_row_for_each_rater(function, raters):
    ratings = noisy(np.random.default_rng(0), 40, *[0.1] * raters)
    assert function(ratings).items == 40
    for turned in (ratings.T, ratings.T.tolist()):
        with pytest.raises(InvalidInputError, match=rf"got {raters} rows of 40, as if raters"):
            function(turned)


@pytest.mark.parametrize("function", [gwet_ac1, alpha])
def test_somewhat_more_raters_than_items_are_taken(function):
    # ten items rated by 14, as in Wikipedia's table of Fleiss' kappa
    assert function(ratings_of(WIKIPEDIA)).items == 10


def test_one_item_of_two_raters_is_too_few_and_no_wrong_shape():
    assert_undefined(gwet_ac1([["a", "b"]]), "at least 2 items", 1)
