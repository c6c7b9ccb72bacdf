"""Counts that are kept, so that nobody counts rows to say how many there are.

Triggers of the database add what each statement stores or deletes, in its transaction. Whichever
way rows come and go, through this library, a bulk load or by hand, the counts are those of the rows
that a reader sees. A cursor ("counted up to here") would have to be told of each deletion, and
moved by somebody who waits for the writers.

One number for all would make several writers of PostgreSQL wait for each other until they commit.
So each takes the first free slot of a row of numbers, with a lock that it does not wait for, and
keeps it for its transaction; the count is their sum. SQLite's writers take turns and share slot 0.
Slot -1 holds what was there before the triggers were.

SQLite calls a trigger for each row, which would add more than half to the time that storing an
interaction takes. Its positions are those of the rows: one more than the highest there is. So
interactions are counted there as the highest position less the positions without a row, and only
a deletion has to be noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from ratchet.store.rows import chunks

_BEFORE = -1
_INTERACTIONS = "interactions"
_LOCK = 7246485  # any number that nobody else in the database takes


@dataclass(frozen=True, slots=True)
class _Counted:
    """A table whose rows are counted.

    Attributes:
        part: What is counted apart, in SQL; `row` stands for the row.
        only: Which rows, in SQL.
    """

    table: str
    part: str
    only: str = "true"


_COUNTED = (
    _Counted(_INTERACTIONS, "''"),
    _Counted("feedback", "row.kind", "row.version_of IS NULL"),  # not each version of an event
    _Counted("set_aside", "row.reason"),
)

KEPT_BY_TRIGGERS = tuple(counted.table for counted in _COUNTED)
"""Names of the counts that triggers keep; others are put there by `put_numbers`."""


def keep_counts(connection: sa.Connection, *, between: Callable[[], None] = lambda: None) -> None:
    """Make the triggers and count what is there; done again, it counts anew.

    On PostgreSQL the triggers belong to the tables that are there: a migration that replaces one of
    these tables moves them. Others may write between the triggers and the count: it takes off what
    the triggers have counted, as one statement sees both.

    Args:
        connection: An open transaction.
        between: Called once the triggers are made. To make them locks the tables, to count them
            takes long: a transaction may end here.
    """
    sqlite = connection.dialect.name == "sqlite"
    for counted in _COUNTED:
        triggers = _sqlite_triggers if sqlite else _postgresql_triggers
        for statement in triggers(counted):
            connection.exec_driver_sql(statement)
    between()
    connection.exec_driver_sql(f"DELETE FROM counts WHERE slot = {_BEFORE}")
    for counted in _COUNTED:
        key = "part" if sqlite else "md5(part)"  # PostgreSQL does not index texts of any length
        highest = f"UNION ALL SELECT '', -max(position) FROM {_INTERACTIONS}"
        part = counted.part.replace("row.", "")
        only = counted.only.replace("row.", "")
        connection.exec_driver_sql(f"""
