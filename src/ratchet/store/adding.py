"""Adding interactions and feedback: each id once, by however many writers at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from ratchet.store.bulk import insert_new
from ratchet.store.definitions import note_documents
from ratchet.store.event_rows import FeedbackRow, InteractionRow, has_content_of
from ratchet.store.feedback import name_versions
from ratchet.store.forgotten import without_forgotten
from ratchet.store.tables import FEEDBACK_EVENTS, FORGOTTEN_NAMES, INTERACTIONS

Rows = Sequence[InteractionRow | FeedbackRow]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch.

    Attributes:
        new: Events stored by this call.
        repeated: Events that were there already with the same content.
        conflicts: Ids that were there already with other content; the stored one stands.
        forgotten: Of the repeated ones, those of users who were forgotten since; they are not
            stored again, though they may be there no longer.
    """

    new: int
    repeated: int
    conflicts: tuple[str, ...]
    forgotten: int = 0


def add_interactions(
    connection: sa.Connection, rows: Sequence[InteractionRow], *, received_at: int
) -> Added:
    """Store the interactions whose ids are new."""
    kept, dropped = without_forgotten(connection, FORGOTTEN_NAMES, rows)
    note_documents(connection, kept)
    return _with(dropped, _count(kept, _insert(connection, INTERACTIONS, kept, received_at)))


def add_feedback(
    connection: sa.Connection, rows: Sequence[FeedbackRow], *, received_at: int
) -> Added:
    """Store the feedback events and versions of them that are new."""
    rows, dropped = without_forgotten(connection, FORGOTTEN_NAMES, rows)
    return _with(dropped, _add_feedback(connection, rows, received_at))


def _add_feedback(
    connection: sa.Connection, rows: Sequence[FeedbackRow], received_at: int
) -> Added:
    named = name_versions(connection, rows)
    there = _insert(connection, FEEDBACK_EVENTS, named, received_at)
    refused = [
        (row, name.id)
        for row, name in zip(rows, named, strict=True)
        if row.updated_at is not None and there.get(name.id, name.digest) != name.digest
    ]
    # a version that another writer stored meanwhile is known by now, and gives this one its name
    renamed = name_versions(connection, [row for row, _ in refused])
    late = [row for (row, key), name in zip(refused, renamed, strict=True) if name.id != key]
    if not late:
        return _count(named, there)
    again = {id(row) for row in late}
    kept = [name for row, name in zip(rows, named, strict=True) if id(row) not in again]
    first, second = _count(kept, there), _add_feedback(connection, late, received_at)
    return Added(
        new=first.new + second.new,
        repeated=first.repeated + second.repeated,
        conflicts=first.conflicts + second.conflicts,
    )


def _insert(
    connection: sa.Connection, table: sa.Table, rows: Rows, received_at: int
) -> dict[str, str]:
    """Return the stored digests of those that were there, by id."""
    return insert_new(connection, table, list(_first_of(rows).values()), received_at=received_at)


def _with(dropped: Rows, added: Added) -> Added:
    return replace(added, repeated=added.repeated + len(dropped), forgotten=len(dropped))


def _first_of(rows: Rows) -> dict[str, InteractionRow | FeedbackRow]:
    """Return the first row of each id."""
    first: dict[str, InteractionRow | FeedbackRow] = {}
    for row in rows:
        first.setdefault(row.id, row)
    return first


def _count(rows: Rows, there: Mapping[str, str]) -> Added:
    first, new, repeated, conflicts = _first_of(rows), 0, 0, []
    for row in rows:
        if row is first[row.id] and row.id not in there:
            new += 1
        elif has_content_of(row, there.get(row.id, first[row.id].digest)):
            repeated += 1
        else:
            conflicts.append(getattr(row, "version_of", None) or row.id)
    return Added(new=new, repeated=repeated, conflicts=tuple(conflicts))
