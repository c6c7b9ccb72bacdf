"""Rows as Arrow, a batch at a time: memory follows the size of a batch, not that of the answer.

PostgreSQL keeps the answer and sends what is asked for (a cursor on the server); SQLite computes
row after row. Whole tables are made of such batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.store.tables import FEEDBACK_EVENTS, GIVEN_AT, INTERACTIONS

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 10_000
"""Rows of a batch: some 20 MB of interactions."""

_INTERACTIONS = (
    "id", "session_id", "user_id", "created_at", "model_version", "segment", "prompt", "response",
    "latency_seconds", "error",
)  # fmt: skip
_BESIDES = (
    "digest", "messages", "metadata", "tool_calls", "refusal", "tools", "response_format",
    "documents", "continues",
)  # fmt: skip
_FEEDBACK = ("id", "interaction_id", "kind", "created_at", "number", "text")
_TIMES = ("created_at", "received_at")


def read_batches(
    connection: sa.Connection, query: sa.Select[Any], schema: pa.Schema, size: int
) -> Iterator[pa.RecordBatch]:
    """Yield a query's rows as batches of at most `size`, none where there are no rows."""
    import pyarrow as pa

    for rows in read_lists(connection, query, size):
        columns = zip(*rows, strict=True)
        arrays = [
            pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def read_lists(
    connection: sa.Connection, query: sa.Select[Any], size: int
) -> Iterator[Sequence[Any]]:
    """Yield a query's rows in lists of at most `size`.

    Raises:
        InvalidInputError: `size` is below 1.
    """
    if size < 1:
        raise InvalidInputError(f"a batch must have 1 row or more, got {size}; pass {ROWS}")
    with connection.execute(query, execution_options={"yield_per": size}) as result:
        yield from result.partitions()


def read_table(connection: sa.Connection, query: sa.Select[Any], schema: pa.Schema) -> pa.Table:
    """Return a query's rows whole; on the way there is one batch of them as Python objects."""
    import pyarrow as pa

    return pa.Table.from_batches(read_batches(connection, query, schema, ROWS), schema)


def interactions_query(
    within: sa.ColumnElement[bool], names: Sequence[str] | None
) -> tuple[sa.Select[Any], pa.Schema]:
    """Return the query for a window's interactions in order of time, and its schema.

    Args:
        within: The window.
        names: Columns; those of `EventStore.interactions` where None. Beside these there are
            position, received_at, digest, messages, metadata and tool_calls (as JSON text),
            refusal, tools, response_format, documents and continues.

    Raises:
        InvalidInputError: There is no such column.
    """
    import pyarrow as pa

    types = dict.fromkeys(_INTERACTIONS, pa.string())
    types |= dict.fromkeys(_BESIDES, pa.string())
    types |= dict.fromkeys(_TIMES, pa.timestamp("us", "UTC"))
    types |= {"latency_seconds": pa.float64(), "position": pa.int64()}
    schema = _schema(types, _INTERACTIONS if names is None else names)
    columns = [_plain(INTERACTIONS.c[name]) for name in schema.names]
    order = (INTERACTIONS.c.created_at, INTERACTIONS.c.position)
    return sa.select(*columns).where(within).order_by(*order), schema


def feedback_query(within: sa.ColumnElement[bool]) -> tuple[sa.Select[Any], pa.Schema]:
    """Return the query for the feedback on a window in the order it was given, and its schema."""
    import pyarrow as pa

    types = dict.fromkeys(_FEEDBACK, pa.string())
    types |= {"created_at": pa.timestamp("us", "UTC"), "number": pa.float64()}
    columns = [GIVEN_AT if name == "created_at" else FEEDBACK_EVENTS.c[name] for name in _FEEDBACK]
    query = (
        sa.select(*columns)
        .join(INTERACTIONS, INTERACTIONS.c.id == FEEDBACK_EVENTS.c.interaction_id)
        .where(within)
        .order_by(GIVEN_AT, FEEDBACK_EVENTS.c.position)
    )
    return query, _schema(types, _FEEDBACK)


def _schema(types: dict[str, pa.DataType], names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    unknown = [name for name in names if name not in types]
    if unknown or not names:
        raise InvalidInputError(
            f"columns must be some of {', '.join(types)}, got {', '.join(unknown) or 'none'}; "
            "correct the names"
        )
    return pa.schema([(name, types[name]) for name in names])


def _plain(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(column, sa.Text) if isinstance(column.type, sa.JSON) else column
