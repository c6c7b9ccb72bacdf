"""One reader of rows: CSV, JSON Lines, JSON and Parquet, packed with gzip or not.

    with read_rows(path, needs=(("text", "message"), ("failed",))) as rows:
        for row in rows:
            fields = row.read()  # raises InvalidInputError where the row cannot be used

Every file of rows that a person hands over is read here, by one set of rules:

- CSV is separated by comma, semicolon, tab or bar, whichever fits the header best, or as its line
  `sep=` says. Names of columns are known in any case. Two columns of one name are refused.
- JSON is an object a line, an array of objects, or an object over many lines. An object that holds
  a key twice cannot be used.
- A text is UTF-8, UTF-16 or UTF-32, with a byte order mark or without.
- Blank lines, in CSV also lines without anything in a cell, are no rows and keep the line numbers.
- A row has its place: the line of the file in a text, the number of the row in Parquet.
- A row that cannot be used is told with its reason and what was received, and the others go on. A
  file that cannot be used is one error.

CSV, JSON Lines and Parquet are read row by row; an array is read whole. pyarrow reads CSV and JSON
faster, but neither sets a single row aside nor knows its line. Python's csv module has a limit that
is one for the process, and loses what follows a quote that is never closed (see `csv_rows`).
"""

from __future__ import annotations

import difflib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from ratchet.errors import InvalidInputError
from ratchet.files.csv_rows import DELIMITERS, CsvText
from ratchet.files.json_rows import json_lines
from ratchet.files.json_rows import parse_json as parse_json
from ratchet.files.opening import ARROW, PARQUET, SAMPLE, OpenFile, open_file, readable
from ratchet.files.text import printable, printable_path

LONGEST_ROW = 16_000_000
RECEIVED = 200
SHOWN = 50
BATCH = 1_000
Kind = Literal["csv", "json", "parquet"]
Needs = Sequence[Sequence[str]]
_SUFFIXES: Mapping[str, Kind] = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv",
    ".jsonl": "json", ".ndjson": "json", ".json": "json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SetAsideRow:
    """A row that cannot be used.

    Attributes:
        place: Its line in a text, its number in Parquet, from 1.
        position: The same in words: "line 3", "line 1, item 3" in an array, "row 3" in Parquet.
        reason: The rule, what was received, the way out.
        received: The row as it came, on one line, shortened.
    """

    place: int
    position: str
    reason: str
    received: str


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        number: Among all rows, from 1.
        place: See `SetAsideRow`.
        position: See `SetAsideRow`.
        lines: How many lines it spans.
        fields: What it holds, by name; what cannot be told apart holds nothing.
        raw: Its text; None in Parquet.
        problem: Why it cannot be used; None where it can.
        kind: Of the file.
    """

    number: int
    place: int
    position: str
    lines: int
    fields: Mapping[str, Any]
    raw: str | None
    problem: str | None
    kind: Kind

    def read(self) -> Mapping[str, Any]:
        """Return what the row holds.

        Raises:
            InvalidInputError: It cannot be used.
        """
        if self.problem is not None:
            raise InvalidInputError(self.problem)
        return self.fields

    def given(self, *, as_json: Sequence[str] = ()) -> dict[str, Any]:
        """Return what the row holds, without a table's empty cells: there all rows have all names.

        Args:
            as_json: Names of what may be JSON text, as in a table, whose cells are single values.

        Raises:
            InvalidInputError: It cannot be used, or a text that must be JSON is none.
        """
        fields = dict(self.read())
        if self.kind != "json":
            empty = "" if self.kind == "csv" else None
            fields = {name: value for name, value in fields.items() if value != empty}
        for name in as_json:
            if isinstance(text := fields.get(name), str):
                try:
                    fields[name] = parse_json(text)
                except InvalidInputError as error:
                    raise InvalidInputError(
                        f"{name} must be JSON, got {printable(text)!r}: {error}"
                    ) from error
        return fields

    @property
    def received(self) -> str:
        """The row as it came, on one line, shortened."""
        return printable(repr(dict(self.fields)) if self.raw is None else self.raw, RECEIVED)

    def set_aside(self, reason: str) -> SetAsideRow:
        """Return the row as one that cannot be used."""
        return SetAsideRow(self.place, self.position, reason, self.received)


@dataclass(slots=True)
class Rows:
    """The rows of a file, read once.

    Attributes:
        kind: What the file is.
        columns: The names of a table's columns; None in JSON, where each row has its own.
        read: How many rows have been read.
    """

    path: Path
    kind: Kind
    columns: tuple[str, ...] | None
    _rows: Iterator[Row]
    read: int = 0

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that are left."""
        with readable(self.path):  # what fails where a row is used is not of the file
            for row in self._rows:
                self.read += 1
                yield row


