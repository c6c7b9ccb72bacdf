"""Read labelled messages and queue tables from CSV files, and messages from JSON Lines.

A file that cannot be used at all is one `InvalidInputError`. A row that breaks a rule is set aside
with its row, its line and the reason, and the good rows go on. A quote that is opened and never
closed costs its own line, not the rows after it.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from ratchet.collect.sampling import normalise_text
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable, printable_path, unreadable
from ratchet.records import LabelledMessage, SetAside, derive_id

TEXT_COLUMNS = ("text", "message")
LABEL_COLUMNS = ("label", "category", "intent", "queue")
TARGET_COLUMNS = ("target", *LABEL_COLUMNS)  # of JSON Lines
LINES_SUFFIXES = (".jsonl", ".ndjson")
MAX_LABEL_CHARACTERS = 200

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_RAW_CHARACTERS = 200
_MANY_LINES = 5
_UNCLOSED = 'is a double quote (") left open? Inside a quoted text a quote is written twice'


@dataclass(frozen=True, slots=True)
class MessageFile:
    """What a file of labelled messages held.

    Attributes:
        messages: The usable messages in the order of the file, no text twice.
        set_aside: The rows that broke a rule.
        duplicates: Rows dropped because an earlier row says the same.
    """

    messages: tuple[LabelledMessage, ...]
    set_aside: tuple[SetAside, ...]
    duplicates: int


def read_messages(
    path: Path,
    *,
    queues: Mapping[str, str] | None = None,
    now: datetime,
    max_characters: int = 4_000,
) -> MessageFile:
    """Read a file of messages with their labels, or with whatever answer is right.

    A file that ends in `.jsonl` or `.ndjson` holds a JSON object a line, with `text` and `target`
    (or the names below); a target that is no text is written as JSON. Any other file is CSV. The
    header names a text column (`text` or `message`) and a label column (`label`, `category`,
    `intent` or `queue`), in any case and order, beside any others. The file is UTF-8 with or
    without a byte order mark; cells are separated by commas, semicolons or tabs. White space
    around texts and labels is dropped.

    Args:
        path: The file.
        queues: Queue of each label (see `read_queues`); without it the labels are the queues.
        now: Time that the set-aside rows carry.
        max_characters: Longest text that is used.

    Raises:
        InvalidInputError: The file cannot be read, has no text or label column, or no usable row.
    """
    if path.suffix.casefold() in LINES_SUFFIXES:
        table = _read_lines(path)
        reader = _MessageReader(path.name, now, queues, max_characters, max_characters)
    else:
        table = _read_table(path, {"text": TEXT_COLUMNS, "label": LABEL_COLUMNS})
        reader = _MessageReader(path.name, now, queues, max_characters)
    for row in table.rows:
        reader.take(row, table)
    result = reader.result()
    if not result.messages:
        _refuse_without_messages(path, result.set_aside)
    return result


def read_queues(path: Path) -> dict[str, str]:
    """Read a CSV file with columns `label` and `queue`: the queue that each label belongs to.

    Raises:
        InvalidInputError: The file cannot be read, a column is missing, or a row breaks a rule;
            nothing is set aside here, because a queue table is small and meant to be complete.
    """
    table = _read_table(path, {"label": LABEL_COLUMNS[:-1], "queue": ("queue",)})
    queues: dict[str, str] = {}
    for row in table.rows:
        try:
            label, queue = (
                _checked_label(cell, name)
                for name, cell in zip(("label", "queue"), table.cells(row), strict=True)
            )
            if queues.setdefault(label, queue) != queue:
                raise InvalidInputError(
                    f"a label must have one queue, got {printable(queue)!r} after "
                    f"{printable(queues[label])!r} for {printable(label)!r}; keep one of the two"
                )
        except InvalidInputError as error:
            raise InvalidInputError(f"{printable_path(path)}, {row.position}: {error}") from error
    return queues


def check_labels(messages: Sequence[LabelledMessage], *, most: int = 16) -> tuple[str, ...]:
    """Return the distinct labels in order, when a model can be asked to choose among them.

    Raises:
        InvalidInputError: There are fewer than two labels, or more than `most`.
    """
    labels = sorted({message.label for message in messages})
    if 2 <= len(labels) <= most:
        return tuple(labels)
    shown = ", ".join(repr(printable(label)) for label in labels[:5])
    more = ", ..." if len(labels) > 5 else ""
    raise InvalidInputError(
        f"messages must have between 2 and {most} distinct labels, got {len(labels)}: "
        f"{shown or 'none'}{more}; pass `--queues FILE`, a CSV file with columns label,queue that "
        f"sorts the labels into 2 to {most} queues"
    )


def targets(messages: Sequence[LabelledMessage]) -> tuple[str, ...]:
    """Return the distinct right answers in order.

    Raises:
        InvalidInputError: There are fewer than two.
    """
    found = tuple(sorted({message.label for message in messages}))
    if len(found) < 2:
        raise InvalidInputError(
            f"messages must have at least 2 distinct targets, got {len(found)}; add messages"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    """One record of the file; `problem` says why its cells could not be told apart."""

    number: int
    line: int
    last_line: int
    cells: tuple[str, ...]
    raw: str
    problem: str | None = None

    @property
    def position(self) -> str:
        return f"row {self.number}, line {self.line}"


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows below a header; `columns` are the indices of the cells that are asked for."""

    header: tuple[str, ...]
    columns: tuple[int, ...]
    rows: tuple[_Row, ...]

    def cells(self, row: _Row) -> tuple[str, ...]:
        """Return the cells that are asked for, without the white space around them.

        Raises:
            InvalidInputError: The row cannot be decoded or has not as many cells as the header.
        """
        _check_encoding(row.raw)
        if row.problem is not None:
            raise InvalidInputError(row.problem)
        expected, received = len(self.header), len(row.cells)
        if received != expected:
            way_out = (
                "quote cells that hold the separator" if received > expected else "fill the row"
            )
            raise InvalidInputError(
                f"a row must have {expected} cells as the header has, got {received}; {way_out}"
            )
        return tuple(row.cells[column].strip() for column in self.columns)


