"""Answers against targets, and what users made of the answers they got.

`join_feedback` brings interactions and their feedback together as arrays; `quality` turns each
interaction into a number in [0, 1] with its parts kept; `experience_metrics` sums up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import Metric, Record
from ratchet.stats.intervals import Interval, mean_interval, quantile_interval, wilson

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
ObjectArray = NDArray[np.object_]
TimeArray = NDArray[np.datetime64]
Unit = Literal["share", "seconds", "characters", "score"]

_EDGE = r"\s,;:!?…\"'`“”„‘’‚«»‹›*_，。！？、；：¡¿"
_LEADING = re.compile(rf"^(?:[{_EDGE}]|\.(?!\d))+")  # keeps the point of ".5"
_TRAILING = re.compile(rf"[{_EDGE}.]+$")
_MINIMUM_FOR_P99 = 100


def normalise_answer(text: str) -> str:
    """Return the text in the form in which answers are compared.

    Case is folded, white space collapsed, and punctuation, quotes and emphasis marks at either
    end removed; brackets, signs and a leading decimal point stay. A text of nothing else keeps
    its marks, so that "?" and "!" differ.

    Example:
        >>> normalise_answer(' "Card  Payments." ')
        'card payments'
    """
    folded = " ".join(text.casefold().split())
    return _TRAILING.sub("", _LEADING.sub("", folded)) or folded


def exact_match(answer: str, target: str) -> bool:
    """Tell whether both are the same after `normalise_answer`."""
    return normalise_answer(answer) == normalise_answer(target)


def accuracy(answers: Sequence[str], targets: Sequence[str]) -> Metric:
    """Share of answers that match their target, with its Wilson interval.

    Args:
        answers: What the model said.
        targets: What is right, in the same order.

    Returns:
        The metric `exact_match`; its value is None where there are no answers.

    Raises:
        InvalidInputError: The lengths differ.
    """
    if len(answers) != len(targets):
        raise InvalidInputError(
            f"answers and targets must be equally long, got {len(answers)} and {len(targets)}; "
            "an example without an answer counts as the empty answer"
        )
    matches = [exact_match(answer, target) for answer, target in zip(answers, targets, strict=True)]
    return _share("exact_match", np.array(matches, dtype=np.float64), "no examples were answered")


def constant_answer_rate(targets: Sequence[str]) -> float:
    """Share that always giving the most common target would get right.

    A model that does not beat this number has learnt nothing but that target.

    Raises:
        InsufficientDataError: There are no targets.
    """
    if not targets:
        raise InsufficientDataError("the rate needs at least 1 target, got 0; pass the examples'")
    ((_, count),) = Counter(normalise_answer(target) for target in targets).most_common(1)
    return count / len(targets)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Interactions with their feedback: arrays of shape (n,), oldest interaction first.

    In the float arrays nan means "not observed".

    Attributes:
        interaction_ids: Strings.
        created_at: In UTC, without a time zone.
        model_versions: Strings.
        segments: Strings.
        user_ids: Strings.
        session_ids: Strings.
        prompts: The last thing the user said.
        responses: The answers.
        failed_with_error: Whether there was an error in place of an answer.
        latency_seconds: Wall time the user waited.
        thumbs: 1 up, 0 down.
        stars: 1 to 5.
        copied: 1 copied, 0 seen not to.
        regenerated: 1 another answer was asked for, 0 seen not to.
        completed: 1 the task was done, 0 it was not.
        session_seconds: Length of the session whose last answer this is.
        judge_scores: What a judge that may count holds the answer to be worth, in [0, 1].
        unsafe: 1 the answer breaks a safety rule, 0 it was checked and does not.
        corrections: What the answer should have been, or None.
        comments: Free text, or None.
    """

    interaction_ids: ObjectArray
    created_at: TimeArray
    model_versions: ObjectArray
    segments: ObjectArray
    user_ids: ObjectArray
    session_ids: ObjectArray
    prompts: ObjectArray
    responses: ObjectArray
    failed_with_error: BoolArray
    latency_seconds: FloatArray
    thumbs: FloatArray
    stars: FloatArray
    copied: FloatArray
    regenerated: FloatArray
    completed: FloatArray
    session_seconds: FloatArray
    judge_scores: FloatArray
    unsafe: FloatArray
    corrections: ObjectArray
    comments: ObjectArray

    def __len__(self) -> int:
        return int(self.interaction_ids.size)

    def take(self, rows: BoolArray | NDArray[np.int64]) -> Outcomes:
        """Return the outcomes of some rows, given as a mask or as indices."""
        return Outcomes(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


_NUMBERS = {
    "thumbs": "thumbs",
    "stars": "stars",
    "copied": "copy",
    "regenerated": "regenerate",
    "completed": "task_completed",
    "session_seconds": "session_end",
    "judge_scores": "judge_score",
    "unsafe": "safety_violation",
}
_TEXTS = {"corrections": "correction", "comments": "comment"}


def join_feedback(
    interactions: pa.Table, feedback: pa.Table, *, judges: Collection[str] = ()
) -> Outcomes:
    """Join feedback to the interactions it is about.

    Of several events of one kind on one interaction the one with the latest `created_at` counts,
    and of those at the same moment the one with the greatest id. Feedback on an interaction that
    is not in the table is left out, and so is an event without its value. The order of the rows
    of either table does not matter.

    Args:
        interactions: Columns id, session_id, user_id, created_at, model_version, segment, prompt,
            response, latency_seconds (nullable), error (nullable).
        feedback: Columns id, interaction_id, kind, created_at, number (nullable: thumbs 1 or 0,
            stars 1 to 5, booleans 1 or 0, seconds), text (nullable: comment, correction,
            version of a judge).
        judges: Versions of judges that were found usable; scores of any other are left out.

    Returns:
        One entry per interaction in `created_at` order, ties by id.

    Raises:
        InvalidInputError: Two interactions have the same id.
    """
    interactions = interactions.sort_by([("created_at", "ascending"), ("id", "ascending")])
    ids = interactions["id"].cast(pa.large_string()).combine_chunks()
    distinct = pc.count_distinct(ids).as_py()
    if distinct != len(ids):
        raise InvalidInputError(
            f"interaction ids must be unique, got {len(ids)} rows with {distinct} ids; "
            "read each interaction once"
        )
    events = _events_in_time_order(ids, _without_unusable_judges(feedback, judges))
    joined = {name: _latest(events, kind, "number", len(ids)) for name, kind in _NUMBERS.items()}
    joined |= {name: _latest(events, kind, "text", len(ids)) for name, kind in _TEXTS.items()}
    created_at = interactions["created_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return Outcomes(
        interaction_ids=_objects(ids),
        created_at=created_at.to_numpy().astype("datetime64[us]"),
        model_versions=_objects(interactions["model_version"]),
        segments=_objects(interactions["segment"]),
        user_ids=_objects(interactions["user_id"]),
        session_ids=_objects(interactions["session_id"]),
        prompts=_objects(interactions["prompt"]),
        responses=_objects(interactions["response"]),
        failed_with_error=interactions["error"].is_valid().to_numpy().astype(np.bool_),
        latency_seconds=_floats(interactions["latency_seconds"]),
        **joined,
    )


def _without_unusable_judges(feedback: pa.Table, judges: Collection[str]) -> pa.Table:
    usable = pc.is_in(feedback["text"], value_set=pa.array(sorted(judges), pa.string()))
    return feedback.filter(pc.or_(pc.not_equal(feedback["kind"], "judge_score"), usable))


def _events_in_time_order(ids: Any, feedback: pa.Table) -> pa.Table:
    rows = pc.index_in(feedback["interaction_id"].cast(pa.large_string()), value_set=ids)
    known = feedback.append_column("row", rows).filter(pc.is_valid(rows))
    return known.sort_by([("created_at", "ascending"), ("id", "ascending")])


def _latest(events: pa.Table, kind: str, column: str, size: int) -> NDArray[Any]:
    """Return the last value of one kind for each interaction; nan or None where there is none."""
    of_kind = pc.and_(pc.equal(events["kind"], kind), pc.is_valid(events[column]))
    chosen = events.filter(of_kind)
    rows = chosen["row"].to_numpy()
    # events are in time order: the first occurrence in the reversed rows is the latest event
    targets, from_the_end = np.unique(rows[::-1], return_index=True)
    last = len(rows) - 1 - from_the_end
    if column == "number":
        numbers = np.full(size, np.nan)
        numbers[targets] = _floats(chosen[column])[last]
        return numbers
    texts = np.full(size, None, dtype=np.object_)
    texts[targets] = _objects(chosen[column])[last]
    return texts


def _objects(column: Any) -> ObjectArray:
    values = column.cast(pa.large_string()).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.object_)


