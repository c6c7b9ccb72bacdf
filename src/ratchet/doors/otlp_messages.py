"""What was said on a span, in OpenAI's form of turns.

| convention | where |
|---|---|
| generative AI | `gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions`: messages of parts |
| before | `gen_ai.prompt`, `gen_ai.completion`, on the span or its events `gen_ai.content.*`; events `gen_ai.user.message`, `gen_ai.choice` |
| OpenLLMetry | `gen_ai.prompt.0.content`, `gen_ai.completion.0.content` |
| OpenInference | `llm.input_messages.0.message.content`, else `input.value`, `output.value` |

The first of these that a span has is read.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ratchet.doors.turns import Answer, answer, call, conversation, parsed, turn
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

Events = Sequence[tuple[str, int, Mapping[str, Any]]]
_INPUT, _OUTPUT, _SYSTEM = (
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions",
)  # fmt: skip
_PROMPT, _COMPLETION = "gen_ai.prompt", "gen_ai.completion"
_ROLE_OF_EVENT = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant", "gen_ai.tool.message": "tool",
}  # fmt: skip
_CHOICE = "gen_ai.choice"
_LLM_INPUT, _LLM_OUTPUT = "llm.input_messages", "llm.output_messages"
_TOOLS, _LLM_TOOLS, _FUNCTIONS = "gen_ai.tool.definitions", "llm.tools", "llm.request.functions"
_SILENT = frozenset({"reasoning", "thinking"})
_MOST_PLACES = 10_000
_DEEPEST = 16
"""No convention nests attributes deeper; a name of a thousand dots is no attribute of one."""


class Said(NamedTuple):
    """What was said on a span.

    Attributes:
        asked: The turns; empty where the span does not hold them.
        answer: What the model answered; None where the span does not hold it.
        finish_reason: Why it ended there.
    """

    asked: list[dict[str, Any]]
    answer: Answer | None
    finish_reason: str | None = None


def said_on(attributes: Mapping[str, Any], events: Events) -> Said:
    """Return what was said on a span with these attributes and events.

    Raises:
        InvalidInputError: It is written in no form that is known.
    """
    if attributes.get(_INPUT) or attributes.get(_OUTPUT):
        return _of_parts(attributes)
    if any(name in _ROLE_OF_EVENT or name == _CHOICE for name, _, _ in events):
        return _of_events(events)
    early = dict(attributes)
    for name, _, held in events:
        if name.startswith("gen_ai.content."):
            early |= held
    if early.get(_PROMPT) or early.get(_COMPLETION):
        return _plain(early.get(_PROMPT), early.get(_COMPLETION))
    if any(name.startswith((f"{_PROMPT}.", f"{_COMPLETION}.")) for name in attributes):
        return _flat(attributes, _PROMPT, _COMPLETION)
    if any(name.startswith((f"{_LLM_INPUT}.", f"{_LLM_OUTPUT}.")) for name in attributes):
        return _flat(attributes, _LLM_INPUT, _LLM_OUTPUT)
    return _plain(attributes.get("input.value"), attributes.get("output.value"))


def tools_of(attributes: Mapping[str, Any]) -> list[Any]:
    """Return the tools that a model was offered, in OpenAI's form."""
    found = parsed(attributes.get(_TOOLS))
    if not isinstance(found, list):
        listed = nested(attributes, _LLM_TOOLS) or nested(attributes, _FUNCTIONS)
        found = [
            one["tool"].get("json_schema") if isinstance(one.get("tool"), Mapping) else one
            for one in listed
            if isinstance(one, Mapping)
        ]
    tools = (parsed(one) for one in found)
    return [
        one if "function" in one or "name" not in one else _tool(one)
        for one in tools
        if isinstance(one, Mapping)
    ]


def _tool(one: Mapping[str, Any]) -> dict[str, Any]:
    function = {name: parsed(value) for name, value in one.items() if name != "type"}
    return {"type": "function", "function": function}


def _of_parts(attributes: Mapping[str, Any]) -> Said:
    asked: list[dict[str, Any]] = []
    system = parsed(attributes.get(_SYSTEM))
    if system:
        parts = system if isinstance(system, list) else [system]
        asked += _message({"role": "system", "parts": parts})
    for message in _listed(attributes.get(_INPUT)):
        asked += _message(message)
    answers = _listed(attributes.get(_OUTPUT))
    if not answers:
        return Said(asked, None)
    first = answers[0]
    reason = first.get("finish_reason") if isinstance(first, Mapping) else None
    return Said(asked, _answer(_message(first, role="assistant")), reason)


def _listed(value: object) -> list[Any]:
    found = parsed(value)
    if isinstance(found, list):
        return [parsed(one) for one in found]
    return [found] if found else []


def _message(value: Any, role: str = "user") -> list[dict[str, Any]]:
    """Return the turns of a message of parts: each result of a tool is a turn of its own."""
    if not isinstance(value, Mapping) or not isinstance(value.get("parts"), list):
        if isinstance(value, str):
            return [{"role": role, "content": value}]
        return [turn(value)]
    content: list[Any] = []
    calls: list[Any] = []
    results: list[dict[str, Any]] = []
    for part in map(_part, value["parts"]):
        kind = part.get("type")
        if kind == "tool_call":
            calls.append(call({name: one for name, one in part.items() if name != "type"}))
        elif kind == "tool_call_response":
            results.append(_result(part))
        elif kind not in _SILENT:
            content.append(_content(part))
    made = turn({"role": value.get("role") or role, "content": content or None})
    if value.get("name"):
        made["name"] = str(value["name"])
    if calls:
        made["tool_calls"] = calls
    return [*([made] if content or calls or not results else []), *results]


