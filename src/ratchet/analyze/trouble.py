"""What a version's live trouble is mostly about: failures since it began, of its own traffic.

A cycle's analysis tells it thoroughly and later; this tells it at once, for an alert.
"""

from __future__ import annotations

import logging
from datetime import datetime

import numpy as np

from ratchet.analyze.embedding import embed
from ratchet.analyze.failed import which_failed
from ratchet.analyze.failures import find_failure_clusters
from ratchet.analyze.validations import usable_versions
from ratchet.evaluation.metrics import QualityWeights, join_feedback, quality
from ratchet.models import Encoder
from ratchet.store import EventStore, Window

logger = logging.getLogger(__name__)

MOST = 2_000
"""Interactions that are looked at, the latest ones."""


def trouble_about(
    store: EventStore,
    version: str,
    since: datetime,
    until: datetime,
    *,
    encoder: Encoder | None,
    rng: np.random.Generator,
) -> str | None:
    """Name the failure cluster that most of a version's failures are in; None where there is none.

    Assumptions and error rate are those of `ratchet.analyze.failures.find_failure_clusters`; what
    fails everywhere alike is no cluster.

    Args:
        store: The store.
        version: The version.
        since: When its trouble began.
        until: Up to when.
        encoder: Makes vectors of messages; their words do where None.
        rng: Source of randomness.
    """
    window = Window(since, until, version)
    table = store.interactions(window)
    if not table.num_rows:
        return None
    table = table.slice(max(0, table.num_rows - MOST))
    outcomes = join_feedback(table, store.feedback(window), judges=usable_versions(store))
    weights = QualityWeights()
    verdict = which_failed(outcomes, quality(outcomes, weights), weights)
    told = outcomes.take(verdict.told)
    texts = tuple(str(prompt or "") for prompt in told.prompts)
    if not texts:
        return None
    vectors = embed(texts, encoder, cache=store) if encoder else None
    users = [str(user or "") for user in told.user_ids]
    found = find_failure_clusters(
        texts, verdict.failed[verdict.told], embeddings=vectors, users=users, rng=rng
    )
    if found.reason:
        logger.info("no failure cluster of %s yet: %s", version, found.reason)
    return found.clusters[0].name if found.clusters else None
