import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.improve.curation.decontamination import (
    CONTAINED,
    NEAR,
    SAME,
    SHARED_RUN,
    DecontaminationConfig,
    Guard,
    jaccard,
)
from ratchet.improve.curation.shingles import compact
from tests.parameters import examples

GOLDEN = [
    "My card was charged twice.",
    "Why is it",
    "The exchange rate that you applied to my purchase in Lisbon on Saturday is not the one that "
    "your app showed me before I paid, can you refund the difference to my account?",
]


def guard(examples=GOLDEN, **settings):
    return Guard.build(examples, DecontaminationConfig(**settings))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MY CARD, WAS CHARGED TWICE", SAME),
        ("m y c a r d was chargedtwice ?!", SAME),
        ("why is it...", SAME),
        ("Hello! My card was charged twice. What now?", CONTAINED),
        (f"In short: {GOLDEN[2][:65].upper()} was bad", SHARED_RUN),
        ("My card was charged twica", NEAR),
        ("Why is it so late?", ""),
        ("My card was stolen twice in Lisbon", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_leak_is_told_by_how_it_leaks(text, reason):
    assert guard().leaks([text]).tolist() == [reason]


def test_the_order_of_examples_and_texts_changes_nothing():
    texts = ["why is it", "fine", "my card was charged twice today"]
    straight = guard().leaks(texts)
    assert guard(GOLDEN[::-1]).leaks(texts[::-1]).tolist() == straight[::-1].tolist()
    assert straight.tolist() == [SAME, "", CONTAINED]


def test_without_examples_nothing_leaks():
    assert guard([]).leaks(["anything"]).tolist() == [""]
    assert guard().leaks([]).tolist() == []


CASES = st.sampled_from([str.upper, str.lower, str.title, str.swapcase, lambda text: text])
MARKS = st.lists(st.sampled_from([" ", ".", "!", "-", "\n", "\t", "  ", "'"]), max_size=3)


@settings(deadline=None, max_examples=examples(100))
@given(
    st.sampled_from(GOLDEN), CASES, st.lists(MARKS.map("".join), min_size=3, max_size=7), st.data()
)
def test_a_golden_example_is_found_for_any_case_spacing_and_punctuation(text, case, marks, data):
    places = data.draw(st.lists(st.integers(0, len(text)), min_size=7, max_size=7))
    for place, mark in zip(sorted(places, reverse=True), marks, strict=False):
        text = text[:place] + mark + text[place:]
    assert guard().leaks([case(text)]).tolist() == [SAME]


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.text("abc ", max_size=40), max_size=12), st.lists(st.text("abc ", max_size=40)))
def test_leaks_are_those_that_a_search_of_all_pairs_finds(texts, examples):
    config = {"run": 12, "contained": 8, "similarity": 0.7}
    found = guard(examples, **config).leaks(texts)
    golden = compact(examples).to_pylist()
    for text, reason in zip(compact(texts).to_pylist(), found, strict=True):
        runs = {text[i : i + 12] for i in range(len(text) - 11)}
        leaks = text in golden
        leaks |= any(8 <= len(g) < 12 and g in text for g in golden)
        leaks |= any(g[i : i + 12] in runs for g in golden for i in range(len(g) - 11))
        near = any(jaccard(text, g) >= 0.7 for g in golden)
        assert (reason in (SAME, CONTAINED, SHARED_RUN)) == leaks
        assert (reason != "") == (leaks or near)


def test_the_exact_similarity_settles_what_is_near():
    rng = np.random.default_rng(4)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    golden = ["".join(rng.choice(letters, 45)) for _ in range(200)]
    texts = []
    for text in golden:
        place = int(rng.integers(5, 36))
        texts.append(text[:place] + text[place + int(rng.integers(1, 9)) :])
    found = guard(golden).leaks(texts)
    truth = [jaccard(a, b) >= 0.7 for a, b in zip(texts, golden, strict=True)]
    # a pair at 0.7 is missed in 0.02 % of cases: none of 200
    assert [reason == NEAR for reason in found] == truth
    assert 0 < sum(truth) < 200


def test_a_run_that_is_shorter_than_what_may_be_contained_is_refused():
    with pytest.raises(ValidationError, match="run must be at least contained, got 10 and 20"):
        DecontaminationConfig(run=10)


def test_the_similarity_is_that_of_sets_of_five_characters():
    # 12 and 16 shingles, 12 of them shared
    assert jaccard("abcdefghijklmnop", "abcdefghijklmnopqrst") == 12 / 16
    assert jaccard("ab", "ab") == 1.0
