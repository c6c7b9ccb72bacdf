"""The write-ahead log: what a gateway process acknowledged, on disk before it says so.

    log = WriteAheadLog.create(folder)
    log.append(LogKind.INTERACTION, body)    # in the page cache of the kernel: survives a SIGKILL
    await log.durable()                     # on the disk: survives a loss of power

Each process appends to a segment of its own and holds a lock on it, which the kernel frees when the
process dies. A segment is written under another name with its first lines, locked, and only then
renamed to its own: what bears a segment's name is never empty and never without its owner's lock.
`ratchet.gateway.drain` brings the lines to the event store and deletes a segment that is drained
and whose process is gone. `ratchet.gateway.log_lines` says what a line looks like.

What fails is tried again on a new segment: a write, a sync, and a segment that was deleted or moved
underneath, of which the process still holds the content. Until that works, nothing is acknowledged.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ratchet.files.whole import sync_folder
from ratchet.gateway.log_lines import (
    SUFFIX,
    LogKind,
    header_line,
    is_abandoned,
    line,
    read,
    segments,
)

__all__ = ["LogKind", "WriteAheadLog", "is_abandoned", "read", "segments"]

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 16_000_000
SEGMENT_SECONDS = 600.0
"""Then a segment is let go of, so that what is in the store does not stay in the log for long."""
SYNC_SECONDS = 0.05
DRAFT_SUFFIX = ".new"
"""Of a segment that has not got its name yet. Nothing in it was acknowledged."""
_LOOK_SECONDS = 1.0
_PROBE_BYTES = 65_536
_PIECE = 1_000_000


class NotDurableError(OSError):
    """What was appended may not be on the disk."""


class WriteAheadLog:
    """One process's log. `append` and `durable` are called from its event loop only.

    Attributes:
        problem: Why nothing can be recorded now; None where it can. Looked at again each second.
        saved: How often a segment was written anew, since it was deleted underneath or a sync of it
            failed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        sync_seconds: float = SYNC_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._segment_seconds, self._begun = segment_seconds, 0.0
        self._sync_seconds, self._look_seconds = sync_seconds, look_seconds
        self._lock = threading.Lock()
        self._name, self._number = secrets.token_hex(8), 1
        self._segment: _Segment | None = None
        self._retired: list[_Segment] = []  # full ones, until they are synced
        self._spent: list[_Segment] = []  # those of which there is a copy, until they are closed
        self._unsynced, self._new_names = False, False
        self._suspects: list[_Segment] = []  # those that a sync failed for, until there is a copy
        self._failure: OSError | None = None
        self.problem: str | None = None
        self.saved = 0
        self._rotate_after = 0.0
        self._wanted, self._urgent = threading.Event(), threading.Event()
        self._closing = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._syncer = threading.Thread(target=self._sync_loop, name="wal-sync", daemon=True)
        self._syncer.start()

    @classmethod
    def create(cls, folder: Path) -> WriteAheadLog:
        """Begin a log in `folder`; its first segment is made with the first line."""
        with suppress(OSError):  # a full disk is no reason not to answer
            folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def append(self, kind: LogKind, body: bytes) -> None:
        """Write one line; when this returns, the death of the process cannot lose it.

        Raises:
            OSError: The disk is full or fails; nothing of the line was acknowledged.
        """
        self.append_all([(kind, body)])

    def append_all(
        self,
        lines: list[tuple[LogKind, bytes]],
        definitions: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Write lines together. See `append`.

        Args:
            lines: Kinds and bodies.
            definitions: What the lines refer to, by digest: it is written before them, once a
                segment.
        """
        now, written = time.time_ns(), 0

        def block(segment: _Segment | None) -> bytes:
            nonlocal written
            known = frozenset[str]() if segment is None else segment.defined
            new = [(LogKind.DEFINITION, b) for key, b in definitions.items() if key not in known]
            written, first = len(new) + len(lines), self._number
            return b"".join(line(first + n, now, *given) for n, given in enumerate([*new, *lines]))

        with self._lock:
            if self._failure is not None:
                raise NotDurableError(f"the log cannot be brought to the disk: {self._failure}")
            try:
                self._put(block)
            except OSError as error:
                self.problem = str(error)
                raise
            self._number += written
            if definitions and self._segment is not None:
                self._segment.defined.update(definitions)
            self._unsynced, self.problem = True, None
        self._wanted.set()

    async def durable(self) -> None:
        """Wait until everything appended so far is on the disk; who waits together syncs once.

        Raises:
            OSError: It may not be: what is acknowledged must not depend on it.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append((loop, waiter))
        self._wanted.set()
        self._urgent.set()
        await waiter

    def close(self) -> None:
        """Sync and let go of the segments."""
        self._closing = True
        self._wanted.set()
        self._urgent.set()
        self._syncer.join(timeout=10)
        self._sync()
        with self._lock:
            held = {self._segment, *self._retired, *self._suspects, *self._spent}
            for segment in filter(None, held):
                segment.close()
            self._segment, self._retired, self._suspects, self._spent = None, [], [], []

    # Writing: with the lock held ----------------------------------------------------------------

    def _put(self, block: Callable[[_Segment | None], bytes]) -> None:
        """Write a block to the segment, or to a new one where that is full or fails.

        Args:
            block: Returns what to write to a segment; to a new one where it is given None.
        """
        segment = self._segment
        if segment is None:
            self._begin(block)
            return
        if segment.size >= self._segment_bytes and time.monotonic() >= self._rotate_after:
            try:
                self._begin(block)  # the new one is open before the old one is let go of
            except OSError as error:
                self._rotate_after = time.monotonic() + self._look_seconds
                logger.warning("the segment %s grows, no new one opens: %s", segment.path, error)
            else:
                return
        try:
            segment.append(block(segment))
        except OSError:
            self._begin(block)
            return
        if segment.is_deleted():
            self._save(segment)

    def _begin(self, block: Callable[[_Segment | None], bytes]) -> None:
        """Go on with a new segment that begins with a block."""
        header = header_line(self._name, self._number, time.time_ns())
        new = _Segment.create(self._folder, (header, block(None)))
        if self._segment is not None:
            self._segment.let_go()
            self._retired.append(self._segment)
        self._segment, self._new_names, self._begun = new, True, time.monotonic()

    def _save(self, segment: _Segment) -> None:
        """Write a segment anew from what the process still holds of it.

        Where lines are in the store already, their ids make the second reading harmless.
        """
        copy = _Segment.create(self._folder, segment.content(), sync=True)
        logger.error("%s was deleted, moved or not synced; %s is its copy", segment.path, copy.path)
        if segment is self._segment:
            copy.defined.update(segment.defined)
            self._segment = copy
        else:
            copy.close()
        segment.let_go()
        self._spent.append(segment)
        self.saved += 1
        self._new_names = True

    # Syncing: a thread beside the event loop ----------------------------------------------------

    def _sync_loop(self) -> None:
        while not self._closing:
            self._wanted.wait(self._look_seconds)
            self._wanted.clear()
            self._urgent.clear()
            self._look()
            self._sync()
            self._urgent.wait(self._sync_seconds)  # nobody waits: sync the next lines together

    def _look(self) -> None:
        """Save a segment that was deleted underneath, and see whether a trouble is over."""
        with self._lock:
            try:
                if self._segment is not None and not self._segment.is_in_place():
                    self._save(self._segment)
                elif self._segment is not None and self._is_old():
                    self._segment.let_go()  # the next line begins another one
                    self._retired.append(self._segment)
                    self._segment = None
                elif self.problem is not None and self._failure is None:
                    _probe(self._folder)
                    self.problem = None
            except OSError as error:
                self.problem = str(error)

    def _is_old(self) -> bool:
        return time.monotonic() - self._begun > self._segment_seconds and self._failure is None

    def _sync(self) -> None:
        """Bring what was appended to the disk, and tell who waits for it."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        try:
            failed = self._bring_to_disk()
        except Exception as error:  # the thread must not end: callers wait for it
            logger.exception("the log's thread goes on after an error")
            failed = OSError(str(error))
        for loop, waiter in waiting:
            with suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(_resolve, waiter, failed)

    def _bring_to_disk(self) -> OSError | None:
        """Sync the segments and their names; return what failed last."""
        with self._lock:
            pending, self._retired = self._retired, []
            if self._segment is not None and self._unsynced:
                pending.append(self._segment)
            self._unsynced = False
        failed = None
        for segment in pending:  # this thread alone closes descriptors
            try:
                os.fdatasync(segment.file)
            except OSError as error:
                failed = error
                self._suspects.append(segment)
        with self._lock:
            failed = self._save_suspects() or failed
            held = {self._segment, *self._retired, *self._suspects}
            for segment in {*pending, *self._spent} - held:
                segment.close()
            self._spent = []
            new_names, self._new_names = self._new_names, False
        if new_names:
            try:
                sync_folder(self._folder)
            except OSError as error:
                failed, self._new_names = error, True
                self._note(error)
        return failed

    def _save_suspects(self) -> OSError | None:
        """Write anew what a sync failed for: the kernel may have dropped it, and says so once."""
        left, failed = [], None
        for segment in self._suspects:
            try:
                if segment not in self._spent:
                    self._save(segment)
            except OSError as error:
                failed = error
                left.append(segment)
        if self._suspects:
            logger.error("a sync of the log failed; not written anew: %d segments", len(left))
        self._suspects = left
        self._retired = [s for s in self._retired if s not in self._spent and s not in left]
        self._note(failed)
        return failed

    def _note(self, failure: OSError | None) -> None:
        """Note why what is appended does not reach the disk, or that it does again."""
        if failure is not None:
            self.problem = f"a sync of the log failed, on a new segment too: {failure}"
        elif self._failure is not None:
            self.problem = None
        self._failure = failure


@dataclass(slots=True, eq=False)
class _Segment:
    """A file of the log that this process holds.

    Attributes:
        path: Its name.
        file: Descriptor to append by, with the lock.
        size: Bytes of it that are whole lines.
        identity: Device and inode, by which it is known again.
        defined: Digests of the definitions that it holds.
    """

    path: Path
    file: int
    size: int
    identity: tuple[int, int]
    defined: set[str] = field(default_factory=set)
    _torn: bool = False

    @classmethod
    def create(cls, folder: Path, pieces: Iterable[bytes], *, sync: bool = False) -> _Segment:
        """Make a segment that holds `pieces` from the moment on that it has its name."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(2)}{SUFFIX}"
        path, draft = folder / name, folder / f".{name}{DRAFT_SUFFIX}"
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        size = 0
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for piece in pieces:
                _write_all(file, piece)
                size += len(piece)
            if sync:
                os.fdatasync(file)
            draft.rename(path)
            found = path.stat()
        except BaseException:
            os.close(file)
            for left in (draft, path):
                with suppress(OSError):
                    left.unlink()
            raise
        return cls(path, file, size, (found.st_dev, found.st_ino))

    def append(self, block: bytes) -> None:
        """Write a block at the end, whole or not at all.

        Raises:
            OSError: It was not written. Where a part of it could not be taken back, nothing more
                is written here.
        """
        if self._torn:
            raise OSError(f"{self.path} ends in a part of a line")
        try:
            _write_all(self.file, block)
        except OSError:
            try:
                os.ftruncate(self.file, self.size)
            except OSError:
                self._torn = True
            raise
        self.size += len(block)

    def is_deleted(self) -> bool:
        """Tell whether no name leads to the segment any more: the cheap half of `is_in_place`."""
        return os.fstat(self.file).st_nlink == 0

    def is_in_place(self) -> bool:
        """Tell whether the segment is still what bears its name: deleted or moved, it is not."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def content(self) -> Iterator[bytes]:
        """Yield the whole lines of the segment, wherever it is by now, in pieces."""
        at = 0
        while at < self.size and (piece := os.pread(self.file, min(_PIECE, self.size - at), at)):
            yield piece
            at += len(piece)

    def let_go(self) -> None:
        """Free the lock: while the file is synced, copies of its descriptor would keep it."""
        fcntl.flock(self.file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, and free its lock with it."""
        self.let_go()
        os.close(self.file)


def _write_all(file: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.write(file, content[written:] if written else content)


def _probe(folder: Path) -> None:
    """See whether a file can be made, written and synced in a folder.

    Raises:
        OSError: It cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".probe-{os.getpid()}{DRAFT_SUFFIX}"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write_all(file, bytes(_PROBE_BYTES))
        os.fdatasync(file)
    finally:
        os.close(file)
        path.unlink(missing_ok=True)


def _resolve(waiter: asyncio.Future[None], failed: OSError | None) -> None:
    if waiter.done():
        return
    if failed is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(NotDurableError(f"a sync of the log failed: {failed}"))
