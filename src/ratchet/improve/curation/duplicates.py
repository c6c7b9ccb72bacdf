"""Exact and near duplicates: MinHash signatures by rensa, compared in bands.

keep = drop_duplicates(texts, DuplicateConfig())     # texts in order of preference
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rensa import RMinHash

from ratchet.improve.curation.shingles import CHUNK, IntArray, UintArray, chunks, shingles

BoolArray = NDArray[np.bool_]
Signatures = NDArray[np.uint32]

SHINGLE = 5
"""Characters in a shingle; the length that Leskovec et al. take for short texts."""
_SEED = 20_261_124
_PAIRS_AT_ONCE = 200_000


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


def drop_near_duplicates(texts: pa.Array, config: DuplicateConfig) -> BoolArray:
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

    Args:
        texts: From `compact`, in order of preference.
        config: When two texts are the same.

    References:
        Broder, A. Z. (1997). On the resemblance and containment of documents. SEQUENCES '97.
        Leskovec, J., Rajaraman, A. and Ullman, J. D. (2020). Mining of Massive Datasets, ch. 3.
    """
    keep = np.ones(len(texts), dtype=np.bool_)
    if config.similarity == 1.0 or len(texts) < 2:
        return keep
    signatures = sign(texts, config.bands * config.rows)
    left = np.arange(len(texts))
    while True:
        first, second = similar_pairs(signatures[left], config)
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


def similar_pairs(signatures: Signatures, config: DuplicateConfig) -> tuple[IntArray, IntArray]:
    """Return pairs of rows that are near duplicates, the earlier row first.

    In each band a row is compared with the first of those that are equal to it there, so that the
    number of comparisons is linear; the next round finds what that misses.
    """
    found = [np.empty(0, dtype=np.int64)]
    size = len(signatures)
    for key in band_keys(signatures, config):
        _, firsts, members = np.unique(key, return_index=True, return_inverse=True)
        leader = firsts[members]
        others = np.flatnonzero(leader != np.arange(size))
        alike = estimate(signatures, leader[others], signatures, others) >= config.similarity
        found.append(leader[others[alike]] * size + others[alike])
    pairs = np.unique(np.concatenate(found))
    return pairs // size if size else pairs, pairs % size if size else pairs


def band_keys(signatures: Signatures, config: DuplicateConfig) -> Iterator[UintArray]:
    """Yield for each band one number a row: equal where the band is."""
    with np.errstate(over="ignore"):
        for band in range(config.bands):
            key = np.full(len(signatures), np.uint64(band), dtype=np.uint64)
            for column in range(band * config.rows, (band + 1) * config.rows):
                key = key * np.uint64(0x9E3779B97F4A7C15) + signatures[:, column]
                key ^= key >> np.uint64(29)
            yield key


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
