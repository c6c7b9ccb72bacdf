"""Would half the texts give the same clusters?"""

from __future__ import annotations

import numpy as np

from ratchet.analyze.failures.hierarchy import (
    REFERENCE_CELLS,
    FloatArray,
    Hierarchy,
    IntArray,
    Vectors,
    cut_into_cells,
    ward,
)

HALVES = 8
MOST = 4_096
FEWEST = 5
"""Fewer distinct texts of a cluster in a half tell nothing about it."""


def measure_stability(
    vectors: Vectors, labels: IntArray, clusters: int, rng: np.random.Generator
) -> list[float | None]:
    """Return how well each cluster comes back when only half of the texts are there.

    Random halves (at most 4,096 vectors each) are put into a hierarchy of their own. The stability
    of a cluster is its mean overlap, intersection over union, with the node of that hierarchy that
    overlaps most.

    Units: in [0, 1]; Hennig calls 0.75 and more a stable cluster, and below 0.6 one not to trust.
    Assumptions: the vectors are distinct.
    Error rate: none; it measures how texts lie, not what failed. The best of all nodes is taken, so
    that a group picked at random does not come near 0.
    When not to use: as the chance that a cluster is real; that is the p-value's matter.

    Args:
        vectors: Distinct unit vectors, shape (m, d).
        labels: Cluster of each, -1 for none, shape (m,).
        clusters: Their number.
        rng: Draws the halves.

    Returns:
        A value a cluster; None where no half has five vectors of it.

    References:
        Hennig, C. (2007). Cluster-wise assessment of cluster stability. Computational Statistics
        and Data Analysis 52, 258-271.
    """
    overlaps: list[list[float]] = [[] for _ in range(clusters)]
    size = min(len(vectors) // 2, MOST)
    for _ in range(HALVES if size >= FEWEST else 0):
        half = np.sort(rng.permutation(len(vectors))[:size])
        best, seen = _best_overlaps(vectors[half], labels[half], clusters)
        for index in np.flatnonzero(seen >= FEWEST):
            overlaps[index].append(float(best[index]))
    return [float(np.mean(values)) if values else None for values in overlaps]


def _best_overlaps(
    vectors: Vectors, labels: IntArray, clusters: int
) -> tuple[FloatArray, FloatArray]:
    cells, centres, sizes = cut_into_cells(vectors, REFERENCE_CELLS)
    joins, heights = ward(centres, sizes)
    hierarchy = Hierarchy(cells, centres, sizes, joins, heights, groups=1)
    placed = labels >= 0
    inside = np.zeros((len(sizes), clusters))
    np.add.at(inside, (cells[placed], labels[placed]), 1.0)
    shared = hierarchy.totals(inside)
    in_node, in_cluster = hierarchy.totals(sizes.astype(np.float64)), inside.sum(axis=0)
    overlap = shared / (in_node[:, None] + in_cluster[None, :] - shared)
    return overlap.max(axis=0), in_cluster
