"""The table of verdicts: what judges said, by id and by the version of the judge."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ratchet.records import JudgeVerdict
from ratchet.store.naming import NAME_CHARACTERS
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import VERDICT_QUOTES, VERDICTS


def read_verdicts(connection: sa.Connection, ids: Sequence[str]) -> dict[str, JudgeVerdict]:
    """See `EventStore.verdicts`."""
    verdicts: dict[str, JudgeVerdict] = {}
    for chunk in chunks(ids):
        query = sa.select(VERDICTS.c.body).where(VERDICTS.c.id.in_(chunk))
        for body in connection.execute(query).scalars():
            verdict = JudgeVerdict.model_validate(body)
            verdicts[verdict.id] = verdict
    return verdicts


def verdict_rows(verdicts: Sequence[JudgeVerdict]) -> list[dict[str, Any]]:
    """Return the rows to insert."""
    return [
        {
            "id": verdict.id,
            "judge_version": verdict.judge_version,
            "dimension": verdict.dimension,
            "created_at": microseconds(verdict.created_at),
            "item_id": verdict.item_id and verdict.item_id[:NAME_CHARACTERS],
            "body": verdict.canonical(),
        }
        for verdict in verdicts
    ]


def quote_rows(verdicts: Sequence[JudgeVerdict]) -> list[dict[str, Any]]:
    """Return the rows that name what verdicts quote."""
    return [
        {"interaction_id": key, "verdict_id": verdict.id}
        for verdict in verdicts
        for key in dict.fromkeys(verdict.shows)
    ]


def read_spent(connection: sa.Connection, since: datetime, until: datetime) -> tuple[int, float]:
    """See `EventStore.spent_on_judges`."""
    when = VERDICTS.c.created_at
    cost = sa.func.coalesce(sa.func.sum(VERDICTS.c.body["cost"].as_float()), 0.0)
    query = sa.select(sa.func.count(), cost).where(
        when >= microseconds(since), when < microseconds(until)
    )
    count, spent = connection.execute(query).one()
    return int(count), float(spent)


def delete_verdicts(connection: sa.Connection, positions: Sequence[int]) -> int:
    """Delete verdicts, with what names their quotes; return how many went."""
    mine = VERDICTS.c.position.in_(positions)
    named = VERDICT_QUOTES.c.verdict_id.in_(sa.select(VERDICTS.c.id).where(mine))
    connection.execute(sa.delete(VERDICT_QUOTES).where(named))
    return connection.execute(sa.delete(VERDICTS).where(mine)).rowcount


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
