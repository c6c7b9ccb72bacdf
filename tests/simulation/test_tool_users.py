"""Users with goals: what they do, and that the truth about it is the truth."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from datetime import UTC, datetime
from math import sqrt

import httpx
import pytest

from ratchet.errors import InvalidInputError
from ratchet.evaluation.call_metrics import exact_calls
from ratchet.records import Definition
from ratchet.records.tool_calls import read_calls, written
from ratchet.simulation import tool_users
from ratchet.simulation.tool_assistant import AssistantRates, RecordedSessions, recorded_sessions
from ratchet.simulation.tool_users import Application, UserRates, plan_sessions, run_sessions
from ratchet.simulation.tool_world import DAYS, PLACES, TOOLS
from ratchet.store import EventStore
from tests.gateway.conftest import Gateway, gateway, mock, serve, settings
from tests.servers.mock_backend import MockBackend, Raw

__all__ = ["gateway", "mock", "serve", "settings"]
START = datetime(2026, 11, 2, tzinfo=UTC)
EVERY_WORD = UserRates(correct_by_feedback=1.0, completion=1.0, thumb=1.0)


def recorded(seed: int = 1, sessions: int = 40, users: UserRates | None = None, **rates: float):
    return recorded_sessions(
        seed=seed, sessions=sessions, start=START, rates=users,
        assistants={"assistant/1": AssistantRates(**rates)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def mixed() -> RecordedSessions:
    return recorded(sessions=120, users=EVERY_WORD, right=0.7, guesses=0.3)


def test_with_an_assistant_that_is_always_right_each_goal_takes_as_many_turns_as_it_is_told_in():
    found = recorded(right=1.0, guesses=0.0)
    assert all(answer.right for answer in found.answers)
    assert all(session.reached for session in found.sessions)
    whole = recorded(right=1.0, guesses=0.0, users=UserRates(in_parts=0.0))
    parts = recorded(right=1.0, guesses=0.0, users=UserRates(in_parts=1.0))
    assert {goal.turns for session in whole.sessions for goal in session.goals} == {1}
    assert {goal.turns for session in parts.sessions for goal in session.goals} == {2}


def test_with_an_assistant_that_is_never_right_no_goal_is_reached_and_patience_ends():
    found = recorded(right=0.0, users=UserRates(leave=0.0, patience=3))
    goals = [goal for session in found.sessions for goal in session.goals]
    assert not any(goal.reached for goal in goals)
    assert {goal.turns for goal in goals} == {3}
    assert {len(session.goals) for session in found.sessions} == {1}


def test_the_same_seed_gives_the_same_sessions_and_another_seed_others():
    assert recorded(seed=5, sessions=6) == recorded(seed=5, sessions=6)
    assert recorded(seed=5, sessions=6).answers != recorded(seed=6, sessions=6).answers


def test_an_assistant_is_right_as_often_as_it_was_told(mixed):
    # after a call that it takes for right it says so, which is no draw of its own
    told = {answer.id for answer in mixed.interactions if answer.response == "Done."}
    due = [a.right for a in mixed.answers if a.due and a.interaction not in told]
    # four standard errors of a share of 0.7 among as many answers
    assert abs(sum(due) / len(due) - 0.7) < 4 * sqrt(0.7 * 0.3 / len(due))


def test_truth_agrees_with_the_metric_of_exact_calls(mixed):
    stored = {item.id: item for item in mixed.interactions}
    answers = [written(stored[truth.interaction].answer) for truth in mixed.answers]
    targets = ["\n".join(truth.due) for truth in mixed.answers]
    scores = exact_calls(answers, targets).values.tolist()
    assert scores == [float(truth.right) for truth in mixed.answers]
    assert 0.0 < sum(scores) < len(scores)


def said_by_users(item):
    return sum(turn.role == "user" for turn in item.messages)


def test_a_correction_is_the_call_that_was_due(mixed):
    due = {truth.interaction: truth for truth in mixed.answers}
    corrections = [event for event in mixed.feedback if event.kind == "correction"]
    stored = {item.id: item for item in mixed.interactions}
    wrong = [truth.interaction for truth in mixed.answers if truth.due and not truth.right]
    assert {event.interaction_id for event in corrections} <= set(wrong)
    # one for each turn of a user: the requests of a turn hold the same turns of users
    turns = {(stored[key].session_id, said_by_users(stored[key])) for key in wrong}
    assert len(corrections) == len(turns) > 20
    for event in corrections:
        assert [event.value] == due[event.interaction_id].due
        called = read_calls(event.value)
        assert (len(called.calls), called.words, called.unparsable) == (1, "", 0)


def test_reports_of_completion_say_what_is_true_of_each_goal(mixed):
    said = Counter(event.value for event in mixed.feedback if event.kind == "task_completed")
    true = Counter(goal.reached for session in mixed.sessions for goal in session.goals)
    assert said == true
    assert len(true) == 2


def test_what_users_write_next_shows_in_the_conversation(mixed):
    words = [turn.text for item in mixed.interactions for turn in item.messages[-1:]]
    assert any(text.startswith("No, I meant: ") for text in words)
    assert "Thanks, that is all." in words


def test_a_store_takes_the_sessions_and_holds_the_tools_that_were_sent(mixed, tmp_path):
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    store.add_definitions(mixed.definitions)
    with store.simulating():
        store.add_interactions(mixed.interactions)
        store.add_feedback(mixed.feedback)
    one = mixed.interactions[-1]
    kept = store.stored_interactions([one.id])[one.id]
    assert kept == one
    assert store.definitions([kept.tools])[kept.tools] == Definition.of("tools", list(TOOLS))


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"sessions": 0}, {"users": 0}, {"kinds": ()}, {"kinds": ("flights",)}]
)
def test_numbers_and_kinds_that_cannot_be_are_refused(wrong):
    given = {"seed": 0, "sessions": 1, "users": 1} | wrong
    with pytest.raises(InvalidInputError):
        list(plan_sessions(assistant=lambda _: None, **given))


# Over HTTP, by a backend that goes by rules -----------------------------------------------------


def answered(message: dict) -> Raw:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    reply = {"id": "x", "object": "chat.completion", "created": 1, "model": "mock"}
    return Raw(json.dumps(reply | {"choices": [choice]}).encode(), headers={
        "Content-Type": "application/json"})  # fmt: skip


def by_rules(body: dict) -> Raw:
    """Answer about the weather: of whoever asks for an umbrella the day is always missed."""
    assert body["tools"] == list(TOOLS)
    turns = [turn for turn in body["messages"] if turn["role"] != "system"]
    if turns[-1]["role"] == "tool":
        return answered({"content": f"It says {turns[-1]['content']}"})
    if turns[-1]["content"].startswith("Thanks"):
        return answered({"content": "You are welcome."})
    said = " ".join(turn["content"] for turn in turns if turn["role"] == "user")
    places = re.findall("|".join(PLACES), said)
    days = re.findall("|".join(DAYS), said)
    if not days:
        return answered({"content": "Which day?"})
    day = next(day for day in DAYS if day != days[-1]) if said.endswith("?") and (
        "umbrella" in said) else days[-1]  # fmt: skip
    function = {"name": "get_weather", "arguments": json.dumps({"place": places[-1], "day": day})}
    call = {"id": "call_1", "type": "function", "function": function}
    return answered({"content": None, "tool_calls": [call]})


def talk(gateway: Gateway, mock: MockBackend, *, seed: int, sessions: int):
    mock.behaviour = by_rules
    rates = UserRates(leave=0.0, correct_by_feedback=1.0, completion=1.0, second_goal=0.0)
    with httpx.Client(timeout=60, trust_env=False) as client:
        application = Application(gateway.url, client, model="any")
        planned = list(
            plan_sessions(
                seed=seed, sessions=sessions, assistant=lambda _: application, rates=rates,
                kinds=["weather"],
            )
        )  # fmt: skip
        return planned, run_sessions(planned, at_once=3)


def test_over_http_answers_calls_and_corrections_are_in_the_store(gateway, mock):
    planned, truths = talk(gateway, mock, seed=2, sessions=8)
    assert all(truth.reached for truth in truths)
    kept = {item.id: item for item in gateway.interactions()}
    answers = [answer for session in planned for answer in session.answers]
    assert {answer.interaction for answer in answers} == set(kept)
    for answer in answers:
        assert [written(kept[answer.interaction].answer)] == (answer.made or [
            kept[answer.interaction].response])  # fmt: skip
        assert kept[answer.interaction].session_id == answer.session
    wrong = [answer for answer in answers if answer.made and not answer.right]
    umbrellas = [item for item in kept.values() if "umbrella" in item.prompt and item.tool_calls]
    assert {answer.interaction for answer in wrong} == {item.id for item in umbrellas} != set()
    events = gateway.feedback()
    corrected = {e["interaction_id"]: e["text"] for e in events if e["kind"] == "correction"}
    assert corrected == {answer.interaction: answer.due[0] for answer in wrong}
    done = [event["number"] for event in events if event["kind"] == "task_completed"]
    assert done == [1.0] * 8
    origins = gateway.store.origins()
    assert (origins.real_since, origins.about_simulated) == (None, True)


def test_the_program_writes_the_truth_and_says_what_came_of_it(
    gateway, mock, tmp_path, monkeypatch, caplog
):
    mock.behaviour = lambda body: answered({"content": "I cannot do that."})
    truth = tmp_path / "truth.jsonl"
    words = f"tool_users --url {gateway.url} --model any --sessions 3 --seed 4 --truth {truth}"
    monkeypatch.setattr(sys, "argv", words.split())
    assert tool_users.main() == 0
    assert any(said.startswith("3 sessions") for said in caplog.messages)
    assert "0 of 3 goals reached" in caplog.messages
    rows = [json.loads(line) for line in truth.read_text("utf-8").splitlines()]
    assert sum(row["of"] == "session" for row in rows) == 3
    assert {row["interaction"] for row in rows if row["of"] == "answer"} == {
        item.id for item in gateway.interactions()
    }


def test_the_program_says_why_it_stopped_where_nobody_answers(gateway, mock, monkeypatch, caplog):
    mock.behaviour = lambda body: 400
    words = f"tool_users --url {gateway.url} --model any --sessions 1"
    monkeypatch.setattr(sys, "argv", words.split())
    assert tool_users.main() == 1
    assert "every request must be answered" in caplog.messages[-1]
