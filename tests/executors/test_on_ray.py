"""A real Ray cluster, two workers of which one is killed: the results of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ratchet.errors import ModelError, SettingsError, WorkerLostError
from ratchet.executors import OnRay, run_stage
from ratchet.store import EventStore
from tests.executors import works

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


def test_an_address_where_no_cluster_answers_is_said() -> None:
    with pytest.raises(SettingsError, match="RATCHET_EXECUTOR must name a Ray cluster"):
        list(OnRay("auto").run(works.draw, [1, 2]))
