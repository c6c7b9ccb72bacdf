"""History: Parquet a day, copied by position, read by DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from ratchet.records import Feedback, Interaction, Message
from ratchet.records.events import Comment, Copy, Correction, JudgeScore, SessionEnd, Stars, Thumbs
from ratchet.store import EventStore
from ratchet.store.history import Advanced, History
from ratchet.store.history.layout import COLUMNS, STORED, TABLES

NIGHT = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
OpenStore = Callable[[], EventStore]


def interaction(number: int, **changes: Any) -> Interaction:
    values: dict[str, Any] = {
        "id": f"i{number}",
        "session_id": f"s{number // 3}",
        "user_id": f"u{number % 7}",
        "created_at": NIGHT + timedelta(seconds=number, microseconds=number),
        "model_version": f"m/{number % 2 + 1}",
        "messages": (
            Message(role="system", content="Be brief."),
            Message(role="user", content=f"Frage {number}: 'é' \\ \"ß\" 🙂 {number}"),
        ),
        "response": f"Antwort {number}\n\tzwei",
        "latency_seconds": number / 3,
        "metadata": {"training_consent": "yes", "schlüssel": "π"},
    }
    return Interaction(**(values | changes))


ODD = [
    interaction(10_001, created_at=datetime(1, 1, 1, tzinfo=UTC), response=""),
    interaction(10_002, created_at=datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    interaction(10_003, created_at=datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC), error="no"),
    interaction(10_004, latency_seconds=None, metadata={}, response="x" * 100_000),
    interaction(10_005, latency_seconds=5e-324, user_id="o'hara", segment='a "b" {c}'),
]


def events(numbers: range) -> list[Feedback]:
    kinds: list[Callable[[dict[str, Any]], Feedback]] = [
        lambda v: Thumbs(**v, value="down"),
        lambda v: Stars(**v, value=4),
        lambda v: Comment(**v, value="schade 🙁"),
        lambda v: Correction(**v, value="so wäre es recht gewesen"),
        lambda v: Copy(**v, value=False),
        lambda v: SessionEnd(**v, value=0.1),
        lambda v: JudgeScore(**v, value=0.25, judge_version="j/1"),
    ]
    return [
        kinds[n % 7](
            {
                "id": f"f{n}",
                "interaction_id": f"i{n}",
                "user_id": f"u{n % 7}" if n % 2 else None,
                "created_at": NIGHT + timedelta(minutes=n),
            }
        )
        for n in numbers
    ]


def fill(store: EventStore, numbers: range) -> None:
    store.add_interactions([interaction(n) for n in numbers])
    store.add_feedback(events(numbers))


def stored_rows(store: EventStore, table: str) -> list[dict[str, Any]]:
    """Rows of the store as history has them, but for how JSON is written."""
    with store.reading() as connection:
        query = sa.select(STORED[table]).order_by(STORED[table].c.position)  # type: ignore[index]
        return [dict(row) for row in connection.execute(query).mappings()]


def history_rows(history: History, table: str) -> list[dict[str, Any]]:
    import json

    columns: list[str] = []
    for name, kind in COLUMNS[table].items():  # type: ignore[index]
        columns.append(f"epoch_us({name}) AS {name}" if kind == "TIMESTAMPTZ" else name)
    with history.connect() as connection:
        found = connection.sql(f"SELECT {', '.join(columns)} FROM {table} ORDER BY position")
        rows = found.to_arrow_table().to_pylist()
    for row in rows:
        row |= {name: json.loads(row[name]) for name in ("messages", "metadata") if name in row}
    return rows


def assert_same(history: History, store: EventStore) -> None:
    for table in TABLES:
        assert history_rows(history, table) == stored_rows(store, table)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "history")


def test_history_has_every_value_of_every_row(open_store: OpenStore, history: History) -> None:
    store = open_store()
    fill(store, range(40))
    store.add_interactions(ODD)
    assert history.advance(store) == Advanced(45, 40)
    assert_same(history, store)
    assert history.advance(store) == Advanced(0, 0)


def test_an_interaction_from_history_is_the_one_from_the_store(
    open_store: OpenStore, history: History
) -> None:
    store = open_store()
    fill(store, range(10))
    store.add_interactions(ODD)
    history.advance(store)
    ids = [*(item.id for item in ODD), "i3", "i7", "unknown"]
    found = history.fetch_interactions(ids)
    assert found == store.stored_interactions(ids)
    assert [found[item.id] for item in ODD] == ODD
    assert history.fetch_interactions([]) == {}


def test_each_row_lies_in_the_folder_of_its_day(store: EventStore, history: History) -> None:
    store.add_interactions([interaction(n) for n in range(120)])  # midnight is after 60
    history.advance(store)
    files = {Path(path).parent.name: path for path in history.files("interactions")}
    assert sorted(files) == ["day=2026-03-01", "day=2026-03-02"]
    assert Path(files["day=2026-03-01"]).name == "000000000001-000000000060.parquet"
    assert Path(files["day=2026-03-02"]).name == "000000000061-000000000120.parquet"
    with history.connect() as connection:
        days = connection.sql("SELECT day, count(*) FROM interactions GROUP BY day ORDER BY day")
        assert days.fetchall() == [(date(2026, 3, 1), 60), (date(2026, 3, 2), 60)]
    column = pq.ParquetFile(files["day=2026-03-01"]).metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
