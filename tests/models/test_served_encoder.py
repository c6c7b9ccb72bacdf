"""A served encoder: its vectors, what is cut, and what is said when it does not answer."""

from typing import Any

import numpy as np
import pytest

from ratchet.analyze.failures.analysis import load_encoder
from ratchet.analyze.failures.embedding import embed
from ratchet.errors import ModelError
from ratchet.executors import Processes
from ratchet.models import ServedEncoder, served_encoder
from tests.servers.embedding_server import EmbeddingServer, serving, vector_of

TEXTS = [f"where is card {number}?" for number in range(70)]


def unit(text: str) -> np.ndarray:
    vector = vector_of(text)
    return vector / np.linalg.norm(vector)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_encoder.time, "sleep", lambda seconds: None)


def test_vectors_are_those_of_the_server_in_order_and_of_length_one() -> None:
    with serving(EmbeddingServer()) as server:
        encoder = load_encoder(server.url)
        assert encoder is not None
        vectors = encoder.encode(TEXTS)
        assert (vectors.dtype, vectors.shape, encoder.dimensions) == (np.float32, (70, 8), 8)
        assert np.allclose(vectors, [unit(text) for text in TEXTS], atol=1e-6)
        assert encoder.encode([]).shape == (0, 8)
        again = ServedEncoder.connect(f"{server.url}/v1#{server.model}")
        assert again.digest == encoder.digest
    assert sorted(map(len, server.inputs[1:4])) == [6, 32, 32]


def test_workers_ask_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.analyze.failures.embedding.CHUNK", 20)
    with serving(EmbeddingServer()) as server:
        encoder = ServedEncoder.connect(server.url)
        here = embed(TEXTS, encoder)
        assert (embed(TEXTS, encoder, executor=Processes(2)) == here).all()


def test_its_digest_tells_models_revisions_and_dimensions_apart() -> None:
    digests = []
    for change in ({}, {"model": "other"}, {"info": {"model_sha": "abc"}}, {"dimensions": 4}):
        with serving(EmbeddingServer(**change)) as server:
            digests.append(ServedEncoder.connect(server.url).digest)
    assert len(set(digests)) == 4


def test_a_batch_is_halved_and_a_text_cut_until_the_server_takes_it() -> None:
    long = "card " * 1_000
    with serving(EmbeddingServer(batch=5, longest=700)) as server:
        vectors = ServedEncoder.connect(server.url).encode([*TEXTS[:9], long, ""])
    assert np.allclose(vectors[:9], [unit(text) for text in TEXTS[:9]], atol=1e-6)
    assert np.allclose(vectors[9], unit(long[:625]), atol=1e-6)
    assert np.allclose(vectors[10], unit(" "), atol=1e-6)


def test_what_passes_is_tried_again() -> None:
    with serving(EmbeddingServer()) as server:
        encoder = ServedEncoder.connect(server.url)
        server.statuses += [503, 429, 500]
        assert np.allclose(encoder.encode(TEXTS[:1]), [unit(TEXTS[0])], atol=1e-6)
        server.statuses += [503] * 5
        with pytest.raises(ModelError, match=r"must answer, got HTTP 503: .*busy"):
            encoder.encode(TEXTS[:1])


def test_a_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(EmbeddingServer(key="sk-right")) as server:
        monkeypatch.setenv("RATCHET_EMBEDDING_KEY", "sk-right")
        assert ServedEncoder.connect(server.url).dimensions == 8
        monkeypatch.setenv("RATCHET_EMBEDDING_KEY", "sk-wrong")
        with pytest.raises(ModelError, match=r"HTTP 401.*set RATCHET_EMBEDDING_KEY") as caught:
            ServedEncoder.connect(server.url)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lists": False}, "must be named, got 0 models .*add #MODEL"),
        ({"reply": {"data": []}}, "one vector of numbers a text"),
        ({"reply": {"data": [{"index": 0, "embedding": "AAAA"}]}}, "one vector of numbers a text"),
        ({"reply": {"data": [{"index": 0, "embedding": [0.0, 0.0]}]}}, "one vector of numbers"),
        ({"reply": {"data": [{"index": 1, "embedding": [1.0, 0.0]}]}}, "one vector of numbers"),
        ({"reply": {"choices": []}}, "one vector of numbers a text"),
    ],
)
def test_what_is_no_encoder_is_refused(change: dict[str, Any], said: str) -> None:
    with serving(EmbeddingServer(**change)) as server, pytest.raises(ModelError, match=said):
        ServedEncoder.connect(server.url)


def test_a_model_that_is_not_there_a_server_that_is_gone_and_other_dimensions() -> None:
    with serving(EmbeddingServer()) as server:
        with pytest.raises(ModelError, match=r"HTTP 404: .*does not exist.*see the model's name"):
            ServedEncoder.connect(f"{server.url}#other")
        encoder = ServedEncoder.connect(server.url)
        server.dimensions = 4
        with pytest.raises(ModelError, match=r"must keep to its dimensions, got 4 .* after 8"):
            encoder.encode(TEXTS)
    with pytest.raises(ModelError, match=r"must answer at .* got ConnectError 5 times"):
        encoder.encode(TEXTS)
