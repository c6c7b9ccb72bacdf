"""Bring interactions and feedback to the store, row by row.

Rows come as records, mappings or JSON text. A bad row is set aside with its reason and the good
ones go on. Because every event carries its id, sending a stream again changes nothing. How values
may be written is in `ratchet.collect.values`, which times are believed in `ratchet.collect.times`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ratchet.collect.batches import (
    CHUNK,
    Batch,
    PackedBatch,
    Passed,
    PlacedEvent,
    Translated,
    batches_of,
    packed,
    seldom_looked_for_garbage,
    unpacked,
)
from ratchet.collect.definitions import take_definitions
from ratchet.collect.plain_events import plain_feedback, plain_interaction, refuse_simulated
from ratchet.collect.recognising import Recogniser
from ratchet.collect.rejecting import (
    RAW_CHARACTERS,
    explain,
    raw_text,
    value_in_words,
    whose,
)
from ratchet.collect.report import IngestReport, rule_of
from ratchet.collect.second_process import in_second_process
from ratchet.collect.sink import EventSink
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

MAX_LINE_BYTES = 4_000_000
NEEDS = (("kind", "messages"),)
NAMES = (*Interaction.model_fields, "interaction_id", "kind", "value")

FORGOTTEN_NOTE = "events of users who were forgotten since, which are not stored again"

_AS_JSON = ("messages", "metadata", "tool_calls")
_DEFINED = frozenset(DEFINITION_KINDS)
_REASONS_COUNTED = 1_000
_OTHER_REASONS = "other reasons"


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
    batches = map(_Reader(source, now).read, batches_of(rows, chunk))
    return _stored(batches, store, source, now, progress, known)


def ingest_opened(
    open_rows: Callable[[], Iterator[tuple[str, object]]],
    store: EventSink,
    *,
    source: str,
    now: datetime,
    chunk: int = CHUNK,
    progress: Callable[[int], None] = lambda _: None,
    second_process: bool = False,
    known: Recogniser | None = None,
) -> IngestReport:
    """Store rows that a function reads, which another process may do.

    Args:
        open_rows: Yields each row with its position; for another process it has to be one that
            pickle can send.
        store: See `ingest_file`, as for the others.
        source: Where the rows come from.
        now: See there.
        chunk: See there.
        progress: See there.
        second_process: See there.
        known: See there.
    """
    what = (open_rows, _Reader(source, now), chunk)
    batches = (
        map(unpacked, in_second_process(_packed_batches, *what))
        if second_process
        else _read_batches(*what)
    )
    with seldom_looked_for_garbage():
        return _stored(batches, store, source, now, progress, known)


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
    return ingest_opened(
        partial(rows_of_events, path, max_line_bytes),
        store,
        source=source or path.name,
        now=now,
        chunk=chunk,
        progress=progress,
        second_process=second_process,
        known=known,
    )


def rows_of_events(path: Path, longest: int = MAX_LINE_BYTES) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file of events, each with its position.

    Raises:
        InvalidInputError: The file cannot be read.
    """
    opened = read_rows(
        path, needs=NEEDS, names=NAMES, longest=longest, finite=True, may_be_empty=True
    )
    with opened as rows:
        for row in rows:
            yield row.position, row


def batches_to_store(
    open_rows: Callable[[], Iterator[tuple[str, object]]], *, source: str, now: datetime
) -> Iterator[Batch]:
    """Yield what `ingest_opened` would store, and store nothing."""
    return _read_batches(open_rows, _Reader(source, now), CHUNK)


def _read_batches(
    open_rows: Callable[[], Iterator[tuple[str, object]]], reader: _Reader, chunk: int
) -> Iterator[Batch]:
    """Yield the rows as events."""
    yield from map(reader.read, batches_of(open_rows(), chunk))


def _packed_batches(
    open_rows: Callable[[], Iterator[tuple[str, object]]], reader: _Reader, chunk: int
) -> Iterator[PackedBatch]:
    """Yield the same as plain tuples."""
    with seldom_looked_for_garbage():
        yield from map(packed, _read_batches(open_rows, reader, chunk))


def _stored(
    batches: Iterable[Batch],
    store: EventSink,
    source: str,
    now: datetime,
    progress: Callable[[int], None],
    known: Recogniser | None,
) -> IngestReport:
    reader, times = _Reader(source, now), TimeNotes(store.answered_at)
    return _ingest(batches, store, _Progress(reader, times, progress, known))


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
    passed: Counter[str] = field(default_factory=Counter)

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
            passed=tuple(self.passed.most_common()),
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

    def read(self, rows: Sequence[tuple[str, object]]) -> Batch:
        """Return what becomes of rows that come with their positions."""
        batch = Batch(len(rows))
        for position, row in rows:
            others: tuple[str, ...] = ()
            if isinstance(row, Translated):
                row, _, others = row
            elif isinstance(row, SetAside):
                batch.rejected.append(row)
                continue
            elif isinstance(row, Passed):
                batch.passed[row.reason] += 1
                continue
            elif isinstance(row, str | bytes) and not row.strip():
                continue
            try:
                event = self._event(row, batch.definitions)
            except InvalidInputError as error:
                batch.rejected.append(self.reject(position, row, str(error)))
                continue
            if isinstance(event, InteractionRow):
                batch.interactions.append(PlacedEvent(position, event, row))
                if others:
                    batch.others[event.id] = others
                continue
            batch.feedback.append(PlacedEvent(position, event, row))
            if others:
                batch.others.setdefault(event.interaction_id, others)
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


