"""Whole sessions as a judge of sessions sees them: all turns in order, ending with an answer.

    items = session_items(store, answers)     # the last answers of sessions

A session is named by its last answer: labels, verdicts and scores are about that interaction, so
that a session that goes on later is another item. A verdict names every interaction that it shows:
whichever is erased takes it along.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.judges.prompts import Item
from ratchet.records import (
    APPLICATION_ROLES,
    Interaction,
    Message,
    called_in,
    offered,
    spoken,
)
from ratchet.store import EventStore
from ratchet.store.sessions import up_to


def session_items(store: EventStore, answers: Sequence[Interaction]) -> list[Item]:
    """Return the sessions that end with these answers, with the tools that could be called."""
    return [_item(store, last) for last in answers]


def turns_of(session: Sequence[Interaction]) -> tuple[Message, ...]:
    """Return what a user read and wrote in a session, without its last answer.

    A request holds the turns before it, as a chat sends them, or the latest of them, or its own
    alone: each adds the turns that the one before did not show. So an answer that was asked for
    again stands beside the second one, as the user saw them. Instructions of the application stand
    once, at the beginning.
    """
    turns: list[Message] = [turn for turn in session[0].messages if turn.role in APPLICATION_ROLES]
    before: list[tuple[str, str]] = []
    for place, one in enumerate(session):
        talk = [turn for turn in one.messages if turn.role not in APPLICATION_ROLES]
        answered = [*talk, one.answer]
        shown = _shown(answered)
        last = place == len(session) - 1
        turns += answered[_known(before, shown[:-1]) : -1 if last else None]
        before = shown
    return tuple(turns)


def _known(before: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> int:
    """Return how many turns at the beginning of a request the one before it showed.

    They are its first ones, or, of a client that shortens the history, those up to its end.
    """
    same = 0
    while same < min(len(before), len(now)) and before[same] == now[same]:
        same += 1
    for at in range(max(1, len(before) - len(now)), 0 if same else len(before)):
        if before[at] == now[0] and before[at:] == now[: len(before) - at]:
            return len(before) - at
    return same


def _item(store: EventStore, last: Interaction) -> Item:
    session = up_to(store, last) or [last]
    known = store.definitions({one.tools for one in session if one.tools is not None})
    return Item(
        last.id,
        turns_of(session),
        spoken(last.answer),
        tools=_tools(session, {key: offered(one.body) for key, one in known.items()}),
        shows=tuple(one.id for one in session if one.id != last.id),
    )


def _shown(turns: Sequence[Message]) -> list[tuple[str, str]]:
    """Return turns as they are compared: who says what, whichever way a client writes it down."""
    called = called_in(turns)
    return [(turn.role, spoken(turn, called).strip()) for turn in turns]


def _tools(session: Sequence[Interaction], known: dict[str, str]) -> str:
    """Return every tool that could be called in a session, each once."""
    lines = [line for one in session for line in known.get(one.tools or "", "").splitlines()]
    return "\n".join(dict.fromkeys(lines))
