"""Reading an experiment: who met which arm, and what came of it; numbers, no texts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ratchet.store.answer_parts import Measure, part_columns, part_fields, with_measures
from ratchet.store.batches import read_table
from ratchet.store.events import EventStore, Window
from ratchet.store.reporting import Answers, application, shown
from ratchet.store.rows import moment_of
from ratchet.store.signals import read_events, with_events
from ratchet.store.tables import INTERACTIONS

if TYPE_CHECKING:
    import pyarrow as pa


def read_exposures(
    store: EventStore,
    window: Window,
    *,
    experiment: str,
    lag: timedelta,
    judges: Collection[str] = (),
    measure: Measure | None = None,
) -> pa.Table:
    """Return one row an interaction of an experiment, in order of time.

    An interaction belongs to an experiment, and to an arm of it, where its metadata says so
    (`experiment` and `arm`), as the gateway writes it. Feedback counts as in
    `EventStore.signals`.

    Args:
        store: The store.
        window: The interactions.
        experiment: The experiment.
        lag: How late feedback may be.
        judges: Versions of judges whose scores count.
        measure: See `EventStore.signals`.

    Columns: user_id, arm, model_version (that answered), created_at (timestamp, us, UTC),
    latency_seconds, failed, a column for each kind of feedback (float, null where not
    observed), and with `measure` what answers carry themselves.
    """
    import pyarrow as pa

    mine = sa.and_(
        store.within(window), INTERACTIONS.c.metadata["experiment"].as_string() == experiment
    )
    schema = pa.schema(
        [
            ("position", pa.int64()),
            ("user_id", pa.string()),
            ("arm", pa.string()),
            ("model_version", pa.string()),
            ("created_at", pa.timestamp("us", "UTC")),
            ("latency_seconds", pa.float64()),
            ("shown", pa.int64()),
            ("application", pa.string()),
            *(part_fields() if measure else ()),
        ]
    )
    columns: dict[str, sa.ColumnElement[Any]] = dict(INTERACTIONS.c.items()) | part_columns()
    columns |= {
        "arm": INTERACTIONS.c.metadata["arm"].as_string(),
        "shown": shown(),
        "application": application(),
    }
    query = sa.select(*[columns[name] for name in schema.names])
    with store.reading() as connection:
        answers = read_table(connection, query.where(mine), schema)
        kinds = read_events(connection, mine, answers["position"], lag, judges)
        if measure is not None:
            answers = with_measures(connection, answers, measure, store.prices)
    reporting, about = store.reporting(), Answers.of(answers)
    return with_events(answers, reporting.read_all(kinds, about, lag))


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts of one version that failed for one reason.

    Attributes:
        first: When the first was asked for.
        last: When the last was.
    """

    model_version: str
    error: str
    count: int
    first: datetime
    last: datetime


def read_failures(store: EventStore, window: Window) -> tuple[Failures, ...]:
    """Count what failed in a window by version and reason, the most frequent first."""
    version, error, asked = (
        INTERACTIONS.c.model_version,
        INTERACTIONS.c.error,
        INTERACTIONS.c.created_at,
    )
    query = (
        sa.select(version, error, sa.func.count(), sa.func.min(asked), sa.func.max(asked))
        .where(store.within(window), error.is_not(None))
        .group_by(version, error)
        .order_by(sa.func.count().desc(), version, error)
    )
    with store.reading() as connection:
        rows = connection.execute(query).fetchall()
    return tuple(
        Failures(name, why, count, moment_of(first), moment_of(last))
        for name, why, count, first, last in rows
    )


def count_users(store: EventStore, window: Window) -> int:
    """Count the users whose answers lie in a window."""
    query = sa.select(sa.func.count(sa.distinct(INTERACTIONS.c.user_id))).where(
        store.within(window)
    )
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())
