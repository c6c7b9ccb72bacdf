"""What is held about a user, counted: what `ratchet forget` would reach, before it does.

    found = held(store, home, "user-17", in_history=history.user_data("user-17"))
    print(found.interactions, found.traced.versions)

All is found by index but for people's labels on sheets and frozen sets of examples, which are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from ratchet.records import DataExport, ExampleSet, HumanLabel, user_digest
from ratchet.store.erasure import NOTHING, UserData
from ratchet.store.events import EventStore
from ratchet.store.forget import Trace, trace
from ratchet.store.rows import chunks, moment_of
from ratchet.store.tables import (
    FEEDBACK_EVENTS,
    INTERACTIONS,
    REVIEW_DECISIONS,
    REVIEW_ITEMS,
    SET_ASIDE,
    VERDICT_QUOTES,
    VERDICTS,
)

_OF_ROWS = ("interactions", "feedback", "labels", "label-sheet", "database")


@dataclass(frozen=True, slots=True)
class Held:
    """What is held about a user.

    Attributes:
        interactions: How many are in the store.
        in_history: How many history has, those in the store too.
        first: When the first one in the store was answered; None without any.
        last: When the last one was.
        versions: How many of them each version answered, most first.
        feedback: Feedback on them, and what the user said of others' answers, by kind.
        labels: People's labels of them, by dimension.
        verdicts: Judges' verdicts about them, or that quote them.
        set_aside: Rows that could not be used and name the user.
        example_sets: Frozen sets of examples that hold one of the user's questions.
        traced: Training sets, versions and runs that were made of them.
        exports: Exports that may hold something of it.
    """

    interactions: int
    in_history: int
    first: datetime | None
    last: datetime | None
    versions: tuple[tuple[str, int], ...]
    feedback: tuple[tuple[str, int], ...]
    labels: tuple[tuple[str, int], ...]
    verdicts: int
    set_aside: int
    example_sets: tuple[str, ...]
    traced: Trace
    exports: tuple[DataExport, ...]

    @property
    def anything(self) -> bool:
        """Whether anything is held."""
        counts = (self.interactions, self.in_history, self.verdicts, self.set_aside)
        return any(counts) or bool(self.feedback or self.labels or self.example_sets)


@dataclass(frozen=True, slots=True)
class _Answered:
    """When one of the user's interactions was answered, by which version, in which segment."""

    at: datetime
    version: str
    segment: str


def held(store: EventStore, home: Path, user_id: str, *, in_history: UserData = NOTHING) -> Held:
    """Count what is held about a user.

    Args:
        store: The store.
        home: The home folder.
        user_id: As it was sent with the interactions.
        in_history: What history has of the user.

    Raises:
        InvalidInputError: It is the name that all forgotten users have.
    """
    traced = trace(store, home, user_id, in_history=in_history)
    ids = traced.interaction_ids
    answered = _answered(store, user_id)
    times = [one.at for one in answered]
    return Held(
        interactions=len(answered),
        in_history=len(in_history.interaction_ids),
        first=min(times, default=None),
        last=max(times, default=None),
        versions=_most_first(Counter(one.version for one in answered)),
        feedback=_feedback(store, user_id, ids),
        labels=_labels(store, ids),
        verdicts=_verdicts(store, ids),
        set_aside=_set_aside(store, user_id),
        example_sets=_example_sets(store, user_id),
        traced=traced,
        exports=tuple(
            one
            for one in store.records(DataExport)
            if _may_hold(one, answered, traced.folders, has_more=bool(in_history.interaction_ids))
        ),
    )


def _answered(store: EventStore, user_id: str) -> list[_Answered]:
    column = INTERACTIONS.c
    query = sa.select(column.created_at, column.model_version, column.segment)
    with store.reading() as connection:
        rows = connection.execute(query.where(column.user_id == user_id)).all()
    return [_Answered(moment_of(at), version, segment) for at, version, segment in rows]


def _feedback(store: EventStore, user_id: str, ids: Sequence[str]) -> tuple[tuple[str, int], ...]:
    event = FEEDBACK_EVENTS.c
    found: dict[str, str] = {}
    with store.reading() as connection:
        mine = sa.select(event.id, event.kind).where(event.user_id == user_id)
        found.update((key, kind) for key, kind in connection.execute(mine))
        for chunk in chunks(ids):
            about = sa.select(event.id, event.kind).where(event.interaction_id.in_(chunk))
            found.update((key, kind) for key, kind in connection.execute(about))
    return _most_first(Counter(found.values()))


def _labels(store: EventStore, ids: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Count decisions of the review queue, and labels that were brought in."""
    counts: Counter[str] = Counter()
    items = REVIEW_ITEMS.c
    about = sa.select(items.id, items.dimension)
    item = REVIEW_DECISIONS.c.item_id
    decided = sa.select(item, sa.func.count()).group_by(item)
    with store.reading() as connection:
        for chunk in chunks(ids):
            asked = connection.execute(about.where(items.interaction_id.in_(chunk)))
            dimensions = {str(item_id): str(name) for item_id, name in asked}
            for some in chunks([*dimensions]):
                for item_id, count in connection.execute(decided.where(item.in_(some))):
                    counts[dimensions[item_id]] += int(count)
    mine = set(ids)
    if mine:
        counts.update(one.dimension for one in store.records(HumanLabel) if one.item_id in mine)
    return _most_first(counts)


def _verdicts(store: EventStore, ids: Sequence[str]) -> int:
    found: set[str] = set()
    with store.reading() as connection:
        for chunk in chunks(ids):
            about = sa.select(VERDICTS.c.id).where(VERDICTS.c.item_id.in_(chunk))
            quoted = VERDICT_QUOTES.c
            quotes = sa.select(quoted.verdict_id).where(quoted.interaction_id.in_(chunk))
            for query in (about, quotes):
                found.update(connection.execute(query).scalars())
    return len(found)


def _set_aside(store: EventStore, user_id: str) -> int:
    query = sa.select(sa.func.count()).where(SET_ASIDE.c.user_id == user_id)
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


def _example_sets(store: EventStore, user_id: str) -> tuple[str, ...]:
    mine = {user_id, user_digest(user_id)}
    return tuple(
        one.id
        for one in store.records(ExampleSet)
        if any(example.user_id in mine for example in one.examples)
    )


def _may_hold(
    export: DataExport,
    answered: Sequence[_Answered],
    folders: Sequence[str],
    *,
    has_more: bool,
) -> bool:
    """Tell whether an export may hold rows of a user.

    Args:
        export: The export.
        answered: The user's interactions that the store has.
        folders: Training sets that hold one of them.
        has_more: Whether history has others, whose times are not read.
    """
    if export.kind == "dataset":
        return any((export.training_set or "").startswith(name) for name in folders)
    if export.kind not in _OF_ROWS:
        return False
    return has_more or any(
        one.at <= export.created_at
        and (export.since is None or one.at >= export.since)
        and (export.until is None or one.at < export.until)
        and export.model_version in (None, one.version)
        and export.segment in (None, one.segment)
        for one in answered
    )


def _most_first(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
