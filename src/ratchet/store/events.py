"""The event store: append-only, idempotent by id, SQLite by default and PostgreSQL by URL.

Interactions and feedback are wide tables, read out in bulk as Arrow. Everything of low volume
(decisions, alerts, training sets, cycles) is a journal of records. Nothing is updated or deleted.

    store = EventStore.open("sqlite:///ratchet.db")
    with store.atomic():
        store.add_interactions([interaction])
        store.append(decision)

Times are stored as microseconds since 1970 in UTC: the same in both databases, and Arrow reads
them without parsing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.records import Feedback, Interaction, SetAside
from ratchet.store.bulk import insert_new
from ratchet.store.connections import configure_sqlite
from ratchet.store.event_rows import FeedbackRow, InteractionRow, feedback_row, interaction_row
from ratchet.store.facts import claim
from ratchet.store.feedback import name_versions
from ratchet.store.journal import Journal
from ratchet.store.reading import Readings, Window
from ratchet.store.recorded import Recorded
from ratchet.store.rows import chunks, microseconds
from ratchet.store.set_aside import set_aside_values
from ratchet.store.tables import (
    APPLIED,
    FACTS,
    FEEDBACK_EVENTS,
    INTERACTIONS,
    MIGRATIONS,
    SET_ASIDE,
)

__all__ = ["Added", "EventStore", "Window"]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch.

    Attributes:
        new: Events stored by this call.
        repeated: Events that were there already with the same content.
        conflicts: Ids that were there already with other content; the stored one stands.
    """

    new: int
    repeated: int
    conflicts: tuple[str, ...]


class EventStore(Readings, Journal, Recorded):
    """See the module's text. Safe to use from several threads and processes."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        assistant: str | None = None,
    ) -> EventStore:
        """Connect to `url`, creating the database file and its tables where they are missing.

        Args:
            url: SQLAlchemy URL.
            clock: Tells when rows are received.
            assistant: Whose store it is (`Settings.model_name`); the first one keeps it. Not asked
                where None.

        Raises:
            SettingsError: The store belongs to another assistant.
            InvalidInputError: The URL is not one of SQLite or PostgreSQL, its driver is not
                installed, or what it names does not open as a database.
        """
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError) as error:
            raise _bad_url(url) from error
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise _bad_url(url)
        try:
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(parsed)
            if engine.dialect.name == "sqlite":
                configure_sqlite(engine)
            store = cls(engine, clock)
            store._migrate()
            if assistant is not None:
                claim(store, FACTS, assistant, parsed)
        except (sa.exc.DatabaseError, sa.exc.ArgumentError, ImportError, OSError) as error:
            raise _not_opened(parsed, error) from error
        return store

    def add_interactions(self, interactions: Sequence[Interaction]) -> Added:
        """Store interactions; one that is there already changes nothing."""
        return self.add_interaction_rows([interaction_row(item) for item in interactions])

    def add_interaction_rows(self, rows: Sequence[InteractionRow]) -> Added:
        """Store interactions that are rows already. See `add_interactions`."""
        return self._add(INTERACTIONS, rows)

    def add_feedback(self, feedback: Sequence[Feedback]) -> Added:
        """Store feedback, also for interactions that have not arrived yet.

        Another version of stored feedback, under its id with another `updated_at`, is stored beside
        it; of all versions the one with the latest time counts.
        """
        return self.add_feedback_rows([feedback_row(item) for item in feedback])

    def add_feedback_rows(self, rows: Sequence[FeedbackRow]) -> Added:
        """Store feedback events that are rows already. See `add_feedback`."""
        with self.atomic() as connection:
            return self._add(FEEDBACK_EVENTS, name_versions(connection, rows))

    def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Keep bad rows with their reasons."""
        with self.atomic() as connection:
            for chunk in chunks(set_aside_values(rows)):
                connection.execute(self._insert(SET_ASIDE), chunk)

    def _add(
        self, table: sa.Table, rows: Sequence[InteractionRow] | Sequence[FeedbackRow]
    ) -> Added:
        now = microseconds(self._clock())
        first: dict[str, InteractionRow | FeedbackRow] = {}
        for row in rows:
            first.setdefault(row.id, row)
        with self.atomic() as connection:
            there = insert_new(connection, table, list(first.values()), received_at=now)
        repeated, conflicts = 0, []
        for row in rows if there or len(first) < len(rows) else ():
            digest = there.get(row.id) or first[row.id].digest
            if row is first[row.id] and row.id not in there:
                continue
            if digest == row.digest:
                repeated += 1
            else:
                conflicts.append(getattr(row, "version_of", None) or row.id)
        return Added(new=len(first) - len(there), repeated=repeated, conflicts=tuple(conflicts))

    def _migrate(self) -> None:
        with self.atomic() as connection:
            APPLIED.create(connection, checkfirst=True)
            applied = set(connection.execute(sa.select(APPLIED.c.name)).scalars())
            for name, apply in MIGRATIONS.items():
                if name not in applied:
                    apply(connection)
                    row = {"name": name, "applied_at": microseconds(self._clock())}
                    connection.execute(sa.insert(APPLIED), row)


def _bad_url(url: str) -> InvalidInputError:
    return InvalidInputError(
        "the store must be a sqlite or postgresql URL, got one that starts with "
        f"{url.partition(':')[0]!r}; "
        "for example sqlite:///ratchet.db or postgresql+psycopg://user@host/ratchet"
    )


def _not_opened(url: sa.URL, error: Exception) -> InvalidInputError:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return InvalidInputError(
        f"the store must open as a database, got {url.render_as_string(hide_password=True)!r}: "
        f"{cause}; check RATCHET_STORE_URL and RATCHET_HOME "
        "(PostgreSQL needs its driver: pip install 'psycopg[binary]')"
    )
