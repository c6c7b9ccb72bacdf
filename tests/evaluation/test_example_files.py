import json
import re

import pytest

from ratchet.errors import InvalidInputError
from ratchet.evaluation.example_files import read_examples


def written(folder, text, name="examples.jsonl"):
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_prompts_and_conversations_are_read(tmp_path):
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    rows = [
        {"id": 1, "prompt": "where?", "target": "here", "user_id": 7, "cluster": "places"},
        {"id": "b", "messages": turns, "target": "hello", "note": "is left out of account"},
        {"id": "c", "prompt": "hi", "system": "be brief", "target": "hello"},
    ]
    one, two, three = read_examples(written(tmp_path, lines(*rows)))
    assert (one.id, one.prompt, one.target) == ("1", "where?", "here")
    assert (one.user_id, one.cluster, two.user_id) == ("7", "places", None)
    assert two.messages == three.messages


def test_csv_says_the_same_as_json_lines(tmp_path):
    text = 'id,prompt,target,user_id,cluster\n1,"where,\nto?",here,7,places\n2,why?,so,,\n'
    rows = [
        {"id": "1", "prompt": "where,\nto?", "target": "here", "user_id": "7", "cluster": "places"},
        {"id": "2", "prompt": "why?", "target": "so"},
    ]
    assert read_examples(written(tmp_path, text, "a.csv")) == read_examples(
        written(tmp_path, lines(*rows))
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"id": "a", "target": "t"}', "one of prompt and messages"),
        ('{"id": "a", "prompt": "p", "messages": [], "target": "t"}', "one of prompt and messages"),
        ('{"prompt": "p", "target": "t"}', "id:"),
        ('{"id": "a", "messages": "{", "target": "t"}', "messages must be JSON"),
        ('{"id": "a", "messages": [], "target": "t"}', "messages:"),
        ('{"id": "a", "prompt": 5, "target": "t"}', "content"),
        ("[1]", "must be a JSON object"),
        ("{", "a row must be JSON"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named_with_its_line(tmp_path, row, expected):
    good = lines({"id": "x", "prompt": "p", "target": "t"})
    with pytest.raises(InvalidInputError, match=r"examples\.jsonl: line 2: ") as caught:
        read_examples(written(tmp_path, good + row + "\n"))
    assert expected in str(caught.value)


def test_every_bad_row_is_named_at_once_and_the_rest_counted(tmp_path):
    with pytest.raises(InvalidInputError, match=r"line 10: .*; and 5 more"):
        read_examples(written(tmp_path, "{}\n" * 15))


def test_an_id_goes_once(tmp_path):
    row = {"id": "x", "prompt": "p", "target": "t"}
    with pytest.raises(InvalidInputError, match="line 2: id 'x' is there before"):
        read_examples(written(tmp_path, lines(row, row)))


def test_no_file_and_no_rows_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"must be a readable file, got .*none\.csv"):
        read_examples(tmp_path / "none.csv")
    with pytest.raises(InvalidInputError, match="must hold rows with id and prompt, got none"):
        read_examples(written(tmp_path, "", "empty.csv"))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"id,prompt,target\n\xff\xfe,x,y\n")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        read_examples(binary)


@pytest.mark.parametrize(
    "text",
    [
        "id,prompt\na,why?\n",
        "id,prompt,target\na,why?,\n",
        '{"id": "a", "prompt": "why?"}\n',
        '{"id": "a", "prompt": "why?", "target": null}\n',
        '{"id": "a", "prompt": "why?", "target": ""}\n',
    ],
)
def test_an_open_question_has_no_target_however_the_file_says_so(tmp_path, text):
    name = "examples.csv" if text.startswith("id") else "examples.jsonl"
    (one,) = read_examples(written(tmp_path, text, name))
    assert (one.target, one.right_answer) == (None, None)
    assert "target" not in one.canonical()


def test_tests_may_stand_for_the_target(tmp_path):
    rows = [
        {"id": "a", "prompt": "def f():", "tests": "assert f() == 1", "entry_point": "f"},
        {"id": "b", "prompt": "write f", "tests": "assert f() == 1", "target": "def f(): return 1"},
        {"id": "c", "prompt": "hi", "target": "hello"},
    ]
    one, two, three = read_examples(written(tmp_path, lines(*rows)))
    assert (one.tests, one.entry_point, one.target) == ("assert f() == 1", "f", "")
    assert (one.right_answer, two.right_answer) == (None, "def f(): return 1")
    assert (three.tests, three.right_answer) == (None, "hello")
    text = "id,prompt,tests,entry_point\na,def f():,assert f() == 1,f\n"
    assert read_examples(written(tmp_path, text, "examples.csv")) == (one,)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tests": ""}, "tests must hold Python"),
        ({"tests": " \n"}, "tests must hold Python"),
        ({"tests": 5}, "tests: Input should be a valid string"),
        ({"tests": "pass", "entry_point": "f()"}, "entry_point must be a name in Python"),
        ({"tests": "pass", "entry_point": "class"}, "entry_point must be a name in Python"),
        ({"target": "x", "entry_point": "f"}, "entry_point goes with tests"),
    ],
)
def test_tests_that_are_none_are_refused(tmp_path, row, said):
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        read_examples(written(tmp_path, lines({"id": "a", "prompt": "p"} | row)))


def test_a_group_says_which_examples_belong_together_and_goes_before_the_user(tmp_path):
    rows = [
        {"id": "a", "prompt": "x", "target": "y", "user_id": "u1", "group": 7},
        {"id": "b", "prompt": "x", "target": "y", "user_id": "u2"},
    ]
    one, two = read_examples(written(tmp_path, lines(*rows)))
    assert (one.user_id, two.user_id) == ("7", "u2")
