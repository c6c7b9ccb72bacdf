"""Erase what users allowed to be kept for a time only, once that time is over.

    past = past_keeping(store, home, history, now, sets_too=True)
    erase_past(store, home, history, past, now=now)

An interaction says until when in its metadata (`retain_until`). Its texts go as those of a user who
is forgotten (`ratchet.store.erasure`): ids, times and numbers stay, so that counts and rates of the
past keep their meaning. Training sets that hold one of them are deleted, with their copies in
MLflow. What the cycle in progress trains on waits until it has ended, and what any set holds until
MLflow answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import islice
from pathlib import Path

from ratchet.records import Candidate, Cycle, CycleEnd, TrainingSet
from ratchet.store.erasure import (
    NOTHING,
    SHORTEST_OWN_ANSWER,
    UserData,
    clear_log,
    erase_interactions,
)
from ratchet.store.events import EventStore
from ratchet.store.forget import rows_of_set, sets_with
from ratchet.store.history import History
from ratchet.store.user_texts import Elsewhere, nowhere, said_by_user
from ratchet.store.vectors import text_key

_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class PastKeeping:
    """Interactions whose time is over.

    Attributes:
        days: Their days, by id.
        in_history: Those of them that only history has.
    """

    days: Mapping[str, date]
    in_history: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ErasedPast:
    """What was erased.

    Attributes:
        interactions: Interactions.
        training_sets: Training sets that held one of them, by folder name.
        runs: MLflow runs that hold a copy of one of these sets.
    """

    interactions: int
    training_sets: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


def past_keeping(
    store: EventStore, home: Path, history: History | None, now: datetime, *, sets_too: bool
) -> PastKeeping:
    """Return what may be kept no longer, in the store and in history.

    Args:
        store: The store.
        home: The home folder.
        history: The history of the store, where there is one.
        now: The time.
        sets_too: Whether training sets can be deleted everywhere. What they hold waits otherwise.
    """
    stored = store.past_keeping(now)
    if history is not None:
        history.check_there(store)
    told = {} if history is None else history.past_keeping(now)
    waits = _in_training(store, home) if sets_too else _in_sets((home / "datasets").glob("*"))
    days = {key: day for key, day in (told | stored).items() if key not in waits}
    return PastKeeping(days, frozenset(days.keys() - stored.keys()))


def erase_past(
    store: EventStore,
    home: Path,
    history: History | None,
    past: PastKeeping,
    *,
    now: datetime,
    elsewhere: Elsewhere = nowhere,
) -> ErasedPast:
    """Erase them; stopped at any moment, the next call finds what is left.

    Args:
        store: The store.
        home: The home folder.
        history: The history of the store, where there is one.
        past: What `past_keeping` returned.
        now: The time.
        elsewhere: Erases outside the store and its history, given the texts and the interactions'
            ids.
    """
    if not past.days:
        return ErasedPast(0)
    folders = sets_with(home / "datasets", past.days)
    for name in folders:  # the sets first: they are found by the interactions
        shutil.rmtree(home / "datasets" / name, ignore_errors=True)
    left = iter(past.days)
    while ids := list(islice(left, _BATCH)):
        gone = [key for key in ids if key in past.in_history]
        texts = NOTHING if history is None or not gone else _texts_of(history, gone)
        erase_interactions(
            store,
            ids,
            now=now,
            text_key=text_key,
            in_history=texts,
            elsewhere=partial(elsewhere, interaction_ids=tuple(ids)),
        )
    if history is not None:  # after the store: what is copied from now on is erased already
        history.erase_interactions(past.days)
    clear_log(store)
    return ErasedPast(len(past.days), folders, _copies(store, folders))


def _in_training(store: EventStore, home: Path) -> set[str]:
    """Return what the cycle in progress trains on."""
    cycle = store.latest(Cycle)
    if cycle is None or store.get(CycleEnd, cycle.id) is not None:
        return set()
    sets = [item for item in store.records(TrainingSet) if item.cycle_id == cycle.id]
    folders = [home / "datasets" / Path(item.path).name for item in sets]
    return _in_sets(folders)


def _in_sets(folders: Iterable[Path]) -> set[str]:
    return set().union(*(rows_of_set(folder) for folder in folders if folder.is_dir()))


def _texts_of(history: History, ids: list[str]) -> UserData:
    texts: set[str] = set()
    for item in history.fetch_interactions(ids).values():
        texts |= said_by_user(item.messages, item.answer, shortest_answer=SHORTEST_OWN_ANSWER)
    return UserData(tuple(ids), frozenset(texts))


def _copies(store: EventStore, folders: tuple[str, ...]) -> tuple[str, ...]:
    sets = {item.id for item in store.records(TrainingSet) if Path(item.path).name in folders}
    runs = [item.run_id for item in store.records(Candidate) if item.training_set_id in sets]
    return tuple(dict.fromkeys(runs))
