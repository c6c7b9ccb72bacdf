"""What was heard of each application: counts of yes and no by kind, advanced by position.

    news = hear(store, now=now)             # count what arrived since the last time
    for question in questions(store, now=now):
        print(question.in_words)

An application of which twenty yes and not one no came is held to send the yes alone. Nobody can
tell from its events what a missing one means, so it is asked.

Cost: `hear` reads what arrived since, and nothing of what is stored already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ratchet.records.reporting import DECLARABLE_KINDS
from ratchet.store.counts import add_numbers, put_numbers, read_numbers
from ratchet.store.events import EventStore
from ratchet.store.reading import Window
from ratchet.store.reporting import (
    ASKED,
    FIRST,
    TIMES,
    TOLD,
    UNTIL,
    application,
    read_reporting,
)
from ratchet.store.rows import microseconds
from ratchet.store.tables import COUNTS, FEEDBACK_EVENTS, INTERACTIONS

FEWEST_YES = 20
"""So many yes and not one no: the application is held to send the yes alone, and asked."""
FIRST_ROWS = 200_000
"""Rows of a table that the first count goes back by; later ones read all that arrived since."""
_STEP = 50_000
_YES, _NO, _ANSWERS, _READ = "signal yes", "signal no", "signal answers", "signals read"


@dataclass(frozen=True, slots=True)
class Question:
    """What is not known of a signal until somebody says how an application reports it."""

    kind: str
    application: str
    yes: int
    answers: int

    @property
    def in_words(self) -> str:
        """The question, with the command that answers it."""
        of = f" of {self.answers:,} answers" if self.answers else ""
        return (
            f"application {self.application} sends `{self.kind}` only when it happens: "
            f"{self.yes:,} yes, 0 no{of}, so no rate is known; say `ratchet signals declare "
            f"{self.kind} --application {self.application} --reported when-it-happens`, or "
            "`never` or `both`"
        )


def hear(store: EventStore, *, now: datetime) -> tuple[Question, ...]:
    """Count the yes and no that arrived since the last time; return the questions that are new.

    The cost follows what arrived: rows are read by position, each event looks its interaction up by
    id. Feedback that came before its interaction is not counted.

    Args:
        store: The store.
        now: The time.
    """
    found: list[tuple[str, str]] = []
    ends = [store.settled_position(table) for table in (INTERACTIONS, FEEDBACK_EVENTS)]
    while True:
        with store.reading() as connection:
            begins = _positions(connection, ends)
            steps = [min(end, begin + _STEP) for begin, end in zip(begins, ends, strict=True)]
            if steps == begins:
                break
            answers = _new_answers(connection, begins[0], steps[0])
            events = _new_events(connection, begins[1], steps[1])
        with store.atomic() as connection:
            if _positions(connection, ends) == begins:  # else another process has counted them
                found += _add_up(connection, answers, events, now)
                put_numbers(
                    connection, COUNTS, _READ, {"interactions": steps[0], "feedback": steps[1]}
                )
    known = {(item.kind, item.application): item for item in questions(store, now=now)}
    return tuple(known[key] for key in dict.fromkeys(found) if key in known)


def questions(store: EventStore, *, now: datetime) -> tuple[Question, ...]:
    """Return what is to be asked: who sends the yes of a kind alone and has not declared it."""
    with store.reading() as connection:
        reporting = read_reporting(connection, now)
        asked = [
            item
            for item in reporting.alone
            if item.until is None and not reporting.declared(item.kind, item.application)
        ]
        kept = read_numbers(connection, COUNTS, (_YES, _ANSWERS) if asked else ())
    return tuple(
        Question(
            item.kind,
            item.application,
            kept[_YES].get(f"{item.kind} {item.application}", 0),
            kept[_ANSWERS].get(item.application, 0),
        )
        for item in sorted(asked, key=lambda item: (item.application, item.kind))
    )


def unknown_reasons(store: EventStore, *, now: datetime) -> dict[str, str]:
    """Return why nothing is known of a kind that an application sends only when it happens."""
    reasons: dict[str, str] = {}
    for question in questions(store, now=now):
        reasons.setdefault(question.kind, question.in_words)
    return reasons


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a kind from an application, on the answers of a window."""

    application: str
    kind: str
    yes: int
    no: int
    answers: int


