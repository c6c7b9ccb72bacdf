"""For how long things are kept: the defaults, and a YAML file that changes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.text import finding, printable
from ratchet.files.yaml import read_yaml

FEWEST_DAYS = 40
"""Answers may arrive 35 days late and still be watched, on a baseline of a week before."""
Days = Annotated[int, Field(strict=True, ge=1, le=36_500)] | None


class RetentionConfig(BaseModel):
    """Days after which something is deleted; `null` keeps it for good.

    Attributes:
        interactions_days: Interactions and their feedback in the store; history keeps them.
        history_days: Interactions and feedback in history.
        set_aside_days: Rows that could not be used.
        verdicts_days: What judges said; a judge that needs it again is asked again.
        answers_days: Recorded answers to examples, counted from when they were recorded; a model
            is asked again where a gate needs them.
        vectors_days: Vectors of texts, counted likewise, and results of shards; they are made again
            where needed.
        late_days: How late answers may arrive and still be watched, as `watch.late_days`: states of
            boards stay that long, one an hour after the first day.
        passes_days: Flow runs of passes that ended well, and the records of safety passes.
        records_days: Records of alerts that were sent, and looks of ended rollouts that decided
            nothing.
        flow_runs_days: All other flow runs that ended, with their logs and artifacts.
        tracking_days: MLflow runs of boards, of collecting and of analyzing, with their pictures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    interactions_days: Annotated[int, Field(strict=True, ge=FEWEST_DAYS, le=36_500)] | None = 90
    history_days: Days = None
    set_aside_days: Days = 90
    verdicts_days: Days = 180
    answers_days: Days = 365
    vectors_days: Days = 90
    late_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 35
    passes_days: Days = 7
    records_days: Annotated[int, Field(strict=True, ge=2, le=36_500)] | None = 90
    flow_runs_days: Days = 90
    tracking_days: Days = 180


def load_retention(path: Path | None) -> RetentionConfig:
    """Read a YAML file that says how long things are kept; the defaults without one.

    Raises:
        InvalidInputError: It is not there, no YAML, or breaks a rule.
    """
    if path is None:
        return RetentionConfig()
    names = ", ".join(RetentionConfig.model_fields)
    content = read_yaml(path, what="retention", holds=names)
    try:
        return RetentionConfig.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(
            f"{printable(path.name)}: {finding(error)}; it may hold {names}, each a number of days "
            "or null"
        ) from error
