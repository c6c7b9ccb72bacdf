import numpy as np
import pytest

from ratchet.errors import InvalidInputError
from ratchet.evaluation.answer_scores import (
    check_metrics,
    known_metrics,
    score_answers,
    score_pairs,
)
from ratchet.records import Example, Message
from ratchet.records.asking import Usage

LOWER = {
    "length", "refusal_rate", "empty_rate", "latency_seconds",
    "tool_calls", "needless_call_rate", "unparsable_call_rate", "tokens_in", "tokens_out", "cost",
}  # fmt: skip
ASKED = Example(
    id="a",
    messages=(Message(role="user", content="as JSON"),),
    tools=(),
    response_format={"type": "json_object"},
)


@pytest.mark.parametrize("metric", known_metrics())
def test_every_metric_scores_each_example_and_none_where_there_is_no_answer(metric):
    answers, targets = ['{"a": 1}', None, "I cannot help with that."], ['{"a": 1}'] * 3
    used = [Usage(prompt_tokens=9, completion_tokens=count, cost=0.5) for count in (1, 2, 3)]
    scored = score_answers(
        metric, answers, targets, seconds=[0.1, None, 0.3], usage=used, asked=[ASKED] * 3
    )
    assert scored.name == metric
    assert scored.higher_is_better == (metric not in LOWER)
    assert scored.values.shape == (3,)
    assert np.isnan(scored.values).tolist() == [False, True, False]


def test_a_right_answer_has_the_best_score_of_each_metric():
    best = {"bleu": 100.0, "chrf": 100.0}
    for metric in set(known_metrics()) - LOWER:
        text = '{"the answer": "is right here"}'
        scored = score_answers(metric, [text], [text], asked=[ASKED])
        assert scored.values[0] == pytest.approx(best.get(metric, 1.0))


def test_latency_that_nobody_measured_is_no_score():
    assert np.isnan(score_answers("latency_seconds", ["a"], ["a"]).values).all()


def test_pairs_are_scored_on_the_same_examples():
    pairs = score_pairs(("exact_match", "length"), ["a", None], ["b c", "x"], ["a", "x"])
    np.testing.assert_array_equal(pairs["exact_match"], ([1.0, np.nan], [0.0, 1.0]))
    np.testing.assert_array_equal(pairs["length"], ([1.0, np.nan], [2.0, 1.0]))


def test_an_unknown_metric_is_refused_with_those_that_there_are():
    check_metrics(known_metrics())
    with pytest.raises(InvalidInputError, match=r"one of exact_match.*got 'magic'"):
        check_metrics(("exact_match", "magic"))
