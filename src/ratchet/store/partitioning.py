"""The migration that divides interactions and feedback by month on PostgreSQL, on a live store.

The table that is there becomes the first partition, so that no row is copied. Every step ends its
transaction, holds its locks for moments and does no harm when it is run again:

1. A table of ids, kept by a trigger from then on and filled with the ids of before in batches.
2. A table for rows of times to come, and a trigger that puts such rows there. A constraint then
   says that the old table has none, which is checked without stopping writers.
3. The switch: the old table gets another name, and a partitioned one its own. The constraint
   proves the bounds, so that no row is read.

Between 2 and 3, seconds apart, nobody sees rows dated beyond the next month; cursors wait for them.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from ratchet.store.months import (
    PARTITIONED,
    attach,
    ids_of,
    make_part,
    month_of,
    start_of,
)
from ratchet.store.positions import held_back

_BATCH = 20_000
_TRIGGERED = re.compile(r" ON \S+ ")
_INDEX = re.compile(r"CREATE INDEX (?P<name>\S+) ON (?:ONLY )?\S+ USING (?P<rest>.*)", re.DOTALL)


def partition_by_month(connection: sa.Connection) -> None:
    """Divide interactions and feedback by month; SQLite keeps them whole."""
    if connection.dialect.name != "postgresql":
        return
    for table in PARTITIONED:
        connection.commit()
        kind = "SELECT relkind FROM pg_class WHERE oid = to_regclass(:table)"
        if _value(connection, kind, table=table) == "p":
            continue  # in an attempt before
        _short(connection)
        _keep_ids(connection, table)
        connection.commit()
        if _is_empty(connection, table):
            _divide_empty(connection, table)
        else:
            _copy_ids(connection, table)
            _divide(connection, table)
    _short(connection)


def _divide_empty(connection: sa.Connection, table: str) -> None:
    _short(connection)
    _run(connection, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    if _is_empty(connection, table):  # nobody was faster
        make_part(connection, table, f"{table}_other")
        _switch(connection, table, None)
    connection.commit()


def _divide(connection: sa.Connection, table: str) -> None:
    with held_back(connection, table) as hold:
        end = _first_end(connection, table)
        _short(connection)
        _divert(connection, table, end)
        connection.commit()
        later = _value(connection, f"SELECT min(position) FROM {table} WHERE created_at >= {end}")
        if later is not None:
            hold(int(str(later)))
        _run(
            connection,
            f"WITH later AS (DELETE FROM {table} WHERE created_at >= {end} RETURNING *) "
            f"INSERT INTO {table}_other SELECT * FROM later",
        )
        connection.commit()
        _run(connection, f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_before_{end}")
        connection.commit()
        _short(connection)
        _run(connection, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        _switch(connection, table, end)
        connection.commit()
    _run(connection, f"ANALYZE {table}")
    connection.commit()


# Ids --------------------------------------------------------------------------------------------


def _keep_ids(connection: sa.Connection, table: str) -> None:
    """Keep the ids of all rows that come in from now on."""
    ids = ids_of(table)
    _run(
        connection,
        f"CREATE TABLE IF NOT EXISTS {ids} (id VARCHAR(200) PRIMARY KEY, "
        "created_at BIGINT NOT NULL, digest VARCHAR(16) NOT NULL)",
    )
    _run(
        connection,
        f"CREATE OR REPLACE FUNCTION keep_{ids}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"INSERT INTO {ids} SELECT id, created_at, digest FROM new_rows ORDER BY id; "
        "RETURN NULL; END $$",
    )
    _add_ids_trigger(connection, table)


def _add_ids_trigger(connection: sa.Connection, table: str) -> None:
    ids = ids_of(table)
    _run(
        connection,
        f"CREATE OR REPLACE TRIGGER keep_{ids} AFTER INSERT ON {table} "
        f"REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keep_{ids}()",
    )


def _copy_ids(connection: sa.Connection, table: str) -> None:
    """Keep the ids of the rows of before, from where an earlier attempt stopped."""
    ids, last = ids_of(table), 0
    end = int(str(_value(connection, f"SELECT max(position) FROM {table}")))
    while last < end:
        until = last + _BATCH
        oldest = (
            f"SELECT id FROM {table} WHERE position > {last} AND position <= {until} "
            "ORDER BY position LIMIT 1"
        )  # the trigger kept the ids of later ones, never of earlier ones
        if not _value(connection, f"SELECT 1 FROM {ids} WHERE id = ({oldest})"):
            _run(
                connection,
                f"INSERT INTO {ids} SELECT id, created_at, digest FROM {table} "
                f"WHERE position > {last} AND position <= {until} ON CONFLICT DO NOTHING",
            )
        connection.commit()
        last = until


# Rows of times to come --------------------------------------------------------------------------


def _first_end(connection: sa.Connection, table: str) -> int:
    """Return where the first partition ends: two months on, or where an attempt before said."""
    started = _value(
        connection,
        "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:table) "
        "AND conname LIKE :name",
        table=table,
        name=f"{table}\\_before\\_%",
    )
    if started is not None:
        return int(str(started).rpartition("_")[2])
    now = _value(connection, "SELECT CAST(extract(epoch FROM now()) AS bigint) * 1000000")
    return start_of(month_of(int(str(now))) + 2)


def _divert(connection: sa.Connection, table: str, end: int) -> None:
    """Put rows of times to come into a table of their own."""
    other, ids = f"{table}_other", ids_of(table)
    if _value(connection, "SELECT to_regclass(:other)", other=other) is None:
        make_part(connection, table, other)
        for definition in _triggers(connection, table).values():  # they count rows
            _run(connection, _TRIGGERED.sub(f" ON {other} ", definition, count=1))
    _run(
        connection,
        f"CREATE OR REPLACE FUNCTION divert_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"INSERT INTO {ids} VALUES (NEW.id, NEW.created_at, NEW.digest) ON CONFLICT DO NOTHING; "
        f"IF FOUND THEN INSERT INTO {other} SELECT NEW.*; END IF; RETURN NULL; END $$",
    )
    _run(
        connection,
        f"CREATE OR REPLACE TRIGGER divert_{table} BEFORE INSERT ON {table} FOR EACH ROW "
        f"WHEN (NEW.created_at >= {end}) EXECUTE FUNCTION divert_{table}()",
    )
    constraint = f"{table}_before_{end}"
    _run(connection, f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}")
    _run(
        connection,
        f"ALTER TABLE {table} ADD CONSTRAINT {constraint} CHECK (created_at < {end}) NOT VALID",
    )


# The switch -------------------------------------------------------------------------------------


def _switch(connection: sa.Connection, table: str, end: int | None) -> None:
    """Give the table's name to a partitioned one, in a transaction that holds the table.

    Args:
        connection: The migration's.
        table: Its name.
        end: Where the old table's rows end; None: it has none and is dropped.
    """
    new, first = f"{table}_by_month", f"{table}_first"
    triggers = _triggers(connection, table)
    definitions = list(
        connection.execute(
            sa.text(
                "SELECT pg_get_indexdef(indexrelid) FROM pg_index "
                "WHERE indrelid = to_regclass(:table) AND NOT indisunique"
            ),
            {"table": table},
        ).scalars()
    )
    _run(
        connection,
        f"CREATE TABLE {new} (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE) "
        "PARTITION BY RANGE (created_at)",
    )
    _run(connection, f"ALTER SEQUENCE {table}_position_seq OWNED BY {new}.position")
    if end is None:
        _run(connection, f"DROP TABLE {table}")
    else:
        _run(connection, f"DROP TRIGGER divert_{table} ON {table}")
        _run(connection, f"DROP FUNCTION divert_{table}()")
        _run(connection, f"DROP TRIGGER keep_{ids_of(table)} ON {table}")
        for name in triggers:
            _run(connection, f"DROP TRIGGER {name} ON {table}")
            _run(connection, f"DROP TRIGGER IF EXISTS {name} ON {table}_other")
        _run(connection, f"ALTER TABLE {table} RENAME TO {first}")
    _run(connection, f"ALTER TABLE {new} RENAME TO {table}")
    for definition in definitions:
        found = _INDEX.fullmatch(definition)
        if found is None:
            continue
        name, rest = found["name"], found["rest"]
        if end is not None:
            _run(connection, f"ALTER INDEX {name} RENAME TO {name[:57]}_first")
        _run(connection, f"CREATE INDEX {name} ON {table} USING {rest}")
    attach(connection, table, f"{table}_other", "DEFAULT")
    if end is not None:
        attach(connection, table, first, f"FOR VALUES FROM (MINVALUE) TO ({end})")
        _run(connection, f"ALTER TABLE {first} DROP CONSTRAINT {table}_before_{end}")
    for definition in triggers.values():
        _run(connection, definition)
    _add_ids_trigger(connection, table)
    ids = ids_of(table)
    _run(
        connection,
        f"CREATE OR REPLACE FUNCTION drop_{ids}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"DELETE FROM {ids} USING old_rows WHERE {ids}.id = old_rows.id; RETURN NULL; END $$",
    )
    _run(
        connection,
        f"CREATE OR REPLACE TRIGGER drop_{ids} AFTER DELETE ON {table} "
        f"REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION drop_{ids}()",
    )


def _triggers(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the definitions of a table's triggers, but for those of this migration, by name."""
    query = sa.text(
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger "
        "WHERE tgrelid = to_regclass(:table) AND NOT tgisinternal AND tgname <> ALL (:own)"
    )
    own = [f"keep_{ids_of(table)}", f"divert_{table}"]
    found = connection.execute(query, {"table": table, "own": own})
    return {str(name): str(definition) for name, definition in found}


def _short(connection: sa.Connection) -> None:
    _run(connection, "SET LOCAL lock_timeout = '500ms'")


def _run(connection: sa.Connection, statement: str) -> None:
    connection.exec_driver_sql(statement.replace("%", "%%"))


def _value(connection: sa.Connection, query: str, **values: str) -> object:
    return connection.execute(sa.text(query), values).scalar()


def _is_empty(connection: sa.Connection, table: str) -> bool:
    return _value(connection, f"SELECT 1 FROM {table} LIMIT 1") is None
