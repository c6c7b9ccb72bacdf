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

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records import (
    FEEDBACK_KINDS,
    Feedback,
    Interaction,
    JudgeVerdict,
    Record,
    SetAside,
    digest,
)
from ratchet.store.answers import answer_rows, read_answers
from ratchet.store.connections import configure_sqlite
from ratchet.store.endings import read_endings
from ratchet.store.feedback import feedback_row, name_versions, read_feedback
from ratchet.store.permissions import Permission, read_permissions
from ratchet.store.rows import chunks, microseconds, moment_of
from ratchet.store.set_aside import read_set_aside, set_aside_values
from ratchet.store.signals import read_signals
from ratchet.store.tables import (
    ANSWERS,
    APPLIED,
    EMBEDDINGS,
    FEEDBACK_EVENTS,
    GIVEN_AT,
    INTERACTIONS,
    JOURNAL,
    MIGRATIONS,
    SET_ASIDE,
    VERDICTS,
)
from ratchet.store.vectors import Vectors, read_vectors, vector_rows
from ratchet.store.verdicts import read_verdicts, read_version, write_verdicts

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=Record)
_WRITERS_LOCK = 7246483  # any number that nobody else in the database takes


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


@dataclass(frozen=True, slots=True)
class Window:
    """Interactions with `start <= created_at < end`, of one model version where it is given.

    Attributes:
        arrived_until: Position of the last interaction by arrival; None for all there are.
        without: What another window took already: interactions before this time that had arrived
            up to this position (None: whenever they arrived).
    """

    start: datetime
    end: datetime
    model_version: str | None = None
    arrived_until: int | None = None
    without: tuple[datetime, int | None] | None = None


