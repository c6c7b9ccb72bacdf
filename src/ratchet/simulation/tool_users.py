"""Users with goals, who talk over several turns with an assistant that has tools.

    python -m ratchet.simulation.tool_users --url http://127.0.0.1:8000 --truth truth.jsonl

A user states a goal, whole or in parts, answers a question back, corrects a wrong call in words or
by the feedback API, asks again, leaves, or thanks. The application runs the tools that the answer
calls (`ratchet.simulation.tool_world`) and asks again with their results, until the answer is
words. For each answer it is known which calls were right, for each session whether the goal was
reached and in how many turns. What users want, say and do follows from the seed and the answers;
`ratchet.simulation.tool_assistant` has an assistant of known error rates in place of a gateway.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
from pydantic import BaseModel, ConfigDict

from ratchet.errors import InvalidInputError
from ratchet.records import (
    Message,
    Share,
    derive_id,
)
from ratchet.records.events import ORIGIN, SIMULATED
from ratchet.records.tool_calls import written
from ratchet.simulation.tool_world import (
    GOALS,
    TOOLS,
    Call,
    Goal,
    ToolWorld,
    draw_goal,
    last_fact,
    said,
)

logger = logging.getLogger(__name__)

MOST_STEPS = 5
"""Answers to one turn of the user: calls with their results, then words."""
_SECONDS = 600.0


class UserRates(BaseModel):
    """How users go about their goals; shares are chances in [0, 1].

    Attributes:
        second_goal: Of sessions, those with two goals.
        in_parts: Of goals, those told in two turns.
        correct_in_words: Of failed turns, those after which the user says what was meant; else
            the same is asked again in other words.
        correct_by_feedback: Of turns with a wrong answer where a call was due, those for which the
            right call is sent as a correction of the first such answer.
        thumb: Of turns, those that get a thumb: up where the goal is reached, down where it failed.
        leave: Of failed turns, those after which the user leaves.
        thanks: Of sessions whose goals are all reached, those in which the user says thanks.
        completion: Of goals, those of which the application reports whether they were reached.
        patience: Turns about one goal after which everybody leaves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    second_goal: Share = 0.3
    in_parts: Share = 0.3
    correct_in_words: Share = 0.6
    correct_by_feedback: Share = 0.4
    thumb: Share = 0.3
    leave: Share = 0.2
    thanks: Share = 0.3
    completion: Share = 0.8
    patience: int = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the application, and what is known of it.

    Attributes:
        session: The session's id.
        user_id: Whose it is.
        turns: The conversation in OpenAI's chat format.
        due: The calls that are right.
        missing: Whether a fact was not told yet.
        wanted: Every fact of the goal, by name.
        answer: What a good assistant says where no call is due.
    """

    session: str
    user_id: str
    turns: Sequence[Mapping[str, Any]]
    due: tuple[Call, ...]
    missing: bool
    wanted: Goal
    answer: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as the application gets it.

    Attributes:
        interaction: Its id.
        token: What feedback on it needs, where a gateway gave one.
    """

    interaction: str
    message: Message
    token: str | None = None


class Assistant(Protocol):
    """Whoever answers, and takes feedback on the answers."""

    def answer(self, asked: Asked) -> Reply:
        """Answer a request."""

    def feedback(self, reply: Reply, kind: str, value: Any) -> None:
        """Take feedback on an answer."""


@dataclass(frozen=True, slots=True)
class AnswerTruth:
    """What is true of one answer.

    Attributes:
        due: The calls that were right, as text; an empty list where none was.
        made: The calls that it made.
        right: Whether it made those that were due and no other.
    """

    interaction: str
    session: str
    user_id: str
    due: list[str]
    made: list[str]
    right: bool


@dataclass(frozen=True, slots=True)
class GoalTruth:
    """What became of a goal.

    Attributes:
        kind: Its kind.
        reached: Whether the user got what they wanted.
        turns: Turns of the user about it, thanks left out.
        calls: Calls that were made for it.
    """

    kind: str
    reached: bool
    turns: int
    calls: int


