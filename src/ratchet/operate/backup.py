"""A backup of a home: one folder with everything, consistent though users are served meanwhile.

    backup/manifest.json    what it is of, and each file with its size and digest
    backup/store/           store.db, or a file for each table of PostgreSQL
    backup/history/         history, where it lies in a folder
    backup/home/            everything else of the home

The order makes it consistent. An event is in the gateway's log until it is in the store, so the log
is copied first; a row is in the store until it is in history, so history follows the store, and its
writer waits from before the one to after the other. What a record names (a training set, an
adapter, a run's artifact) is written before the record, so files come last. An event whose answer
was acknowledged before the backup began is therefore in it.

SQLite files are copied by SQLite's own backup, in one step: a snapshot, which writers do not
disturb.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO

from pydantic import AfterValidator, Field, ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.whole import sync_folders, write_whole
from ratchet.operate.sqlite_files import copy_database, is_database
from ratchet.records import Record, digest
from ratchet.records.base import UtcTime
from ratchet.settings import Settings, private_folder
from ratchet.store import EventStore
from ratchet.store.copying import StoreCopy, copy_out, is_postgresql, sqlite_path
from ratchet.store.history import History

FORMAT = 1
MANIFEST = "manifest.json"
STORE_FILE = "store/store.db"
PARTS = ("home", "store", "history")
ASIDE = (".replaced-", ".restoring-")
"""How folders in a home begin that a restore made."""
_LEFT = ("work", "logs", "servers.json")
_SIDE_FILES = ("-wal", "-shm", "-journal")
_BLOCK = 1 << 20
_SHOWN = 5


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] not in PARTS or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"a file of a backup must lie in one of {', '.join(PARTS)}, got {path!r}")
    return path


class BackupFile(Record):
    """A file of a backup.

    Attributes:
        path: Below the backup's folder.
        sha256: Of its bytes.
    """

    path: Annotated[str, AfterValidator(_inside)]
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Record):
    """What a backup is of.

    Attributes:
        version: Of Ratchet.
        began_at: What was acknowledged before this time is in it.
        ended_at: When the last file was copied.
        home: The folder that it was made of.
        store: Where the store's rows were; None for a home without a store.
        copied: Tables of a PostgreSQL store.
        files: All files but the manifest.
        left_out: What belongs to the home and is not in it, with the reason.
    """

    format: int = FORMAT
    version: str
    began_at: UtcTime
    ended_at: UtcTime
    home: str
    store: str | None
    copied: StoreCopy | None = None
    files: tuple[BackupFile, ...]
    left_out: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


def make_backup(
    settings: Settings,
    target: Path,
    *,
    version: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Manifest:
    """Copy a home, its store and its history into a new folder, which appears whole or not at all.

    Args:
        settings: Of the home.
        target: The folder, which must not be there or be empty.
        version: Of Ratchet.
        clock: The time.

    Raises:
        InvalidInputError: The folder holds something, or there is no home.
        BusyError: A writer of history was still at work after ten minutes.
    """
    if not settings.home.is_dir():
        raise InvalidInputError(
            f"a backup needs a home, got no folder {settings.home.name!r}; run it where Ratchet "
            "ran, or set RATCHET_HOME"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInputError(
            f"a backup needs a new folder, got {target.name!r}, which holds something; name another"
        )
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    private_folder(part)
    try:
        manifest = _Copying(settings, part, target).run(version, clock)
        _write_manifest(part / MANIFEST, manifest)
        sync_folders(part)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return what a backup is of; its files are not looked at.

    Raises:
        InvalidInputError: The folder is no backup, its manifest was changed, or a later version of
            Ratchet made it.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
        signed = content.pop("digest") == digest(content)
        made_by = content["format"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInputError(
            f"a backup must be a folder with {MANIFEST}, got {folder.name!r} without one; name the "
            "folder that `ratchet backup` made"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _altered(f"{MANIFEST} that cannot be read") from error
    if not signed:
        raise _altered(f"{MANIFEST} that was changed")
    if made_by != FORMAT:
        raise InvalidInputError(
            f"a backup must be of format {FORMAT}, got {made_by!r}; restore it with the version of "
            "Ratchet that made it"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise _altered(f"{MANIFEST} that does not hold together") from error


def check_files(folder: Path, manifest: Manifest) -> None:
    """Read every file of a backup.

    Raises:
        InvalidInputError: One is missing, shorter, longer or another; all of them in one message.
    """
    wrong = [why for file in manifest.files if (why := _why_wrong(folder, file)) is not None]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise _altered(f"{', '.join(wrong[:_SHOWN])}{more}")


def copy_file(source: Path, target: Path) -> BackupFile:
    """Copy a file for its owner alone, onto the disk, and return it with its digest.

    Returns:
        It, with `path` as in the backup's folder: relative to the folder above the part's.
    """
    private_folder(target.parent)
    sha, size = hashlib.sha256(), 0
    with source.open("rb") as file, _private(target) as copy:
        while block := file.read(_BLOCK):
            copy.write(block)
            sha.update(block)
            size += len(block)
        copy.flush()
        os.fsync(copy.fileno())
    return BackupFile.model_construct(path=target.name, bytes=size, sha256=sha.hexdigest())


class _Copying:
    """One run of `make_backup`."""

    def __init__(self, settings: Settings, part: Path, target: Path) -> None:
        self._settings, self._part = settings, part
        self._files: list[BackupFile] = []
        self._left_out: list[str] = []
        self._done: set[Path] = set()
        self._own = {part.resolve(), target.resolve()}

    def run(self, version: str, clock: Callable[[], datetime]) -> Manifest:
        home, url = self._settings.home, self._settings.store_url
        store = EventStore.opened(url)  # brings an older store to today's schema
        if store is not None:
            store.close()
        began = clock()
        with self._history_kept() as history:
            self._copy_all(home / "gateway" / "wal")
            copied = self._store() if store is not None else None
            if history is not None:
                self._tree(history, "history")
        found = list(self._walk(home))
        for path in sorted(found, key=lambda path: not is_database(path)):
            self._copy(path, f"home/{path.relative_to(home).as_posix()}")
        self._name_what_lies_elsewhere()
        kind = "postgresql" if is_postgresql(url) else "sqlite"
        return Manifest(
            version=version,
            began_at=began,
            ended_at=clock(),
            home=str(home),
            store=None if store is None else kind,
            copied=copied,
            files=tuple(sorted(self._files, key=lambda file: file.path)),
            left_out=tuple(self._left_out),
        )

    def _store(self) -> StoreCopy | None:
        url, folder = self._settings.store_url, self._part / "store"
        folder.mkdir(mode=0o700)
        path = sqlite_path(url)
        if path is not None:
            self._done.add(path.resolve())
            self._database(path, STORE_FILE)
            return None
        copied = copy_out(url, folder)
        for file in sorted(folder.iterdir()):
            file.chmod(0o600)
            self._files.append(_described(file, f"store/{file.name}"))
        return copied

    @contextmanager
    def _history_kept(self) -> Iterator[Path | None]:
        """Hold the writer of history, where it lies in a folder, and yield the folder."""
        history = History.open(self._settings.history)
        if not history.place.is_local:
            self._left_out.append(f"history at {history.address}, which is kept there")
            yield None
            return
        folder = Path(history.address)
        with ExitStack() as stack:
            if folder.is_dir():
                stack.enter_context(history.place.writing())
                self._own.add(folder.resolve())
            yield folder if folder.is_dir() else None

    def _copy_all(self, folder: Path) -> None:
        for path in sorted(folder.glob("*")):
            if path.is_file() and not _is_left(path):
                name = path.relative_to(self._settings.home).as_posix()
                self._copy(path, f"home/{name}")

    def _tree(self, folder: Path, part: str) -> None:
        for path in _files_below(folder, lambda _: False):
            self._copy(path, f"{part}/{path.relative_to(folder).as_posix()}")

    def _walk(self, home: Path) -> Iterator[Path]:
        def left(path: Path) -> bool:
            top = path.parent == home and (path.name in _LEFT or path.name.startswith(ASIDE))
            return top or path.resolve() in self._own

        for path in _files_below(home, left):
            if path.resolve() not in self._done:
                yield path

    def _copy(self, path: Path, name: str) -> None:
        """Copy a file; what is deleted meanwhile is in no record any more, or in the store."""
        try:
            if is_database(path):
                self._database(path, name)
            else:
                copied = copy_file(path, self._part / name)
                self._files.append(copied.model_copy(update={"path": name}))
        except FileNotFoundError:
            (self._part / name).unlink(missing_ok=True)
            return
        self._done.add(path.resolve())

    def _database(self, path: Path, name: str) -> None:
        target = self._part / name
        private_folder(target.parent)
        copy_database(path, target)
        self._files.append(_described(target, name))

    def _name_what_lies_elsewhere(self) -> None:
        uri = self._settings.tracking_uri
        path = Path(uri.removeprefix("sqlite:///"))
        if not uri.startswith("sqlite:///"):
            self._left_out.append("MLflow on a server of its own, which keeps its own backups")
        elif path.exists() and path.resolve() not in self._done:
            self._left_out.append(f"MLflow's database {path}, which lies outside of the home")
        if self._settings.prefect_api_url is not None:
            self._left_out.append("Prefect on a server of its own, which keeps its own backups")


def _files_below(folder: Path, left: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield files in order, also behind links; a folder is read once."""
    seen: set[Path] = set()

    def below(folder: Path) -> Iterator[Path]:
        if folder.resolve() in seen:
            return
        seen.add(folder.resolve())
        for path in sorted(_listed(folder)):
            if left(path):
                continue
            if path.is_dir():
                yield from below(path)
            elif path.is_file() and not _is_left(path):
                yield path

    yield from below(folder)


