"""The table of verdicts: what judges said, by id and by the version of the judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import sqlalchemy as sa

from ratchet.records import JudgeVerdict
from ratchet.store.tables import VERDICTS

T = TypeVar("T")
_CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_verdicts(connection: sa.Connection, ids: Sequence[str]) -> dict[str, JudgeVerdict]:
    """See `EventStore.verdicts`."""
    found: dict[str, JudgeVerdict] = {}
    for chunk in _chunks(ids):
        query = sa.select(VERDICTS.c.body).where(VERDICTS.c.id.in_(chunk))
        for body in connection.execute(query).scalars():
            verdict = JudgeVerdict.model_validate(body)
            found[verdict.id] = verdict
    return found


def write_verdicts(
    connection: sa.Connection, insert: sa.Insert, verdicts: Sequence[JudgeVerdict]
) -> None:
    """See `EventStore.add_verdicts`.

    Args:
        connection: An open transaction.
        insert: The statement that leaves what is there.
        verdicts: What to add.
    """
    for chunk in _chunks(verdicts):
        rows = [
            {
                "id": verdict.id,
                "judge_version": verdict.judge_version,
                "dimension": verdict.dimension,
                "created_at": (verdict.created_at - _EPOCH) // timedelta(microseconds=1),
                "body": verdict.canonical(),
            }
            for verdict in chunk
        ]
        connection.execute(insert, rows)


def read_version(
    connection: sa.Connection, judge_version: str, latest: int | None
) -> tuple[JudgeVerdict, ...]:
    """See `EventStore.verdicts_of`."""
    query = sa.select(VERDICTS.c.body).where(VERDICTS.c.judge_version == judge_version)
    query = query.order_by(VERDICTS.c.position.desc())
    if latest is not None:
        query = query.limit(latest)
    bodies = connection.execute(query).scalars().all()
    return tuple(JudgeVerdict.model_validate(body) for body in reversed(bodies))


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
