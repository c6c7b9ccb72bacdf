"""Reading labelled messages and queue tables."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.collect.messages import (
    MAX_LABEL_CHARACTERS,
    MessageFile,
    check_labels,
    read_messages,
    read_queues,
    targets,
)
from ratchet.collect.sampling import normalise_text
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.records import LabelledMessage, SetAside, derive_id
from tests.parameters import examples

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def read(tmp_path: Path, content: str | bytes, **options: object) -> MessageFile:
    path = tmp_path / "messages.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_messages(path, now=NOW, **options)  # type: ignore[arg-type]


def pairs(found: MessageFile) -> list[tuple[str, str]]:
    return [(message.text, message.label) for message in found.messages]


def only_reason(found: MessageFile) -> str:
    (row,) = found.set_aside
    return row.reason


def refusal(tmp_path: Path, content: str | bytes, **options: object) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(tmp_path, content, **options)
    return str(caught.value)


# Files ------------------------------------------------------------------------------------------


def test_texts_and_labels_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, "text,label\nWhere is my card?,delivery\nHello,other\n")
    assert pairs(found) == [("Where is my card?", "delivery"), ("Hello", "other")]
    assert (found.set_aside, found.duplicates) == ((), 0)


@pytest.mark.parametrize("text", ["text", "message", " TEXT ", "Message"])
@pytest.mark.parametrize("label", ["label", "category", "intent", "queue", "Label ", "INTENT"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_is_found_in_any_case_and_with_any_separator(
    tmp_path: Path, text: str, label: str, separator: str
) -> None:
    header = separator.join(["id", label, text])
    row = separator.join(["1", "delivery", "Hello"])
    assert pairs(read(tmp_path, f"{header}\n{row}\n")) == [("Hello", "delivery")]


def test_the_column_label_goes_before_its_other_names(tmp_path: Path) -> None:
    found = read(tmp_path, "queue,intent,label,message,text\na,b,c,d,e\n")
    assert pairs(found) == [("e", "c")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_every_line_end_are_tolerated(tmp_path: Path, end: str) -> None:
    content = b"\xef\xbb\xbf" + end.join(["text,label", "Hello,other", "Bye,other", ""]).encode()
    assert pairs(read(tmp_path, content)) == [("Hello", "other"), ("Bye", "other")]


def test_quoted_rows_may_span_lines_and_hold_the_separator(tmp_path: Path) -> None:
    found = read(tmp_path, 'text,label\n"One,\ntwo ""three""",other\nBye,other\n')
    assert pairs(found) == [('One,\ntwo "three"', "other"), ("Bye", "other")]


def test_lines_are_not_split_at_unicode_line_separators(tmp_path: Path) -> None:
    found = read(tmp_path, "text,label\none\u2028two\x0bthree,other\n")
    assert pairs(found) == [("one\u2028two\x0bthree", "other")]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    found = read(tmp_path, "\n\ntext,label\n\nHello,other\n  \n\n")
    assert pairs(found) == [("Hello", "other")]
    assert found.set_aside == ()


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
TEXT = CELL.filter(lambda text: any(c.isprintable() and c != " " for c in text))
LABEL = TEXT.map(lambda text: "".join(filter(str.isprintable, text)).strip()).filter(bool)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(200),
    deadline=None,
)
@given(
    rows=st.lists(st.tuples(TEXT, LABEL), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_a_csv_writer_wrote_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, quoting: int
) -> None:
    first_of_each = {normalise_text(text.strip()): (text, label) for text, label in rows[::-1]}
    rows = list(first_of_each.values())
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("text", "label"), *rows])
    found = read(tmp_path, written.getvalue())
    assert pairs(found) == [(text.strip(), label) for text, label in rows]
    assert found.set_aside == ()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(200),
    deadline=None,
)
@given(content=st.binary(max_size=300))
def test_any_bytes_below_a_header_end_in_rows_or_in_one_clear_error(
    tmp_path: Path, content: bytes
) -> None:
    reasons: list[str] = []
    try:
        found = read(tmp_path, b"text,label\n" + content)
        assert found.messages
        reasons += [shown for row in found.set_aside for shown in (row.reason, row.raw)]
    except InvalidInputError as error:
        reasons.append(str(error))
    assert all(map(str.isprintable, reasons))


# Rows -------------------------------------------------------------------------------------------


