"""What a window's answers called, took and cost, and what became of its sessions, by version.

facts = read_answer_facts(store, window)
metrics = read_answer_metrics(store, facts, ("support-router/3",))

Reading is narrow: no words but those that hold calls or were to have a form.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from ratchet.evaluation.answer_facts import measure_answers
from ratchet.judges.usable import usable_versions
from ratchet.outcomes.answers import AnswerFacts, answer_metrics, session_metrics, sessions_of
from ratchet.outcomes.join import ObjectArray
from ratchet.records import Metric
from ratchet.records.answer_signals import MEASURED
from ratchet.store import EventStore, Window
from ratchet.store.erasure import FORGOTTEN

_ALL_FEEDBACK = timedelta(days=36_525)
_NAMES = ("id", "session_id", "user_id")
_TOLD = ("task_completed", "left", "session_score")
_USER = "user"


def read_answer_facts(store: EventStore, window: Window) -> AnswerFacts:
    """Read what answers carry themselves, with what was told of their tasks; no texts."""
    table = store.signals(
        window, lag=_ALL_FEEDBACK, judges=usable_versions(store), measure=measure_answers,
        names=_NAMES,
    )  # fmt: skip
    numbers: dict[str, Any] = {
        name: table[name].cast(pa.float64()).to_numpy() for name in (*MEASURED, *_TOLD)
    }
    users = _objects(table["user_id"])
    users[users == FORGOTTEN] = None
    return AnswerFacts(
        interaction_ids=_objects(table["id"]),
        session_ids=_objects(table["session_id"]),
        user_ids=users,
        model_versions=_objects(table["model_version"]),
        values=numbers,
    )


def read_answer_metrics(
    store: EventStore, facts: AnswerFacts, names: Collection[str]
) -> tuple[Metric, ...]:
    """Return the metrics of answers and of sessions of one version.

    Args:
        store: Holds the conversations in which a task was done.
        facts: Answers of all versions, so that shared sessions are known.
        names: The version's names.
    """
    sessions, _ = sessions_of(facts, names)
    done = [str(facts.interaction_ids[one.done]) for one in sessions if one.done is not None]
    return (
        *answer_metrics(facts, names),
        *session_metrics(facts, names, _turns(store, done)),
    )


def _turns(store: EventStore, ids: list[str]) -> dict[str, int]:
    """Count the user's turns of conversations, some at a time."""
    found: dict[str, int] = {}
    for start in range(0, len(ids), 500):
        for key, one in store.stored_interactions(ids[start : start + 500]).items():
            found[key] = sum(message.role == _USER for message in one.messages)
    return found


def _objects(column: pa.ChunkedArray) -> ObjectArray:
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.object_)
