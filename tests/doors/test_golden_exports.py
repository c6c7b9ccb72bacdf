"""Exports by the documented schema of each tool come in as they should, and a second time not.

An export has at least one answer that was asked for anew, a comment where the tool has any, an odd
value and a row that is of no use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.report import IngestReport
from ratchet.doors.importing import prepare
from ratchet.doors.known import DOORS
from ratchet.doors.mapping import ImportMap
from ratchet.doors.rows import events_of
from ratchet.files.rows import read_rows
from ratchet.store import EventStore
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
    "langsmith": "langsmith",
    "librechat.json": "librechat",
    "arena.jsonl": "arena",
    "mlflow.jsonl": "mlflow",
    "otlp.jsonl": "otlp",
    "ratchet_events.jsonl": "ratchet",
    "table.csv": "table",
}
MAPPINGS: dict[str, dict[str, Any]] = {
    "table.csv": {
        "columns": {
            "id": "request", "created_at": "ts", "user_id": "customer", "prompt": "question",
            "response": "answer",
            "feedback": [
                {"kind": "thumbs", "column": "rating", "values": {"good": "up", "bad": "down"}},
                {"kind": "comment", "column": "remarks"},
            ],
        }
    }
}  # fmt: skip
"""What a table says no more than its columns' names of."""
LEAST_FOUND = 0.99


def expected(export: str) -> dict[str, Any]:
    path = GOLDEN / f"{export.partition('.')[0]}.expected.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_every_golden_export_is_brought_in() -> None:
    there = {path.name for path in GOLDEN.iterdir() if ".expected." not in path.name}
    assert there == EXPORTS.keys()


def test_every_door_has_one() -> None:
    assert {door.name for door in DOORS} == set(EXPORTS.values())


def imported(export: str, store: EventStore, now: datetime = NOW) -> IngestReport:
    return bring(GOLDEN / export, store, mapping=MAPPINGS.get(export), now=now)


@pytest.mark.parametrize(
    ("export", "door"), [one for one in EXPORTS.items() if one[0] not in MAPPINGS]
)
def test_the_format_of_an_export_is_recognised(export: str, door: str) -> None:
    what = prepare(str(GOLDEN / export), now=NOW)
    assert (what.door.name, what.is_recognised) == (door, True)


@pytest.mark.parametrize("export", [name for name in EXPORTS if name != "langfuse"])
def test_an_export_comes_in_as_answers_with_feedback(export: str, tmp_path: Path) -> None:
    store, right = new_store(tmp_path), expected(export)
    report = imported(export, store)
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
    assert sorted(repr(list(one)) for one in said(store)) == sorted(map(repr, right["feedback"]))
    assert report.set_aside == right["set_aside"]
    assert sum(count for _, count in report.passed) == right["passed"]
    assert report.noted == ()  # all feedback has found its answer


@pytest.mark.parametrize("export", EXPORTS)
def test_a_second_import_of_an_export_adds_nothing(export: str, tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first = imported(export, store)
    again = imported(export, store, NOW.replace(day=2))
    assert (again.interactions, again.feedback, again.set_aside) == (0, 0, first.set_aside)
    assert again.repeated + again.recognised == first.interactions + first.feedback + first.repeated


def test_scores_find_their_answers_and_what_is_not_stored_has_a_reason(tmp_path: Path) -> None:
    """Of all exports together: at least 99 % of what was said is about a stored answer."""
    found = lost = 0
    for export in EXPORTS:
        store = new_store(tmp_path / export.partition(".")[0])
        report = imported(export, store)
        about = [answer for answer, _, _ in said(store)]
        found, lost = found + len(about) - about.count("?"), lost + about.count("?")
        assert report.set_aside == sum(count for _, count in report.reasons)
        kept = store.set_aside_rows()
        assert len(kept) == report.set_aside
        assert all(row.reason and row.position and row.raw for row in kept)
        for place, events in became(export):
            assert events, f"{export}, {place}: neither stored nor given a reason"
    assert found >= 45  # else this shows nothing
    assert found / (found + lost) >= LEAST_FOUND


def became(export: str) -> Iterator[tuple[str, list[object]]]:
    """Yield each row of an export: its place, and the events or the reasons that it becomes."""
    mapping = ImportMap.model_validate(MAPPINGS[export]) if export in MAPPINGS else None
    what = prepare(str(GOLDEN / export), now=NOW, mapping=mapping)
    for file in what.files:
        with read_rows(Path(file.address), finite=True, may_be_empty=True) as rows:
            for row in rows:
                yield row.position, list(events_of([row], what.door, what.given, None, NOW))
