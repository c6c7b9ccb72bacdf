"""Which conversations are trained on; what is left out is counted with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ratchet.errors import InvalidInputError
from ratchet.improve.curation.config import CurationConfig, Demonstration
from ratchet.improve.curation.dataset import of_words, prepare
from ratchet.improve.curation.redacting import redact_rows
from ratchet.improve.curation.rows import LabelledRow, PreferenceRow, TrainingRow
from ratchet.improve.curation.selection import Selection
from ratchet.improve.curation.shapes import (
    CALLS,
    CALLS_AS_TEXT,
    MEDIA,
    OTHER_CALLS,
    WHY_NOT,
    WORDS,
    as_words,
    shape_of,
    shapes_of,
)
from ratchet.improve.curation.traffic import Numbers, demonstration_rows
from ratchet.records import Message
from tests.calls import call, looked_up, turn, with_picture
from tests.improve.curation.curated_home import (
    answers,
    corrections,
    curated,
    prompt,
    said,
    store_of,
    thumbs,
)

OLD = '[tool calls] [{"function":{"name":"f","arguments":"{}"}}]'
CUSTOM = {"id": "c1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
REST = CurationConfig(minimum_examples=1, minimum_lower_bound=0.0)
TALKS: list[tuple[str, tuple[Message, ...], str, dict[str, str], int]] = [
    ("words", (turn("user", "hi"),), "hello", {}, WORDS),
    ("words that quote", (turn("user", 'my "role": "tool", "tool_calls": ['),), "x", {}, WORDS),
    ("parts of text", (turn("user", [{"type": "text", "text": "hi"}]),), "x", {}, WORDS),
    ("calls", looked_up("Who?", "Ana", name="Ana"), "x", {}, CALLS),
    ("old answer", (turn("user", "hi"),), OLD, {}, CALLS_AS_TEXT),
    ("old turn", (turn("assistant", OLD), turn("user", "hi")), "x", {}, CALLS_AS_TEXT),
    ("old result", (turn("system", "[tool] x"), turn("user", "hi")), "x", {"tools": "yes"},
     CALLS_AS_TEXT),
    ("picture", (with_picture("what?"),), "a cat", {}, MEDIA),
    ("calls and a picture", (*looked_up("Who?", "Ana"), with_picture("")), "x", {}, MEDIA),
    ("a call in words", (turn("user", "hi"),), "<tool_call>{}</tool_call>", {}, CALLS),
    ("older calls", (turn("assistant", "", function_call={"name": "f", "arguments": ""}),
     turn("user", "hi")), "x", {}, OTHER_CALLS),
    ("custom tools", (turn("assistant", tool_calls=[CUSTOM]), turn("user", "hi")), "x", {},
     OTHER_CALLS),
]  # fmt: skip


@pytest.mark.parametrize(("what", "messages", "answer", "metadata", "shape"), TALKS)
def test_a_conversation_has_one_shape_in_memory_and_in_history(
    what: str, messages: tuple[Message, ...], answer: str, metadata: dict[str, str], shape: int
) -> None:
    assert shape_of(messages, turn("assistant", answer), metadata) == shape, what
    stored = pa.array([json.dumps([one.canonical() for one in messages])])
    noted = [metadata.get("tools") == "yes"]
    assert shapes_of(stored, pa.array([answer]), None, noted).tolist() == [shape]


def test_an_answer_that_calls_is_told_where_its_calls_are_stored() -> None:
    stored = pa.array([json.dumps([{"role": "user", "content": "hi"}])] * 2)
    calls = pa.array([json.dumps([call("f")]), None])
    assert shapes_of(stored, pa.array(["", "x"]), calls, [False] * 2).tolist() == [CALLS, WORDS]
    asked = turn("assistant", tool_calls=[call("f")])
    assert shape_of((turn("user", "hi"),), asked) == CALLS


def talk_of(number: int) -> tuple[Message, ...]:
    """Of ten conversations one calls a custom tool, one has a picture, one was recorded as text."""
    asked = said(prompt(number))
    return {
        0: (said("Which files?"), turn("assistant", tool_calls=[CUSTOM]), asked),
        1: (with_picture("look"), said("ok", "assistant"), asked),
        2: (said(OLD, "assistant"), asked),
    }.get(number % 10, (asked,))


@pytest.mark.parametrize("kind", ["sft", "kto", "dpo"])
def test_rows_with_old_calls_and_pictures_are_left_out_and_counted(
    tmp_path: Path, kind: Any
) -> None:
    turns = answers(40, messages=talk_of)
    given = [*thumbs(turns[::2]), *corrections(turns[1::2])]
    if kind == "dpo":
        given = corrections(turns)
    store = store_of(tmp_path, turns, given)
    made = curated(store, tmp_path, kind, REST)
    store.close()
    counted = dict(made.selection.set_aside)
    assert {counted[WHY_NOT[shape]] for shape in (OTHER_CALLS, CALLS_AS_TEXT, MEDIA)} == {4}
    rows = made.required().rows
    assert len(rows) == 28
    assert {turn.role for row in rows for turn in row.messages} == {"user"}
    assert "[tool calls]" not in json.dumps([row.canonical() for row in rows])


def test_what_is_left_out_takes_no_place_of_what_is_trained_on(tmp_path: Path) -> None:
    turns = answers(40, messages=lambda n: (with_picture("look"), said(prompt(n)))[n >= 20 :])
    store = store_of(tmp_path, turns, thumbs(turns))
    made = curated(store, tmp_path, "sft", REST.model_copy(update={"maximum_examples": 20}))
    store.close()
    assert len(made.required().rows) == 20


def test_a_correction_that_holds_a_call_as_text_is_left_out_as_a_step(tmp_path: Path) -> None:
    turns = answers(40)
    given = [*corrections(turns[:2], f"better {OLD}"), *thumbs(turns[2:])]
    store = store_of(tmp_path, turns, given)
    made = curated(store, tmp_path, "sft", REST)
    store.close()
    assert made.selection.funnel[-1][0] == "without calls of tools as text"
    assert all("[tool calls]" not in str(row.canonical()) for row in made.required().rows)


def test_a_demonstration_with_calls_is_told() -> None:
    items = [
        Demonstration(id="a", messages=looked_up("Who?", "Ana"), target="x"),
        Demonstration(id="b", messages=(said("hi"),), target=OLD),
        Demonstration(id="c", messages=(said("hi"),), target="x"),
    ]
    columns = demonstration_rows(items, Numbers(), 0)
    assert columns["shape"].tolist() == [CALLS, CALLS_AS_TEXT, WORDS]


MADE = [
    TrainingRow("i", (said("hi"),), OLD, "rated"),
    TrainingRow("i", (said(OLD, "assistant"), said("hi")), "x", "rated"),
    LabelledRow("i", (said("hi"),), OLD, True, "thumbs"),
    PreferenceRow("i", "j", (said("hi"),), "x", OLD, "correction"),
]


@pytest.mark.parametrize("row", MADE)
def test_no_row_with_a_call_as_text_can_be_made(row: Any) -> None:
    assert of_words([row]) == []
    with pytest.raises(InvalidInputError, match="no call of a tool as text"):
        prepare([row], Selection(rows=(), funnel=()), (), REST)


def test_turns_are_trained_on_as_roles_with_words() -> None:
    refused = Message(role="assistant", refusal="I may not")
    parts = turn("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], name="Ana")
    assert [one.canonical() for one in as_words([parts, refused])] == [
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "I may not"},
    ]


def test_redaction_of_rows_reaches_arguments_results_and_names_and_spares_the_prompt() -> None:
    talk = looked_up("I am ana@example.org", '{"mail": "ana@example.org"}', to=["ana@example.org"])
    named = turn("user", "see ana@example.org", name="ana@example.org")
    row = TrainingRow("i", (*talk, named), "mail ana@example.org", "rated")
    (clean,), redacted = redact_rows([row], REST)
    text = json.dumps(clean.canonical())
    assert "ana@example.org" not in text
    assert "help@example.com" in text
    assert clean.messages[2].tool_calls[0].arguments == {"to": ["<EMAIL_ADDRESS>"]}
    assert clean.messages[3].tool_call_id == "c1"
    assert redacted.counts == {"EMAIL_ADDRESS": 6}
