"""Counts of n-grams of many answers at once, against sacrebleu's one by one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from ratchet.evaluation.ngrams import matched_ngrams
from tests.parameters import examples

# few words, so that n-grams repeat within answers and between segments
texts = st.lists(st.sampled_from(["a", "b", "c", "ä", "-1"]), max_size=9).map(" ".join)
segments = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), max_size=6)


def words(text):
    return text.split()


def by_sacrebleu(answer, references):
    metric = BLEU(tokenize="none")
    return metric._compute_segment_statistics(answer, metric._extract_reference_info(references))


@given(segments)
@settings(max_examples=examples(200))
def test_counts_are_sacrebleus_whatever_repeats(pairs):
    answers, references = [pair[0] for pair in pairs], [tuple(pair[1]) for pair in pairs]
    found = matched_ngrams(answers, references, words)
    assert found.shape == (len(pairs), 10)
    assert found.tolist() == [by_sacrebleu(*pair) for pair in pairs]


def test_an_n_gram_does_not_count_for_another_segment():
    found = matched_ngrams(["a b", "c d"], [("c d",), ("a b",)], words)
    assert (found[:, 2:6] == 0.0).all()


def test_other_orders_and_no_answers():
    found = matched_ngrams(["a b c"], [("a b d",)], words, orders=2)
    assert found.tolist() == [[3, 3, 2, 1, 3, 2]]
    assert matched_ngrams([], [], words).shape == (0, 10)


def test_many_long_segments_give_sacrebleus_counts():
    rng = np.random.default_rng(0)
    lines = [[" ".join(map(str, rng.integers(0, 40, 60))) for _ in range(400)] for _ in range(2)]
    found = matched_ngrams(lines[0], [(line,) for line in lines[1]], words)
    theirs = [by_sacrebleu(one, [two]) for one, two in zip(*lines, strict=True)]
    assert (found == np.array(theirs)).all()
