"""Which interactions are those of simulated users: ranges of positions, a fact of the store.

Simulated users come only while a store holds nobody else, so they are what arrived first. From the
first interaction of a real user on, whatever reads traffic leaves them out. Stores of before may
hold them in several places, which the migration finds by their ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count, islice

import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.records import derive_id
from ratchet.store.months import with_ids
from ratchet.store.rows import moment_of

SIMULATED = "simulated_interactions"
REAL_SINCE = "real_users_since"

_CHUNK = 500
_EMPTY_CHUNKS = 10  # as many ids without a row end the search: retention may have taken the first
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Origins:
    """Whose interactions a store holds.

    Attributes:
        simulated: Positions of simulated users' interactions: first and last of each range.
        real_since: When the first interaction of a real user was stored; None: there is none.
    """

    simulated: Ranges = ()
    real_since: datetime | None = None

    def chosen(self, position: sa.ColumnElement[int], simulated: bool | None) -> list[Condition]:
        """Return the conditions under which a row counts.

        Args:
            position: Of the row.
            simulated: Whether simulated users' rows are read, or all others; None: what the store
                is about, which is real users as soon as there is one.
        """
        if simulated or (simulated is None and self.real_since is None):
            among = [position.between(*ends) for ends in self.simulated]
            return [sa.or_(sa.false(), *among)] if self.real_since else []
        return [sa.not_(position.between(*ends)) for ends in self.simulated]

    def in_sql(self, position: str, simulated: bool | None) -> str:
        """Return the same as SQL text, for rows of history."""
        among = " OR ".join(f"{position} BETWEEN {a} AND {b}" for a, b in self.simulated) or "false"
        if simulated or (simulated is None and self.real_since is None):
            return f"({among})" if self.real_since else "true"
        return f"NOT ({among})"

    @property
    def about_simulated(self) -> bool:
        """Whether the store is about simulated users: they came, and no real one did."""
        return self.real_since is None and bool(self.simulated)

    @property
    def found_since(self) -> datetime | None:
        """Since when what was found is about those whom the store is about; None: all of it."""
        return self.real_since if self.simulated else None

    def counts(self, found_at: datetime) -> bool:
        """Tell whether what was found at a time is about those whom the store is about today."""
        return self.found_since is None or found_at >= self.found_since


Condition = sa.ColumnElement[bool]


def read_origins(connection: sa.Connection, facts: sa.Table) -> Origins:
    """Return whose interactions a store holds."""
    query = sa.select(facts.c.name, facts.c.value)
    query = query.where(facts.c.name.in_((SIMULATED, REAL_SINCE)))
    known = {row[0]: row[1] for row in connection.execute(query)}
    since = known.get(REAL_SINCE)
    return Origins(
        tuple((first, last) for first, last in json.loads(known.get(SIMULATED, "[]"))),
        None if since is None else datetime.fromisoformat(since),
    )


def note_simulated(connection: sa.Connection, facts: sa.Table, last: int) -> None:
    """Remember that all rows up to a position are those of simulated users."""
    _set(connection, facts, SIMULATED, json.dumps([[1, last]]))


def note_real(connection: sa.Connection, facts: sa.Table, since: datetime) -> None:
    """Remember when the first real user's interaction was stored."""
    _set(connection, facts, REAL_SINCE, since.isoformat())


def refuse_among_real(origins: Origins) -> None:
    """Refuse to add simulated users to a store that holds real ones.

    Raises:
        InvalidInputError: It does.
    """
    if origins.real_since is not None:
        raise InvalidInputError(
            "simulated users must not come among real ones, got a store that holds real traffic "
            f"since {origins.real_since:%Y-%m-%d %H:%M} UTC; set RATCHET_HOME to another folder "
            "(and RATCHET_STORE_URL to another database, where you set it)"
        )


def find_simulated(
    connection: sa.Connection, facts: sa.Table, journal: sa.Table, interactions: sa.Table
) -> None:
    """Tell simulated users in a store of before: their ids derive from the cycle they came in."""
    position = interactions.c.position
    cycles = connection.execute(
        sa.select(journal.c.id).where(journal.c.kind == "Cycle").order_by(journal.c.position)
    ).scalars()
    found = sorted(at for key in cycles.all() for at in _of_cycle(connection, interactions, key))
    ranges = tuple(_ranges(connection, position, found))
    if ranges:
        _set(connection, facts, SIMULATED, json.dumps(ranges))
    others = Origins(ranges, None).chosen(position, simulated=False)
    first = sa.select(interactions.c.received_at).where(*others).order_by(position).limit(1)
    received = connection.execute(first).scalar_one_or_none()
    if received is not None:
        note_real(connection, facts, moment_of(received))


def _of_cycle(connection: sa.Connection, interactions: sa.Table, cycle: str) -> Iterator[int]:
    """Yield the positions of the interactions whose ids derive from a cycle's."""
    ids, empty = (derive_id(cycle, number) for number in count()), 0
    while empty < _EMPTY_CHUNKS:
        chunk = list(islice(ids, _CHUNK))
        query = sa.select(interactions.c.position)
        rows = connection.execute(query.where(with_ids(connection, interactions, chunk))).scalars()
        found = rows.all()
        yield from found
        empty = 0 if found else empty + 1


def _ranges(
    connection: sa.Connection, position: sa.Column[int], found: Sequence[int]
) -> Iterable[tuple[int, int]]:
    """Yield ranges of ascending positions between which no other row lies."""
    if not found:
        return
    first = last = found[0]
    for at in found[1:]:
        between = sa.select(position).where(position > last, position < at).limit(1)
        if at - last > 1 and connection.execute(between).first() is not None:
            yield first, last
            first = at
        last = at
    yield first, last


def _set(connection: sa.Connection, facts: sa.Table, name: str, value: str) -> None:
    connection.execute(sa.delete(facts).where(facts.c.name == name))
    connection.execute(sa.insert(facts), {"name": name, "value": value})
