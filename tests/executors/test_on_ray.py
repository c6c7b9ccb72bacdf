"""A real Ray cluster, two workers of which one is killed: the results of this process."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ratchet.errors import ModelError, SettingsError, WorkerLostError
from ratchet.executors import INLINE, OnRay, run_stage
from ratchet.store import EventStore
from tests.executors import works
from tests.executors.test_executors import needs_minilm
from tests.executors.whole_stages import everything

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that runs nothing, and two nodes of one processor each."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_a_node_killed_in_mid_shard_costs_its_shard(cluster: Any, tmp_path: Path) -> None:
    shards = [[str(tmp_path), seed] for seed in range(12)]

    def kill() -> None:
        while len(list(tmp_path.glob("begun-*"))) < 3:
            time.sleep(0.02)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    killing = threading.Thread(target=kill)
    killing.start()
    with closing(EventStore.open(f"sqlite:///{tmp_path}/s.db")) as store:
        found = run_stage("drawing 1", works.slow_draw, shards,
                          executor=OnRay(cluster.address), manifest=store)  # fmt: skip
        assert len(store.shard_results("drawing 1")) == 12
    killing.join()
    assert found == [works.draw(seed) for seed in range(12)]
    times = [len((tmp_path / f"begun-{seed}").read_text()) for seed in range(12)]
    assert 12 < sum(times) <= 12 + 2
    with pytest.raises(ModelError, match="shards below 2 are wanted, got 2"):
        list(OnRay(cluster.address).run(works.refuse, range(4)))
    with pytest.raises(WorkerLostError, match=r"got 3 .* at shard 2"):
        list(OnRay(cluster.address).run(works.kill_always, range(4)))


@needs_minilm
def test_clusters_a_training_set_and_verdicts_are_those_of_this_process_when_a_node_is_killed(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = everything(INLINE, tmp_path / "here.db", monkeypatch)
    executor = NodeKilling(cluster, tmp_path)
    there = everything(executor, tmp_path / "there.db", monkeypatch)
    assert there == here
    assert executor.killed == 3


class NodeKilling(OnRay):
    """Kills a node of the cluster while it is at a shard of each stage, and then adds another."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        super().__init__(cluster.address)
        self._cluster, self._folder, self.killed = cluster, folder, 0

    def run(self, work: Any, shards: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        begun = self._folder / f"begun-{self.killed}"
        begun.mkdir()
        numbered = ((place, shard) for place, shard in enumerate(shards))
        killing = threading.Thread(target=self._kill, args=(begun,))
        killing.start()
        yield from super().run(partial(works.begin_slowly, work, str(begun)), numbered)
        killing.join()
        self._cluster.add_node(num_cpus=1)  # Ray starts nodes in the main thread alone
        times = [len(path.read_text()) for path in begun.iterdir()]
        assert len(times) < sum(times) <= len(times) + 2
        self.killed += 1

    def _kill(self, begun: Path) -> None:
        while len(list(begun.iterdir())) < 3:
            time.sleep(0.02)
        self._cluster.remove_node(next(iter(self._cluster.worker_nodes)), allow_graceful=False)


def test_an_address_where_no_cluster_answers_is_said() -> None:
    with pytest.raises(SettingsError, match="RATCHET_EXECUTOR must name a Ray cluster"):
        list(OnRay("auto").run(works.draw, [1, 2]))
