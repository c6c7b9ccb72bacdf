"""Turns as other tools write them, in the shape of OpenAI's chat format.

A text that is JSON is read; a list of messages, an object with `messages`, a plain text and a
completion are all the same conversation. Roles are `human`, `ai`, `bot`, `gpt`, `model` and so on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.strict_json import loads

ROLES = {
    "system": "system", "developer": "developer",
    "user": "user", "human": "user", "customer": "user", "prompter": "user",
    "assistant": "assistant", "ai": "assistant", "bot": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
}  # fmt: skip
"""Names of roles in other tools, and the role in OpenAI's format that each is."""
_CONVERSATIONS = ("messages", "input", "prompt", "question", "query", "text")
_ANSWERS = ("output", "response", "answer", "content", "text", "completion", "result")
_OURS = frozenset({"system", "user", "assistant"})
_KEPT = ("name", "tool_calls", "tool_call_id", "refusal")


class Answer(NamedTuple):
    """An answer, as the fields of an interaction."""

    response: str
    tool_calls: Sequence[Any] = ()
    refusal: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of an interaction that this answer sets."""
        found: dict[str, Any] = {"response": self.response}
        if self.tool_calls:
            found["tool_calls"] = list(self.tool_calls)
        return found if self.refusal is None else found | {"refusal": self.refusal}


def parsed(value: object) -> Any:
    """Return what a text holds where it is JSON of an object, a list or a text; else the value."""
    if not isinstance(value, str) or value[:1] not in '{["' or not value:
        return value
    try:
        return loads(value)
    except (ValueError, RecursionError):
        return value


def conversation(value: object) -> list[dict[str, Any]]:
    """Return the turns of what a model was asked.

    Raises:
        InvalidInputError: There are none.
    """
    found = parsed(value)
    if isinstance(found, Mapping):
        if "role" in found or "type" in found:
            return [turn(found)]
        held = next((found[name] for name in _CONVERSATIONS if found.get(name)), None)
        return conversation(held)
    if isinstance(found, str) and found:
        return [{"role": "user", "content": found}]
    if isinstance(found, Sequence) and not isinstance(found, str) and found:
        if len(found) == 1 and isinstance(found[0], list):  # a batch of one, as LangChain writes it
            found = found[0]
        return [turn(one) for one in found]
    raise InvalidInputError(
        f"an answer must have a question, got {printable(repr(value), 80)}; a question is a text, "
        "messages or an object with `messages`"
    )


def _is_plain(value: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether a turn is nothing but a role of ours and words, as nearly all are."""
    return (
        type(value) is dict
        and len(value) == 2
        and value.get("role") in _OURS
        and type(value.get("content")) is str
    )


def turn(value: object) -> dict[str, Any]:
    """Return one turn.

    Raises:
        InvalidInputError: It is none.
    """
    if _is_plain(value):
        return value
    found = parsed(value)
    if isinstance(found, str):
        return {"role": "user", "content": found}
    if not isinstance(found, Mapping):
        raise _no_turn(value)
    data = found.get("data") if isinstance(found.get("data"), Mapping) else found
    assert isinstance(data, Mapping)
    name = found.get("role") or found.get("type")
    role = ROLES.get(str(name).lower().removesuffix("messagechunk").removesuffix("message"))
    if role is None:
        raise _no_turn(value)
    made: dict[str, Any] = {"role": role, "content": content(data.get("content"))}
    made |= {key: data[key] for key in _KEPT if data.get(key)}
    if "tool_calls" in made:
        made["tool_calls"] = [call(one) for one in made["tool_calls"]]
    return made


def content(value: object) -> Any:
    """Return words or parts: a single part of text, and an object with text, are words."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return value
    parts = [{"type": "text", "text": one} if isinstance(one, str) else one for one in value]
    is_text = all(
        isinstance(one, Mapping) and isinstance(one.get("text"), str) and "image_url" not in one
        for one in parts
    )
    return "\n".join(one["text"] for one in parts) if is_text else parts


def call(value: object) -> Any:
    """Return the call of a tool in OpenAI's form."""
    if not isinstance(value, Mapping) or "function" in value or "custom" in value:
        return value
    arguments = value.get("arguments", value.get("args", value.get("input", {})))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": value.get("name", ""), "arguments": arguments}
    identity = {"id": value["id"]} if value.get("id") else {}
    return identity | {"type": "function", "function": function}


def answer(value: object) -> Answer:
    """Return what a model answered.

    Raises:
        InvalidInputError: There is no answer.
    """
    found = parsed(value)
    if _is_plain(found) and found["content"]:
        return Answer(found["content"])
    if isinstance(found, list) and found:
        found = found[-1]  # the last of several turns is the answer
    if isinstance(found, Mapping):
        if found.get("choices"):
            return _of_choice(found["choices"][0], value)
        if isinstance(found.get("message"), Mapping):
            return answer(found["message"])
        if isinstance(found.get("messages"), list) and found["messages"]:
            return answer(found["messages"][-1])
        data = found["data"] if isinstance(found.get("data"), Mapping) else found
        calls = [call(one) for one in data.get("tool_calls") or ()]
        refusal = data.get("refusal") or None
        words = next((data[name] for name in _ANSWERS if data.get(name)), None)
        if isinstance(words, Mapping):
            return answer(words)
        if words is not None or calls or refusal:
            return Answer(_words(words), calls, refusal)
    elif isinstance(found, str) and found:
        return Answer(found)
    raise InvalidInputError(
        f"an answer must have words, calls or a refusal, got {printable(repr(value), 80)}; leave "
        "out what the model did not answer"
    )


def _of_choice(choice: object, value: object) -> Answer:
    if isinstance(choice, Mapping):
        return answer(choice.get("message") or choice.get("text"))
    raise InvalidInputError(
        f"a choice must be an object, got {printable(repr(value), 80)}; check the export"
    )


def _words(value: object) -> str:
    found = content(value)
    if isinstance(found, str) or found is None:
        return found or ""
    if isinstance(found, list):
        texts = (one.get("text") for one in found if isinstance(one, Mapping))
        return "\n".join(text for text in texts if isinstance(text, str))
    return json.dumps(found, ensure_ascii=False)


def _no_turn(value: object) -> InvalidInputError:
    known = ", ".join(dict.fromkeys(ROLES))
    return InvalidInputError(
        f"a turn must be a text or an object with a role ({known}), got "
        f"{printable(repr(value), 80)}; check the export"
    )
