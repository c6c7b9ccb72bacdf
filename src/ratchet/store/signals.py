"""Narrow reading for monitoring: numbers of a window, no texts, feedback pivoted to columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from ratchet.records import FEEDBACK_KINDS
from ratchet.records.signals import ASSESSED_KINDS, JUDGED_KINDS
from ratchet.store.batches import read_table
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT, INTERACTIONS

if TYPE_CHECKING:
    import pyarrow as pa


def read_signals(
    connection: sa.Connection,
    within: sa.ColumnElement[bool],
    lag: int,
    judges: Collection[str],
    metadata: Sequence[str] = (),
) -> pa.Table:
    """Return one row an interaction. See `EventStore.signals`.

    Args:
        connection: An open connection.
        within: Which interactions.
        lag: Microseconds up to which feedback counts.
        judges: Versions of judges whose scores count.
        metadata: Keys of the metadata to return as columns.
    """
    import pyarrow as pa

    failed = sa.case((INTERACTIONS.c.error.is_(None), 0), else_=1)
    schema = pa.schema(
        [
            ("position", pa.int64()),
            ("created_at", pa.timestamp("us", "UTC")),
            ("model_version", pa.string()),
            ("segment", pa.string()),
            ("latency_seconds", pa.float64()),
            ("characters", pa.int64()),
            ("failed", pa.int64()),
            *((name, pa.string()) for name in metadata),
        ]
    )
    columns: dict[str, sa.ColumnElement[Any]] = dict(INTERACTIONS.c.items())
    columns |= {"characters": sa.func.length(INTERACTIONS.c.response), "failed": failed}
    columns |= {name: INTERACTIONS.c.metadata[name].as_string() for name in metadata}
    query = sa.select(*[columns[name] for name in schema.names])
    answers = read_table(connection, query.where(within), schema)
    kinds = read_events(
        connection, within, answers["position"], lag, judges, whenever=ASSESSED_KINDS
    )
    return with_events(answers, kinds)


def with_events(answers: pa.Table, kinds: dict[str, pa.Array]) -> pa.Table:
    """Return answers in order of time, without their positions, with a column for each kind."""
    import pyarrow as pa

    failed = answers.schema.get_field_index("failed")
    answers = answers.set_column(failed, "failed", answers["failed"].cast(pa.bool_()))
    for kind, values in kinds.items():
        answers = answers.append_column(kind, values)
    return answers.drop_columns("position").sort_by("created_at")


def read_events(
    connection: sa.Connection,
    within: sa.ColumnElement[bool],
    positions: pa.ChunkedArray,
    lag: int,
    judges: Collection[str],
    whenever: Collection[str] = (),
) -> dict[str, pa.Array]:
    """Return a column for each kind of feedback: of several events of one kind the latest.

    Args:
        connection: An open connection.
        within: Which interactions.
        positions: Their positions, in the order of the rows.
        lag: Microseconds up to which feedback counts.
        judges: Versions of judges whose scores count.
        whenever: Kinds that count whenever they came.
    """
    import pyarrow as pa

    created_at = INTERACTIONS.c.created_at
    query = (
        sa.select(INTERACTIONS.c.position, FEEDBACK_EVENTS.c.kind, FEEDBACK_EVENTS.c.number)
        .join(INTERACTIONS, INTERACTIONS.c.id == FEEDBACK_EVENTS.c.interaction_id)
        .where(within, sa.or_(created_at + lag > GIVEN_AT, FEEDBACK_EVENTS.c.kind.in_(whenever)))
        .where(
            sa.or_(
                FEEDBACK_EVENTS.c.kind.not_in(JUDGED_KINDS),
                FEEDBACK_EVENTS.c.text.in_(sorted(judges)),
            )
        )
        .order_by(GIVEN_AT, FEEDBACK_EVENTS.c.id)
    )
    schema = pa.schema([("position", pa.int64()), ("kind", pa.string()), ("number", pa.float64())])
    return _pivot(positions.to_numpy(), read_table(connection, query, schema))


def _pivot(positions: np.ndarray[Any, Any], events: pa.Table) -> dict[str, pa.Array]:
    """Return a column a kind; events come in order of time, so that the latest one stays."""
    import pyarrow as pa
    import pyarrow.compute as pc

    order = np.argsort(positions)
    about = events["position"].to_numpy()
    known = np.isin(about, positions)  # an interaction may arrive between the two readings
    numbers = pc.fill_null(events["number"], 1.0).to_numpy()
    columns = {}
    for kind in FEEDBACK_KINDS:
        of_kind = known & pc.equal(events["kind"], kind).to_numpy()
        rows = order[np.searchsorted(positions, about[of_kind], sorter=order)]
        values = np.full(positions.size, np.nan)
        values[rows] = numbers[of_kind]
        columns[kind] = pa.array(values, pa.float64(), mask=np.isnan(values))
    return columns
