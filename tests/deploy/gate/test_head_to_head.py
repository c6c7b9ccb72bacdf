"""Both models on the same examples: sampled answers, and code that is run."""

import dataclasses

import numpy as np
import pytest

from ratchet.deploy.gate.head_to_head import (
    GateExamples,
    answer_recorded,
    answer_sets,
    check_examples,
    pair_scores,
    run_tests,
    score_answers,
    write_scores,
)
from ratchet.deploy.gate.policy import GatePolicy, Guardrail, Primary
from ratchet.deploy.gate.scores import read_scores
from ratchet.errors import InvalidInputError
from ratchet.evaluation.paired import Draw
from ratchet.models import Completion
from ratchet.records import Example, Message
from ratchet.store import EventStore


def example(number, **changes):
    values = {
        "id": f"e{number}",
        "messages": (Message(role="user", content=f"question {number}"),),
        "target": f"answer {number}",
    }
    return Example(**(values | changes))


LABELS = tuple(example(number) for number in range(4))
CODE = tuple(
    example(
        number, id=f"c{number}", target="", tests=f"assert f() == {number}",
        messages=(Message(role="user", content=f"write f, which gives {number}"),),
    )
    for number in range(3)
)  # fmt: skip


class Sampler:
    """Says what it is asked, how, and the how-manieth of its calls this is."""

    def __init__(self, say):
        self.say, self.calls = say, []

    @property
    def digest(self):
        return "sampler"

    def generate(self, conversations, *, max_new_tokens, temperature=0.0, seed=None):
        self.calls.append((temperature, seed, max_new_tokens))
        asked = [turns[-1].content for turns in conversations]
        return [Completion(self.say(text, len(self.calls)), 0.5) for text in asked]


@pytest.fixture
def store():
    with_answers = EventStore.open("sqlite://")
    yield with_answers
    with_answers.close()


def answered(model, store, examples=LABELS, draws=(None,), **changes):
    words = {"name": "m", "model_digest": "d", "decoding": "greedy-9", "max_new_tokens": 9}
    return answer_recorded(examples, lambda: model, store, draws=draws, **(words | changes))


def test_greedy_answers_are_asked_for_and_recorded_as_ever(store):
    model = Sampler(lambda text, _: text)
    first = answered(model, store)
    assert model.calls == [(0.0, None, 9)]
    assert first.every == (first,)
    assert set(store.answers("d", "greedy-9", list(first.texts)).values()) == set(
        first.texts.values()
    )


def test_sampled_answers_have_names_and_seeds_of_their_own(store):
    model = Sampler(lambda text, call: f"{text}, {call}")
    draws = tuple(Draw(0.7, 5, number) for number in range(3))
    made = answered(model, store, draws=draws)
    assert [temperature for temperature, _, _ in model.calls] == [0.7] * 3
    assert len({seed for _, seed, _ in model.calls}) == 3
    assert [one.to(LABELS)[1] for one in made.every] == [f"question 1, {n}" for n in (1, 2, 3)]
    assert store.answers("d", "greedy-9", list(made.texts)) == {}
    assert len(store.answers("d", "sampled-t0.7-seed5-2-9", list(made.texts))) == 4
    again = answered(Sampler(lambda *_: "never asked"), store, draws=draws)
    assert [one.texts for one in again.every] == [one.texts for one in made.every]


def test_the_score_of_several_answers_is_their_mean_and_none_where_one_is_missing(store):
    def say(text, call):
        return text.replace("question", "answer") if call < 3 or "1" in text else "wrong"

    draws = tuple(Draw(0.7, 0, number) for number in range(4))
    model = Sampler(say)
    made = answered(model, store, draws=draws)
    third = dataclasses.replace(made.more[1], texts=dict(list(made.more[1].texts.items())[1:]))
    lacking = dataclasses.replace(made, more=(made.more[0], third, made.more[2]))
    scores = pair_scores(("exact_match",), LABELS, (made, lacking), None)["exact_match"]
    np.testing.assert_array_equal(scores[0], [0.5, 1.0, 0.5, 0.5])
    np.testing.assert_array_equal(scores[1], [np.nan, 1.0, 0.5, 0.5])


def policy(*rules, **changes):
    return GatePolicy(**({"primary": Primary(metric="pass@1"), "guardrails": rules} | changes))


