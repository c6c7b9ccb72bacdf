"""Claude: the export of one's data (`conversations.json`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ratchet.doors.chats import Chat, ChatMessage, answers_of, in_a_row
from ratchet.doors.door import Door, Given, Translation
from ratchet.doors.times import utc
from ratchet.doors.turns import ROLES

NAME = "anthropic"
_MESSAGES, _SENDER, _PARENT = "chat_messages", "sender", "parent_message_uuid"


def _recognises(row: Mapping[str, Any]) -> bool:
    return "uuid" in row and isinstance(row.get(_MESSAGES), list)


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    account = row.get("account")
    user = account.get("uuid") if isinstance(account, Mapping) else None
    at = utc(row.get("updated_at") or row.get("created_at")) or given.at
    chat = Chat(NAME, str(row["uuid"]), user, at, row.get("model"))
    found = [_message(one) for one in row[_MESSAGES]]
    keys = {message.key for message in found}
    branched = [
        replace(message, parent=one[_PARENT]) if one.get(_PARENT) in keys else message
        for message, one in zip(in_a_row(found), row[_MESSAGES], strict=True)
    ]
    if any(one.get(_PARENT) for one in row[_MESSAGES]):  # the root's parent is no message
        branched = [
            message if one.get(_PARENT) in keys else replace(message, parent=None)
            for message, one in zip(branched, row[_MESSAGES], strict=True)
        ]
    yield from answers_of(chat, branched)


def _message(message: Mapping[str, Any]) -> ChatMessage:
    role = ROLES.get(str(message.get(_SENDER)), "user")
    turn = _turn(message, role)
    return ChatMessage(
        key=str(message["uuid"]),
        parent=None,
        turn=turn,
        at=utc(message.get("created_at")),
        model=message.get("model") if role == "assistant" else None,
        is_answer=role == "assistant",
        more={"metadata": {"finish_reason": str(message["stop_reason"])}}
        if message.get("stop_reason") and role == "assistant"
        else {},
    )


def _turn(message: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return a message as a turn: its words, calls of tools, and files as their words."""
    blocks = [one for one in message.get("content") or () if isinstance(one, Mapping)]
    words = [one["text"] for one in blocks if one.get("type") == "text" and one.get("text")]
    if not words and message.get("text"):
        words = [str(message["text"])]
    for file in message.get("attachments") or ():
        if isinstance(file, Mapping) and file.get("extracted_content"):
            words.append(f"{file.get('file_name') or 'file'}:\n{file['extracted_content']}")
    turn: dict[str, Any] = {"role": role, "content": "\n".join(words)}
    calls = [_call(one) for one in blocks if one.get("type") == "tool_use"]
    return turn | {"tool_calls": calls} if calls and role == "assistant" else turn


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": str(block.get("name") or ""), "arguments": arguments}
    made: dict[str, Any] = {"type": "function", "function": function}
    return {"id": str(block["id"]), **made} if block.get("id") else made


DOOR = Door(
    name=NAME,
    holds="Claude's export: conversations",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "uuid of the conversation and of the message",
        "session_id": "uuid of the conversation",
        "user_id": "account.uuid",
        "created_at": "created_at of the message",
        "model_version": "model, where there is one",
        "messages, response": "content or text of chat_messages, attachments as their words",
        "regenerate": "another answer to the same message",
    },
    is_timeless=True,
)
