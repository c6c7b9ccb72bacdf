"""Whether users say what others say of messages like theirs, at any number of words for answers.

    nearest = nearest_of_others(users, moments, vectors_of, neighbours=10)
    right, total = agreement(nearest, users, answers, trust)

Words for answers are compared within blocks of bounded size, so that cost is linear in their number
and memory is bounded. A block depends on nothing but its own words, and the points of time where
blocks may begin are fixed: new words change the last block, a late one changes the block it falls
into. Which messages are nearest does not depend on trust, and the counts of blocks add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratchet.files.whole import writing_whole

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Places = NDArray[np.int32]
Vectors = NDArray[np.float32]
HashArray = NDArray[np.uint64]

BLOCK = 16_384
"""Words for answers that are compared with each other."""
_BITS = 62  # the first block could last from 1970 for 146,000 years, in microseconds
_CHUNK = 512
_COUNTED = 1 << 18
_NOBODY = -2.0
_METHOD = b"word vectors, cosine, 1"
"""Changes with how neighbours are found, so that what was kept before is not taken."""


@dataclass(slots=True)
class KeptNeighbours:
    """Neighbours of whole blocks from earlier runs: a file of numbers each, in a folder.

    A block is known again by its messages and by which of them are of one user, so that one in
    which a user was forgotten is computed anew. A file that cannot be read is as if it were not
    there.

    Attributes:
        folder: Where the files are.
        drops: Whether blocks that nobody asked for are deleted: for a run of a set that is
            trained on, not for one that looks.
    """

    folder: Path
    drops: bool = True
    _asked: set[str] = field(default_factory=set)

    def get(self, key: str, size: int) -> Places | None:
        """Return the neighbours of a block of so many rows, by their places in it."""
        self._asked.add(key)
        try:
            found = np.load(self.folder / f"{key}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        whole = found.ndim == 2 and len(found) == size and found.dtype == np.int32
        return found if whole else None

    def keep(self, key: str, found: Places) -> None:
        """Keep the neighbours of a block; the file appears whole or not at all."""
        with writing_whole(self.folder / f"{key}.npy", sync=False) as file:
            np.save(file, found, allow_pickle=False)

    def drop_others(self) -> None:
        """Delete what nobody asked for since this was made: blocks that have changed."""
        if not self.drops:
            return
        for path in self.folder.glob("*"):
            if path.stem not in self._asked:
                path.unlink(missing_ok=True)


def time_blocks(moments: IntArray, most: int = BLOCK) -> list[slice]:
    """Cut rows in order of time into blocks, at points of time that no row moves.

    All of time is one block. A block of more than `most` rows is cut in the middle of its span,
    which is a power of two microseconds, until no block is larger; rows of the same microsecond
    are cut by number. A block of fewer than a quarter joins the one before it, so that a message
    near a cut is not compared with hardly any.

    Args:
        moments: Microseconds since 1970, ascending, shape (n,).
        most: Rows of a block.

    Returns:
        Blocks in order, each of at most twice `most` rows.
    """
    leaves: list[tuple[int, int]] = []
    waiting = [(0, len(moments), 0, _BITS)]
    while waiting:
        first, end, begins, bits = waiting.pop()
        if end - first <= most:
            leaves += [(first, end)] if end > first else []
        elif bits == 0:
            leaves += [(place, min(place + most, end)) for place in range(first, end, most)]
        else:
            middle = begins + (1 << (bits - 1))
            cut = first + int(np.searchsorted(moments[first:end], middle))
            waiting += [(cut, end, middle, bits - 1), (first, cut, begins, bits - 1)]
    blocks: list[slice] = []
    for first, end in leaves:
        before = blocks[-1] if blocks else slice(first, first)
        small = min(end - first, before.stop - before.start) < most / 4
        if blocks and small and end - before.start <= 2 * most:
            blocks[-1] = slice(before.start, end)
        else:
            blocks.append(slice(first, end))
    return blocks


def nearest_of_others(
    users: IntArray,
    moments: IntArray,
    vectors_of: Callable[[IntArray], Vectors],
    *,
    neighbours: int,
    block: int = BLOCK,
    messages: HashArray | None = None,
    kept: KeptNeighbours | None = None,
) -> Places:
    """Return for each word the words of other users whose messages are nearest by their cosine.

    Args:
        users: Number of the user who spoke, in order of time, shape (n,).
        moments: Microseconds since 1970, ascending, shape (n,).
        vectors_of: Vectors of the messages of some rows, of any length, which depend on these
            messages alone; called once a block, with rows of that block alone.
        neighbours: Messages to find.
        block: Rows that are compared with each other.
        messages: Hashes of the messages, to know a block again; needed for `kept`.
        kept: What earlier runs found.

    Returns:
        Rows, shape (n, neighbours); -1 where a block has no more messages of other users.
    """
    nearest = np.full((len(users), neighbours), -1, dtype=np.int32)
    for rows in time_blocks(moments, block):
        key, found = "", None
        if kept is not None and messages is not None:
            key = _key(messages[rows], users[rows], neighbours)
            found = kept.get(key, rows.stop - rows.start)
        if found is None:
            vectors = vectors_of(np.arange(rows.start, rows.stop))
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            unit = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
            found = _nearest_in_block(unit, users[rows], neighbours)
            if kept is not None and key:
                kept.keep(key, found)
        nearest[rows, : found.shape[1]] = np.where(found >= 0, found + rows.start, -1)
    if kept is not None:
        kept.drop_others()
    return nearest


def _key(messages: HashArray, users: IntArray, neighbours: int) -> str:
    """Return what a block is known by: its messages, and which of them are of the same user."""
    first = np.unique(users, return_index=True, return_inverse=True)
    same_user = first[1][first[2]].astype(np.int64)  # the place of the user's first message
    known = blake2b(_METHOD, digest_size=16)
    known.update(neighbours.to_bytes(4, "little"))
    known.update(np.ascontiguousarray(messages).tobytes())
    known.update(same_user.tobytes())
    return known.hexdigest()


def _nearest_in_block(unit: Vectors, users: IntArray, neighbours: int) -> Places:
    count = min(neighbours, len(users) - 1)
    found = np.empty((len(users), count), dtype=np.int32)
    for start in range(0, len(users) if count else 0, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        cosines = unit[chunk] @ unit.T
        cosines[users[chunk, None] == users[None, :]] = _NOBODY
        places = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        another = np.take_along_axis(cosines, places, axis=1) > _NOBODY
        found[chunk] = np.where(another, places, -1)
    return found


def agreement(
    nearest: Places, users: IntArray, answers: IntArray, trust: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Count for each user the words for answers that most of the nearest messages agree with.

    Args:
        nearest: From `nearest_of_others`.
        users: Number of the user who spoke, shape (n,).
        answers: Number of the answer, shape (n,).
        trust: Weight of each user's vote, shape (users,).

    Returns:
        Words that others agree with, and words that could be compared, each of shape (users,).
        Those of several blocks add up.
    """
    right, total = np.zeros(len(trust)), np.zeros(len(trust))
    for start in range(0, len(users), _COUNTED):
        part = slice(start, start + _COUNTED)
        near = nearest[part]
        votes = trust[users[near]] * (near >= 0)
        mine = (votes * (answers[near] == answers[part, None])).sum(axis=1)
        everything = votes.sum(axis=1)
        known = everything > 0.0
        who = users[part][known]
        right += np.bincount(who[(mine > 0.5 * everything)[known]], minlength=len(trust))
        total += np.bincount(who, minlength=len(trust))
    return right, total
