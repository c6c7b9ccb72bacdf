import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.evaluation.directions import HIGHER, LOWER, UNSURE, direction_of, may_be_turned
from ratchet.evaluation.metrics import METRICS


def test_no_name_has_both_directions_and_every_unsure_one_has_one():
    assert not HIGHER & LOWER
    assert UNSURE <= HIGHER | LOWER


def test_every_metric_of_the_catalogue_has_a_direction_by_its_name():
    # as their scorers and the gate's policies had them before there was a catalogue
    lower = {"length", "refusal_rate", "empty_rate", "latency_seconds", "perplexity"}
    lower |= {"tool_calls", "needless_call_rate", "unparsable_call_rate"}
    lower |= {"tokens_in", "tokens_out", "cost"}
    assert {m.name for m in METRICS if direction_of(m.name) is False} == lower
    assert all(direction_of(m.name) for m in METRICS if m.name not in lower)


@given(
    st.sampled_from(["exact match", "val loss", "word error rate", "latency p99", "f1 score"]),
    st.sampled_from([" ", "-", "_", "--", " - ", "."]),
    st.sampled_from([str.lower, str.upper, str.title]),
)
def test_case_spaces_and_hyphens_do_not_matter(name, between, case):
    assert direction_of(case(name).replace(" ", between)) == direction_of(name) is not None


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("mean wer", False), ("p95_latency", False), ("latency (ms)", False), ("eval/loss", False),
        ("toxicity score", False), ("refusal-count", False), ("PPL", False), ("pass@100", True),
        ("recall@5", True), ("pass-at-1", True), ("test score", True), ("rougeLsum", True),
        ("ROUGE-1 F1", True), ("macro F1", True), ("win_rate", True), ("ＷＥＲ", False),
        # what turns the meaning, or stands for something else, is not known
        ("-wer", None), ("−loss", None), ("1 - toxicity", None), ("neg_loss", None), ("", None),
        ("loss gain", None), ("error-free", None), ("score_wer", None), ("rate", None),
        ("p99", None), ("no refusals", None),
    ],
)  # fmt: skip
def test_names_are_read_by_the_stated_rule(name, direction):
    assert direction_of(name) is direction


def test_only_names_that_leave_it_open_may_be_turned():
    assert [may_be_turned(n) for n in ("length", "score", "latency_gain", "m7")] == [True] * 4
    assert not any(may_be_turned(n) for n in ("accuracy", "WER", "exact_match", "eval loss"))
