"""Take what forgotten users said out of the write-ahead log, while gateways write to it.

    erased = erase_lines(folder, store, now)

Processes append to their segments, and nobody changes what stands there. So a line is written over
in its place and keeps its length, its place and its time: what it held becomes blank, and a blank
line is nothing to whoever reads it, a drain of an older version too. Lines that were not drained
yet are drained as nothing. What was torn by a kill in the middle of this is a damaged line, which
is set aside like any other and found by the next call.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from ratchet.gateway.drain import KEPT_SUFFIX
from ratchet.gateway.log_lines import Entry, LogKind, read, segments
from ratchet.store import EventStore
from ratchet.store.forgotten import Forgotten
from ratchet.store.rows import microseconds

_CHECK = len(b"00000000 ")
_BLOCK_BYTES = 4_000_000
_MOST_PASSES = 4
_ANSWERS = (LogKind.INTERACTION, LogKind.REFUSED)


class _Line(NamedTuple):
    entry: Entry
    user: str | None
    interaction: str | None
    at: int
    is_answer: bool = False


def erase_lines(
    folder: Path,
    store: EventStore,
    now: datetime,
    *,
    damaged: Callable[[str], bool] = lambda _: False,
) -> int:
    """Blank the lines of users who were forgotten, and those about interactions that were erased.

    Args:
        folder: Where the segments are.
        store: Knows who was forgotten. It learns the ids of answers that it never had.
        now: The time.
        damaged: Tells of a damaged line, which says nothing of itself, whether it is to be blanked.

    Returns:
        How many lines were blanked.
    """
    erased = 0
    for _ in range(_MOST_PASSES):  # feedback may stand before its answer, in another segment
        kept = folder.glob(f"*{KEPT_SUFFIX}")  # apart, for a version that knows all its lines
        found = [_erase_in(path, store, now, damaged) for path in [*segments(folder), *kept]]
        erased += sum(lines for lines, _ in found)
        if not any(learnt for _, learnt in found):
            break
    return erased


def _erase_in(
    segment: Path, store: EventStore, now: datetime, damaged: Callable[[str], bool]
) -> tuple[int, bool]:
    """Return how many lines were blanked, and whether answers were that the store never had."""
    try:
        file = os.open(segment, os.O_RDWR)
    except FileNotFoundError:  # drained meanwhile
        return 0, False
    erased, learnt = 0, set[str]()
    try:
        for entries in _blocks(segment):
            lines = [line for entry in entries if (line := _line(entry, damaged)) is not None]
            known = store.forgotten(
                {line.user for line in lines if line.user},
                {line.interaction for line in lines if line.interaction},
            )
            mine = [line for line in lines if _is_covered(line, known)]
            for line in mine:
                _blank(file, line.entry)
            learnt |= {
                line.interaction for line in mine if line.interaction and line.is_answer
            } - known.interactions
            erased += len(mine)
        if erased:
            os.fsync(file)
    finally:
        os.close(file)
    store.keep_forgotten(learnt, now)
    return erased, bool(learnt)


def _blocks(segment: Path) -> Iterator[list[Entry]]:
    offset = 0
    while True:
        try:
            entries = list(read(segment, offset, _BLOCK_BYTES))
        except FileNotFoundError:
            return
        if not entries:
            return
        yield entries
        offset = entries[-1].end


def _line(entry: Entry, damaged: Callable[[str], bool]) -> _Line | None:
    """Return a line with its user and interaction; None where it is blank or is to stay."""
    if entry.is_damaged:
        text = entry.body.decode("utf-8", "replace")
        return _Line(entry, None, None, 0) if damaged(text) else None
    if not entry.body.strip():
        return None
    try:
        row: Any = from_json(entry.body)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    is_answer = entry.kind in _ANSWERS or (entry.kind is LogKind.TRANSLATED and "messages" in row)
    about = row.get("interaction_id") or (row.get("id") if is_answer else None)
    return _Line(entry, _text(row.get("user_id")), _text(about), _said_at(entry, row), is_answer)


def _is_covered(line: _Line, known: Forgotten) -> bool:
    return line.entry.is_damaged or known.covers(line.user, line.interaction, line.at)


def _said_at(entry: Entry, row: dict[str, Any]) -> int:
    try:
        return microseconds(datetime.fromisoformat(str(row["created_at"])))
    except (KeyError, ValueError, OverflowError):
        return entry.received_ns // 1_000


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _blank(file: int, entry: Entry) -> None:
    """Write a line over: all that stands before its kind stays, and what it held is blank."""
    line = os.pread(file, entry.end - entry.start, entry.start)
    content = b""
    if not entry.is_damaged:
        before = line[_CHECK : len(line) - 1 - len(entry.body)]
        content = before.rstrip(b" ").rpartition(b" ")[0] + b" " + LogKind.INTERACTION.value + b" "
    content = content.ljust(len(line) - _CHECK - 1)
    os.pwrite(file, b"%08x %b\n" % (zlib.crc32(content), content), entry.start)
