"""What was said in a stored conversation, in a form in which turns can be compared.

The instructions of an application (system and developer turns) are left out, since it may write
them anew every time, and so is the space around words, which clients trim.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ratchet.records import APPLICATION_ROLES
from ratchet.records.conversations import words_of
from ratchet.store.following import StoredExchange

_TOOLS = ("tool", "function")


class Turn(NamedTuple):
    """A turn: who, its words, and what else a user sent (pictures, files) as JSON in one form.

    An answer is compared by its words: what it calls is written anew by many clients.
    """

    role: str
    words: str
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """An answer in the history of a later request.

    Attributes:
        digest: Of everything said up to that answer, the answer included.
        by_user: Whether the user's turn follows it; else the application goes on by itself, as it
            does with the result of a tool.
        words: What the user wrote then.
    """

    digest: bytes
    by_user: bool
    words: str


@dataclass(frozen=True, slots=True)
class Said:
    """What an interaction says, by digests.

    Attributes:
        asked: Everything up to the user's last turn.
        before: Everything before that turn.
        question: The words of that turn; empty where there is none.
        ends_with_user: Whether nothing follows the user's last turn in the request.
        answered: Everything up to the answer.
        reached: The answers in the request's history.
    """

    asked: bytes
    before: bytes
    question: str
    ends_with_user: bool
    answered: bytes
    reached: tuple[Reached, ...]

    @property
    def has_history(self) -> bool:
        """Whether an answer was given before the last question."""
        return bool(self.reached)


def turns_of(messages: Iterable[Mapping[str, Any]]) -> list[Turn]:
    """Return the turns of a request that somebody said."""
    return [_turn(message) for message in messages if message.get("role") not in APPLICATION_ROLES]


def answer_turn(exchange: StoredExchange) -> Turn:
    """Return the answer of an interaction as the turn that a later request holds."""
    return Turn("assistant", exchange.response.strip())


def turns_of_user(exchange: StoredExchange) -> int:
    """Return how many turns of the user an interaction has; its turns must have been read."""
    return sum(message.get("role") == "user" for message in exchange.messages or ())


def said_in(exchange: StoredExchange) -> Said:
    """Return what an interaction says; its turns must have been read."""
    turns = turns_of(exchange.messages or ())
    digests = _running(turns)
    users = [place for place, turn in enumerate(turns) if turn.role == "user"]
    last = users[-1] if users else -1
    return Said(
        asked=digests[last + 1],
        before=digests[max(last, 0)],
        question=turns[last].words if users else "",
        ends_with_user=bool(users) and last == len(turns) - 1,
        answered=_add(digests[-1], answer_turn(exchange)),
        reached=tuple(_reached(turns, digests)),
    )


def _reached(turns: Sequence[Turn], digests: Sequence[bytes]) -> Iterable[Reached]:
    for place, turn in enumerate(turns):
        if turn.role == "assistant":
            following = turns[place + 1] if place + 1 < len(turns) else None
            by_user = following is not None and following.role == "user"
            words = following.words if following is not None and by_user else ""
            yield Reached(digests[place + 1], by_user, words)


def _turn(message: Mapping[str, Any]) -> Turn:
    content, role, beside = message.get("content"), str(message.get("role")), ""
    if isinstance(content, list | tuple) and role != "assistant":
        others = [part for part in content if not isinstance(part.get("text"), str)]
        beside = json.dumps(others, sort_keys=True) if others else ""
    return Turn("tool" if role in _TOOLS else role, words_of(content).strip(), beside)


def _running(turns: Iterable[Turn]) -> list[bytes]:
    """Return the digest of the first 0, 1, 2 ... turns."""
    found = [b""]
    for turn in turns:
        found.append(_add(found[-1], turn))
    return found


def _add(digest: bytes, turn: Turn) -> bytes:
    return hashlib.sha256(digest + str(tuple(turn)).encode()).digest()
