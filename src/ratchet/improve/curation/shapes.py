"""Which conversations are words alone. Only these are trained on as yet.

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

from ratchet.records import Message, reads_as_text
from ratchet.records.conversations import AS_TEXT

VERSION = 1
"""Raise it where a conversation gets another shape."""
WORDS, CALLS, CALLS_AS_TEXT, MEDIA = range(4)
WHY_NOT: Mapping[int, str] = {
    CALLS: "answers that call tools are not trained on yet",
    CALLS_AS_TEXT: "an earlier version recorded calls of tools as text; answers recorded since the "
    "update keep them as calls",
    MEDIA: "pictures, sound and files are not trained on",
}
"""Why a conversation of a shape is left out."""
_NOTED = ("tools", "yes")
# quotes in a text are escaped in JSON, so that no text reads as one of these
_CALLS = r'"role":\s*"tool"|"tool_calls":\s*\[|"function_call":\s*\{'
_PARTS = r'"content":\s*\['
_MESSAGES = TypeAdapter(tuple[Message, ...])


def shape_of(
    messages: Sequence[Message], answer: Message, metadata: Mapping[str, str] | None = None
) -> int:
    """Return the shape of a conversation with its answer."""
    turns = (*messages, answer)
    if any(turn.role == "tool" or turn.tool_calls for turn in turns):
        return CALLS
    name, noted = _NOTED
    if (metadata or {}).get(name) == noted or any(AS_TEXT in turn.text for turn in turns):
        return CALLS_AS_TEXT
    return WORDS if reads_as_text(turns) else MEDIA


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
    for row in pc.indices_nonzero(_found(messages, _PARTS)).to_pylist():
        turns = _MESSAGES.validate_python(json.loads(messages[row].as_py()))
        shapes[row] = WORDS if reads_as_text(turns) else MEDIA
    as_text = pc.or_(_holds(messages), _holds(answers)).to_numpy(zero_copy_only=False)
    shapes[as_text.astype(np.bool_) | np.asarray(noted, dtype=np.bool_)] = CALLS_AS_TEXT
    called = _found(messages, _CALLS)
    if calls is not None:
        called = pc.or_(called, pc.is_valid(calls))
    shapes[called.to_numpy(zero_copy_only=False).astype(np.bool_)] = CALLS
    return shapes


def is_noted(metadata: Mapping[str, Any]) -> bool:
    """Tell whether the gateway noted that calls of tools became text."""
    name, noted = _NOTED
    return metadata.get(name) == noted


def as_words(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return turns as they are trained on: a role and its words; a refusal is the model's words."""
    return tuple(
        Message(role=turn.role, content=turn.text or turn.refusal or "") for turn in messages
    )


def _found(texts: pa.Array, pattern: str) -> Any:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False)


def _holds(texts: pa.Array) -> Any:
    return pc.fill_null(pc.match_substring(texts, AS_TEXT), False)
