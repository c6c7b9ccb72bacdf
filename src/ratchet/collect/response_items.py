"""OpenAI's Responses API read as chats: its items as turns, its answers as an assistant's turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.records import APPLICATION_ROLES

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Events of a stream that hold the whole response."""
UNFINISHED = frozenset({"queued", "in_progress"})
_CALLS = frozenset({"function_call", "custom_tool_call"})
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_REASONS = {"max_output_tokens": "length"}
_SAME = (
    "model", "user", "safety_identifier", "metadata", "store", "documents", "temperature", "top_p",
    "tool_choice", "parallel_tool_calls", "stream",
)  # fmt: skip
"""Fields that a chat has as well."""


def as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request as the chat that it would be, for the record and for whose it is."""
    chat = {name: body[name] for name in _SAME if name in body}
    chat["messages"] = turns_of(body)
    conversation, metadata = body.get("conversation"), chat.get("metadata")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")
    if isinstance(conversation, str) and isinstance(metadata, Mapping | None):
        chat["metadata"] = {"session_id": conversation, **(metadata or {})}
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    reasoning, text = body.get("reasoning"), body.get("text")
    if isinstance(reasoning, Mapping) and isinstance(reasoning.get("effort"), str):
        chat["reasoning_effort"] = reasoning["effort"]
    if isinstance(body.get("tools"), list) and body["tools"]:
        chat["tools"] = [_nested(tool, "function") for tool in body["tools"]]
    if isinstance(text, Mapping) and text.get("format"):
        chat["response_format"] = _nested(text["format"], "json_schema")
    return chat


def turns_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a request says as turns: its instructions, then its items."""
    found: list[dict[str, Any]] = []
    if isinstance(body.get("instructions"), str) and body["instructions"]:
        found.append({"role": "system", "content": body["instructions"]})
    given = body.get("input")
    if isinstance(given, str):
        return [*found, {"role": "user", "content": given}]
    items = given if isinstance(given, list) else []
    found += _turns(item for item in items if isinstance(item, Mapping))
    return found or [{"role": "user", "content": ""}]


def with_instructions(body: dict[str, Any], prompt: str) -> dict[str, Any]:
    """Return a request with other instructions, and without those among its items."""
    given = body.get("input")
    if isinstance(given, list):
        given = [
            item
            for item in given
            if not (isinstance(item, Mapping) and item.get("role") in APPLICATION_ROLES)
        ]
    return body | {"instructions": prompt, "input": given}


def message_of(output: Sequence[Any]) -> dict[str, Any]:
    """Return the items of an answer as one turn."""
    found: dict[str, Any] = {"content": "", "tool_calls": []}
    for item in output:
        if not isinstance(item, Mapping):
            continue
        if item.get("type") in _CALLS:
            found["tool_calls"].append(_call(item))
        if thought := _thought(item):
            found["reasoning_content"] = found.get("reasoning_content", "") + thought
        for part in item.get("content") or () if item.get("type") == "message" else ():
            if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                found["content"] += part["text"]
            elif isinstance(part, Mapping) and isinstance(part.get("refusal"), str):
                found["refusal"] = found.get("refusal", "") + part["refusal"]
    return found


def _thought(item: Mapping[str, Any]) -> str:
    """Return what a model thought, as far as its server says it: the thoughts or their summary."""
    parts = (item.get("content") or item.get("summary")) if item.get("type") == "reasoning" else ()
    parts = parts if isinstance(parts, list) else ()
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))


def reason_of(response: Mapping[str, Any]) -> str | None:
    """Return how an answer ended, in the words of chat completions."""
    status = response.get("status")
    if status == "completed":
        output = response.get("output") or ()
        calls = any(isinstance(i, Mapping) and i.get("type") in _CALLS for i in output)
        return "tool_calls" if calls else "stop"
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    return _REASONS.get(str(reason), str(reason)) if reason else str(status) if status else None


def error_of(response: Mapping[str, Any]) -> str | None:
    """Return why a response has failed; None where it has not."""
    error = response.get("error")
    if response.get("status") not in ("failed", "cancelled") and not error:
        return None
    said = error.get("message") if isinstance(error, Mapping) else error
    return f"the backend answers with an error: {said or response.get('status')}"


