"""LibreChat: exported conversations, and its collection of messages.

A conversation is a tree of messages, nested under `children` or named by `parentMessageId`. An
answer to the same message that came later was asked for anew. Feedback lies in the message: a
thumb, a reason (`tag`) and words. Of the collection (a message a row, as `mongoexport` writes it)
messages find those before them where these come first, in the order of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.doors.chats import Chat, ChatMessage, answers_of, asked_anew
from ratchet.doors.door import Door, Given, Refused, Translation
from ratchet.doors.scores import feedback_of
from ratchet.doors.times import utc
from ratchet.files.text import printable
from ratchet.records import derive_id

NAME = "librechat"
_MESSAGE, _PARENT, _BY_USER = "messageId", "parentMessageId", "isCreatedByUser"
_CHAT, _CHILDREN, _FEEDBACK = "conversationId", "children", "feedback"
_THUMBS = {"thumbsUp": "up", "thumbsDown": "down"}


def _recognises(row: Mapping[str, Any]) -> bool:
    if _CHAT not in row:
        return False
    messages = row.get("messages")
    if isinstance(messages, list):
        return not messages or (isinstance(messages[0], Mapping) and _MESSAGE in messages[0])
    return _MESSAGE in row and _BY_USER in row


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    if isinstance(row.get("messages"), list):
        yield from _conversation(row, given)
        return
    key, before = str(row[_CHAT]), given.kept.setdefault(str(row[_CHAT]), [])
    message = _message(row, row.get(_PARENT))
    earlier = [one for one in before if one.parent == message.parent and one.is_answer and one.says]
    before.append(message)
    if not message.is_answer:
        yield Passed("a message of a user, which stands before its answer")
        return
    chat = Chat(NAME, key, _text(row.get("user")), message.at or given.at, message.model)
    silent = [replace(one, is_answer=False) for one in before[:-1]]
    yield from answers_of(chat, [*silent, message])
    if earlier and earlier[-1].model == message.model:
        yield asked_anew(chat, earlier[-1], message.at or given.at)
    yield from _said(chat, row, message, given)


def _conversation(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    held = list(_flat(row["messages"], None))
    messages = [_message(one, parent) for one, parent in held]
    options = row.get("options") or {}
    at = utc(row.get("updatedAt") or row.get("createdAt")) or given.at
    user, model = _text(row.get("user")), _text(options.get("model") or row.get("endpoint"))
    chat = Chat(NAME, str(row[_CHAT]), user, at, model)
    yield from answers_of(chat, messages)
    for (one, _), message in zip(held, messages, strict=True):
        yield from _said(chat, one, message, given)


def _flat(
    messages: Sequence[Mapping[str, Any]], parent: str | None
) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Yield messages with those before them, parents first."""
    waiting = [(one, one.get(_PARENT) or parent) for one in reversed(messages)]
    while waiting:
        one, before = waiting.pop()
        yield one, before
        children = one.get(_CHILDREN) or ()
        waiting += [(child, one[_MESSAGE]) for child in reversed(children)]


def _message(one: Mapping[str, Any], parent: Any) -> ChatMessage:
    is_answer = not one.get(_BY_USER)
    words = _words(one)
    more: dict[str, Any] = {}
    if is_answer and one.get("error"):
        more, words = {"error": words or "the answer failed"}, ""
    elif is_answer and one.get("finish_reason"):
        more = {"metadata": {"finish_reason": str(one["finish_reason"])}}
    return ChatMessage(
        key=str(one[_MESSAGE]),
        parent=_text(parent),
        turn={"role": "assistant" if is_answer else "user", "content": words},
        at=utc(_date(one.get("createdAt"))),
        model=_text(one.get("model") or one.get("endpoint")) if is_answer else None,
        is_answer=is_answer,
        more=more,
    )


def _words(one: Mapping[str, Any]) -> str:
    """Return what a message says: its text, or the text of its parts without what was thought."""
    parts = one.get("content")
    if not isinstance(parts, list) or not parts:
        return str(one.get("text") or "")
    found = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else None
        if isinstance(text, Mapping):
            text = text.get("value")
        if isinstance(text, str) and part.get("type") == "text":
            found.append(text)
    return "\n".join(found)


def _said(
    chat: Chat, one: Mapping[str, Any], message: ChatMessage, given: Given
) -> Iterator[Translation]:
    feedback = one.get(_FEEDBACK)
    if not (message.is_answer and isinstance(feedback, Mapping)):
        return
    about = chat.answer_id(message.key)
    at = message.at or chat.at
    event = {
        "id": derive_id(about, "feedback"),
        "interaction_id": about,
        "created_at": at,
        "updated_at": utc(_date(one.get("updatedAt"))) or at,
        "user_id": chat.user,
    }
    tag = feedback.get("tag")
    tag = tag.get("key") if isinstance(tag, Mapping) else tag
    told = feedback.get("rating")
    rating = _THUMBS.get(str(told))
    if told and rating is None:
        yield Refused(
            f"a rating must be {' or '.join(_THUMBS)}, got {printable(repr(told), 40)}; check the "
            "export",
            f"message {printable(message.key, 40)}",
        )
    kinds = given.scores
    yield from feedback_of("thumbs", rating, event, comment=feedback.get("text"), kinds=kinds)
    if isinstance(tag, str) and tag:
        reason = {**event, "id": derive_id(about, "reason")}
        yield from feedback_of("reason", None, reason, comment=tag.replace("_", " "))


def _date(value: Any) -> Any:
    """Return a time, also as MongoDB's extended JSON writes it."""
    return value.get("$date") if isinstance(value, Mapping) else value


def _text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("$oid")
    return None if value is None or value == "" else str(value)


DOOR = Door(
    name=NAME,
    holds="LibreChat: conversations or messages, with feedback",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "conversationId and messageId",
        "session_id": "conversationId",
        "user_id": "user, where there is one",
        "created_at": "createdAt of the message",
        "model_version": "model of the message, of the options, else endpoint",
        "messages, response": "text, or the text of content, by parentMessageId or children",
        "error": "text, where error is set",
        "thumbs, comment": "feedback: rating, text and tag",
        "regenerate": "another answer to the same message",
    },
    is_timeless=True,
)
