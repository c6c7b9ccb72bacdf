"""How the flow analyze uses judges: apart, so that a pass that asks none imports none."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.judges.validation import Bar


class JudgeOptions(BaseModel):
    """How judges are used.

    Attributes:
        bar: What a judge has to reach before its scores count.
        sample: Interactions of the window that each judge is asked about, at most.
        drift_anchors: Labelled interactions that judges behind an endpoint are asked about again
            each week; 0 for none.
        seed: Of the bootstrap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bar: Bar = Bar()
    sample: Annotated[int, Field(ge=0)] = 200
    drift_anchors: Annotated[int, Field(ge=0)] = 50
    seed: Annotated[int, Field(ge=0)] = 0
