"""Rows of a CSV text, record by record.

Python's csv module would do but for two things: how long a field may be is one setting of the whole
process, and a quote that is never closed takes every row behind it. Here a record is read line by
line; where its quote does not close, that line alone is set aside and the ones behind it are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
UNCLOSED = (
    'a row must be CSV, got a double quote (") that is never closed; close it, and write a quote '
    "inside a quoted cell twice"
)
_TRIES = 50
"""Times that a quote may be followed for the longest row in vain; from then on only shortly."""
_SHORTLY = 64_000
LIKE_ROWS = 8
"""Cells beside the first of lines that look like rows: so many in one quoted cell are no text."""


class Record(NamedTuple):
    """A record of a CSV text: its cells, or why they cannot be told apart.

    Attributes:
        line: The first line, from 1.
        lines: How many lines it spans.
        raw: The text as it stands in the file, without the last line end.
    """

    line: int
    lines: int
    cells: Sequence[str]
    raw: str
    problem: str | None = None


@dataclass(slots=True)
class CsvText:
    """Reads the records of a CSV text: call `header` first, then `records`.

    Args:
        text: Open text that keeps its line ends.
        longest: Characters that a record may have.
    """

    text: IO[str]
    longest: int
    delimiter: str = ","
    width: int = 0
    _line: int = 0
    _ahead: deque[str] = field(default_factory=deque)
    _vain: int = 0

    def header(self, known: frozenset[str]) -> Record | None:
        """Read the header with the delimiter that finds most known columns, then most columns.

        A first line `sep=;`, which spreadsheets write, names the delimiter. None where all lines
        are blank.

        Args:
            known: Names of columns, casefolded.

        Raises:
            InvalidInputError: A quote of the header is never closed.
        """
        candidates: Sequence[str] = tuple(DELIMITERS)
        first = self._first_line()
        if first.lower().startswith("sep=") and len(first.rstrip("\r\n")) <= len("sep=;"):
            named = first.rstrip("\r\n")[len("sep=") :]
            candidates = (named,) if named in DELIMITERS else candidates
            self._next()
            first = self._first_line()
        if not first:
            return None

        def fit(delimiter: str) -> tuple[int, int]:
            record = self._read(delimiter, peek=True)
            names = {cell.strip().casefold() for cell in record.cells}
            return len(names & known), len(record.cells)

        self.delimiter = max(candidates, key=fit)
        header = self._read(self.delimiter)
        if header.problem is not None:
            raise InvalidInputError(f"the header in line {header.line} is no CSV: {header.problem}")
        self.width = len(header.cells)
        return header

    def records(self) -> Iterator[Record]:
        """Yield the records below the header; lines without anything in a cell are none."""
        blank = f"{self.delimiter} \t\r\n"
        delimiter = self.delimiter
        while line := self._peek():
            if not line.strip(blank):
                self._next()
            elif '"' in line or len(line) > self.longest:
                record = self._read(delimiter)
                if record.problem or any(map(str.strip, record.cells)):
                    yield record
            else:
                self._next()
                raw = line.rstrip("\r\n")
                yield Record(self._line, 1, raw.split(delimiter), raw)

    def _first_line(self) -> str:
        while (line := self._peek()) and not line.strip():
            self._next()
        return line

    def _peek(self) -> str:
        """Return the next line, "" at the end; of one that is too long what is too long of it."""
        if not self._ahead and (line := self.text.readline(self.longest + 1)):
            self._ahead.append(line)
        return self._ahead[0] if self._ahead else ""

    def _next(self) -> str:
        line = self._peek()
        if line:
            self._ahead.popleft()
            self._line += 1
        return line

    def _read(self, delimiter: str, *, peek: bool = False) -> Record:
        """Read the record that begins at the next line; what is no CSV is that line alone."""
        number, start = self._line + 1, self._next()
        if len(start) > self.longest and not start.endswith(("\n", "\r")):
            return self._overlong(number, start)
        parser, taken, problem = _Parser(delimiter), [start], None
        try:
            room = (self.longest if self._vain < _TRIES else _SHORTLY) - len(start)
            closed = parser.take(start)
            while not closed and room > 0 and (line := self._next()):
                taken.append(line)
                room -= len(line)
                closed = parser.take(line)
            if not closed:
                self._vain += not peek
                problem = UNCLOSED
        except InvalidInputError as error:
            problem = UNCLOSED if len(taken) > 1 else str(error)
        if problem is None and self._look_like_rows(taken):
            problem = UNCLOSED
        consumed = 0 if peek else 1 if problem else len(taken)
        self._ahead.extendleft(reversed(taken[consumed:]))
        self._line = number - 1 + consumed
        cells = () if problem else parser.cells
        used = taken[: max(consumed, 1)]
        return Record(number, len(used), cells, "".join(used).rstrip("\r\n"), problem)

    def _look_like_rows(self, taken: Sequence[str]) -> bool:
        """Whether a quoted cell swallowed rows: line by line it holds as many cells as the header.

        The quote of another row, an inch mark for example, may close what was left open; that
        reads as CSV, and the rows between would be gone without a word.
        """
        inner = taken[1:-1]
        alike = self.width > 1 and all(
            line.count(self.delimiter) == self.width - 1 and '"' not in line for line in inner
        )
        return alike and len(inner) * (self.width - 1) >= LIKE_ROWS

    def _overlong(self, number: int, start: str) -> Record:
        """Skip the rest of a line that is too long."""
        length, end = len(start), start
        while not end.endswith(("\n", "\r")) and (end := self.text.readline(self.longest)):
            length += len(end)
        problem = f"a row must have at most {self.longest:,} characters, got {length:,}; shorten it"
        return Record(number, 1, (), start[:1_000], problem)


class _Parser:
    """Takes the lines of a record and tells its cells apart (RFC 4180, any delimiter)."""

    def __init__(self, delimiter: str) -> None:
        self.cells: list[str] = []
        self._delimiter = delimiter
        self._part: list[str] = []
        self._inside = False

    def take(self, line: str) -> bool:
        """Take a line; tell whether the record ends with it.

        Raises:
            InvalidInputError: There is text between a closing quote and the next delimiter.
        """
        body = line.rstrip("\r\n")
        position = 0
        while True:
            if not self._inside:
                if not body.startswith('"', position):
                    end = body.find(self._delimiter, position)
                    self.cells.append(body[position:] if end < 0 else body[position:end])
                    if end < 0:
                        return True
                    position = end + 1
                    continue
                self._inside, self._part, position = True, [], position + 1
            quote = line.find('"', position)
            self._part.append(line[position:] if quote < 0 else line[position:quote])
            if quote < 0:
                return False
            position = quote + 1
            if line.startswith('"', position):
                self._part.append('"')
                position += 1
                continue
            self._inside = False
            self.cells.append("".join(self._part))
            if position >= len(body):
                return True
            if body[position] != self._delimiter:
                raise InvalidInputError(
                    f"a row must be CSV, got {printable(body[position:], 20)!r} behind a closing "
                    "quote; write a quote inside a quoted cell twice"
                )
            position += 1
