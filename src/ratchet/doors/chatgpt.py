"""ChatGPT: the export of one's data (`conversations.json`, `message_feedback.json`).

A conversation is a tree of messages (`mapping`). Answers are what the assistant said to the user
(`recipient` all); what it said to its tools, and what these said, stand in the conversation before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.doors.chats import Chat, ChatMessage, answers_of
from ratchet.doors.door import Door, Given, Translation, door_id
from ratchet.doors.scores import feedback_of
from ratchet.doors.times import utc
from ratchet.doors.turns import ROLES, parsed

NAME = "chatgpt"
_MAPPING, _MESSAGE, _PARENT = "mapping", "message", "parent"
_CONVERSATION = ("conversation_id", "id")
_HIDDEN = frozenset(
    {"thoughts", "reasoning_recap", "user_editable_context", "model_editable_context"}
)
_RATING = "rating"


def _recognises(row: Mapping[str, Any]) -> bool:
    if _RATING in row and "conversation_id" in row and "content" in row:
        return isinstance(row[_RATING], str) and row[_RATING].startswith("thumbs")
    mapping = row.get(_MAPPING)
    return isinstance(mapping, Mapping) and all(
        isinstance(node, Mapping) and _PARENT in node for node in mapping.values()
    )


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    if _RATING in row and _MAPPING not in row:
        yield from _feedback(row, given)
        return
    key = str(next(row[name] for name in _CONVERSATION if row.get(name)))
    at = utc(row.get("update_time") or row.get("create_time")) or given.at
    chat = Chat(NAME, key, row.get("user_id"), at, row.get("default_model_slug"))
    messages = [
        _message(node, row[_MAPPING]) for node in row[_MAPPING].values() if node.get(_MESSAGE)
    ]
    yield from answers_of(chat, messages)


def _message(node: Mapping[str, Any], nodes: Mapping[str, Any]) -> ChatMessage:
    message = node[_MESSAGE]
    name = (message.get("author") or {}).get("role")
    role = ROLES.get(str(name), "user")
    words, about = _content(message.get("content") or {}), message.get("metadata") or {}
    is_answer = role == "assistant" and message.get("recipient", "all") == "all" and bool(words)
    return ChatMessage(
        key=str(node["id"]),
        parent=_parent(node, nodes),
        turn={"role": role, "content": words},
        at=utc(message.get("create_time")),
        model=about.get("model_slug") if role == "assistant" else None,
        is_answer=is_answer,
        more={"metadata": {"finish_reason": _ended(about)}} if is_answer and _ended(about) else {},
    )


def _parent(node: Mapping[str, Any], nodes: Mapping[str, Any]) -> str | None:
    """Return the message before one; nodes without a message stand for nothing."""
    parent, seen = node.get(_PARENT), set[str]()
    while parent is not None and parent not in seen and not (nodes.get(parent) or {}).get(_MESSAGE):
        seen.add(parent)
        parent = (nodes.get(parent) or {}).get(_PARENT)
    return parent


def _content(content: Mapping[str, Any]) -> Any:
    """Return words or parts; nothing of what the model thought to itself."""
    if content.get("content_type") in _HIDDEN:
        return ""
    if isinstance(content.get("text"), str):
        return content["text"]
    parts = [part for part in content.get("parts") or () if part]
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts)
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {**part, "type": str(part.get("content_type") or "part")}
        for part in parts
    ]


def _ended(about: Mapping[str, Any]) -> str:
    details = about.get("finish_details")
    return str(details.get("type") or "") if isinstance(details, Mapping) else ""


def _feedback(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    chat, message = str(row["conversation_id"]), str(row.get("message_id") or row["id"])
    said = parsed(row.get("content"))
    at = utc(row.get("create_time")) or given.at
    event = {
        "id": door_id(NAME, "feedback", chat, message),
        "interaction_id": door_id(NAME, chat, message),
        "created_at": at,
        "updated_at": utc(row.get("update_time")) or at,
    }
    comment = said.get("text") if isinstance(said, Mapping) else None
    yield from feedback_of("thumbs", row[_RATING], event, comment=comment)


DOOR = Door(
    name=NAME,
    holds="ChatGPT's export: conversations and feedback",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "the conversation's and the message's id",
        "session_id": "conversation_id",
        "user_id": "user_id, where there is one",
        "created_at": "create_time of the message",
        "model_version": "metadata.model_slug of the message",
        "messages, response": "content.parts, by parent",
        "thumbs, comment": "rating and content of message_feedback.json",
        "regenerate": "another answer to the same message",
    },
    is_timeless=True,
)
