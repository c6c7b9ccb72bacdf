"""Stores with anything in them, for the tests of export."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st

from ratchet.export.grammar import Request
from ratchet.export.parts import Tally
from ratchet.export.run import Sources, export
from ratchet.records import Feedback, Interaction, Message
from ratchet.records.events import (
    Comment,
    Copy,
    Correction,
    Dimension,
    JudgeScore,
    SafetyViolation,
    SessionEnd,
    Stars,
    Thumbs,
)
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.tables import FEEDBACK_EVENTS, INTERACTIONS

MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)
NOW = datetime(2026, 12, 1, tzinfo=UTC)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
MOMENTS = st.datetimes(
    datetime(2015, 1, 1),  # noqa: DTZ001
    datetime(2026, 11, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
MESSAGES = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=TEXT),
    min_size=1,
    max_size=4,
).map(tuple)
SECONDS = st.none() | st.floats(0, 1e6)
METADATA = st.dictionaries(NAME | st.just("training_consent"), TEXT, max_size=3)


@st.composite
def histories(draw: Any) -> tuple[list[Interaction], list[Feedback]]:
    """Return interactions, and feedback on them and on answers that never came, as it came."""
    turns = [
        Interaction(
            id=f"i{place}",
            session_id=draw(NAME),
            user_id=draw(NAME),
            created_at=draw(MOMENTS),
            model_version=draw(st.sampled_from(["m/1", "m/2"])),
            messages=draw(MESSAGES),
            response=draw(TEXT),
            latency_seconds=draw(SECONDS),
            error=draw(st.none() | TEXT),
            segment=draw(st.sampled_from(["all", "de"])),
            metadata=draw(METADATA),
        )
        for place in range(draw(st.integers(0, 5)))
    ]
    events: list[Feedback] = []
    for place in range(draw(st.integers(0, 8))):
        make = draw(st.sampled_from(KINDS))
        values = {
            "id": f"f{place}",
            "interaction_id": f"i{draw(st.integers(0, 6))}",
            "created_at": draw(MOMENTS),
            "user_id": draw(st.none() | NAME),
        }
        events.append(make(draw, values))
        for _ in range(draw(st.integers(0, 2))):  # edited in place, and told in any order
            updated = values["created_at"] + timedelta(seconds=draw(st.integers(1, 90)))
            events.append(make(draw, values | {"updated_at": updated}))
    return turns, events


Draw = Callable[[Any], Any]
KINDS: list[Callable[[Draw, dict[str, Any]], Feedback]] = [
    lambda d, v: Thumbs(**v, value=d(st.sampled_from(["up", "down"]))),
    lambda d, v: Stars(**v, value=d(st.integers(1, 5))),
    lambda d, v: Dimension(**v, value=d(st.integers(1, 5)), name=d(NAME)),
    lambda d, v: Comment(**v, value=d(TEXT.filter(bool))),
    lambda d, v: Correction(**v, value=d(TEXT.filter(bool))),
    lambda d, v: Copy(**v, value=d(st.booleans())),
    lambda d, v: SessionEnd(**v, value=d(st.floats(0, 1e6))),
    lambda d, v: SafetyViolation(**v, value=d(st.booleans()), source=d(NAME)),
    lambda d, v: JudgeScore(**v, value=d(st.floats(0, 1)), judge_version=d(NAME)),
]


def turn(number: int, **changes: Any) -> Interaction:
    """Return an interaction."""
    values: dict[str, Any] = {
        "id": f"i{number:04}",
        "session_id": f"s{number // 3}",
        "user_id": f"u{number % 7}",
        "created_at": MORNING + timedelta(hours=number),
        "model_version": f"m/{number % 2 + 1}",
        "messages": (Message(role="user", content=f"Question {number}?"),),
        "response": f"Answer {number}",
        "segment": "de" if number % 3 else "all",
    }
    return Interaction(**(values | changes))


def rows_of(store: EventStore) -> list[list[tuple[Any, ...]]]:
    """Return all of a store's events in the order of arrival, but for when they arrived."""
    found = []
    for table in (INTERACTIONS, FEEDBACK_EVENTS):
        columns = [c for c in table.c if c.name not in ("position", "received_at")]
        with store.reading() as connection:
            query = sa.select(*columns).order_by(table.c.position)
            found.append([tuple(row) for row in connection.execute(query)])
    return found


def written(
    store: EventStore,
    folder: Path,
    kind: str,
    out: str,
    as_format: str = "jsonl",
    *,
    progress: Callable[[int], None] = lambda _: None,
    **options: Any,
) -> Tally:
    """Export from a store whose history lies in a folder beside it."""
    request = Request(kind, as_format, out, **options)  # type: ignore[arg-type]
    sources = Sources(store, History.open(folder / "history"), folder, lambda _run: None)
    return export(request, sources, now=NOW, progress=progress)
