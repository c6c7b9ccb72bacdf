"""Bring interactions and feedback to the store, row by row.

Rows come as records, mappings or JSON text. A bad row is set aside with its reason and the good
ones go on. Because every event carries its id, sending a stream again changes nothing. How values
may be written is in `ratchet.collect.values`, which times are believed in `ratchet.collect.times`.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import ValidationError

from ratchet.collect.definitions import take_definitions
from ratchet.collect.plain_events import plain_feedback, plain_interaction, refuse_simulated
from ratchet.collect.recognising import Recogniser
from ratchet.collect.rejecting import (
    RAW_CHARACTERS,
    explain,
    length_of,
    raw_text,
    value_in_words,
    whose,
)
from ratchet.collect.report import IngestReport, rule_of
from ratchet.collect.second_process import in_second_process
from ratchet.collect.times import CLOCK_ERROR, EARLIEST, FUTURE, TimeNotes, arrived, check_time
from ratchet.collect.values import plain_values
from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row, parse_json, read_rows
from ratchet.files.text import printable
from ratchet.records import (
    FEEDBACK,
    Definition,
    Feedback,
    Interaction,
    Record,
    SetAside,
    derive_id,
)
from ratchet.records.events import DEFINITION_KINDS
from ratchet.store.event_rows import FeedbackRow, InteractionRow, feedback_row, interaction_row
from ratchet.store.naming import names_of
from ratchet.store.rows import microseconds

if TYPE_CHECKING:
    from ratchet.store import Added

CHUNK = 5_000
CHUNK_CHARACTERS = 20_000_000
"""Rows are stored together up to this number, or where their texts are as long as this."""
MAX_LINE_BYTES = 4_000_000
NEEDS = (("kind", "messages"),)
NAMES = (*Interaction.model_fields, "interaction_id", "kind", "value")

FORGOTTEN_NOTE = "events of users who were forgotten since, which are not stored again"

_AS_JSON = ("messages", "metadata", "tool_calls")
_DEFINED = frozenset(DEFINITION_KINDS)
_REASONS_COUNTED = 1_000
_OBJECTS_OF_A_CHUNK = 50_000
_OTHER_REASONS = "other reasons"


class EventSink(Protocol):
    """What `ingest` needs of the store."""

    def add_interaction_rows(self, rows: Sequence[InteractionRow], /) -> Added:
        """Store interactions; one that is there already changes nothing."""
        ...

    def add_feedback_rows(self, rows: Sequence[FeedbackRow], /) -> Added:
        """Store feedback; one that is there already changes nothing."""
        ...

    def add_definitions(self, definitions: Sequence[Definition], /) -> None:
        """Store what interactions refer to by digest."""
        ...

    def set_aside(self, rows: Sequence[SetAside], /) -> None:
        """Keep bad rows with their reasons."""
        ...

    def answered_at(self, ids: Sequence[str], /) -> Mapping[str, datetime]:
        """Return the times of those interactions that are stored, by id."""
        ...

    def stored_feedback(self, ids: Sequence[str], /) -> Mapping[str, Feedback]:
        """Return those feedback events that are stored, by id."""
        ...


def ingest(
    rows: Iterable[object],
    store: EventSink,
    *,
    source: str,
    now: datetime,
    chunk: int = CHUNK,
    positions: Sequence[str] | None = None,
) -> IngestReport:
    """Store what is good in a stream of rows and set the rest aside.

    A row is an `Interaction`, a feedback record, a mapping, or JSON text (str or UTF-8 bytes) of
    one. A mapping with `kind` is feedback, one with `messages` is an interaction; fields that are
    null are not there. A `SetAside` is kept as it is. Blank lines are skipped. At most `chunk` rows
    are in memory at a time.

    Args:
        rows: The rows, read once.
        store: Where they go.
        source: Where they come from; the set-aside rows carry it.
        now: Time of arrival.
        chunk: Rows that are stored together.
        positions: Where each row is in its source, one a row; by default its number.

    Raises:
        InvalidInputError: `chunk` is below 1.
    """
    numbered = ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    placed = numbered if positions is None else zip(positions, rows, strict=True)
    return ingest_placed(placed, store, source=source, now=now, chunk=chunk)


def ingest_placed(
    rows: Iterable[tuple[str, object]],
    store: EventSink,
    *,
    source: str,
    now: datetime,
    chunk: int = CHUNK,
    progress: Callable[[int], None] = lambda _: None,
    known: Recogniser | None = None,
) -> IngestReport:
    """Store rows that come with their positions in the source. See `ingest` and `ingest_file`.

    Raises:
        InvalidInputError: `chunk` is below 1.
    """
    if chunk < 1:
        raise InvalidInputError(f"chunk must be at least 1, got {chunk}; leave it at {CHUNK:,}")
    reader = _Reader(source, now)
    batches = map(reader.read, _batches(rows, chunk))
    times = TimeNotes(store.answered_at)
    return _ingest(batches, store, _Progress(reader, times, progress, known))


def ingest_file(
    path: Path,
    store: EventSink,
    *,
    now: datetime,
    source: str | None = None,
    chunk: int = CHUNK,
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Callable[[int], None] = lambda _: None,
    second_process: bool = False,
    known: Recogniser | None = None,
) -> IngestReport:
    """Store the events of a file: CSV, JSON Lines, JSON or Parquet. See `ingest`.

    In a table an empty cell is a field that the row does not have, and `messages`, `metadata` and
    `tool_calls` are JSON.

    Args:
        path: The file; see `ratchet.files.rows`. Lines are read one by one.
        store: Where the events go.
        now: Time of arrival.
        source: Where the rows come from, by default the file's name.
        chunk: Rows that are stored together.
        max_line_bytes: A longer line is set aside unread.
        progress: Called with the number of rows that are done, each time some are.
        second_process: Whether another process reads while this one stores, which pays for files
            of tens of megabytes; see `ratchet.collect.second_process`.
        known: Knows answers again that are stored under other ids; without it every id is new.

    Raises:
        InvalidInputError: The file cannot be read, or `chunk` or `max_line_bytes` is below 1.
    """
    if min(chunk, max_line_bytes) < 1:
        raise InvalidInputError(
            f"chunk and max_line_bytes must be at least 1, got {chunk} and {max_line_bytes}; "
            f"leave them at {CHUNK:,} and {MAX_LINE_BYTES:,}"
        )
    reader = _Reader(source or path.name, now)
    what = (path, reader, chunk, max_line_bytes)
    batches = (
        map(_unpacked, in_second_process(_packed_batches, *what))
        if second_process
        else _read_batches(*what)
    )
    with _seldom_looked_for_garbage():
        times = TimeNotes(store.answered_at)
        return _ingest(batches, store, _Progress(reader, times, progress, known))


class _Event(NamedTuple):
    """An event that can be stored; feedback of the future is still a record."""

    position: str
    event: Any
    row: Any


_Packed = tuple[int, list[SetAside], list[Any], list[Any], dict[str, Definition]]


@dataclass(slots=True)
class _Batch:
    """Rows that are stored together: the events, and what is set aside."""

    read: int
    interactions: list[_Event] = field(default_factory=list)
    feedback: list[_Event] = field(default_factory=list)
    rejected: list[SetAside] = field(default_factory=list)
    definitions: dict[str, Definition] = field(default_factory=dict)


@dataclass(slots=True)
class _Progress:
    """Counts so far, and the rows of this chunk that are to be set aside."""

    reader: _Reader
    times: TimeNotes
    tell: Callable[[int], None]
    known: Recogniser | None = None
    read: int = 0
    interactions: int = 0
    feedback: int = 0
    repeated: int = 0
    forgotten: int = 0
    recognised: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, SetAside] = field(default_factory=dict)
    pending: list[SetAside] = field(default_factory=list)

    def keep(self, rejected: SetAside) -> None:
        self.pending.append(rejected)
        self.rejected += 1
        rule = rule_of(rejected.reason)
        known = rule in self.reasons or len(self.reasons) < _REASONS_COUNTED
        self.reasons[rule if known else _OTHER_REASONS] += 1
        if known:
            self.examples.setdefault(rule, rejected)

    def report(self) -> IngestReport:
        reasons = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        return IngestReport(
            interactions=self.interactions,
            feedback=self.feedback,
            repeated=self.repeated,
            set_aside=self.rejected,
            reasons=tuple(reasons),
            examples=tuple(self.examples[rule] for rule, _ in reasons if rule in self.examples),
            noted=self._noted(),
            recognised=self.recognised,
        )

    def _noted(self) -> tuple[tuple[str, int], ...]:
        noted = self.times.finish()
        return (*noted, (FORGOTTEN_NOTE, self.forgotten)) if self.forgotten else noted


@dataclass(slots=True)
class _Reader:
    """Turns rows into events; what cannot be used is set aside with its reason."""

    source: str
    now: datetime
    earliest: int = field(init=False)
    latest: int = field(init=False)
    latest_answer: int = field(init=False)

    def __post_init__(self) -> None:
        self.earliest, self.latest = microseconds(EARLIEST), microseconds(self.now)
        self.latest_answer = microseconds(self.now + CLOCK_ERROR)

    def read(self, rows: Sequence[tuple[str, object]]) -> _Batch:
        """Return what becomes of rows that come with their positions."""
        batch = _Batch(len(rows))
        for position, row in rows:
            if isinstance(row, str | bytes) and not row.strip():
                continue
            if isinstance(row, SetAside):
                batch.rejected.append(row)
                continue
            try:
                event = self._event(row, batch.definitions)
            except InvalidInputError as error:
                batch.rejected.append(self.reject(position, row, str(error)))
                continue
            to = batch.interactions if isinstance(event, InteractionRow) else batch.feedback
            to.append(_Event(position, event, row))
        return batch

    def reject(
        self, position: str, row: object, reason: str, about: Mapping[str, object] | None = None
    ) -> SetAside:
        """Return a row as it is set aside, with whom it is about, where that can be told."""
        raw, source = raw_text(row), printable(self.source, RAW_CHARACTERS)
        return SetAside(
            id=derive_id(source, position, reason, raw),
            created_at=self.now,
            source=source,
            position=position,
            reason=reason,
            raw=raw,
            **(names_of(about) if about is not None else whose(row)),
        )

    def _event(
        self, row: object, definitions: dict[str, Definition]
    ) -> InteractionRow | FeedbackRow | Feedback:
        """Return the event that a row holds: a row of the store, or feedback of the future.

        Args:
            row: The row.
            definitions: Gets what the row defines.

        Raises:
            InvalidInputError: The row breaks a rule.
        """
        value = _value(row)
        if value is not row and isinstance(value, dict):  # as JSON or a table gave it
            plain = self._plain(value)
            if plain is not None:
                refuse_simulated(plain)
                return plain
        if isinstance(value, Mapping) and not _DEFINED.isdisjoint(value):
            value = take_definitions(value, definitions)
        record = _record(value)
        check_time(record, self.now)
        if isinstance(record, Interaction) and record is not row:
            refuse_simulated(interaction_row(record))
        if isinstance(record, Interaction):
            return interaction_row(record)
        updated = record.updated_at or record.created_at
        is_ahead = max(record.created_at, updated) > self.now
        return record if is_ahead else feedback_row(record)

    def _plain(self, fields: dict[str, Any]) -> InteractionRow | FeedbackRow | None:
        if None in fields.values():
            fields = {name: given for name, given in fields.items() if given is not None}
        if "kind" in fields:
            return plain_feedback(fields, earliest=self.earliest, latest=self.latest)
        return plain_interaction(fields, earliest=self.earliest, latest=self.latest_answer)


def _batches(rows: Iterable[tuple[str, object]], chunk: int) -> Iterator[list[tuple[str, object]]]:
    """Yield rows that are stored together; few where their texts are long."""
    iterator, share = iter(rows), max(1, chunk // 20)
    batch: list[tuple[str, object]] = []
    characters = 0
    while part := list(islice(iterator, min(share, chunk - len(batch)))):
        batch += part
        characters += length_of(part)
        if len(batch) == chunk or characters > CHUNK_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _read_batches(path: Path, reader: _Reader, chunk: int, longest: int) -> Iterator[_Batch]:
    """Yield the rows of a file as events."""
    opened = read_rows(
        path, needs=NEEDS, names=NAMES, longest=longest, finite=True, may_be_empty=True
    )
    with opened as rows:
        placed = ((row.position, row) for row in rows)
        yield from map(reader.read, _batches(placed, chunk))


def _packed_batches(path: Path, reader: _Reader, chunk: int, longest: int) -> Iterator[_Packed]:
    """Yield the same as plain tuples, which are sent much faster."""
    with _seldom_looked_for_garbage():
        for batch in _read_batches(path, reader, chunk, longest):
            events = _packed(batch.interactions), _packed(batch.feedback)
            yield batch.read, batch.rejected, *events, batch.definitions


def _packed(events: Sequence[_Event]) -> list[tuple[str, Any, Any, str | None]]:
    return [
        (
            event.position,
            tuple(event.event) if isinstance(event.event, tuple) else event.event,
            None if event.row.raw is not None else event.row.fields,
            event.row.raw and event.row.raw[: RAW_CHARACTERS + 1],
        )
        for event in events
    ]


def _unpacked(packed: _Packed) -> _Batch:
    read, rejected, interactions, feedback, definitions = packed
    return _Batch(
        read,
        [_event(InteractionRow._make, *values) for values in interactions],
        [_event(FeedbackRow._make, *values) for values in feedback],
        rejected,
        definitions,
    )


def _event(
    make: Callable[[tuple[Any, ...]], Any], position: str, event: Any, fields: Any, raw: str | None
) -> _Event:
    row = Row(0, 0, position, 1, fields or {}, raw, None, "json")
    return _Event(position, make(event) if type(event) is tuple else event, row)


@contextmanager
def _seldom_looked_for_garbage() -> Iterator[None]:
    """Let Python look for garbage once a chunk: among rows there is none to be found.

    By default it looks after every 700 objects, which took a third of the time of reading.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_OF_A_CHUNK, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _ingest(batches: Iterable[_Batch], store: EventSink, progress: _Progress) -> IngestReport:
    for batch in batches:
        for rejected in batch.rejected:
            progress.keep(rejected)
        if batch.definitions:
            store.add_definitions(list(batch.definitions.values()))
        answered: dict[str, int] = {}
        for questions in _without_repeated_ids(_new(batch.interactions, progress)):
            added = store.add_interaction_rows([event.event for event in questions])
            progress.interactions += added.new
            _account(added, questions, progress)
            if not added.conflicts:
                answered |= {event.event.id: event.event.created_at for event in questions}
        feedback = _arrived(batch.feedback, store, progress)
        renamed = progress.known.about_stored([e.event for e in feedback]) if progress.known else {}
        mine = [event for place, event in enumerate(feedback) if place not in renamed]
        _add_feedback(mine, store, progress, answered)
        if renamed:  # after the others: what they say need not be stored again
            about = [feedback[place]._replace(event=row) for place, row in renamed.items()]
            _add_feedback(_unsaid(about, progress), store, progress, answered)
        if progress.pending:
            store.set_aside(tuple(progress.pending))
            progress.pending.clear()
        progress.read += batch.read
        progress.tell(progress.read)
    return progress.report()


