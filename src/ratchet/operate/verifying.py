"""Whether what a home keeps is whole: store, journal, log, history, adapters, sets, MLflow.

It reads everything there is, and changes nothing but what opening a store changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.analyze.failures.identity import KnownClusters
from ratchet.errors import RatchetError
from ratchet.files.text import counted
from ratchet.gateway.log import read, segments
from ratchet.improve.curation.dataset import read_any_rows
from ratchet.models.weights import adapter_digest
from ratchet.operate.sqlite_files import damages, is_database
from ratchet.records import Candidate, Release, TrainingSet, digest
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.store.checking import (
    check_store,
    is_erased,
    row_of_feedback,
    row_of_interaction,
    together,
    why_wrong,
)
from ratchet.store.copying import sqlite_path
from ratchet.store.history import History
from ratchet.store.history.layout import LATER, HistoryFile
from ratchet.store.rows import microseconds
from ratchet.tracking import Tracker

_JSON = ("messages", "metadata", "tool_calls")
_LINES = 1 << 62
_TRACKER_SECONDS = 20.0
_TIMES = ("created_at", "received_at", "updated_at")


@dataclass(frozen=True, slots=True)
class Verified:
    """One part of a home.

    Attributes:
        part: Its name.
        looked_at: How much was read, in words.
        problems: What is wrong, a line each; none where it is whole.
    """

    part: str
    looked_at: str
    problems: tuple[str, ...] = ()


def verify(settings: Settings, tracker: Callable[[], Tracker] | None = None) -> Iterator[Verified]:
    """Yield each part of a home with what is wrong in it.

    Args:
        settings: Of the home.
        tracker: Opens MLflow; None leaves out what only MLflow knows.
    """
    yield _databases(settings)
    yield _log(settings.home / "gateway" / "wal")
    store, why = None, "there is no store; restore one: ratchet restore"
    try:
        store = EventStore.opened(settings.store_url)
    except RatchetError as error:
        why = str(error)
    yield _history(settings, store)
    if store is None:
        yield Verified("store", "nothing", (why,))
        return
    try:
        yield _store(store)
        yield _adapters(settings.home, store)
        yield _training_sets(settings.home, store)
        if tracker is not None:
            yield _registry(store, tracker)
    finally:
        store.close()


def _store(store: EventStore) -> Verified:
    found = check_store(store, (KnownClusters,))
    words = ", ".join(f"{count:,} {name}" for name, count in sorted(found.counts.items()) if count)
    return Verified("store", words or "an empty store", tuple(found.problems))


def _databases(settings: Settings) -> Verified:
    """Look at every SQLite file but the store, which is looked at by itself."""
    store = sqlite_path(settings.store_url)
    found = [
        path
        for path in sorted(settings.home.rglob("*.db"))
        if is_database(path) and path != store and not path.parts[-2].startswith(".")
    ]
    problems = [
        f"{path.relative_to(settings.home)}: {why}" for path in found for why in damages(path)
    ]
    names = ", ".join(str(path.relative_to(settings.home)) for path in found)
    return Verified("databases", names or "none", tuple(problems))


def _log(folder: Path) -> Verified:
    lines, problems = 0, []
    found = segments(folder)
    for segment in found:
        for entry in read(segment, 0, _LINES):
            lines += 1
            if entry.kind is None:
                problems.append(f"{segment.name} is damaged at byte {entry.start}")
    return Verified(
        "log", f"{counted(lines, 'line')} in {counted(len(found), 'segment')}", tuple(problems)
    )


def _history(settings: Settings, store: EventStore | None) -> Verified:
    try:
        history = History.open(settings.history, of=store)
        files = history.readable()
    except (RatchetError, OSError) as error:
        return Verified("history", "nothing", (str(error),))
    rows, problems = 0, []
    for file in files:
        try:
            count, wrong = _history_file(history, file)
        except Exception as error:  # Arrow's own, of a file that is cut off
            problems.append(f"{file.path} cannot be read: {' '.join(str(error).split())[:120]}")
            continue
        rows += count
        problems += together(f"of {file.path} are not what was sent", wrong)
    return Verified(
        "history", f"{counted(rows, 'row')} in {counted(len(files), 'file')}", tuple(problems)
    )


def _history_file(history: History, file: HistoryFile) -> tuple[int, list[str]]:
    import pyarrow.parquet as pq

    digest_of = row_of_interaction if file.table == "interactions" else row_of_feedback
    wrong: list[str] = []
    rows = 0
    with history.place.files.open(f"{history.place.root}/{file.path}", "rb") as opened:
        for batch in pq.ParquetFile(opened).iter_batches(batch_size=1_000):
            for row in batch.to_pylist():
                rows += 1
                values = _as_stored(row)
                if not file.first <= values["position"] <= file.last:
                    wrong.append(f"{values['id']} (position {values['position']})")
                elif not is_erased(values) and (why := why_wrong(values, digest_of)):
                    wrong.append(f"{values['id']} ({why})")
    return rows, wrong


def _as_stored(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of history as the store has it: times as numbers, JSON read."""
    times = {n: microseconds(row[n]) for n in _TIMES if row.get(n) is not None}
    parsed = {name: json.loads(row[name]) for name in _JSON if row.get(name) is not None}
    return {**dict.fromkeys(LATER), **row, **times, **parsed}  # an old file lacks columns


