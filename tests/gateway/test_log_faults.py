"""What the log does when files, disks and syncs fail: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.gateway.backlog import SILENT_SECONDS, read_backlog
from ratchet.gateway.drain import KEPT_SUFFIX, Drain
from ratchet.gateway.log import DRAFT_SUFFIX, LogKind, NotDurableError, WriteAheadLog, segments
from ratchet.gateway.log_lines import header_of, lines_left, read
from ratchet.records import AlertEvent
from tests.gateway.conftest import ALWAYS
from tests.gateway.test_log import interaction

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def opened(tmp_path):
    """Logs in the test's folder, which looks after itself ten times as often as usual."""
    logs = []

    def opened(**options):
        logs.append(WriteAheadLog(tmp_path / "wal", look_seconds=0.1, **options))
        return logs[-1]

    yield opened
    for log in logs:
        log.close()


def stored(folder, store):
    """Drain all there is, and return the ids of what is stored."""
    drain = Drain(folder, store, young_seconds=0)
    while drain.once():
        pass
    drain.close()
    return set(store.interactions(ALWAYS)["id"].to_pylist())


def ids(numbers):
    return {f"i-{number}" for number in numbers}


def until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


# Segments and the drain ---------------------------------------------------------------------------


def test_a_log_that_starts_while_the_drain_runs_loses_nothing(tmp_path, store, monkeypatch):
    """The time between the creation of a segment and its lock is widened to 50 ms."""
    lock = fcntl.flock

    def slow(file, operation):
        if threading.current_thread() is threading.main_thread() and operation != fcntl.LOCK_UN:
            time.sleep(0.05)
        lock(file, operation)

    stop = threading.Event()
    folder = tmp_path / "wal"
    draining = threading.Thread(target=Drain(folder, store, young_seconds=0).run, args=(stop,))
    draining.start()
    monkeypatch.setattr(fcntl, "flock", slow)
    for start in range(8):
        log = WriteAheadLog.create(folder)
        for number in range(5):
            log.append(LogKind.INTERACTION, interaction(5 * start + number))
        log.close()
    stop.set()
    draining.join()
    assert stored(folder, store) == ids(range(40))


def test_a_segment_has_its_name_only_with_its_first_line_and_its_lock(
    tmp_path, opened, monkeypatch
):
    seen = []
    rename = Path.rename

    def watched(path, target):
        seen.append((path.suffix, path.stat().st_size > 0, segments(tmp_path / "wal")))
        return rename(path, target)

    log = opened()
    assert segments(tmp_path / "wal") == []
    monkeypatch.setattr(Path, "rename", watched)
    log.append(LogKind.INTERACTION, interaction(0))
    assert seen == [(DRAFT_SUFFIX, True, [])]
    (segment,) = segments(tmp_path / "wal")
    assert header_of(segment).format == 3


def test_neither_an_empty_nor_a_young_segment_is_deleted(tmp_path, store):
    empty = tmp_path / f"{1:020d}-1.wal"  # a gateway of Ratchet 0.1 has not locked it yet
    empty.touch()
    os.utime(empty, (0, 0))
    log = WriteAheadLog.create(tmp_path)
    log.append(LogKind.INTERACTION, interaction(0))
    log.close()
    drain = Drain(tmp_path, store, young_seconds=0.5)
    assert drain.once() == 1
    drain.once()
    assert len(segments(tmp_path)) == 2
    time.sleep(0.6)
    drain.once()
    assert segments(tmp_path) == [empty]


def test_what_a_process_left_before_its_segment_had_a_name_is_cleared_after_an_hour(
    tmp_path, store
):
    young, old = (tmp_path / f".{name}.wal2{DRAFT_SUFFIX}" for name in "ab")
    for draft in (young, old):
        draft.write_bytes(b"torn")
    os.utime(old, (time.time() - 4_000,) * 2)
    Drain(tmp_path, store).once()
    assert (young.exists(), old.exists()) == (True, False)


def test_a_deleted_segment_is_written_anew_with_all_that_was_acknowledged(tmp_path, store, opened):
    log = opened()
    for number in range(3):
        log.append(LogKind.INTERACTION, interaction(number))
    (segment,) = segments(tmp_path / "wal")
    segment.unlink()
    log.append(LogKind.INTERACTION, interaction(3))
    assert log.saved == 1
    assert stored(tmp_path / "wal", store) == ids(range(4))


