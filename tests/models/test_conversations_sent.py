"""A conversation is sent to a server as it was recorded, or left out with the reason."""

from __future__ import annotations

import json

from ratchet.models import OpenAICompatibleModel
from ratchet.models.endpoint import Endpoint, Question, request_body
from ratchet.records import Part
from tests.calls import looked_up, turn, with_picture
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

TALK = looked_up("Who?", "Ana", name="Ana")


def test_calls_results_names_and_parts_are_sent_as_they_were_recorded() -> None:
    picture = Part.model_validate(
        {"type": "image_url", "image_url": {"url": "https://a.example/b"}}
    )
    talk = (*TALK, turn("user", [picture.canonical()], name="Ana"))
    body = json.loads(request_body(Endpoint(url="http://h", model="m"), Question("k", talk)))
    assert body["messages"] == [one.canonical() for one in talk]
    assert body["messages"][2] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "find_customer", "arguments": '{"name": "Ana"}'},
            }
        ],
    }


def test_a_conversation_of_words_is_sent_byte_for_byte_as_before() -> None:
    body = request_body(Endpoint(url="http://h", model="m"), Question("k", (turn("user", "é"),)))
    expected = '{"model": "m", "messages": [{"role": "user", "content": "é"}], '
    assert body.decode().startswith(expected)


def test_a_conversation_whose_bytes_are_not_there_is_left_out_with_the_reason() -> None:
    with JudgeEndpoint(lambda _seen: Answer(text="a cat")) as server:
        model = OpenAICompatibleModel(server.url, "m")
        seen = model.generate([(with_picture("what?"),), TALK], max_new_tokens=5)
    assert seen[0].text == ""
    assert "must hold its pictures" in (seen[0].error or "")
    assert (seen[1].text, seen[1].error) == ("a cat", None)
