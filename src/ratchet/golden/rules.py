"""How the golden set grows: who is drawn, what counts as right, and when a version is due."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.improve.curation.config import GOOD_LABELS
from ratchet.records import GoldenVersion


class GoldenRules(BaseModel):
    """How the golden set grows.

    Attributes:
        automatic: Whether `collect` makes versions by itself; `ratchet golden build` does either
            way.
        examples: Examples of a version at most; the oldest are retired first.
        minimum: Examples of the first version at least.
        per_user: Examples of one user at most.
        user_share: Share of users that may be held out; nothing that they wrote is trained on.
        corrections: Which corrections are right: those that a person confirmed in the queue of
            reviews, or all that users have `given`.
        good_labels: Labels of people that call an answer right.
        answer_dimension: Dimension whose labels are the right answers themselves, such as the name
            of a queue; none where left out.
        new: New examples that a further version needs.
        days: Days since the version before that a further one needs.
        version: The version that the gate asks; the latest where left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    automatic: bool = True
    examples: Annotated[int, Field(ge=20, le=10_000)] = 300
    minimum: Annotated[int, Field(ge=20)] = 100
    per_user: Annotated[int, Field(ge=1)] = 3
    user_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.3
    corrections: Literal["confirmed", "given"] = "confirmed"
    good_labels: tuple[str, ...] = GOOD_LABELS
    answer_dimension: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    new: Annotated[int, Field(ge=1)] = 30
    days: Annotated[float, Field(ge=0.0)] = 7.0
    version: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.minimum > self.examples:
            raise ValueError(
                f"minimum must be at most examples, got {self.minimum} and {self.examples}; raise "
                "examples"
            )
        return self

    def why_due(self, latest: GoldenVersion | None, new: int, now: datetime) -> str | None:
        """Say why a version is due; None where none is.

        Args:
            latest: The latest version.
            new: Examples that it lacks.
            now: The time.
        """
        if latest is None:
            is_due = new >= self.minimum
            return f"{new} examples are there, {self.minimum} are needed" if is_due else None
        if new < self.new or not self.is_old(latest, now):
            return None
        age = (now - latest.created_at) / timedelta(days=1)
        return (
            f"{new} new examples came, {self.new} are needed, {age:.0f} days after version "
            f"{latest.number}, {self.days:g} are needed"
        )

    def is_old(self, latest: GoldenVersion, now: datetime) -> bool:
        """Tell whether so many days passed since a version that a further one may be due."""
        return now - latest.created_at >= timedelta(days=self.days)
