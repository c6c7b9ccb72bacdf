"""History: Parquet a day, copied by position, read by DuckDB."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from ratchet.errors import ConflictError
from ratchet.records import Feedback, Interaction, Message
from ratchet.records.events import Comment, Copy, Correction, JudgeScore, SessionEnd, Stars, Thumbs
from ratchet.store import EventStore
from ratchet.store.arrivals import Position
from ratchet.store.erasure import UserData
from ratchet.store.forget import forget
from ratchet.store.history import Advanced, History, writing
from ratchet.store.history.layout import (
    COLUMNS,
    STORED,
    TABLES,
    Cursor,
    HistoryFile,
    HistoryTable,
    readable,
)
from ratchet.store.keeping import past_keeping
from ratchet.store.tables import FACTS, INTERACTIONS

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


def stored_rows(store: EventStore, table: HistoryTable) -> list[dict[str, Any]]:
    """Rows of the store as history has them, but for how JSON is written."""
    with store.reading() as connection:
        query = sa.select(STORED[table]).order_by(STORED[table].c.position)
        return [dict(row) for row in connection.execute(query).mappings()]


def history_rows(history: History, table: HistoryTable) -> list[dict[str, Any]]:
    columns: list[str] = []
    for name, kind in COLUMNS[table].items():
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


def test_history_goes_on_behind_the_last_row_that_it_has(
    open_store: OpenStore, history: History
) -> None:
    store = open_store()
    for start in range(0, 50, 10):
        fill(store, range(start, start + 10))
        assert history.advance(store) == Advanced(10, 10)
        assert_same(history, store)
    store.add_interactions([interaction(60)])
    assert not history.covers(51, 50)
    assert history.advance(store) == Advanced(1, 0)
    assert history.covers(51, 50)
    assert history.covers(0, 0)
    assert not history.covers(51, 51)


def test_a_history_that_was_never_written_is_empty_and_covers_nothing(history: History) -> None:
    assert history.files("interactions") == history.files("feedback") == []
    assert history.cursor() is None
    assert not history.covers(0, 0)
    assert history.days() == ()
    assert history.fetch_interactions(["i1"]) == {}
    with history.connect() as connection:
        for table in TABLES:
            found = connection.sql(f"SELECT * FROM {table}")
            assert found.columns == [*COLUMNS[table], "day"]
            assert found.fetchall() == []
    assert history.drop_before(date(2026, 3, 1)).files == 0


def test_an_empty_view_has_the_types_of_a_full_one(store: EventStore, tmp_path: Path) -> None:
    empty, full = History.open(tmp_path / "empty"), History.open(tmp_path / "it's full")
    fill(store, range(3))
    full.advance(store)
    with empty.connect() as one, full.connect() as other:
        for table in TABLES:
            assert one.sql(f"FROM {table}").types == other.sql(f"FROM {table}").types


def test_a_history_of_another_store_is_refused_and_stays_as_it_is(
    tmp_path: Path, history: History
) -> None:
    one, other = (
        EventStore.open(f"sqlite:///{tmp_path}/{n}.db", clock=lambda n=n: NIGHT + timedelta(n))
        for n in (1, 2)
    )
    fill(one, range(3))
    fill(other, range(5))
    history.advance(one)
    with pytest.raises(ConflictError, match="belongs to one store, got one that store"):
        history.advance(other)
    assert_same(history, one)


def test_a_store_that_lost_rows_which_history_has_is_refused(
    open_store: OpenStore, history: History
) -> None:
    store = open_store()
    fill(store, range(5))
    history.advance(store)
    with store.atomic() as connection:
        connection.execute(sa.delete(STORED["feedback"]).where(STORED["feedback"].c.position > 3))
        if connection.dialect.name == "postgresql":  # as in a backup of then
            connection.execute(sa.text("SELECT setval('feedback_position_seq', 3)"))
    with pytest.raises(ConflictError, match="got feedback up to position 3 where history has 5"):
        history.advance(store)


@pytest.mark.parametrize("table", TABLES)
def test_a_store_that_went_back_and_grew_beyond_history_is_refused(
    open_store: OpenStore, history: History, table: HistoryTable
) -> None:
    store = open_store()
    fill(store, range(5))
    history.advance(store)
    assert history.cursor_of(store) == history.cursor()
    kept = history_rows(history, table)
    with store.atomic() as connection:
        connection.execute(sa.delete(STORED[table]).where(STORED[table].c.position > 3))
        if connection.dialect.name == "postgresql":  # as in a backup of then
            connection.execute(sa.text(f"SELECT setval('{table}_position_seq', 3)"))
    fill(store, range(10, 14))  # at the positions from 4 on there are other rows now
    for ask in (history.advance, history.cursor_of):
        with pytest.raises(ConflictError, match=f"{table} with another row at position 5"):
            ask(store)
    assert history_rows(history, table) == kept


def test_a_history_that_lost_its_cursor_is_refused_and_stays_as_it_is(
    open_store: OpenStore, history: History
) -> None:
    store = open_store()
    fill(store, range(5))
    history.advance(store)
    cursor = Path(history.address) / "cursor.json"
    content = cursor.read_bytes()
    prune(store, 3)
    cursor.unlink()
    with pytest.raises(ConflictError, match=r"has no cursor\.json now"):
        history.advance(store)
    cursor.write_bytes(content)
    assert len(history_rows(history, "interactions")) == 5
    assert history.advance(store) == Advanced(0, 0)


def test_a_position_that_lies_behind_history_for_a_moment_copies_nothing(
    store: EventStore, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(5))
    history.advance(store)
    # while writers are at work it is not known of the last rows whether some are still missing
    monkeypatch.setattr(writing, "last_position", lambda store: Position(3, 4))
    assert history.advance(store) == Advanced(0, 0)
    assert history.covers(5, 5)
    monkeypatch.undo()
    fill(store, range(5, 7))
    assert history.advance(store) == Advanced(2, 2)
    assert_same(history, store)


def test_rows_that_the_store_no_longer_has_stay_in_history(
    open_store: OpenStore, history: History
) -> None:
    store = open_store()
    fill(store, range(10))
    history.advance(store)
    before = {table: history_rows(history, table) for table in TABLES}
    prune(store, 8)
    fill(store, range(10, 12))
    assert history.advance(store) == Advanced(2, 2)
    for table in TABLES:
        rows = history_rows(history, table)
        assert rows[:10] == before[table]
        assert rows[8:] == stored_rows(store, table)


def prune(store: EventStore, until: int) -> None:
    """Delete the first rows by position."""
    with store.atomic() as connection:
        for table in STORED.values():
            connection.execute(sa.delete(table).where(table.c.position <= until))


def test_days_before_one_can_be_dropped_and_are_not_written_again(
    store: EventStore, history: History
) -> None:
    fill(store, range(120))
    history.advance(store)
    size = Path(history.files("interactions")[0]).stat().st_size
    dropped = history.drop_before(date(2026, 3, 2))
    assert (dropped.files, dropped.bytes) == (1, size)
    assert [Path(path).parent.name for path in history.files("interactions")] == ["day=2026-03-02"]
    assert len(history.files("feedback")) == 1  # it was received today
    assert history.advance(store) == Advanced(0, 0)
    assert len(history_rows(history, "interactions")) == 60
    assert history.covers(120, 120)


# Files of bounded size ----------------------------------------------------------------------------


def test_a_file_has_so_many_rows_at_most(
    store: EventStore, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FILE_ROWS", 7)
    fill(store, range(40))
    seen: list[Advanced] = []
    history.advance(store, progress=seen.append)
    for table in TABLES:
        rows = [pq.read_metadata(path).num_rows for path in history.files(table)]
        assert max(rows) == 7
        assert sum(rows) == 40
    assert seen[:2] == [Advanced(7, 0), Advanced(14, 0)]
    assert seen[-1] == Advanced(40, 40)
    assert_same(history, store)


def test_long_rows_are_written_sooner(
    store: EventStore, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FILE_BYTES", "_READ_BYTES"):
        monkeypatch.setattr(writing, name, 1_000_000)
    monkeypatch.setattr(writing, "_FETCH_ROWS", 4)
    store.add_interactions([interaction(n, response="x" * 90_000) for n in range(30)])
    history.advance(store)
    rows = [pq.read_metadata(path).num_rows for path in history.files("interactions")]
    assert rows == [12, 12, 6]  # fetched 4 at a time: 11 are less than a million bytes
    assert_same(history, store)


# Forgetting ---------------------------------------------------------------------------------------


def test_a_user_is_forgotten_in_history_as_in_the_store(
    open_store: OpenStore, history: History, tmp_path: Path
) -> None:
    store = open_store()
    fill(store, range(80))
    store.add_interactions([interaction(90, user_id="u3", error="it broke", response="")])
    history.advance(store)
    assert b"Frage 73:" in everything_of(history)
    forget(store, tmp_path, "u3", now=NIGHT, text_key=str, history=history)
    assert_same(history, store)
    rows = history_rows(history, "interactions")
    assert [row["user_id"] for row in rows if row["error"]] == ["forgotten"]
    assert sum(row["user_id"] == "forgotten" for row in rows) == 12  # 3, 10, ... 73 and 90
    assert b"Frage 73:" not in everything_of(history)
    assert history.user_data("u3") == UserData()
    assert history.advance(store) == Advanced(0, 0)


def everything_of(history: History) -> bytes:
    """All texts that history holds, in files that count and in those that do not."""
    root = Path(history.address)
    tables = [pq.ParquetFile(path).read() for path in root.rglob("*.parquet*")]
    assert not [path for path in root.rglob("*") if path.name.startswith(".")]
    return b"\n".join(str(table.to_pylist()).encode() for table in tables)


def test_a_user_whose_interactions_only_history_has_is_forgotten_everywhere(
    open_store: OpenStore, history: History, tmp_path: Path
) -> None:
    store = open_store()
    fill(store, range(20))
    history.advance(store)
    with store.atomic() as connection:  # interactions are pruned before their feedback
        connection.execute(sa.delete(INTERACTIONS).where(INTERACTIONS.c.position <= 15))
    found = history.user_data("u3")
    assert found.interaction_ids == ("i3", "i10", "i17")
    assert "so wäre es recht gewesen" in found.texts
    assert "Antwort 10\n\tzwei" in found.texts
    assert "Be brief." not in found.texts
    record = forget(store, tmp_path, "u3", now=NIGHT, text_key=str, history=history)
    assert record.interactions == 3
    by_id = {row["id"]: row for row in stored_rows(store, "feedback")}
    assert (by_id["f3"]["text"], by_id["f10"]["text"]) == ("[erased]", "[erased]")
    assert history_rows(history, "feedback") == stored_rows(store, "feedback")
    assert history_rows(history, "interactions")[15:] == stored_rows(store, "interactions")
    assert b"Antwort 10" not in everything_of(history)


def test_forgetting_that_was_interrupted_in_history_is_called_again(
    store: EventStore, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(80))
    history.advance(store)
    written: list[Path] = []
    replace = Path.replace

    def stop_at_the_second(path: Path, target: Path) -> Path:
        written.append(target)
        if len(written) == 2:
            raise OSError("the disk is full")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop_at_the_second)
        with pytest.raises(OSError, match="disk is full"):
            forget(store, tmp_path, "u3", now=NIGHT, text_key=str, history=history)
    assert b"Frage 73:" in everything_of(history)
    again = NIGHT + timedelta(minutes=1)
    forget(store, tmp_path, "u3", now=again, text_key=str, history=history)
    assert_same(history, store)


def test_files_that_hold_nothing_of_a_user_are_not_written_anew(
    store: EventStore, history: History
) -> None:
    fill(store, range(120))
    history.advance(store)
    before = {path: Path(path).stat().st_mtime_ns for path in history.files("interactions")}
    erased = history.erase("nobody", ["unknown"])
    assert (erased.interactions, erased.feedback, erased.files) == (0, 0, 0)
    assert {path: Path(path).stat().st_mtime_ns for path in before} == before


# Small files --------------------------------------------------------------------------------------


def test_many_small_advances_make_few_files(store: EventStore, history: History) -> None:
    for n in range(40):
        fill(store, range(n, n + 1))
        history.advance(store)
    assert_same(history, store)
    for table in TABLES:
        assert len(history.files(table)) <= 6  # more would not be much larger, each than the next
    # what was joined is deleted by the next writer, not under the eyes of a reader
    assert len(list(Path(history.address).rglob("*.parquet"))) > len(history.readable())
    history.advance(store)
    assert len(list(Path(history.address).rglob("*.parquet"))) == len(history.readable())
    assert_same(history, store)


def test_a_reader_goes_on_while_its_files_are_replaced(store: EventStore, history: History) -> None:
    fill(store, range(10))
    history.advance(store)
    with history.connect() as connection:
        fill(store, range(10, 20))
        history.advance(store)
        assert connection.sql("SELECT count(*) FROM interactions").fetchall() == [(10,)]
        assert connection.sql("SELECT max(id) FROM interactions").fetchall() == [("i9",)]
    assert len(history.files("interactions")) == 1


def test_files_that_a_larger_one_of_their_day_replaced_do_not_count() -> None:
    def file(day: int, first: int, last: int) -> HistoryFile:
        return HistoryFile("interactions", date(2026, 3, day), first, last)

    cursor = Cursor(store="s", interactions=20, written_at=NIGHT)
    kept = [file(1, 1, 9), file(1, 10, 20), file(2, 2, 8)]
    gone = [file(1, 1, 4), file(1, 5, 9), file(1, 12, 20), file(2, 2, 3), file(2, 3, 8)]
    late = [file(1, 1, 21), file(3, 21, 22), HistoryFile("feedback", date(2026, 3, 1), 1, 1)]
    assert readable([*late, *gone, *kept], cursor) == kept
    assert readable(kept, None) == []


def test_a_condition_on_the_day_opens_no_other_days_files(
    store: EventStore, history: History
) -> None:
    moments = [NIGHT + timedelta(days=day) for day in range(3)]
    store.add_interactions([interaction(n, created_at=m) for n, m in enumerate(moments)])
    history.advance(store)
    Path(history.files("interactions")[2]).write_bytes(b"this is no Parquet")
    with history.connect() as connection:
        of_day = "SELECT id FROM interactions WHERE day = '2026-03-02'"
        assert connection.sql(of_day).fetchall() == [("i1",)]
        with pytest.raises(duckdb.Error, match=r"(?i)parquet"):
            connection.sql("SELECT id FROM interactions").fetchall()


# Questions ----------------------------------------------------------------------------------------


def test_the_question_in_the_documentation_has_the_right_answer(
    store: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (example,) = [one for one in examples if "QUESTION = " in one]
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    thumbs: list[tuple[int, str, Literal["up", "down"], int]] = []  # day, version, thumb, times
    thumbs += [(0, "m/1", "up", 3), (6, "m/1", "down", 1), (7, "m/1", "down", 2)]
    thumbs += [(0, "m/2", "up", 1), (-80, "m/1", "down", 5)]  # the last before the year
    number = 0
    for day, version, value, times in thumbs:
        for _ in range(times):
            number += 1
            moment = monday + timedelta(days=day)
            answer = interaction(number, created_at=moment, model_version=version)
            store.add_interactions([answer])
            values: dict[str, Any] = {"interaction_id": answer.id, "created_at": moment}
            store.add_feedback([Thumbs(id=f"f{number}", value=value, **values)])
    changed = Thumbs(  # an up of version 1 in the first week becomes a down
        id="f1", interaction_id="i1", created_at=monday, value="down",
        updated_at=monday + timedelta(days=40),
    )  # fmt: skip
    store.add_feedback([changed])
    store.add_interactions([interaction(99, created_at=monday, model_version="m/2")])
    History.open(tmp_path / ".ratchet" / "history").advance(store)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(example, found)
    assert found["weeks"] == [
        (date(2026, 3, 2), "m/1", 4, 0.5),  # two up, two down
        (date(2026, 3, 2), "m/2", 1, 0.0),  # the second answer has no thumb
        (date(2026, 3, 9), "m/1", 2, 1.0),
    ]


def mounted(tmp_path: Path) -> Path:
    """A folder for history that can be taken away, as a mount can."""
    (tmp_path / "mount").mkdir()
    return tmp_path / "mount" / "history"


def emptied(place: Path) -> Path:
    """Take the mount away; what lay on it is returned."""
    gone = place.parent.rename(place.parent.with_name("gone"))
    place.parent.mkdir()
    return gone


def test_a_history_whose_mount_is_gone_is_refused_by_every_reader_and_writer_until_it_is_back(
    tmp_path: Path, open_store: OpenStore
) -> None:
    store, place = open_store(), mounted(tmp_path)
    fill(store, range(20))
    History.open(place, of=store).advance(store)
    kept, gone = history_rows(History.open(place), "interactions"), emptied(place)
    history = History.open(place)
    for refused in (
        lambda: history.advance(store),
        lambda: history.cursor_of(store),
        lambda: History.open(place, of=store),
        lambda: forget(store, tmp_path, "u3", now=NIGHT, text_key=str, history=history),
        lambda: past_keeping(store, tmp_path, history, NIGHT, sets_too=False),
    ):
        with pytest.raises(ConflictError, match="mount it again or restore it, or set"):
            refused()
    assert not place.exists(), "nothing is begun anew in the place of a mount"
    assert store.counts()["interactions"] == 20
    place.parent.rmdir()
    gone.rename(place.parent)
    assert History.open(place, of=store).advance(store) == Advanced(0, 0)
    assert history_rows(history, "interactions") == kept


def test_a_new_folder_may_be_chosen_where_a_history_is_gone_for_good(
    tmp_path: Path, open_store: OpenStore
) -> None:
    store, place = open_store(), mounted(tmp_path)
    fill(store, range(5))
    History.open(place).advance(store)
    emptied(place)
    other = History.open(tmp_path / "other", of=store)
    assert other.advance(store) == Advanced(5, 5)
    assert History.open(tmp_path / "other", of=store).advance(store) == Advanced(0, 0)


def test_the_history_of_a_version_before_is_known_from_the_next_writing_on(
    tmp_path: Path, open_store: OpenStore
) -> None:
    store, place = open_store(), mounted(tmp_path)
    fill(store, range(5))
    History.open(place).advance(store)
    with store.atomic() as connection:
        connection.execute(sa.delete(FACTS).where(FACTS.c.name.like("history:%")))
    History.open(place, of=store).advance(store)
    emptied(place)
    with pytest.raises(ConflictError, match="mount it again"):
        History.open(place, of=store)


def test_an_empty_store_has_no_history_to_miss(tmp_path: Path, open_store: OpenStore) -> None:
    store, place = open_store(), mounted(tmp_path)
    History.open(place, of=store).advance(store)
    emptied(place)
    assert History.open(place, of=store).cursor() is None
