"""A hierarchy of unit vectors in near-linear time, and how many groups of it are real.

Vectors are cut into fine cells by spherical k-means, the cells are joined by Ward's method. How
many groups are real is told by a reference: the same is done to structureless vectors that have
the data's own covariance, and joins that cost much more in the data than there join two things.
Nothing here knows what failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Vectors = NDArray[np.float32]

MOST_CELLS = 2_048
VECTORS_A_CELL = 8
VECTORS_A_GROUP = 4
"""So many vectors a group there are at least, on average: finer joins are of single vectors."""
SMALL = 512
"""Up to so many vectors, each one is a cell."""
SAMPLE_A_CELL = 24
ROUNDS = 4
REFERENCE_SIZE = 8_192
REFERENCE_CELLS = 1_024
COSTLIER = 1.5
"""A join that costs half as much again as it would without structure joins two things."""
_BLOCK = 4_096


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Cells and the order in which they are joined.

    Attributes:
        cells: Cell of each vector, shape (m,).
        centres: Mean vector of each cell, shape (k, d).
        sizes: Vectors in each cell, shape (k,).
        joins: The two nodes that are joined, shape (k - 1, 2). Nodes below k are cells, node k + s
            is what the join s makes.
        heights: Increase of the mean squared distance to the centre by each join, ascending.
        groups: How many groups are real.
    """

    cells: IntArray
    centres: FloatArray
    sizes: IntArray
    joins: IntArray
    heights: FloatArray
    groups: int

    @property
    def nodes(self) -> int:
        """Number of nodes, the cells included."""
        return 2 * len(self.sizes) - 1

    def group_nodes(self, groups: int) -> IntArray:
        """Return the node that each cell lies in when `groups` are left, shape (k,)."""
        count = len(self.sizes)
        above = np.arange(self.nodes)
        for step in range(count - min(groups, count)):
            above[self.joins[step]] = count + step
        for node in range(self.nodes - 1, -1, -1):
            above[node] = above[above[node]]
        return above[:count]

    def nodes_of(self, fewest: int) -> IntArray:
        """Return the smallest node around each cell that holds `fewest` vectors, shape (k,)."""
        size = self.totals(self.sizes.astype(np.float64))
        above = np.arange(self.nodes)
        above[self.joins] = (len(self.sizes) + np.arange(len(self.joins)))[:, None]
        node = np.arange(len(self.sizes))
        while np.any(small := (size[node] < fewest) & (above[node] != node)):
            node[small] = above[node[small]]
        return node

    def totals(self, counts: FloatArray) -> FloatArray:
        """Add up what is counted a cell, shape (k, ...), to every node, shape (2k - 1, ...)."""
        count = len(self.sizes)
        totals = np.zeros((self.nodes, *counts.shape[1:]))
        totals[:count] = counts
        for step, (left, right) in enumerate(self.joins):
            totals[count + step] = totals[left] + totals[right]
        return totals


def build_hierarchy(vectors: Vectors, rng: np.random.Generator) -> Hierarchy:
    """Return the hierarchy of distinct unit vectors.

    Costs O(m) for m vectors beyond 50,000: the number of cells is bounded, and so is the sample
    that places them.

    Args:
        vectors: Distinct rows of length one, shape (m, d), m at least 1, in a random order that
            belongs to their content: the first ones are the first centres, and samples, so that a
            few new vectors change few of either.
        rng: Draws the reference.
    """
    cells, centres, sizes = cut_into_cells(vectors, MOST_CELLS)
    joins, heights = ward(centres, sizes)
    sample = vectors[:REFERENCE_SIZE]
    known = heights if len(sample) == len(vectors) else _costs(sample)
    groups = _real_groups(sample, known, rng)
    return Hierarchy(cells, centres, sizes, joins, heights, min(groups, len(sizes)))


