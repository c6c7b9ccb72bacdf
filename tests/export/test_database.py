"""The file for people who ask by SQL: what is in it, and that the documented questions run."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from ratchet.errors import InvalidInputError
from ratchet.export.grammar import Request, check
from ratchet.records.events import Comment, Thumbs
from ratchet.store import EventStore
from tests.export.stores import MORNING, NOW, turn, written

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
QUESTIONS = re.findall(r"```sql\n(.+?)```", DOCS.read_text("utf-8"), re.DOTALL)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db", clock=lambda: NOW)
    told = {"completion_tokens": "5"}
    store.add_interactions([turn(number, metadata=told) for number in range(4)])
    at = MORNING + timedelta(days=1)
    store.add_feedback(
        [
            Thumbs(id="t0", interaction_id="i0000", created_at=at, value="up"),
            Thumbs(id="t1", interaction_id="i0001", created_at=at, value="down"),
            Thumbs(id="t2", interaction_id="i0002", created_at=at, value="down"),
            Comment(id="c1", interaction_id="i0001", created_at=at, value="too short"),
        ]
    )
    out = tmp_path / "ratchet.duckdb"
    tally = written(store, tmp_path, "database", str(out), "duckdb")
    assert dict(tally.rows) == {"interactions": 4, "feedback": 4}
    store.close()
    return out


def test_the_documented_questions_have_the_right_answers(database: Path) -> None:
    assert len(QUESTIONS) == 3
    with duckdb.connect(str(database), read_only=True) as connection:
        thumbs, disliked, days = (connection.execute(sql).fetchall() for sql in QUESTIONS)
    assert thumbs == [("m/1", 2, 0.5), ("m/2", 1, 0.0)]
    assert [row[1:] for row in disliked] == [
        ("Question 2?", "Answer 2", None), ("Question 1?", "Answer 1", "too short")
    ]  # fmt: skip
    assert days == [(MORNING.date(), 4, 20)]


def test_every_table_is_there_and_nobody_may_write(database: Path) -> None:
    with duckdb.connect(str(database), read_only=True) as connection:
        tables = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
    assert tables == {"interactions", "feedback", "decisions", "labels"}
    assert database.stat().st_mode & 0o222 == 0


def test_a_newer_file_takes_the_place_of_the_one_before(database: Path, tmp_path: Path) -> None:
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db", clock=lambda: NOW)
    written(
        store, tmp_path, "database", str(database), "duckdb", since=MORNING + timedelta(hours=2)
    )
    store.close()
    with duckdb.connect(str(database), read_only=True) as connection:
        (count,) = connection.execute("SELECT count(*) FROM interactions").fetchone() or (None,)
    assert count == 2


def test_a_database_is_no_stream() -> None:
    with pytest.raises(InvalidInputError, match="a database is a file, got --out -"):
        check(Request("database", "duckdb", "-"))
