"""Each user counts once in each group of texts, whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.analyze.failures.per_user import one_a_user
from ratchet.errors import InvalidInputError

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["", "ann", "bob", "cem"]),
        st.integers(-1, 3),
        st.sampled_from(["a", "b", "c"]),
        st.booleans(),
    ),
    max_size=40,
)


def kept(rows: list[tuple[str, int, str, bool]], seed: int = 0) -> np.ndarray:
    users, groups, texts, failed = zip(*rows, strict=True) if rows else ((), (), (), ())
    return one_a_user(
        users, np.array(groups, dtype=np.int64), texts, np.array(failed, dtype=bool), seed=seed
    )


@given(ROWS)
def test_each_user_has_one_row_in_each_group_and_nobody_all(
    rows: list[tuple[str, int, str, bool]],
) -> None:
    found = kept(rows)
    told = [row for row, keep in zip(rows, found, strict=True) if keep]
    pairs = [(user, group) for user, group, _, _ in told if user]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(user, group) for user, group, _, _ in rows if user and group >= 0}
    assert sum(not user for user, *_ in told) == sum(
        not user and group >= 0 for user, group, _, _ in rows
    )


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(
    rows: list[tuple[str, int, str, bool]], random: object
) -> None:
    other = list(rows)
    random.shuffle(other)  # type: ignore[attr-defined]
    one = sorted(row for row, keep in zip(rows, kept(rows), strict=True) if keep)
    two = sorted(row for row, keep in zip(other, kept(other), strict=True) if keep)
    assert one == two


def test_each_row_of_a_user_is_as_likely() -> None:
    rows = [("ann", 0, text, False) for text in "abcde"]
    drawn = np.array([kept(rows, seed) for seed in range(2_000)]).sum(axis=0)
    # binomial, n = 2,000 and p = 1/5: four standard errors are 72
    assert np.all(np.abs(drawn - 400) < 72)


def test_users_that_are_not_one_a_row_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="one user a row"):
        one_a_user(["a"], np.zeros(2, dtype=np.int64), ["x", "y"], np.zeros(2, bool), seed=0)