INSERT INTO counts (name, key, part, slot, value)
SELECT '{counted.table}', {key}, part, {_BEFORE}, sum(rows) FROM (
    SELECT {part} AS part, count(*) AS rows FROM {counted.table} WHERE {only} GROUP BY 1
    UNION ALL SELECT part, -value FROM counts WHERE name = '{counted.table}'
    {highest if sqlite and counted.table == _INTERACTIONS else ""}
) AS found GROUP BY part HAVING sum(rows) <> 0
""")


def read_counts(connection: sa.Connection, counts: sa.Table, name: str) -> dict[str, int]:
    """Return how many rows a table has by part: kind of feedback, or reason to set aside."""
    total = sa.func.sum(counts.c.value)
    query = sa.select(counts.c.part, total).where(counts.c.name == name)
    query = query.group_by(counts.c.part).having(total > 0)
    return {part: int(value) for part, value in connection.execute(query)}


def count_interactions(connection: sa.Connection, counts: sa.Table, interactions: sa.Table) -> int:
    """Return how many interactions there are."""
    kept = sa.select(sa.func.coalesce(sa.func.sum(counts.c.value), 0))
    kept = kept.where(counts.c.name == _INTERACTIONS)
    if connection.dialect.name != "sqlite":
        return int(connection.execute(kept).scalar_one())
    highest = sa.select(sa.func.coalesce(sa.func.max(interactions.c.position), 0))
    both = sa.select(kept.scalar_subquery() + highest.scalar_subquery())
    return int(connection.execute(both).scalar_one())


def read_numbers(
    connection: sa.Connection,
    counts: sa.Table,
    names: Iterable[str],
    parts: Iterable[str] | None = None,
) -> dict[str, dict[str, int]]:
    """Return kept numbers by name and part, of some parts where these are given."""
    found: dict[str, dict[str, int]] = {name: {} for name in names}
    columns = counts.c
    query = sa.select(columns.name, columns.part, columns.value).where(columns.name.in_(found))
    some = [None] if parts is None else chunks(parts)
    for keys in some if found else ():
        where = sa.true() if keys is None else columns.key.in_(keys)
        for name, part, value in connection.execute(query.where(where)):
            found[name][part] = int(value)
    return found


def add_numbers(
    connection: sa.Connection, counts: sa.Table, name: str, new: Mapping[str, int]
) -> None:
    """Add to kept numbers; the transaction takes turns with others."""
    before = read_numbers(connection, counts, (name,), new)[name] if new else {}
    sums = {part: before.get(part, 0) + count for part, count in new.items()}
    put_numbers(connection, counts, name, sums)


def put_numbers(
    connection: sa.Connection, counts: sa.Table, name: str, values: Mapping[str, int]
) -> None:
    """Keep numbers in place of those that were kept; the transaction takes turns with others."""
    columns = counts.c
    for part, value in values.items():
        mine = sa.and_(columns.name == name, columns.key == part, columns.slot == 0)
        changed = connection.execute(sa.update(counts).where(mine).values(value=value))
        if not changed.rowcount:
            row = {"name": name, "key": part, "slot": 0, "part": part, "value": value}
            connection.execute(sa.insert(counts), row)


def _sqlite_triggers(counted: _Counted) -> list[str]:
    table = counted.table
    insert = "INSERT OR IGNORE INTO counts (name, key, part, slot, value) VALUES "
    if table == _INTERACTIONS:
        highest = f"(SELECT coalesce(max(position), 0) FROM {table})"
        return [
            f"{insert} ('{table}', '', '', 0, 0)",
            f"DROP TRIGGER IF EXISTS count_{table}_delete",
            # where the last row goes, the highest position falls, perhaps over a gap
            f"CREATE TRIGGER count_{table}_delete AFTER DELETE ON {table} BEGIN "
            f"UPDATE counts SET value = value - 1 + max(0, OLD.position - {highest}) "
            f"WHERE name = '{table}' AND key = '' AND slot = 0; END",
        ]
    statements = []
    for row, event, step in (("NEW", "INSERT", 1), ("OLD", "DELETE", -1)):
        part, only = (text.replace("row.", f"{row}.") for text in (counted.part, counted.only))
        name = f"count_{table}_{event.lower()}"
        statements += [
            f"DROP TRIGGER IF EXISTS {name}",
            # no "on conflict do update": the outer statement's "or ignore" would overrule it
            f"CREATE TRIGGER {name} AFTER {event} ON {table} WHEN {only} BEGIN "
            f"{insert} ('{table}', {part}, {part}, 0, 0); "
            f"UPDATE counts SET value = value + {step} "
            f"WHERE name = '{table}' AND key = {part} AND slot = 0; END",
        ]
    return statements


def _postgresql_triggers(counted: _Counted) -> list[str]:
    part, only = counted.part, counted.only
    function = f"count_{counted.table}"
    statements = [
        f"""
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE free int := 0;
BEGIN
    WHILE NOT pg_try_advisory_xact_lock({_LOCK} # hashtext(current_schema()), free) LOOP
        free := free + 1;
    END LOOP;
    INSERT INTO counts AS kept (name, key, part, slot, value)
    SELECT '{counted.table}', md5(part), part, free,
        CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM (SELECT {part} AS part FROM changed AS row WHERE {only}) AS rows GROUP BY part
    ON CONFLICT (name, key, slot) DO UPDATE SET value = kept.value + excluded.value;
    RETURN NULL;
END $$
"""
    ]
    for event, rows in (("INSERT", "NEW"), ("DELETE", "OLD")):
        name = f"{function}_{event.lower()}"
        statements += [
            f"DROP TRIGGER IF EXISTS {name} ON {counted.table}",
            f"CREATE TRIGGER {name} AFTER {event} ON {counted.table} "
            f"REFERENCING {rows} TABLE AS changed "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
        ]
    return statements
