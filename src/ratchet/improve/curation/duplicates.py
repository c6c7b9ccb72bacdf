"""Exact and near duplicates: MinHash signatures by rensa, compared in bands.

with Signed(len(texts), DuplicateConfig()) as signed:   # texts in order of preference
    signed.put(np.arange(len(texts)), compact(texts))
    keep = drop_near_duplicates(signed)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rensa import RMinHash

from ratchet.improve.curation.shingles import CHUNK, IntArray, UintArray, chunks, shingles
from ratchet.improve.curation.traits import distinct

BoolArray = NDArray[np.bool_]
Signatures = NDArray[np.uint32]

SHINGLE = 5
"""Characters in a shingle; the length that Leskovec et al. take for short texts."""
_SEED = 20_261_124
_PAIRS_AT_ONCE = 200_000
IN_MEMORY = 32 * 2**20
"""Bytes of signatures that are not written to a file."""


class DuplicateConfig(BaseModel):
    """When two texts are the same, for training.

    Attributes:
        similarity: Jaccard similarity of their character 5-grams from where on; 1 leaves nothing
            but what is the same for any case, spacing and punctuation.
        bands: Parts of a signature; a pair is compared where one of them is equal.
        rows: Hashes in a band.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    bands: Annotated[int, Field(ge=1, le=256)] = 21
    rows: Annotated[int, Field(ge=1, le=64)] = 6


class Signed:
    """Signatures of texts, band by band, in a temporary file where they are many.

    with Signed(len(texts), config) as signed:
        signed.put(np.arange(len(texts)), compact(texts))
        keep = drop_near_duplicates(signed)
    """

    def __init__(self, size: int, config: DuplicateConfig) -> None:
        self.size = size
        self.config = config
        self._slots = np.zeros(size, dtype=np.int64)
        self._signed = 0
        self._kinds: UintArray | None = None  # all are of one kind, as words are
        # closed by __exit__
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def needed(self) -> bool:
        """Whether any two texts are to be compared."""
        return self.config.similarity < 1.0 and self.size > 1

    def put(self, places: IntArray, texts: pa.Array) -> None:
        """Sign texts (from `compact`) and keep the signatures at their places."""
        self.keep(places, sign(texts, self.config.bands * self.config.rows))

    def keep(self, places: IntArray, parts: Signatures) -> None:
        """Keep signatures (from `sign`) at their places."""
        config, size = self.config, len(places)
        for band in range(config.bands):
            self._file.seek(self._at(band, self._signed))
            part = parts[:, band * config.rows : (band + 1) * config.rows]
            self._file.write(np.ascontiguousarray(part).tobytes())
        self._slots[places] = np.arange(self._signed, self._signed + size)
        self._signed += size

    def tell_apart(self, places: IntArray, kinds: UintArray) -> None:
        """Say of what kind texts are: those of different kinds are no duplicates of each other.

        Args:
            places: Of the texts.
            kinds: A number a text, 0 where nobody says.
        """
        if self._kinds is None and kinds.any():
            self._kinds = np.zeros(self.size, dtype=np.uint64)
        if self._kinds is not None:
            self._kinds[places] = kinds

    def keys(self, number: int, rows: IntArray) -> UintArray:
        """Return a number for each of some rows: equal where the band and the kind are."""
        key = _band_key(self.band(number, rows), number)
        return key if self._kinds is None else key ^ self._kinds[rows]

    def band(self, number: int, rows: IntArray) -> Signatures:
        """Return a band's part of the signatures of some rows, shape (r, rows of the band)."""
        self._file.seek(self._at(number, 0))
        content = self._file.read(self.size * self.config.rows * 4)
        whole = np.frombuffer(content, np.uint32).reshape(self.size, self.config.rows)
        return whole[self._slots[rows]]

    def _at(self, band: int, place: int) -> int:
        return (band * self.size + place) * self.config.rows * 4


