"""What a version's live trouble is mostly about: failures since it began, told at once.

A cycle's analysis tells it thoroughly and later. A release that is taken back within a minute has
few answers, too few to show which messages are alike; the messages that came before show that.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratchet.analyze.failures.clusters import MINIMUM_FAILED, counted_rows, scan_rows
from ratchet.analyze.failures.corpus import Grouped, group, prepare
from ratchet.analyze.failures.embedding import embed
from ratchet.analyze.failures.failed import which_failed
from ratchet.analyze.failures.words import name_groups
from ratchet.judges.usable import usable_versions
from ratchet.models import Encoder
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Analysis
from ratchet.store import EventStore, Window

logger = logging.getLogger(__name__)

BoolArray = NDArray[np.bool_]
MOST = 2_000
"""Interactions of the version that are looked at, the latest ones."""
BEFORE, MOST_BEFORE = timedelta(hours=1), 1_000
"""Messages from before the trouble that show which are alike, of whatever version."""


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

    The version's messages and those from the hour before are put into one hierarchy that knows
    nothing of what failed; its nodes are scanned for more failures among the version's own answers
    than outside, one row of each user in each group.

    Assumptions: as of `ratchet.analyze.failures.find_failure_clusters`.
    Error rate: where failures do not depend on the message, anything is named in at most 2 % of
    calls, which `tests/analyze/failures/test_live_cluster.py` checks; what fails everywhere alike
    has no name. When not to use: for rates or sizes; a cycle's analysis has them.

    Args:
        store: The store.
        version: The version.
        since: When its trouble began.
        until: Up to when.
        encoder: Makes vectors of messages; their words do where None.
        rng: Source of randomness.
    """
    window = Window(since, until, version)
    table = _latest(store.interactions(window), MOST)
    if not table.num_rows:
        return None
    outcomes = join_feedback(table, store.told_feedback(window), judges=usable_versions(store))
    weights = QualityWeights()
    verdict = which_failed(outcomes, quality(outcomes, weights), weights)
    told, failed = outcomes.take(verdict.told), verdict.failed[verdict.told]
    if int(failed.sum()) < MINIMUM_FAILED or failed.all():
        return None
    earlier = _latest(store.interactions(Window(since - BEFORE, since)), MOST_BEFORE)
    around = earlier["prompt"].to_pylist()
    texts = [str(prompt or "") for prompt in (*told.prompts, *around)]
    users = [*(str(user or "") for user in told.user_ids), *("" for _ in around)]
    own = np.arange(len(texts)) < failed.size
    flags = np.concatenate([failed, np.zeros(len(around), dtype=np.bool_)])
    corpus = prepare(texts, embed(texts, encoder, cache=store) if encoder else None, rng)
    if len(corpus.vectors) < 2:
        return None
    return _worst(texts, flags, own, users, group(corpus, rng), rng)


def largest_cluster(analysis: Analysis) -> str | None:
    """Name the largest failure cluster of an analysis; None where it found none."""
    largest = max(analysis.clusters, key=lambda cluster: cluster.size, default=None)
    return largest.name if largest else None


def _latest(table: pa.Table, most: int) -> pa.Table:
    return table.slice(max(0, table.num_rows - most))


def _worst(
    texts: list[str],
    failed: BoolArray,
    own: BoolArray,
    users: list[str],
    grouped: Grouped,
    rng: np.random.Generator,
) -> str | None:
    """Scan for groups with more failures among the version's own rows; name the largest."""
    counted = own & counted_rows(texts, failed, grouped, users, rng)
    scanned = scan_rows(grouped, failed, counted, rng)
    if not scanned.regions:
        logger.info("no failure cluster yet: the likeliest has p = %.2g", scanned.least_p_value)
        return None
    cells = grouped.cell_of_row
    members = [np.flatnonzero(failed & np.isin(cells, region.cells)) for region in scanned.regions]
    largest = max(range(len(members)), key=lambda place: members[place].size)
    return name_groups(texts, members)[largest]