def test_a_deleted_segment_is_noticed_without_another_request(tmp_path, store, opened):
    log = opened()
    log.append(LogKind.INTERACTION, interaction(0))
    for path in segments(tmp_path / "wal"):
        path.unlink()
    until(lambda: log.saved == 1)
    assert stored(tmp_path / "wal", store) == ids([0])


def test_an_old_segment_is_let_go_of_so_that_what_is_stored_leaves_the_log(tmp_path, store, opened):
    log = opened(segment_seconds=0.2)
    log.append(LogKind.INTERACTION, interaction(0))
    drain = Drain(tmp_path / "wal", store, young_seconds=0)
    until(lambda: drain.once() == 0 and segments(tmp_path / "wal") == [])
    drain.close()
    log.append(LogKind.INTERACTION, interaction(1))
    assert stored(tmp_path / "wal", store) == ids([0, 1])


def test_a_folder_that_was_moved_away_is_made_anew(tmp_path, store, opened):
    log = opened()
    log.append(LogKind.INTERACTION, interaction(0))
    (tmp_path / "wal").rename(tmp_path / "elsewhere")
    log.append(LogKind.INTERACTION, interaction(1))
    until(lambda: log.saved == 1)
    assert stored(tmp_path / "wal", store) == ids([0, 1])


def test_where_a_deleted_segment_cannot_be_written_anew_nothing_is_acknowledged(
    tmp_path, store, opened, monkeypatch
):
    log = opened()
    log.append(LogKind.INTERACTION, interaction(0))
    for path in segments(tmp_path / "wal"):
        path.unlink()
    with monkeypatch.context() as patched:
        fail_to_open(patched)
        with pytest.raises(OSError, match="No space"):
            log.append(LogKind.INTERACTION, interaction(1))
        assert "No space" in log.problem
    log.append(LogKind.INTERACTION, interaction(2))
    assert stored(tmp_path / "wal", store) >= ids([0, 2])


_KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from ratchet.gateway.log import LogKind, WriteAheadLog
from tests.gateway.test_log import interaction

folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[3]))
told = os.open(folder.parent / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
for kill in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        log = WriteAheadLog(folder, segment_bytes=2_000)
        for number in range(1_000):
            log.append(LogKind.INTERACTION, interaction(1_000 * kill + number))
            os.write(told, b"i-%d\\n" % (1_000 * kill + number))
        time.sleep(60)
    time.sleep(rng.choice((0.002, 0.02, 0.06)) * rng.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_processes_killed_while_they_start_and_rotate_lose_nothing(tmp_path, store):
    """40 kills within milliseconds of the log's start, while the drain runs all the time."""
    folder, stop = tmp_path / "wal", threading.Event()
    draining = threading.Thread(target=Drain(folder, store, young_seconds=0).run, args=(stop,))
    draining.start()
    folder.mkdir(exist_ok=True)
    script = [sys.executable, "-c", _KILLED, str(folder), "40", "20"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    stop.set()
    draining.join()
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "told").read_text().split()
    kept = store.interactions(ALWAYS)["id"].to_pylist()
    assert len(told) > 20
    assert set(told) - set(kept) == set()
    assert len(kept) == len(set(kept)) <= len(told) + 100  # a line between its write and its word
    assert (store.counts()["set_aside"], segments(folder)) == (0, [])
    assert store.records(AlertEvent) == ()


# Space, inodes and sizes --------------------------------------------------------------------------


def fail_to_open(patched):
    """Let no segment be made, as without inodes."""
    real = os.open

    def opening(path, flags, *mode, **options):
        if flags & os.O_CREAT and str(path).endswith(DRAFT_SUFFIX):
            raise FULL
        return real(path, flags, *mode, **options)

    patched.setattr(os, "open", opening)


def test_without_inodes_the_old_segment_grows_and_rotation_goes_on_later(
    tmp_path, store, opened, monkeypatch
):
    log = opened(segment_bytes=500)
    log.append(LogKind.INTERACTION, interaction(0))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        fail_to_open(patched)
        for number in range(1, 20):
            log.append(LogKind.INTERACTION, interaction(number))
        assert len(segments(tmp_path / "wal")) == 1
    time.sleep(0.2)
    for number in range(20, 30):
        log.append(LogKind.INTERACTION, interaction(number))
    assert len(segments(tmp_path / "wal")) > 1
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
    assert stored(tmp_path / "wal", store) == ids(range(30))


_LIMITED = """
import resource, sys
from pathlib import Path
from pydantic_core import to_json
from ratchet.gateway.log import LogKind, WriteAheadLog
from tests.gateway.test_log import interaction

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
log, kept = WriteAheadLog.create(Path(sys.argv[1])), []
for number in range(400):
    try:
        log.append(LogKind.INTERACTION, interaction(number))
        kept.append(number)
    except OSError:
        pass
try:
    log.append(LogKind.INTERACTION, interaction(400)[:-1] + b" " * 30_000 + b"}")
except OSError as error:
    print(error, file=sys.stderr)
log.append(LogKind.INTERACTION, interaction(401))
print(len(kept), flush=True)
import os
os._exit(9)
"""


def test_a_real_limit_of_file_sizes_is_met_by_new_segments(tmp_path, store):
    script = [sys.executable, "-c", _LIMITED, str(tmp_path / "wal")]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, int(done.stdout)) == (9, 400), done.stderr
    assert "File too large" in done.stderr  # the line that fits into no segment
    assert len(segments(tmp_path / "wal")) > 3
    assert stored(tmp_path / "wal", store) == ids([*range(400), 401])
    assert store.counts()["set_aside"] == 0


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 256 KiB and few files."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=12", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def use_up_inodes(folder):
    for number in range(100):
        try:
            (folder / str(number)).touch()
        except OSError:
            return
    raise AssertionError("there is no end to the files")


@pytest.mark.parametrize("fault", ["space", "inodes"])
def test_on_a_full_disk_what_is_acknowledged_stays_and_recording_heals(small_disk, store, fault):
    folder = small_disk / "wal"
    log = WriteAheadLog(folder, look_seconds=0.05, segment_bytes=2_000)
    acknowledged, refused = set(), 0
    log.append(LogKind.INTERACTION, interaction(0))
    fill = small_disk / "fill"
    fill.mkdir()
    if fault == "inodes":
        use_up_inodes(fill)
    else:
        (fill / "large").write_bytes(bytes(200_000))
    for number in range(1, 400 if fault == "space" else 100):
        try:
            log.append(LogKind.INTERACTION, interaction(number) + b" " * 500)
            acknowledged.add(number)
        except OSError:
            refused += 1
    if fault == "space":
        assert refused > 200
        assert log.problem is not None
    else:
        assert (refused, len(segments(folder))) == (0, 1)
    for path in fill.iterdir():
        path.unlink()
    for path in segments(folder)[:-1]:  # as the drain does
        acknowledged -= {int(json.loads(e.body)["id"][2:]) for e in read(path, 0, 10**9)}
        path.unlink()
    until(lambda: log.problem is None)  # without a request
    log.append(LogKind.INTERACTION, interaction(500))
    assert stored(folder, store) >= ids(acknowledged | {500})
    log.close()


# Syncs --------------------------------------------------------------------------------------------


def failing(times):
    """A sync that fails so many times, and what it then did."""
    calls, real = [], os.fdatasync

    def sync(file):
        calls.append(os.fstat(file).st_ino)
        if len(calls) <= times:
            raise BROKEN
        real(file)

    return sync, calls


def test_a_failed_sync_fails_who_waits_and_a_new_segment_holds_all(
    tmp_path, store, opened, monkeypatch
):
    sync, calls = failing(1)

    async def run():
        log = opened()
        log.append(LogKind.INTERACTION, interaction(0))
        await log.durable()
        monkeypatch.setattr(os, "fdatasync", sync)
        log.append(LogKind.INTERACTION, interaction(1))
        with pytest.raises(NotDurableError, match="Input/output error"):
            await asyncio.wait_for(log.durable(), 10)
        log.append(LogKind.INTERACTION, interaction(2))
        await asyncio.wait_for(log.durable(), 10)
        assert (log.problem, log.saved) == (None, 1)

    asyncio.run(run())
    assert len(set(calls)) == 2  # the second sync was of another file
    assert stored(tmp_path / "wal", store) == ids(range(3))


def test_while_every_sync_fails_nothing_is_acknowledged_and_then_it_is_again(
    tmp_path, store, opened, monkeypatch
):
    async def run():
        log = opened()
        log.append(LogKind.INTERACTION, interaction(0))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", failing(10**9)[0])
            with pytest.raises(NotDurableError):
                await asyncio.wait_for(log.durable(), 10)
            with pytest.raises(NotDurableError):
                log.append(LogKind.INTERACTION, interaction(1))
            assert "a sync of the log failed" in log.problem
            await asyncio.sleep(0.5)  # it is tried again and leaves no pile of copies
            assert len(list((tmp_path / "wal").iterdir())) == 1
        while log.problem is not None:
            await asyncio.sleep(0.02)
        log.append(LogKind.INTERACTION, interaction(2))
        await asyncio.wait_for(log.durable(), 10)

    asyncio.run(run())
    assert stored(tmp_path / "wal", store) == ids([0, 2])


def test_full_segments_and_the_folder_are_on_the_disk_before_durable_returns(
    tmp_path, opened, monkeypatch
):
    synced = set()

    def noting(call):
        def sync(file):
            synced.add(os.fstat(file).st_ino)
            call(file)

        return sync

    async def run():
        log = opened(segment_bytes=300, sync_seconds=0.5)
        monkeypatch.setattr(os, "fdatasync", noting(os.fdatasync))
        monkeypatch.setattr(os, "fsync", noting(os.fsync))
        for number in range(20):
            log.append(LogKind.INTERACTION, interaction(number))
        await asyncio.wait_for(log.durable(), 10)
        there = [*segments(tmp_path / "wal"), tmp_path / "wal"]
        assert len(there) > 3
        assert {path.stat().st_ino for path in there} <= synced

    asyncio.run(run())


# Lines --------------------------------------------------------------------------------------------


def written(folder, lines):
    log = WriteAheadLog.create(folder)
    for kind, body in lines:
        log.append(kind, body)
    log.close()
    (segment,) = segments(folder)
    return segment


def with_line(segment, number, change):
    """Change one line, the header being line 0, with a checksum that is right."""
    lines = segment.read_bytes().splitlines(keepends=True)
    content = change(lines[number][9:-1])
    lines[number] = b"%08x %b\n" % (zlib.crc32(content), content)
    segment.write_bytes(b"".join(lines))


def test_a_line_of_an_unknown_kind_is_set_aside_and_its_segment_kept(tmp_path, store):
    segment = written(tmp_path, [(LogKind.INTERACTION, interaction(n)) for n in range(3)])
    with_line(segment, 2, lambda text: text.replace(b" i {", b" future {"))
    assert stored(tmp_path, store) == ids([0, 2])
    assert store.counts()["set_aside"] == 1
    kept = segment.with_name(segment.name + KEPT_SUFFIX)
    assert (kept.exists(), segments(tmp_path)) == (True, [])
    with_line(kept, 2, lambda text: text.replace(b" future {", b" i {"))  # a version that knows it
    assert stored(tmp_path, store) == ids(range(3))
    assert list(tmp_path.glob("*.wal2*")) == []


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"id": 3}', b"{", b'"text"', b"null", b"\xff"])
@pytest.mark.parametrize("kind", [LogKind.UNTIMED_FEEDBACK, LogKind.REFUSED, LogKind.FEEDBACK])
def test_a_body_that_is_none_is_set_aside_and_the_others_go_on(tmp_path, store, kind, body):
    written(tmp_path, [(kind, body), (LogKind.INTERACTION, interaction(0))])
    assert stored(tmp_path, store) == ids([0])
    assert store.counts()["set_aside"] == 1