def _floats(column: Any) -> FloatArray:
    return np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


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


def experience_metrics(outcomes: Outcomes, quality: Quality) -> tuple[Metric, ...]:
    """Sum up what users made of the answers.

    Shares carry a Wilson interval, means a t interval cut to what the unit allows, latency
    quantiles an order-statistic interval where there are enough values. Rates of thumbs, copies,
    regenerations and completions are among the interactions for which the signal was observed;
    corrections, errors and coverage are among all. A metric without data has the value None and
    says why.
    """
    corrected = given(outcomes.corrections)
    explicit = corrected | given(outcomes.comments)
    explicit |= ~np.isnan(outcomes.thumbs) | ~np.isnan(outcomes.stars)
    none = "no interactions in the window"
    return (
        _share("thumbs_down_rate", 1.0 - outcomes.thumbs, "no thumbs in the window"),
        _share("copy_rate", outcomes.copied, "no copy signals in the window"),
        _share("regenerate_rate", outcomes.regenerated, "no regenerate signals in the window"),
        _share("completion_rate", outcomes.completed, "no task_completed signals in the window"),
        _share("correction_rate", corrected.astype(np.float64), none),
        _share("error_rate", outcomes.failed_with_error.astype(np.float64), none),
        _share("feedback_coverage", explicit.astype(np.float64), none),
        _share("safety_violation_rate", outcomes.unsafe, "no safety check is connected"),
        _mean("session_seconds", outcomes.session_seconds, "seconds"),
        _quantile("latency_seconds_p50", outcomes.latency_seconds, 0.5, minimum=1),
        _quantile("latency_seconds_p99", outcomes.latency_seconds, 0.99, _MINIMUM_FOR_P99),
        _mean("judge_score", quality.judge, "score"),
        _mean("implicit_quality", quality.implicit, "score"),
        _mean("quality", quality.value, "score"),
    )


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


