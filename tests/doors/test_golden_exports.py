"""Exports by the documented schema of each tool come in as they should, and a second time not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratchet.doors.importing import prepare
from tests.doors.bringing import GOLDEN, NOW, answers, bring, new_store, said

EXPORTS = {
    "open_webui_feedback.json": "open_webui",
    "openai_pairs.jsonl": "openai",
    "openai_batch": "openai",
    "litellm.jsonl": "litellm",
    "sharegpt.json": "sharegpt",
    "chatgpt": "chatgpt",
    "anthropic.json": "anthropic",
    "langfuse": "langfuse",
}


def expected(export: str) -> dict[str, object]:
    path = GOLDEN / f"{export.partition('.')[0]}.expected.json"
    found: dict[str, object] = json.loads(path.read_text("utf-8"))
    return found


def test_every_golden_export_is_brought_in() -> None:
    there = {path.name for path in GOLDEN.iterdir() if ".expected." not in path.name}
    assert there == EXPORTS.keys()


@pytest.mark.parametrize(("export", "door"), EXPORTS.items())
def test_the_format_of_an_export_is_recognised(export: str, door: str) -> None:
    what = prepare(str(GOLDEN / export), now=NOW)
    assert (what.door.name, what.is_recognised) == (door, True)


@pytest.mark.parametrize("export", [name for name in EXPORTS if name != "langfuse"])
def test_an_export_comes_in_as_answers_with_feedback(export: str, tmp_path: Path) -> None:
    store, right = new_store(tmp_path), expected(export)
    report = bring(GOLDEN / export, store)
    told = [
        [
            item.prompt,
            item.response,
            item.user_id,
            None if item.session_id == item.id else item.session_id,
            item.model_version,
            item.created_at.isoformat(),
        ]
        for item in answers(store)
    ]
    assert told == right["answers"]
    assert [list(one) for one in said(store)] == right["feedback"]
    assert report.set_aside == right["set_aside"]
    assert sum(count for _, count in report.passed) == right["passed"]
    assert report.noted == ()  # all feedback has found its answer


@pytest.mark.parametrize("export", EXPORTS)
def test_a_second_import_of_an_export_adds_nothing(export: str, tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first = bring(GOLDEN / export, store)
    again = bring(GOLDEN / export, store, now=NOW.replace(day=2))
    assert (again.interactions, again.feedback, again.set_aside) == (0, 0, first.set_aside)
    assert again.repeated + again.recognised == first.interactions + first.feedback + first.repeated