@dataclass(frozen=True, slots=True)
class SessionTruth:
    """What is true of a session.

    Attributes:
        goals: Those that were begun, in order; none is begun after one that was not reached.
        reached: Whether each of them was reached.
        turns: Turns of the user, thanks included.
    """

    session: str
    user_id: str
    goals: list[GoalTruth]
    reached: bool
    turns: int


@dataclass(slots=True)
class Session:
    """One user with some goals, in front of an assistant.

    Attributes:
        id: Of the session.
        user_id: Whose it is.
        goals: What they want, in order.
        world: What the tools act on.
        assistant: Who answers.
        rates: How the user goes about it.
        rng: Source of all choices of the user.
        answers: The truth of each answer.
        events: How many events of feedback of each kind were sent.
    """

    id: str
    user_id: str
    goals: Sequence[Goal]
    world: ToolWorld
    assistant: Assistant
    rates: UserRates
    rng: np.random.Generator
    answers: list[AnswerTruth] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    _turns: list[dict[str, Any]] = field(default_factory=list)
    _asked: int = 0
    _corrected: bool = False

    def run(self) -> SessionTruth:
        """Talk until the goals are reached or the user leaves."""
        done: list[GoalTruth] = []
        for goal in self.goals:
            truth, last = self._pursue(goal)
            done.append(truth)
            if self._happens(self.rates.completion):
                self._send(last, "task_completed", truth.reached)
            if not truth.reached:
                break
        reached = all(goal.reached for goal in done)
        if reached and self._happens(self.rates.thanks):
            self._exchange(self.goals[-1], "Thanks, that is all.", self.goals[-1].facts)
        return SessionTruth(self.id, self.user_id, done, reached, self._asked)

    def _pursue(self, goal: Goal) -> tuple[GoalTruth, Reply]:
        """Talk about one goal; return what became of it and the last answer."""
        in_parts = self._happens(self.rates.in_parts)
        kept = {last_fact(goal)} if in_parts else set()
        told = set(goal.facts) - kept
        words = said(goal, "begin" if in_parts else "ask", self.rng)
        turns, before = 0, len(self.answers)
        while True:
            reply = self._exchange(goal, words, told)
            turns += 1
            reached = self.world.reached(goal, reply.message.text)
            asked_back = told != set(goal.facts) and not self._called(before)
            failed = not reached and not asked_back
            if not asked_back and self._happens(self.rates.thumb):
                self._send(reply, "thumbs", "up" if reached else "down")
            left = failed and self._happens(self.rates.leave)
            if reached or left or turns >= self.rates.patience:
                calls = sum(len(answer.made) for answer in self.answers[before:])
                return GoalTruth(goal.kind, reached, turns, calls), reply
            words = self._next_words(goal, told, failed)
            told = set(goal.facts)

    def _next_words(self, goal: Goal, told: set[str], failed: bool) -> str:
        """Return what the user says after an answer that did not reach the goal."""
        if not failed and told != set(goal.facts):
            return said(goal, "answer", self.rng)
        corrects = self._happens(self.rates.correct_in_words)
        return said(goal, "no" if corrects else "again", self.rng)

    def _called(self, since: int) -> bool:
        return any(answer.made for answer in self.answers[since:])

    def _exchange(self, goal: Goal, words: str, told: Collection[str]) -> Reply:
        """Send a user's turn, run the tools that the model calls, and return its last answer."""
        self._asked += 1
        self._corrected = False
        self._turns.append({"role": "user", "content": words})
        for _ in range(MOST_STEPS):
            due = self.world.due(goal, told)
            missing = set(told) != set(goal.facts)
            reply = self._ask(goal, due, missing)
            if not reply.message.tool_calls:
                break
            for place, call in enumerate(reply.message.tool_calls):
                result = self.world.execute(call.name, call.function.arguments)
                key = call.id or f"call_{place}"
                self._turns.append(
                    {"role": "tool", "tool_call_id": key, "content": json.dumps(result)}
                )
        return reply

    def _ask(self, goal: Goal, due: tuple[Call, ...], missing: bool) -> Reply:
        asked = Asked(
            self.id, self.user_id, tuple(self._turns), due, missing, goal, self.world.tells(goal)
        )
        reply = self.assistant.answer(asked)
        message = reply.message
        self._turns.append(message.canonical())
        made = [Call(call.name, call.arguments or {}) for call in message.tool_calls]
        readable = all(call.arguments is not None for call in message.tool_calls)
        same = Counter(call.key for call in made) == Counter(call.key for call in due)
        right = same and readable
        self.answers.append(
            AnswerTruth(
                reply.interaction, self.id, self.user_id,
                [as_text([call]) for call in due],
                [written(Message(role="assistant", tool_calls=(call,)))
                 for call in message.tool_calls],
                right,
            )
        )  # fmt: skip
        if not right and due and not self._corrected:
            self._corrected = True
            if self._happens(self.rates.correct_by_feedback):
                self._send(reply, "correction", as_text(due))
        return reply

    def _send(self, reply: Reply, kind: str, value: Any) -> None:
        self.events[kind] += 1
        self.assistant.feedback(reply, kind, value)

    def _happens(self, share: float) -> bool:
        return bool(self.rng.random() < share)