@dataclass(slots=True)
class _MessageReader:
    """Sorts rows into messages, duplicates and set-aside rows."""

    source: str
    now: datetime
    queues: Mapping[str, str] | None
    max_characters: int
    max_label_characters: int = MAX_LABEL_CHARACTERS
    messages: list[LabelledMessage] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    duplicates: int = 0
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def take(self, row: _Row, table: _Table) -> None:
        try:
            text, raw_label = table.cells(row)
            _check_text(text, row, self.max_characters)
            label = self._queue(_checked_label(raw_label, "label", self.max_label_characters))
            if self._is_new(text, label, row):
                self.messages.append(LabelledMessage(text=text, label=label))
            else:
                self.duplicates += 1
        except InvalidInputError as error:
            self.set_aside.append(self._reject(row, str(error)))

    def result(self) -> MessageFile:
        return MessageFile(tuple(self.messages), tuple(self.set_aside), self.duplicates)

    def _queue(self, label: str) -> str:
        if self.queues is None:
            return label
        if label not in self.queues:
            raise InvalidInputError(
                f"a label must be in the queue table, got {printable(label)!r}; add a row for it"
            )
        return self.queues[label]

    def _is_new(self, text: str, label: str, row: _Row) -> bool:
        first_label, first = self.seen.setdefault(normalise_text(text), (label, row.number))
        if first_label != label:
            raise InvalidInputError(
                f"a text must have one label, got {printable(label)!r} after "
                f"{printable(first_label)!r} in row {first}; correct one of the two"
            )
        return first == row.number

    def _reject(self, row: _Row, reason: str) -> SetAside:
        return SetAside(
            id=derive_id(self.source, row.number, reason),
            created_at=self.now,
            source=printable(self.source, _RAW_CHARACTERS),
            position=row.position,
            reason=reason,
            raw=printable(row.raw, _RAW_CHARACTERS),
        )