def drop_near_duplicates(signed: Signed) -> BoolArray:
    """Tell which texts to keep so that no two of them are near duplicates.

    Goes through the texts in order and keeps each that is no near duplicate of one that is kept:
    first comes first, and a chain of small steps does not join what is far apart.

    Similarity is estimated from signatures of `bands * rows` hashes, with a standard error of
    sqrt(J (1 - J) / (bands * rows)): 0.036 at J = 0.8 with the defaults.

    Error rate:
        A pair of similarity J is never compared with probability (1 - J^rows)^bands: 0.2 % at
        0.8, 0.0002 % at 0.9 with the defaults. Of pairs of similarity 0.7 about 0.3 % are taken
        for near duplicates, of 0.9 about 99.5 %.

    When not to use:
        It compares characters. Two ways to say one thing share few of them, and two questions that
        differ in one number share most.

    Memory:
        84 bytes a text at the peak with the defaults; signatures lie in a temporary file.

    Args:
        signed: The texts, in order of preference.

    References:
        Broder, A. Z. (1997). On the resemblance and containment of documents. SEQUENCES '97.
        Leskovec, J., Rajaraman, A. and Ullman, J. D. (2020). Mining of Massive Datasets, ch. 3.
    """
    keep = np.ones(signed.size, dtype=np.bool_)
    if not signed.needed:
        return keep
    left = np.arange(signed.size)
    while True:
        first, second = similar_pairs(signed, left)
        if not len(first):
            return keep
        stays = _greedy(first, second, len(left))
        keep[left[~stays]] = False
        left = left[stays]


def sign(texts: pa.Array, hashes: int) -> Signatures:
    """Return MinHash signatures of texts (from `compact`), shape (n, hashes)."""
    signed = np.empty((len(texts), hashes), dtype=np.uint32)
    for start, part in chunks(texts):
        tokens, offsets = shingles(part, SHINGLE)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            tokens, offsets.astype(np.uint64), hashes, _SEED
        )
        signed[start : start + CHUNK] = np.array(matrix.to_rows(), dtype=np.uint32)
    return signed


def similar_pairs(signed: Signed, left: IntArray) -> tuple[IntArray, IntArray]:
    """Return pairs of near duplicates among the rows that are left, the earlier one first.

    In each band a row is compared with the first of those that are equal to it there, so that the
    number of comparisons is linear; the next round finds what that misses.

    Returns:
        Places in `left`, ascending.
    """
    bands, size = signed.config.bands, len(left)
    pairs = np.empty(0, dtype=np.int64)
    for band in range(bands if size else 0):
        key = signed.keys(band, left)
        _, firsts, members = np.unique(key, return_index=True, return_inverse=True)
        leader = firsts[members]
        others = np.flatnonzero(leader != np.arange(size))
        pairs = distinct(np.append(pairs, leader[others] * size + others))
    first, second = np.divmod(pairs, max(1, size))
    alike = np.zeros(len(pairs), dtype=np.int32)
    for band in range(bands if len(pairs) else 0):
        part = signed.band(band, left)
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            now = slice(start, start + _PAIRS_AT_ONCE)
            alike[now] += (part[first[now]] == part[second[now]]).sum(axis=1, dtype=np.int32)
    near = alike / (bands * signed.config.rows) >= signed.config.similarity
    return first[near], second[near]


def band_keys(signatures: Signatures, config: DuplicateConfig) -> Iterator[UintArray]:
    """Yield for each band one number a row: equal where the band is."""
    for band in range(config.bands):
        yield _band_key(signatures[:, band * config.rows : (band + 1) * config.rows], band)


def _band_key(part: Signatures, band: int) -> UintArray:
    key = np.full(len(part), np.uint64(band), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in part.T:
            key = key * np.uint64(0x9E3779B97F4A7C15) + column
            key ^= key >> np.uint64(29)
    return key


def estimate(
    one: Signatures, rows: IntArray, other: Signatures, other_rows: IntArray
) -> NDArray[np.float64]:
    """Return the estimated Jaccard similarity of pairs of rows, shape (p,)."""
    alike = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        alike[part] = (one[rows[part]] == other[other_rows[part]]).mean(axis=1)
    return alike


def _greedy(first: IntArray, second: IntArray, size: int) -> BoolArray:
    """Keep each row in order that has no kept row before it among its pairs."""
    stays, open_ = np.ones(size, dtype=np.bool_), np.ones(len(first), dtype=np.bool_)
    while open_.any():
        has_earlier = np.zeros(size, dtype=np.bool_)
        has_earlier[second[open_]] = True
        settled = open_ & ~has_earlier[first]  # the earlier one is sure to stay
        stays[second[settled]] = False
        open_ &= stays[first] & stays[second]
    return stays
