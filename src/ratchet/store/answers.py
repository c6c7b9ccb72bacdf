"""Recorded answers of models to examples, with the seconds that they took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from ratchet.records.asking import Usage
from ratchet.store.rows import chunks
from ratchet.store.tables import ANSWERS


class RecordedAnswer(NamedTuple):
    """An answer to an example; seconds and tokens are None where they are not known."""

    example_id: str
    text: str
    seconds: float | None
    usage: Usage


def read_answers(
    connection: sa.Connection, model_digest: str, decoding: str, ids: Sequence[str]
) -> Iterator[RecordedAnswer]:
    """Yield what is recorded."""
    for chunk in chunks(ids):
        columns = ANSWERS.c
        query = sa.select(
            columns.example_id,
            columns.answer,
            columns.seconds,
            columns.tokens_in,
            columns.tokens_out,
        ).where(
            ANSWERS.c.model_digest == model_digest,
            ANSWERS.c.decoding == decoding,
            ANSWERS.c.example_id.in_(chunk),
        )
        for row in connection.execute(query):
            usage = Usage(prompt_tokens=row.tokens_in, completion_tokens=row.tokens_out)
            yield RecordedAnswer(row.example_id, row.answer, row.seconds, usage)


def answer_rows(
    model_digest: str,
    decoding: str,
    answers: Mapping[str, str],
    seconds: Mapping[str, float],
    usage: Mapping[str, Usage],
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
            "tokens_in": used.prompt_tokens if (used := usage.get(key)) else None,
            "tokens_out": used.completion_tokens if used else None,
            "added_at": now,
        }
        for key, text in answers.items()
    ]