def _read_table(path: Path, wanted: Mapping[str, Sequence[str]]) -> _Table:
    text = _read_text(path)
    lines = list(io.StringIO(text, newline=""))
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise InvalidInputError(
            f"a CSV file must start with a header, got {printable_path(path)!r}, which is empty; "
            f"write {','.join(wanted)} on its first line"
        )
    delimiter, header, last = _read_header(lines, first, wanted)
    columns = _find_columns(path, header, wanted)
    with _field_limit(len(text)):
        rows = tuple(_rows(lines, last, delimiter))
    if not rows:
        raise InvalidInputError(
            f"a CSV file must have at least one row below its header, got "
            f"{printable_path(path)!r} with the header alone; add rows"
        )
    return _Table(header, columns, rows)


def _read_lines(path: Path) -> _Table:
    numbered = enumerate(_read_text(path).split("\n"), start=1)
    filled = [(place, line) for place, line in numbered if line.strip()]
    rows = tuple(
        _parse_line(line, number, place) for number, (place, line) in enumerate(filled, start=1)
    )
    if not rows:
        raise InvalidInputError(
            f"a file of JSON Lines must hold an object a line, got {printable_path(path)!r}, which "
            'is empty; write {"text": ..., "target": ...} for each message'
        )
    return _Table(("text", "target"), (0, 1), rows)


def _parse_line(line: str, number: int, place: int) -> _Row:
    """Read one object; what is none is a row with its problem."""
    try:
        return _Row(number, place, place, _line_cells(line), line)
    except InvalidInputError as error:
        return _Row(number, place, place, (), line, str(error))


def _line_cells(line: str) -> tuple[str, str]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"a line must be a JSON object, got: {printable(str(error))}; correct the line"
        ) from error
    if not isinstance(found, dict):
        raise InvalidInputError(
            f"a line must be a JSON object, got {printable(line)!r}; write one with text"
        )
    text = next((found[name] for name in TEXT_COLUMNS if name in found), None)
    target = next((found[name] for name in TARGET_COLUMNS if name in found), None)
    if not isinstance(text, str) or target is None:
        raise InvalidInputError(
            f"a line must have a text and a target, got the names "
            f"{', '.join(repr(printable(name)) for name in list(found)[:20]) or 'none'}; add them"
        )
    said = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    if any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in text + said):
        raise InvalidInputError(
            "a line must not hold NUL or half of a surrogate pair, got one; remove it"
        )
    return text, said


def _read_text(path: Path) -> str:
    """Decode a file; bytes that are not UTF-8 become surrogates, to be found row by row."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInputError(
            f"a CSV file must be UTF-8, got {printable_path(path)!r} in UTF-16; save it as "
            "'CSV UTF-8'"
        )
    return content.decode("utf-8-sig", "surrogateescape")


def _read_header(
    lines: Sequence[str], first: int, wanted: Mapping[str, Sequence[str]]
) -> tuple[str, tuple[str, ...], int]:
    """Return the delimiter that fits best, the header's cells and the index after the header."""
    known = {alias for aliases in wanted.values() for alias in aliases}

    def fit(candidate: tuple[str, _Row]) -> tuple[int, int]:
        cells = candidate[1].cells
        return len({cell.strip().lower() for cell in cells} & known), len(cells)

    candidates = [
        (delimiter, _parse(lines, first, delimiter, number=0)) for delimiter in _DELIMITERS
    ]
    delimiter, row = max(candidates, key=fit)
    if row.problem is not None:
        raise InvalidInputError(f"the header in line {first + 1} is no CSV: {row.problem}")
    return delimiter, tuple(cell.strip().lower() for cell in row.cells), row.last_line


