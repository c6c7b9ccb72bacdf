"""Answers of applications with what they report, for tests of how absence is read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ratchet.records import FEEDBACK, Feedback, Interaction, Message, SignalDeclaration
from ratchet.store import EventStore, Window

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ASKED = (Message(role="user", content="Where is my card?"),)


def answer(
    key: str, at: datetime = START, application: str = "shop", **changes: Any
) -> Interaction:
    row = {
        "id": key, "session_id": "s", "user_id": f"u-{key}", "created_at": at,
        "model_version": "router/1", "messages": ASKED, "response": "by post",
        "segment": application,
    }  # fmt: skip
    return Interaction.model_validate(row | changes)


def event(
    about: Interaction, kind: str, value: Any = True, after: timedelta = MINUTE, key: str = ""
) -> Feedback:
    at = about.created_at + after
    row = {"id": f"{kind} {about.id}{key}", "interaction_id": about.id, "created_at": at}
    return FEEDBACK.validate_python(row | {"kind": kind, "value": value})


def presence(
    store: EventStore,
    answers: int,
    kinds: dict[str, int],
    *,
    application: str = "shop",
    start: datetime = START,
    step: timedelta = timedelta(seconds=10),
    noes: bool = False,
    **changes: Any,
) -> list[Interaction]:
    """Store answers of an application, the first so many of them with the yes of each kind.

    Args:
        store: The store.
        answers: How many.
        kinds: How many have a yes, by kind.
        application: Whose.
        start: When the first is given.
        step: How long until the next.
        noes: Whether the others have a no; else nothing is sent about them.
        changes: Other fields of the answers.
    """
    rows = [
        answer(f"{application} {start:%d %H:%M} {n}", start + n * step, application, **changes)
        for n in range(answers)
    ]
    events = [
        event(row, kind, n < count)
        for kind, count in kinds.items()
        for n, row in enumerate(rows)
        if noes or n < count
    ]
    store.add_interactions(rows)
    store.add_feedback(events)
    return rows


def declare(
    store: EventStore,
    *kinds: str,
    application: str = "shop",
    reported: str = "when it happens",
    since: datetime = START,
    at: datetime | None = None,
    after: timedelta = 5 * MINUTE,
) -> None:
    """Declare how an application reports kinds, as `ratchet signals declare` does."""
    for kind in kinds:
        store.append(
            SignalDeclaration.model_validate(
                {
                    "id": f"{application} {kind} {reported} {since} {at}",
                    "created_at": at or since, "application": application, "kind": kind,
                    "reported": reported, "since": since,
                    "after_seconds": after.total_seconds(), "by": "ana",
                }
            )
        )  # fmt: skip


def window(days: float = 1.0, start: datetime = START) -> Window:
    return Window(start, start + days * DAY)


def numbers(values: Any) -> list[float | None]:
    """A column as a list, None where nothing was observed."""
    found: Sequence[float | None] = values.to_pylist()
    return list(found)