def test_a_segment_of_a_newer_format_stays_for_the_version_that_wrote_it(tmp_path, store):
    segment = written(tmp_path, [(LogKind.INTERACTION, interaction(0))])
    with_line(segment, 0, lambda text: text.replace(b'"format":3', b'"format":4'))
    drain = Drain(tmp_path, store, young_seconds=0)
    assert [drain.once() for _ in range(2)] == [0, 0]
    assert segments(tmp_path) == [segment]
    assert (drain.backlog().newer, drain.backlog().is_well) == (1, False)


def test_a_missing_line_is_counted_and_raises_one_alert(tmp_path, store):
    segment = written(tmp_path, [(LogKind.INTERACTION, interaction(n)) for n in range(6)])
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:2], *lines[4:]]))  # the second and third
    for _ in range(2):  # a drain that starts over says it once
        drain = Drain(tmp_path, store, young_seconds=60)
        drain.once()
        assert drain.backlog().lost == 2
        drain.close()
    (alert,) = store.records(AlertEvent)
    assert (alert.severity, alert.value) == ("critical", 2.0)
    assert "line 2 expected, got 4" in alert.message
    assert stored(tmp_path, store) == ids([0, 3, 4, 5])


def test_a_first_line_that_is_missing_is_noticed_by_the_header(tmp_path, store):
    segment = written(tmp_path, [(LogKind.INTERACTION, interaction(n)) for n in range(3)])
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([lines[0], *lines[2:]]))
    drain = Drain(tmp_path, store)
    drain.once()
    assert drain.backlog().lost == 1


