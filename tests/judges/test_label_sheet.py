"""Sheets on which people compare answers: blind, random, read back as what they meant."""

import csv

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.files.text import harmless_cell, restored_cell
from ratchet.judges.label_sheet import pair_name, read_sheet, write_sheet
from ratchet.judges.prompts import Item
from ratchet.records import Message


def pair(number, answer="one", other="two"):
    asked = (Message(role="user", content=f"Question {number}?"),)
    return Item(f"e-{number}", asked, f"{answer} {number}", f"{other} {number}")


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill(path, choose):
    """Let `choose` say the winner of a row, from what it shows; "" leaves it open."""
    found = rows(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(row | {"winner": choose(row) or row["winner"]} for row in found)


PAIRS = [pair(number) for number in range(200)]
IDS = [one.id for one in PAIRS]


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "sheet.csv"
    write_sheet(path, PAIRS, IDS)
    return path


def test_whoever_likes_the_first_is_understood_wherever_it_stands(sheet):
    fill(sheet, lambda row: "A" if row["answer_a"].startswith("one") else " b ")
    read = read_sheet(sheet, PAIRS)
    assert read.winners == dict.fromkeys(IDS, "1")
    assert set(read.worth.values()) == {1.0}
    fill(sheet, lambda row: "B" if row["answer_a"].startswith("one") else "a")
    assert set(read_sheet(sheet, PAIRS).winners.values()) == {"2"}
    fill(sheet, lambda _row: "Tie")
    assert set(read_sheet(sheet, PAIRS).worth.values()) == {0.5}


def test_the_first_stands_at_a_about_every_other_time_and_rows_are_in_another_order(sheet):
    found = rows(sheet)
    at_a = sum(row["answer_a"].startswith("one") for row in found)
    assert 70 <= at_a <= 130  # four standard deviations
    order = [row["example_id"] for row in found]
    assert sorted(order) == sorted(IDS)
    assert order != IDS
    places = [IDS.index(key) for key in order[:50]]
    assert 70 <= sum(places) / 50 <= 130


def test_open_rows_are_counted_and_bad_ones_set_aside_with_their_reason(sheet, tmp_path):
    found = rows(sheet)
    given = {found[0]["pair"]: "a", found[1]["pair"]: "left", found[2]["pair"]: "b"}
    fill(sheet, lambda row: given.get(row["pair"], ""))
    with sheet.open("a", encoding="utf-8") as file:
        file.write(f"x,,,,a,{found[0]['pair']}\nx,,,,a,of another model\nx\n")
    read = read_sheet(sheet, PAIRS)
    assert len(read.winners) == read.compared == 2
    assert read.open == len(IDS) - 3
    reasons = [row.reason for row in read.set_aside]
    assert reasons[0] == "winner must be a, b or tie, got 'left'; write one of the three"
    assert reasons[1].endswith("is there before; each pair is labelled once")
    assert reasons[2] == "it is about other answers than these; label a new sheet"
    assert reasons[3] == "a row must have 6 cells as the header has, got 1; fill the row"


def test_a_word_about_answers_that_have_changed_since_does_not_count(sheet):
    fill(sheet, lambda _row: "a")
    changed = [pair(number, answer="one" if number else "three") for number in range(200)]
    read = read_sheet(sheet, changed)
    assert "e-0" not in read.winners
    assert len(read.winners) == 199
    assert len(read.set_aside) == 1


def test_ties_filled_in_beforehand_count_as_far_as_people_got(tmp_path):
    same = [pair(number, other="one") if number % 2 else pair(number) for number in range(100)]
    path = tmp_path / "sheet.csv"
    write_sheet(path, same, [one.id for one in same])
    found = rows(path)
    assert sum(row["winner"] == "tie" for row in found) == 50
    assert not read_sheet(path, same).winners  # nobody has begun
    asked = [place for place, row in enumerate(found) if not row["winner"]]
    last = asked[19]
    reached = {found[place]["pair"] for place in asked[:20]}
    fill(path, lambda row: "a" if row["pair"] in reached else "")
    read = read_sheet(path, same)
    assert set(read.winners) == {row["example_id"] for row in found[: last + 1]}
    assert read.compared == 20
    assert read.open == 100 - last - 1
    fill(path, lambda row: "" if row["winner"] else "b")
    assert len(read_sheet(path, same).winners) == 100


def test_a_sheet_is_written_once_and_only_about_its_pairs(sheet, tmp_path):
    before = sheet.read_bytes()
    with pytest.raises(InvalidInputError, match=r"is written once, got sheet\.csv"):
        write_sheet(sheet, PAIRS, IDS)
    assert sheet.read_bytes() == before
    with pytest.raises(InvalidInputError, match="must be about the pairs, got 'e-999'"):
        write_sheet(tmp_path / "other.csv", PAIRS, ["e-999"])
    assert not (tmp_path / "other.csv").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must hold rows with winner and pair, got none"),
        (b"winner\na\n", "none named pair"),
        (b"winner,prompt\n\xff\xfe,x\n", "got none named pair among 'winner', 'prompt'"),
    ],
)
def test_what_is_no_sheet_is_one_clear_error(tmp_path, content, said):
    path = tmp_path / "sheet.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=said):
        read_sheet(path, PAIRS)
    with pytest.raises(InvalidInputError, match=r"must be a readable file, got .*gone\.csv"):
        read_sheet(tmp_path / "gone.csv", PAIRS)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@given(TEXT, TEXT, TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_texts_go_there_and_back(tmp_path_factory, question, answer, other):
    asked = (Message(role="user", content=question or "?"),)
    one = Item("=1+1", asked, answer, other)
    path = tmp_path_factory.mktemp("sheet") / "sheet.csv"
    write_sheet(path, [one], [one.id])
    (row,) = rows(path)
    for name in ("example_id", "prompt", "answer_a", "answer_b"):
        assert not row[name].startswith(("=", "+", "-", "@"))  # no spreadsheet runs it
    assert restored_cell(row["answer_a"]) in (answer, other)
    assert {restored_cell(row["answer_a"]), restored_cell(row["answer_b"])} == {answer, other}
    fill(path, lambda _row: "tie")
    assert read_sheet(path, [one]).winners == {"=1+1": "tie"}


@given(TEXT)
def test_a_cell_is_read_back_as_the_text_that_it_was_made_of(text):
    assert restored_cell(harmless_cell(text)) == text
    assert not harmless_cell(text).startswith(tuple("=+-@\t\r\n＝＋－＠"))


def test_a_sheet_begins_with_the_mark_by_which_spreadsheets_know_utf_8(sheet):
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbfexample_id,")


def test_no_name_of_a_pair_looks_like_a_number(sheet):
    """Excel writes 0012345678901234 and 12e4567890123456 as numbers, and the name is lost."""
    names = [row["pair"] for row in rows(sheet)]
    assert all(name.startswith("p") for name in names)
    assert len(set(names)) == len(PAIRS)


def test_a_sheet_that_an_earlier_version_wrote_is_read(sheet):
    old = sheet.read_text(encoding="utf-8-sig")
    for one in PAIRS:
        old = old.replace(f",{pair_name(one)}", f",{pair_name(one)[1:]}")
    sheet.write_text(old, encoding="utf-8", newline="")
    fill(sheet, lambda _row: "tie")
    assert len(read_sheet(sheet, PAIRS).winners) == len(PAIRS)


def changed(path, change):
    found = rows(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(change(found))


def test_a_column_that_was_sorted_alone_is_not_taken_for_labels(sheet):
    def sort_ids(found):
        ids = sorted(row["example_id"] for row in found)
        return [
            row | {"winner": "a", "example_id": key} for row, key in zip(found, ids, strict=True)
        ]

    before = [row["example_id"] for row in rows(sheet)]
    changed(sheet, sort_ids)
    stays = sum(one == two for one, two in zip(before, sorted(before), strict=True))
    read = read_sheet(sheet, PAIRS)
    assert len(read.winners) == stays
    assert "example_id and pair must be of one row" in read.set_aside[0].reason


def test_answers_that_changed_places_are_not_taken_for_labels(sheet):
    changed(sheet, lambda found: [
        row | {"winner": "a", "answer_a": row["answer_b"], "answer_b": row["answer_a"]}
        for row in found
    ])  # fmt: skip
    read = read_sheet(sheet, PAIRS)
    assert not read.winners
    assert "got them exchanged" in read.set_aside[0].reason


def test_what_a_spreadsheet_does_to_ids_and_texts_costs_no_label(sheet):
    changed(sheet, lambda found: [
        row | {"winner": "b", "example_id": "1.2E+10", "answer_a": row["answer_a"] + "  \n"}
        for row in found
    ])  # fmt: skip
    assert len(read_sheet(sheet, PAIRS).winners) == len(PAIRS)
