"""The review queue's tables: a row an item, a row a decision, kept with the journal's records.

The journal keeps the records themselves, with their texts. These rows hold what the queue is asked
for, so that what is open, or was said about an interaction, is found by index. They are written in
the transaction that writes the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

SAMPLE = "sample"
"""What raises an item that was drawn at random."""
START = 4
"""Characters of an id's start that are indexed."""
_ITEM, _DECISION = "ReviewItem", "ReviewDecision"
_COPIED = 1_000


def note_review(
    connection: sa.Connection,
    items: sa.Table,
    decisions: sa.Table,
    record: Mapping[str, Any],
) -> None:
    """Write the row of a record that enters the journal, where it is one of the queue's.

    Args:
        connection: The transaction that writes the record.
        items: The table of items.
        decisions: The table of decisions.
        record: The record's row in the journal.
    """
    if record["kind"] == _ITEM:
        row = _item_row(record)
        here = _about(items, row["interaction_id"], row["dimension"])
        beside = sa.select(items.c.id).where(here).limit(1)
        decided = sa.select(decisions.c.id).where(decisions.c.item_id == row["id"]).limit(1)
        alone = not any(connection.execute(query).first() for query in (beside, decided))
        connection.execute(sa.insert(items), row)
        if alone:
            return
    elif record["kind"] == _DECISION:
        row = _decision_row(record)
        connection.execute(sa.insert(decisions), row)
        item = sa.select(items.c.interaction_id, items.c.dimension)
        found = connection.execute(item.where(items.c.id == row["item_id"])).first()
        if found is None:
            return
        here = _about(items, found[0], found[1])
    else:
        return
    for update in _settle(items, decisions):
        connection.execute(update.where(here))


def _about(items: sa.Table, interaction_id: str, dimension: str) -> sa.ColumnElement[bool]:
    return sa.and_(items.c.interaction_id == interaction_id, items.c.dimension == dimension)


def copy_reviews(
    connection: sa.Connection, journal: sa.Table, items: sa.Table, decisions: sa.Table
) -> None:
    """Write the rows of the records that the journal holds already; what is there stays.

    Of samples of then the chance to be drawn is not known.
    """
    for kind, table, row_of in ((_ITEM, items, _item_row), (_DECISION, decisions, _decision_row)):
        known = set(connection.execute(sa.select(table.c.id)).scalars())
        position = 0
        query = sa.select(journal).where(journal.c.kind == kind).order_by(journal.c.position)
        while True:
            part = query.where(journal.c.position > position).limit(_COPIED)
            rows = connection.execute(part).mappings().all()
            if not rows:
                break
            position = rows[-1]["position"]
            fresh = [row_of(dict(row)) for row in rows if row["id"] not in known]
            if fresh:
                connection.execute(sa.insert(table), fresh)
    for update in _settle(items, decisions):
        connection.execute(update)


def _item_row(record: Mapping[str, Any]) -> dict[str, Any]:
    body = record["body"]
    return {
        "id": record["id"],
        "start": record["id"][:START],
        "interaction_id": body["interaction_id"],
        "dimension": body["dimension"],
        "rank": int(body["priority"] != "safety"),
        "raised_by": body["raised_by"],
        "created_at": record["created_at"],
        "decided": 0,
        "covered": 0,
    }


def _decision_row(record: Mapping[str, Any]) -> dict[str, Any]:
    body = record["body"]
    return {
        "id": record["id"],
        "item_id": body["item_id"],
        "reviewer": body["reviewer"],
        "label": body["label"],
    }


def _settle(items: sa.Table, decisions: sa.Table) -> tuple[sa.Update, sa.Update]:
    """Count the decisions about each item's interaction, and mark samples that are flagged too."""
    same = items.alias("same")
    about = sa.and_(
        same.c.interaction_id == items.c.interaction_id, same.c.dimension == items.c.dimension
    )
    given = (
        sa.select(sa.func.count())
        .select_from(same.join(decisions, decisions.c.item_id == same.c.id))
        .where(about)
        .correlate(items)
        .scalar_subquery()
    )
    flagged = sa.select(same.c.id).where(about, same.c.raised_by != SAMPLE).correlate(items)
    covered = sa.update(items).where(items.c.raised_by == SAMPLE, flagged.exists())
    return sa.update(items).values(decided=given), covered.values(covered=1)
