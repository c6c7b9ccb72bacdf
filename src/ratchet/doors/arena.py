"""Battles of an arena: two models answered the same, and a person said which was better.

Both answers are interactions of one session. The one that lost counts as asked for anew, and the
one that won as the answer after it, of which curation makes a pair. A tie says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from ratchet.doors.door import PLACE, UNKNOWN_USER, Door, Given, Translation, door_id
from ratchet.doors.metadata import texts_of
from ratchet.doors.times import instant
from ratchet.doors.turns import answer, conversation, parsed
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.records import derive_id, digest

NAME = "arena"
_SIDES = ("a", "b")
_WINNER = "winner"
_IDS = ("question_id", "id", "evaluation_session_id", "conversation_id")
_TIMES = ("tstamp", "timestamp", "created_at")
_JUDGES = ("judge", "judge_hash", "user_id")
_ABOUT = ("language", "turn", "anony", "category")


def _recognises(row: Mapping[str, Any]) -> bool:
    asked = "conversation_a" in row or ("response_a" in row and "prompt" in row)
    return "model_a" in row and "model_b" in row and asked


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    key = next((row[name] for name in _IDS if row.get(name)), None)
    battle = str(key) if key is not None else digest(repr(sorted(row.items(), key=str)))
    at = next((found for name in _TIMES if (found := instant(row.get(name)))), given.at)
    winner = _winner(row)
    sides = _SIDES if winner != "a" else _SIDES[::-1]  # the one that won comes after
    for number, side in enumerate(sides):
        yield _interaction(row, battle, side, at + timedelta(milliseconds=number))
    if winner is not None:
        loser = door_id(NAME, battle, sides[0])
        yield {
            "id": derive_id(loser, "regenerate"),
            "interaction_id": loser,
            "created_at": at + timedelta(milliseconds=1),
            "kind": "regenerate",
            "value": True,
        }


def _winner(row: Mapping[str, Any]) -> str | None:
    """Return the side that won; None of a tie.

    Raises:
        InvalidInputError: The row does not say.
    """
    told = row.get(_WINNER)
    if told is None:
        by_column = {side: row.get(f"winner_model_{side}") for side in _SIDES}
        won = [side for side, given in by_column.items() if given in (1, True, "1")]
        if len(won) == 1 or any(given is not None for given in by_column.values()):
            return won[0] if won else None
    found = str(told).lower()
    for side in _SIDES:
        if found in (side, f"model_{side}", str(row[f"model_{side}"]).lower()):
            return side
    if "tie" in found or "both" in found or found == "neither":
        return None
    raise InvalidInputError(
        f"a battle must say who won (model_a, model_b, tie), got {printable(repr(told), 40)}; "
        "check the export"
    )


def _interaction(row: Mapping[str, Any], battle: str, side: str, at: datetime) -> Mapping[str, Any]:
    said = parsed(row.get(f"conversation_{side}"))
    if said is not None:
        turns = conversation(said)
        asked, told = turns[:-1], turns[-1]
    else:
        asked, told = _single(row, side)
    return {
        "id": door_id(NAME, battle, side),
        "session_id": battle,
        "user_id": str(next((row[name] for name in _JUDGES if row.get(name)), UNKNOWN_USER)),
        "created_at": at,
        "model_version": str(row[f"model_{side}"]),
        "messages": asked,
        **answer(told).fields(),
        "metadata": texts_of({name: row.get(name) for name in _ABOUT}),
        PLACE: f"model {side}",
    }


def _single(row: Mapping[str, Any], side: str) -> tuple[list[dict[str, Any]], Any]:
    """Return the turns of a row with prompts and answers in lists of the same length."""
    prompts, answers = parsed(row["prompt"]), parsed(row[f"response_{side}"])
    prompts = prompts if isinstance(prompts, list) else [prompts]
    answers = answers if isinstance(answers, list) else [answers]
    turns: list[dict[str, Any]] = []
    for prompt, told in zip(prompts, answers, strict=False):
        turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": told}]
    return turns[:-1], turns[-1]


DOOR = Door(
    name=NAME,
    holds="battles of an arena, as pairs",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "question_id or id, and the side",
        "session_id": "the battle",
        "user_id": "judge or judge_hash",
        "created_at": "tstamp or timestamp; that of who won a millisecond later",
        "model_version": "model_a, model_b",
        "messages, response": "conversation_a and conversation_b, or prompt and response_a, _b",
        "regenerate": "winner: the answer that lost",
    },
    is_timeless=True,
)
