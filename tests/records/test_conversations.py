"""Turns keep what was sent, and whoever reads them says what is meant."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from ratchet.records import Blob, Message, Part, ToolCall, last_said, texts, with_all_texts

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "x"}'}}


def with_texts(turn: Message, change: Callable[[str], str]) -> Message:
    (changed,) = with_all_texts([turn], lambda found: list(map(change, found)))
    return changed


@pytest.mark.parametrize(
    "sent",
    [
        {"role": "user", "content": "hello"},
        {"role": "developer", "content": "be brief", "name": "ops"},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | {"id": "c2"}]},
        {"role": "assistant", "content": "", "refusal": "no"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a", "n": [1]}}]},
        {"role": "assistant", "content": "4", "reasoning_content": "2 and 2", "n": [{"a": True}]},
    ],
)
def test_a_turn_comes_out_as_it_was_sent(sent: dict[str, object]) -> None:
    assert Message.model_validate(sent).canonical() == sent


def test_null_is_the_same_as_absent() -> None:
    turn = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "audio": None,
        "tool_calls": None,
    }
    assert Message.model_validate(turn).canonical() == {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize("role", ["system", "developer", "user"])
def test_a_turn_without_content_is_refused_where_it_says_nothing(role: str) -> None:
    with pytest.raises(ValidationError, match="must be text or parts"):
        Message.model_validate({"role": role, "content": None})


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "user", "content": "a\x00b"},
        {"role": "user", "content": [{"type": "text", "text": "a\x00b"}]},
        {"role": "user", "content": [{"type": "file", "file": {"id": ["\x00"]}}]},
        {"role": "assistant", "content": "", "thought": {"a": "\ud800"}},
        {"role": "user", "content": [{"type": "file", "file": {"id": "x" * 100_001}}]},
        {"role": "robot", "content": "hi"},
        {"role": "user", "content": [{"text": "a part without a type"}]},
    ],
)
def test_what_a_store_cannot_hold_is_refused(turn: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate(turn)


def test_the_words_of_a_turn_are_its_parts_of_text() -> None:
    picture = Part.model_validate({"type": "image_url", "image_url": {"url": "http://a/b.png"}})
    turn = Message(role="user", content=(Part(type="text", text="what"), picture))
    assert turn.text == "what"
    assert last_said([turn, Message(role="assistant", content="a cat")]) == "what"


def test_a_reference_names_digest_kind_and_size() -> None:
    blob = Blob("ab" * 32, "image/png", 12)
    assert Blob.read(blob.reference) == blob
    assert Blob.read(f"see {blob.reference}") is None
    part = Part.model_validate({"type": "image_url", "image_url": {"url": blob.reference}})
    assert part.blob == blob


@pytest.mark.parametrize(
    ("written", "arguments"),
    [('{"a": 1}', {"a": 1}), ("", {}), ("[1]", None), ('{"a": ', None), ("[" * 100_000, None)],
)
def test_arguments_that_are_no_object_are_none(
    written: str, arguments: dict[str, object] | None
) -> None:
    call = ToolCall.model_validate({"function": {"name": "f", "arguments": written}})
    assert call.arguments == arguments


def test_every_string_that_somebody_may_have_written_is_found_and_changed() -> None:
    arguments = json.dumps({"to": "Müller", "type": "Müller", "list": ["Müller", 1]})
    call = {"id": "c1", "type": "function", "function": {"name": "mail", "arguments": arguments}}
    blob = Blob("ab" * 32, "image/png", 12).reference
    turns = [
        {"role": "assistant", "content": "to Müller", "tool_calls": [call], "refusal": "Müller"},
        {"role": "tool", "tool_call_id": "c1", "content": '{"name": "Müller"}'},
        {
            "role": "user",
            "name": "Müller",
            "content": [
                {"type": "text", "text": "Müller"},
                {"type": "image_url", "image_url": {"url": blob}},
                {"type": "file", "file": {"filename": "Müller.pdf"}},
            ],
        },
    ]
    for sent in turns:
        turn = Message.model_validate(sent)
        assert any("Müller" in text for text in texts(turn))
        changed = with_texts(turn, lambda text: text.replace("Müller", "somebody"))
        assert "ller" not in json.dumps(changed.canonical()).replace("\\u00fc", "ü")
        assert with_texts(turn, str) == turn
    changed = with_texts(Message.model_validate(turns[0]), lambda text: text.replace("ü", "u"))
    assert changed.tool_calls[0].arguments == {
        "to": "Muller", "type": "Muller", "list": ["Muller", 1],
    }  # fmt: skip
    assert with_texts(Message.model_validate(turns[2]), str.upper).content[1].blob is not None  # type: ignore[index,union-attr]
