"""A file of texts that failed or not: read row by row, bad rows set aside with their reason."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import InvalidInputError

LONGEST_TEXT = 2_000_000
SHOWN = 60
_TRUE = {"true", "1", "yes", "y", "failed"}
_FALSE = {"false", "0", "no", "n", "ok"}


@dataclass(frozen=True, slots=True)
class FailureFile:
    """What a file holds.

    Attributes:
        texts: Of the rows that could be read.
        failed: Whether each failed.
        users: Who sent each, empty where not known; None where the file does not say.
        places: The place of each among all rows of the file, from 0.
        rows: All rows of the file, those set aside among them.
        set_aside: Place and reason of each row that broke a rule.
    """

    texts: tuple[str, ...]
    failed: tuple[bool, ...]
    users: tuple[str, ...] | None
    places: tuple[int, ...]
    rows: int
    set_aside: tuple[tuple[int, str], ...]


def read_failures(path: Path) -> FailureFile:
    """Read JSON Lines or CSV with `text`, `failed` and, where it is there, `user`.

    Args:
        path: Named .csv, or JSON Lines under any other name; in UTF-8.

    Raises:
        InvalidInputError: The file cannot be read, lacks a column or holds no row that can be used.
    """
    raw = _content(path)
    rows = _csv_rows(path, raw) if path.suffix.lower() == ".csv" else _json_rows(raw)
    texts, failed, users, places, aside = [], [], [], [], []
    place = -1
    for place, content in enumerate(rows):
        try:
            text, flag, user = _read(content)
        except ValueError as error:
            aside.append((place, str(error)))
            continue
        texts.append(text)
        failed.append(flag)
        users.append(user)
        places.append(place)
    if not texts:
        first = f"; row {aside[0][0]}: {aside[0][1]}" if aside else ""
        raise InvalidInputError(
            f"{path.name} must hold rows with text and failed, got {place + 1} rows of which none "
            f"can be used{first}"
        )
    named = tuple(user or "" for user in users) if any(users) else None
    return FailureFile(tuple(texts), tuple(failed), named, tuple(places), place + 1, tuple(aside))


def _content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"failures must be in a file that can be read, got {path.name!r}: {error.strerror}"
        ) from error
    if not raw.strip():
        raise InvalidInputError(f"{path.name} must hold rows with text and failed, got none")
    return raw.removeprefix(b"\xef\xbb\xbf")


def _json_rows(raw: bytes) -> Iterator[dict[str, Any] | str]:
    """Yield a mapping a line, or what is wrong with it."""
    for line in raw.split(b"\n"):
        if not line.strip():
            continue
        try:
            content = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield "the line must be UTF-8"
        except (ValueError, RecursionError):
            yield "the line must be JSON"
        else:
            yield content if isinstance(content, dict) else "the line must be a JSON object"


def _csv_rows(path: Path, raw: bytes) -> Iterator[dict[str, Any] | str]:
    # bad bytes become surrogates, so that one of them costs one row and not the file
    lines = io.StringIO(raw.decode("utf-8", "surrogateescape").replace("\0", "\ufffd"), newline="")
    csv.field_size_limit(LONGEST_TEXT)
    reader = csv.reader(lines, strict=False)
    header = [name.strip().casefold() for name in next(reader, [])]
    missing = [name for name in ("text", "failed") if name not in header]
    if missing:
        raise InvalidInputError(
            f"{path.name} must have the columns text and failed, got "
            f"{', '.join(header)[:200]!r}; name them in the first line"
        )
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"the row must be CSV: {error}"
            continue
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            yield f"the row must have {len(header)} cells, got {len(row)}"
            continue
        yield dict(zip(header, row, strict=True))


def _read(content: dict[str, Any] | str) -> tuple[str, bool, str]:
    if isinstance(content, str):
        raise ValueError(content)
    text, user = content.get("text"), content.get("user")
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {_told(text)}")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"text must have at most {LONGEST_TEXT:,} characters, got {len(text):,}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("text must be UTF-8")
    return text, _flag(content.get("failed")), "" if user is None else str(user)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold() if isinstance(value, str | int) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"failed must be true or false, got {_told(value)}")


def _told(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:SHOWN]
