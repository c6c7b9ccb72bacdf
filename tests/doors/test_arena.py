"""Battles come in as two answers, of which the one that lost was asked for anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ratchet.doors.importing import prepare
from tests.doors.bringing import NOW, answers, bring, new_store, said, write


def battle(winner: Any, key: str = "q1", **more: Any) -> dict[str, Any]:
    """Return a row as chatbot_arena_conversations has it."""
    return {
        "question_id": key, "model_a": "m-a", "model_b": "m-b", "winner": winner,
        "judge": "arena_user_7", "turn": 1, "language": "English", "tstamp": 1_763_632_800.5,
        **{f"conversation_{side}": [{"role": "user", "content": "Why?"},
                                    {"role": "assistant", "content": f"By {side}."}]
           for side in "ab"},
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("winner", "loser"),
    [("model_a", "By b."), ("model_b", "By a."), ("m-b", "By a."), ("tie", None),
     ("tie (bothbad)", None), ("both_bad", None)],
)  # fmt: skip
def test_the_answer_that_lost_is_followed_by_the_one_that_won(
    winner: str, loser: str | None, tmp_path: Path
) -> None:
    store, path = new_store(tmp_path), write(tmp_path / "b.jsonl", battle(winner))
    assert prepare(str(path), now=NOW).door.name == "arena"
    bring(path, store)
    kept = answers(store)
    assert {(one.response, one.model_version) for one in kept} == {
        ("By a.", "m-a"), ("By b.", "m-b")
    }  # fmt: skip
    assert {(one.session_id, one.user_id, one.prompt) for one in kept} == {
        ("q1", "arena_user_7", "Why?")
    }  # fmt: skip
    assert said(store) == ([] if loser is None else [(loser, "regenerate", True)])
    if loser is not None:
        last = max(kept, key=lambda one: one.created_at)
        assert last.response != loser


def test_rows_with_prompts_and_responses_are_battles_too(tmp_path: Path) -> None:
    row = {
        "id": 30192, "model_a": "m-a", "model_b": "m-b", "prompt": '["Hi", "And?"]',
        "response_a": '["One", "Two"]', "response_b": '["Uno", "Due"]',
        "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0,
    }  # fmt: skip
    store = new_store(tmp_path)
    bring(write(tmp_path / "b.jsonl", row), store)
    by_model = {one.model_version: one for one in answers(store)}
    assert [turn.content for turn in by_model["m-a"].messages] == ["Hi", "One", "And?"]
    assert said(store) == [("Two", "regenerate", True)]


def test_a_battle_without_a_winner_is_set_aside(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    report = bring(write(tmp_path / "b.jsonl", battle("model_a"), battle("nobody", "q2")), store)
    assert (report.interactions, report.set_aside) == (2, 1)
    assert report.examples[0].reason.startswith("a battle must say who won")


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    store, path = new_store(tmp_path), write(tmp_path / "b.jsonl", battle("model_a"))
    bring(path, store)
    again = bring(path, store)
    assert (again.interactions, again.feedback, again.set_aside) == (0, 0, 0)