def as_text(calls: Sequence[Call]) -> str:
    """Return calls in the form in which answers, targets and corrections have them."""
    return written(calling(calls))


def calling(calls: Sequence[Call], number: int | None = None) -> Message:
    """Return an answer that makes calls; `number`, its place in the session, gives them ids."""
    made = []
    for place, call in enumerate(calls):
        text = json.dumps(dict(call.arguments), ensure_ascii=False)
        key = {} if number is None else {"id": f"call_{number}_{place}"}
        made.append({"type": "function", **key, "function": {"name": call.name, "arguments": text}})
    return Message.model_validate({"role": "assistant", "tool_calls": made})


def plan_sessions(
    *,
    seed: int,
    sessions: int,
    assistant: Callable[[int], Assistant],
    rates: UserRates | None = None,
    users: int = 40,
    kinds: Collection[str] = tuple(GOALS),
) -> Iterator[Session]:
    """Yield the sessions, each with a world and a generator of its own.

    Args:
        seed: Of everything that is drawn.
        sessions: How many.
        assistant: Returns who answers in a session.
        rates: How users go about their goals.
        users: How many people come.
        kinds: Kinds of goals, of `GOALS`.

    Raises:
        InvalidInputError: A number is too small, or a kind is not known.
    """
    if seed < 0 or sessions < 1 or users < 1:
        raise InvalidInputError(
            f"seed must be at least 0, sessions and users at least 1, got {seed}, {sessions} and "
            f"{users}; pass such numbers"
        )
    if not kinds or not set(kinds) <= set(GOALS):
        raise InvalidInputError(
            f"kinds must be some of {', '.join(GOALS)}, got {', '.join(kinds) or 'none'}; "
            "correct them"
        )
    rates = rates or UserRates()
    for number in range(sessions):
        rng = np.random.default_rng([seed, number])
        user_id = f"user-{int(rng.integers(users)):03d}"
        count = 1 + int(rng.random() < rates.second_goal)
        goals = [draw_goal(rng, kinds) for _ in range(count)]
        key = derive_id("tool-session", seed, number)
        world = ToolWorld(seed=seed)
        yield Session(key, user_id, goals, world, assistant(number), rates, rng)