def heard(store: EventStore, window: Window) -> tuple[Heard, ...]:
    """Count the answers of a window with a yes and with a no, by application and kind.

    An answer of which both came has the latest word alone in a rate; here it counts for both.
    """
    name, event = application().label("application"), FEEDBACK_EVENTS.c
    inside = store.within(window)
    answers = sa.select(name, sa.func.count()).where(inside).group_by(name)
    said = (
        sa.select(name, event.kind, event.number, sa.func.count(INTERACTIONS.c.id.distinct()))
        .join(INTERACTIONS, INTERACTIONS.c.id == event.interaction_id)
        .where(inside, event.kind.in_(DECLARABLE_KINDS), event.number.in_((0.0, 1.0)))
        .group_by(name, event.kind, event.number)
    )
    with store.reading() as connection:
        totals: dict[str, int] = {row[0]: int(row[1]) for row in connection.execute(answers)}
        rows = connection.execute(said).all()
    counts = {(str(row[0]), str(row[1]), float(row[2])): int(row[3]) for row in rows}
    return tuple(
        Heard(
            name,
            kind,
            counts.get((name, kind, 1.0), 0),
            counts.get((name, kind, 0.0), 0),
            totals[name],
        )
        for name in sorted(totals)
        for kind in DECLARABLE_KINDS
    )


def _positions(connection: sa.Connection, ends: list[int]) -> list[int]:
    """Return how far both tables were read."""
    read = read_numbers(connection, COUNTS, (_READ,))[_READ]
    return [
        min(end, read.get(name, max(0, end - FIRST_ROWS)))
        for name, end in zip(("interactions", "feedback"), ends, strict=True)
    ]


def _new_answers(connection: sa.Connection, begin: int, end: int) -> dict[str, int]:
    position, name = INTERACTIONS.c.position, application()
    query = sa.select(name, sa.func.count()).where(position > begin, position <= end)
    return {row[0]: int(row[1]) for row in connection.execute(query.group_by(name))}


def _new_events(connection: sa.Connection, begin: int, end: int) -> list[tuple[Any, ...]]:
    event = FEEDBACK_EVENTS.c
    new = (
        sa.select(event.interaction_id, event.kind, event.number)
        .where(event.position > begin, event.position <= end, event.kind.in_(DECLARABLE_KINDS))
        .cte("new_feedback")
        .prefix_with("MATERIALIZED")
    )
    about, name = INTERACTIONS.c.id == new.c.interaction_id, application().label("application")
    given = sa.func.min(INTERACTIONS.c.created_at)
    # an outer join is read from the left: each new event looks its interaction up by its id
    query = (
        sa.select(name, new.c.kind, new.c.number, sa.func.count(), given)
        .select_from(new.outerjoin(INTERACTIONS, about))
        .group_by(name, new.c.kind, new.c.number)
    )
    return [tuple(row) for row in connection.execute(query) if row[0] is not None]


def _add_up(
    connection: sa.Connection,
    answers: Mapping[str, int],
    events: Iterable[tuple[Any, ...]],
    now: datetime,
) -> list[tuple[str, str]]:
    """Add new counts to those that are kept; return who was found to send the yes alone."""
    add_numbers(connection, COUNTS, _ANSWERS, answers)
    new: dict[float, dict[str, tuple[int, int]]] = {1.0: {}, 0.0: {}}
    for name, kind, number, count, given in events:
        if number in new:
            new[float(number)][f"{kind} {name}"] = (int(count), int(given))
    parts = sorted({*new[1.0], *new[0.0]})
    kept = read_numbers(connection, COUNTS, (_YES, _NO, *TIMES), parts)
    add_numbers(connection, COUNTS, _YES, {part: count for part, (count, _) in new[1.0].items()})
    add_numbers(connection, COUNTS, _NO, {part: count for part, (count, _) in new[0.0].items()})
    at, found = microseconds(now), []
    for part in parts:
        yes, given = new[1.0].get(part, (0, 0))
        noes, first_no = new[0.0].get(part, (0, 0))
        if kept[_NO].get(part):
            continue
        if yes:
            earlier = kept[FIRST].get(part, given)
            put_numbers(connection, COUNTS, FIRST, {part: min(earlier, given)})
        if noes and part in kept[ASKED]:
            put_numbers(connection, COUNTS, UNTIL, {part: first_no})
            put_numbers(connection, COUNTS, TOLD, {part: at})
        elif not noes and part not in kept[ASKED] and kept[_YES].get(part, 0) + yes >= FEWEST_YES:
            put_numbers(connection, COUNTS, ASKED, {part: at})
            kind, name = part.split(" ", 1)
            found.append((kind, name))
    return found
