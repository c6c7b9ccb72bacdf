"""Lines of the write-ahead log: how they are written, read and told from damaged ones.

A line is

    CRC-32 (8 hex digits) · number · nanoseconds since 1970 · kind · JSON

with spaces between and a newline after it. The first line of a segment is number and time of its
own, of the kind `h`, with the version of the format, the log that it belongs to and the number of
the first line after it. Numbers count the lines of one process, over all its segments, so that what
was lost between two of them is noticed.

Segments of Ratchet 0.1 (`.wal`) have neither that line nor numbers. They are read as they are; a
gateway of that version leaves those of this one (`.wal2`) alone.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT = 3
"""Since 3 turns are kept as they were sent, with what they refer to: an earlier version would set
such lines aside, and leaves segments of a later format to it."""
SUFFIX, SUFFIX_0_1 = ".wal2", ".wal"
_TAIL_BYTES = 65_536


class LogKind(Enum):
    """What a line holds."""

    INTERACTION = b"i"
    FEEDBACK = b"f"
    UNTIMED_FEEDBACK = b"t"
    """Feedback whose sender gave no time: it gets that of its arrival, the first time it comes."""
    REFUSED = b"r"
    """A request that a backend refused for what was in it: no answer of any version."""
    DEFINITION = b"d"
    """Tools, a form of answers or documents, which stand before what refers to them."""
    TRANSLATED = b"o"
    """An interaction or feedback that came in another form, with other names of the answer."""
    SET_ASIDE = b"s"
    """A row that was set aside when it came."""


_BEGIN = b"h"
_KINDS = {kind.value: kind for kind in LogKind}


class Header(BaseModel):
    """The first line of a segment.

    Attributes:
        format: Version of the format.
        log: The process's log that the segment is part of.
        first: Number of the first line after this one.
    """

    model_config = ConfigDict(frozen=True)

    format: int
    log: str = ""
    first: int = Field(default=1, ge=0)


class Entry(NamedTuple):
    """A line that ends with its newline.

    Attributes:
        segment: Name of its file.
        start: Its first byte.
        end: The byte after its newline.
        received_ns: When it was appended, nanoseconds since 1970; 0 where that cannot be read.
        kind: What it holds; None where it cannot be used.
        body: The JSON; the whole line where that is damaged.
        number: Its number; None where it has none, or is damaged.
        problem: Why it cannot be used; None where it can.
    """

    segment: str
    start: int
    end: int
    received_ns: int
    kind: LogKind | None
    body: bytes
    number: int | None = None
    problem: str | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether the line is not what was written."""
        return self.kind is None and self.received_ns == 0

    @property
    def is_newer(self) -> bool:
        """Whether the line is whole and of a kind that a newer version knows."""
        return self.kind is None and self.received_ns > 0


def line(number: int, now: int, kind: LogKind, body: bytes) -> bytes:
    """Return a line as it is written."""
    return _line(number, now, kind.value, body)


def header_line(log: str, first: int, now: int) -> bytes:
    """Return the first line of a segment."""
    header = Header(format=FORMAT, log=log, first=first)
    return _line(first, now, _BEGIN, header.model_dump_json().encode())


def segments(folder: Path) -> list[Path]:
    """Return the segments of every version, oldest first."""
    return sorted(path for suffix in (SUFFIX, SUFFIX_0_1) for path in folder.glob(f"*{suffix}"))


@contextmanager
def abandoned(segment: Path) -> Iterator[bool]:
    """Tell whether no process appends to a segment any more; none begins to while this is open."""
    file = os.open(segment, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(file)


def is_abandoned(segment: Path) -> bool:
    """Tell whether no process appends to a segment any more."""
    with abandoned(segment) as found:
        return found


def header_of(segment: Path) -> Header | None:
    """Return the first line of a segment; None where it has none that can be read."""
    with segment.open("rb") as file:
        first = file.readline(4_096)
    parts = _checked(first[:-1].split(b" ", 4)) if first.endswith(b"\n") else None
    if parts is None or parts[2] != _BEGIN:
        return None
    try:
        return Header.model_validate_json(parts[3])
    except ValidationError:
        return None


def read(segment: Path, offset: int, most_bytes: int) -> Iterator[Entry]:
    """Yield the lines from `offset` on, about `most_bytes` of them, without the header.

    The last line may be without its newline: it is being written, or was torn by a kill and never
    acknowledged. It is left out.
    """
    is_old = segment.suffix == SUFFIX_0_1
    with segment.open("rb") as file:
        file.seek(offset)
        start, until = offset, offset + most_bytes
        while start < until:
            content = file.readline()
            if not content.endswith(b"\n"):
                return
            end = start + len(content)
            entry = _entry(segment.name, start, end, content, is_old=is_old)
            if entry is None:
                until += len(content)
            else:
                yield entry
            start = end


def lines_left(segment: Path, offset: int) -> int:
    """Return how many lines lie behind `offset`: by number, where lines have numbers."""
    following = next(read(segment, offset, 1), None)
    if following is None:
        return 0
    if following.number is None:
        with segment.open("rb") as file:
            file.seek(offset)
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1_000_000), b""))
    last = _last_number(segment)
    return 1 if last is None else max(1, last - following.number + 1)


def _last_number(segment: Path) -> int | None:
    """Return the number of the last whole line, reading from the end."""
    with segment.open("rb") as file:
        size, reach = file.seek(0, os.SEEK_END), _TAIL_BYTES
        while True:
            file.seek(max(0, size - reach))
            whole, newline, _ = file.read(min(size, reach)).rpartition(b"\n")
            start = whole.rfind(b"\n") + 1
            if newline and (start or reach >= size):
                parts = _checked(whole[start:].split(b" ", 4))
                return None if parts is None else int(parts[0])
            if reach >= size:
                return None
            reach *= 8


def _line(number: int, now: int, kind: bytes, body: bytes) -> bytes:
    content = b"%d %d %b %b" % (number, now, kind, body)
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _checked(parts: list[bytes]) -> list[bytes] | None:
    """Return number, time, kind and body of a line split at its spaces; None where damaged."""
    if len(parts) < 5 or parts[0] != b"%08x" % zlib.crc32(b" ".join(parts[1:])):
        return None
    return parts[1:] if parts[1].isdigit() and parts[2].isdigit() else None


def _entry(segment: str, start: int, end: int, content: bytes, *, is_old: bool) -> Entry | None:
    text = content[:-1]
    if is_old:
        check, _, rest = text.partition(b" ")
        text = b"%b 0 %b" % (check, rest)
        whole = check == b"%08x" % zlib.crc32(rest)
        parts: list[bytes] | None = text.split(b" ", 4)[1:] if whole else None
        if parts is not None and (len(parts) < 4 or not parts[1].isdigit()):
            parts = None
    else:
        parts = _checked(text.split(b" ", 4))
    if parts is None:
        damaged = "a line of the log must be as it was written, got one with another checksum"
        return Entry(segment, start, end, 0, None, content[:-1], None, damaged)
    if parts[2] == _BEGIN and not is_old:
        return None
    number, received = None if is_old else int(parts[0]), int(parts[1])
    kind, problem = _KINDS.get(parts[2]), None
    if kind is None:
        problem = (
            f"a line of the log must be of a kind that this version knows, got {parts[2][:20]!r}; "
            "a newer version wrote it and reads it"
        )
    return Entry(segment, start, end, received, kind, parts[3], number, problem)
