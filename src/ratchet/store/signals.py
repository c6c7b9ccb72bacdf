"""Narrow reading for monitoring: numbers of a window, no texts, feedback pivoted to columns."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from ratchet.records import FEEDBACK_KINDS
from ratchet.records.signals import ASSESSED_KINDS, JUDGED_KINDS
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT, INTERACTIONS

if TYPE_CHECKING:
    import pyarrow as pa


def read_signals(
    connection: sa.Connection,
    within: sa.ColumnElement[bool],
    lag: int,
    judges: Collection[str],
) -> pa.Table:
    """Return one row an interaction. See `EventStore.signals`.

    Args:
        connection: An open connection.
        within: Which interactions.
        lag: Microseconds up to which feedback counts.
        judges: Versions of judges whose scores count.
    """
    import pyarrow as pa

    position, created_at = INTERACTIONS.c.position, INTERACTIONS.c.created_at
    failed = sa.case((INTERACTIONS.c.error.is_(None), 0), else_=1)
    answers = columns_of(
        connection,
        sa.select(
            position,
            created_at,
            INTERACTIONS.c.model_version,
            INTERACTIONS.c.segment,
            INTERACTIONS.c.latency_seconds,
            sa.func.length(INTERACTIONS.c.response),
            failed,
        ).where(within),
        7,
    )
    positions = np.array(answers[0], dtype=np.int64)
    columns = {
        "created_at": pa.array(answers[1], pa.timestamp("us", "UTC")),
        "model_version": pa.array(answers[2], pa.string()),
        "segment": pa.array(answers[3], pa.string()),
        "latency_seconds": pa.array(answers[4], pa.float64()),
        "characters": pa.array(answers[5], pa.int64()),
        "failed": pa.array(answers[6], pa.int64()).cast(pa.bool_()),
    }
    columns |= read_events(connection, within, positions, lag, judges, whenever=ASSESSED_KINDS)
    return pa.table(columns).sort_by("created_at")


def read_events(
    connection: sa.Connection,
    within: sa.ColumnElement[bool],
    positions: np.ndarray[Any, Any],
    lag: int,
    judges: Collection[str],
    whenever: Collection[str] = (),
) -> dict[str, Any]:
    """Return a column for each kind of feedback: of several events of one kind the latest.

    Args:
        connection: An open connection.
        within: Which interactions.
        positions: Their positions, in the order of the rows.
        lag: Microseconds up to which feedback counts.
        judges: Versions of judges whose scores count.
        whenever: Kinds that count whenever they came.
    """
    created_at = INTERACTIONS.c.created_at
    events = columns_of(
        connection,
        sa.select(INTERACTIONS.c.position, FEEDBACK_EVENTS.c.kind, FEEDBACK_EVENTS.c.number)
        .join(INTERACTIONS, INTERACTIONS.c.id == FEEDBACK_EVENTS.c.interaction_id)
        .where(within, sa.or_(created_at + lag > GIVEN_AT, FEEDBACK_EVENTS.c.kind.in_(whenever)))
        .where(
            sa.or_(
                FEEDBACK_EVENTS.c.kind.not_in(JUDGED_KINDS),
                FEEDBACK_EVENTS.c.text.in_(sorted(judges)),
            )
        )
        .order_by(GIVEN_AT, FEEDBACK_EVENTS.c.id),
        3,
    )
    return _pivot(positions, events)


def columns_of(
    connection: sa.Connection, query: sa.Select[Any], width: int
) -> list[tuple[Any, ...]]:
    """Return a query's columns; empty ones where there are no rows."""
    rows = connection.execute(query).fetchall()
    return list(zip(*rows, strict=True)) or [()] * width


def _pivot(positions: np.ndarray[Any, Any], events: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Return a column a kind; events come in order of time, so that the latest one stays."""
    import pyarrow as pa

    order = np.argsort(positions)
    about = np.array(events[0], dtype=np.int64)
    known = np.isin(about, positions)  # an interaction may arrive between the two readings
    rows = order[np.searchsorted(positions, about[known], sorter=order)]
    kinds = np.array(events[1], dtype=object)[known]
    numbers = np.array([1.0 if value is None else value for value in events[2]], dtype=np.float64)
    numbers = numbers[known]
    columns = {}
    for kind in FEEDBACK_KINDS:
        of_kind = kinds == kind
        values = np.full(positions.size, np.nan)
        values[rows[of_kind]] = numbers[of_kind]
        columns[kind] = pa.array(values, pa.float64(), mask=np.isnan(values))
    return columns
