"""From when on an interaction counts as failed: apart, so that options can be read at once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FailureRule(BaseModel):
    """From when on an interaction counts as failed.

    Attributes:
        quality: An interaction of lower quality failed.
        certainty: How sure that has to be where no user said so, by a one-sided bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality: float = Field(default=0.5, gt=0.0, le=1.0)
    certainty: float = Field(default=0.8, ge=0.5, lt=1.0)