@dataclass(slots=True)
class ToldItems:
    """What a stream of events said so far.

    Attributes:
        response: The whole response, once an event holds it.
        begun: Whether anything was said.
        problem: What an event says went wrong.
    """

    response: dict[str, Any] | None = None
    begun: bool = False
    problem: str | None = None
    id: str | None = None
    _items: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take an event; return whether it ends the answer."""
        kind, response = event.get("type"), event.get("response")
        if isinstance(response, dict) and isinstance(response.get("id"), str):
            self.id = response["id"]
        if kind in ENDS and isinstance(response, dict):
            self.response, self.problem = response, error_of(response)
            return True
        if kind == "error":
            self.problem = f"the backend answers with an error: {event.get('message')}"
            return True
        self._say(str(kind), event)
        return False

    def output(self) -> list[Any]:
        """Return the items that were said."""
        if self.response is not None and isinstance(self.response.get("output"), list):
            return list(self.response["output"])
        return [self._items[place] for place in sorted(self._items)]

    def _say(self, kind: str, event: Mapping[str, Any]) -> None:
        place, item, delta = event.get("output_index"), event.get("item"), event.get("delta")
        if type(place) is not int:
            return
        if isinstance(item, dict) and kind.startswith("response.output_item."):
            self._items[place] = dict(item)
            return
        if not isinstance(delta, str):
            return
        self.begun = True
        mine = self._items.setdefault(place, {"type": "message"})
        for end, name in (("output_text.delta", "text"), ("refusal.delta", "refusal")):
            if kind.endswith(end):
                parts = list(mine.get("content") or ())
                mine["content"] = [*parts, {"type": f"output_{name}", name: delta}]
        for end, name in (("arguments.delta", "arguments"), ("input.delta", "input")):
            if kind.endswith(end):
                mine[name] = str(mine.get(name) or "") + delta


def _turns(items: Iterator[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield items as turns; calls belong to the turn of the assistant that they follow."""
    held: dict[str, Any] | None = None
    for item in items:
        kind = item.get("type", "message")
        if kind in _CALLS:
            held = held or {"role": "assistant", "content": None}
            held.setdefault("tool_calls", []).append(_call(item))
            continue
        turn = _turn(item, kind)
        if turn is None:
            continue
        if held is not None:
            yield held
            held = None
        if turn["role"] == "assistant" and kind == "message":
            held = turn
        else:
            yield turn
    if held is not None:
        yield held


def _turn(item: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    if kind == "reasoning":  # for the server alone
        return None
    if kind in _OUTPUTS:
        content = _content(item.get("output"))
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
    if kind != "message":  # what the server did by itself
        return {"role": "assistant", "content": [dict(item)]}
    role = item.get("role")
    known = role in ("system", "developer", "user", "assistant")
    turn = {"role": role if known else "user", "content": _content(item.get("content"))}
    content = item.get("content")
    refusals = [
        part["refusal"]
        for part in (content if isinstance(content, list) else ())
        if isinstance(part, Mapping) and isinstance(part.get("refusal"), str)
    ]
    return turn | ({"refusal": "".join(refusals)} if refusals else {})


def _content(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    parts = [_part(part) for part in given if isinstance(part, Mapping) and "refusal" not in part]
    if parts and all(part.keys() == {"type", "text"} for part in parts) and len(parts) == 1:
        return parts[0]["text"]
    return parts or None


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    rest = {name: value for name, value in part.items() if name != "type" and value is not None}
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        url = rest.pop("image_url")
        return {"type": "image_url", "image_url": {"url": url, **rest}}
    if kind == "input_file":
        return {"type": "file", "file": rest}
    return dict(part)


def _call(item: Mapping[str, Any]) -> dict[str, Any]:
    name = item.get("name")
    if item.get("type") == "custom_tool_call":
        custom = {"name": name, "input": item.get("input") or ""}
        return {"id": item.get("call_id"), "type": "custom", "custom": custom}
    function = {"name": name, "arguments": item.get("arguments") or ""}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _nested(given: Any, kind: str) -> Any:
    """Return a tool or form in the shape of chat completions, which nest what it is."""
    if not isinstance(given, Mapping) or given.get("type") != kind or kind in given:
        return given
    return {"type": kind, kind: {name: value for name, value in given.items() if name != "type"}}
