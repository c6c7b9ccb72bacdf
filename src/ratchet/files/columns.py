"""Whole columns of a large CSV file, read by pyarrow where it reads what `rows` reads.

pyarrow reads ten times as fast as `rows`, but takes a quote that is never closed for one that ends
somewhere, and knows no lines. So its result counts only where the text is well-formed; else there
is no result here, and `rows` reads the file, names the lines and says what is wrong.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ratchet.files.csv_rows import LIKE_ROWS, CsvText
from ratchet.files.opening import open_file, readable
from ratchet.files.rows import Needs, column_names, kind_of

if TYPE_CHECKING:
    import pyarrow as pa

_LONGEST_HEADER = 1_000_000
_QUOTE, _LINE_ENDS = ord('"'), (ord("\n"), ord("\r"))


def csv_columns(
    path: Path, *, needs: Needs, names: Sequence[str] = ()
) -> Mapping[str, pa.Array] | None:
    """Return the known columns of a CSV file as texts, or None where `rows` has to read it.

    Args:
        path: The file.
        needs: Columns that it must have, each with its other names.
        names: Further columns to return where they are there.

    Raises:
        InvalidInputError: It cannot be opened, lacks a column, or has two of one name.
    """
    if not path.is_file():
        return None  # a pipe, which can be read once
    known = {name.casefold(): name for name in (*names, *(n for each in needs for n in each))}
    with open_file(path) as file:
        plain = file.encoding in ("utf-8", "utf-8-sig") and file.sample.strip()
        if not plain or kind_of(file) != "csv":
            return None
        with readable(path):
            content = file.content.read().removeprefix(b"\xef\xbb\xbf")
    start = content[:_LONGEST_HEADER].decode("utf-8", "surrogateescape")
    text = CsvText(io.StringIO(start, newline=""), _LONGEST_HEADER)
    header = text.header(frozenset(known))
    if header is None or header.lines > 1:
        return None
    columns = column_names(path, header.cells, needs, known)
    shape = _shape(content, text.delimiter, text.width)
    if shape is None:
        return None
    return _columns(content, columns, [*known.values()], header.line, text.delimiter, shape)


def _columns(
    content: bytes,
    columns: Sequence[str],
    wanted: Sequence[str],
    skipped: int,
    delimiter: str,
    shape: _Shape,
) -> Mapping[str, pa.Array] | None:
    import pyarrow as pa
    from pyarrow import csv

    if shape.records <= skipped:
        return None
    known = [name for name in columns if name in wanted]
    # columns without a name may be there more than once, and pyarrow wants each name once
    unique = [name or f"\x00{place}" for place, name in enumerate(columns)]
    try:
        table = csv.read_csv(
            pa.BufferReader(content),
            read_options=csv.ReadOptions(column_names=unique, skip_rows=skipped),
            parse_options=csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=shape.spans_lines
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(known, pa.string()),
                include_columns=known,
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != shape.records - skipped:
        return None  # blank lines, which `rows` counts
    return {name: table[name].combine_chunks() for name in known}


@dataclass(frozen=True, slots=True)
class _Shape:
    """How many records a well-formed CSV text has, and whether one spans lines."""

    records: int
    spans_lines: bool


def _shape(content: bytes, delimiter: str, width: int) -> _Shape | None:
    """Return the shape of a text that every reader of CSV reads alike; None of any other.

    Quotes open and close in turn, so an opening one follows a border, or the closing one of a
    doubled quote, and a closing one comes before the same. Lines end in one way, there is no NUL,
    and no quoted text looks as if it had swallowed rows.
    """
    if content.count(b"\r") != content.count(b"\r\n") or b"\x00" in content:
        return None
    characters = np.frombuffer(b"\n" + content + b"\n", dtype=np.uint8)
    quotes, ends, delimiters = (
        np.flatnonzero(characters == code) for code in (_QUOTE, _LINE_ENDS[0], ord(delimiter))
    )
    borders = [ord(delimiter), _QUOTE, *_LINE_ENDS]
    opened, closed = characters[quotes[0::2] - 1], characters[quotes[1::2] + 1]
    if quotes.size % 2 or not (np.isin(opened, borders).all() and np.isin(closed, borders).all()):
        return None
    before = np.searchsorted(quotes, ends)
    borders_of_records = np.flatnonzero(before % 2 == 0)
    per_line = np.diff(np.searchsorted(delimiters, ends))
    like_rows = (per_line == width - 1) & (np.diff(before) == 0)
    first, behind = borders_of_records[:-1] + 1, borders_of_records[1:] - 1
    inner = behind - first  # lines between the first and the last of a record
    total = np.concatenate([[0], np.cumsum(like_rows)])
    alike = total[np.maximum(behind, first)] - total[first] == inner
    if ((inner > 0) & alike & (inner * (width - 1) >= LIKE_ROWS)).any():
        return None
    return _Shape(int(first.size) - content.endswith(b"\n"), bool((before % 2).any()))
