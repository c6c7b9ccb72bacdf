"""Executors: the shards of a stage run in this process, in several, or on a Ray cluster.

    executor = executor_of("processes:2")            # or "inline", "ray", "ray:ADDRESS"
    for place, result in executor.run(work, shards):
        ...                                          # as they come

`work` is a function of its shard alone that can be pickled: the results are the same whichever
executor runs it and however many workers there are. A worker that is killed costs its shard, which
is run again. `run_stage` keeps results in a manifest, so that a run that is stopped goes on.
"""

from ratchet.executors.choice import executor_of
from ratchet.executors.executor import INLINE, Executor, Inline
from ratchet.executors.on_ray import OnRay
from ratchet.executors.several import Processes
from ratchet.executors.stage import Manifest, run_stage

__all__ = [
    "INLINE",
    "Executor",
    "Inline",
    "Manifest",
    "OnRay",
    "Processes",
    "executor_of",
    "run_stage",
]
