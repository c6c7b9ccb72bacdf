"""History in a folder: killed writers, several at once, and memory that does not grow with rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.records import Message
from ratchet.store import EventStore
from ratchet.store.history import Advanced, History
from tests.store.test_history import (
    NIGHT,
    OpenStore,
    assert_same,
    everything_of,
    fill,
    history_rows,
    interaction,
)

ADVANCE = """
import os, signal, sys
from pathlib import Path
from ratchet.store import EventStore
from ratchet.store.history import History, writing
url, folder, killed_at, rows = sys.argv[1:]
writing.FILE_ROWS = int(rows)
replace, number = Path.replace, int(killed_at)
def count(path, target):
    global number
    number -= 1
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
Path.replace = count
done = History.open(folder).advance(EventStore.open(url))
print(done.interactions, done.feedback)
"""


def advance(url: str, history: History, killed_at: int = 0, rows: int = 20) -> int:
    """Advance in a process that is killed before its nth file is in its place; 0 for never."""
    words = [sys.executable, "-c", ADVANCE, url, history.address, str(killed_at), str(rows)]
    return subprocess.run(words, check=False, timeout=120, env=os.environ).returncode


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "history")


@pytest.mark.mostly_slow("sqlite-2")
@pytest.mark.parametrize(
    "killed_at",
    [n if n in (2, 5) else pytest.param(n, marks=pytest.mark.slow) for n in range(1, 9)],
)
def test_a_writer_that_is_killed_anywhere_is_made_up_for(
    open_store: OpenStore, store_url: str, history: History, killed_at: int
) -> None:
    store = open_store()
    fill(store, range(50))
    history.advance(store)
    before = history_rows(history, "feedback")
    fill(store, range(50, 80))
    # two files of interactions (midnight), the cursor, one file, the cursor, and so on
    assert advance(store_url, history, killed_at) == -signal.SIGKILL
    assert history_rows(history, "feedback")[:50] == before
    seen = len(history_rows(history, "interactions"))
    assert seen == (50 if killed_at <= 3 else 70 if killed_at <= 5 else 80)
    fill(store, range(80, 90))
    done = history.advance(store)
    assert done.interactions == 90 - seen
    assert_same(history, store)
    counted = {Path(path) for path in history.files("interactions") + history.files("feedback")}
    history.advance(store)  # deletes what larger files replaced
    assert set(Path(history.address).rglob("*.parquet*")) == counted


@pytest.mark.slow
def test_what_a_killed_writer_left_is_erased_with_its_user(
    store: EventStore, history: History, tmp_path: Path
) -> None:
    fill(store, range(80))
    # the cursor that nothing is behind, then two files of interactions (midnight)
    assert advance(f"sqlite:///{tmp_path / 'store.db'}", history, killed_at=4, rows=100) == -9
    assert history.files("interactions") == []
    left = list(Path(history.address).rglob("*.parquet"))
    assert len(left) == 2
    erased = history.erase("u3", [])
    assert (erased.interactions, erased.files) == (11, 2)
    assert b"Frage 73:" not in everything_of(history)


@pytest.mark.slow
def test_processes_that_advance_at_once_write_each_row_once(
    open_store: OpenStore, store_url: str, history: History
) -> None:
    store = open_store()
    fill(store, range(120))
    words = [sys.executable, "-c", ADVANCE, store_url, history.address, "0", "20"]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    done = [tuple(map(int, one.communicate(timeout=120)[0].split())) for one in running]
    assert [sum(part) for part in zip(*done, strict=True)] == [120, 120]
    assert_same(history, store)
    assert history.advance(store) == Advanced(0, 0)


MEASURE = """
import json, re, sys
from pathlib import Path
import pyarrow as pa
from ratchet.store import EventStore
from ratchet.store.history import History, writing
writing.FILE_BYTES = 4 * 2**20
writing._READ_BYTES = 2**20
done = History.open(sys.argv[2]).advance(EventStore.open(sys.argv[1]))
# not ru_maxrss, which begins with that of the process that forked
most = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps([done.interactions, most, pa.default_memory_pool().max_memory()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_copying_four_times_as_many_rows_takes_no_more_memory(
    store: EventStore, tmp_path: Path
) -> None:
    long = "".join(chr(97 + number * number % 26) for number in range(4_000))
    said = (Message(role="user", content=long),)
    url, measured, rows = f"sqlite:///{tmp_path / 'store.db'}", [], 0
    for size in (4_000, 16_000):  # 50 MB and 200 MB: prompt, messages and response
        store.add_interactions(
            [
                interaction(n, created_at=NIGHT, messages=said, response=long)
                for n in range(rows, size)
            ]
        )
        rows = size
        words = [sys.executable, "-c", MEASURE, url, str(tmp_path / str(size))]
        measured.append(json.loads(subprocess.check_output(words, timeout=300)))
    (few, less, arrow_less), (many, more, arrow_more) = measured
    assert (few, many) == (4_000, 16_000)
    assert arrow_more < 1.5 * arrow_less + 2**20
    assert arrow_more < 6 * 4 * 2**20
    assert more - less < 25_000  # kB, where the rows are 150 MB more
