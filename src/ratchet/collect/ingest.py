"""Bring interactions and feedback to the store, row by row.

Rows come as records, mappings or JSON text. A bad row is set aside with its reason and the good
ones go on. Because every event carries its id, sending a stream again changes nothing. How values
may be written is in `ratchet.collect.values`, which times are believed in `ratchet.collect.times`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import ValidationError

from ratchet.collect.times import FUTURE, TimeNotes, arrived, check_time
from ratchet.collect.values import plain_values
from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row, parse_json, read_rows
from ratchet.files.text import printable
from ratchet.records import (
    FEEDBACK,
    FEEDBACK_KINDS,
    Feedback,
    Interaction,
    Record,
    SetAside,
    derive_id,
)

if TYPE_CHECKING:
    from ratchet.store import Added

CHUNK = 1_000
MAX_LINE_BYTES = 4_000_000
NEEDS = (("kind", "messages"),)
NAMES = (*Interaction.model_fields, "interaction_id", "kind", "value")

_RAW_CHARACTERS = 200
_REASONS_COUNTED = 1_000
_OTHER_REASONS = "other reasons"


class EventSink(Protocol):
    """What `ingest` needs of the store."""

    def add_interactions(self, interactions: Sequence[Interaction], /) -> Added:
        """Store interactions; one that is there already changes nothing."""
        ...

    def add_feedback(self, feedback: Sequence[Feedback], /) -> Added:
        """Store feedback; one that is there already changes nothing."""
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


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the rows; the four counts add up to all rows that are not blank.

    Attributes:
        interactions: Interactions stored.
        feedback: Feedback events stored.
        repeated: Events that were stored before with the same content.
        set_aside: Rows that broke a rule.
        reasons: The broken rules with their counts, most frequent first; what exceeds 1,000 rules
            is counted as "other reasons".
        examples: Of each of these rules the first row that broke it.
        noted: What is odd about stored feedback, with its count; see `ratchet.collect.times`.
    """

    interactions: int
    feedback: int
    repeated: int
    set_aside: int
    reasons: tuple[tuple[str, int], ...]
    examples: tuple[SetAside, ...] = field(default=(), compare=False)
    noted: tuple[tuple[str, int], ...] = ()

    def lines(self) -> list[str]:
        """Return a line for each reason: how often, the first row of it, what is wrong with it.

        The counts of these lines add up to the rows that were set aside. Then a line for each note.
        """
        first = {_rule(row.reason): row for row in self.examples}
        lines, left = [], self.set_aside
        for rule, count in self.reasons:
            if (row := first.get(rule)) is None:
                continue
            left -= count
            lines.append(f"{count:>8,} × {row.position}: {row.reason}")
        if left:
            lines.append(f"and {left:,} more rows set aside for other reasons")
        return lines + [f"{count:>8,} × noted: {note}" for note, count in self.noted]


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
) -> IngestReport:
    """Store rows that come with their positions in the source. See `ingest`.

    Raises:
        InvalidInputError: `chunk` is below 1.
    """
    if chunk < 1:
        raise InvalidInputError(f"chunk must be at least 1, got {chunk}; leave it at {CHUNK:,}")
    return _ingest(iter(rows), store, _Progress(source, now, TimeNotes(store.answered_at)), chunk)


def ingest_file(
    path: Path,
    store: EventSink,
    *,
    now: datetime,
    source: str | None = None,
    chunk: int = CHUNK,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> IngestReport:
    """Store the events of a file: CSV, JSON Lines, JSON or Parquet. See `ingest`.

    In a table an empty cell is a field that the row does not have, and `messages` and `metadata`
    are JSON.

    Args:
        path: The file; see `ratchet.files.rows`. Lines are read one by one.
        store: Where the events go.
        now: Time of arrival.
        source: Where the rows come from, by default the file's name.
        chunk: Rows that are stored together.
        max_line_bytes: A longer line is set aside unread.

    Raises:
        InvalidInputError: The file cannot be read, or `chunk` or `max_line_bytes` is below 1.
    """
    if min(chunk, max_line_bytes) < 1:
        raise InvalidInputError(
            f"chunk and max_line_bytes must be at least 1, got {chunk} and {max_line_bytes}; "
            f"leave them at {CHUNK:,} and {MAX_LINE_BYTES:,}"
        )
    opened = read_rows(
        path, needs=NEEDS, names=NAMES, longest=max_line_bytes, finite=True, may_be_empty=True
    )
    with opened as rows:
        placed = ((row.position, row) for row in rows)
        return ingest_placed(placed, store, source=source or path.name, now=now, chunk=chunk)


E = TypeVar("E", bound=Interaction | Feedback)


@dataclass(frozen=True, slots=True)
class _Event(Generic[E]):
    position: str
    record: E
    row: object


@dataclass(slots=True)
class _Progress:
    """Counts so far, and the rows of this chunk that are to be set aside."""

    source: str
    now: datetime
    times: TimeNotes
    interactions: int = 0
    feedback: int = 0
    repeated: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, SetAside] = field(default_factory=dict)
    pending: list[SetAside] = field(default_factory=list)

    def reject(self, position: str, row: object, reason: str) -> None:
        raw = _raw(row)
        rejected = SetAside(
            id=derive_id(printable(self.source, _RAW_CHARACTERS), position, reason, raw),
            created_at=self.now,
            source=printable(self.source, _RAW_CHARACTERS),
            position=position,
            reason=reason,
            raw=raw,
        )
        self.keep(rejected)

    def keep(self, rejected: SetAside) -> None:
        self.pending.append(rejected)
        self.rejected += 1
        rule = _rule(rejected.reason)
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
            noted=self.times.finish(),
        )


