"""Whole sessions as a judge of sessions sees them: all turns in order, ending with an answer.

    items = session_items(store, sample_sessions(store, window, most=200))

A session is named by its last answer: labels, verdicts and scores are about that interaction, so
that a session that goes on later is another item, and what is forgotten takes its verdicts along.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import nsmallest

from ratchet.judges.judge import Judgement
from ratchet.judges.prompts import Item
from ratchet.judges.usable import require_usable
from ratchet.records import (
    APPLICATION_ROLES,
    Interaction,
    Message,
    called_in,
    derive_id,
    digest,
    offered,
    spoken,
)
from ratchet.records.events import SessionScore
from ratchet.store import EventStore, Window
from ratchet.store.sessions import last_answers, sessions_up_to


def sample_sessions(store: EventStore, window: Window, *, most: int) -> list[Interaction]:
    """Return the last answers of at most so many sessions, always the same ones of a window."""
    keys = nsmallest(
        most, last_answers(store, window), key=lambda key: digest(["session-sample", key])
    )
    found = store.stored_interactions(keys)
    return [found[key] for key in keys]


def session_items(store: EventStore, answers: Sequence[Interaction]) -> list[Item]:
    """Return the sessions that end with these answers, with the tools that could be called."""
    found = list(sessions_up_to(store, answers))
    named = {one.tools for _, session in found for one in session if one.tools is not None}
    known = store.definitions(named)
    return [
        Item(
            last.id,
            turns_of(session or [last]),
            spoken(last.answer),
            tools=_tools(session, {key: offered(one.body) for key, one in known.items()}),
        )
        for last, session in found
    ]


def turns_of(session: Sequence[Interaction]) -> tuple[Message, ...]:
    """Return what a user read and wrote in a session, without its last answer.

    A request holds the turns before it, as a chat sends them, or some of them, or its own alone:
    each adds the turns that the one before did not show. So an answer that was asked for again
    stands beside the second one, as the user saw them. Instructions of the application stand once,
    at the beginning.
    """
    turns: list[Message] = [turn for turn in session[0].messages if turn.role in APPLICATION_ROLES]
    before: list[tuple[str, str]] = []
    for place, one in enumerate(session):
        talk = [turn for turn in one.messages if turn.role not in APPLICATION_ROLES]
        answered = [*talk, one.answer]
        shown = _shown(answered)
        same = 0
        while same < min(len(before), len(talk)) and before[same] == shown[same]:
            same += 1
        last = place == len(session) - 1
        turns += answered[same : -1 if last else None]
        before = shown
    return tuple(turns)


def count_session_scores(
    store: EventStore, judge_version: str, judgements: Sequence[Judgement], now: datetime
) -> int:
    """Make a usable judge's scores of sessions feedback on their last answers; return the new ones.

    Raises:
        JudgeNotUsableError: The judge may not count; nothing is stored.
    """
    require_usable(store, judge_version)
    scores = [
        SessionScore(
            id=derive_id("session-score", judge_version, judgement.item_id),
            interaction_id=judgement.item_id,
            created_at=judgement.verdicts[0].created_at if judgement.verdicts else now,
            value=judgement.score,
            judge_version=judge_version,
        )
        for judgement in judgements
        if judgement.score is not None
    ]
    return store.add_feedback(scores).new


def _shown(turns: Sequence[Message]) -> list[tuple[str, str]]:
    """Return turns as they are compared: who says what, whichever way a client writes it down."""
    called = called_in(turns)
    return [(turn.role, spoken(turn, called).strip()) for turn in turns]


def _tools(session: Sequence[Interaction], known: dict[str, str]) -> str:
    """Return every tool that could be called in a session, each once."""
    lines = [line for one in session for line in known.get(one.tools or "", "").splitlines()]
    return "\n".join(dict.fromkeys(lines))
