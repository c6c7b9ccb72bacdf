"""The map of texts, on vectors whose groups are known."""

import time

import numpy as np
import pytest

from ratchet.analyze.failures import FailureClusters, find_failure_clusters
from ratchet.analyze.failures.hierarchy import unit_rows
from ratchet.analyze.failures.projection import (
    MOST_TEXTS,
    Projection,
    _sample,
    project,
    rows_in_clusters,
)
from ratchet.errors import InvalidInputError


def rng(seed=0):
    return np.random.default_rng(seed)


def nothing(count):
    return FailureClusters(clusters=(), labels=np.full(count, -1), reason="none")


def planted(groups, each, dimensions=24, spread=0.35, seed=1):
    """Return texts, vectors and the group of each: the first group fails at 70 %, others at 3 %."""
    draw = rng(seed)
    centres = unit_rows(draw.standard_normal((groups, dimensions)))
    group = np.repeat(np.arange(groups), each)
    noise = spread * unit_rows(draw.standard_normal((len(group), dimensions)))
    failed = draw.random(len(group)) < np.where(group == 0, 0.7, 0.03)
    texts = [f"message {i} of group {g}" for i, g in enumerate(group)]
    return texts, unit_rows(centres[group] + noise), group, failed


def laid_out(texts, vectors, failed, **options) -> Projection:
    found = find_failure_clusters(texts, failed, embeddings=vectors, rng=rng())
    return project(found, texts, failed, vectors, rng=rng(), **options)


def test_texts_that_are_alike_lie_near_each_other():
    texts, vectors, group, failed = planted(6, 40)
    placed = laid_out(texts, vectors, failed)
    distances = np.linalg.norm(placed.xy[:, None] - placed.xy[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = placed.rows[distances.argmin(axis=1)]
    assert (group[nearest] == group[placed.rows]).mean() > 0.95


def test_every_point_says_which_cluster_it_is_in_and_whether_it_failed():
    texts, vectors, group, failed = planted(6, 40)
    placed = laid_out(texts, vectors, failed)
    assert sorted(placed.rows) == list(range(240))
    assert np.array_equal(placed.failed, failed[placed.rows])
    in_cluster = placed.labels == 0
    assert (group[placed.rows[in_cluster]] == 0).mean() > 0.9
    assert (~placed.failed[in_cluster]).any(), "a cluster's texts that did not fail belong to it"
    assert set(placed.labels) == {-1, 0}


def test_the_same_seed_gives_the_same_map_and_the_order_of_rows_does_not_matter():
    texts, vectors, _, failed = planted(5, 30)
    first = laid_out(texts, vectors, failed)
    assert np.array_equal(first.xy, laid_out(texts, vectors, failed).xy)
    turned = np.arange(len(texts))[::-1]
    found = find_failure_clusters(
        [texts[i] for i in turned], failed[turned], embeddings=vectors[turned], rng=rng()
    )
    other = project(found, [texts[i] for i in turned], failed[turned], vectors[turned], rng=rng())
    assert np.array_equal(turned[other.rows], first.rows)
    assert np.array_equal(first.xy, other.xy)


def test_a_text_that_came_often_is_one_point_with_its_counts():
    texts, vectors, _, failed = planted(3, 12)
    many = [*texts, *[texts[5]] * 4]
    failed = np.array([*failed, True, False, False, True])
    failed[5] = False
    placed = project(
        nothing(len(many)), many, failed, np.vstack([vectors, vectors[[5] * 4]]), rng=rng()
    )
    (point,) = np.flatnonzero([many[row] == texts[5] for row in placed.rows])
    assert placed.texts == len(placed.rows) == len(texts)
    assert (placed.seen[point], placed.failures[point], placed.failed[point]) == (5, 2, True)
    assert failed[placed.rows[point]], "the row that stands for it is one that failed"


def test_a_sample_keeps_clusters_and_shows_the_rest_fairly():
    texts, vectors, group, failed = planted(20, 60)
    placed = laid_out(texts, vectors, failed, most=300)
    assert len(placed.rows) == 300
    assert placed.texts == 1_200
    assert (placed.labels == 0).sum() >= 50, "all of the one cluster, which is small, is shown"
    rest = np.bincount(group[placed.rows[placed.labels < 0]], minlength=20)[1:]
    # 240 of 1,140 drawn: 12.6 a group on average, hypergeometric standard deviation 3.0
    assert rest.min() >= 12.6 - 4 * 3.0
    assert rest.max() <= 12.6 + 4 * 3.0


def test_no_cluster_is_crowded_out_by_a_large_one():
    labels = np.repeat([0, 1, -1], [5_000, 40, 5_000])
    shown = labels[_sample(labels, 2, 600)]
    assert len(shown) == 600
    assert (shown == 1).sum() >= 25
    assert (shown == -1).sum() >= 170


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 9])
def test_few_texts_are_laid_out_too(count):
    vectors = unit_rows(rng(3).standard_normal((count, 6)))
    texts = [f"text {i}" for i in range(count)]
    placed = project(nothing(count), texts, np.ones(count, dtype=bool), vectors, rng=rng())
    assert placed.xy.shape == (count, 2)
    assert np.isfinite(placed.xy).all()
    assert ((placed.xy >= -1e-9) & (placed.xy <= 1 + 1e-9)).all()
    assert len(np.unique(placed.xy, axis=0)) == count


