"""A map of texts: near each other where their vectors are alike.

placed = project(result, texts, failed, vectors, rng=rng)
shown = [texts[row] for row in placed.rows]
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.clusters import FailureClusters
from ratchet.analyze.failures.corpus import prepare
from ratchet.analyze.failures.hierarchy import IntArray, Vectors
from ratchet.errors import InvalidInputError
from ratchet.outcomes.join import BoolArray

MOST_TEXTS = 3_000
SHARE_OF_CLUSTERS = 2 / 3
"""Texts in clusters take up to so much of the map; the rest shows where nothing is wrong."""
FEWEST_A_CLUSTER = 25
_DIMENSIONS = 50
_PERPLEXITY = 30.0
_ITERATIONS = 500
_FEW = 8
"""So few texts are laid out by their principal components alone."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Result of `project`: distinct texts in two dimensions.

    Attributes:
        xy: Places, each axis within [0, 1] and in proportion to the other, shape (m, 2). Only what
            is near means something; axes and long distances do not.
        rows: A row that has the text, shape (m,); a failed one where there is one.
        labels: Index of the cluster that the text lies in, -1 for none, shape (m,).
        failed: Whether any row with the text failed, shape (m,).
        failures: How many rows with the text failed, shape (m,).
        seen: How many rows have the text, shape (m,).
        texts: Distinct texts there are; the map is a sample of them where it holds fewer.
    """

    xy: NDArray[np.float64]
    rows: IntArray
    labels: IntArray
    failed: BoolArray
    failures: IntArray
    seen: IntArray
    texts: int


def project(
    result: FailureClusters,
    texts: Sequence[str],
    failed: BoolArray,
    vectors: NDArray[np.floating] | None = None,
    *,
    rng: np.random.Generator,
    most: int = MOST_TEXTS,
) -> Projection:
    """Lay out the distinct texts, or a fair sample of them, in two dimensions.

    t-SNE of the first 50 principal components, started at the first two, so that the same data
    gives the same map and a little more of it a similar one. The sample follows a hash of the
    texts: what is shown today is shown tomorrow. Texts in clusters take up to two thirds of it, at
    least 25 of each cluster; what is left goes to the rest. Texts that say nothing (empty, or a
    vector of zeros) are not shown.

    Assumptions: none that matter to a decision; a map is for looking only.
    When not to use: to read off sizes, densities or distances between groups, which t-SNE does not
    keep.

    Args:
        result: The clusters, whose rows are those of `texts`.
        texts: One text a row, shape (n,).
        failed: Whether the row failed, shape (n,).
        vectors: One vector a row, shape (n, d); TF-IDF of the texts where None.
        rng: Source of the seeds.
        most: Texts to show, at least 1.

    Raises:
        InvalidInputError: Lengths differ, `most` is below 1 or a vector is not finite.

    References:
        van der Maaten, L., Hinton, G. (2008). Visualizing data using t-SNE. JMLR 9, 2579-2605.
        Kobak, D., Berens, P. (2019). The art of using t-SNE for single-cell transcriptomics.
        Nature Communications 10, 5416: why to start at the principal components.
    """
    failed = np.asarray(failed, dtype=np.bool_)
    _check(result, texts, failed, most)
    corpus = prepare(texts, vectors, rng)
    seed = int(rng.integers(2**31))
    count = len(corpus.vectors)
    placed = np.flatnonzero(corpus.place >= 0)
    text_of_row = corpus.place[placed]
    seen = np.bincount(text_of_row, minlength=count)
    failures = np.bincount(text_of_row[failed[placed]], minlength=count)
    rows = np.zeros(count, dtype=np.int64)
    # of equal places the last assignment stands: the first row, a failed one where there is one
    order = placed[np.lexsort((placed, ~failed[placed]))][::-1]
    rows[corpus.place[order]] = order
    labels = rows_in_clusters(result)[rows]
    shown = _sample(labels, len(result.clusters), most)
    return Projection(
        xy=_framed(_layout(corpus.vectors[shown], seed)),
        rows=rows[shown],
        labels=labels[shown],
        failed=failures[shown] > 0,
        failures=failures[shown],
        seen=seen[shown],
        texts=count,
    )


def rows_in_clusters(result: FailureClusters) -> IntArray:
    """Return the index of the cluster of each row, failed or not, -1 for none, shape (n,)."""
    labels = np.full(result.labels.size, -1, dtype=np.int64)
    for index, cluster in enumerate(result.clusters):
        labels[cluster.rows] = index
    return labels


def _check(result: FailureClusters, texts: Sequence[str], failed: BoolArray, most: int) -> None:
    if failed.shape != (len(texts),) or result.labels.size != len(texts):
        raise InvalidInputError(
            f"texts, failed and the result must be equally long, got {len(texts)}, shape "
            f"{failed.shape} and {result.labels.size}; pass those the clusters were found in"
        )
    if most < 1:
        raise InvalidInputError(f"most must be at least 1, got {most}; pass {MOST_TEXTS}")


def _sample(labels: IntArray, clusters: int, most: int) -> IntArray:
    """Return the places of the texts to show, ascending.

    The texts come in the order of a hash of their content, so the first ones are a random sample.
    """
    if labels.size <= most:
        return np.arange(labels.size)
    outside = np.flatnonzero(labels < 0)
    room = max(most - outside.size, int(most * SHARE_OF_CLUSTERS))
    inside = np.flatnonzero(labels >= 0)
    if inside.size > room:
        sizes = np.bincount(labels[inside], minlength=clusters)
        shares = np.minimum(sizes, np.maximum(FEWEST_A_CLUSTER, sizes * room // inside.size))
        inside = np.concatenate(
            [np.flatnonzero(labels == index)[:share] for index, share in enumerate(shares)]
        )[:most]
    return np.sort(np.concatenate([inside, outside[: most - inside.size]]))


def _layout(vectors: Vectors, seed: int) -> NDArray[np.float64]:
    """Place vectors in two dimensions; equal ones, and those too few for t-SNE, by PCA."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(vectors)
    if count < 2:
        return np.zeros((count, 2))
    components = min(_DIMENSIONS, count, vectors.shape[1])
    with warnings.catch_warnings():
        # identical vectors: no variance, so no share of it that is explained
        warnings.simplefilter("ignore", RuntimeWarning)
        reduced = PCA(components, random_state=seed).fit_transform(vectors.astype(np.float64))
    flat = np.zeros((count, 2))
    flat[:, : min(2, components)] = reduced[:, :2]
    spread = float(flat[:, 0].std())
    if count < _FEW or not spread > 1e-9:
        return flat
    embedded = TSNE(
        perplexity=min(_PERPLEXITY, (count - 1) / 3),
        init=(1e-4 * flat / spread).astype(np.float32),
        learning_rate="auto",
        max_iter=_ITERATIONS,
        random_state=seed,
        n_jobs=1,  # the same map on any number of cores
    ).fit_transform(reduced)
    return np.asarray(embedded, dtype=np.float64)


def _framed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move and scale places into the unit square, both axes by the same factor, centred."""
    if not len(points):
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    reach = float((high - low).max())
    if not reach > 0.0:
        return np.full_like(points, 0.5)
    framed: NDArray[np.float64] = 0.5 + (points - (low + high) / 2) / reach
    return framed
