"""Files are seen whole: the old one or the new one, whatever happens meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ratchet.files.whole import sync_folders, write_whole, writing_whole


def modes(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_below_folders_that_were_missing_for_its_owner_alone(tmp_path):
    place = tmp_path / "a" / "b" / "c.json"
    write_whole(place, b"new")
    assert place.read_bytes() == b"new"
    assert modes(place) == 0o600
    assert [path.name for path in place.parent.iterdir()] == ["c.json"]


@pytest.mark.parametrize(("mode", "mask", "found"), [(0o640, 0o077, 0o640), (None, 0o027, 0o640)])
def test_permissions_are_those_asked_for_or_those_of_the_process(tmp_path, mode, mask, found):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"x", mode=mode)
    finally:
        os.umask(before)
    assert modes(tmp_path / "file") == found


def test_an_error_on_the_way_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    place = tmp_path / "file"
    write_whole(place, b"old")

    def fail() -> None:
        with writing_whole(place) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert place.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "file", b"old")
    done = subprocess.run(
        [sys.executable, "-c",
         "import resource, signal, sys\n"
         "from pathlib import Path\n"
         "from ratchet.files.whole import write_whole\n"
         "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
         "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
         "write_whole(Path(sys.argv[1]), b'n' * 5000)\n",
         str(tmp_path / "file")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "File too large" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_as_long_as_the_system_takes_is_written(tmp_path):
    name = "n" * 250 + ".json"
    write_whole(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_reader_never_sees_a_part_while_several_write(tmp_path):
    place, ends = tmp_path / "file", threading.Event()
    contents = {bytes([65 + n]) * 100_000 for n in range(3)}
    write_whole(place, next(iter(contents)), sync=False)

    def write(content: bytes) -> None:
        while not ends.is_set():
            write_whole(place, content, sync=False)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    seen = {place.read_bytes() for _ in range(300)}
    ends.set()
    for writer in writers:
        writer.join()
    assert seen <= contents
    assert list(tmp_path.iterdir()) == [place]


def test_what_a_killed_writer_left_is_a_hidden_draft(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c",
         "import os, signal, sys\n"
         "from pathlib import Path\n"
         "from ratchet.files.whole import writing_whole\n"
         "with writing_whole(Path(sys.argv[1])) as file:\n"
         "    file.write(b'half')\n"
         "    os.kill(os.getpid(), signal.SIGKILL)\n",
         str(tmp_path / "day.parquet")],
        check=False,
    )  # fmt: skip
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".day.parquet.")


def test_names_of_all_folders_are_synced(tmp_path):
    write_whole(tmp_path / "a" / "b" / "file", b"x")
    sync_folders(tmp_path)
