"""A file of texts that failed or not: read row by row, bad rows set aside with their reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.clusters import FailureClusters, find_failure_clusters
from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row, SetAsideRow, needed_fields, no_usable_row, read_rows
from ratchet.files.text import printable

LONGEST_TEXT = 2_000_000
SHOWN = 60
NEEDS = (("text",), ("failed",))
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
        set_aside: The rows that broke a rule, each with its place among all rows, from 0.
    """

    texts: tuple[str, ...]
    failed: tuple[bool, ...]
    users: tuple[str, ...] | None
    places: tuple[int, ...]
    rows: int
    set_aside: tuple[tuple[int, SetAsideRow], ...]


def read_failures(path: Path) -> FailureFile:
    """Read rows with `text`, `failed` and, where it is there, `user`.

    Args:
        path: CSV, JSON Lines, JSON or Parquet (see `ratchet.files.rows`).

    Raises:
        InvalidInputError: The file cannot be read, lacks a column or holds no row that can be used.
    """
    texts, failed, users, row_numbers = [], [], [], []
    aside: list[tuple[int, SetAsideRow]] = []
    with read_rows(path, needs=NEEDS, names=("user",)) as rows:
        for row in rows:
            try:
                text, flag, user = _read(row)
            except InvalidInputError as error:
                aside.append((row.number - 1, row.set_aside(str(error))))
                continue
            texts.append(text)
            failed.append(flag)
            users.append(user)
            row_numbers.append(row.number - 1)
    if not texts:
        raise no_usable_row(path, "rows with text and failed", [row for _, row in aside], rows.read)
    named = tuple(users) if any(users) else None
    return FailureFile(
        tuple(texts), tuple(failed), named, tuple(row_numbers), rows.read, tuple(aside)
    )


def clusters_of(
    rows: FailureFile, embeddings: NDArray[np.floating] | None, *, seed: int
) -> FailureClusters:
    """Find the groups of a file's texts that fail more than the rest.

    Args:
        rows: The file's.
        embeddings: One vector a text, shape (texts, dimensions); None to compare words.
        seed: Of the random draws.
    """
    return find_failure_clusters(
        rows.texts,
        np.array(rows.failed, dtype=np.bool_),
        embeddings=embeddings,
        users=rows.users,
        rng=np.random.default_rng(seed),
    )


def _read(row: Row) -> tuple[str, bool, str]:
    fields = row.read()
    needed_fields(fields, NEEDS)
    text, user = fields["text"], fields.get("user")
    if not isinstance(text, str):
        raise InvalidInputError(f"text must be a string, got {_told(text)}; write it as one")
    if len(text) > LONGEST_TEXT:
        raise InvalidInputError(
            f"text must have at most {LONGEST_TEXT:,} characters, got {len(text):,}; shorten it"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInputError("text must be UTF-8, got half of a surrogate pair; remove it")
    return text, _flag(fields["failed"]), "" if user is None else str(user)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    whole = isinstance(value, float) and value.is_integer()
    word = str(int(value) if whole else value).strip().casefold()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidInputError(
        f"failed must be true or false, got {_told(value)}; write one of the two"
    )


def _told(value: Any) -> str:
    return "nothing" if value is None else printable(repr(value), SHOWN)