def _add_feedback(
    feedback: Sequence[_Event],
    store: EventSink,
    progress: _Progress,
    answered: Mapping[str, int],
) -> None:
    for opinions in _without_repeated_ids(feedback):
        added = store.add_feedback_rows([event.event for event in opinions])
        progress.feedback += added.new
        _account(added, opinions, progress)
    progress.times.take([event.event for event in feedback], answered)


def _new(events: Sequence[_Event], progress: _Progress) -> Sequence[_Event]:
    """Return the interactions that are not known under other ids, and count the others."""
    if progress.known is None:
        return events
    found = progress.known.interactions([event.event for event in events])
    progress.recognised += len(found.same)
    progress.repeated += len(found.repeated)
    for place in sorted(found.conflicting):
        progress.keep(_conflict(events[place], progress))
    return [event for place, event in enumerate(events) if not found.knows(place)]


def _unsaid(events: Sequence[_Event], progress: _Progress) -> list[_Event]:
    """Return feedback on other ids that stored feedback does not say, and count the rest."""
    assert progress.known is not None
    left = progress.known.without_stored([event.event for event in events])
    new = {id(row) for row in left}
    progress.recognised += len(events) - len(left)
    return [event for event in events if id(event.event) in new]


def _arrived(events: Sequence[_Event], store: EventSink, progress: _Progress) -> Sequence[_Event]:
    """Give feedback of the future the time at which it arrived first."""
    ahead = [event.event.id for event in events if isinstance(event.event, Feedback)]
    if not ahead:
        return events
    stored, placed = store.stored_feedback(ahead), []
    for event in events:
        if isinstance(event.event, Feedback):
            record = arrived(event.event, progress.reader.now, stored)
            event = event._replace(event=feedback_row(record))
            progress.times.counts[FUTURE] += 1
        placed.append(event)
    return placed


