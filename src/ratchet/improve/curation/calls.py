"""Calls of tools in what is trained on: what was asked, what was answered, what is never learnt.

    asked_of(prompts, messages)    # what answers answer: with the results that came after it
    fault(text, tools)             # why an answer's calls must not be learnt, "" where they may

A call that cannot be read, names a tool that its request did not have, or has arguments that its
tool does not take, is no target: it is counted with the reason. As the worse answer of a pair, or
one that users did not like, it stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence

import pyarrow as pa
from pydantic import JsonValue, TypeAdapter

from ratchet.evaluation.call_metrics import CallFault, call_fault
from ratchet.improve.curation.rows import Tools
from ratchet.improve.curation.shapes import holds_calls, read_messages
from ratchet.records import Message, ToolCall, digest
from ratchet.records.tool_calls import MARK, as_turn, asked, written

LookUp = Callable[[Collection[str]], Mapping[str, JsonValue]]
"""Returns the definitions with some digests that are stored."""

GONE = "the tools that its request had are not stored any more"
UNREADABLE = "a call of a tool in it cannot be read"
UNKNOWN = "it calls a tool that its request did not have"
UNFITTING = "it calls a tool with arguments that the tool does not take"
FAULTS = (GONE, UNREADABLE, UNKNOWN, UNFITTING)
WHY: Mapping[CallFault, str] = {
    "unreadable": UNREADABLE,
    "unknown tool": UNKNOWN,
    "unfitting arguments": UNFITTING,
}
_CALLS = TypeAdapter(tuple[ToolCall, ...])


def asked_of(prompts: Sequence[str], messages: pa.Array) -> list[str]:
    """Return `asked` of stored conversations; only those with calls are read."""
    found = holds_calls(messages).to_pylist()
    return [
        asked(prompt, read_messages(messages[row].as_py())) if called else prompt
        for row, (prompt, called) in enumerate(zip(prompts, found, strict=True))
    ]


def answers_of(responses: Sequence[str], calls: Sequence[str | None] | None) -> list[str]:
    """Return whole answers: the words, and the calls that are stored as JSON beside them."""
    if calls is None:
        return list(responses)
    return [
        said if stored is None else _answer(said, stored)
        for said, stored in zip(responses, calls, strict=True)
    ]


def _answer(said: str, stored: str) -> str:
    calls = _CALLS.validate_python(json.loads(stored))
    return written(Message(role="assistant", content=said, tool_calls=calls))


def settled(text: str) -> str:
    """Return an answer with its calls as `written` writes them, so that it is read back equal."""
    return written(as_turn(text)) if MARK in text else text


def fault(text: str, tools: Tools | None) -> str:
    """Return why an answer's calls must not be learnt, "" where they may, or it calls none."""
    found = call_fault(text, tools or ())
    return WHY[found] if found else ""


def tools_of(body: JsonValue) -> Tools | None:
    """Return the tools of a definition; None where it is no list of them."""
    if not isinstance(body, list) or not body:
        return None
    tools = tuple(tool for tool in body if isinstance(tool, dict))
    return tools if len(tools) == len(body) else None


def tools_by_digest(found: Mapping[str, JsonValue]) -> dict[str, Tools]:
    """Return the tools of definitions by their digests, of those that hold some."""
    read = {key: tools_of(body) for key, body in found.items()}
    return {key: tools for key, tools in read.items() if tools is not None}


def digest_of(tools: Tools | None) -> str | None:
    """Return the digest by which tools are stored; None of none."""
    return digest(list(tools)) if tools else None
