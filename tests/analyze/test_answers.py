"""Metrics of answers and sessions against a recorded world whose truth is counted by hand."""

from datetime import timedelta

import numpy as np
import pytest

from ratchet.analyze.answers import read_answer_facts, read_answer_metrics
from ratchet.records import Definition, TaskCompleted
from ratchet.records.events import Left
from ratchet.records.prices import Price, Prices
from ratchet.simulation.tool_assistant import AssistantRates, recorded_sessions
from ratchet.simulation.tool_users import UserRates
from ratchet.store import Window
from ratchet.store.erasure import erase_interactions
from ratchet.store.vectors import text_key
from tests.calls import call
from tests.collect.conversations import START, asked

TOOLS = Definition.of("tools", [{"type": "function", "function": {"name": "find"}}])
WINDOW = Window(START, START + timedelta(days=1))


def told(key, done):
    return TaskCompleted(
        id=f"t{key}", interaction_id=key, created_at=START + timedelta(hours=2), value=done
    )


def left(key, turns):
    return Left(
        id=f"l{key}", interaction_id=key, created_at=START + timedelta(hours=2), value=turns
    )


def metrics(store, *names):
    facts = read_answer_facts(store, WINDOW)
    return {item.name: item for item in read_answer_metrics(store, facts, names)}


def value(found, name):
    return None if name not in found else found[name].value


def with_tools(key, *turns, calls=0, **more):
    made = [call("find", f"c{place}") for place in range(calls)]
    return asked(key, *turns, tools=TOOLS.id, tool_calls=made, **more)


@pytest.fixture
def talked(store):
    """Four sessions of m/1 (two done, after 1 and 3 turns; one not; one untold), one shared."""
    store.add_definitions([TOOLS])
    store.add_interactions(
        [
            with_tools("a1", "find ana", session="a", calls=2),
            with_tools("a2", "find ana", session="a", at=1),
            with_tools("b1", "hi", session="b", calls=1),
            with_tools("b2", "hi", "!", "no", session="b", at=1),
            with_tools("b3", "hi", "!", "no", "!", "so", session="b", at=2),
            with_tools("c1", "eh", session="c"),
            with_tools("d1", "oh", session="d"),
            with_tools("e1", "x", session="e", calls=5),
            with_tools("e2", "x", "!", "y", session="e", at=1, model_version="m/2"),
            with_tools("a3", "find", session="a", user="bob", calls=3),
        ]
    )
    said = {"a1": False, "a2": True, "b3": True, "c1": False, "e2": True}
    store.add_feedback([told(key, done) for key, done in said.items()])
    return store


def test_sessions_count_once_whatever_their_answers(talked):
    found = metrics(talked, "m/1")
    # of a (ana), b and c it is known; d and bob's were never told of, and e had two versions
    assert value(found, "task_completion") == pytest.approx(2 / 3)
    assert found["task_completion"].observations == 3
    assert value(found, "turns_to_done") == 2.0  # after 1 and 3 turns
    # calls of a, b, c, d and bob's a
    assert value(found, "calls_per_session") == pytest.approx((2 + 1 + 0 + 0 + 3) / 5)


def test_a_session_that_several_versions_answered_says_nothing_of_either(talked):
    found = metrics(talked, "m/2")
    assert "turns_to_done" not in found
    assert "task_completion" not in found, "it has no session of its own"
    assert value(metrics(talked, "m/1", "m/2"), "task_completion") == pytest.approx(3 / 4)


def test_what_was_erased_is_no_session(talked):
    erase_interactions(talked, ["c1", "d1"], now=START, text_key=text_key)
    found = metrics(talked, "m/1")
    assert (value(found, "task_completion"), found["task_completion"].observations) == (1.0, 2)
    assert value(found, "calls_per_session") == pytest.approx((2 + 1 + 3) / 3)


def test_where_conversations_are_followed_one_that_may_go_on_counts_for_neither_side(talked):
    talked.add_feedback([left("a2", 1), left("b3", 3)])
    found = metrics(talked, "m/1")
    assert value(found, "task_completion") == 1.0, "c may still go on"
    assert value(found, "conversation_turns") == 2.0


