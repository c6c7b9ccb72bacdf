"""Other ids of stored interactions, and finding an interaction by its time instead of its id.

The same answer may come in twice under different ids: from two exports that overlap, or from two
tools. It is stored once; the ids that were not stored are kept here, so that what comes about them
later is about the stored answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from ratchet.store.event_rows import FeedbackRow
from ratchet.store.months import with_ids
from ratchet.store.rows import chunks, microseconds, one_of
from ratchet.store.tables import ALIASES, FEEDBACK_EVENTS, INTERACTIONS
from ratchet.store.transactions import Transactions

SECOND, MILLISECOND, MICROSECOND = 1_000_000, 1_000, 1
_FEEDBACK = tuple(FEEDBACK_EVENTS.c[name] for name in FeedbackRow._fields)


class Alias(NamedTuple):
    """Another id of a stored interaction.

    Attributes:
        other_id: The id that is not stored.
        interaction_id: The stored interaction.
        digest: Of the row that came under the other id, so that it is known again.
    """

    other_id: str
    interaction_id: str
    digest: str


class Stored(NamedTuple):
    """What tells who was answered when, without the texts."""

    id: str
    digest: str
    created_at: int
    user_id: str
    session_id: str


class Said(NamedTuple):
    """A conversation and the answer to it, by which two records are known to be the same.

    Attributes:
        messages: As stored, parsed from JSON.
        tool_calls: Likewise; None where there are none.
    """

    messages: Any
    response: str
    tool_calls: Any = None
    refusal: str | None = None


class Aliases(Transactions):
    """Other ids, and interactions by their time."""

    def has_aliases(self) -> bool:
        """Tell whether any interaction has another id."""
        with self.reading() as connection:
            return connection.execute(sa.select(ALIASES.c.other_id).limit(1)).first() is not None

    def aliases(self, ids: Iterable[str]) -> dict[str, Alias]:
        """Return those of the ids that are other ids of stored interactions."""
        columns = [ALIASES.c[name] for name in Alias._fields]
        found: dict[str, Alias] = {}
        with self.reading() as connection:
            for chunk in chunks(ids):
                query = sa.select(*columns).where(one_of(connection, ALIASES.c.other_id, chunk))
                found |= {row[0]: Alias(*row) for row in connection.execute(query)}
        return found

    def add_aliases(self, found: Sequence[Alias]) -> None:
        """Keep other ids; one that is there already stands."""
        now = microseconds(self._clock())
        self._keep(ALIASES, [alias._asdict() | {"added_at": now} for alias in found])

    def ends_between(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the first and the last time of an interaction in [start, end), None without any.

        In microseconds since 1970.
        """
        created_at = INTERACTIONS.c.created_at
        inside = (created_at >= start, created_at < end)
        queries = [
            sa.select(pick(created_at)).where(*inside) for pick in (sa.func.min, sa.func.max)
        ]
        with self.reading() as connection:
            first, last = (connection.execute(query).scalar_one() for query in queries)
        return None if first is None else (first, last)

    def stored_at(self, spans: Mapping[int, Sequence[int]]) -> list[Stored]:
        """Return the interactions whose times begin with one of some times.

        Args:
            spans: By their length in microseconds, the beginnings of spans of time; each is found
                by the index of times.
        """
        found: dict[str, Stored] = {}
        with self.reading() as connection:
            sqlite = connection.dialect.name == "sqlite"
            for length, starts in spans.items():
                if starts:
                    ask = _in_sqlite if sqlite else _in_postgresql
                    rows = ask(connection, length, sorted(set(starts)))
                    found |= {row[0]: Stored(*row) for row in rows}
        return list(found.values())

    def said_in(self, ids: Sequence[str]) -> dict[str, Said]:
        """Return the conversation and the answer of those of the interactions that are stored."""
        texts: dict[str, Said] = {}
        columns = [INTERACTIONS.c[name] for name in ("id", *Said._fields)]
        with self.reading() as connection:
            for chunk in chunks(ids):
                query = sa.select(*columns).where(with_ids(connection, INTERACTIONS, chunk))
                texts |= {row[0]: Said(*row[1:]) for row in connection.execute(query)}
        return texts

    def feedback_about(self, ids: Iterable[str]) -> list[FeedbackRow]:
        """Return the feedback on some interactions, stored or not, all versions of it."""
        found: list[FeedbackRow] = []
        with self.reading() as connection:
            for chunk in chunks(ids):
                about = one_of(connection, FEEDBACK_EVENTS.c.interaction_id, chunk)
                found += [FeedbackRow(*row) for row in connection.execute(_feedback(about))]
        return found

    def any_stored(self, positions: Sequence[int]) -> set[int]:
        """Return those of the positions at which an interaction is stored."""
        position = INTERACTIONS.c.position
        with self.reading() as connection:
            return {
                found
                for chunk in chunks(positions)
                for found in connection.execute(
                    sa.select(position).where(position.in_(chunk))
                ).scalars()
            }


def _feedback(about: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(*_FEEDBACK).where(about).order_by(FEEDBACK_EVENTS.c.position)


_COLUMNS = ", ".join(f"stored.{name}" for name in Stored._fields)


def _in_sqlite(connection: sa.Connection, length: int, starts: Sequence[int]) -> Sequence[Any]:
    query = (
        f"SELECT {_COLUMNS} FROM json_each(?) AS sent CROSS JOIN interactions AS stored "
        "ON stored.created_at >= sent.value AND stored.created_at < sent.value + ?"
    )
    return connection.exec_driver_sql(query, (json.dumps(starts), length)).fetchall()


def _in_postgresql(connection: sa.Connection, length: int, starts: Sequence[int]) -> Sequence[Any]:
    # the outer bounds keep partitions out in which none of the times lies
    query = (
        f"SELECT {_COLUMNS} FROM unnest(%(starts)s::bigint[]) AS sent(start) "
        "JOIN interactions AS stored ON stored.created_at >= sent.start "
        "AND stored.created_at < sent.start + %(length)s "
        "WHERE stored.created_at >= %(first)s AND stored.created_at < %(end)s"
    )
    given = {
        "starts": list(starts), "length": length, "first": starts[0], "end": starts[-1] + length,
    }  # fmt: skip
    return connection.exec_driver_sql(query, given).fetchall()
