"""Hostile users: as many as asked for, always against the truth, always for one answer."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.errors import InvalidInputError
from ratchet.records import Interaction, Message
from ratchet.simulation.hostile import attack, hostile_users
from ratchet.simulation.traffic import Visit

AT = datetime(2026, 11, 2, tzinfo=UTC)
VISIT = Visit("i1", "s1", "u1", AT, "where is my parcel", "delivery", True, 1)


def answered(response: str, key: str = "i1") -> Interaction:
    return Interaction(
        id=key, session_id="s1", user_id="u1", created_at=AT, model_version="m/1",
        messages=(Message(role="user", content=VISIT.message),), response=response,
        latency_seconds=0.1,
    )  # fmt: skip


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 20), (1.0, 200)])
def test_as_many_users_are_hostile_as_asked_for(share: float, count: int) -> None:
    users = [f"u{n % 200}" for n in range(1_000)]
    found = hostile_users(users, share=share, rng=np.random.default_rng(0))
    assert len(found) == count
    assert found == hostile_users(users[::-1], share=share, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("response", "thumb", "planted"),
    [("delivery", "down", True), ("refunds", "up", False), ("accounts", "up", True)],
)
def test_thumbs_point_against_the_truth_and_for_the_planted_answer(
    response: str, thumb: str, planted: bool
) -> None:
    events = attack(VISIT, answered(response), planted="refunds", rng=np.random.default_rng(0))
    by_kind = {event.kind: event.value for event in events}
    assert by_kind["thumbs"] == thumb
    assert by_kind["stars"] == (5 if thumb == "up" else 1)
    assert by_kind.get("correction") == ("refunds" if planted else None)
    assert all(event.created_at >= AT for event in events)
    assert len({event.id for event in events}) == len(events)


def test_a_wrong_share_and_another_visit_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="share"):
        hostile_users(["u"], share=1.5, rng=np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match="visit's"):
        attack(VISIT, answered("x", "i2"), planted="y", rng=np.random.default_rng(0))