def test_a_bad_row_is_set_aside_with_its_place_and_the_good_ones_go_on(tmp_path: Path) -> None:
    content = b"text,label\nGood one,a\nCaf\xe9 closed,a\nGood two,b\n"
    found = read(tmp_path, content)
    assert pairs(found) == [("Good one", "a"), ("Good two", "b")]
    reason = "a row must be UTF-8, got the byte 0xE9; save the file as UTF-8"
    assert found.set_aside == (
        SetAside(
            id=derive_id("messages.csv", 2, reason),
            created_at=NOW,
            source="messages.csv",
            position="row 2, line 3",
            reason=reason,
            raw=r"Caf\xe9 closed,a",
        ),
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",a", "a text must not be empty"),
        ("  \u00a0\u200b ,a", "a text must not be empty"),
        ('"\n",a', "a text must not be empty"),
        ("Hello,", "a label must not be empty"),
        ("Hello, ", "a label must not be empty"),
        ("Hello", "a row must have 2 cells as the header has, got 1; fill the row"),
        ("Hello, you,a", "a row must have 2 cells as the header has, got 3; quote cells"),
        ("Hel\x00lo,a", "a row must not hold NUL characters"),
        ('Hello,"two\nlines"', "a label must be one line"),
        ("Hello," + "a" * (MAX_LABEL_CHARACTERS + 1), "a label must be one line of at most 200"),
        ('"Hello" you,a', "a row must be CSV"),
        ("x" * 4_001 + ",a", "a text must have at most 4,000 characters, got 4,001; shorten it"),
    ],
)
def test_each_broken_rule_is_named(tmp_path: Path, row: str, reason: str) -> None:
    found = read(tmp_path, f"text,label\nGood one,a\n{row}\nGood two,b\n")
    assert pairs(found) == [("Good one", "a"), ("Good two", "b")]
    assert only_reason(found).startswith(reason)


def test_a_text_of_the_greatest_length_is_used(tmp_path: Path) -> None:
    content = f"text,label\n{'x' * 4_000},a\n"
    assert len(read(tmp_path, content).messages) == 1
    assert "at most 3,999 characters" in refusal(tmp_path, content, max_characters=3_999)


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_row_of_a_megabyte_is_set_aside(tmp_path: Path, quote: str) -> None:
    before = csv.field_size_limit()
    row = f"{quote}{'x' * 1_000_000}{quote},a"
    found = read(tmp_path, f"text,label\nGood one,a\n{row}\nGood two,b\n")
    assert pairs(found) == [("Good one", "a"), ("Good two", "b")]
    assert "got 1,000,000" in only_reason(found)
    assert "double quote" not in only_reason(found)
    assert len(found.set_aside[0].raw) == 200
    assert csv.field_size_limit() == before


def test_a_long_row_of_many_lines_is_set_aside_whole_with_a_hint(tmp_path: Path) -> None:
    row = '"' + "line, of, text\n" * 70_000 + '",a'
    found = read(tmp_path, f"text,label\nGood one,a\n{row}\nGood two,b\n")
    assert pairs(found) == [("Good one", "a"), ("Good two", "b")]
    assert "it spans 70,001 lines: is a double quote" in only_reason(found)


@pytest.mark.parametrize("after", ["", '"Quoted, again",b\n', 'He said ""hi"",b\n'])
def test_a_quote_left_open_costs_its_own_line_only(tmp_path: Path, after: str) -> None:
    rows = "".join(f"Good {number},a\n" for number in range(1_000))
    found = read(tmp_path, f'text,label\n"Never closed,a\n{rows}{after}')
    assert len(found.messages) == 1_000 + bool(after)
    assert 'a double quote (") that is never closed' in only_reason(found)
    assert found.set_aside[0].position == "row 1, line 2"
    assert found.set_aside[0].raw == '"Never closed,a'


def test_a_quote_left_open_in_the_last_row_is_found(tmp_path: Path) -> None:
    found = read(tmp_path, 'text,label\nGood one,a\n"Never closed,a')
    assert pairs(found) == [("Good one", "a")]
    assert "that is never closed" in only_reason(found)


def test_rows_and_lines_are_counted_across_quoted_lines(tmp_path: Path) -> None:
    found = read(tmp_path, 'text,label\n\n"a\nb\nc",x\n\n,x\n')
    assert found.set_aside[0].position == "row 2, line 7"


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, "text,label\nWhere is my card?,a\nwhere is MY  card,a\nBye,a\n")
    assert pairs(found) == [("Where is my card?", "a"), ("Bye", "a")]
    assert (found.duplicates, found.set_aside) == (1, ())


