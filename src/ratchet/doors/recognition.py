"""Which format rows are of, as their first ones show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ratchet.doors.door import Door
from ratchet.doors.sources import SourceFile, opened
from ratchet.errors import InvalidInputError
from ratchet.files.rows import read_rows
from ratchet.files.text import printable
from ratchet.store.foreign_tables import rows_of_table

SAMPLED = 20
"""Number of first rows of a file by which its format is told."""


def first_rows(file: SourceFile) -> list[Mapping[str, Any]]:
    """Return the first rows of a file, or a table, that can be read.

    Raises:
        InvalidInputError: It cannot be read.
    """
    if file.is_table:
        return list(islice(rows_of_table(file.address), SAMPLED))
    with opened(file) as path, read_rows(path, may_be_empty=True) as rows:
        return [row.fields for row in islice(rows, SAMPLED) if row.problem is None]


def recognise(rows: Sequence[Mapping[str, Any]], doors: Sequence[Door], name: str) -> Door:
    """Return the door of most of some rows.

    Args:
        rows: The first rows of a source.
        doors: Those to choose from.
        name: The source, for the error.

    Raises:
        InvalidInputError: No door knows half of the rows, or two know as many.
    """
    known = {door.name: sum(map(door.recognises, rows)) for door in doors}
    most = max(known.values(), default=0)
    best = [door for door in doors if known[door.name] == most and 2 * most >= len(rows)]
    if rows and most and len(best) == 1:
        return best[0]
    names = ", ".join(door.name for door in doors)
    if not most or not best:
        keys = ", ".join(dict.fromkeys(key for row in rows for key in map(str, row)))
        raise InvalidInputError(
            f"a source must be of a format that is known, got {printable(name)!r} with "
            f"{printable(keys, 200) or 'no row'}; name its format by --as ({names}), or say which "
            "column holds what by --map"
        )
    raise InvalidInputError(
        f"a source must be of one format, got {printable(name)!r}, which may be "
        f"{' or '.join(door.name for door in best)}; name one of them by --as"
    )
