"""The review queue's tables: a row an item, a row a decision, kept with the journal's records.

The journal keeps the records themselves, with their texts. These rows hold what the queue is asked
for, so that what is open, or was said about an interaction, is found by index. They are written in
the transaction that writes the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

SAMPLE = "sample"
"""What raises an item that was drawn at random."""
START = 4
"""Characters of an id's start that are indexed."""
OPEN, DISPUTED, SETTLED, KNOWN, CLOSED = range(5)
"""States of an item: people have to decide it; they disagree, and another person decides; it is
decided; it checks reviewers and decides nothing; nobody needs it any more."""
_ITEM, _DECISION, _UNDO = "ReviewItem", "ReviewDecision", "ReviewUndo"
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
    elif record["kind"] == _UNDO:
        row = record["body"]
        taken_back = decisions.c.id == row["decision_id"]
        connection.execute(sa.delete(decisions).where(taken_back))
    else:
        return
    if record["kind"] != _ITEM:
        item = sa.select(items.c.interaction_id, items.c.dimension)
        found = connection.execute(item.where(items.c.id == row["item_id"])).first()
        if found is None:
            return
        here = _about(items, found[0], found[1])
    counted, covered = _settle(items, decisions)
    for update in (counted, covered):
        connection.execute(update.where(here))
    _state(connection, items, decisions, here)


def _state(
    connection: sa.Connection, items: sa.Table, decisions: sa.Table, here: sa.ColumnElement[bool]
) -> None:
    """Say of the items about one interaction whether they wait for people, and who decided."""
    given = sa.select(decisions.c.label, decisions.c.adjudicates, decisions.c.reviewer)
    given = given.join(items, items.c.id == decisions.c.item_id).where(here)
    rows = connection.execute(given).all()
    said = [(label, bool(last)) for label, last, _ in rows]
    deciders = names_of(reviewer for *_, reviewer in rows)
    columns = (items.c.id, items.c.wanted, items.c.unanimous, items.c.state, items.c.deciders)
    for key, wanted, unanimous, *before in connection.execute(
        sa.select(*columns).where(here)
    ).all():
        state = before[0]
        if state not in (KNOWN, CLOSED):
            state = state_of(said, wanted, bool(unanimous))
        found = [state, deciders if state in (OPEN, DISPUTED) else ""]
        if found != before:
            update = sa.update(items).where(items.c.id == key)
            connection.execute(update.values(state=found[0], deciders=found[1]))


def name_of(reviewer: str) -> str:
    """Return a reviewer's name as it stands in `names_of`: short, without spaces."""
    return hashlib.sha256(reviewer.encode("utf-8", "replace")).hexdigest()[:12]


def names_of(reviewers: Iterable[str]) -> str:
    """Return one text for a group of people: an index finds what the same people decided."""
    return " ".join(sorted({name_of(one) for one in reviewers}))


def state_of(said: Sequence[tuple[str, bool]], wanted: int, unanimous: bool) -> int:
    """Return the state of an item.

    Args:
        said: Labels that people gave, each with whether it decides between the others.
        wanted: How many people decide it. Of one person alone the latest decision counts.
        unanimous: Whether all of them must agree; else most of them.

    Example:
        >>> state_of([("fine", False), ("violation", False)], 2, False) == DISPUTED
        True
    """
    blind = [label for label, last in said if not last]
    if len(blind) < len(said):
        return SETTLED
    if len(blind) < wanted:
        return OPEN
    if wanted == 1:
        return SETTLED
    most = max(map(blind.count, blind))
    agreed = most == len(blind) if unanimous else 2 * most > len(blind)
    return SETTLED if agreed else DISPUTED


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
    alone = sa.update(items).where(items.c.decided > 0, items.c.state == OPEN, items.c.wanted == 1)
    connection.execute(alone.values(state=SETTLED))


def name_deciders(connection: sa.Connection, items: sa.Table, decisions: sa.Table) -> None:
    """Write who decided what waits for further people; of what was decided before it was kept."""
    same = items.alias("same")
    query = (
        sa.select(items.c.id, decisions.c.reviewer)
        .join(
            same,
            sa.and_(
                same.c.interaction_id == items.c.interaction_id,
                same.c.dimension == items.c.dimension,
            ),
        )
        .join(decisions, decisions.c.item_id == same.c.id)
        .where(items.c.state.in_((OPEN, DISPUTED)), items.c.decided > 0)
    )
    found: dict[str, list[str]] = {}
    for key, reviewer in connection.execute(query):
        found.setdefault(key, []).append(reviewer)
    update = sa.update(items).where(items.c.id == sa.bindparam("key"))
    rows = [{"key": key, "names": names_of(people)} for key, people in found.items()]
    if rows:
        connection.execute(update.values(deciders=sa.bindparam("names")), rows)


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
        "wanted": body.get("people", 1),
        "unanimous": int(body.get("unanimous", False)),
        "state": KNOWN if body.get("known") else OPEN,
        "queue": body.get("queue"),
    }


def _decision_row(record: Mapping[str, Any]) -> dict[str, Any]:
    body = record["body"]
    return {
        "id": record["id"],
        "item_id": body["item_id"],
        "reviewer": body["reviewer"],
        "label": body["label"],
        "adjudicates": int(body.get("adjudicates", False)),
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
        .where(about, decisions.c.adjudicates == 0)
        .correlate(items)
        .scalar_subquery()
    )
    flagged = (
        sa.select(same.c.id)
        .where(about, same.c.raised_by != SAMPLE, same.c.state != KNOWN)
        .correlate(items)
    )
    covered = sa.update(items).where(items.c.raised_by == SAMPLE, flagged.exists())
    return sa.update(items).values(decided=given), covered.values(covered=1)
