"""Bring what gateways logged to the event store, in order and once.

A drain that is killed starts over at the segments that are left: every event carries its id, so
that reading a line twice stores it once. One drain at a time holds the folder's lock.

A segment is deleted once all of it is in the store and on the store's disk, its process has let go
of it, and it is a second old; one without a line never is. A line that cannot be used is set aside
with its reason. Segments with lines of a newer version are kept under `.kept`, for that version.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import merge
from operator import itemgetter
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from ratchet.collect.ingest import ingest, ingest_placed
from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport
from ratchet.collect.times import UNKNOWN
from ratchet.errors import InvalidInputError
from ratchet.gateway.backlog import Backlog, measure
from ratchet.gateway.log import DRAFT_SUFFIX
from ratchet.gateway.log_gaps import Gaps
from ratchet.gateway.log_lines import (
    FORMAT,
    SUFFIX_0_1,
    Entry,
    LogKind,
    abandoned,
    header_of,
    is_abandoned,
    read,
    segments,
)
from ratchet.gateway.log_rows import (
    SOURCE,
    arrival,
    definition_of,
    rows_of,
    set_aside_of,
    set_aside_refused,
    simulated_answer,
    translated_of,
    unusable,
)
from ratchet.records import AlertEvent, SetAside
from ratchet.store import EventStore
from ratchet.store.standing import is_bad_row

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.2
MOST_BYTES = 4_000_000
MOST_LINES = 5_000
"""What is stored in one transaction, which others wait for: a fraction of a second."""
YOUNG_SECONDS = 1.0
KEPT_SUFFIX = ".kept"
_NO_EVENTS = (
    None, LogKind.REFUSED, LogKind.DEFINITION, LogKind.TRANSLATED, LogKind.SET_ASIDE
)  # fmt: skip
_LONGEST_PAUSE = 30.0
_TELL_SECONDS = 1.0
_DRAFT_SECONDS = 3_600.0


@dataclass(slots=True)
class Drain:
    """See the module's text.

    Attributes:
        folder: Where the segments are.
        store: Where the events go, or what opens it.
        clock: Gives the time that rows set aside carry.
        young_seconds: A segment that was written to more lately is not deleted.
        problem: Why nothing is stored now; None where all is well.
    """

    folder: Path
    store: EventStore | Callable[[], EventStore]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    young_seconds: float = YOUNG_SECONDS
    problem: str | None = None
    _offsets: dict[str, int] = field(default_factory=dict)
    _gaps: Gaps = field(default_factory=Gaps)
    _kept: set[str] = field(default_factory=set)
    _unreadable: set[str] = field(default_factory=set)
    _told_at: float = 0.0
    _lock: FileLock = field(init=False)
    _lock_0_1: FileLock = field(init=False)

    def __post_init__(self) -> None:
        self._lock = self._new_lock("drain2.lock")
        # A gateway of Ratchet 0.1 drains its own segments while it runs.
        self._lock_0_1 = self._new_lock("drain.lock")

    def run(self, stop: Event) -> None:
        """Drain until told to stop, then to the end. A store that fails is asked again, slower."""
        pause = INTERVAL_SECONDS
        while not self._waited(stop, pause):
            pause = INTERVAL_SECONDS if self._tried() else min(2 * pause, _LONGEST_PAUSE)
        if self._tried():
            self._wait_for_young()
        self.tell()
        self.close()

    def once(self) -> int:
        """Bring the next lines to the store in the order of their times; return how many."""
        if not self._is_mine():
            return 0
        found = self._readable()
        gone = [path for path in found if self._is_left(path)]
        entries = self._next(found)
        if entries:
            self._store(entries)
        for entry in entries:
            self._offsets[entry.segment] = entry.end
        took = {entry.segment for entry in entries}
        gone = [path for path in gone if path.name not in took]
        if any(self._may_go(path) for path in gone):
            self._opened().sync()  # what is in the store survives a loss of power, as the log does
            for path in gone:
                self._delete(path)
        return len(entries)

    def waiting_bytes(self) -> int:
        """Return how much of the log is not in the store yet."""
        return self.backlog().bytes

    def backlog(self) -> Backlog:
        """Return what of the log is not in the store yet."""
        return measure(
            self.folder,
            self._offsets,
            self.clock(),
            lost=self._gaps.lost,
            problem=self.problem,
            newer=len(self._kept | self._unreadable),
        )

    def tell(self) -> None:
        """Write for the gateway's processes how the drain stands, which `/healthz` shows."""
        self._told_at = time.monotonic()
        if not self._lock.is_locked:
            return
        try:
            self.backlog().write(self.folder)
        except OSError as error:
            logger.warning("how far the log is drained cannot be written: %s", error)

    def close(self) -> None:
        """Let another process drain."""
        self._lock.release(force=True)
        self._lock_0_1.release(force=True)

    # Going on ---------------------------------------------------------------------------------

    def _waited(self, stop: Event, seconds: float) -> bool:
        """Wait, and write the backlog for `/healthz` every second; return whether to stop."""
        until = time.monotonic() + seconds
        while not stop.wait(min(_TELL_SECONDS, max(0.0, until - time.monotonic()))):
            if time.monotonic() - self._told_at >= _TELL_SECONDS:
                self.tell()
            if time.monotonic() >= until:
                return False
        return True

    def _tried(self) -> bool:
        """Drain all there is; return whether the store took it."""
        try:
            while self.once():
                if time.monotonic() - self._told_at >= _TELL_SECONDS:
                    self.tell()
        except Exception as error:
            self.problem = str(error)
            logger.warning("the store takes no events, which wait in the log: %s", error)
            return False
        self.problem = None
        return True

    def _wait_for_young(self) -> None:
        """Give drained segments the time to be old enough to go."""
        until = time.monotonic() + 2 * self.young_seconds
        while time.monotonic() < until and any(map(self._is_left, self._readable())):
            time.sleep(0.05)
            if not self._tried():
                return

    def _opened(self) -> EventStore:
        return self.store() if callable(self.store) else self.store

    def _new_lock(self, name: str) -> FileLock:
        # Taken in one thread and let go in another; a soft lock would outlive a killed process.
        path = self.folder / name
        return FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)

    def _is_mine(self) -> bool:
        if self._lock.is_locked:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        if not _took(self._lock):
            return False
        self._offsets.clear()
        for path in self.folder.glob(f"*{KEPT_SUFFIX}"):  # this version may know them
            path.rename(path.with_suffix(""))
        self._clear_drafts()
        return True

    def _clear_drafts(self) -> None:
        """Delete what processes left that were killed before a segment had its name."""
        for path in self.folder.glob(f".*{DRAFT_SUFFIX}"):
            with suppress(OSError):
                if _age(path) > _DRAFT_SECONDS and is_abandoned(path):
                    path.unlink()

    # Reading ----------------------------------------------------------------------------------

    def _readable(self) -> list[Path]:
        """Return the segments that this version can read."""
        found = segments(self.folder)
        old = any(path.suffix == SUFFIX_0_1 for path in found)
        if old and not self._lock_0_1.is_locked and not _took(self._lock_0_1):
            found = [path for path in found if path.suffix != SUFFIX_0_1]
        self._unreadable = set()
        return [path for path in found if self._can_read(path)]

    def _can_read(self, path: Path) -> bool:
        try:
            size = path.stat().st_size
            header = header_of(path) if path.name not in self._offsets else None
        except FileNotFoundError:
            return False
        except OSError as error:
            logger.warning("%s cannot be read, the others go on: %s", path, error)
            self._unreadable.add(path.name)
            return False
        if header is not None and header.format > FORMAT:
            self._unreadable.add(path.name)  # it stays for the version that wrote it
            return False
        if header is not None:
            self._gaps.begin(path.name, header)
        if size < self._offsets.get(path.name, 0):  # cut underneath: what follows has other places
            self._offsets[path.name] = 0
        return True

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
        latest = int(begun) if begun.isdecimal() else 0
        yield latest, None
        with suppress(FileNotFoundError):
            for entry in read(segment, self._offsets.get(segment.name, 0), MOST_BYTES):
                latest = max(latest, entry.received_ns)  # in order, though a clock was set back
                yield latest, entry

    # Storing ----------------------------------------------------------------------------------

    def _store(self, entries: Sequence[Entry]) -> None:
        """Store lines, and with them the alert of lines that are missing between them."""
        store = self._opened()
        now = max(self.clock(), *map(arrival, entries))  # a clock may have been set back since
        gaps = self._gaps.look(entries)
        with store.adding():
            self._keep(store, entries, now)
            alert = gaps.alert(now)
        if alert is not None:
            logger.error(alert.message)
            if store.get(AlertEvent, alert.id) is None:  # a drain that started over knows it
                store.append(alert)
        self._gaps = gaps
        self._kept |= {entry.segment for entry in entries if entry.is_newer}

    def _keep(self, store: EventStore, entries: Sequence[Entry], now: datetime) -> None:
        """Store lines; where the store refuses them, those alone that it refuses are set aside."""
        try:
            with store.adding():
                self._ingest(store, entries, now)
        except Exception as error:
            if not is_bad_row(error):
                raise
            if len(entries) == 1:
                logger.exception("a line of the log is set aside")
                self._kept.add(entries[0].segment)
                reason = f"a line must be one that the store takes, got {type(error).__name__}"
                store.set_aside([unusable(entries[0], reason, now)])
                return
            middle = len(entries) // 2
            self._keep(store, entries[:middle], now)
            self._keep(store, entries[middle:], now)

    def _ingest(self, store: EventStore, entries: Sequence[Entry], now: datetime) -> None:
        events = [e for e in entries if e.kind not in _NO_EVENTS]
        apart = [unusable(e, str(e.problem), now) for e in entries if e.kind is None]
        apart += self._define(store, entries, now)
        apart += [set_aside_refused(e, now) for e in entries if e.kind is LogKind.REFUSED]
        apart += [set_aside_of(e, now) for e in entries if e.kind is LogKind.SET_ASIDE]
        store.set_aside(apart)
        events = self._without_simulated(store, events, now)
        rows = rows_of(events, store)
        positions = [f"{entry.segment} at {entry.start}" for entry in events]
        _tell(ingest(rows, store, source=SOURCE, now=now, positions=positions))
        foreign = [e for e in entries if e.kind is LogKind.TRANSLATED]
        if foreign:  # the same answers may have come here or by an import under other ids
            placed = [(f"{e.segment} at {e.start}", translated_of(e)) for e in foreign]
            _tell(ingest_placed(placed, store, source=SOURCE, now=now, known=Recogniser(store)))

    def _without_simulated(
        self, store: EventStore, events: Sequence[Entry], now: datetime
    ) -> list[Entry]:
        """Store simulated users' answers while no real user came, and return what else there is.

        Afterwards they are among it, to be set aside; but those that are stored already, which a
        drain that starts over meets again.
        """
        simulated = {entry: found for entry in events if (found := simulated_answer(entry))}
        if not simulated:
            return list(events)
        if store.origins().real_since is None:
            with store.simulating():
                _tell(ingest(simulated.values(), store, source=SOURCE, now=now))
            return [entry for entry in events if entry not in simulated]
        stored = store.answered_at([found.id for found in simulated.values()])
        return [e for e in events if e not in simulated or simulated[e].id not in stored]

    def _define(self, store: EventStore, entries: Sequence[Entry], now: datetime) -> list[SetAside]:
        """Store what lines define, and return those that define nothing."""
        found, apart = [], []
        for entry in entries:
            if entry.kind is LogKind.DEFINITION:
                try:
                    found.append(definition_of(entry, store))
                except InvalidInputError as error:
                    apart.append(unusable(entry, str(error), now))
        store.add_definitions([definition for definition in found if definition is not None])
        return apart

    # Deleting ---------------------------------------------------------------------------------

    def _is_left(self, segment: Path) -> bool:
        """Tell whether no process appends to a segment any more."""
        try:
            return is_abandoned(segment)
        except OSError:
            return False

    def _may_go(self, segment: Path) -> bool:
        """Tell whether a segment is not empty, not young, and wholly in the store."""
        offset = self._offsets.get(segment.name, 0)
        with suppress(OSError):
            if offset and _age(segment) >= self.young_seconds:
                return next(read(segment, offset, 1), None) is None
        return False

    def _delete(self, segment: Path) -> None:
        """Delete a segment, or keep it apart; nobody begins to append to it meanwhile."""
        with suppress(FileNotFoundError), abandoned(segment) as is_left:
            if not is_left or not self._may_go(segment):
                return
            left = segment.stat().st_size - self._offsets.get(segment.name, 0)
            if left:
                logger.info("the log ends in %d bytes of a line that nobody was told of", left)
            if segment.name in self._kept:
                segment.rename(segment.with_name(segment.name + KEPT_SUFFIX))
            else:
                segment.unlink()
            self._offsets.pop(segment.name, None)
            self._gaps.forget(segment.name)


def _took(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _age(path: Path) -> float:
    """Return the seconds since a file was written to; one of the future is young."""
    return time.time() - path.stat().st_mtime


def _tell(report: IngestReport) -> None:
    for reason, count in report.reasons:
        logger.warning("%d logged events were set aside: %s", count, reason)
    for note, count in report.noted:
        if note != UNKNOWN:  # callers with a key may send feedback before its answer
            logger.info("%d × noted: %s", count, note)
