import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.improve.curation.decontamination import jaccard
from ratchet.improve.curation.duplicates import (
    DuplicateConfig,
    Signed,
    drop_near_duplicates,
    estimate,
    sign,
    similar_pairs,
)
from ratchet.improve.curation.shingles import compact
from tests.parameters import examples

WORDS = ("card", "transfer", "pending", "london", "refund", "charged", "twice", "yesterday")


def column(texts):
    return pa.array(texts, pa.large_string())


def kept_of(texts, config):
    """Sign texts in two parts, the later one first: places say what comes first."""
    half = len(texts) // 2
    with Signed(len(texts), config) as signed:
        for part in (np.arange(half, len(texts)), np.arange(half)):
            signed.put(part, texts.take(pa.array(part)))
        return drop_near_duplicates(signed)


def pairs_among(texts, config):
    with Signed(len(texts), config) as signed:
        signed.put(np.arange(len(texts)), texts)
        return similar_pairs(signed, np.arange(len(texts)))


def test_texts_of_different_kinds_are_no_duplicates_of_each_other():
    with Signed(4, DuplicateConfig()) as signed:
        signed.put(np.arange(4), compact(["one and the same text"] * 4))
        signed.tell_apart(np.arange(2), np.zeros(2, dtype=np.uint64))
        signed.tell_apart(np.array([1, 3]), np.array([7, 7], dtype=np.uint64))
        assert drop_near_duplicates(signed).tolist() == [True, True, False, False]


def random_text(rng, length=120):
    return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), length))


def pair_of_similarity(rng, wanted, length=400):
    """Two texts with about the wanted Jaccard similarity: a common start, ends of their own."""
    shared = round(length * 2 * wanted / (1 + wanted))
    start = random_text(rng, shared)
    return start + random_text(rng, length - shared), start + random_text(rng, length - shared)


def test_signatures_estimate_the_jaccard_similarity_without_bias():
    # the standard error of one estimate is sqrt(J (1 - J) / 126), of the mean of 300 a 17th of it
    rng = np.random.default_rng(1)
    for wanted in (0.5, 0.8):
        pairs = [pair_of_similarity(rng, wanted) for _ in range(300)]
        one, other = zip(*pairs, strict=True)
        rows = np.arange(300)
        found = estimate(sign(column(one), 126), rows, sign(column(other), 126), rows)
        truth = np.array([jaccard(a, b) for a, b in pairs])
        error = np.sqrt(wanted * (1 - wanted) / 126)
        assert abs((found - truth).mean()) < 4 * error / np.sqrt(300)
        assert (found - truth).std() == pytest.approx(error, rel=0.25)


def test_pairs_are_compared_as_often_as_the_formula_says():
    # similarity 1 needs no estimate: every compared pair is one. (1 - (1 - 0.5^6)^21) = 0.282
    rng = np.random.default_rng(2)
    texts = [text for _ in range(400) for text in pair_of_similarity(rng, 0.5)]
    config = DuplicateConfig(similarity=0.01)
    first, second = pairs_among(column(texts), config)
    compared = np.sum((second == first + 1) & (first % 2 == 0)) / 400
    error = np.sqrt(0.282 * 0.718 / 400)
    assert compared == pytest.approx(0.282, abs=4 * error)


def test_a_near_duplicate_goes_and_the_first_stays():
    texts = compact(
        [
            "I was charged twice for my hotel booking in London last week, please help me",
            "Where is my new card?",
            "i was charged TWICE for my hotel booking in London last week -- please, help me!!",
            "I was charged twice for my hotel booking in London last week, please help me out",
            "My top-up failed",
        ]
    )
    assert kept_of(texts, DuplicateConfig()).tolist() == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert kept_of(texts, DuplicateConfig(similarity=1.0)).all()


def test_a_chain_of_small_steps_does_not_join_what_is_far_apart():
    rng = np.random.default_rng(3)
    parts = [random_text(rng, 40) for _ in range(14)]
    chain = ["".join(parts[i : i + 10]) for i in range(5)]  # neighbours share 9 of 10 parts
    kept = kept_of(column(chain), DuplicateConfig(similarity=0.7))
    assert kept.tolist() == [True, False, True, False, True]


sentences = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=3, max_size=9).map(" ".join), max_size=25
)


@settings(deadline=None, max_examples=examples(50))
@given(sentences)
def test_what_is_kept_holds_no_pair_and_what_goes_has_a_kept_one_before_it(texts):
    bare = compact(texts)
    config = DuplicateConfig(similarity=0.6)
    keep = kept_of(bare, config)
    signed = sign(bare, config.bands * config.rows)
    size = len(texts)
    left, right = (grid.ravel() for grid in np.meshgrid(np.arange(size), np.arange(size)))
    alike = estimate(signed, left, signed, right).reshape(size, size) >= config.similarity
    first, _ = pairs_among(bare.filter(pa.array(keep)), config)
    assert len(first) == 0
    for row in np.flatnonzero(~keep):
        assert (alike[row, :row] & keep[:row]).any()


def test_no_text_and_one_text_have_no_duplicates():
    assert kept_of(column([]), DuplicateConfig()).tolist() == []
    assert kept_of(column(["a"]), DuplicateConfig()).tolist() == [True]