def test_segments_one_after_the_other_have_no_gap(tmp_path, store):
    log = WriteAheadLog(tmp_path, segment_bytes=300)
    for number in range(30):
        log.append(LogKind.INTERACTION, interaction(number))
    log.close()
    drain = Drain(tmp_path, store)
    while drain.once():
        pass
    assert (drain.backlog().lost, drain.backlog().lines) == (0, 0)


def test_a_row_that_the_store_refuses_is_set_aside_alone(tmp_path, store):
    class Refusing:
        """A store to which one row is poison."""

        def __getattr__(self, name):
            return getattr(store, name)

        def add_interaction_rows(self, rows):
            if any(row.id == "i-5" for row in rows):
                raise OverflowError("int too large")
            return store.add_interaction_rows(rows)

    written(tmp_path, [(LogKind.INTERACTION, interaction(n)) for n in range(9)])
    drain = Drain(tmp_path, Refusing(), young_seconds=0)
    assert drain.once() == 9
    drain.close()
    assert set(store.interactions(ALWAYS)["id"].to_pylist()) == ids(range(9)) - ids([5])
    assert store.counts()["set_aside"] == 1


def test_the_backlog_is_told_in_lines_bytes_and_age(tmp_path, store, opened):
    log = opened(segment_bytes=700)
    begun = time.time()
    for number in range(10):
        log.append(LogKind.INTERACTION, interaction(number))
    at = datetime.fromtimestamp(begun + 60, UTC)
    drain = Drain(tmp_path / "wal", store, clock=lambda: at)
    size = sum(path.stat().st_size for path in segments(tmp_path / "wal"))
    found = drain.backlog()
    assert (found.lines, found.bytes) == (10, size)
    assert found.age_seconds == pytest.approx(60, abs=5)
    drain.once()
    assert (drain.backlog().lines, drain.backlog().age_seconds) == (0, 0.0)


def test_a_log_that_nobody_drains_is_a_problem_once_it_has_waited(tmp_path, opened):
    log = opened()
    log.append(LogKind.INTERACTION, interaction(0))
    now = datetime.now(UTC)
    assert read_backlog(tmp_path / "wal", now).problem is None  # its drain may only be starting
    later = read_backlog(tmp_path / "wal", now + timedelta(seconds=SILENT_SECONDS + 5))
    assert "nobody has drained the log" in (later.problem or "")
    assert later.age_seconds >= SILENT_SECONDS


def test_lines_left_are_counted_from_the_end_of_a_large_segment(tmp_path):
    long = interaction(0)[:-1] + b" " * 300_000 + b"}"
    segment = written(tmp_path, [(LogKind.INTERACTION, long)] * 4)
    assert lines_left(segment, 0) == 4
    second = list(read(segment, 0, 10**9))[1]
    assert lines_left(segment, second.end) == 2
