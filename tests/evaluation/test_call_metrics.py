"""What answers that call tools score, by hand, and what no answer's calls can do to it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.evaluation.answer_scores import check_needs, measured_on, score_answers
from ratchet.evaluation.call_metrics import (
    argument_f1,
    call_counts,
    call_validity,
    exact_calls,
    format_validity,
    is_valid,
    needless_calls,
    tool_names,
    unparsable_calls,
)
from ratchet.evaluation.example_files import read_examples
from ratchet.evaluation.paired import question_digest
from ratchet.records import Example, Message, ToolCall
from ratchet.records.tool_calls import read_calls, written


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


PLAY = call("play", artist="Nina Simone", year=1965)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize(
    ("answer", "target", "names", "exact"),
    [
        (PLAY, PLAY, 1, 1),
        ("Right away.\n" + PLAY, PLAY, 1, 1),
        (call("play", year=1965.0, artist="Nina Simone"), PLAY, 1, 1),
        (call("play", artist="nina simone", year=1965), PLAY, 1, 0),
        (call("play", artist="Nina Simone", year="1965"), PLAY, 1, 0),
        (call("play", artist="Nina Simone"), PLAY, 1, 0),
        (call("stop") + PLAY, PLAY + call("stop"), 1, 1),
        (PLAY + PLAY, PLAY, 0, 0),
        ("I play it.", PLAY, 0, 0),
        ("Hello.", "Hi.", 1, 1),
        (PLAY, "Hi.", 0, 0),
        ('<tool_call>{"name": "play"', PLAY, 0, 0),
        (PLAY + "<tool_call>nonsense</tool_call>", PLAY, 0, 0),
        (call("play", a=True), call("play", a=1), 1, 0),
    ],
)
def test_calls_are_right_by_name_and_by_arguments(
    answer: str, target: str, names: int, exact: int
) -> None:
    assert tool_names([answer], [target]).values.tolist() == [names]
    assert exact_calls([answer], [target]).values.tolist() == [exact]


def test_f1_is_over_the_arguments_of_all_calls() -> None:
    answer = call("play", artist=" nina  simone", album="x")
    # shared: the artist; found 2, expected 2
    assert argument_f1([answer], [PLAY]).values[0] == pytest.approx(1 / 2)
    # the same arguments of another tool are not the same
    assert argument_f1([call("buy", artist="Nina Simone")], [PLAY]).values[0] == 0
    assert argument_f1(["Hello.", None], ["Hi.", "Hi."]).values[0] == 1
    # 1 shared of 2 + 2, and 2 shared of 2 + 2
    assert argument_f1([answer, PLAY], [PLAY, PLAY]).whole == pytest.approx(6 / 8)


def test_a_call_is_needless_only_where_none_is_due() -> None:
    answers = [PLAY, "Hello.", "<tool_call>", PLAY, None]
    scored = needless_calls(answers, ["Hi.", "Hi.", "Hi.", PLAY, "Hi."]).values
    assert scored[:3].tolist() == [1, 0, 1]
    assert all(map(math.isnan, scored[3:]))


def test_calls_are_counted_and_those_that_cannot_be_read_too() -> None:
    answers = [PLAY + PLAY, "Hello.", "<tool_call>[]</tool_call>" + PLAY]
    assert call_counts(answers).values.tolist() == [2, 0, 1]
    assert unparsable_calls(answers).values.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        (call("weather", city="Oslo"), 1),
        (call("weather", city="Oslo", days=3), 1),
        (call("weather", city="Oslo", days="3"), 0),
        (call("weather", days=3), 0),
        (call("weather", city="Oslo", colour="red"), 0),
        (call("forecast", city="Oslo"), 0),
        (call("weather", city="Oslo") + call("forecast"), 0),
        ("<tool_call>{}</tool_call>", 0),
        ("It rains.", 1),
    ],
)
def test_a_call_must_fit_a_tool_that_there_is(answer: str, valid: int) -> None:
    assert call_validity([answer], [[WEATHER]]).values.tolist() == [valid]


def test_an_answer_must_have_the_form_that_was_asked_for() -> None:
    schema = {"type": "object", "required": ["a"]}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answers = ['{"a": 1}', "{}", "no", '{"b": 1}', "[1]", "words"]
    formats = [asked, asked, asked, {"type": "json_object"}, {"type": "json_object"}, None]
    scored = format_validity(answers, formats).values
    assert scored[:5].tolist() == [1, 0, 0, 1, 0]
    assert math.isnan(scored[5])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 5},
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$schema": "http://127.0.0.1:1/dialect", "$ref": "other.json"},
    ],
)
def test_nothing_fits_a_schema_that_cannot_be_used_and_nothing_is_fetched(
    schema: dict[str, object],
) -> None:
    assert not is_valid({}, schema)


def calling(*calls: ToolCall) -> str:
    return written(Message(role="assistant", tool_calls=calls))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    words=st.text(alphabet="abc <>{}\n", max_size=20),
    arguments=st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=3), max_size=3),
)
def test_what_is_written_is_read_back(words: str, arguments: list[dict[str, object]]) -> None:
    calls = tuple(
        ToolCall.model_validate(
            {"id": f"c{place}", "function": {"name": "find", "arguments": json.dumps(given)}}
        )
        for place, given in enumerate(arguments)
    )
    text = written(Message(role="assistant", content=words, tool_calls=calls))
    if "</tool_call>" in json.dumps(arguments):
        return
    called = read_calls(text)
    assert [one.arguments for one in called.calls] == arguments
    assert called.words == words.strip()
    assert exact_calls([text], [calling(*calls[::-1]) or "none"]).values[0] == 1


def test_arguments_that_are_no_json_stay_unparsable() -> None:
    broken = ToolCall.model_validate({"function": {"name": "find", "arguments": '{"a": '}})
    called = read_calls(calling(broken))
    assert (called.calls, called.unparsable) == ((), 1)


def test_examples_with_tools_are_read_and_measured_on_what_they_have(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    made = {"id": "c1", "type": "function"}
    wanted = {**made, "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    rows = [
        {"id": 1, "prompt": "rain in Oslo?", "tools": [WEATHER], "tool_calls": [wanted]},
        {"id": 2, "prompt": "hi", "tools": [WEATHER], "target": "Hello."},
        {"id": 3, "prompt": "as JSON", "response_format": {"type": "json_object"}},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = read_examples(file)
    assert read_calls(examples[0].target or "").calls[0].arguments == {"city": "Oslo"}
    assert measured_on("call_validity", examples) == [True, True, False]
    assert measured_on("needless_call_rate", examples) == [False, True, False]
    assert measured_on("format_validity", examples) == [False, False, True]
    answers = [call("weather", city=1), "Hello.", "{}"]
    scored = score_answers(
        "call_validity", answers, [one.right_answer for one in examples], asked=examples
    )
    assert scored.values[:2].tolist() == [0, 1]
    with pytest.raises(InvalidInputError, match="needs examples with tools"):
        check_needs("call_validity", "", examples[2:])


def test_the_same_words_with_other_tools_are_another_question() -> None:
    turns = (Message(role="user", content="hi"),)
    without = Example(id="a", messages=turns)
    tools = Example(id="a", messages=turns, tools=(WEATHER,))
    assert question_digest(without) != question_digest(tools)


@pytest.mark.parametrize(
    "row",
    [
        {"tools": "weather"},
        {"tool_calls": [{"function": {}}]},
        {"tool_calls": "weather()"},
        {"response_format": [1]},
    ],
)
def test_a_row_that_breaks_a_rule_is_told_with_its_line(
    tmp_path: Path, row: dict[str, object]
) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(json.dumps({"id": "1", "prompt": "x"} | row) + "\n")
    with pytest.raises(InvalidInputError, match="line 1"):
        read_examples(file)
