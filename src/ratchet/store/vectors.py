"""Vectors of texts by the digest of the model that made them: half precision, as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ratchet.store.rows import chunks
from ratchet.store.tables import EMBEDDINGS

Vectors = NDArray[np.float32]
_STORED = np.dtype("<f2")


def text_key(text: str) -> str:
    """Return the key that a text's vector is kept under: 32 hex digits of its content."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_vectors(
    connection: sa.Connection, model_digest: str, keys: Sequence[str]
) -> dict[str, Vectors]:
    """Return those vectors that are stored, by key. See `EventStore.vectors`."""
    vectors: dict[str, Vectors] = {}
    for chunk in chunks(keys):
        query = sa.select(EMBEDDINGS.c.key, EMBEDDINGS.c.vector).where(
            EMBEDDINGS.c.model_digest == model_digest, EMBEDDINGS.c.key.in_(chunk)
        )
        for key, stored in connection.execute(query):
            vectors[key] = np.frombuffer(stored, dtype=_STORED).astype(np.float32)
    return vectors


def vector_rows(
    model_digest: str, vectors: Mapping[str, Vectors], now: int
) -> list[dict[str, Any]]:
    """Return the rows of vectors that are added now, in microseconds since 1970."""
    return [
        {
            "model_digest": model_digest,
            "key": key,
            "vector": vector.astype(_STORED).tobytes(),
            "added_at": now,
        }
        for key, vector in vectors.items()
    ]
