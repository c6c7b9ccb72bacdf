"""Shards as tasks of a Ray cluster, which the process that runs them is part of."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ratchet.errors import SettingsError
from ratchet.executors.executor import Open

logger = logging.getLogger(__name__)

Shard = TypeVar("Shard")
Result = TypeVar("Result")

LOCAL = "local"
_PATIENCE_SECONDS = 60.0
_AHEAD = 2  # shards for each processor that are handed over at a time


class OnRay:
    """Runs shards as Ray tasks of one processor each, and runs those again that Ray lost.

    Ray tries nothing again by itself: what a lost node costs is counted in one place.

    Args:
        address: `auto` for the cluster that this machine is part of, `local` for one of this
            machine alone that ends with the process, or an address that `ray.init` takes.
        gpus: Part of a GPU that each shard is given.
    """

    def __init__(self, address: str = "auto", *, gpus: float = 0.0) -> None:
        self.address, self.gpus = address, gpus

    @property
    def workers(self) -> int:
        """Processors of the cluster, as it stands."""
        return max(1, int(self._connected().cluster_resources().get("CPU", 1)))

    def run(
        self, work: Callable[[Shard], Result], shards: Iterable[Shard]
    ) -> Iterator[tuple[int, Result]]:
        """Yield places and results as they come. See `Executor.run`."""
        ray = self._connected()
        lost = ray.exceptions
        gone = (
            lost.WorkerCrashedError,
            lost.NodeDiedError,
            lost.ObjectLostError,
            lost.OutOfMemoryError,
            lost.LocalRayletDiedError,
        )
        call = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0)(_call)
        handed, open_ = ray.put(work), Open(shards)
        running: dict[Any, int] = {}
        try:
            while True:
                most = _AHEAD * self.workers
                while len(running) < most and (taken := open_.take()) is not None:
                    running[call.remote(handed, taken[1])] = taken[0]
                if not running:
                    return
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_PATIENCE_SECONDS)
                if not ready and not ray.cluster_resources().get("CPU"):
                    logger.warning("the Ray cluster has no processors: waiting for nodes to join")
                for done in ready:
                    place = running.pop(done)
                    try:
                        result = ray.get(done)
                    except gone as error:
                        open_.lost(place, type(error).__name__)
                        continue
                    except lost.RayTaskError as error:
                        raise (error.cause or error) from None
                    open_.done(place)
                    yield place, result
        finally:
            for task in running:
                ray.cancel(task, force=True)

    def _connected(self) -> Any:
        """Return the library, connected."""
        try:
            import ray
        except ImportError as error:
            raise SettingsError(
                "RATCHET_EXECUTOR=ray needs Ray, which is not installed; run: "
                "pip install 'ratchet-llm[ray]', or set it to processes:N"
            ) from error
        if ray.is_initialized():
            return ray
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if self.address == LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(include_dashboard=False, **options)
            return ray
        try:
            ray.init(address=self.address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"RATCHET_EXECUTOR must name a Ray cluster that answers, got {self.address!r}: "
                f"{str(error)[:200]}; start Ratchet on a node of the cluster (`ray start "
                "--address=HEAD:6379`), or set ray:ADDRESS; where the cluster has a token, set "
                "RAY_AUTH_MODE=token"
            ) from error
        return ray


def _call(work: Callable[[Any], Any], shard: Any) -> Any:
    return work(shard)
