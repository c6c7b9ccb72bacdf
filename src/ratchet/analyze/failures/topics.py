"""What is the traffic about? Groups of all texts, whether they failed or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.corpus import group, prepare
from ratchet.analyze.failures.hierarchy import IntArray, Vectors, nearest
from ratchet.analyze.failures.words import name_groups

FEWEST_ROWS = 3


@dataclass(frozen=True, slots=True)
class TextClusters:
    """Result of `cluster_texts`.

    Attributes:
        labels: Index of its cluster for each row, -1 for noise, shape (n,).
        names: A name a cluster, shape (g,); empty where none were asked for.
        sizes: Rows in each cluster, largest first, shape (g,).
        centres: Unit centre of each cluster, shape (g, d).
    """

    labels: IntArray
    names: tuple[str, ...]
    sizes: IntArray
    centres: Vectors


def cluster_texts(
    texts: Sequence[str],
    *,
    embeddings: NDArray[np.floating] | None = None,
    names: bool = True,
    rng: np.random.Generator,
) -> TextClusters:
    """Group texts by what they are about; their number is found, and noise stays noise.

    The groups are those of the hierarchy whose join costs half as much again as in structureless
    vectors with the data's own covariance (`ratchet.analyze.failures.hierarchy`). A group with
    fewer than three rows, and what lies far from the centre of its group, is noise.

    Units: none.
    Assumptions: texts about one thing lie together in the embeddings.
    Error rate: none is claimed; where there is no structure one group is found (tested on normal
    vectors). Agreement with people's labels is measured in docs/failures.md.
    When not to use: to find failures; a group that is large is not one that fails.

    Args:
        texts: One text a row, shape (n,).
        embeddings: One vector a row, shape (n, d); TF-IDF of the texts where None.
        names: Whether to name the groups, which takes longer than to find them.
        rng: Source of randomness; the same state gives the same groups.

    Raises:
        InvalidInputError: Lengths differ, a text is no string or an embedding is not finite.

    References:
        Tibshirani, R., Walther, G., Hastie, T. (2001). Estimating the number of clusters in a data
        set via the gap statistic. JRSS B 63, 411-423.
        Ward (1963), as `ratchet.analyze.failures.hierarchy.ward`.
    """
    texts = list(texts)  # a pandas Series would be read by its index
    corpus = prepare(texts, embeddings, rng)
    labels = np.full(len(texts), -1, dtype=np.int64)
    if not len(corpus.vectors):
        return TextClusters(labels, (), np.zeros(0, dtype=np.int64), corpus.vectors)
    grouped = group(corpus, rng)
    # a cell may straddle two groups; each text goes to the nearer one
    closest = np.where(grouped.group >= 0, nearest(corpus.vectors, grouped.centres)[0], -1)
    group_of_row = np.where(corpus.place >= 0, closest[corpus.place], -1)
    sizes = np.bincount(group_of_row[group_of_row >= 0], minlength=len(grouped.centres))
    large = np.flatnonzero(sizes >= FEWEST_ROWS)
    large = large[np.argsort(-sizes[large], kind="stable")]
    new = np.full(len(sizes) + 1, -1, dtype=np.int64)  # the last one is for noise
    new[large] = np.arange(large.size)
    labels = new[group_of_row]
    members = [np.flatnonzero(labels == index) for index in range(large.size)]
    named = tuple(name_groups(texts, members)) if names else ()
    return TextClusters(labels, named, sizes[large].astype(np.int64), grouped.centres[large])
