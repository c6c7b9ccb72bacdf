"""What an interaction was worth, in [0, 1], with the parts kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, create_model, model_validator

from ratchet.outcomes.join import BoolArray, FloatArray, ObjectArray, Outcomes
from ratchet.records import Record
from ratchet.records.signals import QUALITY_SIGNALS

_Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_PARTS = {signal.part.name: signal.part.weight for signal in QUALITY_SIGNALS if signal.part}


class _GroupWeights(Record):
    explicit: _Weight = 0.6
    judge: _Weight = 0.0
    implicit: _Weight = 0.4


if TYPE_CHECKING:
    _PartWeights = _GroupWeights
else:
    # A field for each part of the implicit quality, as the catalogue of signals declares it.
    _PartWeights = create_model(
        "_PartWeights",
        __base__=_GroupWeights,
        **{name: (_Weight, weight) for name, weight in _PARTS.items()},
    )


class QualityWeights(_PartWeights):
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

    engaged_after_seconds: _Weight = 10.0

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        groups = (
            ("explicit, judge, implicit", (self.explicit, self.judge, self.implicit)),
            (", ".join(_PARTS), self.signals()),
        )
        for names, weights in groups:
            if sum(weights) == 0.0:
                raise ValueError(f"one of the weights {names} must be above 0, got only zeros")
        return self

    def signals(self) -> tuple[float, ...]:
        """Return the weights of the implicit signals in the order of the catalogue."""
        return tuple(getattr(self, name) for name in _PARTS)


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of each interaction: arrays of shape (n,) in [0, 1]; nan means nothing observed.

    Attributes:
        value: The whole; 0 where the interaction failed with an error.
        explicit: Mean of the observed thumbs and stars; 0 where the user corrected the answer.
        judge: Score of a judge that may count.
        implicit: Weighted mean of the observed implicit signals.
        parts: What explicit and implicit rest on, each in [0, 1]: thumbs, stars and a part for
            each weight of the implicit signals.
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
    numbers = {str(signal.column): outcomes.observed(signal) for signal in QUALITY_SIGNALS}
    numbers |= {name: getattr(outcomes, name) for name in ("thumbs", "stars", "judge_scores")}
    return quality_of(numbers, given(outcomes.corrections), outcomes.failed_with_error, weights)


def quality_of(
    numbers: Mapping[str, FloatArray],
    corrected: BoolArray,
    failed: BoolArray,
    weights: QualityWeights,
) -> Quality:
    """Score interactions by the numbers that were observed of them. See `quality`.

    Args:
        numbers: Values by their column in outcomes, nan where not observed, shape (n,) each.
        corrected: Whether the user corrected the answer.
        failed: Whether there was an error in place of an answer.
        weights: How the parts are weighed.
    """
    signals = _implicit_parts(
        {signal.name: numbers[str(signal.column)] for signal in QUALITY_SIGNALS}, weights
    )
    thumbs, stars = numbers["thumbs"], numbers["stars"]
    parts = {"thumbs": thumbs, "stars": (stars - 1.0) / 4.0} | signals
    explicit = _weighted_mean((parts["thumbs"], parts["stars"]), (1.0, 1.0))
    explicit[corrected] = 0.0
    implicit = _weighted_mean(tuple(signals.values()), weights.signals())
    judge = numbers["judge_scores"]
    value = _weighted_mean(
        (explicit, judge, implicit), (weights.explicit, weights.judge, weights.implicit)
    )
    value[failed] = 0.0
    return Quality(value=value, explicit=explicit, judge=judge, implicit=implicit, parts=parts)


def implicit_score(numbers: Mapping[str, FloatArray], weights: QualityWeights) -> FloatArray:
    """Return the implicit quality of each interaction, nan where no signal was observed.

    Args:
        numbers: Values of each implicit signal by its name, nan where not observed, shape (n,).
        weights: How the parts are weighed.
    """
    return _weighted_mean(tuple(_implicit_parts(numbers, weights).values()), weights.signals())


def _implicit_parts(
    numbers: Mapping[str, FloatArray], weights: QualityWeights
) -> dict[str, FloatArray]:
    """Return each part of the implicit quality, 1 for good, 0 for bad, nan for not observed."""
    return {
        signal.part.name: _engaged(numbers[signal.name], weights)
        if signal.value == "number"
        else signal.good_answers(numbers[signal.name])
        for signal in QUALITY_SIGNALS
        if signal.part
    }


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