def _real_groups(vectors: Vectors, heights: FloatArray, rng: np.random.Generator) -> int:
    """Count the groups whose join costs more than in structureless vectors (a gap statistic)."""
    if len(vectors) < 3:
        return 1
    expected = _costs(_structureless(vectors, rng))
    length = min(len(heights), len(expected), max(1, len(vectors) // VECTORS_A_GROUP))
    if not length:  # vectors that are nearly the same fill one cell
        return 1
    # from the last join backwards: place i is the cost of going from i + 2 groups to i + 1
    ratio = heights[::-1][:length] / np.maximum(expected[::-1][:length], 1e-12)
    real = np.flatnonzero(_running_median(ratio) >= COSTLIER)
    return int(real[-1]) + 2 if real.size else 1


def _costs(vectors: Vectors) -> FloatArray:
    _, centres, sizes = cut_into_cells(vectors, REFERENCE_CELLS)
    return ward(centres, sizes)[1]


def _structureless(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    """Draw normal vectors with the mean and covariance of the data, scaled to length one."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.cov(vectors, rowvar=False, bias=True).reshape(mean.size, mean.size)
    values, axes = np.linalg.eigh(covariance)
    spread = axes * np.sqrt(np.maximum(values, 0.0))
    drawn = mean + rng.standard_normal(vectors.shape) @ spread.T
    return unit_rows(drawn.astype(np.float32))


def _running_median(values: FloatArray, width: int = 3) -> FloatArray:
    padded = np.pad(values, width // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


# Cells --------------------------------------------------------------------------------------------


def cut_into_cells(vectors: Vectors, most: int) -> tuple[IntArray, FloatArray, IntArray]:
    """Cut unit vectors into fine cells by spherical k-means, at most `most` of them.

    Args:
        vectors: As in `build_hierarchy`.
        most: The largest number of cells; there is one for about each
            eight to eleven vectors, at least 512.

    Returns:
        Cells, centres and sizes, as in `Hierarchy`.
    """
    count = len(vectors)
    if count <= SMALL:
        return np.arange(count), vectors.astype(np.float64), np.ones(count, dtype=np.int64)
    wanted = min(most, _in_steps(count // VECTORS_A_CELL))
    sample, centres = vectors[: SAMPLE_A_CELL * wanted], vectors[:wanted]
    for _ in range(ROUNDS):
        centres = unit_rows(_means(sample, nearest(sample, centres)[0], len(centres), centres))
    found = nearest(vectors, centres)[0]
    used, cells = np.unique(found, return_inverse=True)
    sizes = np.bincount(cells)
    means = _means(vectors, cells, len(used), centres[used]).astype(np.float64)
    return cells.astype(np.int64), means, sizes.astype(np.int64)


def _in_steps(cells: int) -> int:
    """Round down to 512, 724, 1024, 1448, ...: some more vectors seldom change the number."""
    steps = math.floor(2.0 * math.log2(max(cells, SMALL) / SMALL) + 1e-9)
    return int(SMALL * 2.0 ** (steps / 2.0))


def nearest(vectors: Vectors, centres: Vectors) -> tuple[IntArray, Vectors]:
    """Return the most similar centre of each vector, and the inner product with it."""
    best = np.empty(len(vectors), dtype=np.int64)
    closeness = np.empty(len(vectors), dtype=np.float32)
    turned = np.ascontiguousarray(centres.T)
    for rows in blocks(len(vectors)):
        products = vectors[rows] @ turned
        best[rows] = products.argmax(axis=1)
        closeness[rows] = np.take_along_axis(products, best[rows][:, None], axis=1)[:, 0]
    return best, closeness


def blocks(count: int) -> Iterator[slice]:
    """Yield slices that cover `count` rows, so that no n x k matrix is ever whole in memory."""
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def _means(vectors: Vectors, groups: IntArray, count: int, empty: Vectors) -> Vectors:
    """Return the mean vector of each group, that of `empty` where a group has no member."""
    sums, sizes = group_sums(vectors, groups, count)
    means = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], empty)
    return means.astype(np.float32)


def group_sums(vectors: Vectors, groups: IntArray, count: int) -> tuple[FloatArray, IntArray]:
    """Return the sum of the vectors of each group, shape (count, d), and the groups' sizes."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    used = np.flatnonzero(sizes)
    sums = np.zeros((count, vectors.shape[1]))
    if used.size:
        sums[used] = np.add.reduceat(vectors[order], starts[used], axis=0)
    return sums, sizes


def unit_rows(vectors: NDArray[np.floating]) -> Vectors:
    """Scale each row to length one; a row of zeros stays as it is."""
    norms = row_norms(vectors)[:, None]
    unit: Vectors = np.divide(vectors, np.where(norms > 0.0, norms, 1.0)).astype(
        np.float32, copy=False
    )
    return unit


def row_norms(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the length of each row, without a matrix of squares on the way."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))


# Ward's method ------------------------------------------------------------------------------------


def ward(centres: FloatArray, sizes: IntArray) -> tuple[IntArray, FloatArray]:
    """Join centres of weighted cells by Ward's method, always the pair that costs least.

    The cost of a join is the increase of the sum of squared distances to the centre, n1 n2 /
    (n1 + n2) |c1 - c2|^2, updated by Lance's and Williams' formula; here over the number of
    vectors. O(k^2) time and memory for k cells.

    Returns:
        Joins and their costs, as in `Hierarchy`.

    References:
        Ward, J. H. (1963). Hierarchical grouping to optimize an objective function. JASA 58,
        236-244.
    """
    count = len(sizes)
    weights = sizes.astype(np.float64)
    costs = _first_costs(centres, weights)
    names = np.arange(count)
    alive = np.ones(count, dtype=np.bool_)
    partner = costs.argmin(axis=1)
    least = costs[np.arange(count), partner]
    joins = np.zeros((count - 1, 2), dtype=np.int64)
    heights = np.zeros(count - 1)
    for step in range(count - 1):
        left = int(least.argmin())
        right, height = int(partner[left]), least[left]
        joins[step], heights[step] = (names[left], names[right]), height
        both = weights[left] + weights[right]
        new = (weights[left] + weights) * costs[left] + (weights[right] + weights) * costs[right]
        new = (new - weights * height) / (both + weights)
        alive[right] = False
        new[~alive] = new[left] = np.inf
        costs[left] = costs[:, left] = new
        costs[right] = costs[:, right] = np.inf
        weights[left], names[left], least[right] = both, count + step, np.inf
        partner[left] = new.argmin()
        least[left] = new[partner[left]]
        stale = np.flatnonzero(alive & ((partner == left) | (partner == right)))
        stale = stale[stale != left]
        partner[stale] = costs[stale].argmin(axis=1)
        least[stale] = costs[stale, partner[stale]]
        closer = alive & (new < least)
        closer[left] = False
        partner[closer], least[closer] = left, new[closer]
    return joins, heights / max(float(sizes.sum()), 1.0)


def _first_costs(centres: FloatArray, weights: FloatArray) -> FloatArray:
    squares = (centres**2).sum(axis=1)
    costs = squares[:, None] + squares[None, :] - 2.0 * (centres @ centres.T)
    np.maximum(costs, 0.0, out=costs)
    costs *= weights[:, None] * weights[None, :] / (weights[:, None] + weights[None, :])
    np.fill_diagonal(costs, np.inf)
    return np.asarray(costs, dtype=np.float64)
