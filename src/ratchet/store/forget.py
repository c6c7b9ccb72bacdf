"""Forget a user, and find what was made of what they said: training sets and adapters.

    found = trace(store, home, "user-17")  # what would be erased
    record = forget(store, home, "user-17", now=now, text_key=text_key, history=history)

The texts are erased in the store and in history, and the training sets that hold them deleted.
Weights cannot be made to forget: the adapters are named, so that people can roll back and train
anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from ratchet.errors import InvalidInputError
from ratchet.records import Candidate, Cycle, Erasure, TrainingSet, derive_id
from ratchet.store import EventStore
from ratchet.store.erasure import (
    FORGOTTEN,
    NOTHING,
    UserData,
    clear_log,
    erase_user,
    interactions_of,
    rewrite,
)
from ratchet.store.forgotten import digest_of, forget_user
from ratchet.store.history import History
from ratchet.store.tables import FEEDBACK_EVENTS, FORGOTTEN_NAMES, INTERACTIONS
from ratchet.store.user_texts import Elsewhere, nowhere

_LONGEST_WAIT = 30.0
_ID_COLUMNS = ("interaction_id", "chosen_id")


@dataclass(frozen=True, slots=True)
class Trace:
    """What was made of a user's interactions.

    Attributes:
        folders: Training sets with one of them, by folder name (the start of the digest).
        candidates: Adapters trained on these, and those that began with one of them.
        runs: MLflow runs that hold a copy of one of the sets.
    """

    interaction_ids: tuple[str, ...]
    folders: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    runs: tuple[str, ...]

    @property
    def versions(self) -> tuple[str, ...]:
        """The adapters as the registry names them."""
        return tuple(candidate.reference for candidate in self.candidates)


def trace(store: EventStore, home: Path, user_id: str, *, in_history: UserData = NOTHING) -> Trace:
    """Find the training sets and adapters that a user's interactions went into.

    An adapter is named where its set holds one of them, or where it was trained further from an
    adapter that is named.

    Args:
        store: The store.
        home: The home folder.
        user_id: As it was sent with the interactions.
        in_history: What history has of the user; the store may have been pruned.

    Raises:
        InvalidInputError: It is the name that all forgotten users have.
    """
    if user_id == FORGOTTEN:
        raise InvalidInputError(
            f"a user must be named by their id, got {user_id!r}, which stands for users whose data "
            "was erased; give the id as it came with interactions"
        )
    ids = tuple(dict.fromkeys((*in_history.interaction_ids, *interactions_of(store, user_id))))
    folders = sets_with(home / "datasets", ids)
    sets = {s.id for s in store.records(TrainingSet) if Path(s.path).name in folders}
    adapters = _adapters_of(store, sets)
    runs = dict.fromkeys(adapter.run_id for adapter in adapters if adapter.training_set_id in sets)
    return Trace(ids, folders, adapters, tuple(runs))


def forget(
    store: EventStore,
    home: Path,
    user_id: str,
    *,
    now: datetime,
    text_key: Callable[[str], str],
    history: History | None = None,
    elsewhere: Elsewhere = nowhere,
) -> Erasure:
    """Erase a user's data and delete the training sets that hold it; return the record of it.

    The record is stored first, as begun. Interrupted, it is called again for the same user: it goes
    on with that record, which names what the user's interactions went into. Called again later, it
    erases what has come since.

    Args:
        store: The store.
        home: The home folder.
        user_id: As it was sent with the interactions.
        now: The time.
        text_key: Names the vector of a text in the store.
        history: The history of the store, where there is one.
        elsewhere: Erases outside the store and its history, given the texts and the interactions'
            ids; see `erase_user`.
    """
    if history is not None:
        history.check_there(store)
    in_history = history.user_data(user_id) if history else NOTHING
    record, done = _begin(store, home, user_id, now, in_history), set[str]()
    while record.state == "begun":
        ids = [key for key in record.interaction_ids if key not in done]
        record = erase_user(
            store,
            user_id,
            ids,
            record,
            text_key=text_key,
            in_history=in_history,
            elsewhere=partial(elsewhere, interaction_ids=record.interaction_ids),
        )
        # after the store: what is copied from now on is erased already
        if history is not None:
            history.erase(user_id, record.interaction_ids)
        done.update(ids)
        with store.atomic():
            came_meanwhile = interactions_of(store, user_id)
            if not came_meanwhile:
                record = record.model_copy(update={"state": "done", "interaction_ids": ()})
                rewrite(store, record)
        if came_meanwhile:
            record = _begin(store, home, user_id, now, NOTHING)
    clear_log(store)
    for earlier in store.records(Erasure):
        for name in earlier.training_sets:
            shutil.rmtree(home / "datasets" / name, ignore_errors=True)
    return record


def _begin(
    store: EventStore, home: Path, user_id: str, now: datetime, in_history: UserData
) -> Erasure:
    """Store the record of an erasure as begun, or add to the one that was not finished."""
    digest = digest_of(user_id)
    forget_user(store, FORGOTTEN_NAMES, digest, now)
    _wait_for_writers(store)
    traced = trace(store, home, user_id, in_history=in_history)
    found = {
        "interaction_ids": traced.interaction_ids,
        "training_sets": traced.folders,
        "candidates": tuple(candidate.id for candidate in traced.candidates),
        "versions": traced.versions,
        "runs": traced.runs,
    }
    with store.atomic():
        unfinished = [
            record
            for record in store.records(Erasure)
            if record.user_digest == digest and record.state == "begun"
        ]
        earlier = unfinished[-1] if unfinished else None
        record = earlier or Erasure(
            id=derive_id("erasure", digest, now.isoformat()),
            created_at=now,
            user_digest=digest,
            state="begun",
            interactions=0,
            feedback=0,
            verdicts=0,
            records=0,
            training_sets=(),
            candidates=(),
            versions=(),
            runs=(),
            example_sets=(),
        )
        all_found = {
            name: tuple(dict.fromkeys((*getattr(record, name), *values)))
            for name, values in found.items()
        }
        numbers = {"interactions": len(all_found["interaction_ids"])}
        record = record.model_copy(update=all_found | numbers)
        if earlier is None:
            store.append(record)
        else:
            rewrite(store, record)
    return record


def _wait_for_writers(store: EventStore) -> None:
    """Wait for writers on PostgreSQL that looked before the user was forgotten."""
    for table in (INTERACTIONS, FEEDBACK_EVENTS):
        at_work, end = store.writers(table), time.monotonic() + _LONGEST_WAIT
        while at_work & store.writers(table) and time.monotonic() < end:
            time.sleep(0.05)


def rows_of_set(folder: Path) -> set[str]:
    """Return the ids of the interactions that a training set was made of; none once it is gone."""
    import pyarrow.parquet as pq

    ids: set[str] = set()
    for path in sorted(folder.glob("*.parquet")):
        names = [name for name in _ID_COLUMNS if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=names)
        ids.update(key for name in names for key in table[name].to_pylist() if key)
    return ids


def sets_with(folder: Path, ids: Collection[str]) -> tuple[str, ...]:
    """Return the training sets in a folder that hold one of the interactions, by folder name."""
    if not ids or not folder.is_dir():
        return ()
    return tuple(dataset.name for dataset in sorted(folder.iterdir()) if _holds(dataset, ids))


def _holds(folder: Path, ids: Collection[str]) -> bool:
    return any(holds_any(path, ids) for path in folder.glob("*.parquet"))


def holds_any(path: Path, ids: Collection[str]) -> bool:
    """Tell whether a table in Parquet holds rows made of one of the interactions."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = [name for name in _ID_COLUMNS if name in pq.read_schema(path).names]
    if not names or not ids:
        return False
    wanted = pa.array(sorted(ids), pa.string())
    table = pq.read_table(path, columns=names)
    return any(
        bool(pc.any(pc.is_in(table[name].cast(pa.string()), value_set=wanted)).as_py())
        for name in names
    )


def _adapters_of(store: EventStore, sets: Collection[str]) -> tuple[Candidate, ...]:
    began_with = {cycle.id: cycle.champion for cycle in store.records(Cycle)}
    named: dict[str, Candidate] = {}
    for candidate in store.records(Candidate):  # in order: a start comes before what began with it
        starts = {found.reference for found in named.values()}
        if candidate.training_set_id in sets or began_with.get(candidate.cycle_id) in starts:
            named[candidate.id] = candidate
    return tuple(named.values())
