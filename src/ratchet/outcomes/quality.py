"""What an interaction was worth, in [0, 1], with the parts kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from ratchet.outcomes.join import BoolArray, FloatArray, ObjectArray, Outcomes
from ratchet.records import Record


class QualityWeights(Record):
    """How the parts of an interaction's quality are weighed; only their ratios matter.

    Attributes:
        explicit: Weight of thumbs, stars and corrections.
        judge: Weight of judges; only those found usable have scores.
        implicit: Weight of the implicit quality score.
        copied: Within the implicit score: the answer was copied.
        not_regenerated: No other answer was asked for.
        task_completed: The task was done.
        engaged: The session was not left at once.
        engaged_after_seconds: A session at least this long counts as engaged.
    """

    explicit: float = Field(default=0.6, ge=0.0, allow_inf_nan=False)
    judge: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    implicit: float = Field(default=0.4, ge=0.0, allow_inf_nan=False)
    copied: float = Field(default=0.25, ge=0.0, allow_inf_nan=False)
    not_regenerated: float = Field(default=0.25, ge=0.0, allow_inf_nan=False)
    task_completed: float = Field(default=0.35, ge=0.0, allow_inf_nan=False)
    engaged: float = Field(default=0.15, ge=0.0, allow_inf_nan=False)
    engaged_after_seconds: float = Field(default=10.0, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        groups = (
            ("explicit, judge, implicit", (self.explicit, self.judge, self.implicit)),
            ("copied, not_regenerated, task_completed, engaged", self.signals()),
        )
        for names, weights in groups:
            if sum(weights) == 0.0:
                raise ValueError(f"one of the weights {names} must be above 0, got only zeros")
        return self

    def signals(self) -> tuple[float, float, float, float]:
        """Return the weights of the implicit signals in the order of their fields."""
        return self.copied, self.not_regenerated, self.task_completed, self.engaged


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of each interaction: arrays of shape (n,) in [0, 1]; nan means nothing observed.

    Attributes:
        value: The whole; 0 where the interaction failed with an error.
        explicit: Mean of the observed thumbs and stars; 0 where the user corrected the answer.
        judge: Score of a judge that may count.
        implicit: Weighted mean of the observed implicit signals.
        parts: What explicit and implicit rest on: thumbs, stars, copied, not_regenerated,
            task_completed, engaged, each in [0, 1].
    """

    value: FloatArray
    explicit: FloatArray
    judge: FloatArray
    implicit: FloatArray
    parts: Mapping[str, FloatArray]


def quality(outcomes: Outcomes, weights: QualityWeights) -> Quality:
    """Score each interaction in [0, 1] by what was observed of it.

    Each mean is over what was observed, its weights scaled to sum to one, so that a missing
    signal counts neither for nor against an answer.

    Args:
        outcomes: Interactions with their feedback.
        weights: How the parts are weighed; `docs/methods.md` explains the defaults.
    """
    engaged = _engaged(outcomes.session_seconds, weights)
    parts = {
        "thumbs": outcomes.thumbs,
        "stars": (outcomes.stars - 1.0) / 4.0,
        "copied": outcomes.copied,
        "not_regenerated": 1.0 - outcomes.regenerated,
        "task_completed": outcomes.completed,
        "engaged": engaged,
    }
    explicit = _weighted_mean((parts["thumbs"], parts["stars"]), (1.0, 1.0))
    explicit[given(outcomes.corrections)] = 0.0
    implicit = implicit_score(
        copied=outcomes.copied,
        regenerated=outcomes.regenerated,
        completed=outcomes.completed,
        session_seconds=outcomes.session_seconds,
        weights=weights,
    )
    judge = outcomes.judge_scores
    value = _weighted_mean(
        (explicit, judge, implicit), (weights.explicit, weights.judge, weights.implicit)
    )
    value[outcomes.failed_with_error] = 0.0
    return Quality(value=value, explicit=explicit, judge=judge, implicit=implicit, parts=parts)


def implicit_score(
    *,
    copied: FloatArray,
    regenerated: FloatArray,
    completed: FloatArray,
    session_seconds: FloatArray,
    weights: QualityWeights,
) -> FloatArray:
    """Return the implicit quality of each interaction, nan where no signal was observed.

    Arrays of shape (n,), nan where not observed, as in `Outcomes`.
    """
    signals = (copied, 1.0 - regenerated, completed, _engaged(session_seconds, weights))
    return _weighted_mean(signals, weights.signals())


def _engaged(session_seconds: FloatArray, weights: QualityWeights) -> FloatArray:
    long_enough = session_seconds >= weights.engaged_after_seconds
    return np.where(np.isnan(session_seconds), np.nan, long_enough)


def given(texts: ObjectArray) -> BoolArray:
    """Tell which texts are there, shape (n,)."""
    return np.array([text is not None for text in texts], dtype=np.bool_)


def _weighted_mean(parts: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """Return the mean over the parts that are not nan; nan where their weights sum to zero."""
    stacked = np.stack(parts)
    effective = np.asarray(weights)[:, np.newaxis] * ~np.isnan(stacked)
    total = effective.sum(axis=0)
    weighted = (np.nan_to_num(stacked) * effective).sum(axis=0)
    mean = np.full(total.shape, np.nan)
    np.divide(weighted, total, out=mean, where=total > 0.0)
    return np.clip(mean, 0.0, 1.0)
