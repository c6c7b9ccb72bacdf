"""Texts as vectors: by a sentence-embedding model, each text once, or by their words.

encoder = SentenceEncoder.load(MINILM)
vectors = embed(texts, encoder, cache=store)     # what the store has is not embedded again
vectors = word_vectors(texts, rng=rng)           # no model
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.words import cut_for_words, word_analyzer
from ratchet.models import Encoder

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]

CHUNK = 512
"""Texts that are embedded and kept at a time: so much is lost when a run is stopped."""
_DIMENSIONS = 50
_VOCABULARY = 20_000
_SECONDS_BETWEEN_REPORTS = 10.0


class VectorCache(Protocol):
    """Where vectors are kept; `ratchet.store.EventStore` is one."""

    def vectors(self, model_digest: str, keys: Sequence[str]) -> Mapping[str, Vectors]:
        """Return those of the vectors that are kept, by key."""
        ...

    def add_vectors(self, model_digest: str, vectors: Mapping[str, Vectors]) -> None:
        """Keep vectors; one that is there already stands."""
        ...


def text_key(text: str) -> str:
    """Return the key that a text's vector is kept under: 32 hex digits of its content."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def embed(
    texts: Sequence[str],
    encoder: Encoder,
    *,
    cache: VectorCache | None = None,
    progress: Progress | None = None,
) -> Vectors:
    """Return a unit vector a text; equal texts are embedded once, known ones not at all.

    Vectors are kept chunk by chunk: a run that is stopped goes on where it was. They are rounded
    to half precision, as they are kept, so that a second run sees the very same ones.

    Args:
        texts: Shape (n,).
        encoder: Makes vectors.
        cache: Holds vectors by content and by the encoder's digest.
        progress: Called with the number of distinct texts that are done, and of all of them;
            without it, a line is logged every ten seconds.

    Returns:
        Shape (n, d).

    Raises:
        ModelError: The encoder cannot embed.
    """
    keys = [text_key(text) for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    known = dict(cache.vectors(encoder.digest, list(distinct))) if cache else {}
    # long texts last and together, so that little is padded
    missing = sorted(distinct.keys() - known.keys(), key=lambda key: (len(distinct[key]), key))
    report = progress or _log_progress(len(missing))
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        vectors = encoder.encode([distinct[key] for key in chunk])
        fresh = {key: _rounded(vector) for key, vector in zip(chunk, vectors, strict=True)}
        if cache:
            cache.add_vectors(encoder.digest, fresh)
        known |= fresh
        report(len(distinct) - len(missing) + start + len(chunk), len(distinct))
    if not keys:
        return np.zeros((0, encoder.dimensions), dtype=np.float32)
    return np.stack([known[key] for key in keys]).astype(np.float32)


def _rounded(vector: Vectors) -> Vectors:
    return vector.astype(np.float16).astype(np.float32)


def _log_progress(missing: int) -> Progress:
    began = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_REPORTS:
            last, left = now, total - done
            pace = (missing - left) / (now - began)
            logger.info("embedded %d of %d texts, about %.0f s left", done, total, left / pace)

    return report


def word_vectors(texts: Sequence[str], *, rng: np.random.Generator) -> Vectors:
    """Return TF-IDF vectors of words and word pairs, reduced to at most 50 dimensions by SVD.

    A text without words has a vector of zeros.

    Args:
        texts: Distinct texts, shape (n,).
        rng: Source of the seed of the SVD.

    Returns:
        Shape (n, d).
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyze = word_analyzer()
    vectorizer = TfidfVectorizer(analyzer=analyze, sublinear_tf=True, max_features=_VOCABULARY)
    try:
        matrix: Any = vectorizer.fit_transform([cut_for_words(text) for text in texts])
    except ValueError:  # scikit-learn's way to say that no text has a word
        return np.zeros((len(texts), 1), dtype=np.float32)
    if matrix.shape[1] <= _DIMENSIONS:
        return np.asarray(matrix.toarray(), dtype=np.float32)
    components = max(1, min(_DIMENSIONS, matrix.shape[0] - 1))
    reduction = TruncatedSVD(n_components=components, random_state=int(rng.integers(2**31)))
    return np.asarray(reduction.fit_transform(matrix), dtype=np.float32)
