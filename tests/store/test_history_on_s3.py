"""History on object storage: a real S3 server over HTTP, interrupted in every way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from ratchet.errors import BusyError
from ratchet.improve.curation.derived import Derived
from ratchet.store import EventStore
from ratchet.store.forget import forget
from ratchet.store.history import Advanced, History, writing
from ratchet.store.history.place import LEASE
from tests.store.s3_server import BUCKET, CutError, S3Server, s3_server
from tests.store.test_history import (
    NIGHT,
    assert_same,
    fill,
    history_rows,
    interaction,
    prune,
)

LATER = timedelta(minutes=11)


@pytest.fixture(scope="module")
def one_server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def server(one_server: S3Server) -> Iterator[S3Server]:
    one_server.puts.clear()
    yield one_server
    one_server.on_put = lambda path: None


@pytest.fixture
def url(server: S3Server) -> str:
    return f"s3://{BUCKET}/{uuid4().hex}/history"


def open_later(url: str, **options: timedelta) -> History:
    return History.open(url, clock=lambda: datetime.now(UTC) + LATER, **options)


@pytest.mark.slow
def test_history_on_s3_is_written_read_and_changed_as_in_a_folder(
    store: EventStore, url: str, server: S3Server, tmp_path: Path
) -> None:
    history = History.open(url)
    assert history.cursor() is None
    fill(store, range(120))
    assert history.advance(store) == Advanced(120, 120)
    first = f"{url}/interactions/day=2026-03-01/000000000001-000000000060.parquet"
    assert history.files("interactions")[0] == first
    assert server.puts[-1].endswith("/cursor.json")
    assert_same(history, store)
    found = history.fetch_interactions(["i5", "i119"])
    assert found == store.stored_interactions(["i5", "i119"])
    fill(store, range(120, 130))
    assert history.advance(store) == Advanced(10, 10)
    forget(store, tmp_path, "u3", now=NIGHT, text_key=str, history=history)
    assert_same(history, store)
    days = {(day.table, day.day): day.rows for day in history.days()}
    assert days["interactions", date(2026, 3, 2)] == 70
    assert history.drop_before(date(2026, 3, 2)).files == 1
    assert len(history_rows(history, "interactions")) == 70
    assert history.address == url


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [
        "/cursor.json",
        pytest.param("day=2026-03-02", marks=pytest.mark.slow),
        pytest.param("/feedback/", marks=pytest.mark.slow),
    ],
)
def test_a_put_that_breaks_half_way_leaves_what_counted_and_is_made_up_for(
    store: EventStore, url: str, server: S3Server, broken: str
) -> None:
    history = History.open(url)
    fill(store, range(50))
    history.advance(store)
    before = {table: history_rows(history, table) for table in ("interactions", "feedback")}
    fill(store, range(50, 120))
    tried: list[str] = []

    def cut(path: str) -> None:
        if broken in path:
            tried.append(path)
            raise CutError

    server.on_put = cut
    with pytest.raises(OSError, match=r"cannot be reached: .*'s3://kept/"):
        history.advance(store)
    assert tried
    assert history_rows(history, "feedback") == before["feedback"]
    if broken != "/feedback/":  # the interactions counted by then
        assert history_rows(history, "interactions") == before["interactions"]
    server.on_put = lambda path: None
    history.advance(store)
    assert_same(history, store)


ADVANCE = """
import sys
from ratchet.store import EventStore
from ratchet.store.history import History
store = EventStore.open(sys.argv[1])
History.open(sys.argv[2]).advance(store)
"""


@pytest.mark.slow
def test_a_writer_killed_between_the_files_and_the_cursor_is_made_up_for(
    store: EventStore, url: str, server: S3Server, tmp_path: Path
) -> None:
    fill(store, range(50))
    History.open(url).advance(store)
    fill(store, range(50, 120))
    address = f"sqlite:///{tmp_path / 'store.db'}"
    child: list[subprocess.Popen[bytes]] = []

    def kill(path: str) -> None:
        if path.endswith("/cursor.json"):
            child[0].kill()
            child[0].wait()
            raise CutError

    server.on_put = kill
    child.append(subprocess.Popen([sys.executable, "-c", ADVANCE, address, url]))
    assert child[0].wait(timeout=60) == -9
    server.on_put = lambda path: None
    left = [path for path in server.puts if "day=2026-03-02" in path]
    assert left  # it was there when its writer was killed
    history = History.open(url, wait=timedelta(0))
    assert len(history_rows(history, "interactions")) == 50
    fill(store, range(120, 125))
    with pytest.raises(BusyError, match="one writer at a time"):
        history.advance(store)
    history = open_later(url)
    assert history.advance(store) == Advanced(75, 75)
    assert_same(history, store)
    names = {path.rpartition("/")[2] for path in history.files("interactions")}
    assert left[0].rpartition("/")[2] not in names


@pytest.mark.slow
def test_two_that_advance_at_once_write_each_row_once(
    store: EventStore, url: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FILE_ROWS", 20)
    fill(store, range(120))
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: History.open(url).advance(store), range(3)))
    assert sum(one.interactions for one in done) == 120
    assert sum(one.feedback for one in done) == 120
    assert_same(History.open(url), store)


@pytest.mark.slow
def test_a_writer_that_slept_through_its_time_writes_nothing_more(
    store: EventStore, url: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FILE_ROWS", 20)
    fill(store, range(120))
    others: list[Advanced] = []

    def sleep(done: Advanced) -> None:
        if not others:
            fill(store, range(120, 130))
            others.append(open_later(url).advance(store))
            server.puts.clear()

    with pytest.raises(BusyError):
        History.open(url).advance(store, progress=sleep)
    assert others == [Advanced(110, 130)]
    assert server.puts == []
    assert LEASE < LATER
    assert_same(History.open(url), store)


def test_a_bucket_that_is_not_there_is_one_error_of_a_file(store: EventStore, url: str) -> None:
    history = History.open("s3://not-there/history")
    assert history.cursor() is None
    with pytest.raises(OSError, match=r"bucket does not exist.*not-there"):
        history.advance(store)


def test_what_curation_derives_lies_beside_history_and_goes_with_its_file(
    store: EventStore, url: str, server: S3Server
) -> None:
    fill(store, range(120))
    history = History.open(url)
    history.advance(store)
    derived = Derived.open(history)
    assert derived.advance() == len(history.readable()) == 3
    assert derived.advance() == 0
    with derived.connect() as connection:
        assert connection.sql("SELECT count(*) FROM told").fetchall() == [(120,)]
    history.drop_before(date(2026, 3, 2))
    assert len(history.place.derived()) == 2  # one went with its file


def test_a_question_asks_the_server_a_few_times_a_file_and_once_for_the_list(
    store: EventStore, url: str, server: S3Server
) -> None:
    for day in range(10):
        moment = NIGHT + timedelta(days=day)
        store.add_interactions([interaction(10 * day + n, created_at=moment) for n in range(10)])
    history = History.open(url)
    history.advance(store)
    assert len(history.files("interactions")) == 10
    with history.connect() as connection:
        asked = server.asked.copy()
        users = connection.sql("SELECT max(user_id), count(*) FROM interactions").fetchall()
        assert users == [("u6", 100)]
        assert (server.asked - asked)["HEAD"] == 0
        assert (server.asked - asked)["GET"] <= 30
        asked = server.asked.copy()
        connection.sql("SELECT count(*) FROM interactions WHERE day = '2026-03-03'").fetchall()
        assert (server.asked - asked)["GET"] <= 3


@pytest.mark.slow
def test_rows_pruned_from_the_store_are_on_s3(store: EventStore, url: str) -> None:
    history = History.open(url)
    fill(store, range(30))
    history.advance(store)
    before = history_rows(history, "interactions")
    prune(store, 25)
    fill(store, range(30, 33))
    assert history.advance(store) == Advanced(3, 3)
    assert history_rows(history, "interactions")[:30] == before
