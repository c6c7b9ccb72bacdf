"""Go on with a source as it grows: a log that is appended to, a folder that gets files.

Of a file of lines on this machine what was added is read from where the last look ended, which the
store keeps, so that a stopped program goes on there. Any other file is read again when it has
changed, which stores only what is new.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ratchet.collect.ingest import ingest_opened
from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport
from ratchet.doors.importing import Import, dated, store_import
from ratchet.doors.rows import events_of
from ratchet.doors.sources import SourceFile, files_of
from ratchet.errors import InvalidInputError
from ratchet.files.rows import rows_of_lines
from ratchet.records import digest
from ratchet.store import EventStore
from ratchet.store.cursors import keep_cursors, read_cursors
from ratchet.store.history import History

MOST_BYTES = 64_000_000
"""So much of what was added is read at a time."""
_START = 256
_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where a file was brought in.

    Attributes:
        mark: Of the file, when it was read to its end.
        offset: Bytes of a file of lines.
        lines: Lines in these.
        start: Digest of the file's first bytes: another file under the name begins anew.
    """

    mark: str = ""
    offset: int = 0
    lines: int = 0
    start: str = ""


def follow_source(
    what: Import,
    store: EventStore,
    history: History | None,
    *,
    wait: Callable[[], bool],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[IngestReport]:
    """Store what a source holds and what is added to it; yield what each look brought.

    Args:
        what: The source.
        store: Where its events go.
        history: The store's history.
        wait: Called after each look; another one follows while it returns True.
        clock: The time.

    Raises:
        InvalidInputError: A file cannot be read.
    """
    while True:
        now = clock()
        look = replace(what, files=tuple(files_of(what.source)), now=now)
        names = {file.address: digest([what.door.name, file.address]) for file in look.files}
        cursors = {
            name: Cursor(**json.loads(text))
            for name, text in read_cursors(store, names.values()).items()
        }
        known = Recogniser(store, history)
        for file in look.files:
            before = cursors.get(names[file.address], Cursor())
            if file.mark and file.mark == before.mark:
                continue
            one = dated(replace(look, files=(file,)), store)
            for report, after in _added(one, store, known, before):
                yield report
                keep_cursors(store, {names[file.address]: json.dumps(asdict(after))})
        if not wait():
            return


def _added(
    what: Import, store: EventStore, known: Recogniser, before: Cursor
) -> Iterator[tuple[IngestReport, Cursor]]:
    """Store what was added to a file; yield what it brought, and up to where that goes."""
    (file,) = what.files
    if not _is_of_lines(file):
        yield store_import(what, store, known=known), Cursor(mark=file.mark)
        return
    path, cursor = Path(file.address), before
    if cursor.offset and _start_of(path, min(cursor.offset, _START)) != cursor.start:
        cursor = Cursor()
    while part := _whole_lines(path, cursor.offset):
        lines = rows_of_lines(path, part, after=cursor.lines)
        told = replace(what.given, at=file.at or what.now)
        rows = partial(events_of, lines, what.door, told, what.since, what.now)
        report = ingest_opened(rows, store, source=what.name, now=what.now, known=known)
        offset = cursor.offset + len(part)
        start = _start_of(path, min(offset, _START))
        cursor = Cursor("", offset, cursor.lines + part.count(b"\n"), start)
        yield report, cursor


def _is_of_lines(file: SourceFile) -> bool:
    if file.is_remote or not file.address.lower().endswith(_LINES):
        return False
    try:
        with Path(file.address).open("rb") as content:
            return content.read(1) == b"{"
    except OSError:  # told by whoever opens it
        return False


def _whole_lines(path: Path, offset: int) -> bytes:
    """Return the lines from a place on that have their end, and a last one that is whole JSON."""
    try:
        with path.open("rb") as content:
            content.seek(offset)
            part = content.read(MOST_BYTES)
    except OSError as error:
        raise InvalidInputError(
            f"a file that is followed must be readable, got {path.name!r} ({error.strerror}); "
            "start the command again when it is there"
        ) from error
    end = part.rfind(b"\n") + 1
    if len(part) < MOST_BYTES and part[end:].strip():
        try:
            json.loads(part[end:])
        except ValueError:  # still being written
            return part[:end]
        return part
    if not end and len(part) == MOST_BYTES:
        return part  # a line without end, which is set aside
    return part[:end]


def _start_of(path: Path, size: int) -> str:
    with path.open("rb") as content:
        return digest(content.read(size).hex())