def test_a_text_with_a_second_label_is_set_aside(tmp_path: Path) -> None:
    found = read(tmp_path, "text,label\nBye,a\nBye!,b\nbye,a\n")
    assert pairs(found) == [("Bye", "a")]
    assert found.duplicates == 1
    assert only_reason(found) == (
        "a text must have one label, got 'b' after 'a' in row 1; correct one of the two"
    )


def test_queues_rename_labels_and_unknown_labels_are_set_aside(tmp_path: Path) -> None:
    content = "text,label\nOne,card_arrival\nTwo,top_up\nThree,mystery\none,card_linking\n"
    queues = {"card_arrival": "cards", "card_linking": "cards", "top_up": "money"}
    found = read(tmp_path, content, queues=queues)
    assert pairs(found) == [("One", "cards"), ("Two", "money")]
    assert found.duplicates == 1
    assert "in the queue table, got 'mystery'" in only_reason(found)


def test_set_aside_ids_are_the_same_in_every_run_and_differ_by_row(tmp_path: Path) -> None:
    content = "text,label\n,a\n,a\nGood,a\n"
    ids = [row.id for row in read(tmp_path, content).set_aside]
    assert len(set(ids)) == 2
    assert ids == [row.id for row in read(tmp_path, content).set_aside]


# Files that cannot be used ----------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nothing\.csv' \(No such file"):
        read_messages(tmp_path / "nothing.csv", now=NOW)
    with pytest.raises(InvalidInputError, match=r"must be a readable file, got .*directory"):
        read_messages(tmp_path, now=NOW)


