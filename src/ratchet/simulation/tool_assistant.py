"""An assistant with tools whose error rates are known, and sessions with it as a store takes them.

    recorded = recorded_sessions(seed=1, sessions=200, start=start, assistants={"a/1": rates})
    store.add_definitions(recorded.definitions)
    with store.simulating():
        store.add_interactions(recorded.interactions)
        store.add_feedback(recorded.feedback)
    recorded.answers, recorded.sessions     # what is true of them

The users are those of `ratchet.simulation.tool_users`. No server runs, no clock is read: the same
seed gives the same sessions, with the same ids and times.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ratchet.errors import InvalidInputError
from ratchet.records import (
    Correction,
    Definition,
    Feedback,
    Interaction,
    Message,
    Share,
    TaskCompleted,
    Thumbs,
    derive_id,
)
from ratchet.records.events import ORIGIN, SIMULATED
from ratchet.records.tool_calls import written
from ratchet.simulation.tool_users import (
    AnswerTruth,
    Asked,
    Reply,
    SessionTruth,
    UserRates,
    calling,
    plan_sessions,
)
from ratchet.simulation.tool_world import GOALS, TOOLS, Call, Goal, ToolWorld, draw_goal, last_fact

_DEFINITION = Definition.of("tools", list(TOOLS))
_KINDS: dict[str, Any] = {
    "thumbs": Thumbs,
    "correction": Correction,
    "task_completed": TaskCompleted,
}


class AssistantRates(BaseModel):
    """How often a scripted assistant is right; shares are chances in [0, 1].

    Attributes:
        right: Of answers where a call is due, those that make it.
        other_argument: Of the wrong ones, those with another value of an argument.
        other_tool: Of the wrong ones, those that call another tool.
        no_tool: Of the wrong ones, those that call a tool that there is not. The rest call nothing.
        guesses: Of answers where a fact is missing, those that call instead of asking for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    right: Share = 0.8
    other_argument: Share = 0.5
    other_tool: Share = 0.2
    no_tool: Share = 0.1
    guesses: Share = 0.2


@dataclass(slots=True)
class ScriptedAssistant:
    """Answers rightly as often as it is told, and records what is said as a gateway would.

    Attributes:
        version: The version whose answers these are.
        rates: How often it is right.
        rng: Source of all choices.
        at: When the session begins; each answer and each event moves it on.
        interactions: What was asked and answered.
        events: What was fed back.
    """

    version: str
    rates: AssistantRates
    rng: np.random.Generator
    at: datetime
    interactions: list[Interaction] = field(default_factory=list)
    events: list[Feedback] = field(default_factory=list)
    _mistaken: bool = False

    def answer(self, asked: Asked) -> Reply:
        """Answer a request."""
        number = len(self.interactions)
        message = self._message(asked, number)
        self.at += timedelta(seconds=float(self.rng.exponential(15.0)) + 1.0)
        turns = tuple(Message.model_validate(turn) for turn in asked.turns)
        interaction = Interaction(
            id=derive_id(asked.session, number),
            session_id=asked.session,
            user_id=asked.user_id,
            created_at=self.at,
            model_version=self.version,
            messages=turns,
            response=message.text,
            tool_calls=message.tool_calls,
            tools=_DEFINITION.id,
            latency_seconds=float(self.rng.gamma(4.0, 0.2)),
            continues=self.interactions[-1].id if self.interactions else None,
            metadata={
                ORIGIN: SIMULATED,
                "finish_reason": "tool_calls" if message.tool_calls else "stop",
                "prompt_tokens": str(_words(turns)),
                "completion_tokens": str(_words([message])),
            },
        )
        self.interactions.append(interaction)
        return Reply(interaction.id, message)

    def feedback(self, reply: Reply, kind: str, value: Any) -> None:
        """Take feedback on an answer."""
        asked = next(item for item in self.interactions if item.id == reply.interaction)
        self.events.append(
            _KINDS[kind](
                id=derive_id(reply.interaction, kind),
                interaction_id=reply.interaction,
                created_at=max(self.at, asked.created_at),
                user_id=asked.user_id,
                value=value,
            )
        )

    def _message(self, asked: Asked, number: int) -> Message:
        rates, mistaken = self.rates, self._mistaken
        self._mistaken = False
        if mistaken and asked.turns[-1]["role"] == "tool" and "error" not in _last_result(asked):
            return Message(role="assistant", content="Done.")  # it takes its wrong call for right
        if asked.missing and self.rng.random() < rates.guesses:
            self._mistaken = True
            return calling([self._guess(asked.wanted)], number)
        if asked.missing:
            return Message(role="assistant", content=f"Which {last_fact(asked.wanted)}?")
        if not asked.due:
            return Message(role="assistant", content=asked.answer)
        if self.rng.random() < rates.right:
            return calling(asked.due, number)
        self._mistaken = True
        return self._wrong(asked, number)

    def _wrong(self, asked: Asked, number: int) -> Message:
        """Answer wrongly where a call is due."""
        rates, (due, *_) = self.rates, asked.due
        kind = self.rng.random()
        if kind < rates.other_argument:
            name = sorted(due.arguments)[int(self.rng.integers(len(due.arguments)))]
            return calling([Call(due.name, {**due.arguments, name: _other(due, name)})], number)
        kind -= rates.other_argument
        if kind < rates.other_tool:
            names = [tool["function"]["name"] for tool in TOOLS]
            others = [name for name in names if name != due.name]
            other = others[int(self.rng.integers(len(others)))]
            return calling([Call(other, due.arguments)], number)
        if kind - rates.other_tool < rates.no_tool:
            return calling([Call("search_the_web", due.arguments)], number)
        return Message(role="assistant", content="I can help with that. Anything else?")

    def _guess(self, goal: Goal) -> Call:
        """Return a call with a value for the fact that was not told."""
        guessed = draw_goal(self.rng, (goal.kind,)).facts[last_fact(goal)]
        facts = {**goal.facts, last_fact(goal): guessed}
        return next(iter(ToolWorld(seed=0).due(Goal(goal.kind, facts), facts)))


