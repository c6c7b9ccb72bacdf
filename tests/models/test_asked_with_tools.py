"""Models are given tools and forms, and answer with calls as text, whoever they are."""

import json

import pytest

from ratchet.evaluation.paired import answer_examples
from ratchet.models import (
    HuggingFaceModel,
    OpenAICompatibleModel,
    ScriptedModel,
    prepare_base_model,
)
from ratchet.models.asking import Question, ask_model
from ratchet.records import Example, Message
from ratchet.records.tool_calls import read_calls
from tests.calls import call
from tests.models.weights_by_hand import rewritten, saying
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

RATE = {
    "type": "function",
    "function": {
        "name": "rate_book",
        "parameters": {"type": "object", "properties": {"stars": {"type": "integer"}}},
    },
}
FORM = {"type": "json_object"}
ASKED = (Message(role="user", content="Five stars for this one"),)
SAID = '<tool_call>\n{"name": "rate_book", "arguments": {"stars": 5}}\n</tool_call>'
PIECES = ("<tool_call>", '\n{"name": "rate_book", ', '"arguments": {"stars": 5}}\n', "</tool_call>")


@pytest.fixture(scope="module")
def calling(tiny_model, tmp_path_factory):
    """A base folder with `hermes`, of a model that calls a tool whatever it is asked."""
    folder = tmp_path_factory.mktemp("calling")
    base = saying(tiny_model, folder / "base", *PIECES)
    return prepare_base_model(str(base), folder / "cache", "hermes")


def test_a_local_model_answers_with_its_whole_call_and_otherwise_with_one_line(calling):
    model = HuggingFaceModel.load(calling, batch_size=2)
    found = model.generate([ASKED, ASKED, ASKED], max_new_tokens=8, tools=[(RATE,), None, (RATE,)])
    assert [one.text for one in found] == [SAID, "<tool_call>", SAID]
    assert read_calls(found[0].text).calls[0].arguments == {"stars": 5}


def louder(model, _tokenizer):
    """Make the weights so large that every word of a conversation tells."""
    for layer in model.model.layers:
        for weight in layer.parameters():
            weight.mul_(8.0 if weight.dim() == 2 else 1.0)


def test_a_local_model_reads_the_tools_of_each_conversation(tiny_model, tmp_path):
    base = rewritten(tiny_model, tmp_path / "base", louder)
    model = HuggingFaceModel.load(
        prepare_base_model(str(base), tmp_path / "cache", "hermes"), one_line=False
    )
    offered = [(RATE,), ({"type": "function", "function": {"name": "find"}},), None]

    def answers(conversations, tools):
        return [c.text for c in model.generate(conversations, max_new_tokens=8, tools=tools)]

    together = answers([ASKED] * 3, offered)
    assert len(set(together)) == 3
    assert together == [answers([ASKED], [one])[0] for one in offered]


def test_a_model_without_a_form_for_tools_has_an_error_for_those_alone(tiny_model):
    model = HuggingFaceModel.load(tiny_model)
    fine, refused = model.generate([ASKED, ASKED], max_new_tokens=2, tools=[None, (RATE,)])
    assert fine.error is None
    assert "RATCHET_CHAT_TEMPLATE=hermes" in refused.error


def said(message):
    return Answer(raw=json.dumps({"choices": [{"message": message}]}).encode())


def server_that_calls(seen):
    """A server whose model calls the tool where it has one, twice and with words."""

    def answer(request):
        seen.append(request.body)
        if "tools" not in request.body:
            return Answer(text="no tool")
        calls = [call("rate_book", stars=5), call("rate_book", "c2", title="Müßig")]
        return said({"content": "Well.", "tool_calls": calls})

    return JudgeEndpoint(answer)


def test_a_server_is_sent_tools_and_form_and_its_calls_become_text():
    seen = []
    with server_that_calls(seen) as server:
        model = OpenAICompatibleModel(server.url, "m", concurrency=1)
        found = model.generate(
            [ASKED, ASKED], max_new_tokens=8, tools=[(RATE,), None], response_formats=[None, FORM]
        )
    assert [(body.get("tools"), body.get("response_format")) for body in seen] == [
        ([RATE], None),
        (None, FORM),
    ]
    assert found[0].text == (
        f"Well.\n{SAID}\n"
        '<tool_call>\n{"name": "rate_book", "arguments": {"title": "Müßig"}}\n</tool_call>'
    )
    assert found[1].text == "no tool"


def test_questions_that_differ_in_tools_or_form_alone_are_asked_each():
    seen = []
    with server_that_calls(seen) as server:
        model = OpenAICompatibleModel(server.url, "m")
        model.generate([ASKED] * 4, max_new_tokens=8, tools=[(RATE,), (RATE,), None, ()],
                       response_formats=[None, FORM, FORM, None])  # fmt: skip
    assert len(seen) == 4


@pytest.mark.parametrize("calls", [[{"id": "1"}], ["f"], [{"function": {"name": 5}}]])
def test_calls_of_another_shape_are_an_error_and_no_answer(calls):
    def answer(_request):
        return said({"content": None, "tool_calls": calls})

    with JudgeEndpoint(answer) as server:
        model = OpenAICompatibleModel(server.url, "m", attempts=1)
        (found,) = model.generate([ASKED], max_new_tokens=8, tools=[(RATE,)])
    assert "calls of tools that cannot be read" in found.error


class Noted(ScriptedModel):
    """A script that notes what it is asked with."""

    def __init__(self):
        super().__init__(lambda _turns: "yes")
        self.seen = []

    def generate(self, conversations, **options):
        self.seen.append({name: options[name] for name in options if name in WITH})
        return super().generate(conversations, **options)


WITH = ("tools", "response_formats")


def test_the_gates_examples_are_asked_with_their_tools_and_form():
    model = Noted()
    plain = Example(id="plain", messages=ASKED)
    called = Example(id="called", messages=ASKED, tools=(RATE,))
    formed = Example(id="formed", messages=ASKED, response_format=FORM)
    for examples in ([plain], [plain, called, formed]):
        answer_examples(model, examples, {}, lambda _made: None, max_new_tokens=3)
    assert model.seen == [
        {},
        {"tools": [None, (RATE,), None], "response_formats": [None, None, FORM]},
    ]


def test_a_local_model_that_is_asked_questions_is_given_their_tools():
    model = Noted()
    asked = [Question("a", ASKED, tools=(RATE,)), Question("b", ASKED)]
    ask_model(asked, model, max_new_tokens=3, save=lambda _replies: None)
    ask_model(asked[1:], model, max_new_tokens=3, save=lambda _replies: None)
    assert model.seen == [{"tools": [(RATE,), None]}, {}]
