"""Whether there is anything to learn that the last candidate did not learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import WaitingError
from ratchet.files.text import counted
from ratchet.improve.curation.dataset import Prepared, learnt_of
from ratchet.records import Candidate, Cycle, TrainingSet
from ratchet.store import EventStore


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be trained on.

    Attributes:
        size: How many rows.
        digest: Of the set.
        learnt: Of what a trainer reads of it; "" in a set of before.
    """

    size: int
    digest: str
    learnt: str

    @classmethod
    def of(cls, rows: TrainingSet | Prepared) -> Planned:
        """Return what would be trained on of a set, written or not."""
        size = rows.size if isinstance(rows, TrainingSet) else len(rows.train)
        return cls(size, rows.digest, rows.learnt)


def await_news(
    store: EventStore,
    home: Path,
    cycle: Cycle,
    planned: Planned,
    key_of: Callable[[str], str],
    *,
    goes_on: bool = True,
) -> None:
    """Wait where the last candidate learnt from the same rows, and nothing else has changed.

    A candidate of the same cycle is no reason to wait: a run that was interrupted goes on.

    Args:
        store: Holds what was trained before.
        home: The home folder.
        cycle: The cycle that would train.
        planned: What it would train on.
        key_of: Returns the key of its training (`finetune_key`) for a digest of the rows.
        goes_on: Whether it would go on from the champion's adapter; one on another base model
            does not.

    Raises:
        WaitingError: It did.
    """
    found = _same_rows(store, home, planned)
    if found is None or found[0].cycle_id == cycle.id:
        return
    last, before = found
    # a training of before is named after the digest of its whole set
    names = {planned.learnt or planned.digest, before.learnt or before.digest, before.digest}
    same_training = Path(last.path).name in {key_of(name)[:16] for name in names}
    learnt_by_start = goes_on and cycle.champion == last.reference
    if learnt_by_start or same_training:
        raise WaitingError(
            f"{_learnt(last, planned)}; training goes on when users have said more", "feedback"
        )


def without_news(store: EventStore, home: Path, planned: Planned) -> str | None:
    """Say that the last candidate learnt from the same rows, where it did.

    Base model and start are not read, so that it may still be trained on the same rows in another
    way.
    """
    found = _same_rows(store, home, planned)
    if found is None:
        return None
    return (
        f"{_learnt(found[0], planned)}; training goes on only with another configuration, or "
        "from another model"
    )


def _same_rows(
    store: EventStore, home: Path, planned: Planned
) -> tuple[Candidate, TrainingSet] | None:
    """Return the last candidate, with its set, if a trainer reads the same of both sets."""
    last = store.latest(Candidate)
    before = store.get(TrainingSet, last.training_set_id) if last else None
    if last is None or before is None:
        return None
    same = before.digest == planned.digest
    same = same or (planned.learnt != "" and planned.learnt == learnt_of(home, before))
    return (last, before) if same else None


def _learnt(last: Candidate, planned: Planned) -> str:
    rows = counted(planned.size, "row")
    return f"nothing new to learn: {last.reference} was trained on the same {rows}"
