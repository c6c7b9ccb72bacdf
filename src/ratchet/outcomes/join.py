"""Interactions with their feedback, as arrays."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, make_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.errors import InvalidInputError
from ratchet.records.signal import Signal
from ratchet.records.signals import BY_NAME, FEEDBACK_KINDS, JUDGED_KINDS

BoolArray = NDArray[np.bool_]


FloatArray = NDArray[np.float64]


ObjectArray = NDArray[np.object_]


TimeArray = NDArray[np.datetime64]


COLUMN_OF = {kind: column for kind in FEEDBACK_KINDS if (column := BY_NAME[kind].column)}
"""The column of outcomes that holds each kind of feedback."""


if TYPE_CHECKING:
    _SignalColumns = object
else:
    # A column for each signal of the catalogue, also those that no code names.
    _SignalColumns = make_dataclass(
        "_SignalColumns",
        [(column, NDArray[Any]) for column in COLUMN_OF.values()],
        frozen=True,
        slots=True,
        kw_only=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes(_SignalColumns):
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
        edited: 1 the question was changed and asked again, 0 it was not.
        next_turn: What the user wrote next, from 1 (complained) to 5 (thanked), by a usable reader.
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
    edited: FloatArray
    next_turn: FloatArray

    def __len__(self) -> int:
        return int(self.interaction_ids.size)

    def of_versions(self, names: Collection[str]) -> Outcomes:
        """Return the interactions that versions of these names answered."""
        return self.take(np.logical_or.reduce([self.model_versions == name for name in names]))

    def take(self, rows: BoolArray | NDArray[np.int64]) -> Outcomes:
        """Return the outcomes of some rows, given as a mask or as indices."""
        return Outcomes(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def observed(self, signal: Signal) -> FloatArray:
        """Return a signal's values, nan where not observed; of texts and errors 1 where there.

        Raises:
            InvalidInputError: Outcomes do not hold the signal.
        """
        if signal.column is None:
            raise InvalidInputError(
                f"outcomes hold signals with a column alone, got {signal.name}; give it a column"
            )
        values: NDArray[Any] = getattr(self, signal.column)
        if signal.value == "text":
            values = np.array([text is not None for text in values], dtype=np.bool_)
        return values.astype(np.float64, copy=False)


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
    joined = {name: _latest(events, kind, len(ids)) for kind, name in COLUMN_OF.items()}
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
    judged = pc.is_in(feedback["kind"], value_set=pa.array(JUDGED_KINDS, pa.string()))
    return feedback.filter(pc.or_(pc.invert(judged), usable))


def _events_in_time_order(ids: Any, feedback: pa.Table) -> pa.Table:
    rows = pc.index_in(feedback["interaction_id"].cast(pa.large_string()), value_set=ids)
    known = feedback.append_column("row", rows).filter(pc.is_valid(rows))
    return known.sort_by([("created_at", "ascending"), ("id", "ascending")])


def _latest(events: pa.Table, kind: str, size: int) -> NDArray[Any]:
    """Return the last value of one kind for each interaction; nan or None where there is none."""
    column = "text" if BY_NAME[kind].value == "text" else "number"
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
