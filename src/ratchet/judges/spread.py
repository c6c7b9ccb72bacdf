"""An endpoint that is asked by the workers of an executor, a shard of questions at a time."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from ratchet.executors import Executor
from ratchet.models.asking import Asked, ask_endpoint
from ratchet.models.endpoint import Endpoint, Question, Reply, key_in
from ratchet.models.limits import Limits

logger = logging.getLogger(__name__)

SHARD = 256
"""Questions in a shard: so many replies are lost with a worker, at most."""


def ask_spread(
    questions: Sequence[Question],
    save: Callable[[Sequence[Reply]], None],
    *,
    endpoint: Endpoint,
    limits: Limits,
    executor: Executor,
) -> Asked:
    """Ask an endpoint by an executor's workers; replies are saved here, shard by shard.

    Each worker has its share of the requests at once and of the pace. Where a shard ends early,
    because the endpoint fails, nothing more is asked.

    Args:
        questions: What to ask, with distinct keys.
        save: Called with the replies of each shard.
        endpoint: Whom. The workers read its key in their own environment.
        limits: Pace and attempts, of all workers together; without a spend ceiling.
        executor: Runs the shards.

    Raises:
        ModelError: The endpoint refuses every question.
        WorkerLostError: The workers of one shard were killed three times.
    """
    shards = [questions[start : start + SHARD] for start in range(0, len(questions), SHARD)]
    if not shards:
        return Asked(0, {}, 0, None, 0.0, 0.0)
    workers = min(executor.workers, len(shards))
    work = partial(_ask, endpoint, _share(limits, workers))
    began, asked, spent, why = time.monotonic(), 0, 0.0, None
    failed: Counter[str] = Counter()
    for _, (replies, part) in executor.run(work, shards):
        if replies:
            save(replies)
        asked, spent = asked + part.asked, spent + part.spent
        failed.update(part.failed)
        logger.info("asked %d of %d questions, %d failed", asked, len(questions), failed.total())
        if part.why_not_asked is not None:
            why = part.why_not_asked
            break
    left = len(questions) - asked
    return Asked(asked, dict(failed), left, why, spent, time.monotonic() - began)


def _share(limits: Limits, workers: int) -> Limits:
    """Return the part of the pace that each of some workers has."""
    paces = ("requests_per_minute", "tokens_per_minute")
    parts = {name: pace / workers for name in paces if (pace := getattr(limits, name)) is not None}
    return limits.model_copy(update={"concurrency": max(1, limits.concurrency // workers), **parts})


def _ask(
    endpoint: Endpoint, limits: Limits, questions: Sequence[Question]
) -> tuple[list[Reply], Asked]:
    replies: list[Reply] = []
    key = key_in(os.environ, endpoint, needs="a worker needs the key of the endpoint")
    asked = ask_endpoint(questions, endpoint, limits, api_key=key, save=replies.extend)
    return replies, asked