def share_metric(name: str, indicators: FloatArray) -> Metric:
    """Return the share of ones among what was observed (not nan), with its Wilson interval."""
    return _share(name, indicators, f"no {name.replace('_', ' ')} was observed")


def latency_metric(seconds: FloatArray) -> Metric:
    """Return the p99 latency of what was observed (not nan), with its interval."""
    return _quantile("latency_seconds_p99", seconds, 0.99, _MINIMUM_FOR_P99)


def _observed(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]


def _undefined(name: str, unit: Unit, reason: str, observations: int = 0) -> Metric:
    return Metric(name=name, value=None, observations=observations, unit=unit, reason=reason)


def _share(name: str, indicators: FloatArray, reason: str) -> Metric:
    observed = _observed(indicators)
    if observed.size == 0:
        return _undefined(name, "share", reason)
    successes = int(observed.sum())
    interval = wilson(successes, observed.size)
    return _measured(name, successes / observed.size, interval, observed.size, "share")


def _mean(name: str, values: FloatArray, unit: Unit) -> Metric:
    observed = _observed(values)
    try:
        interval = mean_interval(observed)
    except InsufficientDataError as error:
        return _undefined(name, unit, str(error), observed.size)
    upper = min(1.0, interval.upper) if unit == "score" else interval.upper
    within = Interval(max(0.0, interval.lower), upper, interval.level)
    return _measured(name, float(observed.mean()), within, observed.size, unit)


def _quantile(name: str, values: FloatArray, quantile: float, minimum: int) -> Metric:
    observed = _observed(values)
    if observed.size < minimum:
        reason = f"{name} needs at least {minimum} values, got {observed.size}; collect more"
        return _undefined(name, "seconds", reason, observed.size)
    value = float(np.quantile(observed, quantile))
    try:
        interval = quantile_interval(observed, quantile)
    except InsufficientDataError as error:
        return Metric(
            name=name, value=value, observations=observed.size, unit="seconds", reason=str(error)
        )
    return _measured(name, value, interval, observed.size, "seconds")


def _measured(name: str, value: float, interval: Interval, observations: int, unit: Unit) -> Metric:
    return Metric(
        name=name,
        value=value,
        lower=interval.lower,
        upper=interval.upper,
        level=interval.level,
        observations=observations,
        unit=unit,
    )
