"""LibreChat's conversations and messages come in with ratings and answers asked for anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ratchet.doors.importing import prepare
from tests.doors.bringing import NOW, answers, bring, new_store, said, write


def message(key: str, parent: str | None, text: str, minute: int, **more: Any) -> dict[str, Any]:
    return {
        "messageId": key, "parentMessageId": parent, "conversationId": "c-1", "text": text,
        "isCreatedByUser": False, "model": "gpt-4o", "endpoint": "openAI",
        "createdAt": f"2026-11-20T10:{minute:02}:00.000Z",
        "updatedAt": f"2026-11-20T11:{minute:02}:00.000Z",
    } | more  # fmt: skip


ASKED = message("m1", "00000000-0000-0000-0000-000000000000", "Hi", 0, isCreatedByUser=True)
WORSE = message("m2", "m1", "Hm.", 1, feedback={
    "rating": "thumbsDown", "tag": {"key": "not_helpful"}, "text": "says nothing"})  # fmt: skip
BETTER = message("m3", "m1", "", 2, content=[
    {"type": "think", "think": "hm"}, {"type": "text", "text": {"value": "Hello!"}},
], feedback={"rating": "thumbsUp"})  # fmt: skip
FLAT = {"conversationId": "c-1", "endpoint": "openAI", "messages": [ASKED, WORSE, BETTER]}
NESTED = FLAT | {
    "recursive": True, "messages": [ASKED | {"children": [WORSE, BETTER]}]
}  # fmt: skip
EXPECTED = [
    ("Hello!", "thumbs", "up"),
    ("Hm.", "comment", "not helpful"),
    ("Hm.", "comment", "says nothing"),
    ("Hm.", "regenerate", True),
    ("Hm.", "thumbs", "down"),
]


@pytest.mark.parametrize("rows", [[FLAT], [NESTED], [ASKED, WORSE, BETTER]])
def test_every_form_of_a_chat_is_the_same(rows: list[Any], tmp_path: Path) -> None:
    store, path = new_store(tmp_path), write(tmp_path / "chat.jsonl", *rows)
    assert prepare(str(path), now=NOW).door.name == "librechat"
    report = bring(path, store)
    assert report.set_aside == 0
    assert [(kept.prompt, kept.response, kept.model_version) for kept in answers(store)] == [
        ("Hi", "Hm.", "gpt-4o"), ("Hi", "Hello!", "gpt-4o")
    ]  # fmt: skip
    assert sorted(said(store), key=repr) == sorted(EXPECTED, key=repr)
    again = bring(path, store)
    assert (again.interactions, again.feedback) == (0, 0)


def test_an_export_and_a_dump_of_the_same_chat_are_the_same_answers(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    bring(write(tmp_path / "a.jsonl", FLAT), store)
    bring(write(tmp_path / "b.jsonl", ASKED, WORSE, BETTER), store)
    assert len(answers(store)) == 2
    assert len(said(store)) == len(EXPECTED)


def test_an_answer_that_failed_is_an_error(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    failed = message("m2", "m1", "no credits", 1, error=True)
    bring(write(tmp_path / "c.jsonl", FLAT | {"messages": [ASKED, failed]}), store)
    assert [kept.error for kept in answers(store)] == ["no credits"]


def test_what_was_said_about_an_answer_that_is_set_aside_is_not_stored_either(
    tmp_path: Path,
) -> None:
    store = new_store(tmp_path)
    empty, good = message("m2", "m1", "", 1), message("m3", "m1", "Hello!", 2)
    report = bring(write(tmp_path / "c.jsonl", FLAT | {"messages": [ASKED, empty, good]}), store)
    assert (report.set_aside, report.noted) == (1, ())
    assert said(store) == []


def test_a_rating_that_is_none_is_set_aside(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    odd = message("m2", "m1", "Hm.", 1, feedback={"rating": "sideways"})
    report = bring(write(tmp_path / "c.jsonl", FLAT | {"messages": [ASKED, odd]}), store)
    (example,) = report.examples
    assert (report.interactions, example.position) == (1, "line 1, message m2")
    assert "must be thumbsUp or thumbsDown, got 'sideways'" in example.reason
