"""The one reader of rows: what it reads, what it sets aside, what it refuses."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.files.columns import csv_columns
from ratchet.files.rows import Row, parse_json, read_rows, set_aside_lines
from ratchet.strict_json import loads
from tests.parameters import examples

NEEDS = (("text", "message"), ("failed",))
NOISE = random.Random(7).randbytes(10_000)  # does not compress
HYPOTHESIS = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(150),
    deadline=None,
)


def rows(tmp_path: Path, content: str | bytes, name: str = "rows.csv", **options: Any) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with read_rows(path, **options) as found:
        return list(found)


def good(found: list[Row]) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in found if row.problem is None]


def problems(found: list[Row]) -> list[tuple[str, str]]:
    return [(row.position, row.problem) for row in found if row.problem is not None]


def refusal(tmp_path: Path, content: str | bytes, name: str = "rows.csv", **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        rows(tmp_path, content, name, **options)
    said = str(caught.value)
    assert said.isprintable()
    return said


# What is written is read back ---------------------------------------------------------------------

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@HYPOTHESIS
@given(
    cells=st.lists(st.tuples(CELL, CELL, CELL).filter(lambda row: any(map(str.strip, row))),
                   max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(ENCODINGS),
    end=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
    named=st.booleans(),
)  # fmt: skip
def test_what_a_csv_writer_wrote_is_read_back(
    tmp_path: Path, cells: list[tuple[str, str, str]], delimiter: str, quoting: Any, encoding: str,
    end: str, packed: bool, named: bool,
) -> None:  # fmt: skip
    written = io.StringIO(newline="")
    end = "\r\n" if quoting == csv.QUOTE_MINIMAL else end  # else the writer leaves \r unquoted
    writer = csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([("text", "failed", "user"), *cells])
    text = (f"sep={delimiter}{end}" if named else "") + written.getvalue()
    content = text.encode(encoding)
    found = rows(tmp_path, gzip.compress(content) if packed else content, needs=NEEDS)
    assert [tuple(row.read().values()) for row in found] == cells
    assert [row.number for row in found] == list(range(1, len(cells) + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1e9, 1e9) | st.text(st.characters(codec="utf-8")),  # type: ignore[arg-type]
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@HYPOTHESIS
@given(
    values=st.lists(
        st.dictionaries(st.text("abc", min_size=1), JSON, min_size=1), min_size=1, max_size=5
    ),
    form=st.sampled_from(["lines", "array", "array on lines", "indented", "objects on many lines"]),
    ascii_only=st.booleans(),
    encoding=st.sampled_from(ENCODINGS),
    packed=st.booleans(),
    name=st.sampled_from(["rows.jsonl", "rows.json", "rows"]),
)
def test_what_a_json_writer_wrote_is_read_back(
    tmp_path: Path, values: list[dict[str, Any]], form: str, ascii_only: bool, encoding: str,
    packed: bool, name: str,
) -> None:  # fmt: skip
    each = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
    text = {
        "lines": "\n".join(each),
        "array": json.dumps(values, ensure_ascii=ascii_only),
        "array on lines": "[\n" + ",\n".join(each) + "\n]\n",
        "indented": json.dumps(values, indent=2, ensure_ascii=ascii_only),
        "objects on many lines": "\n".join(
            json.dumps(value, indent=1, ensure_ascii=ascii_only) for value in values
        ),
    }[form]
    content = text.encode(encoding)
    found = rows(tmp_path, gzip.compress(content) if packed else content, name)
    assert [dict(row.read()) for row in found] == values


@pytest.mark.parametrize("packed", [False, True])
def test_parquet_is_read_with_the_numbers_of_its_rows(tmp_path: Path, packed: bool) -> None:
    values = [
        {"Text": f"t{n}", "failed": n % 2 == 0, "user": None if n % 3 else "u"}
        for n in range(2_500)
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values), file)
    content = gzip.compress(file.getvalue()) if packed else file.getvalue()
    found = rows(tmp_path, content, "rows.parquet", needs=NEEDS)
    assert [(row.position, row.place) for row in found[-1:]] == [("row 2500", 2_500)]
    assert found[1].read() == {"text": "t1", "failed": False, "user": None}
    assert found[1].given() == {"text": "t1", "failed": False}
    assert found[1].set_aside("no").received == "{'text': 't1', 'failed': False, 'user': None}"


def test_a_parquet_file_that_is_cut_off_is_one_clear_error(tmp_path: Path) -> None:
    said = refusal(tmp_path, b"PAR1" + b"\x00" * 100, "rows.parquet")
    assert said.startswith("a file of Parquet or Arrow must be whole, got ")
    packed = gzip.compress(b"PAR1" + NOISE)[:-50]
    assert "a compressed file must be whole" in refusal(tmp_path, packed, "rows.parquet.gz")


def test_utf_16_without_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        found = rows(tmp_path, "text;failed\nschön;1\n".encode(encoding), needs=NEEDS)
        assert good(found) == [{"text": "schön", "failed": "1"}]


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = gzip.compress(b"text,failed\n" + b"hello,1\n" * 10_000)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    with read_rows(path, needs=NEEDS) as found:
        assert sum(row.read()["failed"] == "1" for row in found) == 10_000
    writer.join()


# Names and places ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("TEXT;Failed;a,b,c,d", ";"), (" text |failed|x", "|"), ("message\tFAILED\ty", "\t")],
)
def test_the_delimiter_is_the_one_that_finds_the_columns(
    tmp_path: Path, header: str, delimiter: str
) -> None:
    found = rows(tmp_path, f"{header}\na{delimiter}1{delimiter}z\n", needs=NEEDS)
    (row,) = good(found)
    assert [row.get("text", row.get("message")), row["failed"]] == ["a", "1"]


def test_blank_lines_are_no_rows_and_keep_the_line_numbers(tmp_path: Path) -> None:
    found = rows(tmp_path, '\n\ntext,failed\n\na,1\n , \n,,\n"b\nc",0\n\n"",\nd\n', needs=NEEDS)
    places = [(row.number, row.place, row.lines) for row in found]
    assert places == [(1, 5, 1), (2, 8, 2), (3, 12, 1)]
    assert good(found) == [{"text": "a", "failed": "1"}, {"text": "b\nc", "failed": "0"}]
    lines = rows(tmp_path, '\n{"a": 1}\n  \n\n{"a": 2}\nx\n', "rows.jsonl")
    assert [row.place for row in lines] == [2, 5, 6]


def test_rows_of_an_array_have_the_line_they_begin_at(tmp_path: Path) -> None:
    found = rows(tmp_path, '\n[{"a": 1}, {"a": 2},\n {"a":\n3}, 4]', "rows.json")
    assert [row.position for row in found] == [
        "line 2, item 1", "line 2, item 2", "line 3, item 3", "line 4, item 4",
    ]  # fmt: skip
    assert problems(found) == [
        ("line 4, item 4", "a row must be a JSON object, got '4'; write one object a row")
    ]


def test_a_table_leaves_out_what_its_cells_do_not_hold_and_json_keeps_what_it_says(
    tmp_path: Path,
) -> None:
    (row,) = rows(tmp_path, 'text,failed,user,more\na,1,,"[1, 2]"\n', needs=NEEDS)
    assert row.given(as_json=["more"]) == {"text": "a", "failed": "1", "more": [1, 2]}
    (row,) = rows(tmp_path, '{"text": "", "user": null}', "rows.jsonl")
    assert row.given() == {"text": "", "user": None}
    (row,) = rows(tmp_path, "text,failed,more\na,1,[1\n", needs=NEEDS)
    with pytest.raises(InvalidInputError, match=r"more must be JSON, got '\[1'"):
        row.given(as_json=["more"])


# Rows that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 300, 598, 599])
@pytest.mark.parametrize(
    ("broken", "others"),
    [
        ('"Never closed {n},0', "plain {n},0"),
        ('"Never closed {n},0', '"quoted, {n}",1'),
        ('"Never closed {n},0', 'he said "{n}",1'),
        ('"Never ""closed {n},0', 'plain {n},"1"'),
        ('words {n},"0', "plain {n},0"),
    ],
)
def test_a_quote_that_is_never_closed_loses_its_own_row_alone(
    tmp_path: Path, broken: str, others: str, place: int
) -> None:
    lines = [(broken if n == place else others).format(n=n) for n in range(600)]
    found = rows(tmp_path, "text,failed\n" + "\n".join(lines) + "\n", needs=NEEDS)
    assert len(good(found)) == 599
    ((position, problem),) = problems(found)
    assert position == f"line {place + 2}"
    assert 'a double quote (") that is never closed; close it' in problem
    assert found[place].received == broken.format(n=place)


def test_rows_that_an_inch_mark_swallows_are_found_again(tmp_path: Path) -> None:
    lines = ['"Never closed,0', *(f"row {n},1" for n in range(20)), 'size 5",0', "last,0"]
    found = rows(tmp_path, "text,failed\n" + "\n".join(lines), needs=NEEDS)
    assert len(good(found)) == 22
    assert [position for position, _ in problems(found)] == ["line 2"]


def test_a_quoted_text_of_many_lines_is_one_row(tmp_path: Path) -> None:
    letter = "Dear Sir,\n" + "a line without it\nand one, with it\n" * 200 + "Yours"
    table = "1,2\n" * 3
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("text", "failed"), (letter, "1"), (table, "0")])
    assert [row["text"] for row in good(rows(tmp_path, file.getvalue(), needs=NEEDS))] == [
        letter, table,
    ]  # fmt: skip


def test_many_open_quotes_cost_a_row_each_and_no_time(tmp_path: Path) -> None:
    content = "text,failed\n" + 'x,"y""\n' * 3_000 + "good,1\n"
    found = rows(tmp_path, content, needs=NEEDS, longest=100_000)
    assert (len(good(found)), len(problems(found))) == (1, 3_000)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a", "a row must have 2 cells as the header has, got 1; fill the row"),
        (b"a,b,1", "a row must have 2 cells as the header has, got 3; quote cells"),
        (b"caf\xe9,1", "a row must be UTF-8, got the byte 0xE9; save the file as UTF-8"),
        (b"a\x00b,1", "a row must not hold NUL characters"),
        (b'"a" b,1', "a row must be CSV, got ' b,1' behind a closing quote"),
        (b"x" * 2_000 + b",1", "a row must have at most 1,000 characters, got 2,00"),
        (b'"' + b"x\n" * 1_000 + b'",1', "never closed"),
    ],
)
def test_a_row_of_csv_that_breaks_a_rule_is_set_aside_and_the_others_go_on(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    content = b"text,failed\ngood,1\n" + line + b"\nlast,0\n"
    found = rows(tmp_path, content, needs=NEEDS, longest=1_000)
    texts = [row["text"] for row in good(found) if row["text"] != "x"]
    assert (texts[0], texts[-1]) == ("good", "last")
    assert reason in problems(found)[0][1]
    assert problems(found)[0][0] == "line 3"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{nonsense", "a row must be JSON, got 'nonsense' at character 2 ("),
        (b"[1]", "a row must be a JSON object, got '[1]'"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "must hold a key once, got 'c' 2 times; keep one"),
        (b'{"a": "\xff"}', "a row must be UTF-8, got the byte 0xFF"),
        (b'{"a": NaN}', "numbers must be finite, got NaN; leave the field out"),
        (b"[" * 50_000, "a row must be flat JSON, got too many levels"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "a row must be JSON, got Exceeds the limit"),
        (b'{"a": "' + b"x" * 100_000 + b'"}', "must have at most 60,000 bytes, got 100,010"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_line_of_json_that_breaks_a_rule_is_set_aside_and_the_others_go_on(
    tmp_path: Path, line: bytes, reason: str, first: bool
) -> None:
    before = b"" if first else b'{"a": 0}\n'
    content = before + line + b'\n{"a": 1}\n{"a": 2}\n'
    found = rows(tmp_path, content, "rows.jsonl", finite=True, longest=60_000)
    assert [row["a"] for row in good(found)] == ([] if first else [0]) + [1, 2]
    ((position, problem),) = problems(found)
    assert position == f"line {1 if first else 2}"
    assert reason in problem


def test_nan_is_kept_where_it_is_not_refused(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, '{"a": NaN}', "rows.jsonl")
    assert row.read()["a"] != row.read()["a"]


def test_an_element_of_an_array_with_a_key_twice_is_set_aside_alone(tmp_path: Path) -> None:
    found = rows(tmp_path, '[{"a": 1},\n{"a": 1, "a": 2},\n{"a": 3}]', "rows.json")
    assert [row["a"] for row in good(found)] == [1, 3]
    assert problems(found)[0][0] == "line 2, item 2"


def test_reasons_are_shown_with_their_place_and_the_rest_is_counted(tmp_path: Path) -> None:
    found = rows(tmp_path, "text,failed\n" + "x\n" * 1_060, needs=NEEDS)
    aside = [row.set_aside(row.problem or "") for row in found]
    lines = set_aside_lines(aside)
    assert lines[0] == (
        "set aside, line 2: a row must have 2 cells as the header has, got 1; fill the row"
    )
    assert lines[-1] == "and 1,010 more rows set aside"
    assert len(lines) == 51
    assert set_aside_lines(aside[:50]) == lines[:50]


# Files that cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "rows.csv must hold rows with text and failed, got none: the file is empty"),
        (b" \n\t\r\n", "the file is empty; add rows"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (b"txt,failed\na,1\n", "among 'txt', 'failed'; rename 'txt' to text"),
        (b"id,label\na,1\n", "got none named text and failed among 'id', 'label'; name it in"),
        (b"text,failed,FAILED \na,1,1\n",
         "got 'failed' as column 2 and 'FAILED' as column 3 of rows.csv; rename or remove"),
        (b"text,note,failed,note\na,b,1,c\n", "'note' as column 2 and 'note' as column 4"),
        (b'"text,failed\na,1\n', "the header in line 1 is no CSV"),
        (b"\x89PNG\r\n\x1a\n\x00", "which is a picture; name another file"),
        (b"PK\x03\x04\x14\x00", "an .xlsx spreadsheet; save the sheet as CSV"),
        (bytes(range(256)) * 8, "which is binary content; name another file"),
        (gzip.compress(b"%PDF-1.4", mtime=0), "which is a PDF document"),
        (gzip.compress(b"text,failed\n" + NOISE.hex().encode(), mtime=0)[:-400],
         "a compressed file must be whole"),
        ("text,failed\na,1\n".encode("utf-16")[:-1], "a file must be text in UTF-8 or UTF-16"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, content: bytes, said: str
) -> None:
    assert said in refusal(tmp_path, content, needs=NEEDS)


def test_a_missing_file_and_a_folder_are_one_clear_error(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.csv", tmp_path):
        with pytest.raises(InvalidInputError, match="must be a readable file, got "):
            read_rows(path).__enter__()


def test_an_array_that_breaks_off_is_one_clear_error_with_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path, '[{"a": 1},\n{"a": 2},\n{"a": ', "rows.json")
    assert said.startswith("line 3: a row must be JSON, got '' at character 7")
    assert "must be closed once and end the file" in refusal(tmp_path, '[{"a": 1},\n', "r.json")


def test_columns_without_a_name_may_be_many(tmp_path: Path) -> None:
    assert len(good(rows(tmp_path, "text,failed,,\na,1,,\n", needs=NEEDS))) == 1


# The process and other readers --------------------------------------------------------------------


def test_no_length_of_a_field_changes_the_csv_module_of_the_process(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    content = f'text,failed\n"{"x" * 1_000_000}",1\n{"y" * 1_000_000},0\n'
    assert [len(row["text"]) for row in good(rows(tmp_path, content, needs=NEEDS))] == [10**6] * 2
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("error", [OSError("disk full"), EOFError(), UnicodeError("no")])
def test_what_fails_where_a_row_is_used_is_not_told_as_a_fault_of_the_file(
    tmp_path: Path, error: Exception
) -> None:
    (tmp_path / "rows.csv").write_text("text,failed\na,1\n")

    def use() -> None:
        with read_rows(tmp_path / "rows.csv", needs=NEEDS) as found:
            for _ in found:
                raise error

    with pytest.raises(type(error)):
        use()


def test_json_of_a_stream_is_read_by_the_same_rules() -> None:
    assert parse_json(b"\xef\xbb\xbf{}") == {}
    for text, said in [(b"\xff", "UTF-8"), ('{"a": 1, "a": 2}', "key once"), ("x", "be JSON")]:
        with pytest.raises(InvalidInputError, match=said):
            parse_json(text)


QUOTED = st.sampled_from(['"', '""', "a", ",", "\n", "x,y\n", '"b"', " ", ";"])


@HYPOTHESIS
@given(body=st.lists(QUOTED, max_size=40).map("".join))
def test_pyarrow_reads_what_rows_reads_or_leaves_the_file_to_it(tmp_path: Path, body: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"text,failed\n{body}", "utf-8", newline="")
    found = csv_columns(path, needs=NEEDS)
    if found is not None:
        with read_rows(path, needs=NEEDS) as read:
            same = [row.fields for row in read]
        whole = [
            {"text": text, "failed": failed}
            for text, failed in zip(*(found[name].to_pylist() for name in found), strict=True)
        ]
        # a row without anything in a cell is none for `rows`; pyarrow has it as an empty one
        filled = [row for row in whole if "".join(row.values()).strip(" \t\r\n")]
        assert filled == same


def test_pyarrow_is_used_for_what_is_well_formed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text;failed\n"a; ""b""\nc";1\nd;0\n', "utf-8")
    found = csv_columns(path, needs=NEEDS)
    assert found is not None
    assert found["text"].to_pylist() == ['a; "b"\nc', "d"]
    path.write_text('text;failed\n"open;1\n' + "row;0\n" * 20 + 'size 5";1\n', "utf-8")
    assert csv_columns(path, needs=NEEDS) is None


NUMBERS = st.one_of(
    st.integers(), st.integers(2**53, 2**80), st.floats(), st.sampled_from([-0.0, 5e-324, 1.8e308])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(), st.sampled_from(["\ud800", "a\x00b"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(value=VALUES, is_ascii=st.booleans(), gap=st.sampled_from(["", " ", "\n"]))
def test_the_faster_reader_of_json_reads_what_the_standard_one_reads(
    value: Any, is_ascii: bool, gap: str
) -> None:
    text = gap + json.dumps(value, ensure_ascii=is_ascii) + gap
    assert repr(loads(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": 2, "a": 3}', "-0", "1e999", "NaN", "-Infinity", "9" * 400, "1.0E+2",
        '"\\ud83d\\ude00"', '"\\ud800"', "[" * 300 + "]" * 300, "\ufeff1", "", "{", "01", "1 2",
        '"\x01"', "'a'", "9" * 5_000, '{"a" :1}', "[1,]",
    ],
)  # fmt: skip
def test_what_is_odd_in_json_is_read_or_refused_as_by_the_standard_reader(text: str) -> None:
    try:
        expected = repr(json.loads(text))
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            loads(text)
        return
    assert repr(loads(text)) == expected