@contextmanager
def read_rows(
    path: Path,
    *,
    needs: Needs = (),
    names: Sequence[str] = (),
    longest: int = LONGEST_ROW,
    finite: bool = False,
    may_be_empty: bool = False,
) -> Iterator[Rows]:
    """Open a file of rows.

    A name that ends in .csv, .tsv, .jsonl, .ndjson or .json (and then .gz) says what a text is;
    under another name one that begins with a brace or bracket is JSON, any other CSV.

    Args:
        path: The file; it may be a pipe.
        needs: Columns that a table must have, each with its other names.
        names: Further names of columns that are known in any case.
        longest: Bytes of a row, in CSV characters; a longer one is set aside.
        finite: Whether a JSON row with NaN or Infinity is set aside.
        may_be_empty: Whether a file without any row is one of no rows.

    Raises:
        InvalidInputError: The file is not there, a folder, empty, damaged, binary, in an unknown
            encoding, a table without a needed column or with two columns of one name.
    """
    known = {name.casefold(): name for name in (*names, *(n for each in needs for n in each))}
    with open_file(path) as file:
        if not file.sample.strip():
            if not may_be_empty:
                raise _empty(path, needs)
            yield Rows(path, "json", None, iter(()))
        elif file.encoding is not None and kind_of(file) == "json":
            yield Rows(path, "json", None, _json(file, longest, finite))
        else:
            with readable(path):
                is_text = file.encoding is not None
                table = (
                    _csv(file, needs, known, longest) if is_text else _parquet(file, needs, known)
                )
            yield table


def rows_of_lines(
    path: Path, content: bytes, *, after: int, longest: int = LONGEST_ROW
) -> Iterator[Row]:
    """Yield the rows of a part of a file of JSON Lines.

    Args:
        path: The file.
        content: Whole lines of it, in UTF-8.
        after: How many lines come before them.
        longest: See `read_rows`.
    """
    file = OpenFile(path, io.BytesIO(content), "utf-8", content[:SAMPLE])
    for row in _json(file, longest, finite=True):
        place = row.place + after
        yield row._replace(number=row.number + after, place=place, position=f"line {place}")


def kind_of(file: OpenFile) -> Kind:
    """Return what a text is, by its name, else by its first character."""
    suffixes = [
        suffix.lower() for suffix in file.path.suffixes if suffix.lower() not in (".gz", ".zst")
    ]
    named = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    first = file.sample.translate(None, b"\x00\xff\xfe\xef\xbb\xbf").lstrip()[:1]
    return named or ("json" if first in (b"{", b"[") else "csv")


