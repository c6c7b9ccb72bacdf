import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.evaluation.json_metrics import MISSING, field_f1, json_validity, parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (" [1, 2] \n", [1, 2]),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}\n```', {"a": 1}),
        ('```{"a": 1}```', {"a": 1}),
        ('Here it is: {"a": 1}', MISSING),
        ("{'a': 1}", MISSING),
        ("{", MISSING),
        ("NaN", MISSING),
        ("", MISSING),
        ("``````", MISSING),
        ("[" * 100_000, MISSING),
    ],
)
def test_only_json_is_json_but_a_fence_is_taken_off(text, value):
    assert parse_json(text) == value


def test_validity_may_ask_for_an_object_with_keys():
    answers = ['{"intent": "x", "slots": {}}', '{"intent": "x"}', "[1]", "no", None]
    assert json_validity(answers).values[:4].tolist() == [1.0, 1.0, 1.0, 0.0]
    required = json_validity(answers, required=["intent", "slots"])
    assert required.values[:4].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert math.isnan(required.values[4])


def test_fields_are_paths_with_values_and_f1_is_over_them():
    target = '{"intent": "PlayMusic", "slots": {"artist": "Nina Simone", "year": 1965}}'
    answer = '{"slots": {"artist": " nina  simone", "year": 1965.0, "album": "x"}}'
    # shared: artist, year; found 3, expected 3
    assert field_f1([answer], [target]).values[0] == pytest.approx(2 / 3)


def test_items_of_a_list_have_no_order_but_count_once_each():
    assert field_f1(["[1, 2, 2]"], ["[2, 1]"]).values[0] == pytest.approx(2 * 2 / 5)


def test_the_whole_is_over_all_fields_and_what_is_no_json_has_none():
    targets = [{"a": 1}, {"a": 1, "b": 2, "c": 3}, "no json"]
    scored = field_f1(["{", '{"a": 1, "b": 2, "c": 3}', "{}"], targets)
    assert scored.values[:2].tolist() == [0.0, 1.0]
    assert math.isnan(scored.values[2])
    assert scored.whole == pytest.approx(2 * 3 / (3 + 4))


@given(values)
def test_every_value_has_all_the_fields_of_itself(value):
    assert field_f1([json.dumps(value)], [json.dumps(value)]).values[0] == 1.0


def test_true_is_not_1_and_an_empty_object_is_not_an_empty_list():
    assert field_f1(['{"a": true}'], [{"a": 1}]).values[0] == 0.0
    assert field_f1(["{}"], ["[]"]).values[0] == 0.0


def test_lists_that_do_not_match_are_refused():
    with pytest.raises(InvalidInputError, match="got 1 and 0"):
        field_f1(["{}"], [])
