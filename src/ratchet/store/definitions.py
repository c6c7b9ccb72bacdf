"""What interactions refer to by digest: tools, forms of answers, and documents, each stored once.

A definition stays as long as an interaction refers to it, in the store or in history. Documents may
hold anything, so they go with the interaction that is erased; the other kinds are looked for by
`ratchet prune`, a day after they were sent last: a gateway sends them before what refers to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ratchet.records import Definition
from ratchet.store.event_rows import InteractionRow
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import DEFINITIONS, DOCUMENT_USES
from ratchet.store.transactions import Transactions, insert_if_new


class Definitions(Transactions):
    """Definitions by digest."""

    def definitions(self, ids: Iterable[str]) -> dict[str, Definition]:
        """Return those of the definitions with these digests that are stored, by digest."""
        found: dict[str, Definition] = {}
        columns = (DEFINITIONS.c.id, DEFINITIONS.c.kind, DEFINITIONS.c.body)
        with self.reading() as connection:
            for chunk in chunks(dict.fromkeys(ids)):
                query = sa.select(*columns).where(DEFINITIONS.c.id.in_(chunk))
                for key, kind, body in connection.execute(query):
                    found[key] = Definition.model_construct(id=key, kind=kind, body=body)
        return found

    def add_definitions(self, definitions: Sequence[Definition]) -> None:
        """Store definitions; one that is there already is sent again, and stays as it is."""
        now = microseconds(self._clock())
        rows = [
            {"id": item.id, "kind": item.kind, "body": item.body, "added_at": now}
            for item in {item.id: item for item in definitions}.values()
        ]

        def insert(connection: sa.Connection) -> None:
            for chunk in chunks(sorted(rows, key=lambda row: str(row["id"]))):
                connection.execute(_insert(connection), chunk)

        if rows:
            self._add_to(DEFINITIONS, insert)


def note_documents(connection: sa.Connection, rows: Iterable[InteractionRow]) -> None:
    """Keep which of some interactions that are added were answered with documents."""
    uses = [
        {"interaction_id": row.id, "documents": row.documents}
        for row in rows
        if row.documents is not None
    ]
    for chunk in chunks(uses):
        connection.execute(insert_if_new(connection, DOCUMENT_USES), chunk)


def erase_documents(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Delete the documents of some interactions that no other interaction refers to.

    Args:
        connection: In a transaction that erases the interactions.
        ids: The interactions, some hundred, also those that only history has.
    """
    uses = DOCUMENT_USES.c
    mine = uses.interaction_id.in_(ids)
    found = set(connection.execute(sa.select(uses.documents).where(mine)).scalars())
    if not found:
        return
    connection.execute(sa.delete(DOCUMENT_USES).where(mine))
    used = sa.select(uses.documents).where(uses.documents.in_(found)).distinct()
    gone = found.difference(connection.execute(used).scalars())
    delete = sa.delete(DEFINITIONS).where(DEFINITIONS.c.id.in_(gone))
    connection.execute(delete.where(DEFINITIONS.c.kind == "documents"))


def _insert(connection: sa.Connection) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that, for a definition that is there, only renews the time it was sent."""
    insert: postgresql.Insert | sqlite.Insert = (
        sqlite.insert(DEFINITIONS)
        if connection.dialect.name == "sqlite"
        else postgresql.insert(DEFINITIONS)
    )
    again = {"added_at": insert.excluded.added_at}
    return insert.on_conflict_do_update(index_elements=["id"], set_=again)