def _part(part: Any) -> Mapping[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "content": part}
    if isinstance(part, Mapping):
        return part
    raise InvalidInputError(
        f"a part of a message must be an object with a type, got {printable(repr(part), 80)}; "
        "check the instrumentation"
    )


def _content(part: Mapping[str, Any]) -> dict[str, Any]:
    kind, media = part.get("type"), str(part.get("mime_type") or "")
    if kind == "text":
        return {"type": "text", "text": str(part.get("content", part.get("text", "")))}
    if kind == "blob" and isinstance(part.get("content"), str):
        url = f"data:{media};base64,{part['content']}"
    elif kind == "uri" and part.get("uri"):
        url = str(part["uri"])
    else:
        return {**part, "type": str(kind or "part")}
    if part.get("modality") == "image" or media.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"file_data": url}}


def _result(part: Mapping[str, Any]) -> dict[str, Any]:
    result = part.get("response", part.get("result", part.get("content")))
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    made: dict[str, Any] = {"role": "tool", "content": text}
    return made | {"tool_call_id": str(part["id"])} if part.get("id") else made


def _answer(turns: Sequence[Mapping[str, Any]]) -> Answer | None:
    """Return an answer; None of one that says nothing at all."""
    said = turns[0] if turns else {}
    if not (said.get("content") or said.get("tool_calls") or said.get("refusal")):
        return None
    return answer(said)


def _of_events(events: Events) -> Said:
    asked: list[dict[str, Any]] = []
    found, reason = None, None
    for name, _, attributes in events:
        held = {key: parsed(value) for key, value in attributes.items()}
        if name == _CHOICE:
            if held.get("index") in (None, 0, "0") and found is None:
                message = held.get("message", held)
                message = message if isinstance(message, Mapping) else {"content": message}
                told = {"role": "assistant", **{k: v for k, v in message.items() if k != "role"}}
                found = _answer([turn(told)])
                reason = held.get("finish_reason")
        elif name in _ROLE_OF_EVENT:
            message = {"role": _ROLE_OF_EVENT[name], **held}
            if message["role"] == "tool" and message.get("id"):
                message["tool_call_id"] = str(message["id"])
            if "content" in attributes:
                message["content"] = _words_or_parts(attributes["content"])
            asked.append(turn(message))
    return Said(asked, found, None if reason is None else str(reason))


def _plain(asked: object, told: object) -> Said:
    return Said(conversation(asked) if asked else [], answer(told) if told else None)


def _flat(attributes: Mapping[str, Any], asked: str, told: str) -> Said:
    turns = [turn(_flat_message(one)) for one in nested(attributes, asked)]
    answers = [_flat_message(one) for one in nested(attributes, told)]
    if not answers:
        return Said(turns, None)
    reason = answers[0].get("finish_reason")
    first = {**answers[0], "role": "assistant"}
    return Said(turns, _answer([turn(first)]), None if reason is None else str(reason))


def _flat_message(value: Any) -> dict[str, Any]:
    """Return a message whose fields were attributes of their own."""
    held = value.get("message", value) if isinstance(value, Mapping) else {"content": value}
    if not isinstance(held, Mapping):
        held = {"content": held}
    made = {"role": "user", **held}
    if isinstance(made.get("contents"), list):
        parts = [
            one.get("message_content", one) for one in made["contents"] if isinstance(one, Mapping)
        ]
        made["content"] = [_flat_part(part) for part in parts]
    elif "content" in made:
        made["content"] = _words_or_parts(made["content"])
    calls = made.get("tool_calls")
    if isinstance(calls, list):
        made["tool_calls"] = [
            {"type": "function", **one["tool_call"]}
            if isinstance(one, Mapping) and isinstance(one.get("tool_call"), Mapping)
            else call(one)
            for one in calls
        ]
    return made


def _words_or_parts(value: Any) -> Any:
    """Return content: a text stays as it is, also one that is JSON, unless it spells parts."""
    found = parsed(value)
    is_parts = isinstance(found, list) and all(
        isinstance(one, Mapping) and "type" in one for one in found
    )
    return found if is_parts and found else value


def _flat_part(part: Mapping[str, Any]) -> dict[str, Any]:
    image = part.get("image")
    if isinstance(image, Mapping):
        url = (image.get("image") or {}).get("url")
        return {"type": "image_url", "image_url": {"url": url}}
    return {**part, "type": str(part.get("type") or "text")}


def nested(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """Return the list that attributes such as `PREFIX.0.message.role` spell.

    Example:
        >>> nested({"a.0.b": 1, "a.1.c.0": 2}, "a")
        [{'b': 1}, {'c': [2]}]
    """
    tree: dict[str, Any] = {}
    for name, value in _below(attributes, prefix):
        at, names = tree, name.split(".")
        if len(names) > _DEEPEST:
            continue
        for step in names[:-1]:
            inner = at.setdefault(step, {})
            if not isinstance(inner, dict):  # a value and a branch under one name: the branch wins
                inner = at[step] = {}
            at = inner
        at.setdefault(names[-1], value)
    found = _as_lists(tree)
    return found if isinstance(found, list) else []


def _below(attributes: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    start = f"{prefix}."
    for name, value in attributes.items():
        if name.startswith(start):
            yield name[len(start) :], value


def _as_lists(tree: Any) -> Any:
    """Return a tree whose branches with numbers for names are lists."""
    if not isinstance(tree, dict):
        return tree
    if tree and all(name.isdecimal() and len(name) <= len(str(_MOST_PLACES)) for name in tree):
        return [_as_lists(tree[name]) for name in sorted(tree, key=int)]
    return {name: _as_lists(branch) for name, branch in tree.items()}
