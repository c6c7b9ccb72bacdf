"""A small home to curate: forty answers that users liked, each by a user of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ratchet.analyze.failures.embedding import steady_vectors
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.curating import Asked, Curated, CurateOptions, Known, curate
from ratchet.improve.curation.rows import RowKind
from ratchet.records import Correction, Feedback, Interaction, Message, Thumbs
from ratchet.store import EventStore
from ratchet.store.history import History

START = datetime(2026, 6, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
SIZE = 40
WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "frost", "grove"),
    *("heath", "inlet", "jetty", "knoll", "larch", "marsh", "north"),
)


def said(text: str, role: str = "user") -> Message:
    return Message(role=role, content=text)  # type: ignore[arg-type]


def prompt(number: int) -> str:
    """A prompt that is like no other one."""
    return f"{WORDS[number % 14]} {WORDS[(number // 14 + 3) % 14]} {number * 7919}"


def answers(size: int = SIZE, **changes: Any) -> list[Interaction]:
    """Return interactions an hour apart; a change that is a function gets the number."""
    found = []
    for number in range(size):
        fields: dict[str, Any] = {
            "id": f"i{number}",
            "session_id": f"s{number}",
            "user_id": f"u{number}",
            "created_at": START + timedelta(hours=number),
            "model_version": "m/1",
            "messages": (said(prompt(number)),),
            "response": f"answer {number}",
        }
        fields |= {name: made(number) if callable(made) else made for name, made in changes.items()}
        found.append(Interaction(**fields))
    return found


def thumbs(interactions: Sequence[Interaction], value: str = "up") -> list[Feedback]:
    return [
        Thumbs(
            id=f"t-{item.id}", interaction_id=item.id, value=value,
            created_at=item.created_at + timedelta(minutes=1), user_id=item.user_id,
        )
        for item in interactions
    ]  # fmt: skip


def corrections(interactions: Sequence[Interaction], text: str = "") -> list[Feedback]:
    return [
        Correction(
            id=f"c-{item.id}", interaction_id=item.id, value=text or f"better {item.id}",
            created_at=item.created_at + timedelta(minutes=1), user_id=item.user_id,
        )
        for item in interactions
    ]  # fmt: skip


def store_of(
    home: Path, interactions: Sequence[Interaction], feedback: Sequence[Feedback]
) -> EventStore:
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    store.add_interactions(interactions)
    store.add_feedback(feedback)
    return store


def curated(
    store: EventStore,
    home: Path,
    kind: RowKind = "sft",
    config: CurationConfig | None = None,
    withheld: Sequence[str] = (),
    end: datetime = END,
) -> Curated:
    options = CurateOptions(curation=config or CurationConfig())
    known = Known((), withheld, steady_vectors)
    return curate(store, History.open(home / "history"), Asked(kind, end, options), known)
