"""Examples for the gate that are made of interactions ask with the tools that these had."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ratchet.analyze.failures.asked_with import AskedWith
from ratchet.analyze.failures.regression_sets import (
    Known,
    examples_of,
    known_answers,
    longest_answer,
)
from ratchet.analyze.failures.traffic_sample import _distinct, _examples, _is_whole
from ratchet.outcomes.join import Outcomes, join_feedback
from ratchet.records import Correction, Definition, Example, Interaction, Thumbs, ToolCall
from ratchet.store import EventStore, Window
from tests.calls import call, looked_up, turn, with_picture

NOW = datetime(2026, 11, 2, tzinfo=UTC)
FORM = Definition.of("response_format", {"type": "json_object"})
TOOLS = Definition.of(
    "tools",
    [
        {
            "type": "function",
            "function": {
                "name": "find_customer",
                "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        }
    ],
)
FIND = '<tool_call>\n{"name": "find_customer", "arguments": {"name": "Ana"}}\n</tool_call>'


def asked(key: str, **changes: Any) -> Interaction:
    values = {
        "id": key, "session_id": f"s-{key}", "user_id": f"u-{key}", "created_at": NOW,
        "model_version": "m/1", "messages": (turn("user", f"Who is {key}?"),), "response": "",
        "tool_calls": (ToolCall.model_validate(call("find_customer", name="Ana")),),
        "tools": TOOLS.id,
    }  # fmt: skip
    return Interaction.model_validate(values | changes)


def calls(name: str, /, **arguments: Any) -> tuple[ToolCall, ...]:
    return (ToolCall.model_validate(call(name, **arguments)),)


ANSWERS = (
    asked("right"),
    asked("corrected", tool_calls=calls("find_customer", name="Bob")),
    asked("unknown", tool_calls=calls("delete_customer")),
    asked("unfitting", tool_calls=calls("find_customer", name=5)),
    asked("gone", tools="f" * 64),
    asked("old", response='[tool calls] [{"function": {}}]', tool_calls=(), tools=None),
    asked("after", messages=looked_up("Who is right?", "Ana"), response="It is Ana.",
          tool_calls=(), response_format=FORM.id),
    asked("words", response="Hello.", tool_calls=(), tools=None),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    store.add_definitions([TOOLS, FORM])
    store.add_interactions(ANSWERS)
    about: Any = {"created_at": NOW}
    store.add_feedback(
        [Thumbs(id=f"t-{one.id}", interaction_id=one.id, value="up", **about) for one in ANSWERS]
    )
    store.add_feedback([Correction(id="c", interaction_id="corrected", value=FIND, **about)])
    yield store
    store.close()


def all_of(store: EventStore) -> tuple[Outcomes, AskedWith]:
    window = Window(NOW, datetime(2026, 11, 3, tzinfo=UTC))
    found = join_feedback(store.interactions(window), store.feedback(window))
    return found, AskedWith.of(store, [str(key) for key in found.interaction_ids])


def known(store: EventStore) -> dict[str, Known]:
    found, requests = all_of(store)
    explicit = np.ones(len(found))
    right = known_answers(range(len(found)), found, explicit, withheld=(), asked=requests)
    return {one.interaction_id: one for one in right}


def test_a_right_answer_is_the_call_and_a_wrong_call_is_none(store: EventStore) -> None:
    right = known(store)
    assert set(right) == {"right", "corrected", "after", "words"}
    assert right["right"].target == right["corrected"].target == FIND
    assert right["after"].target == "It is Ana."


def test_examples_keep_tools_forms_calls_and_results(store: EventStore) -> None:
    found = examples_of(store, list(known(store).values()), lambda one: {"id": one.interaction_id})
    by_id = {example.id: example for example in found}
    assert list(by_id["right"].tools or ()) == TOOLS.body
    assert by_id["after"].response_format == FORM.body
    assert by_id["after"].messages == looked_up("Who is right?", "Ana")
    assert by_id["words"].tools is None
    assert longest_answer(found) == 256
    assert longest_answer([by_id["words"]]) == 12


def test_open_questions_keep_tools_and_leave_out_what_cannot_be_asked_again() -> None:
    picture = asked("seen", messages=(with_picture("Who?"),))
    usable = [one for one in (*ANSWERS, picture) if _is_whole(one)]
    assert {one.id for one in usable} == {one.id for one in ANSWERS}
    requests = AskedWith({}, {TOOLS.id: TOOLS.body, FORM.id: FORM.body})
    kept = [one for one in _distinct(usable) if requests.fields(one) is not None]
    assert "gone" not in {one.id for one in kept}
    found = _examples(kept, requests, lambda texts: texts)
    assert {example.tools is not None for example in found} == {True, False}


def test_the_same_message_before_and_after_a_result_is_two_questions() -> None:
    told = looked_up("Who is right?", "Ana")[1:]
    after = asked("then", messages=told[:3], response="Ana.", tool_calls=())
    first = asked("right")
    assert len(list(_distinct([first, after]))) == 2


def test_a_question_with_other_tools_is_another_one(tmp_path: Path) -> None:
    other = Definition.of("tools", [{"type": "function", "function": {"name": "find_customer"}}])
    said = (turn("user", "Who is Ana?"),)
    wide = {"messages": said, "tools": other.id, "tool_calls": calls("find_customer", name="Eve")}
    same = [asked("a", messages=said), asked("b", **wide), asked("c", messages=said)]
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    store.add_definitions([TOOLS, other])
    store.add_interactions(same)
    about: Any = {"created_at": NOW, "value": "up"}
    store.add_feedback([Thumbs(id=f"t-{one.id}", interaction_id=one.id, **about) for one in same])
    assert set(known(store)) == {"b", "c"}
    store.close()
    assert [one.id for one in _distinct(same)] == ["a", "b"]


@pytest.mark.parametrize(
    ("targets", "tokens"),
    [
        (["balance_not_updated_after_cheque_or_cash_deposit"], 12),  # the longest of BANKING77
        (["cards", "Your card was blocked. Call us, and we send you another one."], 256),
        (["\u4f60" * 40], 256),
        (["a long story " * 100], 512),
        ([FIND, "cards"], 256),
        ([], 12),
    ],
)
def test_an_answer_has_room_for_what_is_right(targets: list[str], tokens: int) -> None:
    examples = [
        Example(id=f"e{n}", messages=(turn("user", "?"),), target=target)
        for n, target in enumerate(targets)
    ]
    assert longest_answer(examples) == tokens
