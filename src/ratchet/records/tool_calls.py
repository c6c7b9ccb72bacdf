"""Answers that call tools, as text: each call in the form that Hermes and Qwen models write.

    written(answer)     # its words, then each call as JSON between `<tool_call>` and `</tool_call>`
    read_calls(text)    # the words, the calls, and how many blocks hold no call

Where answers are kept and compared as text (targets of examples, answers of the gate), this is how
calls stand in them, whichever server gave them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ratchet.records.conversations import (
    CalledFunction,
    Message,
    ToolCall,
    spoken_call,
    spoken_words,
)

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


def spoken_answer(text: str) -> str:
    """Return the text that people and judges are shown for an answer (`ratchet.records.spoken`).

    Where a block holds no call, what the model wrote is shown as it is.
    """
    found = read_calls(text)
    if not found.calls or found.unparsable:
        return spoken_words(text)
    return "\n".join([spoken_words(found.words), *map(spoken_call, found.calls)]).lstrip("\n")


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
