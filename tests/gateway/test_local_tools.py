"""The gateway over a local model that calls tools, asked by the official client."""

import json
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from ratchet.gateway.options import GatewayOptions
from ratchet.records.asking import FINISH_REASON
from ratchet.settings import load_settings
from tests.gateway.conftest import running
from tests.models.weights_by_hand import saying

openai = pytest.importorskip("openai")

RATE = {
    "type": "function",
    "function": {
        "name": "rate_book",
        "parameters": {
            "type": "object",
            "properties": {"stars": {"type": "integer"}, "title": {"type": "string"}},
        },
    },
}
ASKED = [{"role": "user", "content": "Five stars for Dune"}]
CALL_5 = ("<tool_call>", '\n{"name": "rate_book", ', '"arguments": {"stars": 5}}\n', "</tool_call>")
CALL_DUNE = (
    "\n<tool_call>", '{"name": "rate_book", "argu', 'ments": {"title": "Dünen"}}', " </tool_call>",
)  # fmt: skip
BROKEN = ("\n<tool_call>\n", '{"name": "rate_book", "arg', "</tool_call>\n")


@pytest.fixture
def answering(tiny_model, tmp_path):
    """Start a gateway over a model that says these pieces, and return it with a client."""
    stack = ExitStack()

    def start(*pieces, template="hermes"):
        base = saying(tiny_model, tmp_path / "base", *pieces)
        environ = {
            "RATCHET_HOME": str(tmp_path / "home"),
            "RATCHET_CACHE": str(tmp_path / "cache"),
            "RATCHET_BASE_MODEL": str(base),
            "RATCHET_CHAT_TEMPLATE": template,
        }
        settings = load_settings(environ, tmp_path)
        gateway = stack.enter_context(running(GatewayOptions(settings=settings)))
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
        return SimpleNamespace(gateway=gateway, chat=client.chat.completions)

    with stack:
        yield start


def told(message):
    calls = [(one.function.name, one.function.arguments) for one in message.tool_calls or ()]
    return message.content, calls


def whole_and_streamed(chat, **fields):
    """Ask once for a whole answer and once for a stream, which the official helper puts together.

    Both say the same; return it with the reason for its end.
    """
    fields = {"model": "m", "messages": ASKED} | fields
    whole = chat.create(**fields).choices[0]
    with chat.stream(**fields) as stream:
        events = list(stream)
        streamed = stream.get_final_completion().choices[0]
    assert told(streamed.message)[1] == told(whole.message)[1]
    assert (streamed.message.content or None) == (whole.message.content or None)
    assert streamed.finish_reason == whole.finish_reason
    for message in (whole.message, streamed.message):
        ids = [call.id for call in message.tool_calls or ()]
        assert len(set(ids)) == len(ids)
        assert all(key.startswith("call_") for key in ids)
    assert events
    return (*told(whole.message), whole.finish_reason)


def test_calls_come_apart_from_words_whole_and_streamed_and_are_recorded(answering):
    found = answering("Sure.", *CALL_5, *CALL_DUNE)
    calls = [("rate_book", '{"stars": 5}'), ("rate_book", '{"title": "Dünen"}')]
    assert whole_and_streamed(found.chat, tools=[RATE]) == ("Sure.", calls, "tool_calls")
    kept = found.gateway.interactions()
    assert len(kept) == 2
    for one in kept:
        assert one.answer.text == "Sure."
        assert [(c.name, c.function.arguments) for c in one.answer.tool_calls] == calls
        assert one.tools is not None
        assert one.metadata[FINISH_REASON] == "tool_calls"


def test_the_result_of_a_call_is_answered_in_a_second_request(answering):
    found = answering(*CALL_5)
    first = found.chat.create(model="m", messages=ASKED, tools=[RATE]).choices[0].message
    assert first.content is None
    talk = [*ASKED, first.model_dump(exclude_none=True)]
    talk += [{"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": '{"ok": true}'}]
    again = found.chat.create(model="m", messages=talk, tools=[RATE])
    assert again.choices[0].finish_reason == "tool_calls"  # it says the same whatever it is asked
    assert again.usage.prompt_tokens > 10
    _, kept = sorted(found.gateway.interactions(), key=lambda one: len(one.messages))
    assert [turn.role for turn in kept.messages] == ["user", "assistant", "tool"]


