"""The hierarchy: Ward's method against scipy, planted groups, no structure, cost."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from ratchet.analyze.failures.hierarchy import (
    Hierarchy,
    build_hierarchy,
    cut_into_cells,
    group_sums,
    nearest,
    unit_rows,
    ward,
)


def blobs(rng, groups, size, dimensions=50, spread=0.5):
    centres = rng.standard_normal((groups, dimensions))
    truth = rng.integers(0, groups, size)
    noise = spread * rng.standard_normal((size, dimensions))
    return unit_rows(centres[truth] + noise), truth


def structureless(rng, size, dimensions=60):
    scale = np.exp(-np.arange(dimensions) / 15)
    return unit_rows(rng.standard_normal((size, dimensions)) * scale)


def test_joins_and_heights_are_those_of_scipy():
    points = np.random.default_rng(0).standard_normal((60, 5))
    _, heights = ward(points, np.ones(60, dtype=np.int64))
    # scipy's distance is the square root of twice the cost; ours is over the number of vectors
    assert np.sqrt(2 * 60 * heights) == pytest.approx(linkage(points, "ward")[:, 2])


@pytest.mark.parametrize("groups", [1, 2, 7, 30])
def test_a_cut_is_that_of_scipy(groups):
    points = np.random.default_rng(1).standard_normal((40, 5))
    joins, heights = ward(points, np.ones(40, dtype=np.int64))
    ours = Hierarchy(np.arange(40), points, np.ones(40), joins, heights, 1).group_nodes(groups)
    theirs = fcluster(linkage(points, "ward"), groups, "maxclust")
    assert adjusted_rand_score(ours, theirs) == 1.0


def test_a_weighted_cell_counts_as_so_many_points():
    rng = np.random.default_rng(2)
    points = rng.standard_normal((12, 3))
    sizes = rng.integers(1, 5, 12)
    _, apart = ward(np.repeat(points, sizes, axis=0), np.ones(sizes.sum(), dtype=np.int64))
    _, together = ward(points, sizes)
    assert apart[-11:] == pytest.approx(together)
    assert apart[:-11] == pytest.approx(0.0, abs=1e-12)


def test_totals_add_up_what_lies_below_each_node():
    points = np.random.default_rng(3).standard_normal((9, 2))
    joins, heights = ward(points, np.ones(9, dtype=np.int64))
    tree = Hierarchy(np.arange(9), points, np.ones(9), joins, heights, 1)
    below = tree.totals(np.eye(9))
    counts = np.arange(9.0)
    assert tree.totals(counts) == pytest.approx(below @ counts)
    assert below[-1].tolist() == [1.0] * 9


@pytest.mark.parametrize("size", [120, 400, 3_000])
@pytest.mark.parametrize("groups", [2, 6])
def test_the_number_of_planted_groups_is_found(size, groups):
    rng = np.random.default_rng(size)
    vectors, truth = blobs(rng, groups, size)
    tree = build_hierarchy(vectors, rng)
    assert tree.groups == groups
    assert adjusted_rand_score(truth, tree.group_nodes(groups)[tree.cells]) > 0.99


@pytest.mark.parametrize("size", [50, 400, 2_000])
def test_without_structure_there_is_one_group(size):
    rng = np.random.default_rng(size)
    found = [build_hierarchy(structureless(rng, size), rng).groups for _ in range(10)]
    assert found == [1] * 10


def test_one_two_and_three_vectors_are_no_problem():
    for size in (1, 2, 3):
        tree = build_hierarchy(np.eye(3, dtype=np.float32)[:size], np.random.default_rng(0))
        assert tree.nodes == 2 * size - 1
        assert tree.group_nodes(1).tolist() == [tree.nodes - 1] * size


@pytest.mark.parametrize("size", [3, 20, 700])
def test_vectors_that_are_nearly_the_same_are_one_group(size):
    rng = np.random.default_rng(1)
    vectors = unit_rows((1.0 + 1e-8 * rng.standard_normal((size, 8))).astype(np.float32))
    found = build_hierarchy(vectors, rng)
    assert found.groups == 1
    assert found.sizes.sum() == size


def test_cells_hold_every_vector_and_their_own_means():
    vectors = structureless(np.random.default_rng(5), 6_000)
    cells, centres, sizes = cut_into_cells(vectors, 2_048)
    assert 500 < len(sizes) <= 724
    assert sizes.sum() == 6_000
    for cell in (0, 17, len(sizes) - 1):
        assert vectors[cells == cell].mean(axis=0) == pytest.approx(centres[cell], abs=1e-5)


def test_a_few_more_vectors_leave_the_number_of_cells_as_it_is():
    vectors = structureless(np.random.default_rng(6), 6_120)
    before, after = (len(cut_into_cells(v, 2_048)[2]) for v in (vectors[:6_000], vectors))
    assert abs(after - before) <= 5


def test_the_nearest_centre_is_that_of_the_whole_matrix():
    rng = np.random.default_rng(7)
    vectors, centres = structureless(rng, 9_000), structureless(rng, 20)
    best, closeness = nearest(vectors, centres)
    products = vectors @ centres.T
    assert best.tolist() == products.argmax(axis=1).tolist()
    assert closeness == pytest.approx(products.max(axis=1), abs=1e-6)


def test_sums_of_groups_with_and_without_members():
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    sums, sizes = group_sums(vectors, np.array([2, 0, 2, 0, 2, 2]), 4)
    assert sizes.tolist() == [2, 0, 4, 0]
    assert sums.tolist() == [[8, 10], [0, 0], [22, 26], [0, 0]]
