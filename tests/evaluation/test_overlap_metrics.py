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
from tests.parameters import examples

texts = st.lists(st.text("ab c.", min_size=0, max_size=24).map(str.strip), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def wmt(shared_data):
    """Outputs of 16 systems by name and the reference, 3,004 segments each."""
    file = shared_data / "wmt17_ende" / "systems.json.gz"
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        found = json.load(opened)
    systems = {name: lines for name, lines in found if name != "reference"}
    assert len(systems) == 16
    return systems, dict(found)["reference"][0]


def named(wmt, part):
    """The system whose name holds the part."""
    (lines,) = [lines for name, lines in wmt[0].items() if f".{part}." in name]
    return lines


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
        for target, prediction, figures_of_kind in figures[kind]:
            measures = ("precision", "recall", "fmeasure")
            for measure, printed in zip(measures, figures_of_kind, strict=True):
                value = rouge([prediction], [target], kind=kind, measure=measure).values[0]
                assert round(value, len(str(printed).partition(".")[2])) == printed


@given(texts, texts)
@settings(max_examples=examples(60))
def test_sums_give_what_sacrebleu_gives(answers, references):
    size = min(len(answers), len(references))
    answers, references = answers[:size], references[:size]
    assert bleu(answers, references).whole == pytest.approx(
        BLEU().corpus_score(answers, [references]).score, abs=1e-9
    )
    sentences = [
        BLEU(effective_order=True).sentence_score(a, [r]).score
        for a, r in zip(answers, references, strict=True)
    ]
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


def compared(first, second, reference):
    """Our paired bootstrap and sacrebleu's, 1,000 resamples each, on the tokens as they are.

    The published figures are of Moses and MultEval, which do not tokenize.
    """
    scores = [bleu(lines, reference, tokenize="none") for lines in (first, second)]
    ours = bootstrap_scored(*scores, rng=np.random.default_rng(0), resamples=1_000)
    _, theirs = PairedTest(
        [("one", first), ("two", second)], {"BLEU": BLEU(tokenize="none")}, [reference], "bs", 1_000
    )()
    return ours, theirs["BLEU"]


def agree(one, other, draws):
    """Whether two simulated probabilities differ by chance alone (4 standard errors)."""
    middle = (one + other) / 2
    return abs(one - other) <= 4 * math.sqrt(2 * middle * (1 - middle) / draws) + 1 / draws


def test_paired_bootstrap_of_two_real_systems_agrees_with_sacrebleus(wmt):
    systems = (named(wmt, part)[:700] for part in ("LIUM-NMT.4900", "SYSTRAN.4847"))
    ours, (first, second) = compared(*systems, wmt[1][:700])
    assert ours.first == pytest.approx(first.score, abs=1e-9)
    assert ours.second == pytest.approx(second.score, abs=1e-9)
    assert agree(ours.p_value_moses, second.p_value, 1_000)


@pytest.mark.slow
def test_paired_tests_of_all_systems_agree_with_sacrebleus_and_the_published_ones(
    wmt, published_numbers
):
    figures = published_numbers["sacrebleu"]
    baseline, seen = named(wmt, figures["baseline"]), 0
    for name, printed in figures["moses_paired_bootstrap_p"].items():
        (lines,) = [found for full, found in wmt[0].items() if f".{name}" in full]
        ours, (_, theirs) = compared(baseline, lines, wmt[1])
        assert ours.second == pytest.approx(theirs.score, abs=1e-9), name
        assert agree(ours.p_value_moses, theirs.p_value, 1_000), name
        # the printed figures are of other draws: their own tolerance beside the error of ours
        error = 3 * math.sqrt(max(printed, 1e-3) / 1_000)
        assert abs(ours.p_value_moses - printed) <= figures["tolerance"] + error, name
        seen += 1
    assert seen == 15


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bleu(["a"], ["a"], tokenize="no"), "tokenize"),
        (lambda: bleu(["a"], [[]]), "reference"),
        (lambda: chrf(["a"], []), "equally long"),
        (lambda: rouge(["a"], ["a"], kind="rouge9"), "kind"),
        (lambda: rouge(["a"], ["a"], measure="f2"), "measure"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, words):
    with pytest.raises(InvalidInputError, match=words):
        call()
