"""The write-ahead log and its drain."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from pydantic_core import to_json

from ratchet.gateway.drain import MOST_LINES, Drain
from ratchet.gateway.log import LogKind, WriteAheadLog, is_abandoned, read, segments
from tests.gateway.conftest import ALWAYS

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


def interaction(number):
    return to_json(
        {
            "id": f"i-{number}", "session_id": "s", "user_id": "u", "created_at": NOW,
            "model_version": "m/1", "messages": [{"role": "user", "content": "é\n"}],
            "response": f"answer {number}",
        }
    )  # fmt: skip


@pytest.fixture
def log(tmp_path):
    opened = WriteAheadLog.create(tmp_path)
    yield opened
    opened.close()


def whole(path):
    return list(read(path, 0, 10**9))


def test_what_was_appended_is_read_in_order(log, tmp_path):
    for number in range(100):
        log.append(LogKind.INTERACTION, interaction(number))
    (segment,) = segments(tmp_path)
    entries = whole(segment)
    assert [entry.body for entry in entries] == [interaction(n) for n in range(100)]
    assert all(first.end == second.start for first, second in pairwise(entries))


def test_a_torn_end_is_left_out_at_every_byte(log, tmp_path):
    log.append(LogKind.INTERACTION, interaction(0))
    log.append(LogKind.FEEDBACK, b'{"id": "f"}')
    (segment,) = segments(tmp_path)
    content = segment.read_bytes()
    first = whole(segment)[0].end
    torn = tmp_path / "torn"
    for length in range(len(content)):
        torn.write_bytes(content[:length])
        assert len(whole(torn)) == (length >= first)


def test_a_damaged_line_is_told_from_a_whole_one_and_set_aside(tmp_path, store):
    log = WriteAheadLog.create(tmp_path)
    for number in range(3):
        log.append(LogKind.INTERACTION, interaction(number))
    log.close()
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[content.index(b"answer 1")] ^= 1
    segment.write_bytes(content)
    Drain(tmp_path, store).once()
    assert store.counts()["interactions"] == 2
    assert store.counts()["set_aside"] == 1


def test_a_full_segment_is_followed_by_another_and_drained_ones_go(tmp_path, store):
    log = WriteAheadLog(tmp_path, segment_bytes=2_000)
    for number in range(50):
        log.append(LogKind.INTERACTION, interaction(number))
    assert len(segments(tmp_path)) > 3
    drain = Drain(tmp_path, store, young_seconds=0)
    while drain.once():
        pass
    drain.once()
    (last,) = segments(tmp_path)  # the one that is being written
    assert not is_abandoned(last)
    assert store.interactions(ALWAYS)["id"].to_pylist() == [f"i-{n}" for n in range(50)]
    log.close()
    assert drain.waiting_bytes() == 0
    drain.once()
    assert segments(tmp_path) == []


def test_a_backlog_of_several_processes_is_stored_in_order_in_bounded_transactions(tmp_path, store):
    """Two processes wrote turn by turn, each a segment after the other."""
    logs = [WriteAheadLog(tmp_path, segment_bytes=20_000) for _ in range(2)]
    for number in range(MOST_LINES + 700):
        logs[number % 3 % 2].append(LogKind.INTERACTION, interaction(number))
    for log in logs:
        log.close()
    assert len(segments(tmp_path)) > 40
    drain = Drain(tmp_path, store, young_seconds=0)
    assert drain.once() == MOST_LINES
    assert drain.once() == 700
    assert 0 < len(segments(tmp_path)) < 20  # what the first call drained is gone
    assert drain.once() == 0
    assert segments(tmp_path) == []
    in_store = store.interactions(ALWAYS)["id"].to_pylist()  # one time: in order of arrival
    assert in_store == [f"i-{number}" for number in range(MOST_LINES + 700)]


def test_lines_of_a_megabyte_are_stored_a_few_at_a_time(log, tmp_path, store):
    for number in range(10):
        log.append(LogKind.INTERACTION, interaction(number)[:-1] + b" " * 1_000_000 + b"}")
    drain = Drain(tmp_path, store)
    assert [drain.once() for _ in range(4)] == [4, 4, 2, 0]


def test_a_rotated_segment_is_let_go_of_while_it_is_being_synced(tmp_path, monkeypatch):
    syncing, go_on = threading.Event(), threading.Event()

    def slow_disk(_: int) -> None:
        syncing.set()
        assert go_on.wait(30)

    monkeypatch.setattr(os, "fdatasync", slow_disk)
    log = WriteAheadLog(tmp_path, segment_bytes=10)
    log.append(LogKind.INTERACTION, interaction(0))
    assert syncing.wait(30)
    log.append(LogKind.INTERACTION, interaction(1))
    first, second = segments(tmp_path)
    assert is_abandoned(first)
    assert not is_abandoned(second)
    go_on.set()
    log.close()


def test_a_drain_that_starts_over_doubles_nothing(log, tmp_path, store):
    log.append_all([(LogKind.INTERACTION, interaction(number)) for number in range(20)])
    log.append(LogKind.INTERACTION, b"{not json")
    for _ in range(3):
        drain = Drain(tmp_path, store)
        drain.once()
        drain.close()
    assert store.counts()["interactions"] == 20
    assert store.counts()["set_aside"] == 1


def test_two_drains_take_turns(log, tmp_path, store):
    log.append(LogKind.INTERACTION, interaction(0))
    first, second = Drain(tmp_path, store), Drain(tmp_path, store)
    assert first.once() == 1
    assert second.once() == 0
    first.close()
    assert second.once() == 1  # it starts over; the store knows the event


def test_a_store_that_fails_is_asked_again(log, tmp_path, store):
    class Failing:
        """A database that is away for a moment: the seam between drain and store."""

        calls = 0

        def __getattr__(self, name):
            return getattr(store, name)

        def adding(self):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("the database is away")
            return store.adding()

    log.append(LogKind.INTERACTION, interaction(0))
    stop = threading.Event()
    drain = Drain(tmp_path, Failing())
    thread = threading.Thread(target=drain.run, args=(stop,))
    thread.start()
    until = time.monotonic() + 10
    while not store.counts()["interactions"] and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    thread.join()
    assert store.counts()["interactions"] == 1


def test_many_wait_for_one_sync_and_all_are_told(tmp_path):
    async def many():
        log = WriteAheadLog.create(tmp_path)
        log.append(LogKind.INTERACTION, interaction(0))
        begun = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*[log.durable() for _ in range(200)]), 10)
        log.close()
        return time.monotonic() - begun

    assert asyncio.run(many()) < 5