def _listed(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:  # deleted meanwhile
        return ()


def _is_left(path: Path) -> bool:
    """Tell whether a file means nothing in another place: a lock, or a side file of SQLite."""
    if path.name == "lock" or path.suffix == ".lock":
        return True
    for ending in _SIDE_FILES:
        if path.name.endswith(ending):
            return is_database(path.with_name(path.name.removesuffix(ending)))
    return False


def _described(path: Path, name: str) -> BackupFile:
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return BackupFile(path=name, bytes=path.stat().st_size, sha256=sha)


def _why_wrong(folder: Path, file: BackupFile) -> str | None:
    path = folder / file.path
    if not path.is_file():
        return f"no {file.path}"
    if (size := path.stat().st_size) != file.bytes:
        return f"{file.path} of {size:,} bytes, not {file.bytes:,}"
    found = _described(path, file.path)
    return None if found.sha256 == file.sha256 else f"{file.path} with another content"


def _write_manifest(path: Path, manifest: Manifest) -> None:
    content = manifest.canonical()
    text = json.dumps(content | {"digest": digest(content)}, indent=1)
    write_whole(path, text.encode())


def _private(path: Path) -> BinaryIO:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(file, "wb")


def _altered(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"a backup must be whole, as it was written, got {what}; nothing was restored: take "
        "another backup"
    )
