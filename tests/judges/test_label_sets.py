"""Labels of people and a judge, read from JSON Lines; few-shot examples kept from validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError, LeakError
from ratchet.judges.label_sets import (
    LabelFile,
    LabelledVerdict,
    read_label_file,
    refuse_leaks,
    split_labels,
)
from ratchet.records import HumanLabel

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


def write(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "labels.jsonl"
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", "utf-8")
    return path


def read(tmp_path: Path, *lines: Any, **columns: str) -> LabelFile:
    return read_label_file(write(tmp_path, *lines), columns)


def only(found: LabelFile) -> tuple[LabelledVerdict, ...]:
    (run,) = found.runs
    assert found.set_aside == ()
    return run.rows


def row(item: str = "i", human: Any = "good", judge: Any = "good", **more: Any) -> dict[str, Any]:
    return {"item_id": item, "human": human, "judge": judge} | more


def aside(tmp_path: Path, line: Any) -> str:
    """The reason for which a line between two good ones is set aside."""
    found = read(tmp_path, row("first"), line, row("last"))
    (run,) = found.runs
    assert [r.item_id for r in run.rows] == ["first", "last"]
    (one,) = found.set_aside
    assert (one.place, one.position) == (2, "line 2")
    return one.reason


# Rows --------------------------------------------------------------------------------------------


def test_a_row_is_read_with_everything_that_it_may_hold(tmp_path):
    line = row(
        "i-1", "1", "2", judge_swapped="1", human_3="tie", human_2="1", judge_reason="why",
        length_first=120, length_second=80.0, family_first="llama", family_second="gpt",
    )  # fmt: skip
    (found,) = only(read(tmp_path, line))
    assert found == LabelledVerdict(
        item_id="i-1", human="1", judge="2", swapped="1", both_orders=True, others=("1", "tie"),
        reason="why", lengths=(120.0, 80.0), families=("llama", "gpt"),
    )  # fmt: skip
    assert found.verdict == "tie"


def test_people_are_in_the_order_of_their_numbers_and_ten_comes_after_two(tmp_path):
    more = {f"human_{n}": f"label {n}" for n in (10, 2, 3)}
    (found,) = only(read(tmp_path, row(**more)))
    assert found.others == ("label 2", "label 3", "label 10")


@pytest.mark.parametrize(
    ("judge", "swapped", "verdict"),
    [
        ("1", "1", "1"),
        ("1", "2", "tie"),
        ("tie", "tie", "tie"),
        ("1", "tie", "tie"),
        ("1", None, None),
        (None, "1", None),
    ],
)
def test_the_verdict_of_both_orders_is_the_common_one_a_tie_or_missing(
    tmp_path, judge, swapped, verdict
):
    (found,) = only(read(tmp_path, row(judge=judge, judge_swapped=swapped)))
    assert found.both_orders
    assert found.verdict == verdict


def test_without_the_other_order_the_verdict_is_the_judge_s():
    assert LabelledVerdict("i", "1", "2").verdict == "2"


@pytest.mark.parametrize("one", [1, 1.0, "1", " 1 ", "1\n"])
def test_one_number_is_one_label_however_the_file_writes_it(tmp_path, one):
    (found,) = only(read(tmp_path, row(human=one, judge=one, judge_swapped=one, human_2=one)))
    assert (found.human, found.judge, found.swapped, found.others) == ("1", "1", "1", ("1",))


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (True, "true"),
        (False, "false"),
        (2.5, "2.5"),
        (-1, "-1"),
        (-0.0, "0"),
        (10**400, str(10**400)),
        (1e21, "1" + "0" * 21),
        ("True", "True"),
        ("良い", "良い"),
    ],
)
def test_a_label_is_text(tmp_path, value, label):
    assert only(read(tmp_path, row(human=value)))[0].human == label


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  "])
def test_a_missing_verdict_is_unscored_and_a_missing_label_is_set_aside(tmp_path, missing):
    (found,) = only(read(tmp_path, row(judge=missing, human_2=missing)))
    assert (found.judge, found.others, found.verdict) == (None, (None,), None)
    assert aside(tmp_path, row(human=missing)).startswith("human must be a label, got none")


@pytest.mark.parametrize("value", [["good"], {"label": "good"}])
@pytest.mark.parametrize("name", ["judge", "judge_swapped", "human_2", "judge_reason", "item_id"])
def test_a_nested_value_is_set_aside(tmp_path, name, value):
    kind = type(value).__name__
    assert aside(tmp_path, row() | {name: value}) == (
        f"{name} must be text or a number, got {kind}; write one value"
    )


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "1e999"])
def test_an_infinite_label_is_set_aside(tmp_path, value):
    line = '{"item_id": "i", "human": %s, "judge": "good"}' % value  # noqa: UP031
    assert aside(tmp_path, line).startswith("human must be text or a finite number, got ")


@pytest.mark.parametrize(
    "value", [-1, "long", True, float("inf"), float("nan"), 10**400, 1e13, [1], {}]
)
def test_a_length_that_is_none_is_set_aside(tmp_path, value):
    why = aside(tmp_path, row(length_first=value, length_second=1))
    assert why.startswith("length_first must be a number of characters, got ")
    assert len(why) < 150


@pytest.mark.parametrize("name", ["length", "family"])
@pytest.mark.parametrize("value", [None, "absent"])
def test_one_of_two_lengths_or_families_is_none(tmp_path, name, value):
    line = row(**{f"{name}_first": 1})
    line |= {} if value == "absent" else {f"{name}_second": value}
    (found,) = only(read(tmp_path, line))
    assert (found.lengths, found.families) == (None, None)


def test_a_row_without_an_id_is_named_by_its_line_which_no_other_row_s_id_takes(tmp_path):
    bare = {"human": "good", "judge": "bad"}
    found = read(tmp_path, row("2"), bare, row("1"), bare)
    assert [r.item_id for r in only(found)] == ["2", "line 2", "1", "line 4"]


# Bad lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"human": 1, ', "a row must be JSON, got "),
        ("good", "a row must be JSON, got 'good' at character 1"),
        ("[1, 2]", "must be a JSON object, got '[1, 2]'"),
        ("null", "must be a JSON object, got 'null'"),
        ('"text"', "must be a JSON object, got '\"text\"'"),
        ('{"human": "good"}', "must hold judge, got human"),
        ('{"judge": "good"}', "must hold human, got judge"),
        ('{"label": 1}', "must hold human and judge, got label"),
        ("{}", "must hold human and judge, got none"),
        ('{"human": "a\\u0000", "judge": "a"}', "text must hold no NUL"),
        ('{"human": "a\\ud800", "judge": "a"}', "text must be valid Unicode"),
        ('{"human": ' + "9" * 5000 + ', "judge": 1}', "Exceeds the limit"),
        ('{"human": ' + "[" * 100_000, "too many levels"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_number_and_reason_and_the_others_go_on(
    tmp_path, line, why
):
    assert why in aside(tmp_path, line)


def test_the_reason_of_a_line_with_many_fields_is_short(tmp_path):
    assert len(aside(tmp_path, {f"field {n}": n for n in range(10_000)})) < 200


def test_bytes_that_are_no_utf_8_set_their_line_aside(tmp_path):
    path = write(tmp_path, row("first"), row("last"))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], '{"human": "schön"}'.encode("latin-1"), lines[1]]))
    found = read_label_file(path)
    (one,) = found.set_aside
    assert (one.place, one.received) == (2, '{"human": "sch\\xf6n"}')
    assert one.reason == "a row must be UTF-8, got the byte 0xF6; save the file as UTF-8"
    assert len(found.runs[0].rows) == 2


def test_blank_lines_count_as_lines_and_are_no_rows(tmp_path):
    found = read(tmp_path, "", row("a"), "  \t", "broken", row("b"))
    assert [one.place for one in found.set_aside] == [4]
    assert len(found.runs[0].rows) == 2


def test_a_byte_order_mark_and_windows_line_ends_lose_no_row(tmp_path):
    path = tmp_path / "labels.jsonl"
    text = "\r\n".join(json.dumps(row(item)) for item in "ab")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert [r.item_id for r in only(read_label_file(path))] == ["a", "b"]


def test_an_item_that_is_there_twice_in_a_run_is_set_aside_and_the_first_counts(tmp_path):
    found = read(tmp_path, row("a", judge="good"), row("b"), row("a", judge="bad"))
    assert [r.judge for r in found.runs[0].rows] == ["good", "good"]
    (one,) = found.set_aside
    assert (one.place, one.reason) == (3, "item 'a' is there twice in a run; keep one")


def test_the_same_item_of_two_runs_is_there_once_in_each(tmp_path):
    found = read(tmp_path, row(run="x"), row(run="y"))
    assert [run.name for run in found.runs] == ["x", "y"]
    assert found.set_aside == ()


@pytest.mark.parametrize("content", ["", "\n\n", "broken\n", '{"human": null, "judge": 1}\n'])
def test_a_file_without_a_labelled_item_is_refused_with_its_first_bad_line(tmp_path, content):
    path = tmp_path / "labels.jsonl"
    path.write_text(content)
    with pytest.raises(
        InvalidInputError, match=r"labels\.jsonl must hold .* human and judge, got "
    ) as caught:
        read_label_file(path)
    assert ("; line 1: " in str(caught.value)) is bool(content.strip())


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.jsonl"):
        with pytest.raises(InvalidInputError, match="input must be a readable file, got "):
            read_label_file(path)


@given(st.lists(st.tuples(st.text(max_size=10), st.text(min_size=1, max_size=10)), max_size=20))
def test_every_line_is_a_row_or_set_aside(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    lines = [json.dumps(row(f"i-{n}", *pair)) for n, pair in enumerate(labels)]
    path.write_text("\n".join([*lines, json.dumps(row("sure"))]), "utf-8")
    found = read_label_file(path)
    assert sum(len(run.rows) for run in found.runs) + len(found.set_aside) == len(labels) + 1


# Columns, runs -----------------------------------------------------------------------------------


def test_columns_of_other_names_are_read_and_what_has_no_meaning_is_named(tmp_path):
    line = {"id": "a", "label": 1, "orig": 2, "swapped": 1, "rater": 1, "human": 9, "note": "x"}
    columns = {
        "item_id": "id", "human": "label", "judge": "orig", "judge_swapped": "swapped",
        "human_2": "rater",
    }  # fmt: skip
    found = read(tmp_path, line, **columns)
    assert only(found) == (LabelledVerdict("a", "1", "2", "1", True, ("1",)),)
    assert found.unused == ("human", "note")


def test_a_missing_column_is_named_as_the_file_would(tmp_path):
    with pytest.raises(
        InvalidInputError, match="line 1: a row must hold label, got item_id, human, judge"
    ):
        read(tmp_path, row(), human="label")


@pytest.mark.parametrize("name", ["label", "human_1", "human_0", "human_x", ""])
def test_a_column_of_an_unknown_meaning_is_refused(tmp_path, name):
    with pytest.raises(InvalidInputError, match="columns may be given for human, judge, "):
        read_label_file(write(tmp_path, row()), {name: "x"})


def test_runs_are_told_apart_by_version_dimension_and_run(tmp_path):
    found = read(
        tmp_path,
        row(judge_version="v1", dimension="tone"),
        row(judge_version="v1", dimension="tone", item="j"),
        row(judge_version="v2", dimension="tone"),
        row(judge_version="v2", dimension="tone", run="again"),
        row(),
    )
    assert [(run.name, len(run.rows)) for run in found.runs] == [
        ("v1 · tone", 2),
        ("v2 · tone", 1),
        ("v2 · tone · again", 1),
        ("", 1),
    ]


def test_a_run_of_lists_has_a_row_an_item_and_its_other_fields_as_its_name(tmp_path):
    line = {
        "model": "gpt", "prompt": 3, "human": [1, 2, 1], "judge": [1, 1, None],
        "judge_swapped": [1, 2, 1],
    }  # fmt: skip
    found = read(tmp_path, line)
    assert found.runs[0].name == "gpt · 3"
    assert [(r.item_id, r.human, r.judge, r.verdict) for r in only(found)] == [
        ("1", "1", "1", "1"),
        ("2", "2", "1", "tie"),
        ("3", "1", None, None),
    ]


def test_runs_of_lists_and_rows_may_be_mixed(tmp_path):
    found = read(
        tmp_path, {"run": "x", "human": [1], "judge": [2]}, row(), {"human": [1], "judge": [1]}
    )
    assert [(run.name, len(run.rows)) for run in found.runs] == [("x", 1), ("", 1), ("line 3", 1)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"human": [1, 2], "judge": [1]}, "equally long and not empty, got human 2, judge 1"),
        ({"human": [], "judge": []}, "equally long and not empty, got human 0, judge 0"),
        ({"human": [1, 2], "judge": [1, 2], "human_2": [1]}, "human 2, judge 2, human_2 1"),
        ({"human": [1, 2], "judge": 1}, "judge must be a list like human, got one value"),
        ({"human": [1, None], "judge": [1, 1]}, "item 2: human must be a label, got none"),
        ({"human": [1, [1]], "judge": [1, 1]}, "item 2: human must be text or a number, got list"),
    ],
)
def test_a_run_of_lists_that_does_not_hold_together_is_set_aside(tmp_path, line, why):
    assert why in aside(tmp_path, line)


def test_a_list_without_a_meaning_is_named_as_unused(tmp_path):
    found = read(tmp_path, {"human": [1], "judge": [1], "note": ["x"], "run": "r"})
    assert (found.runs[0].name, found.unused) == ("r", ("note",))


def test_the_recorded_judges_of_llmbar_are_all_read(shared_data):
    # The README of the data: 349 runs of real judges, each on all items of its subset.
    columns = {"human": "label", "judge": "orig", "judge_swapped": "swapped"}
    found = read_label_file(shared_data / "llmbar" / "judge_verdicts.jsonl", columns)
    assert (len(found.runs), found.set_aside, found.unused) == (349, (), ())
    assert len({run.name for run in found.runs}) == 349


# Few-shot examples -------------------------------------------------------------------------------


def label(item: str, name: str = "good", reviewer: str = "ann") -> HumanLabel:
    return HumanLabel(
        id=f"{item}-{reviewer}-{name}", created_at=NOW, item_id=item, dimension="tone", label=name,
        reviewer=reviewer,
    )  # fmt: skip


def ids(labels: Sequence[HumanLabel]) -> set[str]:
    return {found.item_id for found in labels}


@given(
    st.lists(st.sampled_from([f"i-{n}" for n in range(50)]), max_size=60),
    st.lists(st.sampled_from([f"i-{n}" for n in range(100)]), max_size=60),
    st.floats(0.0, 0.99),
)
def test_an_item_stays_on_its_side_however_many_labels_come(items, added, share):
    labels = [label(item, reviewer=str(n)) for n, item in enumerate(items)]
    more = [*(label(item, "bad", f"new {n}") for n, item in enumerate(added)), *labels]
    examples, validation = split_labels(labels, few_shot_share=share)
    later, still = split_labels(more, few_shot_share=share)
    assert sorted(found.id for found in (*examples, *validation)) == sorted(x.id for x in labels)
    assert ids(examples) <= ids(later)
    assert ids(validation) <= ids(still)
    assert not ids(later) & ids(still)
    refuse_leaks(sorted(ids(later)), sorted(ids(still)))


def test_about_the_share_asked_for_is_set_aside():
    labels = [label(f"i-{n}") for n in range(2000)]
    for share in (0.0, 0.2, 0.5):
        examples, _ = split_labels(labels, few_shot_share=share)
        # Binomial: three standard errors of 2000 items.
        assert abs(len(examples) - 2000 * share) <= 3.0 * (2000 * share * (1 - share)) ** 0.5


def test_a_larger_share_takes_items_and_gives_none_back():
    labels = [label(f"i-{n}") for n in range(200)]
    few, many = (split_labels(labels, few_shot_share=share)[0] for share in (0.1, 0.4))
    assert ids(few) < ids(many)


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_that_leaves_no_validation_is_refused(share):
    with pytest.raises(InvalidInputError, match=r"few_shot_share must be in \[0, 1\)"):
        split_labels([label("i")], few_shot_share=share)


def test_examples_of_the_validation_set_are_a_leak():
    with pytest.raises(LeakError, match="got 2 that are, such as 'b'"):
        refuse_leaks(["a", "b", "c"], ["c", "b", "d"])
    refuse_leaks(["a"], ["b"])
    refuse_leaks([], ["b"])
