"""Answers that call tools, as text: each call in the form that Hermes and Qwen models write.

    written(answer)     # its words, then each call as JSON between `<tool_call>` and `</tool_call>`
    read_calls(text)    # the words, the calls, and how many blocks hold no call
    as_turn(text)       # the turn that an answer of text is
    CallReader().take(piece)    # the same while the text is written

Where answers are kept and compared as text (targets of examples, answers of the gate), this is how
calls stand in them, whichever server gave them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ratchet.records.conversations import (
    CalledFunction,
    Message,
    ToolCall,
    called_in,
    spoken,
    spoken_call,
    spoken_words,
)
from ratchet.strict_json import is_shallow, no_number

MARK = "<tool_call>"
"""How a call begins in an answer of text."""
_BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_CLOSED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


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

    Where its calls cannot be told from its words, the turn holds the text as it is; so it does with
    a text that no record can hold, such as one with a NUL character.
    """
    plain = Message.model_construct(role="assistant", content=text)
    if MARK not in text:
        return plain
    found = read_calls(text)
    if not found.calls or found.unparsable:
        return plain
    try:
        turn = Message(role="assistant", content=found.words or None, tool_calls=found.calls)
    except ValidationError:
        return plain
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


def spoken_answer(text: str) -> str:
    """Return the text that people and judges are shown for an answer (`ratchet.records.spoken`).

    Where a block holds no call, what the model wrote is shown as it is.
    """
    found = read_calls(text)
    if not found.calls or found.unparsable:
        return spoken_words(text)
    return "\n".join([spoken_words(found.words), *map(spoken_call, found.calls)]).lstrip("\n")


class CallReader:
    """Reads calls out of an answer that comes in pieces.

    Words are told as soon as they cannot begin a call; a block that holds none is words. White
    space around calls is dropped, words on both sides of one are told as lines.

        reader = CallReader()
        for piece in pieces:
            told += reader.take(piece)
        told += reader.end()
    """

    def __init__(self) -> None:
        self._kept = ""  # what may yet be white space before a call, or the beginning of one
        self._gap = ""  # what stands before the next words
        self._told_words = False

    def take(self, piece: str) -> list[str | ToolCall]:
        """Return the words and calls that are certain now."""
        self._kept += piece
        told: list[str | ToolCall] = []
        while (block := _CLOSED.search(self._kept)) is not None:
            self._kept, before = self._kept[block.end() :], self._kept[: block.start()]
            told += self._block(before, block[0], block[1])
        begins = self._kept.find(MARK)
        if begins < 0:
            begins = len(self._kept) - _overlap(self._kept)
        certain = self._kept[:begins].rstrip()
        self._kept = self._kept[len(certain) :]
        return told + self._words(certain)

    def end(self) -> list[str | ToolCall]:
        """Return the words and calls still held back, when the answer has ended."""
        kept, self._kept = self._kept, ""
        block = _BLOCK.search(kept)
        if block is None:
            return self._words(kept.rstrip())
        return self._block(kept[: block.start()], block[0].rstrip(), block[1])

    def _block(self, before: str, block: str, body: str) -> list[str | ToolCall]:
        call = _call(body)
        if call is None:
            return self._words(before + block)
        told: list[str | ToolCall] = [*self._words(before.rstrip()), call]
        self._gap = "\n" if self._told_words else ""
        return told

    def _words(self, text: str) -> list[str | ToolCall]:
        if self._gap or not self._told_words:
            text = text.lstrip()
        if not text:
            return []
        text, self._gap, self._told_words = self._gap + text, "", True
        return [text]


def _overlap(text: str) -> int:
    """Return how many characters at the end may begin a call."""
    return next((size for size in range(len(MARK) - 1, 0, -1) if text.endswith(MARK[:size])), 0)


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
        found: Any = json.loads(body, parse_constant=no_number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", {})
    if not isinstance(arguments, Mapping) or not is_shallow(arguments):
        return None
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        return ToolCall(function=CalledFunction(name=found["name"], arguments=text))
    except ValidationError:  # what no record can hold, such as half of a surrogate pair
        return None
