"""Calls are read out of an answer that comes in pieces as out of the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.records.tool_calls import CallReader, read_calls

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
BAD = "<tool_call>\n{not JSON}\n</tool_call>"
TEXTS = {
    "": [],
    "  \n": [],
    "Sure.": ["Sure."],
    "a < b <tool": ["a < b <tool"],
    CALL: [("f", '{"a": 1}')],
    f"Sure.\n{CALL}": ["Sure.", ("f", '{"a": 1}')],
    f"Sure.\n{CALL}\n{CALL}\n": ["Sure.", ("f", '{"a": 1}'), ("f", '{"a": 1}')],
    f"Sure.\n\n{CALL}\n Then.": ["Sure.", ("f", '{"a": 1}'), "\nThen."],
    f"{CALL}\nThen.": [("f", '{"a": 1}'), "Then."],
    f"Well\n{BAD} so": [f"Well\n{BAD} so"],
    f"{BAD}\n{CALL}": [BAD, ("f", '{"a": 1}')],
    CALL.removesuffix("</tool_call>"): [("f", '{"a": 1}')],  # it ended its turn instead
    'So <tool_call>{"name": "f", "argu': ['So <tool_call>{"name": "f", "argu'],
}


def told(pieces):
    """What a reader tells: words that follow each other as one text, calls by name."""
    reader, found = CallReader(), []
    for piece in [*(reader.take(p) for p in pieces), reader.end()]:
        for part in piece:
            if isinstance(part, str) and found and isinstance(found[-1], str):
                found[-1] += part
            else:
                found.append(
                    part if isinstance(part, str) else (part.name, part.function.arguments)
                )
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_words_and_calls_are_told_the_same_in_whatever_pieces_they_come(text):
    for size in (1, 2, 3, 7, 1_000):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert told(pieces) == TEXTS[text], size


@given(
    st.lists(
        st.sampled_from([CALL, BAD, "Yes", " ", "\n", "<tool", "_call>", "</tool_call>", "<"])
    ),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_a_reader_of_pieces_finds_the_calls_of_the_whole(parts, sizes):
    text, pieces, at = "".join(parts), [], 0
    for size in sizes * (len(text) + 1):
        pieces.append(text[at : at + size])
        at += size
    whole = read_calls(text)
    found = told(pieces)
    assert [part for part in found if not isinstance(part, str)] == [
        (call.name, call.function.arguments) for call in whole.calls
    ]
    said = read_calls("".join(part for part in found if isinstance(part, str)))
    assert (said.calls, said.unparsable) == ((), whole.unparsable)


def test_words_are_told_as_soon_as_they_cannot_begin_a_call():
    reader = CallReader()
    assert reader.take("I look. <tool") == ["I look."]
    assert reader.take("box> and") == [" <toolbox> and"]
    assert reader.take(" <tool_call>") == []
