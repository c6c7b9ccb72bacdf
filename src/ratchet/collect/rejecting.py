"""The reason with which a bad row is set aside, and the part of the row that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from ratchet.files.rows import Row
from ratchet.files.text import printable
from ratchet.records import FEEDBACK_KINDS, Record
from ratchet.store.naming import named_in, names_of

RAW_CHARACTERS = 200
"""So much of a row is kept."""


def explain(error: ValidationError) -> str:
    """Turn pydantic's report into one line: the field, the rule, the value received."""
    errors = error.errors(include_url=False)
    first = errors[0]
    parts = [str(part) for part in first["loc"] if part not in FEEDBACK_KINDS]
    where = printable(".".join(parts)) or "row"
    rule = first["msg"].removeprefix("Value error, ")
    value = "nothing" if first["type"] == "missing" else value_in_words(first["input"])
    received = "" if ", got " in rule else f", got {value}; {_way_out(first['type'])}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {printable(rule, 400)}{received}{more}"


def _way_out(kind: str) -> str:
    if kind == "missing":
        return "add the field"
    return "leave the field out" if kind == "extra_forbidden" else "correct the value"


def value_in_words(value: object, limit: int = 80) -> str:
    """Return a value as an error shows it."""
    try:
        return printable(repr(value), limit)
    except Exception:  # a row's own __repr__ may raise anything
        return type(value).__name__


def whose(row: object) -> dict[str, str | None]:
    """Return the user and the interaction that a row names, though what is kept of it is cut."""
    fields = row.fields if isinstance(row, Row) else row
    if isinstance(fields, Record):
        fields = dict(fields)
    names = names_of(fields) if isinstance(fields, Mapping) else {}
    if any(names.values()):
        return names
    text = row.raw if isinstance(row, Row) else row
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return named_in(text) if isinstance(text, str) else names


def raw_text(row: object) -> str:
    """Return what is kept of a row."""
    if isinstance(row, Row):
        return row.received
    if isinstance(row, bytes):
        return printable(row.decode("utf-8", "surrogateescape").rstrip("\r\n"), RAW_CHARACTERS)
    if isinstance(row, str):
        return printable(row.rstrip("\r\n"), RAW_CHARACTERS)
    return value_in_words(row, RAW_CHARACTERS)


def length_of(rows: Sequence[tuple[str, object]]) -> int:
    """Return the total length of the rows' texts; rows that came as objects count as 0."""
    texts = (row.raw if isinstance(row, Row) else row for _, row in rows)
    return sum(len(text) for text in texts if isinstance(text, str | bytes))