class EventStore:
    """See the module's text. Safe to use from several threads and processes."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._open: ContextVar[sa.Connection | None] = ContextVar("open", default=None)

    @classmethod
    def open(
        cls, url: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> EventStore:
        """Connect to `url`, creating the database file and its tables where they are missing.

        Raises:
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
        except (sa.exc.DatabaseError, sa.exc.ArgumentError, ImportError, OSError) as error:
            raise _not_opened(parsed, error) from error
        return store

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @contextmanager
    def atomic(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is stored or none. Nested calls join the outer one.

        Writers take turns on both databases, so what a transaction reads stays true until it ends.
        """
        outer = self._open.get()
        if outer is not None:
            yield outer
            return
        with self._engine.connect() as connection:
            connection.execution_options(ratchet_begin="BEGIN IMMEDIATE")
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS_LOCK)))
                token = self._open.set(connection)
                try:
                    yield connection
                finally:
                    self._open.reset(token)

    # Events -----------------------------------------------------------------------------------

    def add_interactions(self, interactions: Sequence[Interaction]) -> Added:
        """Store interactions; one that is there already changes nothing."""
        now = microseconds(self._clock())
        return self._add(INTERACTIONS, [_interaction_row(item, now) for item in interactions])

    def add_feedback(self, feedback: Sequence[Feedback]) -> Added:
        """Store feedback, also for interactions that have not arrived yet.

        Another version of stored feedback, under its id with another `updated_at`, is stored beside
        it; of all versions the one with the latest time counts.
        """
        now = microseconds(self._clock())
        rows = [feedback_row(item, now) for item in feedback]
        with self.atomic() as connection:
            name_versions(connection, rows)
            return self._add(FEEDBACK_EVENTS, rows)

    def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Keep bad rows with their reasons."""
        with self.atomic() as connection:
            for chunk in chunks(set_aside_values(rows)):
                connection.execute(self._insert(SET_ASIDE), chunk)

    def stored_interactions(self, ids: Sequence[str]) -> dict[str, Interaction]:
        """Return those of the interactions with these ids that are stored, by id."""
        interactions: dict[str, Interaction] = {}
        with self._reading() as connection:
            for chunk in chunks(ids):
                query = sa.select(INTERACTIONS).where(INTERACTIONS.c.id.in_(chunk))
                for row in connection.execute(query).mappings():
                    interactions[row["id"]] = _interaction(row)
        return interactions

    def stored_feedback(self, ids: Sequence[str]) -> dict[str, Feedback]:
        """Return those of the feedback events with these ids that are stored, by id.

        Of an event that was edited in place, the version in effect.
        """
        with self._reading() as connection:
            return read_feedback(connection, ids)

    def answered_at(self, ids: Sequence[str]) -> dict[str, datetime]:
        """Return the times of those of the interactions with these ids that are stored, by id."""
        times: dict[str, datetime] = {}
        with self._reading() as connection:
            for chunk in chunks(ids):
                query = sa.select(INTERACTIONS.c.id, INTERACTIONS.c.created_at)
                stored = _pairs(connection, query.where(INTERACTIONS.c.id.in_(chunk)))
                times |= {key: moment_of(moment) for key, moment in stored.items()}
        return times

    def set_aside_rows(self, *, source: str | None = None) -> tuple[SetAside, ...]:
        """Return the rows that were set aside, or those of one source, in the order they came."""
        with self._reading() as connection:
            return read_set_aside(connection, source)

    def interactions(self, window: Window) -> pa.Table:
        """Return a window's interactions in order of time.

        Columns: id, session_id, user_id, created_at (timestamp, us, UTC), model_version, segment,
        prompt, response, latency_seconds, error.
        """
        import pyarrow as pa

        schema = pa.schema(
            [
                ("id", pa.string()),
                ("session_id", pa.string()),
                ("user_id", pa.string()),
                ("created_at", pa.timestamp("us", "UTC")),
                ("model_version", pa.string()),
                ("segment", pa.string()),
                ("prompt", pa.string()),
                ("response", pa.string()),
                ("latency_seconds", pa.float64()),
                ("error", pa.string()),
            ]
        )
        columns = [INTERACTIONS.c[name] for name in schema.names]
        query = (
            sa.select(*columns)
            .where(_within(window))
            .order_by(INTERACTIONS.c.created_at, INTERACTIONS.c.position)
        )
        return self._table(query, schema)

    def feedback(self, window: Window) -> pa.Table:
        """Return the feedback on a window's interactions, whenever it came.

        Columns: id, interaction_id, kind, created_at (timestamp, us, UTC; of an update its
        `updated_at`), number (thumbs 1 up and
        0 down, stars, booleans 1 and 0, seconds), text (comment, correction, the version of a
        judge, the source of a safety violation).
        """
        import pyarrow as pa

        schema = pa.schema(
            [
                ("id", pa.string()),
                ("interaction_id", pa.string()),
                ("kind", pa.string()),
                ("created_at", pa.timestamp("us", "UTC")),
                ("number", pa.float64()),
                ("text", pa.string()),
            ]
        )
        query = (
            sa.select(
                *[
                    GIVEN_AT if name == "created_at" else FEEDBACK_EVENTS.c[name]
                    for name in schema.names
                ]
            )
            .join(INTERACTIONS, INTERACTIONS.c.id == FEEDBACK_EVENTS.c.interaction_id)
            .where(_within(window))
            .order_by(GIVEN_AT, FEEDBACK_EVENTS.c.position)
        )
        return self._table(query, schema)

    def signals(self, window: Window, *, lag: timedelta, judges: Collection[str] = ()) -> pa.Table:
        """Return what monitoring needs of a window: one narrow row an interaction, no texts.

        Feedback of users counts where it was given within `lag` of its interaction, that of judges
        and reviewers whenever it came; of several events of one kind the latest. Reads the window's
        rows alone, by index.

        Args:
            window: The interactions.
            lag: How late feedback of users may be.
            judges: Versions of judges that were found usable; scores of any other are left out.

        Columns: created_at (timestamp, us, UTC), model_version, segment, latency_seconds,
        characters (of the answer), failed, and one for each kind of feedback (`FEEDBACK_KINDS`;
        float, null where not observed; correction and comment are 1 where there is one).
        """
        lag_microseconds = lag // timedelta(microseconds=1)
        with self._reading() as connection:
            return read_signals(connection, _within(window), lag_microseconds, judges)

    def permissions(self, window: Window) -> tuple[Permission, ...]:
        """Return what a window's interactions allow, those that say something about it."""
        with self._reading() as connection:
            return read_permissions(connection, _within(window))

    def endings(self, window: Window, *, besides: Collection[str] = ()) -> dict[str, str]:
        """Return the finish reasons of a window's answers by id, but for those in `besides`.

        Args:
            window: The time.
            besides: Reasons that are left out, in lower case.
        """
        with self._reading() as connection:
            return read_endings(connection, _within(window), besides=besides)

    def counts(self) -> dict[str, int]:
        """Count interactions, set-aside rows and feedback by kind."""
        first = sa.select(FEEDBACK_EVENTS.c.kind, sa.func.count())  # not each version of an event
        kinds = first.where(FEEDBACK_EVENTS.c.version_of.is_(None)).group_by(FEEDBACK_EVENTS.c.kind)
        with self._reading() as connection:
            by_kind = _pairs(connection, kinds)
            totals = {
                name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
                for name, table in (("interactions", INTERACTIONS), ("set_aside", SET_ASIDE))
            }
        return totals | {kind: by_kind.get(kind, 0) for kind in FEEDBACK_KINDS}

    def set_aside_reasons(self) -> dict[str, int]:
        """Count set-aside rows by reason, most frequent first."""
        count = sa.func.count()
        query = sa.select(SET_ASIDE.c.reason, count).group_by(SET_ASIDE.c.reason)
        with self._reading() as connection:
            return _pairs(connection, query.order_by(count.desc(), SET_ASIDE.c.reason))

    def last_interaction_at(self) -> datetime | None:
        """Return the time of the latest interaction."""
        with self._reading() as connection:
            latest = connection.execute(
                sa.select(sa.func.max(INTERACTIONS.c.created_at))
            ).scalar_one()
        return None if latest is None else moment_of(latest)

    # Journal ----------------------------------------------------------------------------------

    def append(self, record: Record) -> bool:
        """Write a record to the journal; False where the same one is there already.

        Raises:
            ConflictError: A record of this kind and id with other content is there.
        """
        body = record.canonical()
        kind, key = _kind(type(record)), str(body["id"])
        moment = datetime.fromisoformat(body["created_at"])
        row = {
            "kind": kind,
            "id": key,
            "body": body,
            "created_at": microseconds(moment),
            "subject": body.get("model_version") or body.get("judge_version"),
        }
        with self.atomic() as connection:
            stored = connection.execute(
                sa.select(JOURNAL.c.body).where(JOURNAL.c.kind == kind, JOURNAL.c.id == key)
            ).scalar_one_or_none()
            if stored is None:
                connection.execute(sa.insert(JOURNAL), row)
                return True
        if stored != body:
            raise ConflictError(
                f"a record never changes once stored, got another {kind} with id {key!r}; "
                "give the new one its own id"
            )
        return False

    def get(self, kind: type[R], key: str) -> R | None:
        """Return the record of this kind and id, or None."""
        query = sa.select(JOURNAL.c.body).where(JOURNAL.c.kind == _kind(kind), JOURNAL.c.id == key)
        with self._reading() as connection:
            body = connection.execute(query).scalar_one_or_none()
        return None if body is None else kind.model_validate(body)

    def present(self, kind: type[Record], keys: Sequence[str]) -> set[str]:
        """Return those of the ids that a record of this kind has."""
        query = sa.select(JOURNAL.c.id).where(JOURNAL.c.kind == _kind(kind))
        with self._reading() as connection:
            found = (query.where(JOURNAL.c.id.in_(chunk)) for chunk in chunks(keys))
            return {key for part in found for key in connection.execute(part).scalars()}

    def records(
        self,
        kind: type[R],
        *,
        latest: int | None = None,
        subject: str | None = None,
        since: datetime | None = None,
    ) -> tuple[R, ...]:
        """Return records of one kind in the order they were written.

        Args:
            kind: Their class.
            latest: Only so many, the last ones.
            subject: Only those about this version of a model or judge.
            since: Only those created then or later.
        """
        query = sa.select(JOURNAL.c.body).where(JOURNAL.c.kind == _kind(kind))
        if subject is not None:
            query = query.where(JOURNAL.c.subject == subject)
        if since is not None:
            query = query.where(JOURNAL.c.created_at >= microseconds(since))
        query = query.order_by(JOURNAL.c.position.desc()).limit(latest)
        with self._reading() as connection:
            bodies = connection.execute(query).scalars().all()
        return tuple(kind.model_validate(body) for body in reversed(bodies))

    def last_positions(self, kinds: Sequence[type[Record]]) -> dict[str, int]:
        """Return where the last record of each kind stands: cheap to ask whether there is more."""
        query = (
            sa.select(JOURNAL.c.kind, sa.func.max(JOURNAL.c.position))
            .where(JOURNAL.c.kind.in_([_kind(kind) for kind in kinds]))
            .group_by(JOURNAL.c.kind)
        )
        with self._reading() as connection:
            return _pairs(connection, query)

    def latest(self, kind: type[R]) -> R | None:
        """Return the record of this kind written last, or None."""
        return next(iter(self.records(kind, latest=1)), None)

    # Recorded answers -------------------------------------------------------------------------

    def answers(self, model_digest: str, decoding: str, ids: Sequence[str]) -> dict[str, str]:
        """Return the recorded answers of a model to examples, by example id."""
        with self._reading() as connection:
            return {i: text for i, text, _ in read_answers(connection, model_digest, decoding, ids)}

    def answer_seconds(
        self, model_digest: str, decoding: str, ids: Sequence[str]
    ) -> dict[str, float]:
        """Return how long recorded answers took, where that is known."""
        with self._reading() as connection:
            answers = read_answers(connection, model_digest, decoding, ids)
            return {key: seconds for key, _, seconds in answers if seconds is not None}

    def add_answers(
        self,
        model_digest: str,
        decoding: str,
        answers: Mapping[str, str],
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Record answers; an answer that is there already stands."""
        with self.atomic() as connection:
            for chunk in chunks(answer_rows(model_digest, decoding, answers, seconds or {})):
                connection.execute(self._insert(ANSWERS), chunk)

    # Vectors of texts -------------------------------------------------------------------------

    def vectors(self, model_digest: str, keys: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors that a model made of texts, by key, where they are stored."""
        with self._reading() as connection:
            return read_vectors(connection, model_digest, keys)

    def add_vectors(self, model_digest: str, vectors: Mapping[str, Vectors]) -> None:
        """Store vectors in half precision; a vector that is there already stands."""
        with self.atomic() as connection:
            for chunk in chunks(vector_rows(model_digest, vectors)):
                connection.execute(self._insert(EMBEDDINGS), chunk)

    # Verdicts ---------------------------------------------------------------------------------

    def verdicts(self, ids: Sequence[str]) -> dict[str, JudgeVerdict]:
        """Return those of the verdicts with these ids that are stored, by id."""
        with self._reading() as connection:
            return read_verdicts(connection, ids)

    def add_verdicts(self, verdicts: Sequence[JudgeVerdict]) -> None:
        """Keep verdicts; one that is there already stands."""
        with self.atomic() as connection:
            write_verdicts(connection, self._insert(VERDICTS), verdicts)

    def verdicts_of(
        self, judge_version: str, *, latest: int | None = None
    ) -> tuple[JudgeVerdict, ...]:
        """Return a judge version's verdicts in the order they were written, or the last ones."""
        with self._reading() as connection:
            return read_version(connection, judge_version, latest)

    # Internals --------------------------------------------------------------------------------

    def _add(self, table: sa.Table, rows: Sequence[dict[str, Any]]) -> Added:
        new, repeated, conflicts = 0, 0, []
        with self.atomic() as connection:
            for chunk in chunks(rows):
                query = sa.select(table.c.id, table.c.digest)
                ids = [row["id"] for row in chunk]
                stored = _pairs(connection, query.where(table.c.id.in_(ids)))
                fresh: list[dict[str, Any]] = []
                for row in chunk:
                    if row["id"] not in stored:
                        stored[row["id"]] = row["digest"]
                        fresh.append(row)
                    elif stored[row["id"]] == row["digest"]:
                        repeated += 1
                    else:
                        conflicts.append(row.get("version_of") or row["id"])
                if fresh:
                    connection.execute(self._insert(table), fresh)
                new += len(fresh)
        return Added(new=new, repeated=repeated, conflicts=tuple(conflicts))

    def _insert(self, table: sa.Table) -> sa.Insert:
        """An insert that leaves what is there, should another process have been faster."""
        if self._engine.dialect.name == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        outer = self._open.get()
        if outer is not None:
            yield outer
            return
        with self._engine.connect() as connection:
            yield connection

    def _table(self, query: sa.Select[Any], schema: pa.Schema) -> pa.Table:
        import pyarrow as pa

        with self._reading() as connection:
            rows = connection.execute(query).fetchall()
        columns = list(zip(*rows, strict=True)) or [()] * len(schema)
        arrays = [
            pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

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


def _pairs(connection: sa.Connection, query: sa.Select[Any]) -> dict[Any, Any]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _kind(record: type[Record]) -> str:
    return record.__name__


def _within(window: Window) -> sa.ColumnElement[bool]:
    created_at, position = INTERACTIONS.c.created_at, INTERACTIONS.c.position
    inside = [created_at >= microseconds(window.start), created_at < microseconds(window.end)]
    if window.model_version is not None:
        inside.append(INTERACTIONS.c.model_version == window.model_version)
    if window.arrived_until is not None:
        inside.append(position <= window.arrived_until)
    if window.without is not None:
        end, arrived = window.without
        late = sa.false() if arrived is None else position > arrived
        inside.append(sa.or_(created_at >= microseconds(end), late))
    return sa.and_(*inside)


def _interaction_row(interaction: Interaction, now: int) -> dict[str, Any]:
    body = interaction.canonical()
    return body | {
        "digest": digest(body)[:16],
        "prompt": interaction.prompt,
        "created_at": microseconds(interaction.created_at),
        "received_at": now,
    }


def _interaction(row: sa.RowMapping) -> Interaction:
    values = {name: row[name] for name in Interaction.model_fields}
    return Interaction.model_validate(values | {"created_at": moment_of(row["created_at"])})
