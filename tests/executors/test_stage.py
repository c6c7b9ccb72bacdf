"""A stage's manifest: what is done is not done again, whoever was killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ratchet.errors import WorkerLostError
from ratchet.executors import Processes, run_stage
from ratchet.store import EventStore
from tests.executors import works

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from contextlib import closing
from ratchet.executors import executor_of, run_stage
from ratchet.store import EventStore
from tests.executors import works

if __name__ == "__main__":
    url, folder, executor = sys.argv[1:]
    with closing(EventStore.open(url)) as store:
        shards = [[folder, seed] for seed in range(12)]
        chosen = executor_of(executor)
        print(run_stage("drawing 1", works.slow_draw, shards, executor=chosen, manifest=store))
"""


def begun(folder: Path) -> dict[int, int]:
    return {
        int(path.name.removeprefix("begun-")): len(path.read_text())
        for path in folder.glob("begun-*")
    }


def test_a_run_killed_by_9_goes_on_where_it_was(tmp_path: Path) -> None:
    url, script, folder = f"sqlite:///{tmp_path}/s.db", tmp_path / "run.py", tmp_path / "begun"
    script.write_text(RUN)
    folder.mkdir()
    command = [sys.executable, str(script), url, str(folder), "processes:2"]
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    first = subprocess.Popen(command, env=environment)
    try:
        with closing(EventStore.open(url)) as store:
            deadline = time.monotonic() + 60
            while len(store.shard_results("drawing 1")) < 4 and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    time.sleep(1.0)  # its workers end with the shard that they are at
    with closing(EventStore.open(url)) as store:
        kept = store.shard_results("drawing 1")
    assert 4 <= len(kept) < 12
    second = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert second.stdout == f"{[works.draw(seed) for seed in range(12)]}\n"
    times = begun(folder)
    assert sorted(times) == list(range(12))
    assert set(times.values()) <= {1, 2}
    assert sum(times.values()) <= 12 + 4  # two at work, two on their way
    assert sum(count == 1 for count in times.values()) >= len(kept)


def test_results_are_the_same_anew_and_from_the_manifest(tmp_path: Path) -> None:
    with closing(EventStore.open(f"sqlite:///{tmp_path}/s.db")) as store:
        shards = [[str(tmp_path), seed] for seed in range(3)]
        first = run_stage("drawing 1", works.slow_draw, shards, manifest=store)
        again = run_stage("drawing 1", works.slow_draw, [*shards[1:], [str(tmp_path), 9]],
                          manifest=store)  # fmt: skip
        other = run_stage("drawing 2", works.slow_draw, shards[:1], manifest=store)
    assert [*first[1:], works.draw(9)] == again
    assert other == first[:1]
    assert begun(tmp_path) == {0: 2, 1: 1, 2: 1, 9: 1}


def test_a_shard_that_fails_is_noted_and_tried_again_by_the_next_run(tmp_path: Path) -> None:
    with closing(EventStore.open(f"sqlite:///{tmp_path}/s.db")) as store:
        with pytest.raises(WorkerLostError, match="shard 2"):
            run_stage(
                "killing 1", works.kill_always, [0, 1, 2], executor=Processes(1), manifest=store
            )
        assert list(store.shard_results("killing 1").values()) == [0]
        assert run_stage("killing 1", works.kill_always, [0, 2], manifest=store) == [0, 2]
        with store.reading() as connection:
            rows = connection.exec_driver_sql("SELECT state, result FROM shards ORDER BY 1")
            states = [tuple(row) for row in rows]
    assert [state for state, _ in states] == ["done", "done", "failed"]
    assert "killed" in states[2][1] or "lost" in states[2][1]


def test_what_is_done_stands_and_what_failed_gives_way(tmp_path: Path) -> None:
    with closing(EventStore.open(f"sqlite:///{tmp_path}/s.db")) as store:
        store.keep_shard("s", "k", "failed", "it was killed")
        assert store.shard_results("s") == {}
        store.keep_shard("s", "k", "done", [1.5])
        store.keep_shard("s", "k", "failed", "late")
        store.keep_shard("s", "k", "done", [2.5])
        assert store.shard_results("s") == {"k": [1.5]}
