"""Chats as trees of messages: each answer is an interaction, and one asked for anew is told.

A chat may hold several answers to one message. All but the last of those that one model gave were
asked for anew (`regenerate`), which curation makes pairs of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.doors.door import PLACE, UNKNOWN_MODEL, UNKNOWN_USER, Refused, Translation, door_id
from ratchet.files.text import printable

NOBODY_ASKED = "an opening of the assistant, which answers nobody"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A message of a chat.

    Attributes:
        key: Its id in the chat.
        parent: The id of the message before it; None of the first one.
        turn: It as a turn.
        at: When it was sent; None where that is not known.
        model: Who answered, of an answer.
        is_answer: Whether people were shown it as an answer.
        more: Further fields of the interaction: an error, metadata.
    """

    key: str
    parent: str | None
    turn: Mapping[str, Any]
    at: Any = None
    model: str | None = None
    is_answer: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Its words, also where they come in parts."""
        content = self.turn.get("content")
        if isinstance(content, list):
            return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
        return content or ""

    @property
    def says(self) -> bool:
        """Whether it has words, calls or an error, without which it is no answer."""
        return bool(self.words or self.turn.get("tool_calls") or self.more.get("error"))


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat of a tool.

    Attributes:
        door: Name of the door.
        key: The chat's id there.
        user: Who asked.
        at: The time of what has none.
        model: Who answers where a message does not say.
    """

    door: str
    key: str
    user: str | None
    at: Any
    model: str | None = None

    def answer_id(self, message: str) -> str:
        """Return the id of the interaction that a message is."""
        return door_id(self.door, self.key, message)


def answers_of(chat: Chat, messages: Sequence[ChatMessage]) -> Iterator[Translation]:
    """Yield an interaction for each answer of a chat, and which of them were asked for anew."""
    by_key = {message.key: message for message in messages}
    siblings: dict[tuple[str | None, str | None], list[ChatMessage]] = defaultdict(list)
    for message in messages:
        if message.is_answer:
            before = _before(message, by_key)
            if not any(one.turn.get("role") == "user" for one in before):
                yield Passed(NOBODY_ASKED)
                continue
            yield _interaction(chat, message, before)
            siblings[message.parent, message.model].append(message)
    for several in siblings.values():
        for one, following in pairwise(several):
            if one.says:
                yield asked_anew(chat, one, following.at)


def asked_anew(chat: Chat, message: ChatMessage, at: Any) -> Mapping[str, Any]:
    """Return that a user asked for another answer in the place of this one."""
    key = chat.answer_id(message.key)
    return {
        "id": door_id(key, "regenerate"),
        "interaction_id": key,
        "created_at": at or message.at or chat.at,
        "user_id": chat.user,
        "kind": "regenerate",
        "value": True,
    }


def in_a_row(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return messages of a chat without branches, each after the one before it."""
    keys = [None, *(message.key for message in messages)]
    return [
        replace(message, parent=before) for message, before in zip(messages, keys, strict=False)
    ]


def _before(message: ChatMessage, by_key: Mapping[str, ChatMessage]) -> list[ChatMessage]:
    """Return what was said before a message, in its branch."""
    found: list[ChatMessage] = []
    seen = {message.key}
    parent = message.parent
    while parent is not None and parent in by_key and parent not in seen:
        seen.add(parent)  # a circle, which no tool writes, ends here
        found.append(by_key[parent])
        parent = by_key[parent].parent
    return found[::-1]


def _interaction(
    chat: Chat, message: ChatMessage, before: Sequence[ChatMessage]
) -> Mapping[str, Any] | Refused:
    place, turn, words = f"message {printable(message.key, 40)}", message.turn, message.words
    if not message.says:
        return Refused(
            "an answer must have words, calls or an error, got none; leave it out, or export the "
            "chat once it is answered",
            place,
        )
    said = [
        dict(one.turn) for one in before if one.turn.get("content") or one.turn.get("tool_calls")
    ]
    made = {
        "id": chat.answer_id(message.key),
        "session_id": chat.key,
        "user_id": chat.user or UNKNOWN_USER,
        "created_at": message.at or (before[-1].at if before else None) or chat.at,
        "model_version": message.model or chat.model or UNKNOWN_MODEL,
        "messages": said,
        "response": words,
        PLACE: place,
        **message.more,
    }
    return made | {"tool_calls": turn["tool_calls"]} if turn.get("tool_calls") else made
