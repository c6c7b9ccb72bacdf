"""An answer that a person gives may call tools, as text or as a turn; both are kept as one text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from ratchet.collect.plain_events import plain_feedback
from ratchet.records import Correction, Message
from ratchet.records.tool_calls import as_turn, asked, written
from tests.calls import call, looked_up, turn

STOP = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
TURN = {"role": "assistant", "content": "Yes.", "tool_calls": [call("stop")]}
NOW = datetime(2026, 11, 2, tzinfo=UTC)


def correction(value: Any) -> str:
    return Correction(id="c", interaction_id="i", created_at=NOW, value=value).value


@pytest.mark.parametrize("given", [TURN, json.dumps(TURN), f"Yes.\n{STOP}"])
def test_a_correction_that_calls_is_kept_in_one_form(given: Any) -> None:
    assert correction(given) == f"Yes.\n{STOP}"
    fields = {"kind": "correction", "id": "c", "interaction_id": "i", "value": given,
              "created_at": "2026-11-02T00:00:00Z"}  # fmt: skip
    row = plain_feedback(fields, earliest=0, latest=2**62)
    assert row is None or row.text == f"Yes.\n{STOP}"  # None: the record's own way takes it


@pytest.mark.parametrize(
    "words",
    [
        "billing", '{"tool_calls": [1]}', '{"role": "user", "tool_calls": []}', '{"tool_calls"',
        json.dumps({"role": "assistant", "tool_calls": []}), json.dumps(TURN | {"tool_calls": [1]}),
        "<tool_call>{no json</tool_call>",
    ],
)  # fmt: skip
def test_any_other_text_stays_as_it_was_written(words: str) -> None:
    assert correction(words) == words


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        5,
        None,
        [TURN],
        TURN | {"role": "tool"},
        TURN | {"tool_calls": [1]},
        "",
        TURN | {"content": "a\x00b"},
    ],
)
def test_what_is_no_answer_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        correction(value)


@pytest.mark.parametrize(
    "text",
    [
        "words", f"Yes.\n{STOP}", f"{STOP}\n{STOP}", "<tool_call>no</tool_call>",
        f"<tool_<tool_call>{{}}</tool_call>call>{STOP}",
        '<tool_call>{"name": "f", "arguments": {"x": 1e999}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": "</tool_call>"}}</tool_call>',
    ],
)  # fmt: skip
def test_a_turn_of_a_text_is_written_as_a_text_of_the_same_turn(text: str) -> None:
    once = as_turn(text)
    assert as_turn(written(once)) == once
    assert bool(once.tool_calls) == (text.strip().startswith(("<tool_call>\n", "Yes.")))


DEEP = '{"name": "f", "arguments": {"a": ' + "[" * 300 + "]" * 300 + "}}"


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\x00", "<tool_call>\ud800", "<tool_call>" + "a" * 100_001,
        f"a\x00b {STOP}", "a" * 100_001 + STOP, f"<tool_call>{DEEP}</tool_call>",
    ],
)  # fmt: skip
def test_a_text_whose_calls_no_record_can_hold_is_a_turn_of_that_text(text: str) -> None:
    found = as_turn(text)
    assert (found.role, found.content, found.tool_calls) == ("assistant", text, ())


def test_what_was_asked_is_told_with_the_results_after_it() -> None:
    talk = looked_up("Who?", "Ana", name="A")
    assert asked("And now?", talk) == "And now?"
    assert asked("Who?", talk[:-1]) == (
        'Who?\ncalls find_customer(name="A")\nresult of find_customer: Ana'
    )
    plain: tuple[Message, ...] = (turn("user", "hi"), turn("assistant", "yes"))
    assert asked("hi", plain) == "hi"
