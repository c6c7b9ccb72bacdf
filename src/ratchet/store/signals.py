"""Narrow reading for monitoring: numbers of a window, no texts, feedback pivoted to columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from ratchet.records import FEEDBACK_KINDS
from ratchet.records.prices import NO_PRICES, Prices
from ratchet.records.reporting import DECLARABLE_KINDS
from ratchet.records.signals import ASSESSED_KINDS, IMPLICIT_KINDS, JUDGED_KINDS
from ratchet.store.answer_parts import Measure, part_columns, part_fields, with_measures
from ratchet.store.batches import read_table
from ratchet.store.reporting import Answers, Reporting, application, shown
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT, INTERACTIONS

if TYPE_CHECKING:
    import pyarrow as pa

_SAID = "said "
"""Before the name of a key of metadata: one may be called like a column."""
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def read_signals(
    connection: sa.Connection,
    within: sa.ColumnElement[bool],
    lag: timedelta,
    judges: Collection[str],
    reporting: Reporting,
    metadata: Sequence[str] = (),
    *,
    measure: Measure | None = None,
    prices: Prices = NO_PRICES,
    names: Sequence[str] = (),
) -> pa.Table:
    """Return one row an interaction. See `EventStore.signals`.

    Args:
        connection: An open connection.
        within: Which interactions.
        lag: How late feedback may be.
        judges: Versions of judges whose scores count.
        reporting: How applications report.
        metadata: Keys of the metadata to return as columns.
        measure: See `EventStore.signals`.
        prices: Likewise.
        names: Likewise.
    """
    import pyarrow as pa

    schema = pa.schema(
        [
            ("position", pa.int64()),
            ("created_at", pa.timestamp("us", "UTC")),
            ("model_version", pa.string()),
            ("segment", pa.string()),
            ("latency_seconds", pa.float64()),
            ("characters", pa.int64()),
            ("shown", pa.int64()),
            *((_SAID + name, pa.string()) for name in metadata),
            *((name, pa.string()) for name in names),
            *(part_fields() if measure else ()),
        ]
    )
    if not reporting.is_plain:
        schema = schema.append(pa.field("application", pa.string()))
    columns: dict[str, sa.ColumnElement[Any]] = dict(INTERACTIONS.c.items())
    columns |= {"characters": sa.func.length(INTERACTIONS.c.response), "shown": shown()}
    columns |= {"application": application()} | part_columns()
    columns |= {_SAID + name: INTERACTIONS.c.metadata[name].as_string() for name in metadata}
    query = sa.select(*[columns[name] for name in schema.names])
    answers = read_table(connection, query.where(within), schema)
    kinds = read_events(
        connection, within, answers["position"], lag, judges, whenever=ASSESSED_KINDS
    )
    if measure is not None:
        answers = with_measures(connection, answers, measure, prices)
    flags = {
        "signalled": np.any([~np.isnan(kinds[kind]) for kind in IMPLICIT_KINDS], axis=0),
        "steady": np.ones(answers.num_rows, np.bool_),
    }
    if not reporting.is_plain:
        about = Answers.of(answers)
        read = reporting.read_all(kinds, about, lag)
        for kind in DECLARABLE_KINDS:
            changed = reporting.unsteady(kind, about)
            read[kind] = np.where(changed, np.nan, read[kind])
            flags["steady"] &= ~changed
        kinds = read
    for name, values in flags.items():
        answers = answers.append_column(name, pa.array(values))
    found = with_events(answers, kinds)
    return found.rename_columns([name.removeprefix(_SAID) for name in found.column_names])


def with_events(answers: pa.Table, kinds: Mapping[str, FloatArray]) -> pa.Table:
    """Return answers in order of time, without their positions, with a column for each kind."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for kind, values in kinds.items():
        column = pa.array(values, pa.float64(), mask=np.isnan(values))
        answers = answers.append_column(kind, column)
    place = answers.schema.get_field_index("shown")
    answers = answers.set_column(place, "failed", pc.equal(answers["shown"], 0))
    dropped = [name for name in ("position", "application") if name in answers.column_names]
    order = pa.array(np.argsort(answers["created_at"].to_numpy(), kind="stable"))
    return answers.drop_columns(dropped).take(order)


def read_events(
    connection: sa.Connection,
    within: sa.ColumnElement[bool],
    positions: pa.ChunkedArray,
    lag: timedelta,
    judges: Collection[str],
    whenever: Collection[str] = (),
) -> dict[str, FloatArray]:
    """Return what was sent of each kind of feedback: of several events of one kind the latest.

    Args:
        connection: An open connection.
        within: Which interactions.
        positions: Their positions, in the order of the rows.
        lag: How late feedback may be.
        judges: Versions of judges whose scores count.
        whenever: Kinds that count whenever they came.
    """
    import pyarrow as pa

    latest = INTERACTIONS.c.created_at + lag // timedelta(microseconds=1)
    query = (
        sa.select(INTERACTIONS.c.position, FEEDBACK_EVENTS.c.kind, FEEDBACK_EVENTS.c.number)
        .join(INTERACTIONS, INTERACTIONS.c.id == FEEDBACK_EVENTS.c.interaction_id)
        .where(within, sa.or_(latest > GIVEN_AT, FEEDBACK_EVENTS.c.kind.in_(whenever)))
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


def _pivot(positions: np.ndarray[Any, Any], events: pa.Table) -> dict[str, FloatArray]:
    """Return values a kind, nan where none came; events come in order of time: the latest stays."""
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
        columns[kind] = values
    return columns
