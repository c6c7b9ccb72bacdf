"""Reading events: by id, by window as Arrow, and in counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ratchet.records import FEEDBACK_KINDS, Feedback, Interaction, SetAside
from ratchet.records.prices import NO_PRICES, Prices
from ratchet.store.answer_parts import Measure
from ratchet.store.batches import (
    ROWS,
    feedback_query,
    interactions_query,
    read_batches,
    read_lists,
    read_table,
)
from ratchet.store.counts import count_interactions, read_counts
from ratchet.store.endings import read_endings
from ratchet.store.event_rows import interaction_record
from ratchet.store.feedback import read_feedback
from ratchet.store.months import with_ids
from ratchet.store.origins import Origins, read_origins
from ratchet.store.permissions import (
    Permission,
    read_past_keeping,
    read_permissions,
)
from ratchet.store.reporting import Reporting, read_reporting, told_feedback
from ratchet.store.rows import chunks, microseconds, moment_of
from ratchet.store.set_aside import read_set_aside
from ratchet.store.signals import read_signals
from ratchet.store.tables import COUNTS, FACTS, INTERACTIONS
from ratchet.store.transactions import Transactions, pairs

if TYPE_CHECKING:
    import pyarrow as pa


EVER = datetime.min.replace(tzinfo=UTC)
"""Start of a window of everything up to its end."""


@dataclass(frozen=True, slots=True)
class Window:
    """Interactions with `start <= created_at < end`, of one model version where it is given.

    Attributes:
        also: Other names of that version, under which answers of it were recorded.
        arrived_until: Position of the last interaction by arrival; None for all there are.
        without: What another window took already: interactions before this time that had arrived
            up to this position (None: whenever they arrived).
        simulated: Whether interactions of simulated users are read, or those of real ones; None:
            what the store is about, which is real users as soon as there is one.
    """

    start: datetime
    end: datetime
    model_version: str | None = None
    arrived_until: int | None = None
    without: tuple[datetime, int | None] | None = None
    simulated: bool | None = None
    also: tuple[str, ...] = ()


class Readings(Transactions):
    """What is read of interactions, feedback and set-aside rows."""

    prices: Prices = NO_PRICES
    """Prices of tokens, for answers whose cost nobody stated."""
    _known: Origins | None = None

    def stored_interactions(self, ids: Sequence[str]) -> dict[str, Interaction]:
        """Return those of the interactions with these ids that are stored, by id."""
        interactions: dict[str, Interaction] = {}
        with self.reading() as connection:
            for chunk in chunks(ids):
                query = sa.select(INTERACTIONS).where(with_ids(connection, INTERACTIONS, chunk))
                for row in connection.execute(query).mappings():
                    interactions[row["id"]] = interaction_record(row)
        return interactions

    def stored_feedback(self, ids: Sequence[str]) -> dict[str, Feedback]:
        """Return those of the feedback events with these ids that are stored, by id.

        Of an event that was edited in place, the version in effect.
        """
        with self.reading() as connection:
            return read_feedback(connection, ids)

    def answered_at(self, ids: Sequence[str]) -> dict[str, datetime]:
        """Return the times of those of the interactions with these ids that are stored, by id."""
        times: dict[str, datetime] = {}
        with self.reading() as connection:
            for chunk in chunks(ids):
                query = sa.select(INTERACTIONS.c.id, INTERACTIONS.c.created_at)
                stored = pairs(connection, query.where(with_ids(connection, INTERACTIONS, chunk)))
                times |= {key: moment_of(moment) for key, moment in stored.items()}
        return times

    def set_aside_rows(self, *, source: str | None = None) -> tuple[SetAside, ...]:
        """Return the rows that were set aside, or those of one source, in the order they came."""
        with self.reading() as connection:
            return read_set_aside(connection, source)

    def interactions(self, window: Window) -> pa.Table:
        """Return a window's interactions in order of time.

        Columns: id, session_id, user_id, created_at (timestamp, us, UTC), model_version, segment,
        prompt, response, latency_seconds, error.
        """
        query, schema = interactions_query(self.within(window), None)
        with self.reading() as connection:
            return read_table(connection, query, schema)

    def interaction_batches(
        self, window: Window, columns: Sequence[str] | None = None, size: int = ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yield what `interactions` returns in batches of at most `size` rows.

        Memory follows the size of a batch. A connection is open until the last one; close the
        iterator that is not read to its end. Within `atomic` it ends with the transaction.

        Args:
            window: The interactions.
            columns: Some of the columns, of which there are also position (by arrival),
                received_at, digest, messages, metadata and tool_calls (as JSON text), refusal,
                tools, response_format, documents and continues.
            size: Rows of a batch.

        Raises:
            InvalidInputError: There is no such column, or `size` is below 1.
        """
        query, schema = interactions_query(self.within(window), columns)
        with self.reading() as connection:
            yield from read_batches(connection, query, schema, size)

    def iter_interactions(self, window: Window, size: int = 1_000) -> Iterator[list[Interaction]]:
        """Yield a window's interactions in order of time, in lists of at most `size`."""
        query = sa.select(INTERACTIONS).where(self.within(window))
        query = query.order_by(INTERACTIONS.c.created_at, INTERACTIONS.c.position)
        with self.reading() as connection:
            for rows in read_lists(connection, query, size):
                yield [interaction_record(row._mapping) for row in rows]

    def latest_answers(self, window: Window, *, most: int) -> list[tuple[dict[str, str], int]]:
        """Return metadata and characters of a window's answers, the newest first.

        Args:
            window: The interactions; those that failed are left out.
            most: How many at most.
        """
        length = sa.func.length(INTERACTIONS.c.response)
        query = sa.select(INTERACTIONS.c.metadata, length)
        query = query.where(self.within(window), INTERACTIONS.c.error.is_(None))
        query = query.order_by(INTERACTIONS.c.created_at.desc()).limit(most)
        with self.reading() as connection:
            return [(dict(said), int(size)) for said, size in connection.execute(query)]

    def feedback(self, window: Window) -> pa.Table:
        """Return the feedback on a window's interactions, whenever it came.

        Columns: id, interaction_id, kind, created_at (timestamp, us, UTC; of an update its
        `updated_at`), number (thumbs 1 up and
        0 down, stars, booleans 1 and 0, seconds), text (comment, correction, the version of a
        judge, the source of a safety violation).
        """
        query, schema = feedback_query(self.within(window))
        with self.reading() as connection:
            return read_table(connection, query, schema)

    def told_feedback(self, window: Window) -> pa.Table:
        """Return what `feedback` returns as signals are read by how applications report.

        An answer of which no yes came within the settling time has a no where its application
        reports when it happens; what rests on presence alone is left out
        (`ratchet.store.reporting`).
        """
        within = self.within(window)
        query, schema = feedback_query(within)
        with self.reading() as connection:
            feedback = read_table(connection, query, schema)
            reporting = read_reporting(connection, self._clock())
            if reporting.is_plain:
                return feedback
            return told_feedback(connection, feedback, within, reporting)

    def reporting(self) -> Reporting:
        """Return how applications report, as far as it is declared or was heard."""
        with self.reading() as connection:
            return read_reporting(connection, self._clock())

    def feedback_batches(self, window: Window, size: int = ROWS) -> Iterator[pa.RecordBatch]:
        """Yield what `feedback` returns in batches of at most `size` rows.

        Memory and connection as with `interaction_batches`.
        """
        query, schema = feedback_query(self.within(window))
        with self.reading() as connection:
            yield from read_batches(connection, query, schema, size)

    def signals(
        self,
        window: Window,
        *,
        lag: timedelta,
        judges: Collection[str] = (),
        metadata: Sequence[str] = (),
        known_at: datetime | None = None,
        measure: Measure | None = None,
        names: Sequence[str] = (),
    ) -> pa.Table:
        """Return what monitoring needs of a window: one narrow row an interaction, no texts.

        Feedback of users counts where it was given within `lag` of its interaction, that of judges
        and reviewers whenever it came; of several events of one kind the latest. Reads the window's
        rows alone, by index.

        Args:
            window: The interactions.
            lag: How late feedback of users may be.
            judges: Versions of judges that were found usable; scores of any other are left out.
            metadata: Keys of the metadata that are to be columns as well, null where not said.
            known_at: What became known later of how applications report counts as not observed.
            measure: What measures calls and forms of answers; None where what answers carry
                themselves is not asked for.
            names: Of id, session_id and user_id those that are to be columns as well.

        Columns: created_at (timestamp, us, UTC), model_version, segment, latency_seconds,
        characters (of the answer), failed, one for each kind of feedback (`FEEDBACK_KINDS`;
        float, null where not observed; correction and comment are 1 where there is one), signalled
        (an implicit signal was sent, whatever it is taken for) and steady (`Reporting.unsteady`).
        With `measure` also tokens_in, tokens_out, cost (by `prices` where it is not stated) and
        what that returns (float, null where not known).
        """
        within = self.within(window)
        with self.reading() as connection:
            reporting = read_reporting(connection, self._clock()).at(known_at)
            return read_signals(
                connection, within, lag, judges, reporting, metadata,
                measure=measure, prices=self.prices, names=names,
            )  # fmt: skip

    def permissions(self, window: Window) -> tuple[Permission, ...]:
        """Return what a window's interactions allow, those that say something about it."""
        return tuple(self.iter_permissions(window))

    def iter_permissions(self, window: Window) -> Iterator[Permission]:
        """Yield what `permissions` returns, one after the other."""
        within = self.within(window)
        with self.reading() as connection:
            yield from read_permissions(connection, within)

    def past_keeping(self, now: datetime) -> dict[str, date]:
        """Return the interactions that may be kept no longer, with their days."""
        with self.reading() as connection:
            return read_past_keeping(connection, now)

    def endings(self, window: Window, *, besides: Collection[str] = ()) -> dict[str, str]:
        """Return the finish reasons of a window's answers by id, but for those in `besides`.

        Args:
            window: The time.
            besides: Reasons that are left out, in lower case.
        """
        return dict(self.iter_endings(window, besides=besides))

    def iter_endings(
        self, window: Window, *, besides: Collection[str] = ()
    ) -> Iterator[tuple[str, str]]:
        """Yield what `endings` returns, one after the other."""
        within = self.within(window)
        with self.reading() as connection:
            yield from read_endings(connection, within, besides=besides)

    def origins(self) -> Origins:
        """Return whose interactions are stored: those of simulated users, of real ones, or both."""
        if self._known is not None:
            return self._known
        with self.reading() as connection:
            origins = read_origins(connection, FACTS)
        if origins.real_since is not None and self._open.get() is None:
            self._known = origins  # never changes again: nobody is simulated from here on
        return origins

    def simulated_answers(self) -> int:
        """Return how many of the stored interactions are those of simulated users."""
        origins = self.origins()
        if origins.real_since is None:
            return self.counts()["interactions"]
        if not origins.simulated:
            return 0
        mine = origins.chosen(INTERACTIONS.c.position, simulated=True)
        with self.reading() as connection:
            query = sa.select(sa.func.count()).select_from(INTERACTIONS).where(*mine)
            return int(connection.execute(query).scalar_one())

    def within(self, window: Window) -> sa.ColumnElement[bool]:
        """Return the condition that an interaction is in a window."""
        created_at, position = INTERACTIONS.c.created_at, INTERACTIONS.c.position
        inside = [created_at >= microseconds(window.start), created_at < microseconds(window.end)]
        if window.model_version is not None:
            inside.append(of_version(INTERACTIONS.c.model_version, window))
        if window.arrived_until is not None:
            inside.append(position <= window.arrived_until)
        if window.without is not None:
            end, arrived = window.without
            late = sa.false() if arrived is None else position > arrived
            inside.append(sa.or_(created_at >= microseconds(end), late))
        return sa.and_(*inside, *self.origins().chosen(position, window.simulated))

    def counts(self) -> dict[str, int]:
        """Return the kept counts of interactions, set-aside rows and feedback by kind."""
        with self.reading() as connection:
            by_kind = read_counts(connection, COUNTS, "feedback")
            totals = {
                "interactions": count_interactions(connection, COUNTS, INTERACTIONS),
                "set_aside": sum(read_counts(connection, COUNTS, "set_aside").values()),
            }
        return totals | {kind: by_kind.get(kind, 0) for kind in FEEDBACK_KINDS}

    def set_aside_reasons(self) -> dict[str, int]:
        """Count set-aside rows by reason, most frequent first."""
        with self.reading() as connection:
            reasons = read_counts(connection, COUNTS, "set_aside")
        return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def of_version(column: sa.ColumnElement[str], window: Window) -> sa.ColumnElement[bool]:
    """Return the condition that an answer is of a window's version, by any of its names."""
    if window.also:
        return column.in_([window.model_version, *window.also])
    return column == window.model_version
