"""What leaves has no personal data in calls and results either, and calls stay calls."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.export.dataset import lines_for
from ratchet.export.parts import batches_of
from ratchet.improve.curation.dataset import has_calls_in, parquet_schema
from ratchet.improve.curation.rows import PreferenceRow, TrainingRow, row_of
from ratchet.records import Definition, Example, ExampleSet, Message, ToolCall
from ratchet.records.judging import ComparedPair, LabelSheet
from ratchet.review.queue import queue_flags
from ratchet.safety.rules import Flag
from ratchet.store import EventStore
from tests.calls import call, looked_up
from tests.calls import turn as said
from tests.export.stores import NOW, turn, written

MAIL = "ana@example.org"
TALK = looked_up(f"I am {MAIL}", json.dumps({"mail": MAIL}), mail=MAIL, n=5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    calls = [ToolCall.model_validate(call("mail", "c2", to=MAIL))]
    store.add_interactions([turn(0, messages=TALK, response="I wrote.", tool_calls=calls)])
    yield store
    store.close()


def test_exported_interactions_keep_calls_without_personal_data(
    store: EventStore, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    tally = written(store, tmp_path, "interactions", str(path), redact=True)
    (row,) = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    text = json.dumps(row)
    assert MAIL not in text
    assert "help@example.com" in text  # the application's own words
    (asked,) = row["messages"][2]["tool_calls"]
    assert json.loads(asked["function"]["arguments"]) == {"mail": "<EMAIL_ADDRESS>", "n": 5}
    assert json.loads(row["messages"][3]["content"]) == {"mail": "<EMAIL_ADDRESS>"}
    assert row["messages"][3]["tool_call_id"] == asked["id"]
    assert tally.redacted == {"EMAIL_ADDRESS": 4}


def test_an_answers_calls_and_the_documents_it_was_given_with_are_redacted_too(
    store: EventStore, tmp_path: Path
) -> None:
    found = Definition.of("documents", [{"title": "Staff", "text": f"Ana: {MAIL}"}])
    says = {"name": "mail", "description": f"As {MAIL} would"}
    takes = {"properties": {"name": {"type": "string", "description": f"Such as {MAIL}"}}}
    tools = Definition.of("tools", [{"type": "function", "function": says | {"parameters": takes}}])
    store.add_definitions([found, tools])
    calls = [ToolCall.model_validate(call("mail", "c2", to=MAIL))]
    about = turn(1, response="", tool_calls=calls, documents=found.id, tools=tools.id)
    store.add_interactions([about])
    path = tmp_path / "out.jsonl"
    written(store, tmp_path, "interactions", str(path), redact=True)
    row = json.loads(path.read_text("utf-8").splitlines()[1])
    assert MAIL not in json.dumps(row)
    assert json.loads(row["tool_calls"][0]["function"]["arguments"]) == {"to": "<EMAIL_ADDRESS>"}
    assert row["documents"] == [{"title": "Staff", "text": "Ana: <EMAIL_ADDRESS>"}]
    (tool,) = [one["function"] for one in row["tools"]]
    assert (tool["name"], tool["description"]) == ("mail", "As <EMAIL_ADDRESS> would")
    named = tool["parameters"]["properties"]["name"]
    assert named == {"type": "string", "description": "Such as <EMAIL_ADDRESS>"}


def test_exported_interactions_are_whole_where_nothing_is_redacted(
    store: EventStore, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    written(store, tmp_path, "interactions", str(path), redact=False)
    (row,) = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert row["messages"] == [one.canonical() for one in TALK]


def cells(path: Path) -> dict[str, str]:
    (row,) = csv.DictReader(io.StringIO(path.read_text("utf-8-sig")))
    return row


@pytest.mark.parametrize("redact", [True, False])
def test_a_review_sheet_shows_calls_and_hides_who_is_in_them(
    store: EventStore, tmp_path: Path, redact: bool
) -> None:
    queue_flags(store, [Flag("rule", "i0000", "word", "it names somebody")], now=NOW)
    path = tmp_path / "sheet.csv"
    written(store, tmp_path, "label-sheet", str(path), "csv", sheet="items", redact=redact)
    shown = "<EMAIL_ADDRESS>" if redact else MAIL
    row = cells(path)
    prompt = row["prompt"]
    assert row["answer"] == f'I wrote.\ncalls mail(to="{shown}")'
    assert f'assistant: calls find_customer(mail="{shown}", n=5)' in prompt
    assert f'tool: result of find_customer: {{"mail": "{shown}"}}' in prompt
    assert (MAIL in prompt) is not redact


def test_a_sheet_of_pairs_shows_calls_and_hides_who_is_in_them(
    store: EventStore, tmp_path: Path
) -> None:
    examples = ExampleSet.freeze("asked", (Example(id="e1", messages=TALK),), NOW)
    store.append(examples)
    store.append(
        LabelSheet(
            id="sheet", created_at=NOW - timedelta(days=1), cycle_id="c1",
            example_set_id=examples.id, wanted=1,
            pairs=(ComparedPair(example_id="e1", first=f"to {MAIL}", second="no"),),
        )
    )  # fmt: skip
    path = tmp_path / "sheet.csv"
    written(store, tmp_path, "label-sheet", str(path), "csv", redact=True)
    row = cells(path)
    assert 'calls find_customer(mail="<EMAIL_ADDRESS>", n=5)' in row["prompt"]
    assert MAIL not in json.dumps(row)


def test_an_exported_training_row_keeps_its_turns_whole() -> None:
    talk: tuple[Message, ...] = (
        said("user", "Who?", name="Ana"),
        said("assistant", tool_calls=[call("find")]),
        said("tool", "Ana", tool_call_id="c1"),
    )
    row = TrainingRow("i", talk, "It is Ana.", "rated")
    (line,) = lines_for([row], "openai")
    messages: list[dict[str, Any]] = line["messages"]
    assert messages[0] == {"role": "user", "content": "Who?", "name": "Ana"}
    assert messages[1]["tool_calls"] == [call("find")]
    assert messages[1]["weight"] == 0
    assert messages[2]["tool_call_id"] == "c1"


TOOLS: Any = ({"type": "function", "function": {"name": "find", "parameters": {}}},)
FIND = '<tool_call>\n{"name": "find", "arguments": {"n": 5}}\n</tool_call>'


def test_a_row_that_calls_has_tools_and_calls_in_each_format() -> None:
    row = TrainingRow("i", (said("user", "Who?"),), f"I look.\n{FIND}", "rated", tools=TOOLS)
    (trl,) = lines_for([row], "trl")
    function = {"name": "find", "arguments": {"n": 5}}
    (called,) = trl["completion"][0]["tool_calls"]
    assert called == {"type": "function", "function": function}
    assert json.loads(trl["tools"]) == list(TOOLS)
    (openai,) = lines_for([row], "openai")
    assert openai["tools"] == list(TOOLS)
    learnt = openai["messages"][-1]
    assert learnt["content"] == "I look."
    (sent,) = learnt["tool_calls"]
    assert json.loads(sent["function"]["arguments"]) == {"n": 5}
    assert sent["id"] == "call_0"


def test_a_pair_that_calls_has_its_tools_in_the_input_for_openai() -> None:
    row = PreferenceRow("i", "i", (said("user", "Who?"),), FIND, "Ana.", "correction", tools=TOOLS)
    (line,) = lines_for([row], "openai")
    assert line["input"]["tools"] == list(TOOLS)
    assert line["preferred_output"][0]["tool_calls"][0]["function"]["name"] == "find"
    assert line["non_preferred_output"] == [{"role": "assistant", "content": "Ana."}]


@pytest.mark.parametrize("format_name", ["hf", "trl", "openai"])
def test_a_row_that_calls_comes_back_equal_out_of_a_table(format_name: Any) -> None:
    row = TrainingRow("i", TALK, FIND, "rated", tools=TOOLS)
    schema = parquet_schema("sft", with_calls=has_calls_in([row]))
    (batch,) = batches_of([row.canonical()], schema)
    (stored,) = batch.to_pylist()
    back = row_of("sft", stored)
    assert back.canonical() == row.canonical()
    assert lines_for([back], format_name) == lines_for([row], format_name)
