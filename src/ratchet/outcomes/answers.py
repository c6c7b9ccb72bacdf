"""What answers called, took and cost, and whether conversations reached their end, in metrics.

A session is done where the application says of one of its answers that the task was done
(`task_completed`), and not done where it said of others that it was not. One of which it said
nothing is not known. Where the traffic shows which conversations were left, a session that may
still go on counts for neither side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.outcomes.experience import (
    Unit,
    mean_metric,
    share_metric,
    undefined_metric,
)
from ratchet.outcomes.join import BoolArray, FloatArray, ObjectArray
from ratchet.records import Metric
from ratchet.records.answer_signals import ANSWER_SIGNALS

_MEANS: tuple[tuple[str, Unit], ...] = (
    ("tool_calls", "calls"), ("tokens_in", "tokens"), ("tokens_out", "tokens"),
)  # fmt: skip

ANSWER_METRICS: tuple[str, ...] = (
    "tool_calls", "calls_per_session", "call_validity", "unparsable_call_rate", "format_validity",
    "tokens_in", "tokens_out", "cost", "task_completion", "turns_to_done", "conversation_turns",
    "session_score",
)  # fmt: skip
"""Names of the metrics made here, as they are shown."""


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """Answers of a window, oldest first: arrays of shape (n,).

    Attributes:
        interaction_ids: Strings.
        session_ids: Strings; with the user's they name a session.
        user_ids: Strings; None of answers that were erased, whose sessions are not known any more.
        model_versions: Strings.
        values: By signal (`records.answer_signals`, `task_completed`, `left`, `session_score`),
            nan where not known.
    """

    interaction_ids: ObjectArray
    session_ids: ObjectArray
    user_ids: ObjectArray
    model_versions: ObjectArray
    values: Mapping[str, FloatArray]

    def of_versions(self, names: Collection[str]) -> BoolArray:
        """Tell which answers versions of these names gave."""
        return np.isin(self.model_versions.astype(str), list(names))


@dataclass(frozen=True, slots=True)
class Session:
    """Answers of one user in one session.

    Attributes:
        rows: Their places, oldest first.
        done: The place of the first answer that did the task; None where none did.
        completed: 1 done, 0 not done, nan not known, or it may go on.
    """

    rows: Sequence[int]
    done: int | None
    completed: float


def sessions_of(facts: AnswerFacts, names: Collection[str]) -> tuple[list[Session], int]:
    """Return the sessions that versions of these names answered alone, and how many they shared.

    A session that several versions answered says nothing of either of them; nor does what was
    erased.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(facts.user_ids, facts.session_ids, strict=True)):
        if key[0] is not None:
            places.setdefault(key, []).append(row)
    mine = facts.of_versions(names)
    left = facts.values["left"]
    is_followed = bool((left > 0).any())
    found, shared = [], 0
    for rows in places.values():
        if not mine[rows].any():
            continue
        if not mine[rows].all():
            shared += 1
            continue
        told = facts.values["task_completed"][rows]
        done = next((row for row, value in zip(rows, told, strict=True) if value == 1.0), None)
        known = float(done is not None) if not np.isnan(told).all() else np.nan
        may_go_on = is_followed and not left[rows[-1]] > 0
        found.append(Session(rows, done, np.nan if may_go_on else known))
    return found, shared


def answer_metrics(facts: AnswerFacts, names: Collection[str]) -> tuple[Metric, ...]:
    """Sum up what answers called, took and cost, and what a judge holds their sessions to be.

    What nothing in the window is about has no metric: no answer with tools, no form that was asked
    for, no usage.

    Args:
        facts: Answers of a window.
        names: Versions, or other names of one, that the metrics are of.
    """
    mine = facts.of_versions(names)
    values = {name: numbers[mine] for name, numbers in facts.values.items()}
    seen = {name for name, numbers in values.items() if not np.isnan(numbers).all()}
    found = [mean_metric(name, values[name], unit) for name, unit in _MEANS if name in seen]
    for signal in ANSWER_SIGNALS:
        if signal.rate is not None and signal.name in seen:
            turned = signal.bad_answers if signal.rate.of == "bad" else signal.good_answers
            found.append(share_metric(signal.rate.metric, turned(values[signal.name])))
    if "cost" in seen:
        found.append(mean_metric("cost", values["cost"], "cost"))
    elif "tokens_out" in seen:
        reason = (
            "no server said what an answer cost, and no price of "
            f"{' or '.join(sorted(names))} is configured; name it in the file of RATCHET_PRICES"
        )
        found.append(undefined_metric("cost", "cost", reason))
    if "session_score" in seen:
        found.append(mean_metric("session_score", values["session_score"], "score"))
    return tuple(found)


def session_metrics(
    facts: AnswerFacts, names: Collection[str], turns: Mapping[str, int]
) -> tuple[Metric, ...]:
    """Sum up whether sessions reached their end, after how many turns and calls.

    Where every session is one answer, these would repeat the metrics of answers, and there are
    none.

    Args:
        facts: Answers of a window.
        names: Versions, or other names of one, that the metrics are of.
        turns: How many turns of the user a conversation has up to an answer, by the answer's id;
            of the answers that did a task.
    """
    sessions, shared = sessions_of(facts, names)
    if not any(len(session.rows) > 1 for session in sessions):
        return ()
    with_calls = [
        float(np.nansum(numbers))
        for session in sessions
        if not np.isnan(numbers := facts.values["tool_calls"][session.rows]).all()
    ]
    completed = np.array([session.completed for session in sessions])
    ids = [
        str(facts.interaction_ids[session.done])
        for session in sessions
        if session.done is not None and session.completed == 1.0
    ]
    left = facts.values["left"][facts.of_versions(names)]
    found = []
    if with_calls:
        found.append(mean_metric("calls_per_session", np.array(with_calls), "calls"))
    if (left > 0).any():
        found.append(mean_metric("conversation_turns", left[left > 0], "turns"))
    also = f"; {shared} sessions that other versions answered too are left out" if shared else ""
    found.append(
        share_metric(
            "task_completion", completed, f"no application said whether a task was done{also}"
        )
    )
    needed = np.array([turns[key] for key in ids if key in turns], dtype=np.float64)
    if needed.size:
        found.append(mean_metric("turns_to_done", needed, "turns"))
    return tuple(found)
