import json

import numpy as np

from ratchet.evaluation.answer_facts import measure_answers
from tests.calls import call

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "parameters": {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
            },
        },
    }
]


def measured(*rows):
    """Measure answers given as (calls, words, tools, form)."""
    return measure_answers(*(list(column) for column in zip(*rows, strict=True)))


def calls(*made):
    return json.dumps(made)


def test_calls_are_held_against_the_tools_of_their_request():
    found = measured(
        (calls(call("find", "c1", name="Ana")), None, TOOLS, None),
        (calls(call("find", "c1", name=7)), None, TOOLS, None),
        (calls(call("lose")), None, TOOLS, None),
        (calls(call("find", "c1", name="Ana"), call("find", "c1", name="Bo")), None, TOOLS, None),
        (None, None, TOOLS, None),
        (None, None, None, None),
    )
    assert found["tool_calls"][:5].tolist() == [1.0, 1.0, 1.0, 2.0, 0.0]
    assert found["call_validity"][:5].tolist() == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert found["unparsable_call"][:5].tolist() == [0.0] * 5
    assert all(np.isnan(found[name][5]) for name in found), "it was given no tools"


def test_a_call_that_cannot_be_read_is_told_wherever_it_stands():
    broken = json.dumps([{"function": {"name": "find", "arguments": '{"name": '}}])
    found = measured(
        (broken, None, TOOLS, None),
        (None, 'Here: <tool_call>{"name": "find"</tool_call>', TOOLS, None),
        (broken, None, None, None),
    )
    assert found["unparsable_call"].tolist() == [1.0, 1.0, 1.0]
    assert found["call_validity"][:2].tolist() == [0.0, 0.0]
    assert np.isnan(found["call_validity"][2]), "what it could call is not known"


def test_a_custom_tools_call_is_counted_and_fits_always():
    custom = json.dumps([{"type": "custom", "custom": {"name": "sql", "input": "select 1"}}])
    tools = [{"type": "custom", "custom": {"name": "sql"}}]
    found = measured((custom, None, tools, None))
    assert found["tool_calls"].tolist() == [1.0]
    assert found["call_validity"].tolist() == [1.0]
    assert found["unparsable_call"].tolist() == [0.0]


def test_the_form_is_owed_by_the_answer_in_words():
    schema = {
        "type": "json_schema",
        "json_schema": {"schema": {"type": "object", "required": ["city"]}},
    }
    found = measured(
        (None, '{"city": "Faro"}', None, schema),
        (None, '{"town": "Faro"}', None, schema),
        (None, "Faro", None, {"type": "json_object"}),
        (None, "Faro", None, {"type": "text"}),
        (calls(call("find", "c1", name="Ana")), "", TOOLS, schema),
    )
    assert found["format_validity"][:3].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(found["format_validity"][3:]).all()


def test_what_is_stored_as_calls_and_is_none_is_not_known():
    found = measured(('[{"function": 7}]', None, TOOLS, None))
    assert np.isnan(found["call_validity"]).all()
