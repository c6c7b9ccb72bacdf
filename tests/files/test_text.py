"""One escaping for each medium, tried on every hostile string."""

import ast
import csv
import io
import logging
import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import ratchet
from ratchet.files.logs import harmless_logs
from ratchet.files.text import (
    FORMULA_STARTS,
    cell,
    clipped,
    counted,
    fenced,
    harmless_cell,
    one_line,
    printable,
    restored_cell,
    shown_line,
    shown_lines,
    shown_text,
)
from tests.hostile_text import TEXTS, breaks_of_a_terminal

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def test_there_are_enough_hostile_strings():
    assert len(TEXTS) >= 500


@pytest.mark.parametrize("shown", [shown_line, one_line, printable, lambda t: clipped(t, 60)])
def test_a_shown_text_is_one_line_that_steers_no_terminal(shown):
    for text in TEXTS:
        assert shown(text).isprintable(), text


def test_what_is_printable_is_shown_as_it_is():
    for text in ("plain", "two  spaces", "Ω≈ç 田中 עברית", "👍🏽", ""):
        assert shown_line(text) == text


def test_no_two_texts_of_escapes_are_shown_alike():
    assert shown_line("a\x1bb") == "a\\x1bb"
    assert shown_line("\u202eb") == "\\u202eb"
    assert shown_line("a\nb\r\tc") == "a\\nb\\r\\tc"
    assert shown_line("\U000e0041") == "\\U000e0041"


def test_lines_stay_as_many_as_they_are():
    lines = [f"x{text}" for text in TEXTS]
    whole = shown_lines(lines)
    assert whole.count("\n") == len(lines) - 1
    assert breaks_of_a_terminal(whole) == []
    assert shown_text("a\nb\x1b[2J") == "a\nb\\x1b[2J"


def test_the_finder_of_breaks_finds_them():
    assert breaks_of_a_terminal("a\x1b[2Jb\u202e\n  FORGED x\nfine") == [
        "U+001B",
        "U+202E",
        "  FORGED x",
    ]


def inline(tokens):
    for token in tokens:
        yield from [token, *inline(token.children or [])]


def test_a_text_in_a_table_of_markdown_is_one_cell_of_text():
    for text in TEXTS:
        tokens = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {cell(text)} | last |\n\nafter\n")
        kinds = [token.type for token in inline(tokens)]
        assert kinds.count("td_open") == 2, text
        assert kinds.count("tr_open") == 2, text
        assert not {"html_inline", "html_block", "link_open", "image"} & set(kinds), text
        assert not {"code_inline", "em_open", "strong_open", "s_open"} & set(kinds), text


def test_a_text_in_a_line_of_markdown_makes_no_link_by_itself():
    for text in TEXTS:
        shown = cell(text)
        assert "://" not in shown, text
        assert "@" not in shown, text
        assert "www." not in shown.casefold(), text


def test_nothing_ends_a_block_of_code():
    for text in TEXTS:
        tokens = MARKDOWN.parse(f"before\n\n{fenced(text)}\n\nafter\n")
        kinds = [token.type for token in tokens]
        assert kinds.count("fence") == 1, text
        assert [token.content for token in tokens if token.type == "inline"] == ["before", "after"]


def test_a_cell_of_csv_is_no_formula_and_is_read_back_as_it_was():
    file = io.StringIO(newline="")
    csv.writer(file).writerows([harmless_cell(text)] for text in TEXTS)
    file.seek(0)
    cells = [row[0] if row else "" for row in csv.reader(file)]
    assert [restored_cell(one) for one in cells] == list(TEXTS)
    runs = tuple(start for start in FORMULA_STARTS if start != "'")
    assert not [one for one in cells if one.startswith(runs)]


@pytest.fixture
def records():
    """A logger with harmless records, and the stream that it writes to."""
    before, stream = logging.getLogRecordFactory(), io.StringIO()
    logger, handler = logging.getLogger("tests.hostile"), logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    harmless_logs()
    yield logger, stream
    logging.setLogRecordFactory(before)
    logger.removeHandler(handler)


def test_a_log_record_is_one_line_whatever_it_quotes(records):
    logger, stream = records
    for text in TEXTS:
        logger.warning("%s failed as %s", text, text)
        logger.warning(text)
    assert stream.getvalue().count("\n") == 2 * len(TEXTS)
    assert breaks_of_a_terminal(stream.getvalue()) == []


def test_a_traceback_begins_no_line_that_looks_like_a_record(records):
    logger, stream = records
    for text in TEXTS:
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("it failed")
    lines = stream.getvalue().splitlines()
    assert breaks_of_a_terminal(stream.getvalue()) == []
    assert all(line.startswith(("ERROR tests.hostile it failed", "  | ")) for line in lines)


def test_arguments_that_do_not_fit_are_left_to_the_handler_as_ever(records):
    logger, _ = records
    made = logger.makeRecord("n", logging.WARNING, "f", 1, "%d things", ("no number",), None)
    assert (made.msg, made.args) == ("%d things", ("no number",))


def test_harmless_logs_can_be_asked_for_twice(records):
    made = logging.getLogRecordFactory()
    harmless_logs()
    assert logging.getLogRecordFactory() is made


# Numbers of things --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(0, "row"), "0 rows"),
        (counted(1, "row"), "1 row"),
        (counted(2, "row"), "2 rows"),
        (counted(1_234_567, "row"), "1,234,567 rows"),
        (counted(1, "copy", "copies"), "1 copy"),
        (counted(2, "copy", "copies"), "2 copies"),
    ],
)
def test_one_thing_is_said_in_the_singular_and_others_are_not(said, expected):
    assert said == expected


COUNTED_ROOMS = ("cli", "operate", "views", "collect/report.py", "judges/validation_report.py")
THINGS = (
    "answers|days|entries|examples|feedback|files|gateways|interactions|items|labels|lines|names|"
    "observations|pairs|paths|pieces|points|questions|records|rows|runs|segments|steps|texts|users|"
    "verdicts|versions"
)


def counted_by_hand(source: str) -> list[str]:
    """Return what is said of a number without asking whether it is one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for number, words in pairwise(parts):
            if isinstance(number, ast.FormattedValue) and isinstance(words, ast.Constant):
                how = ast.unparse(number.format_spec) if number.format_spec else ""
                named = re.match(rf" (?!of )(\w+ )?({THINGS})\b", str(words.value))
                by_hand = not ast.unparse(number.value).startswith("counted(")
                if named and by_hand and how in ("", "f','"):
                    found.append(f"{ast.unparse(number.value)}{named[0]}")
    return found


SAID_BY_HAND = {"model.name answers"}  # who answers


def test_counts_are_said_by_one_function_in_what_people_read():
    root = Path(ratchet.__file__).parent
    found = []
    for room in COUNTED_ROOMS:
        paths = [root / room] if room.endswith(".py") else sorted((root / room).rglob("*.py"))
        for path in paths:
            names = {*counted_by_hand(path.read_text("utf-8"))} - SAID_BY_HAND
            found += [f"{path.relative_to(root)}: {name}" for name in sorted(names)]
    assert not found, "say them by ratchet.files.text.counted"


def test_a_count_that_is_said_by_hand_is_found():
    assert counted_by_hand('f"{len(found):,} segments"') == ["len(found) segments"]
    assert counted_by_hand('f"{n} more rows set aside"') == ["n more rows"]
    assert counted_by_hand("f\"{counted(n, 'row')} set aside\"") == []
