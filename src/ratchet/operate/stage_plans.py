"""What a stage of the loop would do now, in lines; nothing is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from ratchet.deploy.gate.policy import ApprovalRule, GatePolicy, policy_for_loop
from ratchet.errors import WaitingError
from ratchet.files.text import counted
from ratchet.improve.training.news import Planned, without_news
from ratchet.operate.readiness import NextCycle, lacks, warns
from ratchet.records import BoardState, Candidate, Cycle, Decision, TrainingSet
from ratchet.settings import Settings
from ratchet.store import EVER, EventStore, Window
from ratchet.store.arrivals import count_answers, count_feedback, last_position, versions_in_use
from ratchet.store.cycles import await_traffic, cycle_window, example_set, unfinished_cycle

_MINUTE = 60.0


def collect_plan(
    settings: Settings,
    store: EventStore,
    wanted: NextCycle,
    *,
    environ: Mapping[str, str],
    now: datetime,
) -> list[str]:
    """Say what `collect` would open a cycle of, since the last one, and what it waits for.

    Args:
        settings: Of the home.
        store: The store.
        wanted: What the cycle is asked to do.
        environ: Has the backend's key.
        now: The time.
    """
    try:
        window = await_traffic(store, now)
    except WaitingError as error:
        return [f"nothing new: {error}"]
    if window is None:
        return [_going_on(store)]
    number = len(store.records(Cycle)) + 1
    lines = [f"cycle {number} would be about what no cycle had: {_of_window(store, window)}"]
    missing = lacks(settings, store, wanted, environ=environ, now=now)
    if missing:
        lines += ["it waits for", *(f"  - {line}" for line in missing)]
    return [*lines, *warns(store, wanted)]


def analyze_plan(store: EventStore, now: datetime) -> list[str]:
    """Say what `analyze` would look at: each version's board, and the latest cycle."""
    lines = []
    came = last_position(store)
    for version in versions_in_use(store, EVER, now):
        board = store.records(BoardState, subject=version, latest=1)
        if not board:
            lines.append(f"board of {version}: none yet; it is begun once there is enough")
            continue
        stands = f"board of {version}: up to {board[-1].charted_until:%Y-%m-%d %H:%M} UTC"
        arrived = board[-1].arrived
        if arrived is not None:
            answers, feedback = came.interactions - arrived[0], came.feedback - arrived[1]
            stands += (
                f"; since then {counted(answers, 'answer')} and {counted(feedback, 'piece')} of "
                "feedback came in, of all versions"
            )
        lines.append(stands)
    cycle = store.latest(Cycle)
    if cycle is None:
        return [*lines, "no cycle yet: `ratchet collect` opens one"]
    return [*lines, f"cycle {cycle.number}: {_of_window(store, cycle_window(cycle))}"]


def train_plan(
    store: EventStore, home: Path, planned: Planned, method: str, epochs: float, batch: int
) -> list[str]:
    """Say how many steps a training would have, and how long it takes where that is known.

    Args:
        store: The store.
        home: The home folder.
        planned: What would be trained on.
        method: What the rows are for.
        epochs: Passes over them.
        batch: Rows a step.
    """
    told = without_news(store, home, planned)
    if told is not None:
        return [told]
    last, rows = store.latest(Candidate), planned.size
    before = store.get(TrainingSet, last.training_set_id) if last else None
    steps = _steps(rows, epochs, batch)
    lines = [steps_plan(rows, method, epochs, batch)]
    if last is None or before is None or before.kind != method or not last.losses:
        return [*lines, "how long a step takes is not known: no candidate was trained so yet"]
    a_step = last.training_seconds / len(last.losses)
    lines.append(
        f"{counted(steps, 'step')} × {a_step:.1f} s, as the last candidate took, = "
        f"{steps * a_step / _MINUTE:.1f} minutes, on the same machine"
    )
    return lines


def steps_plan(rows: int, method: str, epochs: float, batch: int) -> str:
    """Say how many steps a training on so many rows would have."""
    return (
        f"{method}: {counted(rows, 'row')} × {epochs:g} epochs / {batch} a step = "
        f"{counted(_steps(rows, epochs, batch), 'step')}, fewer with packing"
    )


def _steps(rows: int, epochs: float, batch: int) -> int:
    return math.ceil(epochs * math.ceil(rows / batch))


def gate_plan(
    store: EventStore, asked: GatePolicy | Path | None, approval: ApprovalRule | None
) -> list[str]:
    """Say what `gate --candidate` would compare, on what, and by which policy.

    Args:
        store: The store.
        asked: The policy, as in the options of the flow.
        approval: When a person must approve, as there.

    Raises:
        PolicyError: The policy cannot be used.
    """
    cycle, candidate = store.latest(Cycle), store.latest(Candidate)
    if cycle is None:
        return ["no cycle yet: `ratchet collect` opens one"]
    if candidate is None or candidate.cycle_id != cycle.id:
        return [f"no candidate of cycle {cycle.number} yet: `ratchet train` makes one"]
    made = candidate.reference
    golden = example_set(store, cycle.example_set_id).examples
    policy = policy_for_loop(asked, golden, approval)
    lines = [
        f"{made} against {cycle.champion} on {counted(len(golden), 'example')}, on "
        f"{policy.primary.metric} first; a person approves: {policy.approval}"
    ]
    before = store.latest(Decision)
    if before is not None and (before.cycle_id, before.challenger) == (cycle.id, made):
        lines.append(
            f"it was decided before: {before.verdict}; the same question is not asked anew"
        )
    return lines


def _going_on(store: EventStore) -> str:
    cycle = unfinished_cycle(store)
    assert cycle is not None  # `await_traffic` says that one is open
    told = _of_window(store, cycle_window(cycle))
    return f"cycle {cycle.number} of {cycle.champion} is open and goes on: {told}"


def _of_window(store: EventStore, window: Window) -> str:
    answers, feedback = count_answers(store, window), count_feedback(store, window)
    return (
        f"{counted(answers, 'answer')} and {counted(feedback, 'piece')} of feedback on them, from "
        f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC"
    )
