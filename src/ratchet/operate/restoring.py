"""A home out of a backup: everything is checked before anything is changed.

Files are copied into a folder in the home first, and then take their names there, so that a restore
that is killed half-way is begun again and finds the home as it was or as it will be. What a home
held before is put aside into a folder of it, never deleted.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ratchet.errors import BusyError, ConflictError, InvalidInputError
from ratchet.files.whole import sync_folders
from ratchet.gateway.log import segments
from ratchet.operate.backup import (
    ASIDE,
    STORE_FILE,
    Manifest,
    check_files,
    copy_file,
    read_manifest,
)
from ratchet.settings import Settings, private_folder, tighten
from ratchet.store import EventStore
from ratchet.store.copying import copy_in, holds_rows, is_postgresql, sqlite_path
from ratchet.store.history import History
from ratchet.store.leases import Lease, leases_at

_SIDES = ("", "-wal", "-shm", "-journal")
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's database in which the home's folder stands."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Attributes:
        manifest: Of the backup.
        aside: Where what the home held before lies now; None where it held nothing.
        notes: What to know of it, a line each.
    """

    manifest: Manifest
    aside: Path | None
    notes: tuple[str, ...]


def restore(settings: Settings, folder: Path, *, replace: bool, now: datetime) -> Restored:
    """Make the home, its store and its history what a backup holds.

    Args:
        settings: Where to: home, store and history.
        folder: Of the backup.
        replace: Whether what is there may be put aside (a PostgreSQL schema's tables: dropped).
        now: Names the folder that it is put into.

    Raises:
        InvalidInputError: The backup is not whole, or of a later version, or its store is of the
            other kind of database.
        ConflictError: Something is there, and `replace` is not said.
        BusyError: A gateway works in the home, or somebody over the store.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    _check_kind(settings, manifest)
    _refuse_while_used(settings)
    if not replace:
        _refuse_full(settings, manifest)
    settings.make_home()
    stamp = now.strftime("%Y%m%d-%H%M%S")
    staged = settings.home / f"{ASIDE[1]}{stamp}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(mode=0o700)
    _check_space(staged, manifest)
    for file in manifest.files:
        copy_file(folder / file.path, staged / file.path)
    _move_artifacts(staged / "home" / "mlflow" / "mlflow.db", manifest.home, settings.home)
    if manifest.copied is not None:
        copy_in(settings.store_url, staged / "store", manifest.copied, replace=replace)
    aside = _put_in_place(settings, staged, settings.home / f"{ASIDE[0]}{stamp}")
    shutil.rmtree(staged)
    tighten(settings.home)
    sync_folders(settings.home)
    store = EventStore.opened(settings.store_url)  # brings an older one to today's schema
    if store is not None:
        store.close()
    return Restored(manifest, aside, tuple(_notes(settings, manifest)))


def _check_kind(settings: Settings, manifest: Manifest) -> None:
    here = "postgresql" if is_postgresql(settings.store_url) else "sqlite"
    if manifest.store not in (None, here):
        raise InvalidInputError(
            f"a store is restored to the kind of database that it was in, got a backup of "
            f"{manifest.store} for RATCHET_STORE_URL of {here}; set it to one of {manifest.store}"
        )


def _refuse_while_used(settings: Settings) -> None:
    held = [
        f"a store whose {lease.name} {lease.holder.in_words} holds"
        for lease in _leases(settings.store_url)
        if lease.holder is not None and not lease.is_free
    ]
    path = settings.home / "gateway" / "wal" / "drain.lock"
    if path.exists():
        try:
            with FileLock(path, timeout=0, fallback_to_soft=False):
                pass
        except Timeout:
            held.append(f"a home whose {path.name} is held")
    if held:
        raise BusyError(
            f"what is restored must not be in use, got {held[0]}; stop `ratchet serve`, "
            "`ratchet up`, workers and running cycles first"
        )


def _leases(url: str) -> tuple[Lease, ...]:
    """Return the leases of the store that is there; none of one that is damaged."""
    try:
        return tuple(leases_at(url).values())
    except InvalidInputError:
        return ()


def _refuse_full(settings: Settings, manifest: Manifest) -> None:
    """Refuse to put anything over what is there.

    Raises:
        ConflictError: There is something.
    """
    held = [f"the home holds {path.name}" for path in _held(settings.home)]
    store = sqlite_path(settings.store_url)
    if store is not None and store.exists():
        held.append("there is a store")
    elif manifest.copied is not None and holds_rows(settings.store_url):
        held.append("the schema of PostgreSQL has rows")
    history = _history_folder(settings)
    if history is not None and history.is_dir() and any(history.iterdir()):
        held.append("there is a history")
    if held:
        raise ConflictError(
            f"a restore needs an empty home, store and history, got: {', '.join(held[:4])}; say "
            "--replace to put it aside, or set RATCHET_HOME to a new folder"
        )


def _held(home: Path) -> Iterator[Path]:
    """Yield what lies in a home and would be put aside: no locks, nothing that is empty."""
    for path in sorted(home.iterdir()) if home.is_dir() else ():
        if path.name.startswith(ASIDE) or path.suffix == ".lock":
            continue
        if path.is_file() or any(below.is_file() for below in path.rglob("*")):
            yield path


def _check_space(staged: Path, manifest: Manifest) -> None:
    free = shutil.disk_usage(staged).free
    if manifest.bytes > free:
        staged.rmdir()
        raise InvalidInputError(
            f"a restore needs {manifest.bytes:,} bytes on the home's disk, got {free:,}; free some"
        )


def _put_in_place(settings: Settings, staged: Path, aside: Path) -> Path | None:
    """Give staged files their names; what is there is put aside first."""
    home = settings.home
    for path in list(_held(home)):
        _set_aside(path, aside)
    store = sqlite_path(settings.store_url)
    if store is not None:
        for ending in _SIDES:  # SQLite would apply the log of the file before to this one
            _set_aside(store.with_name(store.name + ending), aside)
        if (staged / STORE_FILE).exists():
            _take(staged / STORE_FILE, store)
    history = _history_folder(settings)
    if history is not None and (staged / "history").is_dir():
        if history.is_dir() and any(history.iterdir()):
            _set_aside(history, aside)
        private_folder(history)
        for path in (staged / "history").iterdir():
            _take(path, history / path.name)
    for path in (staged / "home").iterdir() if (staged / "home").is_dir() else ():
        there = home / path.name
        if there.is_dir():  # empty, or with locks alone
            shutil.rmtree(there)
        _take(path, there)
    _keep_log(aside / "gateway" / "wal", home / "gateway" / "wal")
    return aside if aside.exists() else None


def _keep_log(before: Path, log: Path) -> None:
    """Leave the log that was there to be drained: what it holds was acknowledged.

    A line that the backup has as well is stored once, since each event carries its id.
    """
    for segment in segments(before):
        if not (log / segment.name).exists():
            copy_file(segment, log / segment.name)


def _set_aside(path: Path, aside: Path) -> None:
    if path.exists():
        aside.mkdir(mode=0o700, exist_ok=True)
        _take(path, aside / path.name)


def _take(source: Path, target: Path) -> None:
    private_folder(target.parent)
    shutil.move(source, target)  # renames, or copies to another file system


def _history_folder(settings: Settings) -> Path | None:
    history = History.open(settings.history)
    return Path(history.address) if history.place.is_local else None


def _move_artifacts(database: Path, before: str, home: Path) -> None:
    """Have MLflow look for its artifacts where they lie now, should the home have another path."""
    if not database.exists() or before == str(home):
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in _PLACES:
            known = connection.execute(f'SELECT name FROM pragma_table_info("{table}")')
            if column not in {row[0] for row in known}:
                continue
            for start in ("", "file://"):
                old, new = f"{start}{before}/", f"{start}{home}/"
                connection.execute(
                    f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                    f'WHERE substr("{column}", 1, ?) = ?',
                    (new, len(old) + 1, len(old), old),
                )


def _notes(settings: Settings, manifest: Manifest) -> Iterator[str]:
    yield f"what was acknowledged after {manifest.began_at:%Y-%m-%d %H:%M:%S} UTC may be missing"
    yield "users who were forgotten since are back: run `ratchet forget` for them again"
    yield from (f"not in the backup: {what}" for what in manifest.left_out)
    if not History.open(settings.history).place.is_local:
        yield (
            "history on object storage may be ahead of this store: where `ratchet history` says "
            "so, set RATCHET_HISTORY to a new folder of it"
        )
