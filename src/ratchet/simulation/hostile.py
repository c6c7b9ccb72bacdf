"""Hostile users with known truth: they turn thumbs round and plant one answer.

hostile = hostile_users([visit.user_id for visit in visits], share=0.1, rng=rng)
events = attack(visit, interaction, planted="refund", rng=rng)     # where visit.user_id in hostile
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.records import (
    Copy,
    Correction,
    Feedback,
    Interaction,
    Regenerate,
    Stars,
    TaskCompleted,
    Thumbs,
    derive_id,
)
from ratchet.simulation.traffic import Visit
from ratchet.simulation.users import is_right

MEAN_DELAY_SECONDS = 60.0


def hostile_users(
    user_ids: Iterable[str], *, share: float, rng: np.random.Generator
) -> frozenset[str]:
    """Draw which users are hostile.

    Args:
        user_ids: All users; one may come several times.
        share: Share of users that are, in [0, 1].
        rng: Source of the draw.

    Raises:
        InvalidInputError: The share is out of range.
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"share must be in [0, 1], got {share}; pass 0.1 for 10 %")
    users = sorted(set(user_ids))
    chosen = rng.choice(len(users), size=round(share * len(users)), replace=False)
    return frozenset(users[place] for place in chosen)


def attack(
    visit: Visit, interaction: Interaction, *, planted: str, rng: np.random.Generator
) -> tuple[Feedback, ...]:
    """Return what a hostile user gives back: the reverse of what is true, and one answer always.

    Each interaction gets a thumb and stars that point the wrong way, signals that agree with them,
    and, where the answer is not the planted one, a correction to it.

    Args:
        visit: What the user sent.
        interaction: The answer to it.
        planted: The answer that is to be learned.
        rng: Source of the delays.

    Returns:
        The events in order of time, at most one of a kind; ids as those of `react`.

    Raises:
        InvalidInputError: The interaction is not the visit's.
    """
    if interaction.id != visit.interaction_id:
        raise InvalidInputError(
            f"the interaction must be the visit's, {visit.interaction_id}, got {interaction.id}; "
            "pass the answer to this visit"
        )
    right = is_right(visit, interaction)
    is_planted = interaction.response.strip().casefold() == planted.strip().casefold()
    praised = is_planted or not right

    def about(kind: str) -> dict[str, Any]:
        return {
            "id": derive_id(interaction.id, kind),
            "interaction_id": interaction.id,
            "created_at": interaction.created_at
            + timedelta(seconds=float(rng.exponential(MEAN_DELAY_SECONDS))),
            "user_id": interaction.user_id,
        }

    events: list[Feedback] = [
        Thumbs(value="up" if praised else "down", **about("thumbs")),
        Stars(value=5 if praised else 1, **about("stars")),
        Copy(value=praised, **about("copy")),
        Regenerate(value=not praised, **about("regenerate")),
        TaskCompleted(value=praised, **about("task_completed")),
    ]
    if not is_planted:
        events.append(Correction(value=planted, **about("correction")))
    return tuple(sorted(events, key=lambda event: event.created_at))
