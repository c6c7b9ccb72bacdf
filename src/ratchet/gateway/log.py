"""The write-ahead log: what a gateway process acknowledged, on disk before it says so.

    log = WriteAheadLog.create(folder)
    log.append(Kind.INTERACTION, body)      # in the page cache of the kernel: survives a SIGKILL
    await log.durable()                     # on the disk: survives a loss of power

Each process appends to a segment of its own and holds a lock on it, which the kernel frees when the
process dies. A line is

    CRC-32 (8 hex digits) · space · nanoseconds since 1970 · space · kind · space · JSON · newline

so a line that was torn by a kill is told from a whole one. `ratchet.gateway.drain` brings the lines
to the event store and deletes a segment that is drained and whose process is gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

SEGMENT_BYTES = 16_000_000
SYNC_SECONDS = 0.05
SUFFIX = ".wal"


class LogKind(Enum):
    """What a line holds."""

    INTERACTION = b"i"
    FEEDBACK = b"f"
    UNTIMED_FEEDBACK = b"t"
    """Feedback whose sender gave no time: it gets that of its arrival, the first time it comes."""
    REFUSED = b"r"
    """A request that a backend refused for what was in it: no answer of any version."""


class Entry(NamedTuple):
    """A line that is whole.

    Attributes:
        segment: Name of its file.
        start: Its first byte.
        end: The byte after its newline.
        received_ns: When it was appended, nanoseconds since 1970.
        kind: What it holds; None where the line is damaged, and `body` is then the whole line.
    """

    segment: str
    start: int
    end: int
    received_ns: int
    kind: LogKind | None
    body: bytes


class WriteAheadLog:
    """One process's log. `append` and `durable` are called from its event loop only."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        sync_seconds: float = SYNC_SECONDS,
    ) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._sync_seconds = sync_seconds
        self._lock = threading.Lock()
        self._size = 0
        self._file = self._open()
        self._wanted, self._urgent = threading.Event(), threading.Event()
        self._closing = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._syncer = threading.Thread(target=self._sync_loop, name="wal-sync", daemon=True)
        self._syncer.start()

    @classmethod
    def create(cls, folder: Path) -> WriteAheadLog:
        """Open a new segment in `folder`, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def append(self, kind: LogKind, body: bytes) -> None:
        """Write one line; when this returns, the death of the process cannot lose it.

        Raises:
            OSError: The disk is full or fails; nothing of the line is left.
        """
        self.append_all([(kind, body)])

    def append_all(self, lines: list[tuple[LogKind, bytes]]) -> None:
        """Write lines together. See `append`."""
        now = time.time_ns()
        block = b"".join(_line(now, kind, body) for kind, body in lines)
        with self._lock:
            if self._size >= self._segment_bytes:
                # while it is synced, the copy of its descriptor would keep the lock
                fcntl.flock(self._file, fcntl.LOCK_UN)
                os.close(self._file)
                self._file = self._open()
            self._write(block)
        self._wanted.set()

    async def durable(self) -> None:
        """Wait until everything appended so far is on the disk; who waits together syncs once."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append((loop, waiter))
        self._wanted.set()
        self._urgent.set()
        await waiter

    def close(self) -> None:
        """Sync and let go of the segment."""
        self._closing = True
        self._wanted.set()
        self._urgent.set()
        self._syncer.join(timeout=10)
        with self._lock:
            os.fdatasync(self._file)
            os.close(self._file)

    def _open(self) -> int:
        name = f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
        file = os.open(
            self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600
        )
        fcntl.flock(file, fcntl.LOCK_EX)
        self._size = 0
        return file

    def _write(self, block: bytes) -> None:
        written = 0
        try:
            while written < len(block):
                written += os.write(self._file, block[written:] if written else block)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(block)

    def _sync_loop(self) -> None:
        while not self._closing:
            self._wanted.wait()
            self._wanted.clear()
            self._urgent.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, []
                file = os.dup(self._file)
            try:
                os.fdatasync(file)
            finally:
                os.close(file)
            for loop, waiter in waiting:
                loop.call_soon_threadsafe(_resolve, waiter)
            self._urgent.wait(self._sync_seconds)  # nobody waits: sync the next lines together


def segments(folder: Path) -> list[Path]:
    """Return the segments, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def is_abandoned(segment: Path) -> bool:
    """Tell whether no process appends to a segment any more."""
    file = os.open(segment, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def read(segment: Path, offset: int, most_bytes: int) -> Iterator[Entry]:
    """Yield the whole lines from `offset` on, about `most_bytes` of them.

    The last line may be without its newline: it is being written, or was torn by a kill and never
    acknowledged. It is left out.
    """
    with segment.open("rb") as file:
        file.seek(offset)
        start = offset
        while start - offset < most_bytes:
            line = file.readline()
            if not line.endswith(b"\n"):
                return
            end = start + len(line)
            yield _entry(segment.name, start, end, line)
            start = end


def _line(now: int, kind: LogKind, body: bytes) -> bytes:
    content = b"%d %b %b" % (now, kind.value, body)
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _entry(segment: str, start: int, end: int, line: bytes) -> Entry:
    check, _, content = line[:-1].partition(b" ")
    parts = content.split(b" ", 2)
    if check != b"%08x" % zlib.crc32(content) or len(parts) < 3:
        return Entry(segment, start, end, 0, None, line)
    return Entry(segment, start, end, int(parts[0]), LogKind(parts[1]), parts[2])


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
