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

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.files.text import first_line
from ratchet.records import Feedback, Interaction, SetAside
from ratchet.records.prices import NO_PRICES, Prices
from ratchet.store.accounts import Accounts
from ratchet.store.adding import Added, add_feedback, add_interactions
from ratchet.store.aliases import Aliases
from ratchet.store.connections import create_engine
from ratchet.store.definitions import Definitions
from ratchet.store.event_rows import FeedbackRow, InteractionRow, feedback_row, interaction_row
from ratchet.store.facts import claim, identity_of, owner_of
from ratchet.store.forgotten import (
    Forgotten,
    forget_interactions,
    read_forgotten,
    without_words,
)
from ratchet.store.journal import Journal
from ratchet.store.migrating import migrate
from ratchet.store.origins import note_real, note_simulated, read_origins, refuse_among_real
from ratchet.store.reading import Readings, Window
from ratchet.store.recorded import Recorded
from ratchet.store.rows import microseconds
from ratchet.store.set_aside import set_aside_values
from ratchet.store.tables import (
    APPLIED,
    FACTS,
    FEEDBACK_EVENTS,
    FORGOTTEN_NAMES,
    INTERACTIONS,
    JOURNAL,
    MIGRATIONS,
    SET_ASIDE,
)
from ratchet.store.transactions import lock_journal

__all__ = ["Added", "EventStore", "Window"]

_SIMULATING = "ratchet_simulating"  # marks the connection of an open `simulating`


class EventStore(Readings, Journal, Recorded, Aliases, Definitions, Accounts):
    """See the module's text. Safe to use from several threads and processes."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        assistant: str | None = None,
        connections: int | None = None,
        prices: Prices = NO_PRICES,
    ) -> EventStore:
        """Connect to `url`, creating the database file and its tables where they are missing.

        Args:
            url: SQLAlchemy URL, with options of the connections (`ratchet.store.connections`).
            clock: Tells when rows are received.
            assistant: Whose store it is (`Settings.model_name`); the first one keeps it. Not asked
                where None.
            connections: To PostgreSQL, for a process that needs few; see `create_engine`.
            prices: What tokens cost where nobody says what an answer cost.

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
            engine = create_engine(parsed, connections)
            migrate(engine, MIGRATIONS, clock)
            store = cls(engine, clock)
            store.prices = prices
            if assistant is not None:
                claim(store, FACTS, assistant, parsed)
        except (sa.exc.DatabaseError, sa.exc.ArgumentError, ImportError, OSError) as error:
            raise _not_opened(parsed, error) from error
        return store

    @classmethod
    def opened(cls, url: str) -> EventStore | None:
        """Open a store that is there; None where nothing is, and nothing is made.

        Raises:
            InvalidInputError: As `open`.
        """
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError) as error:
            raise _bad_url(url) from error
        if parsed.get_backend_name() == "sqlite":
            is_there = bool(parsed.database) and Path(str(parsed.database)).exists()
            return cls.open(url) if is_there else None
        try:
            engine = create_engine(parsed, 1)
            is_there = sa.inspect(engine).has_table(JOURNAL.name)
            engine.dispose()
        except (sa.exc.DatabaseError, sa.exc.ArgumentError, ImportError, OSError) as error:
            raise _not_opened(parsed, error) from error
        return cls.open(url) if is_there else None

    @property
    def identity(self) -> str:
        """What tells it from every other store, also after a move or in a restored backup."""
        with self.reading() as connection:
            return identity_of(connection, APPLIED)

    @property
    def assistant(self) -> str | None:
        """Whose store it is; None before its first use."""
        return owner_of(self, FACTS)

    def add_interactions(self, interactions: Sequence[Interaction]) -> Added:
        """Store interactions; one that is there already changes nothing."""
        return self.add_interaction_rows([interaction_row(item) for item in interactions])

    def add_interaction_rows(self, rows: Sequence[InteractionRow]) -> Added:
        """Store interactions that are rows already. See `add_interactions`."""
        moment = self._clock()
        self._months.prepare(INTERACTIONS.name, rows)

        def add(opened: sa.Connection) -> Added:
            is_first = bool(rows) and self._may_be_first_real(opened)
            added = add_interactions(opened, rows, received_at=microseconds(moment))
            if is_first and added.new:
                note_real(opened, FACTS, moment)
            return added

        return self._add_to(INTERACTIONS, add)

    @contextmanager
    def simulating(self) -> Iterator[None]:
        """One transaction in which the interactions that are added are those of simulated users.

        Raises:
            InvalidInputError: The store holds interactions of real users.
        """
        with self.atomic() as connection:
            refuse_among_real(read_origins(connection, FACTS))
            connection.info[_SIMULATING] = True
            try:
                yield
                last = connection.execute(sa.select(sa.func.max(INTERACTIONS.c.position))).scalar()
                if last is not None:
                    note_simulated(connection, FACTS, last)
            finally:
                connection.info.pop(_SIMULATING, None)

    def _may_be_first_real(self, connection: sa.Connection) -> bool:
        """Tell whether this is the first real interaction; simulated users wait until it is in."""
        if connection.info.get(_SIMULATING) or self.origins().real_since is not None:
            return False
        lock_journal(connection)
        return read_origins(connection, FACTS).real_since is None

    def add_feedback(self, feedback: Sequence[Feedback]) -> Added:
        """Store feedback, also for interactions that have not arrived yet.

        Another version of stored feedback, under its id with another `updated_at`, is stored beside
        it; of all versions the one with the latest time counts.
        """
        return self.add_feedback_rows([feedback_row(item) for item in feedback])

    def add_feedback_rows(self, rows: Sequence[FeedbackRow]) -> Added:
        """Store feedback events that are rows already. See `add_feedback`."""
        now = microseconds(self._clock())
        self._months.prepare(FEEDBACK_EVENTS.name, rows)
        return self._add_to(
            FEEDBACK_EVENTS, lambda opened: add_feedback(opened, rows, received_at=now)
        )

    def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Keep bad rows with their reasons; of those that name a forgotten user, no words."""
        values = set_aside_values(rows)
        with self.reading() as connection:
            kept = without_words(connection, FORGOTTEN_NAMES, values)
        self._keep(SET_ASIDE, kept)

    def forgotten(self, users: Collection[str], interactions: Collection[str]) -> Forgotten:
        """Return those of some users and interactions that were forgotten."""
        with self.reading() as connection:
            return read_forgotten(connection, FORGOTTEN_NAMES, users, interactions)

    def keep_forgotten(self, interactions: Iterable[str], now: datetime) -> None:
        """Keep that interactions are erased, so that they are not stored again."""
        forget_interactions(self, FORGOTTEN_NAMES, interactions, now)


def _bad_url(url: str) -> InvalidInputError:
    return InvalidInputError(
        "the store must be a sqlite or postgresql URL, got one that starts with "
        f"{url.partition(':')[0]!r}; "
        "for example sqlite:///ratchet.db or postgresql+psycopg://user@host/ratchet"
    )


def _not_opened(url: sa.URL, error: Exception) -> InvalidInputError:
    cause = first_line(getattr(error, "orig", None) or error)
    return InvalidInputError(
        f"the store must open as a database, got {url.render_as_string(hide_password=True)!r}: "
        f"{cause}; check RATCHET_STORE_URL and RATCHET_HOME "
        "(PostgreSQL needs its driver: pip install 'psycopg[binary]')"
    )