def column_names(
    path: Path, header: Sequence[str], needs: Needs, known: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the names of a table's columns: without space around, known ones as they are known.

    Raises:
        InvalidInputError: Two columns have one name, or a needed one is missing.
    """
    stripped = [cell.strip() for cell in header]
    names = tuple(known.get(name.casefold(), name) for name in stripped)
    twice = [name for name, times in Counter(filter(None, names)).items() if times > 1]
    if twice:
        each = [
            f"{printable(stripped[index], 40)!r} as column {index + 1}"
            for index, name in enumerate(names)
            if name == twice[0]
        ]
        raise InvalidInputError(
            f"each column must be there once, got {_listed(each)} of {printable(path.name)}; "
            "rename or remove all but one"
        )
    refuse_missing(path, names, needs)
    return names


def refuse_missing(path: Path, names: Sequence[str], needs: Needs) -> None:
    """Refuse a table in which a needed column is missing; name what there is, and the nearest.

    Raises:
        InvalidInputError: It is.
    """
    missing = [each for each in needs if not set(each) & set(names)]
    if not missing:
        return
    wanted = [each[0] + (f" (or {', '.join(each[1:])})" if each[1:] else "") for each in needs]
    shown = ", ".join(repr(printable(name, 40)) for name in names[:20]) or "no columns"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    separators = ", ".join(DELIMITERS.values())
    way_out = " and ".join(_nearest([each[0] for each in missing], names))
    way_out = way_out or f"name it in the first line, separated by {separators}"
    raise InvalidInputError(
        f"{printable(path.name)} must have the columns {_listed(wanted)}, got none named "
        f"{_listed([each[0] for each in missing])} among {shown}{more}; {way_out}"
    )


def _nearest(missing: Sequence[str], names: Sequence[str]) -> list[str]:
    folded = {name.casefold(): name for name in names[:1_000]}
    return [
        f"rename {printable(folded[like[0]], 40)!r} to {name}"
        for name in missing
        if (like := difflib.get_close_matches(name, folded, 1))
    ]


def needed_fields(fields: Mapping[str, Any], needs: Needs) -> None:
    """Refuse a row that lacks a needed field. JSON has no header, so each row is asked.

    Raises:
        InvalidInputError: It lacks one.
    """
    missing = [each for each in needs if not any(name in fields for name in each)]
    if missing:
        names = printable(", ".join(map(str, fields)), 60) or "none"
        near = _nearest([each[0] for each in missing], [*fields])
        raise InvalidInputError(
            f"a row must hold {_listed([' or '.join(each) for each in missing])}, got {names}; "
            f"{' and '.join(near) or 'add what is missing'}"
        )


def no_usable_row(
    path: Path, holds: str, set_aside: Sequence[SetAsideRow], read: int
) -> InvalidInputError:
    """Return the error for a file of which no row can be used; it names the first reason."""
    first = f"; {set_aside[0].position}: {set_aside[0].reason}" if set_aside else ""
    got = f"{read:,} rows of which none can be used{first}" if read else "no row; add rows"
    return InvalidInputError(f"{printable(path.name)} must hold {holds}, got {got}")


class Placed(Protocol):
    """A row that was set aside, stored or not."""

    @property
    def position(self) -> str:
        """Where it is in its file."""
        ...

    @property
    def reason(self) -> str:
        """Why it cannot be used."""
        ...


def set_aside_lines(rows: Sequence[Placed], *, shown: int = SHOWN) -> list[str]:
    """Return a line for each row that was set aside, and how many more there are."""
    lines = [f"set aside, {row.position}: {row.reason}" for row in rows[:shown]]
    more = len(rows) - shown
    return [*lines, f"and {more:,} more rows set aside"] if more > 0 else lines


def _csv(file: OpenFile, needs: Needs, known: Mapping[str, str], longest: int) -> Rows:
    text = CsvText(file.text(), longest)
    header = text.header(frozenset(known))
    if header is None:
        raise _empty(file.path, needs)
    names = column_names(file.path, header.cells, needs, known)
    return Rows(file.path, "csv", names, _csv_rows(text, names))


def _csv_rows(text: CsvText, names: Sequence[str]) -> Iterator[Row]:
    width = len(names)
    for number, record in enumerate(text.records(), start=1):
        problem = record.problem or _unsound(record.raw, in_cells=True)
        if problem is None and len(record.cells) != width:
            received = len(record.cells)
            way_out = "quote cells that hold the separator" if received > width else "fill the row"
            problem = f"a row must have {width} cells as the header has, got {received}; {way_out}"
        fields = {} if problem else dict(zip(names, record.cells, strict=True))
        position = f"line {record.line}"
        yield Row(number, record.line, position, record.lines, fields, record.raw, problem, "csv")


def _json(file: OpenFile, longest: int, finite: bool) -> Iterator[Row]:
    lines = json_lines(file.text(), longest, finite=finite)
    for number, (place, value, raw, why, item) in enumerate(lines, start=1):
        problem = why if raw.isascii() else _unsound(raw) or why
        if problem is None and not isinstance(value, dict):
            shown = printable(raw)
            problem = f"a row must be a JSON object, got {shown!r}; write one object a row"
        position = f"line {place}, item {item}" if item else f"line {place}"
        fields = {} if problem else value
        yield Row(number, place, position, 1, fields, raw, problem, "json")


def _parquet(file: OpenFile, needs: Needs, known: Mapping[str, str]) -> Rows:
    import pyarrow as pa

    try:
        schema, batches = _batches(file)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file.path, error) from error
    names = column_names(file.path, schema, needs, known)

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in batches:
                columns = [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    fields = dict(zip(names, values, strict=True))
                    yield Row(number, number, f"row {number}", 1, fields, None, None, "parquet")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damaged(file.path, error) from error

    return Rows(file.path, "parquet", names, rows())


def _batches(file: OpenFile) -> tuple[Sequence[str], Iterator[Any]]:
    """Return the names of the columns of a file of Parquet or Arrow, and its rows in batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    seekable = file.content.seekable()
    source = file.content if seekable else pa.BufferReader(file.content.read())
    if file.sample.startswith(PARQUET):
        table = pq.ParquetFile(source)
        return table.schema_arrow.names, table.iter_batches(batch_size=BATCH)
    if file.sample.startswith(ARROW[0]):
        whole = pa.ipc.open_file(source)
        return whole.schema.names, map(whole.get_batch, range(whole.num_record_batches))
    stream = pa.ipc.open_stream(source)
    return stream.schema.names, iter(stream)


def _unsound(raw: str, *, in_cells: bool = False) -> str | None:
    """Say why a text cannot be stored; None where it can."""
    if raw.isascii():
        return _nul(raw) if in_cells else None
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        code = ord(raw[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return (
                f"a row must be UTF-8, got the byte 0x{code - 0xDC00:02X}; save the file as UTF-8"
            )
        return f"a row must be valid Unicode, got half of a pair, {code:#06x}; save it as UTF-8"
    return _nul(raw) if in_cells else None


def _nul(raw: str) -> str | None:
    return "a row must not hold NUL characters, got one; remove it" if "\x00" in raw else None


def _empty(path: Path, needs: Needs) -> InvalidInputError:
    names = _listed([each[0] for each in needs])
    holds = f" with {names}" if names else ""
    return InvalidInputError(
        f"{printable(path.name)} must hold rows{holds}, got none: the file is empty; add rows"
    )


def _damaged(path: Path, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"a file of Parquet or Arrow must be whole, got {printable_path(path)!r} "
        f"({printable(str(error))}); write it again"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