def _without_repeated_ids(events: Sequence[_Event]) -> Sequence[Sequence[_Event]]:
    """Split events so that no list holds an id twice: then a conflict names exactly one row."""
    if len({event.event.id for event in events}) == len(events):
        return [events] if events else []
    seen: Counter[str] = Counter()
    parts: list[list[_Event]] = []
    for event in events:
        key = event.event.id
        if seen[key] == len(parts):
            parts.append([])
        parts[seen[key]].append(event)
        seen[key] += 1
    return parts


def _account(added: Added, events: Sequence[_Event], progress: _Progress) -> None:
    progress.repeated += added.repeated
    progress.forgotten += added.forgotten
    by_id = {event.event.id: event for event in events} if added.conflicts else {}
    for key in added.conflicts:
        progress.keep(_conflict(by_id[key], progress))


def _conflict(event: _Event, progress: _Progress) -> SetAside:
    reason = (
        "id: must not be sent again with different content, "
        f"got {printable(event.event.id)!r}; send the new content under a new id"
    )
    names = ("user_id", "interaction_id")
    about = {name: getattr(event.event, name, None) for name in names}
    return progress.reader.reject(event.position, event.row, reason, about)


def _value(row: object) -> object:
    """Return what a row says: fields where it is a text or of a file.

    Raises:
        InvalidInputError: It cannot be read.
    """
    if isinstance(row, Row):
        fields = row.read()
        if row.kind == "json" and not any(type(fields.get(name)) is str for name in _AS_JSON):
            return fields
        return row.given(as_json=_AS_JSON)
    return parse_json(row, finite=True) if isinstance(row, str | bytes) else row


def _record(value: object) -> Interaction | Feedback:
    """Return the event that a row holds.

    Raises:
        InvalidInputError: The row breaks a rule.
    """
    if not isinstance(value, Mapping | Record):
        raise InvalidInputError(
            "a row must be a JSON object with `kind` (feedback) or `messages` (interaction), "
            f"got {value_in_words(value)}; send one object per row"
        )
    try:
        return _validate(value)
    except ValidationError as error:
        raise InvalidInputError(explain(error)) from error
    except (OverflowError, RecursionError) as error:
        raise InvalidInputError(
            f"a row must hold values in range, got {printable(str(error))}; correct them"
        ) from error


def _validate(value: Mapping[Any, Any] | Record) -> Interaction | Feedback:
    if isinstance(value, Interaction):
        return value
    if isinstance(value, Record):
        return FEEDBACK.validate_python(value)
    plain = plain_values(value)
    if "kind" in plain:
        return FEEDBACK.validate_python(plain)
    if "messages" in plain:
        return Interaction.model_validate(plain)
    raise InvalidInputError(
        "a row must have `kind` (feedback) or `messages` (interaction), got the fields "
        f"{printable(', '.join(map(str, value))) or 'of an empty object'}; name one of them"
    )
