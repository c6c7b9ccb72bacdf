import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.improve.curation.shingles import compact, run_hashes, shingles

texts = st.lists(st.text(max_size=30), max_size=8)


@settings(deadline=None)
@given(texts)
def test_a_compact_text_is_that_of_any_of_its_forms(found):
    once = compact(found).to_pylist()
    assert len(once) == len(found)
    spread = [" ".join(text) for text in found]
    assert compact(spread).to_pylist() == compact([text + " " for text in spread]).to_pylist()
    ascii_texts = [text for text in found if text.isascii() and any(c.isalnum() for c in text)]
    upper = [text.upper() for text in ascii_texts]
    assert compact(upper).to_pylist() == compact(ascii_texts).to_pylist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("My card!", "m y-c a r d"),
        ("ﬁle Ｎｏ １", "file no 1"),
        ("Straße", "STRASSE"),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth", "zero width"),
    ],
)
def test_forms_of_one_text_are_the_same(one, other):
    first, second = compact([one, other]).to_pylist()
    assert first == second


def test_texts_without_letters_stay_apart():
    assert len(set(compact(["?", "!", "👍", "👎", ""]).to_pylist())) == 5


@settings(deadline=None)
@given(texts, st.integers(1, 12))
def test_runs_are_hashed_alike_exactly_where_they_are_equal(found, length):
    column = pa.array(found, pa.large_string())
    hashes, offsets = run_hashes(column, length)
    runs = [text[i : i + length] for text in found for i in range(len(text) - length + 1)]
    assert np.diff(offsets).tolist() == [max(0, len(text) - length + 1) for text in found]
    by_hash = dict(zip(hashes.tolist(), runs, strict=True))
    assert [by_hash[value] for value in hashes.tolist()] == runs
    assert len(by_hash) == len(set(runs))


def test_a_text_shorter_than_a_run_is_one_shingle():
    hashes, offsets = shingles(pa.array(["ab", "abcdef", "", "ab"], pa.large_string()), 5)
    assert offsets.tolist() == [0, 1, 3, 4, 5]
    assert hashes[0] == hashes[4] != hashes[3]
