"""open-webui: its export of feedback, and its exports of chats (of a user, of all users).

A record of feedback holds the chat as it was rated; a chat holds what was rated in `annotation`.
Both come in under the same ids, so that either, or both in any order, are the same answers and the
same feedback. A rating is a thumb; its reason and its comment are comments. Answers that a user
asked for anew are told as such (`ratchet.doors.chats`). Older exports lack reason and comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.doors.chats import Chat, ChatMessage, answers_of
from ratchet.doors.door import Door, Given, Refused, Translation, door_id
from ratchet.doors.metadata import texts_of
from ratchet.doors.scores import feedback_of
from ratchet.doors.times import utc
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

NAME = "open_webui"
_RATED, _SNAPSHOT, _META = "data", "snapshot", "meta"
_RATING, _REASON, _COMMENT = "rating", "reason", "comment"
_HISTORY, _MESSAGES, _ANNOTATION = "history", "messages", "annotation"
_ABOUT = ("finish_reason", "modelName", "usage", "sources")


def _recognises(row: Mapping[str, Any]) -> bool:
    if _SNAPSHOT in row and isinstance(row.get(_RATED), Mapping):
        return _RATING in row[_RATED]
    return _history(row) is not None


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    if isinstance(row.get(_RATED), Mapping) and _SNAPSHOT in row:
        yield from _feedback(row, given)
        return
    chat, messages = _chat(row, row.get("user_id"), given)
    yield from answers_of(chat, messages)
    for key, message in (_history(row) or {}).items():
        annotation = message.get(_ANNOTATION)
        if isinstance(annotation, Mapping) and message.get("role") == "assistant":
            at = utc(message.get("timestamp")) or chat.at
            yield from _rating(chat, key, annotation, {"created_at": at, "updated_at": at})


def _feedback(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    meta = row.get(_META) or {}
    snapshot = (row.get(_SNAPSHOT) or {}).get("chat")
    if not isinstance(snapshot, Mapping) or _history(snapshot) is None:
        held = snapshot
        raise InvalidInputError(
            "a record of feedback must hold the chat that was rated, got "
            f"{printable(repr(held), 80)}; export it with its snapshot"
        )
    key, message = meta.get("chat_id") or snapshot.get("id"), meta.get("message_id")
    chat, messages = _chat({**snapshot, "id": key}, row.get("user_id"), given)
    yield from answers_of(chat, messages)
    if not any(one.key == message for one in messages):
        yield Refused(
            "feedback must be on a message of its chat, got "
            f"{printable(repr(message), 60)}, which is not there; export the chat again"
        )
        return
    at, changed = utc(row.get("created_at")), utc(row.get("updated_at"))
    yield from _rating(
        chat, str(message), row[_RATED], {"created_at": at or chat.at, "updated_at": changed or at}
    )


def _rating(
    chat: Chat, message: str, rating: Mapping[str, Any], times: Mapping[str, Any]
) -> Iterator[Translation]:
    event = {
        "id": door_id(NAME, "rating", chat.key, message),
        "interaction_id": chat.answer_id(message),
        "user_id": chat.user,
        **times,
    }
    reason, value = rating.get(_REASON), rating.get(_RATING)
    if isinstance(reason, str) and reason:
        yield from feedback_of(
            _REASON,
            None,
            {**event, "id": door_id(event["id"], _REASON)},
            comment=reason.replace("_", " "),
        )
    if value in (0, None) and not rating.get(_COMMENT):
        yield Passed("a rating that was taken back")
        return
    yield from feedback_of("thumbs", value or None, event, comment=rating.get(_COMMENT))


def _chat(row: Mapping[str, Any], user: Any, given: Given) -> tuple[Chat, list[ChatMessage]]:
    inner = row.get("chat") if isinstance(row.get("chat"), Mapping) else row
    assert isinstance(inner, Mapping)
    models = inner.get("models") or [None]
    at = utc(row.get("updated_at") or inner.get("timestamp")) or given.at
    key = str(row.get("id") or inner.get("id") or "")
    owner = user or row.get("user_id")
    chat = Chat(NAME, key, str(owner) if owner else None, at, models[0])
    found = sorted((_history(row) or {}).values(), key=lambda one: one.get("timestamp") or 0)
    return chat, [_message(one) for one in found if isinstance(one, Mapping)]


def _message(message: Mapping[str, Any]) -> ChatMessage:
    role, error = message.get("role"), message.get("error")
    if isinstance(error, Mapping):
        error = error.get("content") or error.get("message") or "error"
    more: dict[str, Any] = {"error": str(error)} if error else {}
    if metadata := texts_of({name: message.get(name) for name in _ABOUT}):
        more["metadata"] = metadata
    known = role in ("system", "user", "assistant", "tool")
    return ChatMessage(
        key=str(message.get("id")),
        parent=message.get("parentId"),
        turn={"role": role if known else "user", "content": message.get("content") or ""},
        at=utc(message.get("timestamp")),
        model=message.get("model") if role == "assistant" else None,
        is_answer=role == "assistant",
        more=more,
    )


def _history(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a chat's messages by id; None where it is no chat."""
    inner = row.get("chat") if isinstance(row.get("chat"), Mapping) else row
    assert isinstance(inner, Mapping)
    history = inner.get(_HISTORY)
    found = history.get(_MESSAGES) if isinstance(history, Mapping) else None
    return found if isinstance(found, Mapping) else None


DOOR = Door(
    name=NAME,
    holds="open-webui: feedback, or chats",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "the chat's and the message's id",
        "session_id": "the chat's id",
        "user_id": "user_id",
        "created_at": "timestamp of the message",
        "model_version": "model of the message",
        "messages, response": "content of the messages by parentId",
        "thumbs": "rating: 1 up, -1 down",
        "comment": "reason; comment",
        "regenerate": "another answer of the same model to the same message",
    },
    as_json=("chat", "data", "meta", "snapshot"),
)
