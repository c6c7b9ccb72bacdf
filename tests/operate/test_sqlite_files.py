"""Free space in files of SQLite, with another connection open as a server has it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ratchet.operate.sqlite_files import compact, give_back, space_of
from ratchet.servers import make_database

ROWS = 4_000


def filled(path: Path) -> sqlite3.Connection:
    """Fill a megabyte and a half, then delete nine rows of ten."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", ((n, "x" * 400) for n in range(ROWS)))
    connection.execute("DELETE FROM t WHERE id >= ?", (ROWS // 10,))
    return connection


def rest(_seconds: float) -> None:
    """Nobody else writes here."""


def test_a_file_made_for_it_gives_space_back_in_steps_while_others_use_it(tmp_path: Path) -> None:
    path = tmp_path / "made.db"
    make_database(path)
    other = filled(path)
    before = space_of(path)
    assert before.can_shrink
    assert before.free > 0.8 * before.bytes
    steps: list[float] = []
    given = give_back(path, rest=steps.append)
    assert given == before.free
    after = space_of(path)
    assert (after.free, after.bytes) == (0, before.bytes - given)
    assert len(steps) > 0
    assert other.execute("SELECT count(*) FROM t").fetchone() == (ROWS // 10,)
    assert give_back(path, rest=rest) == 0
    other.close()


def test_an_older_file_keeps_its_space_until_it_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "older.db"
    filled(path).close()
    before = space_of(path)
    assert not before.can_shrink
    assert give_back(path, rest=rest) == 0
    assert space_of(path) == before
    # a page of 4,096 bytes is new: it says where pages are used from, so that they can move
    assert compact(path) >= before.free - 4_096
    assert space_of(path).can_shrink
    assert space_of(path).free == 0


def test_making_a_database_leaves_one_that_is_there_alone(tmp_path: Path) -> None:
    path = tmp_path / "there.db"
    filled(path).close()
    before = path.read_bytes()
    make_database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("use", [give_back, compact])
def test_a_file_that_is_not_there_is_left_so(tmp_path: Path, use: object) -> None:
    path = tmp_path / "none.db"
    assert callable(use)
    assert use(path) == 0
    assert not path.exists()
