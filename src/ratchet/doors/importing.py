"""Bring in what a source holds, by its door."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ratchet.collect.batches import Batch
from ratchet.collect.ingest import batches_to_store, ingest_opened
from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport, rule_of
from ratchet.doors.door import Door, Given
from ratchet.doors.known import DOORS, door_named
from ratchet.doors.mapping import ImportMap
from ratchet.doors.recognition import first_rows, recognise
from ratchet.doors.rows import rows_of_source
from ratchet.doors.sources import SourceFile, files_of, name_of
from ratchet.doors.table import check_columns
from ratchet.records import SetAside, digest
from ratchet.store import EventStore
from ratchet.store.cursors import keep_cursors, read_cursors

LARGE = 20_000_000
"""Bytes of a source from which on a second process to read it pays."""
SHOWN = 3
"""Number of first events of each kind that a dry run shows."""


@dataclass(frozen=True, slots=True)
class Import:
    """A source that is about to be brought in.

    Attributes:
        source: Its address, as it was given.
        files: Its files, in the order in which they are read.
        door: Its format.
        is_recognised: Whether the format was told by its rows.
        given: What the translator is told.
        since: Events before that are passed over.
        now: When.
    """

    source: str
    files: tuple[SourceFile, ...]
    door: Door
    is_recognised: bool
    given: Given
    since: datetime | None
    now: datetime

    @property
    def name(self) -> str:
        """The source as set-aside rows name it."""
        return self.given.source

    @property
    def is_large(self) -> bool:
        """Whether a second process to read it pays."""
        sizes = (Path(file.address) for file in self.files if "://" not in file.address)
        return sum(path.stat().st_size for path in sizes if path.is_file()) > LARGE

    def rows(self) -> Callable[[], Iterator[tuple[str, object]]]:
        """Return what reads its rows as events, here or in another process."""
        return partial(rows_of_source, self.files, self.door.name, self.given, self.since, self.now)


def prepare(
    source: str,
    *,
    now: datetime,
    as_format: str | None = None,
    mapping: ImportMap | None = None,
    since: datetime | None = None,
) -> Import:
    """Find a source's files and format; nothing is stored.

    Args:
        source: A file, a folder, a pattern, or such an address on object storage.
        now: The time.
        as_format: Name of a door; without it the first rows say which one it is.
        mapping: What a file of `--map` says.
        since: Events before that are passed over.

    Raises:
        InvalidInputError: There are no files, or the format is not known.
    """
    mapping = mapping or ImportMap()
    files, door = tuple(files_of(source)), as_format and door_named(as_format)
    if not door and mapping.columns is not None:
        door = door_named("table")
    columns = {} if mapping.columns is None else mapping.columns.model_dump(exclude_none=True)
    given = Given(at=now, source=name_of(source), scores=mapping.scores, columns=columns)
    found = door or _recognised(files, name_of(source))
    if found.name == "table":
        check_columns(columns, first_rows(files[0]))
    return Import(source, files, found, not door, given, since, now)


def store_import(
    what: Import,
    store: EventStore,
    *,
    progress: Callable[[int], None] = lambda _: None,
    known: Recogniser | None = None,
) -> IngestReport:
    """Store what a source holds; what is there already changes nothing.

    Raises:
        InvalidInputError: A file cannot be read.
    """
    return ingest_opened(
        dated(what, store).rows(),
        store,
        source=what.name,
        now=what.now,
        progress=progress,
        second_process=what.is_large,
        known=known,
    )


def dated(what: Import, store: EventStore) -> Import:
    """Return the import with a time for each file whose rows may have none.

    It is the time of the first import of the file's first row, so that a second import, also of a
    copy or of a file that has grown, says the same and adds nothing.
    """
    if not what.door.is_timeless:
        return what
    names = {file.address: _name_of(file, what.door) for file in what.files}
    kept = read_cursors(store, names.values())
    # of a whole minute, by which no two rows are taken for the same answer
    at = what.now.replace(second=0, microsecond=0).isoformat()
    new = {name: at for name in names.values() if name not in kept}
    keep_cursors(store, new)
    times = {name: datetime.fromisoformat(text) for name, text in (kept | new).items()}
    files = tuple(file.dated(times[names[file.address]]) for file in what.files)
    return replace(what, files=files)


@dataclass(slots=True)
class Preview:
    """What an import would store.

    Attributes:
        interactions: How many.
        feedback: How many pieces.
        first: The first events, as they would be stored.
        passed: Why rows are nothing to store, with their counts.
        reasons: Why rows would be set aside, with their counts.
        examples: Of each of these the first row.
    """

    interactions: int = 0
    feedback: int = 0
    first: list[Mapping[str, Any]] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, SetAside] = field(default_factory=dict)

    def take(self, batch: Batch) -> None:
        """Count what a batch holds."""
        for events, count in (
            (batch.interactions, self.interactions),
            (batch.feedback, self.feedback),
        ):
            self.first += [event.row.fields for event in events[: max(0, SHOWN - count)]]
        self.interactions += len(batch.interactions)
        self.feedback += len(batch.feedback)
        self.passed += batch.passed
        for row in batch.rejected:
            rule = rule_of(row.reason)
            self.reasons[rule] += 1
            self.examples.setdefault(rule, row)


def preview(what: Import) -> Preview:
    """Return what an import would store, and store nothing.

    Raises:
        InvalidInputError: A file cannot be read.
    """
    shown = Preview()
    for batch in batches_to_store(what.rows(), source=what.name, now=what.now):
        shown.take(batch)
    return shown


def _recognised(files: Sequence[SourceFile], source: str) -> Door:
    for file in files:
        if rows := first_rows(file):
            return recognise(rows, DOORS, file.name or source)
    return recognise((), DOORS, source)


def _name_of(file: SourceFile, door: Door) -> str:
    return digest([door.name, repr(first_rows(file)[:1])])
