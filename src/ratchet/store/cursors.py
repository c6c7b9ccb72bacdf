"""Up to where sources were brought in: a text by name, which is replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from ratchet.store.rows import chunks
from ratchet.store.tables import FACTS
from ratchet.store.transactions import Transactions

_PREFIX = "import:"


def read_cursors(store: Transactions, names: Iterable[str]) -> dict[str, str]:
    """Return what is kept under some names."""
    found: dict[str, str] = {}
    with store.reading() as connection:
        for chunk in chunks([_PREFIX + name for name in names]):
            query = sa.select(FACTS.c.name, FACTS.c.value).where(FACTS.c.name.in_(chunk))
            found |= {row[0].removeprefix(_PREFIX): row[1] for row in connection.execute(query)}
    return found


def keep_cursors(store: Transactions, cursors: Mapping[str, str]) -> None:
    """Keep texts under names of at most 64 characters, in the place of what was kept there."""
    rows = [{"name": _PREFIX + name, "value": value} for name, value in cursors.items()]
    if not rows:
        return
    with store.atomic() as connection:
        for chunk in chunks([row["name"] for row in rows]):
            connection.execute(sa.delete(FACTS).where(FACTS.c.name.in_(chunk)))
        connection.execute(sa.insert(FACTS), rows)
