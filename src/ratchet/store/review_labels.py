"""Labels of people: those that were brought in, and those given in the review queue.

    labels = human_labels(store, "helpfulness")
    agreed = agreed_labels(labels)["i-1"]  # what a judge is held against

A label of the queue is read from its decision, so that what was taken back counts no more. It is a
label once as many people decided the item as it takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from ratchet.records import WIN_RATE, HumanLabel, ReviewDecision, digest
from ratchet.store.events import EventStore
from ratchet.store.review_rows import SETTLED
from ratchet.store.rows import chunks
from ratchet.store.tables import JOURNAL, REVIEW_DECISIONS, REVIEW_ITEMS

NO_LABELS: Final = frozenset({"harmlessness", "correction", WIN_RATE})
"""Dimensions whose decisions are no labels: they are safety, corrections, compared pairs."""
NO_OPINION: Final = frozenset({"harmlessness", "safety", "correction", "dissatisfied"})
"""Dimensions whose labels do not say that an answer is good."""
_ITEM, _DECISION = REVIEW_ITEMS.c, REVIEW_DECISIONS.c


@dataclass(frozen=True, slots=True)
class Rating:
    """A person's label of an item, given without seeing those of others."""

    interaction_id: str
    reviewer: str
    label: str


@dataclass(frozen=True, slots=True)
class Agreed:
    """The label that stands for an item.

    Attributes:
        label: What a person decided between people who disagreed, else what most people say. Of
            labels given equally often one is drawn by the item's id, so that items on which
            people disagree are neither left out nor decided by who came first.
        others: The labels that people gave beside it, without seeing each other's.
        adjudicated: Whether a person decided between people who disagreed.
    """

    label: str
    others: tuple[str, ...]
    adjudicated: bool


def human_labels(store: EventStore, dimension: str | None = None) -> tuple[HumanLabel, ...]:
    """Return people's labels on a dimension, or on all, in the order in which they were given.

    Args:
        store: The store.
        dimension: What was asked; None for everything that is labelled.
    """
    brought = [
        one for one in store.records(HumanLabel) if dimension is None or one.dimension == dimension
    ]
    names = _dimensions(store) if dimension is None else [dimension]
    given = [one for name in names if name not in NO_LABELS for one in _of_queue(store, name)]
    if not given:
        return tuple(brought)
    return tuple(sorted((*brought, *given), key=lambda one: one.created_at))


def _dimensions(store: EventStore) -> Iterator[str]:
    """Yield the dimensions of the queue, each found by index."""
    last = ""
    while True:
        query = sa.select(sa.func.min(_ITEM.dimension)).where(_ITEM.dimension > last)
        with store.reading() as connection:
            found = connection.execute(query).scalar_one()
        if found is None:
            return
        yield found
        last = found


def _of_queue(store: EventStore, dimension: str) -> Iterator[HumanLabel]:
    settled = sa.select(_ITEM.id, _ITEM.interaction_id).where(
        _ITEM.dimension == dimension, _ITEM.state == SETTLED
    )
    decided = sa.select(_DECISION.position, _DECISION.item_id, JOURNAL.c.body).join(
        JOURNAL,
        sa.and_(JOURNAL.c.kind == ReviewDecision.__name__, JOURNAL.c.id == _DECISION.id),
    )
    with store.reading() as connection:
        about = {row.id: row.interaction_id for row in connection.execute(settled)}
        rows = [
            row
            for chunk in chunks(about)
            for row in connection.execute(decided.where(_DECISION.item_id.in_(chunk)))
        ]
    for _, item, body in sorted(rows, key=lambda row: row.position):
        said = ReviewDecision.model_validate(body)
        yield HumanLabel(
            id=said.id,
            created_at=said.created_at,
            item_id=about[item],
            dimension=dimension,
            label=said.label,
            reviewer=said.reviewer,
            note=said.note,
            adjudicates=said.adjudicates,
        )


def agreed_labels(labels: Iterable[HumanLabel]) -> dict[str, Agreed]:
    """Return the label that stands for each item. Of several of one reviewer the latest counts."""
    blind: dict[str, dict[str, str]] = {}
    decided: dict[str, str] = {}
    for one in sorted(labels, key=lambda given: given.created_at):
        if one.adjudicates:
            decided[one.item_id] = one.label
            blind.setdefault(one.item_id, {})
        else:
            blind.setdefault(one.item_id, {})[one.reviewer] = one.label
    return {
        key: Agreed(decided[key], tuple(said.values()), True)
        if key in decided
        else _agreed(key, list(said.values()))
        for key, said in blind.items()
    }


def _agreed(key: str, given: list[str]) -> Agreed:
    counts = Counter(given)
    most = max(counts.values())
    tied = sorted(label for label, count in counts.items() if count == most)
    label = tied[int(digest(["tied labels", key])[:8], 16) % len(tied)]
    others = list(given)
    others.remove(label)
    return Agreed(label, tuple(others), False)


def ratings_on(store: EventStore, dimension: str, most: int | None = None) -> list[Rating]:
    """Return what people said on a dimension without seeing each other, oldest first.

    Args:
        store: The store.
        dimension: What was asked.
        most: So many of the latest at most.
    """
    query = (
        sa.select(_ITEM.interaction_id, _DECISION.reviewer, _DECISION.label)
        .select_from(REVIEW_ITEMS)
        .join(REVIEW_DECISIONS, _DECISION.item_id == _ITEM.id)
        .where(_ITEM.dimension == dimension, _DECISION.adjudicates == 0)
        .order_by(_DECISION.position.desc())
        .limit(most)
    )
    with store.reading() as connection:
        rows = connection.execute(query).all()
    return [Rating(*row) for row in reversed(rows)]