def _ingest(batches: Iterable[Batch], store: EventSink, progress: _Progress) -> IngestReport:
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
        if batch.others and progress.known is not None:
            _name_answers(batch, answered, progress.known)
            feedback = _by_other_names(feedback, batch.others, progress.known)
        renamed = progress.known.about_stored([e.event for e in feedback]) if progress.known else {}
        mine = [event for place, event in enumerate(feedback) if place not in renamed]
        _add_feedback(mine, store, progress, answered)
        if renamed:  # after the others: what they say need not be stored again
            about = [feedback[place]._replace(event=row) for place, row in renamed.items()]
            _add_feedback(_unsaid(about, progress), store, progress, answered)
        if progress.pending:
            store.set_aside(tuple(progress.pending))
            progress.pending.clear()
        progress.passed += batch.passed
        progress.read += batch.read
        progress.tell(progress.read)
    return progress.report()


def _name_answers(batch: Batch, answered: Mapping[str, int], known: Recogniser) -> None:
    """Keep the other names of answers that are stored; of several answers the last has a name."""
    events = sorted((event.event for event in batch.interactions), key=attrgetter("created_at"))
    names = {name: row.id for row in events for name in batch.others.get(row.id, ())}
    known.name({name: key for name, key in names.items() if key in answered})


def _by_other_names(
    events: Sequence[PlacedEvent], others: Mapping[str, tuple[str, ...]], known: Recogniser
) -> Sequence[PlacedEvent]:
    """Let feedback on answers that are not stored be about their other names."""
    unknown = known.not_stored({event.event.interaction_id for event in events} & others.keys())
    if not unknown:
        return events
    lost = known.not_stored({name for key in unknown for name in others[key]})
    best = {
        key: next((name for name in others[key] if name not in lost), others[key][-1])
        for key in unknown
    }
    return [
        event._replace(event=event.event._replace(interaction_id=best[event.event.interaction_id]))
        if event.event.interaction_id in best
        else event
        for event in events
    ]


def _add_feedback(
    feedback: Sequence[PlacedEvent],
    store: EventSink,
    progress: _Progress,
    answered: Mapping[str, int],
) -> None:
    for opinions in _without_repeated_ids(feedback):
        added = store.add_feedback_rows([event.event for event in opinions])
        progress.feedback += added.new
        _account(added, opinions, progress)
    progress.times.take([event.event for event in feedback], answered)


def _new(events: Sequence[PlacedEvent], progress: _Progress) -> Sequence[PlacedEvent]:
    """Return the interactions that are not known under other ids, and count the others."""
    if progress.known is None:
        return events
    found = progress.known.interactions([event.event for event in events])
    progress.recognised += len(found.same)
    progress.repeated += len(found.repeated)
    for place in sorted(found.conflicting):
        progress.keep(_conflict(events[place], progress))
    return [event for place, event in enumerate(events) if not found.knows(place)]


def _unsaid(events: Sequence[PlacedEvent], progress: _Progress) -> list[PlacedEvent]:
    """Return feedback on other ids that stored feedback does not say, and count the rest."""
    assert progress.known is not None
    left = progress.known.without_stored([event.event for event in events])
    new = {id(row) for row in left}
    progress.recognised += len(events) - len(left)
    return [event for event in events if id(event.event) in new]


def _arrived(
    events: Sequence[PlacedEvent], store: EventSink, progress: _Progress
) -> Sequence[PlacedEvent]:
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


def _without_repeated_ids(events: Sequence[PlacedEvent]) -> Sequence[Sequence[PlacedEvent]]:
    """Split events so that no list holds an id twice: then a conflict names exactly one row."""
    if len({event.event.id for event in events}) == len(events):
        return [events] if events else []
    seen: Counter[str] = Counter()
    parts: list[list[PlacedEvent]] = []
    for event in events:
        key = event.event.id
        if seen[key] == len(parts):
            parts.append([])
        parts[seen[key]].append(event)
        seen[key] += 1
    return parts


def _account(added: Added, events: Sequence[PlacedEvent], progress: _Progress) -> None:
    progress.repeated += added.repeated
    progress.forgotten += added.forgotten
    by_id = {event.event.id: event for event in events} if added.conflicts else {}
    for key in added.conflicts:
        progress.keep(_conflict(by_id[key], progress))


def _conflict(event: PlacedEvent, progress: _Progress) -> SetAside:
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