@pytest.mark.parametrize(
    ("content", "rule", "received"),
    [
        ("", "must hold rows with text and label", "the file is empty"),
        ("\n \n", "must hold rows with text and label", "the file is empty"),
        ("text,label\n", "text and label below its header", "got no row"),
        ("body,label\nHi,a\n", "must have the columns text (or message)", "'body', 'label'"),
        ("text;tag\nHi;a\n", "label (or category, intent, queue, target)", "'text', 'tag'"),
        ("Where is my card?\nHi\n", "got none named text and label", "'Where is my card?'"),
        ("text,text,label\nHi,Ho,a\n", "each column must be there once", "'text' as column 2"),
        ("text,label\n,a\n,b\n,c\nHi,\n", "at least one usable row", "got 4 rows"),
        ("text,label\n,a\n,b\n,c\nHi,\n", "3 of them because: a text must not be empty", "4"),
        ('"text,label\nHi,a\n', "header in line 1 is no CSV", "never closed"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a file must hold rows as CSV", "is a picture"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, content: str | bytes, rule: str, received: str
) -> None:
    message = refusal(tmp_path, content)
    assert rule in message
    assert received in message
    assert "messages.csv" in message or "header in line" in message
    assert message.isprintable()


# Queue tables -----------------------------------------------------------------------------------


def queue_file(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "queues.csv"
    path.write_text(content, "utf-8")
    return path


def test_a_queue_table_is_read(tmp_path: Path) -> None:
    path = queue_file(tmp_path, "Queue;Label\ncards;card_arrival\ncards;card_linking\n")
    assert read_queues(path) == {"card_arrival": "cards", "card_linking": "cards"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("label,queue\n", "must hold rows with label and queue, got no row"),
        ("label,team\na,b\n", "got none named queue among 'label', 'team'"),
        ("name,queue\na,b\n", "must have the columns label (or category, intent) and queue"),
        ("label,queue\na,b\na,c\n", "queues.csv, row 2, line 3: a label must have one queue"),
        ("label,queue\na,\n", "queues.csv, row 1, line 2: a queue must not be empty"),
        ("label,queue\n,a\n", "a label must not be empty"),
        ("label,queue\na\n", "must have 2 cells as the header has, got 1"),
    ],
)
def test_a_queue_table_with_a_bad_row_is_refused(
    tmp_path: Path, content: str, problem: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_queues(queue_file(tmp_path, content))
    assert problem in str(caught.value).replace(str(tmp_path) + "/", "")


def labelled(*labels: str) -> list[LabelledMessage]:
    return [LabelledMessage(text=f"text {n}", label=label) for n, label in enumerate(labels)]


def test_between_two_and_sixteen_labels_are_accepted_and_returned_in_order() -> None:
    assert check_labels(labelled("b", "a", "b")) == ("a", "b")
    assert len(check_labels(labelled(*map(str, range(16))))) == 16


@pytest.mark.parametrize("labels", [(), ("a", "a"), tuple(map(str, range(17)))])
def test_too_few_and_too_many_labels_are_refused_with_the_way_out(labels: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_labels(labelled(*labels))
    assert f"between 2 and 16 distinct labels, got {len(set(labels))}" in str(caught.value)
    assert "--queues FILE" in str(caught.value)
    assert "label,queue" in str(caught.value)


# Text on display --------------------------------------------------------------------------------


@settings(deadline=None)
@given(text=st.text(st.characters(), max_size=100), limit=st.integers(3, 90))
def test_printable_text_is_short_valid_and_on_one_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert shown == text or shown.endswith("...") or "\\" in shown
    shown.encode()


def test_undecodable_bytes_are_shown_as_such() -> None:
    assert printable(b"caf\xe9\n".decode("utf-8", "surrogateescape")) == r"caf\xe9\n"
    assert unicodedata.category(printable("\u202e")[0]) != "Cf"


# A real file ------------------------------------------------------------------------------------


def test_every_row_of_banking77_is_accounted_for() -> None:
    path = ROOT.parent / "shared" / "data" / "banking77" / "train.csv"
    if not path.exists():
        pytest.skip("the BANKING77 data set is not beside the repository (../shared/data)")
    queues = read_queues(ROOT / "notebooks" / "queues" / "banking77.csv")
    found = read_messages(path, queues=queues, now=NOW)
    # 10,003 training messages in 77 intents: Casanueva et al. 2020, the paper of the data set.
    assert len(found.messages) + found.duplicates + len(found.set_aside) == 10_003
    assert len(check_labels(found.messages)) == 8
    assert len(queues) == 77
    assert len(found.set_aside) < 20


# JSON Lines ---------------------------------------------------------------------------------------


def lines_file(tmp_path, *lines):
    path = tmp_path / "messages.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_target_of_json_lines_is_a_text_or_any_json(tmp_path):
    target = {"intent": "Play", "slots": {"artist": "Bj\u00f6rk"}}
    path = lines_file(
        tmp_path,
        json.dumps({"text": "play Bj\u00f6rk", "target": target}),
        "",
        '{"message": "where is it", "label": "cards", "more": 1}',
    )
    found = read_messages(path, now=NOW)
    assert [message.text for message in found.messages] == ["play Bj\u00f6rk", "where is it"]
    said, label = (message.label for message in found.messages)
    assert said == '{"intent": "Play", "slots": {"artist": "Bj\u00f6rk"}}'
    assert label == "cards"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no json", "a row must be JSON, got 'no json' at character 1"),
        ("[1]", "a row must be a JSON object"),
        ("[" * 100_000, "a row must be flat JSON"),
        (
            '{"text": "a"}',
            "a row must hold target or label or category or intent or queue, got text",
        ),
        ('{"text": 3, "target": "b"}', "a text must be a string, got 3"),
        ('{"text": " ", "target": "b"}', "a text must not be empty"),
        ('{"text": "a", "target": ""}', "a label must not be empty"),
        ('{"text": "a\\u0000", "target": "b"}', "NUL or half of a surrogate pair"),
        ('{"text": "a\\ud800", "target": "b"}', "NUL or half of a surrogate pair"),
    ],
)
def test_a_line_that_breaks_a_rule_is_set_aside_and_the_others_go_on(tmp_path, line, reason):
    found = read_messages(lines_file(tmp_path, line, '{"text": "good", "target": "x"}'), now=NOW)
    assert [message.text for message in found.messages] == ["good"]
    (aside,) = found.set_aside
    assert reason in aside.reason
    assert aside.position == "row 1, line 1"


def test_json_lines_without_a_line_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="must hold rows with text and label, got none"):
        read_messages(lines_file(tmp_path, ""), now=NOW)


def test_the_distinct_targets_are_two_or_more():
    messages = [LabelledMessage(text=text, label=text[0]) for text in ("b1", "a1", "b2")]
    assert targets(messages) == ("a", "b")
    with pytest.raises(InvalidInputError, match="at least 2 distinct targets, got 1"):
        targets(messages[:1])
