"""A user's texts are found however they are written, and taken out without breaking the rest."""

from __future__ import annotations

import csv
import html
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.files.text import cell, one_line, printable
from ratchet.records import spoken
from ratchet.store.user_texts import ERASED, UserTexts, said_by_user
from tests.calls import looked_up, turn

TEXT = 'my cat "Ramses"\nate <b>the</b> card é 🐈 of C:\\data & it\'s gone'
TEXTS = UserTexts.of([TEXT])


def as_csv(text: str) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(["a", text, "b"])
    return out.getvalue()


FORMS = {
    "as it is": lambda text: text,
    "JSON in ASCII": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON within JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "HTML": html.escape,
    "Markdown": cell,
    "one line": one_line,
    "CSV": as_csv,
    "Python": repr,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_text_is_found_and_taken_out_in_each_form(form: str) -> None:
    written = FORMS[form](TEXT)
    assert TEXTS.are_in(f"before {written} after")
    left = TEXTS.erased_in(f"before {written} after")
    assert ERASED in left
    assert "Ramses" not in left
    assert "gone" not in left
    assert left.startswith("before ")
    assert left.endswith(" after")


def test_json_stays_json_and_csv_stays_a_table() -> None:
    document = json.dumps({"a": [f"he said: {TEXT}!"], "b": "left alone"})
    assert json.loads(TEXTS.erased_in(document)) == {"a": ["he said: [erased]!"], "b": "left alone"}
    assert next(csv.reader([TEXTS.erased_in(as_csv(TEXT))])) == ["a", ERASED, "b"]


def test_the_beginning_of_a_text_that_was_cut_is_taken_out() -> None:
    assert TEXTS.erased_in(printable(TEXT, 40)) == f"{ERASED}..."
    assert TEXTS.erased_in(f"{one_line(TEXT)[:30]}…") == f"{ERASED}…"
    # the same words at the end of what somebody else said
    assert not TEXTS.are_in('my cat "Ramses"')
    assert TEXTS.are_in('my cat "Ramses"', cut=True)


def test_names_of_fields_are_searched_like_values() -> None:
    assert TEXTS.erased_in({TEXT: [TEXT]}) == {ERASED: [ERASED]}


PRINTABLE = st.characters(exclude_categories=("C", "Zl", "Zp", "Zs"), include_characters=" ")


def test_short_texts_stay() -> None:
    assert UserTexts.of(["billing"]).erased_in("billing, billing") == "billing, billing"


@given(
    st.text(PRINTABLE, min_size=12, max_size=60).filter(lambda text: not text.isspace()),
    st.lists(st.text(max_size=20), max_size=3),
)
def test_what_stands_around_a_text_stays(text: str, around: list[str]) -> None:
    document = json.dumps([*around, text, *around])
    left = json.loads(UserTexts.of([text]).erased_in(document))
    assert len(left) == 2 * len(around) + 1
    if UserTexts.of([text]).by_start:
        assert ERASED in left[len(around)]
        assert text not in left[len(around)]


@given(st.text(max_size=80))
def test_a_document_without_the_texts_is_left_as_it_is(document: str) -> None:
    assert UserTexts.of(["never said by anybody"]).erased_in(document) == document


# What a conversation holds of a user --------------------------------------------------------------

TALK = looked_up("Who is Ana?", '{"street": "Am Anger 7"}', name="Ana Amsel", born="1990-02-03")


def test_arguments_and_results_are_a_users_texts_as_they_read_and_as_they_are_shown():
    texts = said_by_user(TALK, turn("assistant", "She lives there."))
    assert {"Ana Amsel", "1990-02-03", "Am Anger 7", "Who is Ana?", "She lives there."} <= texts
    called = 'calls find_customer(name="Ana Amsel", born="1990-02-03")'
    assert called in texts
    assert spoken(TALK[2]) == called
    assert not any("help@example.com" in text for text in texts)


def test_short_texts_of_models_and_tools_are_nobodys_where_that_is_asked():
    texts = said_by_user(TALK, turn("assistant", "billing"), shortest_answer=64)
    assert texts == {"Who is Ana?", "And now?"}


def test_a_call_that_a_report_quotes_is_taken_out_of_it():
    found = UserTexts.of(said_by_user(TALK, turn("assistant", "ok")))
    report = f"failed: {spoken(TALK[2])}, then"
    assert found.erased_in(report) == f"failed: {ERASED}, then"
