"""Which conversations can be trained on: words, and calls of tools with their results.

Before calls of tools were kept as calls, the gateway recorded them as the literal text
`[tool calls] [{...}]` and their results as system turns: a model that learnt from these would
answer with brackets. Such rows are told by that text and by what the gateway noted (`tools`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ratchet.records import Message, ToolCall, reads_as_text
from ratchet.records.conversations import AS_TEXT, CalledFunction
from ratchet.records.tool_calls import MARK, has_calls

VERSION = 2
"""Raise it where a conversation gets another shape."""
WORDS, CALLS, CALLS_AS_TEXT, MEDIA, OTHER_CALLS, CALLS_APART = range(6)
WHY_NOT: Mapping[int, str] = {
    CALLS_AS_TEXT: "an earlier version recorded calls of tools as text; answers recorded since the "
    "update keep them as calls",
    MEDIA: "pictures, sound and files are not trained on",
    OTHER_CALLS: "calls of functions in OpenAI's older form and of custom tools are not trained on",
    CALLS_APART: "its calls of tools are not among the outcomes, which hold words alone; curate "
    "from history",
}
"""Why a conversation of a shape is left out."""
_NOTED = ("tools", "yes")
# quotes in a text are escaped in JSON, so that no text reads as one of these
_CALLS = r'"role":\s*"tool"|"tool_calls":\s*\['
_OTHER_CALLS = r'"function_call":\s*\{|"type":\s*"custom"'
_PARTS = r'"content":\s*\['
_MESSAGES = TypeAdapter(tuple[Message, ...])


def shape_of(
    messages: Sequence[Message], answer: Message, metadata: Mapping[str, str] | None = None
) -> int:
    """Return the shape of a conversation with its answer."""
    turns = (*messages, answer)
    if any(map(_calls_otherwise, turns)):
        return OTHER_CALLS
    if not reads_as_text(turns):
        return MEDIA
    name, noted = _NOTED
    if (metadata or {}).get(name) == noted or any(AS_TEXT in turn.text for turn in turns):
        return CALLS_AS_TEXT
    called = has_calls(turns) or MARK in answer.text
    return CALLS if called else WORDS


def _calls_otherwise(turn: Message) -> bool:
    older = "function_call" in (turn.__pydantic_extra__ or {})
    return older or any(call.type != "function" for call in turn.tool_calls)


def shapes_of(
    messages: pa.Array, answers: pa.Array, calls: pa.Array | None, noted: Sequence[bool]
) -> NDArray[np.int8]:
    """Return the shapes of stored conversations, shape (n,).

    Args:
        messages: Conversations as JSON.
        answers: The words of the answers.
        calls: What the answers call, as JSON; null where nothing. None where that is not known.
        noted: Whether the gateway noted that calls became text.
    """
    shapes = np.full(len(messages), WORDS, dtype=np.int8)
    called = pc.or_(holds_calls(messages), _holds(answers, MARK))
    otherwise = _found(messages, _OTHER_CALLS)
    if calls is not None:
        called = pc.or_(called, pc.is_valid(calls))
        otherwise = pc.or_(otherwise, _found(calls, _OTHER_CALLS))
    as_text = pc.or_(_holds(messages, AS_TEXT), _holds(answers, AS_TEXT))
    shapes[_mask(called)] = CALLS
    shapes[_mask(as_text) | np.asarray(noted, dtype=np.bool_)] = CALLS_AS_TEXT
    for row in pc.indices_nonzero(_found(messages, _PARTS)).to_pylist():
        if not reads_as_text(read_messages(messages[row].as_py())):
            shapes[row] = MEDIA
    shapes[_mask(otherwise)] = OTHER_CALLS
    return shapes


def holds_calls(messages: pa.Array) -> Any:
    """Tell which conversations, as JSON, call tools or hold results before their answer."""
    return _found(messages, _CALLS)


def read_messages(stored: str) -> tuple[Message, ...]:
    """Return a stored conversation's turns."""
    return _MESSAGES.validate_python(json.loads(stored))


def is_noted(metadata: Mapping[str, Any]) -> bool:
    """Tell whether the gateway noted that calls of tools became text."""
    name, noted = _NOTED
    return metadata.get(name) == noted


def as_words(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return turns as they are trained on: a role and its words; a refusal is the model's words."""
    return tuple(
        Message(role=turn.role, content=turn.text or turn.refusal or "") for turn in messages
    )


def as_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return turns as they are trained on: as `as_words`, with names, calls and results."""
    return tuple(map(_as_turn, messages))


def _as_turn(turn: Message) -> Message:
    said = turn.text or turn.refusal
    return Message(
        role=turn.role,
        content=None if turn.tool_calls and not said else said or "",
        name=turn.name,
        tool_call_id=turn.tool_call_id,
        tool_calls=tuple(
            ToolCall(
                id=call.id,
                function=CalledFunction(name=call.name, arguments=call.function.arguments),
            )
            for call in turn.tool_calls
        ),
    )


def _mask(found: Any) -> NDArray[np.bool_]:
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _found(texts: pa.Array, pattern: str) -> Any:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False)


def _holds(texts: pa.Array, text: str) -> Any:
    return pc.fill_null(pc.match_substring(texts, text), False)
