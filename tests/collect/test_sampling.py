"""The split into held-out messages and traffic."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.collect.sampling import hold_out, normalise_text, without
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import LabelledMessage

LABELS = st.sampled_from(["cards", "money", "other"])


def message(text: str, label: str = "cards") -> LabelledMessage:
    return LabelledMessage(text=text, label=label)


def messages(**sizes: int) -> list[LabelledMessage]:
    return [message(f"{label} {n}", label) for label, size in sizes.items() for n in range(size)]


def texts(part: tuple[LabelledMessage, ...]) -> set[str]:
    return {normalise_text(item.text) for item in part}


# Normalised text --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  Where is\tmy\n card?! ", "where is my card"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),  # Unicode full case folding
        ("ﬁne", "fine"),  # NFKC: a ligature
        ("１２", "12"),  # NFKC: full-width digits
        ("“Don't!”", "don't"),
        ("top-up", "top-up"),
        ("?!", "?!"),
        ("! ?", "! ?"),
        ("5 €", "5 €"),
        ("", ""),
    ],
)
def test_normalised_text_is_what_spellings_have_in_common(text: str, normalised: str) -> None:
    assert normalise_text(text) == normalised


@settings(deadline=None)
@given(text=st.text(st.characters(), max_size=30))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert normalise_text(f"  {text}\n") == once


# The split --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(labels=st.lists(LABELS, min_size=2, max_size=60), key=st.text(max_size=5), data=st.data())
def test_the_split_is_whole_disjoint_proportional_and_blind_to_order(
    labels: list[str], key: str, data: st.DataObject
) -> None:
    rows = [message(f"text {n}", label) for n, label in enumerate(labels)]
    count = data.draw(st.integers(1, len(rows) // 2))
    shuffled = data.draw(st.permutations(rows))
    held_out, traffic = hold_out(rows, count=count, key=key)

    assert len(held_out) == count
    assert Counter(held_out + traffic) == Counter(rows)
    assert not texts(held_out) & texts(traffic)
    for label, size in Counter(labels).items():
        share = sum(item.label == label for item in held_out)
        assert abs(share - count * size / len(rows)) < 1
    assert hold_out(shuffled, count=count, key=key) == (held_out, traffic)


@settings(deadline=None)
@given(data=st.data())
def test_copies_of_a_text_are_never_on_both_sides(data: st.DataObject) -> None:
    words = st.sampled_from(["Hello", "hello!", "HELLO", "Bye", "bye", "Card?", "card", "one"])
    rows = data.draw(st.lists(st.builds(message, words, LABELS), min_size=2, max_size=30))
    count = data.draw(st.integers(1, len(rows) // 2))
    held_out, traffic = hold_out(rows, count=count, key="gate")
    assert not texts(held_out) & texts(traffic)
    assert Counter(held_out + traffic) == Counter(rows)
    assert len(held_out) <= count
    assert hold_out(rows[::-1], count=count, key="gate") == (held_out, traffic)


def test_the_spelling_of_a_text_does_not_move_it_to_the_other_side() -> None:
    rows = messages(cards=40)
    held_out, _ = hold_out(rows, count=10, key="gate")
    louder = [message(item.text.upper() + "!", item.label) for item in rows]
    assert texts(hold_out(louder, count=10, key="gate")[0]) == texts(held_out)


def test_another_key_gives_another_split() -> None:
    rows = messages(cards=100, money=100)
    splits = {hold_out(rows, count=50, key=str(key))[0] for key in range(5)}
    assert len(splits) == 5


def test_a_message_more_changes_few_of_the_held_out_ones() -> None:
    rows = messages(cards=200)
    before = texts(hold_out(rows, count=50, key="gate")[0])
    after = texts(hold_out([*rows, message("one more")], count=50, key="gate")[0])
    assert len(before & after) >= 49


def test_both_parts_are_mixed_though_the_file_is_sorted_by_label() -> None:
    held_out, traffic = hold_out(messages(cards=100, money=100), count=80, key="gate")
    for part in (held_out, traffic):
        first_half = Counter(item.label for item in part[: len(part) // 2])
        assert min(first_half["cards"], first_half["money"]) > len(part) // 8


def test_the_largest_remainders_get_what_is_left_over() -> None:
    # Exact parts of 10 for sizes 7, 7, 6 of 20: 3.5, 3.5, 3.0; the tie goes to the first name.
    held_out, _ = hold_out(messages(a=7, b=7, c=6), count=10, key="gate")
    assert Counter(item.label for item in held_out) == {"a": 4, "b": 3, "c": 3}


def test_the_split_does_not_depend_on_the_global_random_generator() -> None:
    rows = messages(cards=50)
    random.seed(1)
    first = hold_out(rows, count=20, key="gate")
    random.seed(2)
    assert hold_out(rows, count=20, key="gate") == first


def test_the_split_is_pinned_to_sha_256_of_key_and_text() -> None:
    # `printf 'gate\037a' | sha256sum` starts with 58, with b8 for b and with 49 for c.
    held_out, traffic = hold_out([message("A"), message("b."), message("c")], count=1, key="gate")
    assert [item.text for item in held_out + traffic] == ["c", "A", "b."]


# Refusals ---------------------------------------------------------------------------------------


def test_more_than_half_is_refused_with_the_way_out() -> None:
    with pytest.raises(InsufficientDataError) as caught:
        hold_out(messages(cards=399), count=200, key="gate")
    assert str(caught.value) == (
        "at most half of the messages may be held out, got 200 of 399; "
        "bring at least 400 messages or hold out at most 199"
    )
    assert len(hold_out(messages(cards=400), count=200, key="gate")[0]) == 200


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_refused(count: int) -> None:
    with pytest.raises(InvalidInputError, match=f"at least 1, got {count}"):
        hold_out(messages(cards=10), count=count, key="gate")


def test_messages_of_a_given_evaluation_set_are_no_traffic():
    given_set = [message("Where is it?"), message("never seen")]
    left, held_out = without([message("where is IT"), message("other")], given_set)
    assert (texts(left), texts(held_out)) == ({"other"}, {"where is it", "never seen"})
    with pytest.raises(InsufficientDataError, match="got 1 that all are"):
        without([message("never seen!")], given_set)
