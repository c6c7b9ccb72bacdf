"""Whom a row that was set aside is about, where it says so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

import sqlalchemy as sa

NAME_CHARACTERS = 200
"""Of a column that names a user or an item."""
_PAGE = 1_000
_ESCAPE = r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])'
_NAMED = re.compile(rf'"(user_id|interaction_id)"[ \t]*:[ \t]*"((?:[^"\\\x00-\x1f]|{_ESCAPE})*)"')


def named_in(raw: str) -> dict[str, str | None]:
    """Return the user and the interaction that a row names; None where it names none, or is cut."""
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        row = None
    if isinstance(row, dict):
        return names_of(row)
    # what is no JSON as a whole, as a line that was cut, may say it all the same
    return names_of({name: json.loads(f'"{value}"') for name, value in _NAMED.findall(raw)})


def names_of(row: Mapping[str, object]) -> dict[str, str | None]:
    """Return the user and the interaction that the fields of a row name."""
    return {name: _name(row, name) for name in ("user_id", "interaction_id")}


def name_set_aside(
    connection: sa.Connection, table: sa.Table, *, between: Callable[[], None]
) -> None:
    """Name those of the rows that were set aside before.

    Args:
        connection: The migration's.
        table: Of the rows.
        between: Called after each thousand rows; it may commit.
    """
    position, last = table.c.position, 0
    update = sa.update(table).where(position == sa.bindparam("at"))
    while True:
        query = sa.select(position, table.c.raw).where(position > last)
        rows = connection.execute(query.order_by(position).limit(_PAGE)).all()
        named = [{"at": at, **names} for at, raw in rows if any((names := named_in(raw)).values())]
        if named:
            connection.execute(update, named)
            between()
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]


def _name(row: Mapping[str, object], name: str) -> str | None:
    value = row.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int:  # as it is taken where the row is good
        value = str(value)
    return value if isinstance(value, str) and _can_be_stored(value) else None


def _can_be_stored(name: str) -> bool:
    """Tell whether a name can be one that is stored: half of a pair or NUL in it names nobody."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(name) <= NAME_CHARACTERS and "\x00" not in name