def _find_columns(
    path: Path, header: Sequence[str], wanted: Mapping[str, Sequence[str]]
) -> tuple[int, ...]:
    return tuple(_find_column(path, header, name, aliases) for name, aliases in wanted.items())


def _find_column(path: Path, header: Sequence[str], name: str, aliases: Sequence[str]) -> int:
    found = ", ".join(repr(printable(column)) for column in header[:20])
    alias = next((alias for alias in aliases if alias in header), None)
    if alias is None:
        others = f" (or {', '.join(aliases[1:])})" if aliases[1:] else ""
        raise InvalidInputError(
            f"a CSV file must have a column {name!r}{others} in its header, got the columns "
            f"{found} in {printable_path(path)!r}; name the column in the first line, separated "
            f"by {', '.join(_DELIMITERS.values())}"
        )
    if header.count(alias) > 1:
        raise InvalidInputError(
            f"a CSV file must have one column {alias!r}, got the columns {found} in "
            f"{printable_path(path)!r}; rename the others"
        )
    return header.index(alias)


@contextmanager
def _field_limit(characters: int) -> Iterator[None]:
    """Let the csv module read fields of this length; its limit is the process's."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, characters + 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(lines: Sequence[str], start: int, delimiter: str) -> Iterator[_Row]:
    number = 0
    while start < len(lines):
        if lines[start].strip():
            number += 1
            row = _parse(lines, start, delimiter, number)
            start = row.last_line
            yield row
        else:
            start += 1


def _parse(lines: Sequence[str], start: int, delimiter: str, number: int) -> _Row:
    """Read the record that starts at `lines[start]`; one that is no CSV is that line alone."""
    following = (lines[index] for index in range(start, len(lines)))
    reader = csv.reader(following, delimiter=delimiter, strict=True)
    try:
        cells = tuple(next(reader))
    except csv.Error as error:
        problem = f"a row must be CSV, got: {printable(str(error))}; {_UNCLOSED}"
        return _Row(number, start + 1, start + 1, (), lines[start], problem)
    end = start + reader.line_num
    return _Row(number, start + 1, end, cells, "".join(lines[start:end]))


def _check_encoding(raw: str) -> None:
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"a row must be UTF-8, got the byte 0x{ord(raw[error.start]) - 0xDC00:02X}; "
            "save the file as UTF-8"
        ) from error
    if "\x00" in raw:
        raise InvalidInputError("a row must not hold NUL characters, got one; remove it")


def _check_text(text: str, row: _Row, max_characters: int) -> None:
    if _is_empty(text):
        raise InvalidInputError("a text must not be empty, got no visible character; fill it in")
    if len(text) > max_characters:
        lines = row.last_line - row.line + 1
        hint = f"; it spans {lines:,} lines: {_UNCLOSED}" if lines >= _MANY_LINES else ""
        raise InvalidInputError(
            f"a text must have at most {max_characters:,} characters, got {len(text):,}; "
            f"shorten it{hint}"
        )


def _checked_label(label: str, name: str, most: int = MAX_LABEL_CHARACTERS) -> str:
    if _is_empty(label):
        raise InvalidInputError(f"a {name} must not be empty, got no visible character; fill it in")
    if len(label) > most or not label.isprintable():
        raise InvalidInputError(
            f"a {name} must be one line of at most {most:,} printable characters, "
            f"got {printable(label)!r}; shorten it"
        )
    return label


def _is_empty(text: str) -> bool:
    return not any(character.isprintable() and character != " " for character in text)


def _refuse_without_messages(path: Path, set_aside: Sequence[SetAside]) -> NoReturn:
    reason, times = Counter(row.reason for row in set_aside).most_common(1)[0]
    raise InvalidInputError(
        f"a file of messages must have at least one usable row, got {len(set_aside):,} rows in "
        f"{printable_path(path)!r} that were all set aside, {times:,} of them because: {reason}"
    )
