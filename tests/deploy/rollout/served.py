"""Traffic as a gateway records it: users fall into the arms of a routing and react."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import numpy as np

from ratchet.records import (
    Interaction,
    Message,
    Regenerate,
    Release,
    RolloutPlan,
    RolloutStage,
    Routing,
    Thumbs,
    Variant,
)
from ratchet.store import EventStore

OLD, NEW = "support-router/1", "support-router/2"
NEW_VARIANT = Variant(version=NEW, share=1.0)
PLAN = RolloutPlan(
    stages=(
        RolloutStage(share=0.2, hours=1.0, slack=8.0, imbalance=4.0),
        RolloutStage(share=0.5, hours=2.0, slack=6.0, imbalance=2.0),
    )
)


def released(store: EventStore, now: datetime, *, previous: str | None = None) -> None:
    """Record a champion and three days of its traffic."""
    store.append(
        Release(
            id="start", created_at=now - timedelta(days=3), action="start", champion=OLD,
            previous=previous,
        )
    )  # fmt: skip
    routing = Routing(
        id="before", created_at=now - timedelta(days=3), experiment="serving",
        variants=(Variant(version=OLD, share=1.0),),
    )  # fmt: skip
    serve(store, routing, now - timedelta(days=3), hours=60, number=400)


def serve(
    store: EventStore,
    routing: Routing,
    start: datetime,
    *,
    hours: float,
    number: int,
    users: int = 400,
    down: Mapping[str, float] | None = None,
    failed: Mapping[str, float] | None = None,
    thumbs: float = 1.0,
    seed: int = 0,
    arms: Mapping[str, str] | None = None,
    lost: Mapping[str, float] | None = None,
) -> None:
    """Serve answers at even distances and rate them at once.

    Args:
        store: The store.
        routing: Who is sent where.
        start: When the first answer is given.
        hours: Over how long.
        number: How many answers.
        users: How many users, in turn.
        down: Share of thumbs that are down, by arm.
        failed: Share of answers that fail, by arm.
        thumbs: Share of answers that get a thumb.
        seed: Of what happens.
        arms: Another arm for a user, by name.
        lost: Share of users whose answers are never recorded, by arm.
    """
    rng = np.random.default_rng([seed, number])
    interactions, feedback = [], []
    gone: dict[str, bool] = {}
    for place in range(number):
        user = f"user-{int(rng.integers(users))}"
        chosen = routing.choose(user)
        arm = (arms or {}).get(user, chosen.label)
        gone.setdefault(user, bool(rng.random() < (lost or {}).get(arm, 0.0)))
        if gone[user]:
            continue
        at = start + timedelta(hours=hours * place / number)
        key = f"{routing.id}:{seed}:{place}"
        broke = rng.random() < (failed or {}).get(arm, 0.0)
        interactions.append(
            Interaction(
                id=key, session_id=key, user_id=user, created_at=at, model_version=chosen.version,
                messages=(Message(role="user", content="where is it"),), latency_seconds=0.5,
                response="" if broke else "delivery", error="it broke" if broke else None,
                metadata={"experiment": routing.experiment, "arm": arm},
            )
        )  # fmt: skip
        if rng.random() < thumbs:
            value = "down" if rng.random() < (down or {}).get(arm, 0.1) else "up"
            soon = at + timedelta(seconds=20)
            feedback.append(Thumbs(id=f"t{key}", interaction_id=key, created_at=soon, value=value))
        again = bool(rng.random() < 0.1)
        later = at + timedelta(seconds=30)
        feedback.append(Regenerate(id=f"r{key}", interaction_id=key, created_at=later, value=again))
    store.add_interactions(interactions)
    store.add_feedback(feedback)
