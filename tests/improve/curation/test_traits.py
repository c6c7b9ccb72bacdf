import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ratchet.evaluation.matching import normalise_answer
from ratchet.improve.curation.shingles import compact
from ratchet.improve.curation.traits import (
    BLANK,
    FINE,
    UNSOUND,
    correction_traits,
    distinct,
    hashes,
    interaction_traits,
)

TEXTS = st.text(st.sampled_from("aB1?! .\n\u00df\ufb01\u0301\u00e9\U0001f642\u4e2d"), max_size=8)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=20))
def test_numbers_of_a_pair_are_those_of_its_texts_together(pairs):
    # `both` is made of parts, and is what `compact` gives for the whole
    prompts, answers = [a for a, _ in pairs], [b for _, b in pairs]
    found = interaction_traits(prompts, answers, [""] * len(pairs))
    whole = compact([f"{a}\n{b}" for a, b in pairs]).to_pylist()
    assert found["both"].tolist() == hashes(whole).tolist()
    assert found["prompt"].tolist() == hashes(compact(prompts).to_pylist()).tolist()
    assert found["answer"].tolist() == hashes(map(normalise_answer, answers)).tolist()
    assert found["answer_length"].tolist() == [len(text) for text in answers]


def test_texts_that_cannot_be_used_are_told_apart():
    found = correction_traits(["fine", " \u00a0\n", "", "a\x00b", "\ud800 alone", "\u4e2d"])
    assert found["correction_state"].tolist() == [FINE, BLANK, BLANK, UNSOUND, UNSOUND, FINE]
    assert len(set(found["correction"].tolist())) == 5  # blank texts are the same answer


def test_a_session_with_a_prompt_is_no_other_one():
    found = interaction_traits(["a", "a", "b"], ["x"] * 3, ["s", "t", "s"])
    assert len(set(found["turn"].tolist())) == 3
    assert found["prompt"].tolist()[0] == found["prompt"].tolist()[1]


@given(st.lists(st.integers(-9, 9), max_size=30))
def test_distinct_values_are_numpys(values):
    given_values = np.array(values, dtype=np.int64)
    assert distinct(given_values).tolist() == sorted(set(values))
