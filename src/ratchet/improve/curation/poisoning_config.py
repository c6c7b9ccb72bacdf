"""What is done against hostile users; see `ratchet.improve.curation.poisoning`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.improve.curation.agreement import BLOCK
from ratchet.records import Share


class PoisoningConfig(BaseModel):
    """What is done against hostile users.

    Attributes:
        enabled: Defend at all.
        minimum_trust: Probability of being honest that a user has to keep; those about whom
            nothing is known keep their feedback.
        neighbours: Messages of other users that a word for an answer is compared with.
        block: They are looked for among so many words for answers of about the same time.
        new_user_days: A user is new for so long after the first message.
        window_hours: A brigade acts within so long.
        brigade_users: It has at least so many new users.
        level: Chance that any of the groups and users looked at is called a brigade, or a
            one-answer user, by mistake (Bonferroni).
        user_rows: A user may always give so many rows.
        user_share: Beyond that, at most this share of a set.
        source_share: At most this share of a set from one segment, where there are several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    minimum_trust: Share = 0.5
    neighbours: Annotated[int, Field(ge=3, le=100)] = 10
    block: Annotated[int, Field(ge=1_000)] = BLOCK
    new_user_days: Annotated[float, Field(gt=0.0)] = 7.0
    window_hours: Annotated[float, Field(gt=0.0)] = 24.0
    brigade_users: Annotated[int, Field(ge=2)] = 5
    level: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    user_rows: Annotated[int, Field(ge=1)] = 10
    user_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    source_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
