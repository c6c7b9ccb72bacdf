"""Texts as vectors: by a sentence-embedding model, each text once, or by their words.

encoder = SentenceEncoder.load(MINILM)
vectors = embed(texts, encoder, cache=store)     # what the store has is not embedded again
vectors = word_vectors(texts, rng=rng)           # no model
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.tokens import term_analyzer
from ratchet.analyze.failures.words import (
    LONGEST_FOR_WORDS,
    cut_for_words,
)
from ratchet.executors import INLINE, Executor
from ratchet.models import Encoder
from ratchet.store.vectors import text_key

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]

CHUNK = 512
"""Texts that are embedded and kept at a time: so much is lost when a run is stopped."""
_LOOKED_UP = 10_000
_DIMENSIONS = 50
_VOCABULARY = 20_000
_STEADY_SEED = 0
_FITTED_ON = 50_000
_CHARACTERS_FITTED_ON = 10_000_000
_SECONDS_BETWEEN_REPORTS = 10.0


class VectorCache(Protocol):
    """Where vectors are kept; `ratchet.store.EventStore` is one."""

    def vectors(self, model_digest: str, keys: Sequence[str]) -> Mapping[str, Vectors]:
        """Return those of the vectors that are kept, by key."""
        ...

    def add_vectors(self, model_digest: str, vectors: Mapping[str, Vectors]) -> None:
        """Keep vectors; one that is there already stands."""
        ...


def embed(
    texts: Sequence[str],
    encoder: Encoder,
    *,
    cache: VectorCache | None = None,
    progress: Progress | None = None,
    executor: Executor = INLINE,
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
        executor: Runs the encoder; each of its workers loads it once.

    Returns:
        Shape (n, d).

    Raises:
        ModelError: The encoder cannot embed.
    """
    row_of: dict[str, int] = {}
    place = np.array([row_of.setdefault(text, len(row_of)) for text in texts], dtype=np.int64)
    distinct = list(row_of)
    keys = [text_key(text) for text in distinct]
    vectors = np.empty((len(distinct), encoder.dimensions), dtype=np.float32)
    missing = _fill(vectors, keys, encoder.digest, cache)
    # long texts last and together, so that little is padded
    missing.sort(key=lambda row: (len(distinct[row]), keys[row]))
    report = progress or _log_progress(len(missing))
    shards = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    done = len(distinct) - len(missing)
    shown = [[distinct[row] for row in chunk] for chunk in shards]
    for number, made in executor.run(encoder.encode, shown):
        chunk = shards[number]
        vectors[chunk] = made.astype(np.float16)
        if cache is not None:
            fresh = {keys[row]: vectors[row] for row in chunk}
            cache.add_vectors(encoder.digest, fresh)
        done += len(chunk)
        report(done, len(distinct))
    return vectors if len(distinct) == len(texts) else vectors[place]


def _fill(
    vectors: Vectors, keys: Sequence[str], model_digest: str, cache: VectorCache | None
) -> list[int]:
    """Write the vectors that the cache holds into place, and return the rows of the others."""
    if cache is None:
        return list(range(len(keys)))
    missing = []
    for start in range(0, len(keys), _LOOKED_UP):
        asked = keys[start : start + _LOOKED_UP]
        known = cache.vectors(model_digest, asked)
        for row, key in enumerate(asked, start=start):
            if key in known:
                vectors[row] = known[key]
            else:
                missing.append(row)
    return missing


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


def steady_vectors(texts: Sequence[str]) -> Vectors:
    """Return `word_vectors` by a fixed seed: the same for the same texts in any run."""
    return word_vectors(texts, rng=np.random.default_rng(_STEADY_SEED))


def word_vectors(texts: Sequence[str], *, rng: np.random.Generator) -> Vectors:
    """Return TF-IDF vectors of words and word pairs, reduced to at most 50 dimensions by SVD.

    A text without words has a vector of zeros. Vocabulary and dimensions are those of at most
    50,000 texts or ten million characters, chosen by a hash, so that memory is bounded.

    Args:
        texts: Distinct texts, shape (n,).
        rng: Source of the seed of the SVD.

    Returns:
        Shape (n, d).
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyze = term_analyzer()
    vectorizer = TfidfVectorizer(analyzer=analyze, sublinear_tf=True, max_features=_VOCABULARY)
    try:
        matrix: Any = vectorizer.fit_transform(_some(texts))
    except ValueError:  # scikit-learn's way to say that no text has a word
        return np.zeros((len(texts), 1), dtype=np.float32)
    seed = int(rng.integers(2**31))
    reduction = None
    if matrix.shape[1] > _DIMENSIONS:
        components = max(1, min(_DIMENSIONS, matrix.shape[0] - 1))
        reduction = TruncatedSVD(n_components=components, random_state=seed).fit(matrix)
    width = reduction.components_.shape[0] if reduction else matrix.shape[1]
    vectors = np.empty((len(texts), width), dtype=np.float32)
    for start in range(0, len(texts), _LOOKED_UP):
        chunk = slice(start, start + _LOOKED_UP)
        words = vectorizer.transform([cut_for_words(text) for text in texts[chunk]])
        vectors[chunk] = reduction.transform(words) if reduction else words.toarray()
    return vectors


def _some(texts: Sequence[str]) -> list[str]:
    """Return the beginnings of all texts, or of as many as are enough to know the words by."""
    lengths = np.array([min(len(text), LONGEST_FOR_WORDS) for text in texts])
    rows = list(range(len(texts)))
    enough = len(texts)
    if len(texts) > _FITTED_ON or lengths.sum() > _CHARACTERS_FITTED_ON:
        # a few more texts change few of those that are chosen, and their order none
        rows.sort(key=[text_key(text) for text in texts].__getitem__)
        enough = 1 + int(np.searchsorted(np.cumsum(lengths[rows]), _CHARACTERS_FITTED_ON))
    return [cut_for_words(texts[row]) for row in rows[: min(enough, _FITTED_ON)]]