# Over HTTP ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Application:
    """An application in front of a gateway: it asks with tools, and sends feedback.

    Attributes:
        url: Where the gateway answers.
        client: Several threads may share it.
        tools: The tools as OpenAI's API has them.
        key: Of the application, where the gateway asks for one.
        model: The model that requests name.
        system: What the model is told before the first turn.
        max_tokens: The longest answer.
    """

    url: str
    client: httpx.Client
    tools: Sequence[Mapping[str, Any]] = TOOLS
    key: str | None = None
    model: str = "champion"
    system: str | None = None
    max_tokens: int = 96

    def answer(self, asked: Asked) -> Reply:
        """Ask the gateway."""
        return self.ask(asked.turns, user=asked.user_id, session=asked.session)

    def ask(self, turns: Sequence[Mapping[str, Any]], *, user: str, session: str) -> Reply:
        """Ask the gateway.

        Raises:
            httpx.HTTPError: No answer came.
        """
        told = [{"role": "system", "content": self.system}] if self.system else []
        reply = self._post(
            "/v1/chat/completions",
            {
                "model": self.model,
                "messages": [*told, *turns],
                "tools": list(self.tools),
                "max_tokens": self.max_tokens,
                "temperature": 0,
                "user": user,
                "metadata": {"session_id": session, ORIGIN: SIMULATED},
            },
        )
        message = Message.model_validate(reply["choices"][0]["message"])
        return Reply(reply["id"], message, (reply.get("ratchet") or {}).get("token"))

    def feedback(self, reply: Reply, kind: str, value: Any) -> None:
        """Send one event.

        Raises:
            httpx.HTTPError: It was not taken.
        """
        event = {
            "id": derive_id(reply.interaction, kind),
            "interaction_id": reply.interaction,
            "kind": kind,
            "value": value,
        }
        self._post("/v1/feedback", event | ({"token": reply.token} if reply.token else {}))

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        reply = self.client.post(f"{self.url}{path}", json=body, headers=headers)
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()
        return found


def run_sessions(sessions: Sequence[Session], *, at_once: int) -> list[SessionTruth]:
    """Run sessions over HTTP, several at a time; their order does not change what users do."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(Session.run, sessions))


def truth_lines(sessions: Sequence[Session], truths: Sequence[SessionTruth]) -> list[str]:
    """Return what is true of answers and sessions, a line of JSON each."""
    answers = [{"of": "answer"} | asdict(found) for one in sessions for found in one.answers]
    rows = answers + [{"of": "session"} | asdict(truth) for truth in truths]
    return [json.dumps(row, ensure_ascii=False) for row in rows]


def in_words(sessions: Sequence[Session], truths: Sequence[SessionTruth]) -> str:
    """Return what came of it, in a few lines."""
    answers = [answer for session in sessions for answer in session.answers]
    goals = [goal for truth in truths for goal in truth.goals]
    reached = [goal.turns for goal in goals if goal.reached]
    sent = sum((session.events for session in sessions), Counter[str]())
    turns = f", in {np.mean(reached):.1f} turns each" if reached else ""
    return (
        f"{len(truths)} sessions, {len(answers)} answers, "
        f"{sum(answer.right for answer in answers) / len(answers):.1%} with the right calls\n"
        f"{len(reached)} of {len(goals)} goals reached{turns}\n"
        f"feedback: {', '.join(f'{count} {kind}' for kind, count in sorted(sent.items()))}"
    )


def main() -> int:
    """Have users talk to a gateway, and write what is true of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="Where the gateway answers.")
    parser.add_argument("--key", help="Key of the application, with the role ingest.")
    parser.add_argument("--model", default="champion", help="The model that requests name.")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=4, help="Sessions at a time.")
    parser.add_argument("--truth", type=Path, help="JSON Lines of what is true.")
    asked = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    with httpx.Client(timeout=_SECONDS, trust_env=False) as client:
        application = Application(asked.url.rstrip("/"), client, key=asked.key, model=asked.model)
        sessions = list(
            plan_sessions(
                seed=asked.seed,
                sessions=asked.sessions,
                assistant=lambda _: application,
                users=asked.users,
            )
        )
        try:
            truths = run_sessions(sessions, at_once=asked.at_once)
        except httpx.HTTPError as error:
            logger.error(
                "every request must be answered, got %s; look at the gateway's log, and whether "
                "its model takes tools", error,
            )  # fmt: skip
            return 1
    if asked.truth:
        asked.truth.write_text("\n".join(truth_lines(sessions, truths)) + "\n", "utf-8")
    for line in in_words(sessions, truths).splitlines():
        logger.info("%s", line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
