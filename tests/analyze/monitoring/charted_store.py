"""A store of four weeks with one bad release, whose daily rates are known exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ratchet.records import Copy, Correction, Interaction, Message, Release, Stars, Thumbs
from ratchet.records.events import Feedback
from ratchet.store import EventStore, Window

START = datetime(2026, 6, 1, tzinfo=UTC)
DAYS, A_DAY = 30, 48  # an answer every half hour
RELEASED, WITHDRAWN = 20, 25  # days
OLD, NEW = "router/1", "router/2"
WINDOW = Window(START, START + timedelta(days=DAYS))


def release(key: str, day: int, action: str, champion: str, previous: str | None) -> Release:
    at = START + timedelta(days=day)
    return Release.model_validate(
        {"id": key, "created_at": at, "action": action, "champion": champion, "previous": previous}
    )


def bad(day: int) -> bool:
    return RELEASED <= day < WITHDRAWN


def thumbs_down(day: int) -> int:
    """Thumbs down of a day's 48 answers: 10, 11 or 12, and 30 while the bad release answered."""
    return 30 if bad(day) else 10 + day % 3


def said(number: int) -> dict[str, str]:
    """What a client said with one of a day's 48 questions."""
    application = {"application": "shop"} if number % 2 else {}
    return application | ({"prompt_version": "v1"} if number * 7 % A_DAY < A_DAY / 2 else {})


def fill(store: EventStore, days: int = DAYS) -> EventStore:
    interactions, feedback = [], list[Feedback]()
    for day in range(days):
        for number in range(A_DAY):
            key = f"{day}-{number}"
            at = START + timedelta(days=day, minutes=30 * number)
            about = {"interaction_id": key, "created_at": at + timedelta(hours=3)}
            interactions.append(
                Interaction(
                    id=key, session_id=key, user_id=f"u{number}", created_at=at,
                    model_version=NEW if bad(day) else OLD, segment=("app", "web")[number % 2],
                    messages=(Message(role="user", content="help"),),
                    response="x" * (20 + day % 4),
                    latency_seconds=(2.0 if bad(day) else 1.0) + 0.1 * (day % 3) + 0.001 * number,
                    metadata=said(number),
                )
            )  # fmt: skip
            down = number < thumbs_down(day)
            feedback += [
                Thumbs(id=f"t{key}", value="down" if down else "up", **about),
                Copy(id=f"c{key}", value=not down, **about),
            ]
            if number == 0 and day % 2:
                feedback.append(Stars(id=f"s{key}", value=1, **about))
                feedback.append(Correction(id=f"r{key}", value="better", **about))
    store.add_interactions(interactions)
    store.add_feedback(feedback)
    for record in (
        release("r1", 0, "start", OLD, None),
        release("r2", RELEASED, "promote", NEW, OLD),
        release("r3", WITHDRAWN, "rollback", OLD, NEW),
    ):
        store.append(record)
    return store
