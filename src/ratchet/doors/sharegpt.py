"""ShareGPT and other sets of conversations: `conversations` of from and value, or `messages`.

They know no time and no user. Each answer of the assistant is an interaction with what was said
before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.doors.chats import Chat, ChatMessage, answers_of, in_a_row
from ratchet.doors.door import Door, Given, Translation, door_id
from ratchet.doors.metadata import texts_of
from ratchet.doors.times import utc
from ratchet.doors.turns import ROLES, call, content
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.records import digest

NAME = "sharegpt"
_LISTS = ("conversations", "conversation", "messages", "dialog")
_ROLE, _WORDS = ("from", "role", "speaker"), ("value", "content", "text")
_KEYS = ("id", "conversation_id", "uuid")
_NOT_OURS = ("choices", "response", "model_version", "request_id", "request")
_TIMES = ("created_at", "timestamp", "tstamp", "date")


def _recognises(row: Mapping[str, Any]) -> bool:
    found = _list(row)
    if not found or any(name in row for name in _NOT_OURS):
        return False
    first = found[0]
    return isinstance(first, Mapping) and _first(first, _ROLE) is not None


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    found = _list(row)
    if not found:
        raise InvalidInputError(
            f"a row must hold a list of turns ({', '.join(_LISTS)}), got "
            f"{printable(', '.join(map(str, row)), 80)}; name its format by --as"
        )
    key = str(_first(row, _KEYS) or digest(found))
    user = _first(row, ("user_id", "user"))
    at = utc(_first(row, _TIMES)) or given.at
    model = _first(row, ("model", "model_version"))
    chat = Chat(NAME, _session(key), user and str(user), at, model and str(model))
    turns = [_turn(one) for one in found]
    if isinstance(row.get("system"), str) and row["system"]:
        turns.insert(0, {"role": "system", "content": row["system"]})
    more = {"metadata": labels} if (labels := texts_of({"language": row.get("language")})) else {}
    messages = [
        ChatMessage(
            str(place), None, turn, is_answer=turn["role"] == "assistant" and _is_shown(turn),
            more=more,
        )
        for place, turn in enumerate(turns)
    ]  # fmt: skip
    yield from answers_of(chat, in_a_row(messages))


def _session(key: str) -> str:
    return key if len(key) <= 200 else door_id(NAME, key)


def _turn(value: object) -> dict[str, Any]:
    name = _first(value, _ROLE) if isinstance(value, Mapping) else None
    role = ROLES.get(str(name).lower())
    if role is None or not isinstance(value, Mapping):
        raise InvalidInputError(
            f"a turn must say who speaks ({', '.join(ROLES)}), got {printable(repr(value), 80)}; "
            "correct the row"
        )
    made: dict[str, Any] = {"role": role, "content": content(_first(value, _WORDS))}
    if value.get("tool_calls"):
        made["tool_calls"] = [call(one) for one in value["tool_calls"]]
    if value.get("tool_call_id"):
        made["tool_call_id"] = value["tool_call_id"]
    return made


def _is_shown(turn: Mapping[str, Any]) -> bool:
    return bool(turn.get("content") or turn.get("tool_calls"))


def _list(row: Mapping[str, Any]) -> list[Any]:
    found = _first(row, _LISTS)
    return found if isinstance(found, list) else []


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


DOOR = Door(
    name=NAME,
    holds="conversations: ShareGPT, or rows with `messages`",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "id of the row and place of the turn; without an id, of what was said",
        "session_id": "id of the row",
        "user_id": "user_id, user; else unknown",
        "created_at": "created_at, timestamp; else the time of the first import",
        "model_version": "model; else unknown",
        "messages, response": "from and value, or role and content",
    },
    as_json=_LISTS,
    is_timeless=True,
)
