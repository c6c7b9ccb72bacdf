"""Vectors of texts by the digest of the model that made them: half precision, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ratchet.store.tables import EMBEDDINGS

Vectors = NDArray[np.float32]
_STORED = np.dtype("<f2")
_CHUNK = 500


def read_vectors(
    connection: sa.Connection, model_digest: str, keys: Sequence[str]
) -> dict[str, Vectors]:
    """Return those vectors that are stored, by key. See `EventStore.vectors`."""
    found: dict[str, Vectors] = {}
    waiting = iter(keys)
    while chunk := list(islice(waiting, _CHUNK)):
        query = sa.select(EMBEDDINGS.c.key, EMBEDDINGS.c.vector).where(
            EMBEDDINGS.c.model_digest == model_digest, EMBEDDINGS.c.key.in_(chunk)
        )
        for key, stored in connection.execute(query):
            found[key] = np.frombuffer(stored, dtype=_STORED).astype(np.float32)
    return found


def vector_rows(model_digest: str, vectors: Mapping[str, Vectors]) -> list[dict[str, object]]:
    """Return the rows to insert."""
    return [
        {"model_digest": model_digest, "key": key, "vector": vector.astype(_STORED).tobytes()}
        for key, vector in vectors.items()
    ]