@pytest.mark.usefixtures("isolation")
def test_code_keeps_its_lines_labels_end_with_the_first_and_each_has_its_metric(store):
    asked = []

    def load(one_line):
        def say(text, _):
            asked.append((text, one_line))
            number = int(text.split()[-1])
            return (
                f"x = {number}\ndef f():\n    return x" if "write" in text else f"answer {number}"
            )

        return Sampler(say)

    rule = Guardrail(metric="exact_match", examples="labels", margin=0.1)
    examples = GateExamples(golden=CODE, others={"labels": LABELS}, max_new_tokens=64)
    check_examples(policy(rule), examples)
    made = answer_sets(examples, policy(rule), load, store, name="m", model_digest="d")
    assert {one_line for text, one_line in asked if "write" in text} == {False}
    assert {one_line for text, one_line in asked if "write" not in text} == {True}
    scores = score_answers(examples, policy(rule), (made, made))
    np.testing.assert_array_equal(scores.metrics["pass@1"].champion, [1.0] * 3)
    np.testing.assert_array_equal(scores.sets["labels"]["exact_match"].champion, [1.0] * 4)
    assert np.isnan(scores.metrics["exact_match"].champion).all()  # code has no target
    assert np.isnan(scores.sets["labels"]["pass@1"].champion).all()  # labels have no tests
    assert scores.constant_answer_rate is None
    assert scores.identical_outputs


def test_samples_that_differ_are_not_the_same_artefact(store):
    draws = tuple(Draw(0.7, 0, number) for number in range(2))
    one = answered(Sampler(lambda text, _: text), store, draws=draws)
    other = answered(
        Sampler(lambda text, call: text if call == 1 else "x"), store, draws=draws, model_digest="e"
    )
    assert one.texts == other.texts
    examples = GateExamples(LABELS)
    asked = policy(primary=Primary(metric="exact_match"))
    assert score_answers(examples, asked, (one, one)).identical_outputs
    assert not score_answers(examples, asked, (one, other)).identical_outputs


@pytest.mark.usefixtures("isolation")
def test_answers_to_one_question_under_two_tests_are_run_against_each(store):
    other = CODE[0].model_copy(update={"id": "other", "tests": "assert f() == 1"})
    made = answered(Sampler(lambda *_: "def f(): return 0"), store, (CODE[0], other))
    ran = run_tests((CODE[0], other), made).runs((CODE[0], other))
    assert [[one.outcome for one in each] for each in ran] == [["passed"], ["failed"]]


@pytest.mark.parametrize(
    ("asked", "examples", "said"),
    [
        (policy(), GateExamples(LABELS), "pass@1 needs tests in every example, got 4 of 4"),
        (
            policy(secondary=("bleu",)),
            GateExamples(CODE),
            "metric bleu needs targets; 3 of 3 examples have none",
        ),
        (
            policy(Guardrail(metric="pass@1", examples="labels", margin=0.1)),
            GateExamples(CODE, others={"labels": LABELS}),
            "in every example of labels",
        ),
        (
            policy(Guardrail(metric="exact_match", per_cluster=True, margin=0.1)),
            GateExamples(CODE),
            "leave the metric out",
        ),
    ],
)
def test_what_an_example_lacks_is_told_before_anything_is_answered(asked, examples, said):
    with pytest.raises(InvalidInputError, match=said):
        check_examples(asked, examples)


# Open questions -----------------------------------------------------------------------------------

OPEN = tuple(example(number, id=f"o{number}", target=None) for number in range(10, 16))


def test_a_primary_metric_that_needs_targets_is_refused_where_some_are_missing():
    with pytest.raises(
        InvalidInputError,
        match="metric exact_match needs targets; 6 of 10 examples have none, o10 first; add them "
        "or gate on win_rate",
    ):
        check_examples(policy(primary=Primary(metric="exact_match")), GateExamples(LABELS + OPEN))


def test_other_metrics_are_measured_on_the_examples_that_have_targets(store, tmp_path):
    mixed = (OPEN[0], *LABELS, *OPEN[1:])
    asked = policy(
        Guardrail(metric="exact_match", margin=0.1),
        primary=Primary(metric="length"),
        max_unscored_share=0.0,
    )
    check_examples(asked, GateExamples(mixed))
    right = answered(Sampler(lambda text, _: text.replace("question", "answer")), store, mixed)
    wrong = answered(Sampler(lambda *_: "no"), store, mixed, model_digest="other")
    scores = score_answers(GateExamples(mixed), asked, (wrong, right))
    assert scores.metrics["exact_match"].champion.tolist() == [0.0] * 4
    assert scores.metrics["exact_match"].challenger.tolist() == [1.0] * 4
    assert scores.metrics["length"].champion.size == 10
    assert scores.constant_answer_rate is None
    write_scores(tmp_path / "scores.csv", mixed, (wrong, right), scores)
    written = read_scores(tmp_path / "scores.csv").metrics
    assert (written["exact_match"].champion.size, written["length"].champion.size) == (4, 10)


def test_an_example_with_a_target_whose_answer_is_missing_still_lacks_a_score(store):
    asked = policy(Guardrail(metric="exact_match", margin=0.1), primary=Primary(metric="length"))
    made = answered(Sampler(lambda text, _: text), store, LABELS + OPEN)
    lost = dataclasses.replace(
        made,
        texts={key: text for key, text in made.texts.items() if text != "question 1"},
    )
    scores = score_answers(GateExamples(LABELS + OPEN), asked, (made, lost))
    assert np.isnan(scores.metrics["exact_match"].challenger).tolist() == [
        False,
        True,
        False,
        False,
    ]
