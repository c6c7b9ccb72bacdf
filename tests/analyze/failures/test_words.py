"""Names and examples of groups."""

import numpy as np
import pytest

from ratchet.analyze.failures import words
from ratchet.analyze.failures.words import LONGEST_FOR_WORDS, NO_WORDS, examples, name_groups

TEXTS = [
    "my parcel never arrived", "parcel arrived broken", "where is the parcel",
    "reset my password", "forgot the password again", "password reset fails",
    "what is the weather", "tell me a joke",
]  # fmt: skip


def rows(*numbers):
    return np.array(numbers, dtype=np.int64)


def test_groups_are_named_by_the_words_that_set_them_apart():
    parcel, password = name_groups(TEXTS, [rows(0, 1, 2), rows(3, 4, 5)])
    assert parcel.startswith("parcel")
    assert password.startswith(("password", "reset"))


def test_names_are_distinct():
    names = name_groups(["late parcel"] * 4, [rows(0, 1), rows(2, 3)])
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    "text", ["😀😀", "", "???", "12 34", "/" + 40 * "x", "https://" + 60 * "b" + "/1"]
)
def test_without_a_shared_word_the_name_says_so_and_repeats_no_message(text):
    (name,) = name_groups([text, text, "🎉", "other"], [rows(0, 1, 2)])
    assert name in (NO_WORDS, "https", "😀")
    assert name_groups(["😀", "😀😀", "🎉"], [rows(0, 1, 2)]) == ["😀"]
    assert name_groups([], []) == []


@pytest.mark.parametrize(
    ("message", "others"),
    [
        ("reset password", ["password lost"] * 9 + ["reset router"] * 9),
        ("card stolen", ["stolen bag", "new card"] * 20),
        ("parcel, broken", ["broken shoe", "a parcel"] * 20),
        ("पासवर्ड रीसेट", ["पासवर्ड खो", "रीसेट राउटर"] * 9),
        ("パスワード リセット", ["パスワード 変更"] * 9),
    ],
)
def test_no_name_is_a_whole_message_of_several_words(message, others):
    (name,) = name_groups([message] * 6 + others, [np.arange(6)])
    assert name != message
    assert set(name.replace(",", "").split()) <= set(message.replace(",", "").split())


def test_a_very_long_text_is_read_from_its_beginning():
    long = "refund " * 200_000
    (name,) = name_groups([long, long, "other"], [rows(0, 1)])
    assert name.startswith("refund")
    assert len(long) > LONGEST_FOR_WORDS


def test_a_group_of_long_texts_costs_no_more_than_its_budget(monkeypatch):
    monkeypatch.setattr(words, "CHARACTERS_A_GROUP", 2_000)
    monkeypatch.setattr(words, "FEWEST_CHARACTERS", 100)
    texts = [f"refund {'padding ' * 60} tail tail tail" for _ in range(20)]
    (name,) = name_groups([*texts, *["padding"] * 200], [np.arange(20)])
    # the tail lies beyond the first hundred characters, which end within a word
    assert set(name.replace(",", "").split()) == {"refund", "padding"}


def test_examples_are_distinct_and_come_from_centre_or_border():
    texts = ["a  b", "a b", "c", "d", "e", "f"]
    closeness = np.array([0.9, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert examples(texts, rows(0, 1, 2, 3, 4, 5), closeness, nearest=True) == ("a b", "c", "d")
    assert examples(texts, rows(0, 1, 2, 3, 4, 5), closeness, nearest=False) == ("f", "e", "d")


@pytest.mark.parametrize("nearest", [True, False])
def test_equally_close_examples_come_in_the_order_of_their_texts(nearest):
    texts = ["d", "b", "c", "a"]
    found = examples(texts, rows(0, 1, 2, 3), np.ones(4), nearest=nearest)
    assert found == ("a", "b", "c")
