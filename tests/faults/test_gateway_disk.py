"""The disk under the gateway's log full, without inodes, read-only, failing to sync, or emptied.

What cannot be recorded is not acknowledged, and recording goes on in the same processes as soon as
it can.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from ratchet.gateway.log import is_abandoned, segments
from tests.faults.ledger import Row
from tests.faults.test_gateway_kills import forked_workers
from tests.faults.test_gateway_store import forked, loaded, note
from tests.gateway.killing import Load, free_port, kill_group, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory, where the machine lets one be mounted."""
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "faults", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounts a small disk, which takes the rights of root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


class Disk:
    """Fills a small disk and empties it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "filler"
        self.folder.mkdir()

    def fill_space(self) -> None:
        with suppress(OSError), (self.folder / "block").open("ab", buffering=0) as file:
            for size in (65_536, 4_096):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def fill_inodes(self) -> None:
        with suppress(OSError):
            for number in count(len(list(self.folder.iterdir()))):
                (self.folder / str(number)).touch()

    def empty(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("what", "options"), [("space", "size=2m"), ("inodes", "nr_inodes=64")], ids=["space", "inodes"]
)
def test_without_space_or_inodes_nothing_is_acknowledged_and_it_heals_by_itself(
    tmp_path: Path, store_url: str, row: Row, what: str, options: str
) -> None:
    home, port = tmp_path / "home", free_port()
    load = Load(f"http://127.0.0.1:{port}")
    with small_disk(home / "gateway", options) as folder, forked(home, store_url, port) as child:
        disk = Disk(folder)

        async def fill() -> None:
            before = forked_workers(child.pid)
            for _ in range(3):
                refused, kept = load.unrecorded, load.acknowledged

                async def is_felt(refused: int = refused, kept: int = kept) -> bool:
                    disk.fill_space() if what == "space" else disk.fill_inodes()
                    grew = load.acknowledged > kept + 150  # an open segment may grow on
                    return load.unrecorded > refused + 10 or (what == "inodes" and grew)

                await until(is_felt, "a full disk is not felt")
                disk.empty()
                await load.until_more(60)
            assert sorted(forked_workers(child.pid)) == sorted(before)  # nobody was started again

        asyncio.run(loaded(load, fill))
        kill_group(child)
        note(row, load, home, store_url, "gateway under load", f"log's disk without {what}")


def test_on_a_read_only_disk_it_loses_nothing_and_goes_on_when_it_may(
    tmp_path: Path, store_url: str, row: Row
) -> None:
    home, port = tmp_path / "home", free_port()
    load = Load(f"http://127.0.0.1:{port}")
    with small_disk(home / "gateway", "size=4m") as folder:
        with forked(home, store_url, port) as child:

            async def die() -> None:
                kill_group(child)

            asyncio.run(loaded(load, die))
        _remount(folder, "ro")
        with forked(home, store_url, port) as child:
            asyncio.run(_refuses_or_says_so(load, child))
            _remount(folder, "rw")
        with forked(home, store_url, port) as child:

            async def goes_on() -> None:
                await load.until_more(30)

            asyncio.run(loaded(load, goes_on))
            kill_group(child)
        note(row, load, home, store_url, "gateway under load", "log's disk read-only at the start")
        row.kills = 4


def _remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


async def _refuses_or_says_so(load: Load, child: subprocess.Popen[bytes]) -> None:
    """Wait until a gateway has ended, or answers and says that it does not record."""
    kept = load.acknowledged
    async with load.session() as session:

        async def has() -> bool:
            if child.poll() is not None:
                return True
            load.number += 1
            with suppress(Exception):
                await load.one(session, load.number)
            return load.unrecorded > 3

        await until(has, "it neither ends nor says that nothing is recorded")
    assert load.acknowledged == kept


def test_a_sync_that_fails_acknowledges_nothing_and_is_tried_anew(
    tmp_path: Path, store_url: str, row: Row
) -> None:
    home, port, sign = tmp_path / "home", free_port(), tmp_path / "failing"
    load = Load(f"http://127.0.0.1:{port}")
    with forked(home, store_url, port, "--sync", RATCHET_TEST_FAILING_SYNC=str(sign)) as child:

        async def fail() -> None:
            before = forked_workers(child.pid)
            for _ in range(3):
                sign.touch()
                refused = load.unrecorded

                async def is_felt(refused: int = refused) -> bool:
                    return load.unrecorded > refused + 10

                await until(is_felt, "a failing sync is not felt")
                kept = load.acknowledged
                await until(is_felt, "a failing sync is not felt")
                assert load.acknowledged == kept
                sign.unlink()
                await load.until_more(60)
            assert sorted(forked_workers(child.pid)) == sorted(before)

        asyncio.run(loaded(load, fail))
        kill_group(child)
    note(row, load, home, store_url, "gateway under load, --sync", "failing fdatasync (EIO)")


def test_segments_that_are_deleted_underneath_are_written_again(
    tmp_path: Path, store_url: str, row: Row
) -> None:
    home, port, rng = tmp_path / "home", free_port(), random.Random(4)
    load = Load(f"http://127.0.0.1:{port}")
    log = home / "gateway" / "wal"
    # large ones: what a process still writes to is deleted, of the others nobody has a copy
    with forked(home, store_url, port, RATCHET_TEST_SEGMENT_BYTES="16000000") as child:
        deleted = 0

        async def delete() -> None:
            nonlocal deleted
            while deleted < 30:
                with suppress(OSError, IndexError):  # the drain deletes some too
                    found = [path for path in segments(log) if not is_abandoned(path)]
                    rng.choice(found).unlink()
                    deleted += 1
                await asyncio.sleep(rng.uniform(0.0, 0.1))
                await load.until_more(rng.randrange(1, 30))
            await asyncio.sleep(2.5)  # a process looks at its segment each second

        asyncio.run(loaded(load, delete))
        child.terminate()  # it lets go of its segments before it ends
        child.wait(60)
    note(row, load, home, store_url, "gateway under load", "30 segments of the log deleted")
