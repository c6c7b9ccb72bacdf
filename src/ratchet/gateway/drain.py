"""Bring what gateways logged to the event store, in order and once.

A drain that is killed starts over at the segments that are left: every event carries its id, so
that reading a line twice stores it once. One drain at a time holds the folder's lock.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import merge
from operator import itemgetter
from pathlib import Path
from threading import Event
from typing import Any

from filelock import FileLock, Timeout
from pydantic_core import from_json

from ratchet.collect.ingest import ingest
from ratchet.collect.times import UNKNOWN
from ratchet.gateway.log import Entry, LogKind, is_abandoned, read, segments
from ratchet.records import SetAside, derive_id
from ratchet.store import EventStore

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.2
MOST_BYTES = 4_000_000
MOST_LINES = 5_000
"""What is stored in one transaction, which others wait for: a fraction of a second."""
SOURCE = "gateway"
_LONGEST_PAUSE = 30.0
_RAW_CHARACTERS = 2_000


@dataclass(slots=True)
class Drain:
    """See the module's text.

    Attributes:
        folder: Where the segments are.
        store: Where the events go.
        clock: Gives the time that rows set aside carry.
    """

    folder: Path
    store: EventStore
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _offsets: dict[str, int] = field(default_factory=dict)
    _lock: FileLock = field(init=False)

    def __post_init__(self) -> None:
        # Taken in one thread and let go in another; a soft lock would outlive a killed process.
        path = self.folder / "drain.lock"
        self._lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)

    def run(self, stop: Event) -> None:
        """Drain until told to stop, then to the end. A store that fails is asked again, slower."""
        pause = INTERVAL_SECONDS
        while not stop.wait(pause):
            try:
                while self.once():
                    pass
                pause = INTERVAL_SECONDS
            except Exception as error:
                pause = min(2 * pause, _LONGEST_PAUSE)
                logger.warning(
                    "the store takes no events, which wait in the log: %s; again in %.0f s",
                    error,
                    pause,
                )
        while self.once():
            pass
        self.close()

    def once(self) -> int:
        """Bring the next lines to the store in the order of their times; return how many."""
        if not self._is_mine():
            return 0
        found = segments(self.folder)
        gone = [path for path in found if is_abandoned(path)]
        entries = self._next(found)
        if entries:
            self._store(entries)
        for entry in entries:
            self._offsets[entry.segment] = entry.end
        took = {entry.segment for entry in entries}
        for path in gone:
            if path.name not in took and self._is_drained(path):
                self._delete(path)
        return len(entries)

    def _next(self, found: Sequence[Path]) -> list[Entry]:
        """Return lines of all segments, earliest first, as many as one transaction takes."""
        in_order = merge(*map(self._lines, found), key=itemgetter(0))
        entries, size = [], 0
        for _, entry in in_order:
            if entry is None:
                continue
            entries.append(entry)
            size += entry.end - entry.start
            if len(entries) == MOST_LINES or size > MOST_BYTES:
                break
        return entries

    def _lines(self, segment: Path) -> Iterator[tuple[int, Entry | None]]:
        """Yield when a segment was begun and then its lines: it is opened when its turn comes."""
        begun = segment.name.partition("-")[0]
        yield int(begun) if begun.isdecimal() else 0, None
        for entry in read(segment, self._offsets.get(segment.name, 0), MOST_BYTES):
            yield entry.received_ns, entry

    def _is_drained(self, segment: Path) -> bool:
        return next(read(segment, self._offsets.get(segment.name, 0), 1), None) is None

    def waiting_bytes(self) -> int:
        """Return how much of the log is not in the store yet."""
        return sum(
            path.stat().st_size - self._offsets.get(path.name, 0) for path in segments(self.folder)
        )

    def close(self) -> None:
        """Let another process drain."""
        self._lock.release(force=True)

    def _is_mine(self) -> bool:
        if self._lock.is_locked:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _store(self, entries: Sequence[Entry]) -> None:
        now = max(self.clock(), _arrival(entries[-1]))  # a clock may have been set back since
        refused = [entry for entry in entries if entry.kind is LogKind.REFUSED]
        entries = [entry for entry in entries if entry.kind is not LogKind.REFUSED]
        rows = self._rows(entries)
        positions = [f"{entry.segment} at {entry.start}" for entry in entries]
        with self.store.adding():
            self.store.set_aside([_set_aside(entry) for entry in refused])
            report = ingest(rows, self.store, source=SOURCE, now=now, positions=positions)
        for reason, count in report.reasons:
            logger.warning("%d logged events were set aside: %s", count, reason)
        for note, count in report.noted:
            if note != UNKNOWN:  # callers with a key may send feedback before its answer
                logger.info("%d × noted: %s", count, note)

    def _rows(self, entries: Sequence[Entry]) -> list[object]:
        """Return what `ingest` reads; feedback without a time gets that of its first arrival."""
        rows: list[object] = [entry.body for entry in entries]
        untimed: dict[int, dict[str, Any]] = {
            number: from_json(entry.body)
            for number, entry in enumerate(entries)
            if entry.kind is LogKind.UNTIMED_FEEDBACK
        }
        stored = self.store.stored_feedback([row["id"] for row in untimed.values()])
        first = {key: event.created_at for key, event in stored.items()}
        for number, row in untimed.items():
            arrival = _arrival(entries[number])
            rows[number] = row | {"created_at": first.setdefault(row["id"], arrival)}
        return rows

    def _delete(self, segment: Path) -> None:
        left = segment.stat().st_size - self._offsets.get(segment.name, 0)
        if left:
            logger.info("the log ends in %d bytes of a line that nobody was told of", left)
        segment.unlink()
        self._offsets.pop(segment.name, None)


def _arrival(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.received_ns / 1e9, UTC)


def _set_aside(entry: Entry) -> SetAside:
    """Return a refused request as it is kept: apart, so that it counts against no version."""
    row = from_json(entry.body)
    where = f"{entry.segment} at {entry.start}"
    return SetAside(
        id=derive_id(SOURCE, where, row["id"]),
        created_at=_arrival(entry),
        source=SOURCE,
        position=row["id"],
        reason=f"a request must be one that the backend takes, got {row.pop('reason')}",
        raw=json.dumps(row)[:_RAW_CHARACTERS],
        user_id=row.get("user_id"),
    )