def _adapters(home: Path, store: EventStore) -> Verified:
    """Compare the adapters that are there; retention takes old ones away, and MLflow has them."""
    there, problems = 0, []
    for candidate in store.records(Candidate):
        folder = home / candidate.path
        if not folder.is_dir():
            continue
        there += 1
        why = _why_other(folder, candidate.adapter_digest)
        if why is not None:
            problems.append(f"{candidate.path} of version {candidate.version}: {why}")
    return Verified("adapters", f"{there} in the home", tuple(problems))


def _why_other(folder: Path, wanted: str) -> str | None:
    try:
        found = adapter_digest(folder)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"cannot be read: {error}"
    return None if found == wanted else f"has the digest {found[:12]}, not {wanted[:12]}"


def _training_sets(home: Path, store: EventStore) -> Verified:
    there, problems = 0, []
    known = {item.path: item for item in store.records(TrainingSet)}
    for item in known.values():
        folder = home / item.path
        if not folder.is_dir():
            continue  # deleted with a user's data, or by age
        there += 1
        try:
            stored = {"train": [row.canonical() for row in read_any_rows(folder)]}
            if validation := read_any_rows(folder, "validation"):
                stored["validation"] = [row.canonical() for row in validation]
            found = digest(stored)
        except Exception as error:  # Arrow's own, of a file that is cut off
            problems.append(f"{item.path} cannot be read: {' '.join(str(error).split())[:120]}")
            continue
        if found != item.digest:
            problems.append(f"{item.path} has the digest {found[:12]}, not {item.digest[:12]}")
    return Verified("training sets", f"{there} in the home", tuple(problems))


def _registry(store: EventStore, tracker: Callable[[], Tracker]) -> Verified:
    """See that MLflow has the versions of the last release, with their adapters."""
    release = store.latest(Release)
    if release is None:
        return Verified("registry", "no release yet")
    versions = [name for name in (release.champion, release.previous) if name]
    problems = []
    try:
        opened = tracker()
        if not opened.answers(within_seconds=_TRACKER_SECONDS):
            return Verified("registry", "nothing", ("MLflow does not answer",))
        for name in versions:
            version = opened.version(name)
            if version.adapter is None or version.adapter_digest is None:
                continue
            why = _why_other(opened.adapter_folder(version) or Path(), version.adapter_digest)
            if why is not None:
                problems.append(f"the adapter of {name} in MLflow {why}")
    except RatchetError as error:
        problems.append(str(error))
    return Verified("registry", f"{', '.join(versions)} in MLflow", tuple(problems))
