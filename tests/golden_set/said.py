"""A store in which users asked and people said what is right."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from ratchet.golden.building import refresh
from ratchet.golden.rules import GoldenRules
from ratchet.records import (
    Correction,
    GoldenVersion,
    HumanLabel,
    Interaction,
    Message,
    ReviewDecision,
    ReviewItem,
)
from ratchet.review.corrections import CORRECTION, RAISED_BY
from ratchet.store import EventStore
from ratchet.store.history import History

START = datetime(2026, 6, 1, tzinfo=UTC)
SAID = START + timedelta(days=30)
NO_HISTORY = History.open("no-history")
LABELS = ("Billing", "Returns", "Delivery")


def prompt(number: int) -> str:
    """Return a question that is like no other one, and holds nothing personal."""
    letters = "".join(chr(ord("a") + byte % 16) for byte in sha256(str(number).encode()).digest())
    return f"{letters[:14]} {letters[14:28]}"


def asked(number: int, **changes: Any) -> Interaction:
    """Return what a user of their own asked, unlike any other question."""
    fields: dict[str, Any] = {
        "id": f"i{number}", "session_id": f"s{number}", "user_id": f"u{number}",
        "created_at": START + timedelta(hours=number / 10), "model_version": "m/1",
        "messages": (Message(role="user", content=prompt(number)),),
        "response": LABELS[number % 3],
    }  # fmt: skip
    return Interaction(**(fields | changes))


def approve(store: EventStore, numbers: Sequence[int], at: datetime = SAID, **changes: Any) -> None:
    """Have a person call answers good."""
    for number in numbers:
        fields: dict[str, Any] = {
            "id": f"l{number}-{len(changes)}-{changes.get('reviewer', 'ana')}",
            "created_at": at, "item_id": f"i{number}", "dimension": "helpfulness",
            "label": "good", "reviewer": "ana",
        }  # fmt: skip
        store.append(HumanLabel(**(fields | changes)))


def correct(store: EventStore, number: int, text: str, at: datetime = SAID) -> None:
    """Have a user say what the answer should have been."""
    about = {"interaction_id": f"i{number}", "created_at": at}
    store.add_feedback([Correction(id=f"c{number}", value=text, **about)])


def confirm(store: EventStore, number: int, at: datetime = SAID, people: int = 1) -> None:
    """Have a person confirm a correction in the queue of reviews, which so many have to decide."""
    item = ReviewItem(
        id=f"r{number}", created_at=at, interaction_id=f"i{number}", dimension=CORRECTION,
        priority="normal", raised_by=RAISED_BY, why="is it right?", people=people,
    )  # fmt: skip
    store.append(item)
    store.append(
        ReviewDecision(
            id=f"d{number}", created_at=at, item_id=item.id, label="confirmed", reviewer="bob"
        )
    )


def build(
    store: EventStore,
    home: Path,
    rules: GoldenRules,
    now: datetime = SAID,
    *,
    asked: bool = False,
) -> GoldenVersion | None:
    return refresh(store, home, NO_HISTORY, rules, now=now, open_tokens=256, asked=asked)
