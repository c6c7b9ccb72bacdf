import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from ratchet.errors import InvalidInputError
from ratchet.evaluation.overlap_metrics import bleu, chrf, rouge
from ratchet.evaluation.scored import bootstrap_scored
from ratchet.stats.corpus_tests import paired_randomization

texts = st.lists(
    st.text("ab c.", min_size=0, max_size=24).map(str.strip), min_size=1, max_size=6
)


@pytest.fixture(scope="module")
def systems(shared_data):
    """Outputs of 16 systems with the reference, 3,004 segments each."""
    with gzip.open(shared_data / "wmt17_ende" / "systems.json.gz", "rt", encoding="utf-8") as file:
        return {name.removeprefix("newstest2017."): lines for name, lines in json.load(file)}


def test_bleu_gives_the_published_figures(published_numbers):
    figures = published_numbers["sacrebleu"]
    references = list(zip(*figures["refs"], strict=True))
    for tokenize, printed in (
        ("13a", figures["corpus_bleu_default"]),
        ("none", figures["tok_none"]),
        ("intl", figures["tok_intl"]),
    ):
        whole = bleu(figures["hyps"], references, tokenize=tokenize).whole
        digits = len(str(printed).partition(".")[2])
        assert round(whole, digits) == printed


def test_rouge_gives_the_published_figures(published_numbers):
    figures = published_numbers["rouge"]
    kinds = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    assert all(len(figures[kind]) == 1 for kind in kinds)
    for kind in kinds:
        for target, prediction, (_, _, printed) in figures[kind]:
            value = rouge([prediction], [target], kind=kind).values[0]
            assert round(value, len(str(printed).partition(".")[2])) == printed


@given(texts, texts)
@settings(max_examples=60)
def test_sums_give_what_sacrebleu_gives(answers, references):
    size = min(len(answers), len(references))
    answers, references = answers[:size], references[:size]
    assert bleu(answers, references).whole == pytest.approx(
        BLEU().corpus_score(answers, [references]).score, abs=1e-9
    )
    sentences = [BLEU(effective_order=True).sentence_score(a, [r]).score
                 for a, r in zip(answers, references, strict=True)]
    assert bleu(answers, references).values == pytest.approx(sentences, abs=1e-9)
    for word_order in (0, 2):
        metric = CHRF(word_order=word_order)
        assert chrf(answers, references, word_order=word_order).whole == pytest.approx(
            metric.corpus_score(answers, [references]).score, abs=1e-9
        )


def test_of_several_references_the_best_counts():
    assert rouge(["a cat"], [["a dog", "a cat"]], kind="rouge1").values[0] == 1.0
    assert bleu(["the cat sat on the mat"], [["x", "the cat sat on the mat"]]).whole > 99.9


def test_an_example_without_an_answer_has_no_score():
    scored = bleu(["a b c d", None], ["a b c d", "x"])
    assert scored.whole == pytest.approx(100.0)
    assert math.isnan(scored.values[1])
    assert math.isnan(rouge([None], ["x"]).values[0])


def test_the_whole_of_a_real_system_is_sacrebleus(systems):
    references = systems["ref"] if "ref" in systems else None
    if references is None:
        names = [name for name in systems if "ref" in name]
        references = systems[names[0]]
    answers = next(lines for name, lines in systems.items() if "LIUM" in name)
    ours = bleu(answers[:300], references[:300])
    theirs = BLEU().corpus_score(answers[:300], [references[:300]])
    assert ours.whole == pytest.approx(theirs.score, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bleu(["a"], ["a"], tokenize="no"), "tokenize"),
        (lambda: bleu(["a"], [[]]), "reference"),
        (lambda: chrf(["a"], []), "equally long"),
        (lambda: rouge(["a"], ["a"], kind="rouge9"), "kind"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, words):
    with pytest.raises(InvalidInputError, match=words):
        call()
