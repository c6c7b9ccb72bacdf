"""Each user once in each group of texts, so that one angry user is no failure cluster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratchet.analyze.failures.hierarchy import IntArray
from ratchet.analyze.failures.words import text_hash
from ratchet.errors import InvalidInputError
from ratchet.outcomes.join import BoolArray


def one_a_user(
    users: Sequence[str], groups: IntArray, texts: Sequence[str], failed: BoolArray, *, seed: int
) -> BoolArray:
    """Keep one row of each user in each group, drawn at random.

    What one user sends about one thing fails together, because the user is strict or the account
    is odd. Deals that take such rows as independent find clusters where there are none: in 30 % of
    200 runs of 300 users with 3,000 messages, most of them about one thing each; with one row a
    user and group in 0.5 % (`tests/calibration/test_failure_scan.py`).

    Units: none.
    Assumptions: users are independent of each other.
    When not to use: where users are not known; a name for "nobody" would keep one of all its rows.

    Args:
        users: Whose row it is, shape (n,); rows of the empty string are all kept.
        groups: What the row is about, -1 for nothing, shape (n,).
        texts: The texts; the draw depends on them, not on the order of the rows.
        failed: Whether each failed, shape (n,); likewise.
        seed: Of the draw.

    Returns:
        Which rows are kept, shape (n,); none of those about nothing.

    Raises:
        InvalidInputError: The lengths differ.
    """
    if not len(users) == len(groups) == len(texts) == len(failed):
        raise InvalidInputError(
            f"there must be one user a row, got {len(users)} users for {len(texts)} texts; "
            "pass an empty string where a user is not known"
        )
    index_of_user = {user: index for index, user in enumerate(sorted(set(users)))}
    who = np.array([index_of_user[user] for user in users], dtype=np.int64)
    what = np.array([int.from_bytes(text_hash(text, 8)) for text in texts], dtype=np.uint64)
    # the same order whatever the order of the rows, then shuffled
    canonical = np.lexsort((groups, failed, what, who))
    shuffled = canonical[np.random.default_rng(seed).permutation(len(canonical))]
    pairs = who[shuffled] * (int(groups.max(initial=0)) + 2) + groups[shuffled]
    _, first = np.unique(pairs, return_index=True)
    counted = np.zeros(len(texts), dtype=np.bool_)
    counted[shuffled[first]] = True
    nobody = who == index_of_user.get("", -1)
    told: BoolArray = (counted | nobody) & (groups >= 0)
    return told
