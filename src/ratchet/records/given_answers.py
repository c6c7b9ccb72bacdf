"""An answer that a person gives: what would have been right, or what an expert would say.

It is text. One that calls tools may come as a turn of OpenAI's chat format and is kept as text in
the form of `ratchet.records.tool_calls`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from ratchet.records.base import MAX_TEXT_CHARACTERS, Text
from ratchet.records.conversations import Message
from ratchet.records.tool_calls import written

_TEXT = {"type": "string", "maxLength": 4_000, "pattern": "^[^\\u0000]*$"}


def given_as_text(value: object) -> object:
    """Return the text of an answer that somebody gave as a turn of OpenAI's chat format.

    A turn is an object, or JSON of one in a text, that calls tools; anything else is returned as it
    came, also a text that would be no turn.

    Raises:
        ValueError: An object calls tools and is no turn of an assistant.
    """
    if isinstance(value, str):
        return _text_of(value)
    if not isinstance(value, Mapping) or not value.get("tool_calls"):
        return value
    answer = Message.model_validate({"role": "assistant", **value})
    if answer.role != "assistant":
        raise ValueError(
            f"an answer that calls tools must be a turn of the assistant, got one of {answer.role}"
        )
    return written(answer)


def _text_of(text: str) -> str:
    if not text.lstrip().startswith("{") or '"tool_calls"' not in text:
        return text
    try:
        turn = json.loads(text)
        known = isinstance(turn, Mapping) and turn.get("role") == "assistant"
        found = given_as_text(turn) if known else text
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, str) else text


_TURN_WITH_CALLS = {
    "type": "object",
    "description": "An answer that calls tools, as a turn of OpenAI's chat format.",
    "required": ["role", "tool_calls"],
    "properties": {
        "role": {"const": "assistant"},
        "content": {"anyOf": [_TEXT, {"type": "null"}]},
        "tool_calls": {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {
                "type": "object",
                "required": ["type", "function"],
                "properties": {
                    "id": _TEXT,
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "required": ["name", "arguments"],
                        "properties": {
                            "name": _TEXT | {"maxLength": 200},
                            "arguments": _TEXT,
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