def test_answers_are_summed_up_by_what_they_are_about(talked):
    found = metrics(talked, "m/1")
    assert value(found, "tool_calls") == pytest.approx(11 / 9)
    assert value(found, "call_validity") == 1.0
    assert value(found, "unparsable_call_rate") == 0.0
    assert "format_validity" not in found, "no answer was asked for in a form"
    assert "cost" not in found, "nothing said how long an answer is"


def test_single_answers_have_no_metrics_of_sessions(store):
    store.add_interactions([asked("a", "hi", session="a"), asked("b", "hi", session="b")])
    store.add_feedback([told("a", True)])
    assert metrics(store, "m/1") == {}


def test_cost_is_by_version_and_without_a_price_it_is_said_so(store):
    used = {"prompt_tokens": "1000", "completion_tokens": "200"}
    store.add_interactions(
        [
            asked("a", "hi", session="a", metadata=used),
            asked("b", "hi", session="b", metadata=used | {"completion_tokens": "400"}),
            asked("c", "hi", session="c", metadata=used, model_version="n/1"),
        ]
    )
    found = metrics(store, "m/1")
    assert value(found, "tokens_out") == 300.0
    assert value(found, "tokens_in") == 1000.0
    assert value(found, "cost") is None
    assert "no price of m/1 is configured" in found["cost"].reason
    store.prices = Prices(models={"m": Price(input=1.0, output=10.0)})
    # (1000 + 2000 and 1000 + 4000) millionths
    assert value(metrics(store, "m/1"), "cost") == pytest.approx(0.004)
    assert value(metrics(store, "n/1"), "cost") is None


def test_turns_and_completion_agree_with_a_truth_of_many_sessions(store):
    rng = np.random.default_rng(7)
    answers, feedback, done, needed = [], [], 0, []
    for number in range(300):
        turns, reached = int(rng.integers(1, 6)), bool(rng.random() < 0.7)
        said = []
        for turn in range(turns):
            said += ["and?"] if turn == 0 else ["!", "and?"]
            key = f"{number}.{turn}"
            answers.append(
                asked(key, *said, session=f"s{number}", user=f"u{number % 40}", at=number + turn)
            )
            feedback.append(told(key, reached and turn == turns - 1))
        done += reached
        needed += [turns] if reached else []
    store.add_interactions(answers)
    store.add_feedback(feedback)
    found = metrics(store, "m/1")
    assert value(found, "task_completion") == pytest.approx(done / 300)
    assert value(found, "turns_to_done") == pytest.approx(np.mean(needed))
    assert found["turns_to_done"].observations == len(needed)


def test_two_versions_of_known_skill_are_told_apart_as_the_simulation_says(store):
    world = recorded_sessions(
        seed=1,
        sessions=80,
        start=START,
        assistants={
            "assistant/1": AssistantRates(right=0.95),
            "assistant/2": AssistantRates(right=0.5, no_tool=0.5),
        },
        rates=UserRates(completion=1.0, second_goal=0.0),
    )
    store.add_definitions(world.definitions)
    with store.simulating():
        store.add_interactions(world.interactions)
        store.add_feedback(world.feedback)
    version_of = {one.session_id: one.model_version for one in world.interactions}
    facts = read_answer_facts(store, WINDOW)
    for version in ("assistant/1", "assistant/2"):
        found = {m.name: m for m in read_answer_metrics(store, facts, (version,))}
        sessions = [one for one in world.sessions if version_of[one.session] == version]
        reached = [one for one in sessions if one.reached]
        assert len(sessions) > len(reached) > 5
        assert value(found, "task_completion") == pytest.approx(len(reached) / len(sessions))
        turns = [one.goals[0].turns for one in reached]
        assert value(found, "turns_to_done") == pytest.approx(np.mean(turns))
        made = {one.session: 0 for one in sessions}
        answers = [one for one in world.answers if one.session in made]
        for one in answers:
            made[one.session] += len(one.made)
        assert value(found, "calls_per_session") == pytest.approx(np.mean(list(made.values())))
        assert value(found, "tool_calls") == pytest.approx(sum(made.values()) / len(answers))
        used = [
            int(one.metadata["completion_tokens"])
            for one in world.interactions
            if one.model_version == version
        ]
        assert value(found, "tokens_out") == pytest.approx(np.mean(used))
    assert metrics(store, "assistant/1")["call_validity"].value == 1.0
    assert metrics(store, "assistant/2")["call_validity"].value < 0.9
