"""Read labelled messages and queue tables, row by row (see `ratchet.files.rows`).

A file that cannot be used at all is one `InvalidInputError`. A row that breaks a rule is set aside
with its row, its line and the reason, and the good rows go on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from ratchet.collect.sampling import normalise_text
from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row, needed_fields, no_usable_row, read_rows
from ratchet.files.text import counted, printable, printable_path
from ratchet.records import LabelledMessage, SetAside, derive_id

TEXT_COLUMNS = ("text", "message")
LABEL_COLUMNS = ("label", "category", "intent", "queue")
TARGET = "target"
MAX_LABEL_CHARACTERS = 200

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

    A table names a text column (`text` or `message`) and a label column (`label`, `category`,
    `intent`, `queue` or `target`), in any case and order, beside any others. JSON has the same
    names, `target` first; a target that is no text is written as JSON. White space around texts
    and labels is dropped.

    Args:
        path: The file: CSV, JSON Lines, JSON or Parquet.
        queues: Queue of each label (see `read_queues`); without it the labels are the queues.
        now: Time that the set-aside rows carry.
        max_characters: Longest text that is used.

    Raises:
        InvalidInputError: The file cannot be read, has no text or label column, or no usable row.
    """
    reader = _MessageReader(path.name, now, queues, max_characters)
    with read_rows(path, needs=(TEXT_COLUMNS, (*LABEL_COLUMNS, TARGET))) as rows:
        for row in rows:
            reader.take(row)
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
    queues: dict[str, str] = {}
    labels = LABEL_COLUMNS[:-1]
    with read_rows(path, needs=(labels, ("queue",))) as rows:
        for row in rows:
            try:
                fields = row.read()
                needed_fields(fields, (labels, ("queue",)))
                label, queue = (
                    _checked_label(str(_first(fields, names) or "").strip(), name)
                    for name, names in (("label", labels), ("queue", ("queue",)))
                )
                if queues.setdefault(label, queue) != queue:
                    raise InvalidInputError(
                        f"a label must have one queue, got {printable(queue)!r} after "
                        f"{printable(queues[label])!r} for {printable(label)!r}; keep one of the "
                        "two"
                    )
            except InvalidInputError as error:
                raise InvalidInputError(
                    f"{printable_path(path)}, {_position(row)}: {error}"
                ) from error
    if not queues:
        raise no_usable_row(path, "rows with label and queue", (), 0)
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
    labels = tuple(sorted({message.label for message in messages}))
    if len(labels) < 2:
        raise InvalidInputError(
            f"messages must have at least 2 distinct targets, got {len(labels)}; add messages"
        )
    return labels


@dataclass(slots=True)
class _MessageReader:
    """Sorts rows into messages, duplicates and set-aside rows."""

    source: str
    now: datetime
    queues: Mapping[str, str] | None
    max_characters: int
    messages: list[LabelledMessage] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    duplicates: int = 0
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def take(self, row: Row) -> None:
        try:
            text, raw_label = _text_and_label(row)
            _check_text(text, row, self.max_characters)
            is_answer = row.kind == "json" or TARGET in row.fields
            most = self.max_characters if is_answer else MAX_LABEL_CHARACTERS
            label = self._queue(_checked_label(raw_label, "label", most))
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

    def _is_new(self, text: str, label: str, row: Row) -> bool:
        first_label, first = self.seen.setdefault(normalise_text(text), (label, row.number))
        if first_label != label:
            raise InvalidInputError(
                f"a text must have one label, got {printable(label)!r} after "
                f"{printable(first_label)!r} in row {first}; correct one of the two"
            )
        return first == row.number

    def _reject(self, row: Row, reason: str) -> SetAside:
        return SetAside(
            id=derive_id(self.source, row.number, reason),
            created_at=self.now,
            source=printable(self.source, _RAW_CHARACTERS),
            position=_position(row),
            reason=reason,
            raw=row.received,
        )


def _text_and_label(row: Row) -> tuple[str, str]:
    """Return text and label, or target, without the white space around them."""
    fields = row.read()
    labels = (TARGET, *LABEL_COLUMNS) if row.kind == "json" else (*LABEL_COLUMNS, TARGET)
    needed_fields(fields, (TEXT_COLUMNS, labels))
    text, target = (_first(fields, names) for names in (TEXT_COLUMNS, labels))
    if not isinstance(text, str):
        raise InvalidInputError(f"a text must be a string, got {printable(repr(text))}; write one")
    if target is None:
        raise InvalidInputError("a label must not be empty, got null; fill it in")
    answer = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    if any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in text + answer):
        raise InvalidInputError(
            "a row must not hold NUL or half of a surrogate pair, got one; remove it"
        )
    return text.strip(), answer.strip()


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next(fields[name] for name in names if name in fields)


def _position(row: Row) -> str:
    return row.position if row.kind == "parquet" else f"row {row.number}, {row.position}"


def _check_text(text: str, row: Row, max_characters: int) -> None:
    if _is_empty(text):
        raise InvalidInputError("a text must not be empty, got no visible character; fill it in")
    if len(text) > max_characters:
        hint = (
            f"; it spans {counted(row.lines, 'line')}: {_UNCLOSED}"
            if row.lines >= _MANY_LINES
            else ""
        )
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
    if not set_aside:
        raise no_usable_row(path, "messages with text and label below its header", (), 0)
    reason, times = Counter(row.reason for row in set_aside).most_common(1)[0]
    raise InvalidInputError(
        "a file of messages must have at least one usable row, got "
        f"{counted(len(set_aside), 'row')} in "
        f"{printable_path(path)!r} that were all set aside, {times:,} of them because: {reason}"
    )
