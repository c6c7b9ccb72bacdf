"""Recorded answers of models to examples, with the seconds that they took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ratchet.store.rows import chunks
from ratchet.store.tables import ANSWERS


def read_answers(
    connection: sa.Connection, model_digest: str, decoding: str, ids: Sequence[str]
) -> Iterator[tuple[str, str, float | None]]:
    """Yield example id, answer and seconds of what is recorded; seconds are None where unknown."""
    for chunk in chunks(ids):
        query = sa.select(ANSWERS.c.example_id, ANSWERS.c.answer, ANSWERS.c.seconds).where(
            ANSWERS.c.model_digest == model_digest,
            ANSWERS.c.decoding == decoding,
            ANSWERS.c.example_id.in_(chunk),
        )
        for row in connection.execute(query):
            yield row.example_id, row.answer, row.seconds


def answer_rows(
    model_digest: str,
    decoding: str,
    answers: Mapping[str, str],
    seconds: Mapping[str, float],
    now: int,
) -> list[dict[str, Any]]:
    """Return the rows of answers that are added now, in microseconds since 1970."""
    return [
        {
            "model_digest": model_digest,
            "decoding": decoding,
            "example_id": key,
            "answer": text,
            "seconds": seconds.get(key),
            "added_at": now,
        }
        for key, text in answers.items()
    ]
