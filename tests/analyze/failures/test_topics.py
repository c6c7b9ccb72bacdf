"""Groups of all texts, and their stability."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ratchet.analyze.failures.hierarchy import unit_rows
from ratchet.analyze.failures.stability import measure_stability
from ratchet.analyze.failures.topics import cluster_texts

WORDS = ("parcel", "invoice", "password", "weather")


def topics(rng, size, *, spread=0.4):
    truth = rng.integers(0, 4, size)
    noise = spread * rng.normal(size=(size, 40)) / np.sqrt(40)
    texts = [f"my {WORDS[i]} number {n}" for n, i in enumerate(truth)]
    return texts, np.eye(40)[truth] + noise, truth


@pytest.mark.parametrize("size", [100, 3_000])
def test_topics_are_found_named_and_largest_first(size):
    texts, vectors, truth = topics(np.random.default_rng(size), size)
    result = cluster_texts(texts, embeddings=vectors, rng=np.random.default_rng(0))
    placed = result.labels >= 0
    assert placed.mean() > 0.95
    assert adjusted_rand_score(truth[placed], result.labels[placed]) == 1.0
    assert sorted(name.split(",")[0] for name in result.names) == sorted(WORDS)
    assert result.sizes.tolist() == sorted(np.bincount(result.labels[placed]), reverse=True)
    assert result.centres.shape == (4, 40)


def test_what_lies_far_from_every_group_and_what_says_nothing_is_noise():
    rng = np.random.default_rng(3)
    texts, vectors, _ = topics(rng, 500)
    vectors[:5] = rng.normal(size=(5, 40))
    texts[5] = "  "
    result = cluster_texts(texts, embeddings=vectors, names=False, rng=rng)
    assert (result.labels[:6] == -1).all()
    assert result.names == ()


def test_rows_in_another_order_get_the_same_labels():
    texts, vectors, _ = topics(np.random.default_rng(5), 700)
    order = np.random.default_rng(6).permutation(700)
    one = cluster_texts(texts, embeddings=vectors, rng=np.random.default_rng(0))
    other = cluster_texts(
        [texts[i] for i in order], embeddings=vectors[order], rng=np.random.default_rng(0)
    )
    assert one.labels[order].tolist() == other.labels.tolist()
    assert one.names == other.names


def test_no_texts_and_blank_texts_give_no_groups():
    for texts in ([], ["", " "]):
        result = cluster_texts(texts, rng=np.random.default_rng(0))
        assert result.labels.tolist() == [-1] * len(texts)
        assert result.sizes.size == 0


def test_a_group_that_lies_apart_is_stable_and_a_piece_of_a_cloud_is_not():
    rng = np.random.default_rng(7)
    cloud = rng.normal(size=(800, 40))
    apart = 3 * np.eye(40)[0] + 0.2 * rng.normal(size=(100, 40))
    vectors = unit_rows(np.concatenate([cloud, apart]))
    labels = np.full(900, -1)
    labels[800:] = 0
    labels[:100] = 1  # any hundred of the cloud
    labels[100] = 2
    stability = measure_stability(vectors, labels, 3, np.random.default_rng(0))
    assert stability[0] > 0.9
    assert stability[1] < 0.4
    assert stability[2] is None