@pytest.mark.parametrize("count", [2, 40])
def test_identical_vectors_lie_in_one_place(count):
    texts = [f"text {i}" for i in range(count)]
    placed = project(
        nothing(count), texts, np.zeros(count, dtype=bool), np.ones((count, 5)), rng=rng()
    )
    assert np.allclose(placed.xy, 0.5)


def test_many_identical_vectors_beside_others_do_no_harm():
    vectors = np.vstack([np.tile(np.eye(1, 8), (200, 1)), rng(5).standard_normal((30, 8))])
    texts = [f"text {i}" for i in range(230)]
    placed = project(nothing(230), texts, np.zeros(230, dtype=bool), vectors, rng=rng())
    assert np.isfinite(placed.xy).all()


def test_texts_that_say_nothing_are_not_on_the_map():
    texts = ["", "  ", "one", "two", "three"]
    vectors = np.vstack([np.zeros((3, 4)), np.eye(2, 4)])
    placed = project(nothing(5), texts, np.ones(5, dtype=bool), vectors, rng=rng())
    assert sorted(placed.rows) == [3, 4]
    empty = project(nothing(2), ["", " "], np.ones(2, dtype=bool), np.zeros((2, 4)), rng=rng())
    assert empty.xy.shape == (0, 2)


def test_without_vectors_words_decide():
    texts = [f"refund please number{i}" for i in range(12)] + [f"lost card {i}x" for i in range(12)]
    placed = project(nothing(24), texts, np.zeros(24, dtype=bool), rng=rng())
    about = np.array([texts[row].startswith("refund") for row in placed.rows])
    gap = np.linalg.norm(placed.xy[about].mean(axis=0) - placed.xy[~about].mean(axis=0))
    assert gap > 0.3


def test_rows_of_a_cluster_are_labelled_failed_or_not():
    texts, vectors, _, failed = planted(6, 40)
    found = find_failure_clusters(texts, failed, embeddings=vectors, rng=rng())
    labels = rows_in_clusters(found)
    assert np.array_equal(np.flatnonzero(labels == 0), found.clusters[0].rows)
    assert np.array_equal(np.where(failed, labels, -1), found.labels)


@pytest.mark.parametrize(
    ("failed", "result", "most", "message"),
    [
        ([True], nothing(2), MOST_TEXTS, "must be equally long, got 2, shape \\(1,\\) and 2"),
        ([True, False], nothing(3), MOST_TEXTS, "and 3"),
        ([True, False], nothing(2), 0, "most must be at least 1, got 0"),
    ],
)
def test_input_that_does_not_fit_is_refused(failed, result, most, message):
    with pytest.raises(InvalidInputError, match=message):
        project(result, ["a", "b"], np.array(failed), rng=rng(), most=most)


@pytest.mark.slow
def test_the_largest_map_takes_seconds():
    texts, vectors, _, failed = planted(60, 1_000, dimensions=384)
    began = time.process_time()
    placed = project(nothing(len(texts)), texts, failed, vectors, rng=rng())
    assert len(placed.rows) == MOST_TEXTS
    assert time.process_time() - began < 20.0, "5 s on one core of the build machine"
