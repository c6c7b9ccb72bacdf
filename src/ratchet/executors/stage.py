"""A stage whose shards have small results: they are kept in a manifest as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ratchet.errors import WorkerLostError
from ratchet.executors.executor import INLINE, Executor
from ratchet.records import digest


class Manifest(Protocol):
    """Where the results of shards are kept; `ratchet.store.EventStore` is one."""

    def shard_results(self, stage: str) -> Mapping[str, Any]:
        """Return the results of a stage's shards that are done, by key."""
        ...

    def keep_shard(self, stage: str, key: str, state: str, result: Any) -> None:
        """Write down that a shard is `done`, with its result, or `failed`, with the reason."""
        ...


def run_stage(
    stage: str,
    work: Callable[[Any], Any],
    shards: Sequence[Any],
    *,
    executor: Executor = INLINE,
    manifest: Manifest | None = None,
) -> list[Any]:
    """Run a stage's shards and return their results in order; what is done is not done again.

    Vectors and verdicts need no manifest: the store keeps them by their content, where
    forgetting finds them. A manifest is for results that have no other place, and holds no texts.

    Args:
        stage: Names the work and the version of it.
        work: A function of a shard that can be pickled; its result can be written as JSON, and is
            what JSON makes of it in every run.
        shards: What tells one from another, can be written as JSON: a seed, a range, a digest.
        executor: What runs them.
        manifest: Keeps results; without it nothing is kept.

    Raises:
        WorkerLostError: The workers of one shard were killed three times. All others that were
            done are kept.
    """
    keys = [digest([stage, shard]) for shard in shards]
    known = dict(manifest.shard_results(stage)) if manifest is not None else {}
    open_ = [place for place, key in enumerate(keys) if key not in known]
    try:
        for number, result in executor.run(work, [shards[place] for place in open_]):
            key = keys[open_[number]]
            known[key] = result = json.loads(json.dumps(result))
            if manifest is not None:
                manifest.keep_shard(stage, key, "done", result)
    except WorkerLostError as error:
        if manifest is not None and error.shard is not None:
            manifest.keep_shard(stage, keys[open_[error.shard]], "failed", str(error))
        raise
    return [known[key] for key in keys]
