"""Texts made ready to be grouped: distinct unit vectors in an order that their content gives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.embedding import word_vectors
from ratchet.analyze.failures.hierarchy import (
    Hierarchy,
    IntArray,
    Vectors,
    blocks,
    build_hierarchy,
    group_sums,
    row_norms,
    unit_rows,
)
from ratchet.errors import InvalidInputError

NEIGHBOURS = 10
_FENCE = 1.5
"""Interquartile ranges below the lower quartile from where on a value is an outlier (Tukey)."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows by what they say.

    Attributes:
        vectors: Distinct unit vectors, shape (m, d), in an order that depends on nothing but the
            texts: any order of the rows gives the same, and a few new rows change it little.
        place: Index into `vectors` of each row, -1 where it says nothing, shape (n,).
    """

    vectors: Vectors
    place: IntArray


@dataclass(frozen=True, slots=True)
class Grouped:
    """A corpus with its hierarchy.

    Attributes:
        corpus: The rows.
        hierarchy: Over the distinct vectors.
        group: The real group of each distinct vector, from 0, -1 for noise, shape (m,).
        centres: Unit centre of each group, shape (g, d).
    """

    corpus: Corpus
    hierarchy: Hierarchy
    group: IntArray
    centres: Vectors

    @property
    def cell_of_row(self) -> IntArray:
        """Return the cell of each row, -1 where it says nothing or is noise, shape (n,)."""
        cells = np.where(self.group >= 0, self.hierarchy.cells, -1)
        placed = self.corpus.place >= 0
        return np.where(placed, cells[self.corpus.place], -1)


def prepare(
    texts: Sequence[str], embeddings: NDArray[np.floating] | None, rng: np.random.Generator
) -> Corpus:
    """Find the distinct texts (and vectors) and put them in the order of a hash of their content.

    Args:
        texts: One text a row, shape (n,).
        embeddings: One vector a row, shape (n, d); TF-IDF of the distinct texts where None.
        rng: Source of the seed of the SVD.

    Raises:
        InvalidInputError: A text is not a string; embeddings have another length or are not finite.
    """
    embeddings = None if embeddings is None else np.asarray(embeddings)
    _check(texts, embeddings)
    index_of_key: dict[Any, int] = {}
    first: list[int] = []
    text_of_row = np.full(len(texts), -1, dtype=np.int64)
    for row, text in enumerate(texts):
        if not text.strip():
            continue
        key = text if embeddings is None else (text, _digest(_single(embeddings[row]).tobytes()))
        if key not in index_of_key:
            index_of_key[key] = len(first)
            first.append(row)
        text_of_row[row] = index_of_key[key]
    order = sorted(range(len(first)), key=_order_by_content(list(index_of_key)).__getitem__)
    rows = [first[i] for i in order]
    chosen = [texts[row] for row in rows]
    # either is a copy, which may be written to
    raw = word_vectors(chosen, rng=rng) if embeddings is None else _single(embeddings[rows])
    return _without_zeros(_scaled(raw), text_of_row, np.array(order, dtype=np.int64))


def _single(values: NDArray[np.floating]) -> Vectors:
    return values.astype(np.float32, copy=False)


def _scaled(vectors: Vectors) -> Vectors:
    """Scale each row to length one in place; there may be millions of numbers."""
    norms = row_norms(vectors)[:, None]
    if not np.isfinite(norms).all():
        raise InvalidInputError(
            "embeddings must have a length that single precision can hold, got one that is beyond "
            "1e19; scale them to length one"
        )
    vectors /= np.where(norms > 0.0, norms, 1.0)
    return vectors


def _order_by_content(keys: Sequence[Any]) -> list[bytes]:
    """Return a hash a key; it is the text's alone for the first of the vectors of a text."""
    hashes = []
    lowest: dict[str, bytes] = {}
    for key in keys:
        if isinstance(key, tuple):
            lowest[key[0]] = min(key[1], lowest.get(key[0], key[1]))
    for key in keys:
        text, extra = key if isinstance(key, tuple) else (key, b"")
        extra = b"" if extra == lowest.get(text, b"") else extra
        hashes.append(_digest(text.encode("utf-8", "surrogatepass") + extra))
    return hashes


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=12).digest()


def _without_zeros(vectors: Vectors, text_of_row: IntArray, order: IntArray) -> Corpus:
    """Leave out vectors of zeros, which say nothing."""
    says = np.any(vectors != 0.0, axis=1)
    new = np.full(len(order) + 1, -1, dtype=np.int64)  # the last one is for place -1
    new[order[says]] = np.arange(int(says.sum()))
    telling_vectors = vectors if says.all() else np.ascontiguousarray(vectors[says])
    return Corpus(vectors=telling_vectors, place=new[text_of_row])


def _check(texts: Sequence[str], embeddings: NDArray[np.floating] | None) -> None:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"texts must be strings, got {type(text).__name__} in row {row}; "
                "pass an empty string where there is none"
            )
    if embeddings is None:
        return
    if embeddings.ndim != 2 or embeddings.shape[0] != len(texts):
        raise InvalidInputError(
            f"embeddings must have the shape ({len(texts)}, d), got {embeddings.shape}; "
            "pass one vector a text"
        )
    if not all(np.isfinite(embeddings[rows]).all() for rows in blocks(len(embeddings))):
        raise InvalidInputError("embeddings must be finite, got nan or inf; embed the texts anew")


def group(corpus: Corpus, rng: np.random.Generator) -> Grouped:
    """Build the hierarchy, cut it where groups are real, and set noise aside.

    A vector is noise where its cosine with the centre of its nearest neighbourhood, the smallest
    node of ten vectors around it without itself, lies below Tukey's lower fence: the lower quartile
    of all such cosines less 1.5 interquartile ranges. What ten rows say is none.

    Args:
        corpus: With at least one distinct vector.
        rng: Draws the reference that tells how many groups are real.

    References:
        Tukey, J. W. (1977). Exploratory Data Analysis. Addison-Wesley.
    """
    hierarchy = build_hierarchy(corpus.vectors, rng)
    nodes = hierarchy.group_nodes(hierarchy.groups)[hierarchy.cells]
    names, groups = np.unique(nodes, return_inverse=True)
    centres = unit_rows(group_sums(corpus.vectors, groups, len(names))[0])
    closeness = _local_closeness(corpus.vectors, hierarchy)
    low, high = np.quantile(closeness, [0.25, 0.75])
    fence = low - _FENCE * (high - low) - 1e-6  # a tolerance, so that equal ones are all in
    # what is said as often as a neighbourhood is large is a neighbourhood of its own
    often = np.bincount(corpus.place[corpus.place >= 0], minlength=len(groups)) >= NEIGHBOURS
    labels = np.where((closeness >= fence) | often, groups, -1).astype(np.int64)
    return Grouped(corpus, hierarchy, labels, centres)


def _local_closeness(vectors: Vectors, hierarchy: Hierarchy) -> Vectors:
    around = hierarchy.nodes_of(NEIGHBOURS)
    sums = hierarchy.totals(hierarchy.centres * hierarchy.sizes[:, None])[around].astype(np.float32)
    closeness = np.empty(len(vectors), dtype=np.float32)
    for rows in blocks(len(vectors)):
        others = sums[hierarchy.cells[rows]] - vectors[rows]
        closeness[rows] = (vectors[rows] * unit_rows(others)).sum(axis=1)
    return closeness
