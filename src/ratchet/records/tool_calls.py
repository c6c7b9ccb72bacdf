"""Answers that call tools, as text: each call in the form that Hermes and Qwen models write.

    written(answer)     # its words, then each call as JSON between `<tool_call>` and `</tool_call>`
    read_calls(text)    # the words, the calls, and how many blocks hold no call
    as_turn(text)       # the turn that an answer of text is

Where answers are kept and compared as text (targets of examples, answers of the gate), this is how
calls stand in them, whichever server gave them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from ratchet.records.base import MAX_TEXT_CHARACTERS, Text
from ratchet.records.conversations import (
    CalledFunction,
    Message,
    ToolCall,
    called_in,
    spoken,
    spoken_call,
    spoken_words,
)

MARK = "<tool_call>"
"""How a call begins in an answer of text."""
_BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Called:
    """What an answer says and calls.

    Attributes:
        words: The text outside of calls, without white space around it.
        calls: Tools that it calls, in order.
        unparsable: Blocks that hold no call: no JSON, or not `name` with `arguments`.
    """

    words: str
    calls: tuple[ToolCall, ...]
    unparsable: int


def written(answer: Message) -> str:
    """Return an answer as text, its calls after its words; a refusal where it has no words."""
    parts = [answer.text or answer.refusal or ""]
    parts += [_block(call) for call in answer.tool_calls]
    return "\n".join(part for part in parts if part)


def read_calls(text: str) -> Called:
    """Return what an answer of text says and calls."""
    found = [_call(match[1]) for match in _BLOCK.finditer(text)]
    calls = tuple(call for call in found if call is not None)
    return Called(_BLOCK.sub("", text).strip(), calls, len(found) - len(calls))


def as_turn(text: str) -> Message:
    """Return an answer of text as a turn, its calls apart from its words.

    Where its calls cannot be told from its words, the turn holds the text as it is.
    """
    plain = Message(role="assistant", content=text)
    if MARK not in text:
        return plain
    found = read_calls(text)
    if not found.calls or found.unparsable:
        return plain
    turn = Message(role="assistant", content=found.words or None, tool_calls=found.calls)
    return turn if read_calls(written(turn)) == found else plain


def has_calls(turns: Sequence[Message]) -> bool:
    """Tell whether turns call tools or hold the result of a call."""
    return any(turn.role == "tool" or turn.tool_calls for turn in turns)


def asked(prompt: str, messages: Sequence[Message]) -> str:
    """Return what an answer answers: the user's last words, with calls and results after them.

    The answers to one message before and after a tool was called are answers to different things.

    Args:
        prompt: The words of the user's last turn.
        messages: The turns before the answer.
    """
    last = next((n for n in range(len(messages), 0, -1) if messages[n - 1].role == "user"), 0)
    since = messages[last:]
    if not has_calls(since):
        return prompt
    called = called_in(messages)
    return "\n".join([prompt, *(spoken(turn, called) for turn in since)])


def given_as_text(value: object) -> object:
    """Return the text of an answer that somebody gave as a turn of OpenAI's chat format.

    A turn is an object, or JSON of one in a text, that calls tools; anything else is returned as it
    came.

    Raises:
        ValueError: It calls tools and is no turn of an assistant.
    """
    turn = value
    if isinstance(value, str) and value.lstrip().startswith("{") and '"tool_calls"' in value:
        try:
            turn = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if not isinstance(turn, Mapping) or turn.get("role") != "assistant":
            return value
    if not isinstance(turn, Mapping) or not turn.get("tool_calls"):
        return value
    answer = Message.model_validate({"role": "assistant", **turn})
    if answer.role != "assistant":
        raise ValueError(
            f"an answer that calls tools must be a turn of the assistant, got one of {answer.role}"
        )
    return written(answer)


def spoken_answer(text: str) -> str:
    """Return the text that people and judges are shown for an answer (`ratchet.records.spoken`).

    Where a block holds no call, what the model wrote is shown as it is.
    """
    found = read_calls(text)
    if not found.calls or found.unparsable:
        return spoken_words(text)
    return "\n".join([spoken_words(found.words), *map(spoken_call, found.calls)]).lstrip("\n")


_TURN_WITH_CALLS = {
    "type": "object",
    "description": "An answer that calls tools, as a turn of OpenAI's chat format.",
    "required": ["role", "tool_calls"],
    "properties": {
        "role": {"const": "assistant"},
        "content": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "tool_calls": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["type", "function"],
                "properties": {
                    "id": {"type": "string"},
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "required": ["name", "arguments"],
                        "properties": {
                            "name": {"type": "string", "maxLength": 200},
                            "arguments": {"type": "string", "maxLength": 10_000},
                        },
                        "additionalProperties": False,
                    },
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
_GIVEN = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARACTERS},
        _TURN_WITH_CALLS,
    ]
}
GivenAnswer = Annotated[
    Text,
    Field(min_length=1),
    BeforeValidator(given_as_text, json_schema_input_type=Any),
    WithJsonSchema(_GIVEN, mode="validation"),
]
"""An answer that a person gave, as text; one that calls tools may come as a turn."""


def _block(call: ToolCall) -> str:
    arguments = call.arguments
    if arguments is None:  # kept as it was written, so that it is unparsable here too
        name = json.dumps(call.name, ensure_ascii=False)
        body = f'{{"name": {name}, "arguments": {call.function.arguments}}}'
    else:
        body = json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _call(body: str) -> ToolCall | None:
    try:
        found: Any = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", {})
    if not isinstance(arguments, Mapping):
        return None
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        return ToolCall(function=CalledFunction(name=found["name"], arguments=text))
    except ValidationError:  # what no record can hold, such as half of a surrogate pair
        return None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