def _rule(reason: str) -> str:
    """The rule that a reason names, without what was received."""
    return reason.partition(", got ")[0]


def _ingest(
    rows: Iterator[tuple[str, object]], store: EventSink, progress: _Progress, chunk: int
) -> IngestReport:
    while batch := list(islice(rows, chunk)):
        interactions, feedback = _events(batch, progress)
        for questions in _without_repeated_ids(interactions):
            added = store.add_interactions([event.record for event in questions])
            progress.interactions += added.new
            _account(added, questions, progress)
        feedback = _arrived(feedback, store, progress)
        for opinions in _without_repeated_ids(feedback):
            added = store.add_feedback([event.record for event in opinions])
            progress.feedback += added.new
            _account(added, opinions, progress)
        progress.times.take([event.record for event in feedback])
        if progress.pending:
            store.set_aside(tuple(progress.pending))
            progress.pending.clear()
    return progress.report()


def _events(
    batch: Sequence[tuple[str, object]], progress: _Progress
) -> tuple[list[_Event[Interaction]], list[_Event[Feedback]]]:
    interactions: list[_Event[Interaction]] = []
    feedback: list[_Event[Feedback]] = []
    for position, row in batch:
        if isinstance(row, str | bytes) and not row.strip():
            continue
        if isinstance(row, SetAside):
            progress.keep(row)
            continue
        try:
            record = _parse(row)
            check_time(record, progress.now)
        except InvalidInputError as error:
            progress.reject(position, row, str(error))
            continue
        if isinstance(record, Interaction):
            interactions.append(_Event(position, record, row))
        else:
            feedback.append(_Event(position, record, row))
    return interactions, feedback


def _arrived(
    events: Sequence[_Event[Feedback]], store: EventSink, progress: _Progress
) -> list[_Event[Feedback]]:
    """Give feedback of the future the time at which it arrived first."""
    now = progress.now
    ahead = [event.record.id for event in events if event.record.created_at > now]
    stored = store.stored_feedback(ahead) if ahead else {}
    placed = []
    for event in events:
        record, was_ahead = arrived(event.record, now, stored)
        progress.times.counts[FUTURE] += was_ahead
        placed.append(_Event(event.position, record, event.row) if was_ahead else event)
    return placed


def _without_repeated_ids(events: Iterable[_Event[E]]) -> list[list[_Event[E]]]:
    """Split events so that no list holds an id twice: then a conflict names exactly one row."""
    seen: Counter[str] = Counter()
    parts: list[list[_Event[E]]] = []
    for event in events:
        key = event.record.id
        if seen[key] == len(parts):
            parts.append([])
        parts[seen[key]].append(event)
        seen[key] += 1
    return parts


def _account(added: Added, events: Iterable[_Event[E]], progress: _Progress) -> None:
    progress.repeated += added.repeated
    by_id = {event.record.id: event for event in events}
    for key in added.conflicts:
        reason = (
            "id: must not be sent again with different content, "
            f"got {printable(key)!r}; send the new content under a new id"
        )
        progress.reject(by_id[key].position, by_id[key].row, reason)


def _parse(row: object) -> Interaction | Feedback:
    """Return the event that a row holds.

    Raises:
        InvalidInputError: The row breaks a rule.
    """
    if isinstance(row, Row):
        value: object = row.given(as_json=["messages", "metadata"])
    else:
        value = parse_json(row, finite=True) if isinstance(row, str | bytes) else row
    if not isinstance(value, Mapping | Record):
        raise InvalidInputError(
            "a row must be a JSON object with `kind` (feedback) or `messages` (interaction), "
            f"got {_received(value)}; send one object per row"
        )
    try:
        return _validate(value)
    except ValidationError as error:
        raise InvalidInputError(_explain(error)) from error
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


def _explain(error: ValidationError) -> str:
    """Turn pydantic's report into one line: the field, the rule, the value received."""
    errors = error.errors(include_url=False)
    first = errors[0]
    parts = [str(part) for part in first["loc"] if part not in FEEDBACK_KINDS]
    where = printable(".".join(parts)) or "row"
    rule = first["msg"].removeprefix("Value error, ")
    value = "nothing" if first["type"] == "missing" else _received(first["input"])
    received = "" if ", got " in rule else f", got {value}; {_way_out(first['type'])}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {printable(rule, 400)}{received}{more}"


def _way_out(kind: str) -> str:
    if kind == "missing":
        return "add the field"
    return "leave the field out" if kind == "extra_forbidden" else "correct the value"


def _received(value: object, limit: int = 80) -> str:
    try:
        return printable(repr(value), limit)
    except Exception:  # a row's own __repr__ may raise anything
        return type(value).__name__


def _raw(row: object) -> str:
    if isinstance(row, Row):
        return row.received
    if isinstance(row, bytes):
        return printable(row.decode("utf-8", "surrogateescape").rstrip("\r\n"), _RAW_CHARACTERS)
    if isinstance(row, str):
        return printable(row.rstrip("\r\n"), _RAW_CHARACTERS)
    return _received(row, _RAW_CHARACTERS)
