"""Conversations with tools and pictures: brought in, exported, and brought in again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.ingest import ingest_file
from ratchet.records import Definition
from ratchet.store import EventStore
from tests.export.stores import NOW, written

CALL = {
    "id": "t1", "type": "function",
    "function": {"name": "weather", "arguments": '{"town": "Köln"}'},
}  # fmt: skip
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
]
FORM = {"type": "json_schema", "json_schema": {"name": "town", "schema": {"type": "object"}}}
FOUND: Any = [{"title": "map", "text": "Köln lies on the Rhine"}]
BLOB = f"blob:sha256-{'0' * 64};image/png;12"


def row(key: object, **fields: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": "weather in Köln?"}
    return {
        "id": key, "session_id": "s", "user_id": 7, "created_at": "2026-11-30T10:00:00Z",
        "model_version": "m/1", "messages": [asked], "response": "12 degrees",
    } | fields  # fmt: skip


ROWS = [
    row("parts", messages=[
        {"role": "developer", "content": "be brief"},
        {"role": "user", "name": "bob", "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": BLOB, "detail": "low"}},
        ]},
    ]),
    row("results", messages=[
        {"role": "user", "content": "weather in Köln?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "t1", "content": "12C"},
    ], tools=TOOLS, continues="calls"),
    row("calls", response=None, tool_calls=[CALL], tools=TOOLS, documents=FOUND),
    row("refuses", response="", refusal="I cannot."),
    row("form", response='{"town": "Köln"}', response_format=FORM),
    row(8, metadata={"prompt_tokens": 12, "cached": True, "tags": ["a"], "none": None}),
    row("failed", response=None, error="timeout"),
]  # fmt: skip


def brought_in(path: Path, folder: Path) -> EventStore:
    store = EventStore.open(f"sqlite:///{folder}/store.db")
    report = ingest_file(path, store, now=NOW)
    assert (report.set_aside, report.interactions) == (0, len(ROWS)), report.lines()
    return store


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    path = tmp_path / "sent.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    return path


def test_rows_with_tools_parts_and_nulls_are_stored_as_they_were_sent(
    sent: Path, tmp_path: Path
) -> None:
    store = brought_in(sent, tmp_path / "there")
    found = store.stored_interactions([str(one["id"]) for one in ROWS])
    for one in ROWS[:2]:
        kept = [message.canonical() for message in found[str(one["id"])].messages]
        assert kept == one["messages"]
    assert found["calls"].tools == found["results"].tools == Definition.of("tools", TOOLS).id
    bodies = store.definitions(
        filter(
            None, (found["calls"].tools, found["calls"].documents, found["form"].response_format)
        )
    )
    assert sorted(json.dumps(one.body) for one in bodies.values()) == sorted(
        map(json.dumps, (TOOLS, FOUND, FORM))
    )
    assert [call.canonical() for call in found["calls"].tool_calls] == [CALL]
    assert (found["calls"].response, found["failed"].response) == ("", "")
    assert found["refuses"].refusal == "I cannot."
    assert found["results"].continues == "calls"
    assert found["8"].metadata == {"prompt_tokens": "12", "cached": "true", "tags": '["a"]'}
    assert found["8"].user_id == "7"
    store.close()


def test_what_is_exported_and_brought_in_again_is_the_same(sent: Path, tmp_path: Path) -> None:
    there = brought_in(sent, tmp_path / "there")
    path = tmp_path / "exported.jsonl"
    written(there, tmp_path, "interactions", str(path))
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [one.get("tools") for one in lines if one["id"] == "calls"] == [TOOLS]
    back = brought_in(path, tmp_path / "back")
    ids = [str(one["id"]) for one in ROWS]
    assert back.stored_interactions(ids) == there.stored_interactions(ids)
    wanted = [Definition.of("tools", TOOLS).id, Definition.of("documents", FOUND).id]
    assert back.definitions(wanted) == there.definitions(wanted)
    assert len(back.definitions(wanted)) == 2
    back.close()
    there.close()


def test_tools_that_no_store_can_hold_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row("a", tools=["\ud800"])) + "\n")
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    report = ingest_file(path, store, now=NOW)
    assert (report.interactions, report.set_aside) == (0, 1)
    store.close()


def test_a_table_holds_calls_and_tools_as_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [
        row("calls", response="", messages=json.dumps(ROWS[0]["messages"]),
            tool_calls=json.dumps([CALL]), tools=json.dumps(TOOLS)),
    ]  # fmt: skip
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    report = ingest_file(path, store, now=NOW)
    assert (report.interactions, report.set_aside) == (1, 0), report.lines()
    (found,) = store.stored_interactions(["calls"]).values()
    assert [call.canonical() for call in found.tool_calls] == [CALL]
    assert store.definitions([Definition.of("tools", TOOLS).id])
    store.close()
