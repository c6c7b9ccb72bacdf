import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import ModelError
from ratchet.evaluation.paired import answer_examples, compare, decoding_name, questions
from ratchet.models import OpenAICompatibleModel, ScriptedModel
from ratchet.records import Example, Message
from tests.servers.judge_endpoint import Answer, JudgeEndpoint


def example(number, target="billing"):
    message = Message(role="user", content=f"message {number}")
    return Example(id=f"e{number:03d}", messages=(message,), target=target)


class Recorder:
    """A script that notes what it was asked; it fails on one message where that is told."""

    def __init__(self, *, fails_on=None):
        self.asked, self.fails_on = [], fails_on

    def __call__(self, conversation):
        text = conversation[-1].content
        if text == self.fails_on:
            raise ConnectionError("the machine went away")
        self.asked.append(text)
        return f"answer to {text}"


@contextmanager
def server(broken):
    """An OpenAI-compatible server that has an internal error on some messages."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            reply = json.dumps({"choices": [{"message": {"content": "billing"}}]}).encode()
            self.send_response(500 if text in broken else 200)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def texts_into(saved):
    """Return what keeps the texts of completions."""
    return lambda fresh: saved.update({key: made.text for key, made in fresh.items()})


def answered(script, examples, recorded, saved):
    return answer_examples(
        ScriptedModel(script), examples, recorded, texts_into(saved), max_new_tokens=12
    )


def test_recorded_answers_are_not_asked_again():
    script, saved = Recorder(), {}
    answers = answered(script, [example(n) for n in range(4)], {"e000": "a", "e002": "b"}, saved)
    assert script.asked == ["message 1", "message 3"]
    assert saved == {"e001": "answer to message 1", "e003": "answer to message 3"}
    assert answers == saved | {"e000": "a", "e002": "b"}


def test_with_every_answer_recorded_the_model_is_not_asked_at_all():
    script, saved = Recorder(), {}
    recorded = {"e000": "a", "e001": ""}
    assert answered(script, [example(0), example(1)], recorded, saved) == recorded
    assert (script.asked, saved) == ([], {})


def test_an_interrupted_evaluation_keeps_what_was_saved_and_goes_on_from_there():
    examples = [example(n) for n in range(150)]
    first, saved = Recorder(fails_on="message 100"), {}
    with pytest.raises(ConnectionError):
        answered(first, examples, {}, saved)
    kept = dict(saved)
    assert 0 < len(kept) <= 100
    assert kept == {f"e{n:03d}": f"answer to message {n}" for n in range(len(kept))}
    second = Recorder()
    answers = answered(second, examples, kept, saved)
    assert second.asked == [f"message {n}" for n in range(len(kept), 150)]
    assert answers == saved == {f"e{n:03d}": f"answer to message {n}" for n in range(150)}


def test_an_answer_that_failed_is_missing_and_scored_as_none():
    examples = [example(n) for n in range(3)]
    saved = {}
    with server(broken={"message 1"}) as url:
        model = OpenAICompatibleModel(url, "any", attempts=1)
        answers = answer_examples(model, examples, {}, texts_into(saved), max_new_tokens=12)
    assert answers == saved == {"e000": "billing", "e002": "billing"}
    compared = compare(examples, answers, dict.fromkeys(("e000", "e001", "e002"), "refunds"))
    assert compared.champion == {"e000": True, "e001": None, "e002": True}
    assert compared.challenger == {"e000": False, "e001": False, "e002": False}
    assert not compared.identical_outputs


def test_outputs_are_identical_only_when_all_are_equal_and_present():
    examples = [example(0), example(1)]
    one, other = {"e000": "a", "e001": "b"}, {"e000": "a", "e001": "B"}
    assert compare(examples, one, dict(one)).identical_outputs
    assert not compare(examples, one, other).identical_outputs
    assert not compare(examples, {"e000": "a"}, {"e000": "a"}).identical_outputs
    assert not compare(examples, {"e000": "a"}, one).identical_outputs


def test_an_empty_answer_is_an_answer_and_is_wrong():
    compared = compare([example(0)], {"e000": ""}, {"e000": " Billing. "})
    assert (compared.champion["e000"], compared.challenger["e000"]) == (False, True)


answer_texts = st.sampled_from(["billing", "refunds", "", None])


@given(st.lists(st.tuples(answer_texts, answer_texts), min_size=1, max_size=20), st.randoms())
def test_the_order_of_the_examples_changes_nothing(pairs, random):
    examples = [example(n) for n in range(len(pairs))]
    champion = {e.id: a for e, (a, _) in zip(examples, pairs, strict=True) if a is not None}
    challenger = {e.id: b for e, (_, b) in zip(examples, pairs, strict=True) if b is not None}
    shuffled = random.sample(examples, len(examples))
    assert compare(shuffled, champion, challenger) == compare(examples, champion, challenger)


def test_answering_in_another_order_gives_the_same_answers():
    examples = [example(n) for n in range(70)]
    forwards = answered(Recorder(), examples, {}, {})
    assert answered(Recorder(), examples[::-1], {}, {}) == forwards


def test_decodings_of_another_length_have_another_name():
    assert decoding_name(12) != decoding_name(13)


def test_a_question_is_known_by_what_it_asks_and_not_by_the_name_of_its_example():
    one, renamed = example(0), example(0).model_copy(update={"id": "other", "target": "refunds"})
    changed = example(0).model_copy(update={"messages": example(1).messages})
    asked = questions([one, renamed, changed])
    assert len(asked) == 2
    assert [key == found.id for key, found in asked.items()] == [True, True]
    assert questions([one]).keys() == questions([renamed]).keys()


# What is logged -----------------------------------------------------------------------------------


@pytest.mark.mostly_slow("14")
@pytest.mark.parametrize("failing", [1, 14])
def test_answers_that_failed_are_not_counted_as_answered(caplog, failing):
    examples = [example(number) for number in range(70)]  # two chunks
    broken = {f"message {number}" for number in range(failing)}
    with caplog.at_level("INFO"), server(broken) as url:
        model = OpenAICompatibleModel(url, "m")
        answer_examples(model, examples, {}, lambda _: None, max_new_tokens=4)
    last = [record.message for record in caplog.records if "answered" in record.message][-1]
    assert last.startswith(
        f"answered {70 - failing} of 70 examples, {failing} asked without an answer"
    )


def test_recorded_answers_are_not_counted_again(caplog):
    examples = [example(1), example(2)]
    with caplog.at_level("INFO"):
        answer_examples(
            ScriptedModel(Recorder()), examples, {"e001": "x"}, lambda _: None, max_new_tokens=4
        )
    assert "answered 1 of 1 examples, 0 s left" in caplog.text


# What fails for good ------------------------------------------------------------------------------

MANY = [example(number) for number in range(100)]


def asked_of(behaviour, examples=MANY, recorded=(), **limits):
    """Ask a server for answers; return what was saved, the requests that came and the error."""
    saved = dict(recorded)
    keep, known = texts_into(saved), dict(recorded)
    with JudgeEndpoint(behaviour) as endpoint:
        model = OpenAICompatibleModel(endpoint.url, "m", **({"attempts": 1} | limits))
        with pytest.raises(ModelError) as caught:
            answer_examples(model, examples, known, keep, max_new_tokens=4, name="new/2")
    return saved, len(endpoint.seen), str(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(status=404), "the endpoint must know the model 'm', got HTTP 404"),
        (Answer(status=401), "the endpoint must accept requests without a key, got HTTP 401"),
        (Answer(status=500), "HTTP 500"),
        (Answer(status=400), "HTTP 400"),
        (Answer(raw=b"<html>"), "not a chat completion"),
        (Answer(drop=True), "connection lost"),
        (Answer(text=""), "must answer with text, got 64 of 64 answers without any"),
        (Answer(text=" \n"), "must answer with text, got 64 of 64 answers without any"),
    ],
)
def test_an_endpoint_that_never_answers_is_an_error_and_nothing_is_kept(answer, said):
    saved, asked, error = asked_of(lambda seen: answer)
    assert saved == {}
    assert asked <= 64  # the first chunk alone
    assert error.startswith("new/2 must answer ")
    assert said in error


def test_an_endpoint_that_hangs_is_an_error_too():
    saved, _, error = asked_of(lambda seen: Answer(delay=30.0), MANY[:8], timeout_seconds=0.2)
    assert saved == {}
    assert "got no answer to 8 of 8 questions: timed out" in error


def test_a_dead_endpoint_is_an_error_however_few_questions_there_are():
    model = OpenAICompatibleModel("http://127.0.0.1:1", "m", attempts=1)
    with pytest.raises(ModelError, match="got no answer to 1 of 1 questions: no connection"):
        answer_examples(model, MANY[:1], {}, lambda _: None, max_new_tokens=4)


def test_what_was_answered_before_the_endpoint_died_is_kept():
    def dies(seen):
        return Answer(status=500 if len(seen.key) and int(seen.text[8:]) >= 64 else 200)

    saved, _, error = asked_of(dies)
    assert len(saved) == 64
    assert "got no answer to 36 of 100 questions: HTTP 500" in error
    assert error.endswith("then start again: what was answered is kept")


def test_questions_that_fail_again_and_again_stay_missing_beside_recorded_answers():
    recorded = {one.id: "billing" for one in MANY[10:]}
    with server({f"message {number}" for number in range(10)}) as url:
        model = OpenAICompatibleModel(url, "m", attempts=1)
        assert answer_examples(model, MANY, recorded, lambda _: None, max_new_tokens=4) == recorded


def test_a_local_model_that_says_nothing_has_answered():
    model = ScriptedModel(lambda turns: "")
    answers = answer_examples(model, MANY[:3], {}, lambda _: None, max_new_tokens=4)
    assert set(answers.values()) == {""}
