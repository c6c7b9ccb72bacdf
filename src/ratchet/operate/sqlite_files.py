"""Files of SQLite: space that deleted rows leave, given back to the system.

SQLite uses such space again, so that a file stays as large as it once was. A file made with
`auto_vacuum` gives it back in small steps; any other one has to be written anew (`compact`), while
which nothing can be stored.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

_INCREMENTAL = 2
_STEP_PAGES = 500
_STEPS_REST = 0.05
_WAIT_SECONDS = 60.0
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Space:
    """What a file takes.

    Attributes:
        bytes: All of it.
        free: What nothing is in.
        can_shrink: Whether free space can be given back step by step.
    """

    bytes: int
    free: int
    can_shrink: bool


def space_of(path: Path) -> Space:
    """Return what a file takes; nothing where it is not there."""
    if not path.exists():
        return Space(0, 0, can_shrink=True)
    with _opened(path) as connection:
        page, pages, free, mode = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count", "auto_vacuum")
        )
    return Space(page * pages, page * free, can_shrink=mode == _INCREMENTAL)


def give_back(path: Path, *, rest: Callable[[float], None] = time.sleep) -> int:
    """Give free space back where the file can; return how many bytes. Writers wait for a step."""
    before = space_of(path)
    if not (before.can_shrink and before.free):
        return 0
    with _opened(path) as connection:
        while connection.execute("PRAGMA freelist_count").fetchone()[0]:
            left = connection.execute("PRAGMA freelist_count").fetchone()[0]
            connection.execute(f"PRAGMA incremental_vacuum({_STEP_PAGES})").fetchall()
            if connection.execute("PRAGMA freelist_count").fetchone()[0] >= left:
                break  # nothing is given back, whatever the reason
            rest(_STEPS_REST)
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    return before.bytes - space_of(path).bytes


def compact(path: Path) -> int:
    """Write a file anew without its free space; from then on it gives space back by itself.

    It needs as much space again while it runs, and nothing can be stored meanwhile.

    Returns:
        Bytes that the file is smaller.
    """
    before = space_of(path).bytes
    if not before:
        return 0
    with _opened(path) as connection:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - space_of(path).bytes


def is_database(path: Path) -> bool:
    """Tell whether a file is one of SQLite."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def copy_database(source: Path, target: Path) -> None:
    """Copy a file as it is at one moment, for its owner alone; writers go on where it has a WAL.

    Args:
        source: May be written to meanwhile.
        target: Is made anew.
    """
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with _opened(source) as connection, closing(sqlite3.connect(target)) as copy:
        connection.backup(copy)  # in one step: in several, each writer would begin it anew


def damages(path: Path) -> list[str]:
    """Return what SQLite finds wrong with a file, at most 20 lines; nothing where it is whole."""
    try:
        with _opened(path) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line for line in found if line != "ok"]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
        yield connection
