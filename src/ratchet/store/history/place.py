"""The folder or object storage that history lies in: whole files in, whole files out.

Every file appears whole or not at all: in a folder by renaming what was written and synchronised,
on object storage because a put is atomic there.
"""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from ratchet.errors import BusyError, InvalidInputError
from ratchet.files.whole import write_whole
from ratchet.records import digest
from ratchet.store.history.layout import TABLES, Cursor, HistoryFile, parse_path

LEASE = timedelta(minutes=10)
"""How long a writer on object storage may be silent before another one takes its place."""
DERIVED = "derived-"
"""How folders begin in which something lies that was derived from files of history."""
_MARKS = ("size", "ETag", "etag", "md5Hash", "last_modified", "mtime", "ino")
_CURSOR, _LOCK, _LEASE_FILE = "cursor.json", "history.lock", "writer.json"
_BESIDE = re.compile(r"\..+\.(json|parquet)\.[0-9a-f]{32}")  # as write_whole names them
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}


@dataclass(slots=True)
class Place:
    """Where history lies.

    Attributes:
        files: The file system.
        root: The folder in it.
        wait: How long a writer waits for another one.
        clock: The time.
    """

    files: Any
    root: str
    wait: timedelta
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _owner: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def open(cls, url: str | Path, *, wait: timedelta, clock: Callable[[], datetime]) -> Place:
        """Connect; nothing is created.

        Raises:
            InvalidInputError: No file system of that name is known, or its package is missing.
        """
        files, root = file_system(str(url), "history")
        return cls(files, root.rstrip("/"), wait, clock)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.files, LocalFileSystem)

    def listed(self) -> list[HistoryFile]:
        """Return the files of history there, also those that do not count yet, in order."""
        self.files.invalidate_cache()
        found = []
        for table in TABLES:
            try:
                with self._reaching(table, FileNotFoundError):
                    below = self.files.find(f"{self.root}/{table}", detail=True)
            except FileNotFoundError:
                continue
            for path, info in below.items():
                item = parse_path(path.removeprefix(f"{self.root}/"), info["size"])
                if item is not None:
                    found.append(item)
        return sorted(found)

    def marks(self) -> dict[str, str]:
        """Return for each file of history a mark that another content would not have, by path."""
        self.files.invalidate_cache()
        found = {}
        for table in TABLES:
            try:
                below = self.files.find(f"{self.root}/{table}", detail=True)
            except FileNotFoundError:
                continue
            for path, info in below.items():
                known = [str(info[name]) for name in _MARKS if name in info]
                found[path.removeprefix(f"{self.root}/")] = digest(known)[:12]
        return found

    def derived(self) -> set[str]:
        """Return the paths of the files that were derived from files of history."""
        self.files.invalidate_cache()
        folders = self.files.glob(f"{self.root}/{DERIVED}*")
        paths = (path for folder in folders for path in self.files.find(folder))
        return {path.removeprefix(f"{self.root}/") for path in paths if path.endswith(".parquet")}

    def delete_derived(self, items: Collection[HistoryFile]) -> None:
        """Delete what was derived from files that are deleted or about to change."""
        stems = {item.path.removesuffix(".parquet") for item in items}
        for path in self.derived() if stems else ():
            if path.partition("/")[2].rpartition("-")[0] in stems:
                self.files.rm_file(f"{self.root}/{path}")

    @property
    def address(self) -> str:
        """The folder, or the address of object storage."""
        return self.root if self.is_local else str(self.files.unstrip_protocol(self.root))

    def as_listed(self) -> Any:
        """Return the file system as it is now, for one reader.

        It lists everything once. Otherwise each file costs seven questions about its size.
        """
        options = {"use_listings_cache": True, "skip_instance_cache": True}
        files = type(self.files)(**{**self.files.storage_options, **options})
        with self._reaching(""):
            files.find(self.root)
        return files

    def url(self, item: HistoryFile) -> str:
        """Return a file's address as DuckDB and Arrow take it."""
        return f"{self.address}/{item.path}"

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        with self._reaching(path, FileNotFoundError):
            return bytes(self.files.cat_file(f"{self.root}/{path}"))

    def put(self, path: str, content: bytes) -> None:
        """Write a file, or put this one in its place: all of it or nothing.

        Raises:
            BusyError: Another writer has taken over.
        """
        self._renew()
        whole = f"{self.root}/{path}"
        if self.is_local:
            write_whole(Path(whole), content, mode=None)
        else:
            with self._reaching(path):
                self.files.pipe_file(whole, content)

    def delete_unfinished(self) -> None:
        """Delete what a killed writer left beside its place in a folder."""
        if self.is_local:
            for path in Path(self.root).rglob(".*"):
                if _BESIDE.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def delete(self, items: list[HistoryFile]) -> None:
        """Delete files with what was derived from them, and folders of days that are empty then.

        Raises:
            BusyError: Another writer has taken over, whose files these may be by now.
        """
        if items:
            self._renew()
        self.delete_derived(items)
        for item in items:
            path = f"{self.root}/{item.path}"
            with self._reaching(item.path):
                self.files.rm_file(path)
            if self.is_local and not any(Path(path).parent.iterdir()):
                Path(path).parent.rmdir()

    def cursor(self) -> Cursor | None:
        """Return up to where history is written; None where nothing is.

        Raises:
            InvalidInputError: It is no cursor that this version of Ratchet reads.
        """
        try:
            content = self.read(_CURSOR)
        except FileNotFoundError:
            return None
        try:
            return Cursor.model_validate_json(content)
        except ValueError as error:
            raise InvalidInputError(
                f"{_CURSOR} of the history must be one that this version wrote, got "
                f"{content[:80]!r}; read it with the version of Ratchet that wrote it"
            ) from error

    def put_cursor(self, cursor: Cursor) -> None:
        """Make everything up to a position count.

        Raises:
            BusyError: Another writer has taken over.
        """
        self.put(_CURSOR, cursor.model_dump_json(indent=2).encode())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer.

        In a folder this is a lock of the system, which ends with its process. On object storage it
        is an object that one writer can create and that is renewed as it writes; after ten minutes
        of silence another writer takes over.

        Raises:
            BusyError: Another one was still at it when the time to wait was over.
        """
        if not self.is_local:
            self._acquire()
            try:
                yield
            finally:
                self._release()
            return
        Path(self.root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.root}/{_LOCK}", thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(timeout=self.wait.total_seconds())
        except Timeout as error:
            raise _busy() from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _reaching(self, path: str, *expected: type[OSError]) -> Iterator[None]:
        """Turn what a driver of object storage raises, of any class, into an error of a file.

        Args:
            path: The file.
            expected: Errors that the caller knows what to do with.
        """
        try:
            yield
        except Exception as error:
            if self.is_local or isinstance(error, expected):
                raise
            why = " ".join(str(error).split()) or type(error).__name__
            raise OSError(
                errno.EIO, f"cannot be reached: {why}", f"{self.address}/{path}"
            ) from error

    def _acquire(self) -> None:
        path, deadline = f"{self.root}/{_LEASE_FILE}", time.monotonic() + self.wait.total_seconds()
        while True:
            try:
                with self._reaching(_LEASE_FILE, FileExistsError):
                    self.files.pipe_file(path, self._lease(), mode="create")
                return
            except FileExistsError:
                _, until = self._holder()
                if until < self.clock():
                    self.files.rm_file(path)  # its writer was killed
                elif time.monotonic() > deadline:
                    raise _busy() from None
                else:
                    time.sleep(0.2)

    def _renew(self) -> None:
        if self.is_local:
            return
        if self._holder()[0] != self._owner:
            raise _busy()
        with self._reaching(_LEASE_FILE):
            self.files.pipe_file(f"{self.root}/{_LEASE_FILE}", self._lease())

    def _release(self) -> None:
        if self._holder()[0] == self._owner:
            self.files.rm_file(f"{self.root}/{_LEASE_FILE}")

    def _lease(self) -> bytes:
        until = self.clock() + LEASE
        return json.dumps({"owner": self._owner, "until": until.isoformat()}).encode()

    def _holder(self) -> tuple[str, datetime]:
        """Return who writes and how long that counts; nobody where the object is gone."""
        try:
            lease = json.loads(self.read(_LEASE_FILE))
        except FileNotFoundError:
            return "", datetime.max.replace(tzinfo=UTC)
        return lease["owner"], datetime.fromisoformat(lease["until"])


def file_system(url: str, what: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it; nothing is created.

    Args:
        url: A folder, or an address such as `s3://bucket/history`.
        what: What lies there, for the error.

    Raises:
        InvalidInputError: No file system of that name is known, or its package is missing.
    """
    scheme, remote, _ = url.partition("://")
    options: dict[str, Any] = {}
    if remote and scheme not in ("file", "local", "memory"):
        # DuckDB keeps what it read; another process may have written in the meantime
        options = {"default_cache_type": "none"} if scheme in ("s3", "s3a") else {}
        options |= {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        files, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        way_out = f"pip install 'ratchet-llm[{extra}]'" if extra else f"its package: {error}"
        raise InvalidInputError(
            f"{what} on {scheme}:// needs a package that is not installed; install {way_out}"
        ) from error
    except ValueError as error:
        raise InvalidInputError(
            f"{what} must be a folder or an address that fsspec knows, got one that starts "
            f"with {scheme!r}; for example s3://bucket/history, or a folder"
        ) from error
    return files, root


def _busy() -> BusyError:
    return BusyError(
        "one writer at a time may change the history, got another that is still at work; "
        "try again when it is done"
    )
