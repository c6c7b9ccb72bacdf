"""Whether there is anything to learn that the last candidate did not learn."""

from __future__ import annotations

from pathlib import Path

from ratchet.errors import WaitingError
from ratchet.records import Candidate, Cycle, TrainingSet
from ratchet.store import EventStore


def await_news(store: EventStore, cycle: Cycle, training_set: TrainingSet, key: str) -> None:
    """Wait where the last candidate learnt from the same rows, and nothing else has changed.

    A candidate of the same cycle is no reason to wait: a run that was interrupted goes on.

    Args:
        store: Holds what was trained before.
        cycle: The cycle that would train.
        training_set: What it would train on.
        key: Of its training (`finetune_key`).

    Raises:
        WaitingError: It did.
    """
    last = store.latest(Candidate)
    if last is None or last.cycle_id == cycle.id:
        return
    before, name = store.get(TrainingSet, last.training_set_id), f"{last.model_name}/{last.version}"
    if before is None or before.digest != training_set.digest:
        return
    if cycle.champion == name or Path(last.path).name == key[:16]:
        raise WaitingError(
            f"nothing new to learn: {name} was trained on the same {training_set.size:,} rows; "
            "training goes on when users have said more",
            "feedback",
        )