def _last_result(asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked.turns[-1]["content"])
    return found


def _other(call: Call, name: str) -> Any:
    """Return another value of the same type for an argument, as a confused model gives it."""
    value = call.arguments[name]
    if isinstance(value, str):
        days = {"today": "tomorrow", "tomorrow": "today", "friday": "saturday"}
        return days.get(value, "friday" if name == "day" else f"{value} II")
    return value + 1 if value < 3 else value - 1


def _words(turns: Collection[Message]) -> int:
    return sum(len(f"{turn.text} {written(turn)}".split()) for turn in turns)


@dataclass(frozen=True, slots=True)
class RecordedSessions:
    """Sessions with scripted assistants, as a store takes them, and what is true of them."""

    definitions: tuple[Definition, ...]
    interactions: tuple[Interaction, ...]
    feedback: tuple[Feedback, ...]
    answers: tuple[AnswerTruth, ...]
    sessions: tuple[SessionTruth, ...]


def recorded_sessions(
    *,
    seed: int,
    sessions: int,
    start: datetime,
    assistants: Mapping[str, AssistantRates],
    rates: UserRates | None = None,
    users: int = 40,
    kinds: Collection[str] = tuple(GOALS),
    every: timedelta = timedelta(minutes=10),
) -> RecordedSessions:
    """Return sessions with assistants of known error rates; the same seed gives the same.

    Args:
        seed: Of everything that is drawn.
        sessions: How many; the versions take turns.
        start: When the first one begins, aware.
        assistants: How often each version is right.
        rates: How users go about their goals.
        users: How many people come.
        kinds: Kinds of goals, of `GOALS`.
        every: From the beginning of one session to that of the next.

    Raises:
        InvalidInputError: There is no version, or a number is too small.
    """
    if not assistants:
        raise InvalidInputError("assistants must hold at least 1 version, got none; name one")
    versions = list(assistants)
    scripted: list[ScriptedAssistant] = []

    def assistant(number: int) -> ScriptedAssistant:
        version = versions[number % len(versions)]
        rng = np.random.default_rng([seed, number, 1])
        begins = start + number * every
        scripted.append(ScriptedAssistant(version, assistants[version], rng, begins))
        return scripted[-1]

    planned = plan_sessions(
        seed=seed, sessions=sessions, assistant=assistant, rates=rates, users=users, kinds=kinds
    )
    run = [(session, session.run()) for session in planned]
    return RecordedSessions(
        definitions=(_DEFINITION,),
        interactions=tuple(item for one in scripted for item in one.interactions),
        feedback=tuple(event for one in scripted for event in one.events),
        answers=tuple(answer for session, _ in run for answer in session.answers),
        sessions=tuple(truth for _, truth in run),
    )