def test_what_cannot_be_read_as_a_call_stays_among_the_words(answering):
    found = answering("Sure.", *BROKEN)
    words = 'Sure.\n<tool_call>\n{"name": "rate_book", "arg</tool_call>'
    assert whole_and_streamed(found.chat, tools=[RATE]) == (words, [], "stop")


def test_an_answer_that_is_cut_within_a_call_is_words_and_says_so(answering):
    found = answering(*CALL_5)
    words, calls, reason = whole_and_streamed_cut(found.chat)
    assert (words, calls, reason) == ('<tool_call>\n{"name": "rate_book",', [], "length")


def whole_and_streamed_cut(chat):
    whole = chat.create(model="m", messages=ASKED, tools=[RATE], max_tokens=2).choices[0]
    chunks = list(chat.create(model="m", messages=ASKED, tools=[RATE], max_tokens=2, stream=True))
    words = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert words == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason
    return (*told(whole.message), whole.finish_reason)


def test_at_most_one_call_where_calls_may_not_be_parallel(answering):
    found = answering(*CALL_5, *CALL_DUNE)
    asked = {"tools": [RATE], "parallel_tool_calls": False}
    assert whole_and_streamed(found.chat, **asked)[1] == [("rate_book", '{"stars": 5}')]


@pytest.mark.parametrize("fields", [{}, {"tools": [RATE], "tool_choice": "none"}])
def test_without_tools_or_where_none_may_be_called_the_model_reads_none(answering, fields):
    found = answering(*CALL_5)
    bare = found.chat.create(model="m", messages=ASKED)
    asked = found.chat.create(model="m", messages=ASKED, **fields)
    assert asked.usage == bare.usage  # the prompt is as long as without
    assert told(asked.choices[0].message) == ("".join(CALL_5), [])
    assert asked.choices[0].finish_reason == "stop"
    with_tools = found.chat.create(model="m", messages=ASKED, tools=[RATE])
    assert with_tools.usage.prompt_tokens > asked.usage.prompt_tokens


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "rate_book"}}]
)
def test_a_call_cannot_be_required_of_the_local_model(answering, choice):
    found = answering(*CALL_5)
    with pytest.raises(openai.BadRequestError, match="tool_choice must be none or auto") as refused:
        found.chat.create(model="m", messages=ASKED, tools=[RATE], tool_choice=choice)
    assert refused.value.param == "tool_choice"


def test_a_model_whose_template_knows_no_tools_says_how_it_gets_one(answering):
    found = answering(*CALL_5, template="")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="RATCHET_CHAT_TEMPLATE=hermes") as refused:
            found.chat.create(model="m", messages=ASKED, tools=[RATE], stream=stream)
        assert refused.value.param == "tools"
    talk = [*ASKED, {"role": "tool", "tool_call_id": "1", "content": "done"}]
    assert found.chat.create(model="m", messages=talk).choices  # it reads what was said


def test_a_tool_helper_of_the_official_client_reads_typed_arguments(answering):
    from pydantic import BaseModel

    class rate_book(BaseModel):  # noqa: N801
        """Rate a book."""

        stars: int

    found = answering(*CALL_5)
    tool = openai.pydantic_function_tool(rate_book)
    with found.chat.stream(model="m", messages=ASKED, tools=[tool]) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.done" in kinds
    assert message.tool_calls[0].function.parsed_arguments == rate_book(stars=5)
    parsed = found.chat.parse(model="m", messages=ASKED, tools=[tool]).choices[0].message
    assert parsed.tool_calls[0].function.parsed_arguments == rate_book(stars=5)
    assert json.loads(parsed.tool_calls[0].function.arguments) == {"stars": 5}
